use serde_json::{Value, json};

use super::*;

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn token(header: &Value, claims: &Value) -> String {
    format!("{}.{}.c2ln", part(header), part(claims))
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k"})
}

fn claims() -> Value {
    json!({
        "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:shop:till",
        "aud": ["https://kubernetes.default.svc"],
        "exp": 1_800_003_600,
        "nbf": 1_800_000_000,
        "iat": 1_800_000_000,
        "jti": "unknown to us",
        "kubernetes.io": {
            "namespace": "shop",
            "serviceaccount": {"name": "till", "uid": "u1"},
            "pod": {"name": "till-1", "uid": "u2"},
            "node": {"name": "n1", "uid": "u3"},
            "warnafter": 1_800_003_000,
        },
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut changed = claims();
    change(&mut changed);
    changed
}

#[test]
fn a_token_of_a_service_account_is_read() {
    let text = token(&header(), &claims());
    let jwt = Jwt::parse(&text).unwrap();
    assert_eq!(jwt.signed, &text.as_bytes()[..text.len() - 5]);
    assert_eq!(jwt.signature, b"sig");
    assert_eq!(
        (jwt.algorithm, jwt.key_id.as_deref()),
        (Algorithm::Es256, Some("k"))
    );
    let account = jwt.claims.account.unwrap();
    assert_eq!(account.user_name(), "system:serviceaccount:shop:till");
    assert_eq!(account.pod.unwrap().uid, "u2");
    assert_eq!(jwt.claims.validity.expires.as_second(), 1_800_003_600);
}

#[test]
fn what_is_not_a_signed_token_with_claims_is_refused_with_the_reason() {
    let good = token(&header(), &claims());
    let (head, rest) = good.split_once('.').unwrap();
    let alg = |alg: &str| token(&json!({"alg": alg}), &claims());
    let table = [
        (String::new(), TokenError::Parts),
        ("abc".to_owned(), TokenError::Parts),
        ("a.b".to_owned(), TokenError::Parts),
        (format!("{good}.x"), TokenError::Parts),
        ("x".repeat(LIMIT + 1), TokenError::TooLong),
        (format!("{head}=.{rest}"), TokenError::Base64),
        (format!("{good}!"), TokenError::Base64),
        (format!("!.{rest}"), TokenError::Base64),
        (format!(".{rest}"), TokenError::Header),
        (format!("W10.{rest}"), TokenError::Header),
        (
            token(&json!({"alg": "ES256", "crit": ["x"]}), &claims()),
            TokenError::Header,
        ),
        (alg("none"), TokenError::Algorithm),
        (alg("None"), TokenError::Algorithm),
        (alg("HS256"), TokenError::Algorithm),
        (alg("PS256"), TokenError::Algorithm),
        (alg(""), TokenError::Algorithm),
        (format!("{head}..c2ln"), TokenError::Claims),
        (format!("{head}.bnVsbA.c2ln"), TokenError::Claims),
    ];
    for (text, expected) in table {
        assert_eq!(Jwt::parse(&text).unwrap_err(), expected, "{text:.60}");
    }
}

#[test]
fn claims_of_another_type_are_refused() {
    for (name, value) in [
        ("iss", json!(7)),
        ("iss", json!(null)),
        ("sub", json!(["x"])),
        ("aud", json!(7)),
        ("aud", json!([7])),
        ("aud", json!(vec!["x"; AUDIENCES + 1])),
        ("exp", json!("1800003600")),
        ("exp", json!(null)),
        ("exp", json!(1e300)),
        ("exp", json!(i64::MAX)),
        ("nbf", json!("now")),
        ("iat", json!(i64::MIN)),
        ("kubernetes.io", json!("x")),
    ] {
        let text = token(&header(), &with(|claims| claims[name] = value.clone()));
        assert_eq!(
            Jwt::parse(&text).unwrap_err(),
            TokenError::Claims,
            "{name} {value:.30}"
        );
    }
}

#[test]
fn a_claim_that_comes_twice_is_refused() {
    let twice = claims().to_string().replacen('{', r#"{"exp":1,"#, 1);
    let text = format!("{}.{}.c2ln", part(&header()), URL_SAFE_NO_PAD.encode(twice));
    assert_eq!(Jwt::parse(&text).unwrap_err(), TokenError::Claims);
}

#[test]
fn an_account_is_who_subject_and_private_claims_name_alike() {
    let account = |change: &dyn Fn(&mut Value)| {
        let text = token(&header(), &with(|claims| change(claims)));
        Jwt::parse(&text).unwrap().claims.account
    };
    assert!(account(&|_| {}).is_some());
    let private = "kubernetes.io";
    let others: [&dyn Fn(&mut Value); 6] = [
        &|claims| claims["sub"] = json!("system:serviceaccount:shop:boss"),
        &|claims| claims["sub"] = json!("alice"),
        &|claims| claims[private]["namespace"] = json!("kube-system"),
        &|claims| {
            claims[private]["namespace"] = json!("shop:x");
            claims["sub"] = json!("system:serviceaccount:shop:x:till");
        },
        &|claims| {
            claims[private]["serviceaccount"]["name"] = json!("a/b");
            claims["sub"] = json!("system:serviceaccount:shop:a/b");
        },
        &|claims| claims[private] = json!(null),
    ];
    for change in others {
        assert_eq!(account(change), None);
    }
}

#[test]
fn a_token_from_the_future_is_not_valid_yet_whatever_it_says() {
    let text = token(
        &header(),
        &with(|claims| {
            claims["nbf"] = json!(1);
            claims["iat"] = json!(1_800_000_000);
        }),
    );
    let validity = Jwt::parse(&text).unwrap().claims.validity;
    assert_eq!(validity.not_before.unwrap().as_second(), 1_800_000_000);
}

#[test]
fn a_token_is_never_printed() {
    let text = token(&header(), &claims());
    let printed = format!("{:?}", Jwt::parse(&text).unwrap());
    assert!(!printed.contains("c2ln") && !printed.contains(&text[..40]));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = Jwt::parse(&text);
    }

    #[test]
    fn a_damaged_token_is_read_or_refused(at: proptest::sample::Index, byte in 0u8..128) {
        let mut bytes = token(&header(), &claims()).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Jwt::parse(std::str::from_utf8(&bytes).unwrap());
    }

    #[test]
    fn any_claims_are_read_or_refused(json: Vec<u8>) {
        let _ = Claims::parse(&json);
    }
}
