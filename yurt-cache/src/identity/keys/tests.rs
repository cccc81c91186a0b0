use std::collections::BTreeMap;

use super::*;

/// Keys and tokens made by OpenSSL, whose private keys nobody has.
const VECTORS: &str = include_str!("vectors.json");

#[derive(Deserialize)]
struct Vectors {
    tokens: BTreeMap<String, String>,
}

fn keys() -> KeySet {
    KeySet::parse(VECTORS.as_bytes()).unwrap()
}

fn tokens() -> BTreeMap<String, String> {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    vectors.tokens
}

fn verify(keys: &KeySet, text: &str) -> Verification {
    keys.verify(&Jwt::parse(text).unwrap())
}

/// Replaces one character of a part.
fn damaged(text: &str, part: usize, at: usize) -> String {
    let mut parts: Vec<Vec<u8>> = text.split('.').map(|part| part.into()).collect();
    let byte = &mut parts[part][at];
    *byte = if *byte == b'A' { b'B' } else { b'A' };
    let parts: Vec<String> = parts
        .into_iter()
        .map(|part| String::from_utf8(part).unwrap())
        .collect();
    parts.join(".")
}

#[test]
fn every_algorithm_verifies_what_it_signed_and_nothing_else() {
    let (keys, tokens) = (keys(), tokens());
    assert_eq!(
        tokens.keys().collect::<Vec<_>>(),
        ["ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512"]
    );
    for (name, text) in &tokens {
        assert_eq!(verify(&keys, text), Verification::Good, "{name}");
        let signature = text.rsplit('.').next().unwrap();
        for at in [0, signature.len() / 2, signature.len() - 3] {
            assert_eq!(
                verify(&keys, &damaged(text, 2, at)),
                Verification::Bad,
                "{name} {at}"
            );
        }
        let (signed, _) = text.rsplit_once('.').unwrap();
        let whole = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for short in [&[][..], &whole[1..], &whole[..whole.len() - 1]] {
            let short = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(short));
            assert_eq!(verify(&keys, &short), Verification::Bad, "{name}");
        }
    }
}

#[test]
fn other_claims_under_a_good_signature_are_bad() {
    let other = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://i","sub":"root","exp":1800003600}"#);
    for (name, text) in tokens() {
        let parts: Vec<&str> = text.split('.').collect();
        let forged = format!("{}.{other}.{}", parts[0], parts[2]);
        assert_eq!(verify(&keys(), &forged), Verification::Bad, "{name}");
    }
}

#[test]
fn a_key_that_is_not_in_the_set_is_told_from_a_bad_signature() {
    for (name, text) in tokens() {
        assert_eq!(
            verify(&KeySet::default(), &text),
            Verification::UnknownKey,
            "{name}"
        );
        let (_, rest) = text.split_once('.').unwrap();
        let named = |kid: &str| {
            let header = format!(r#"{{"alg":"{name}","kid":"{kid}"}}"#);
            format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
        };
        assert_eq!(verify(&keys(), &named("other")), Verification::UnknownKey);
        // A key for encryption is no key to us.
        assert_eq!(verify(&keys(), &named("enc")), Verification::UnknownKey);
        // And a key that is there is for its own kind of signature only.
        let another = if name.starts_with("RS") {
            "P-256"
        } else {
            "rsa"
        };
        assert_eq!(verify(&keys(), &named(another)), Verification::Bad);
        assert_eq!(verify(&keys(), &named("small")), Verification::Bad);
    }
}

#[test]
fn a_set_leaves_out_what_it_does_not_know_and_is_bounded() {
    assert_eq!(keys().0.len(), 5);
    let many: Vec<_> = (0..200)
        .map(|_| serde_json::json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}))
        .collect();
    let many = serde_json::json!({ "keys": many }).to_string();
    assert_eq!(KeySet::parse(many.as_bytes()).unwrap().0.len(), KEYS);
    for odd in [
        r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
        r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#,
        r#"{"kty":"RSA","n":"!","e":"AQAB"}"#,
        r#"{"kty":"RSA","e":"AQAB"}"#,
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"none"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#,
    ] {
        let set = KeySet::parse(format!(r#"{{"keys":[{odd}]}}"#).as_bytes()).unwrap();
        assert!(set.is_empty(), "{odd}");
    }
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[{}]}"#] {
        assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn numbers_are_written_as_der_has_them() {
    for (bytes, der) in [
        (&[][..], &[2, 1, 0][..]),
        (&[0, 0], &[2, 1, 0]),
        (&[0, 1], &[2, 1, 1]),
        (&[0x7f], &[2, 1, 0x7f]),
        (&[0x80], &[2, 2, 0, 0x80]),
        (&[0, 0, 0xff, 1], &[2, 3, 0, 0xff, 1]),
    ] {
        assert_eq!(integer(bytes), der, "{bytes:?}");
    }
    assert_eq!(sequence(&[7; 200])[..3], [0x30, 0x81, 200]);
    assert_eq!(sequence(&[7; 300])[..4], [0x30, 0x82, 1, 44]);
}

proptest::proptest! {
    #[test]
    fn any_set_is_read_or_refused(json: Vec<u8>) {
        let _ = KeySet::parse(&json);
    }

    #[test]
    fn a_signature_comes_back_from_der_as_it_went(signature in proptest::collection::vec(0u8.., 64)) {
        let der = ecdsa_der(&signature, 32).unwrap();
        proptest::prop_assert_eq!(ecdsa_raw(&der, 32), Some(signature));
    }

    #[test]
    fn any_der_is_a_signature_or_none(der: Vec<u8>) {
        let _ = ecdsa_raw(&der, 32);
    }

    #[test]
    fn any_key_and_signature_are_verified_or_not(n: Vec<u8>, signature: Vec<u8>) {
        let text = tokens().remove("RS256").unwrap();
        let (signed, _) = text.rsplit_once('.').unwrap();
        let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let n = URL_SAFE_NO_PAD.encode(n);
        let set = serde_json::json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}).to_string();
        let set = KeySet::parse(set.as_bytes()).unwrap();
        let jwt = Jwt::parse(&text).unwrap();
        proptest::prop_assert_ne!(set.verify(&jwt), Verification::Good);
    }
}
