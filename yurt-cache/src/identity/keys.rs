//! The keys that sign tokens, as a JSON Web Key Set (RFC 7517) has them, and what they verify.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm, alg_id};
use serde::Deserialize;

use super::token::{Algorithm, Jwt};
use crate::tls;

/// Keys that are read of one set: a cluster has one, and two while it rotates.
const KEYS: usize = 64;

/// The longest modulus: 8192 bits, the most that the providers verify.
const MODULUS: usize = 1_024;

/// What a set of keys says of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    Good,
    Bad,
    /// It is by a key that is not in the set.
    UnknownKey,
}

/// Public keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// The only one that it may be used with, if it says so.
    algorithm: Option<Algorithm>,
    family: Family,
    /// As `subjectPublicKey` has it.
    public: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

#[derive(Deserialize)]
struct ReceivedSet {
    keys: Vec<ReceivedKey>,
}

#[derive(Deserialize)]
struct ReceivedKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set; keys of kinds that we do not know are left out.
    ///
    /// # Errors
    /// If it is not a set of keys at all.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let received: ReceivedSet = serde_json::from_slice(json)?;
        let keys = received.keys.into_iter().take(KEYS);
        Ok(Self(keys.filter_map(Key::from_received).collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies the signature of a token.
    pub(crate) fn verify(&self, token: &Jwt<'_>) -> Verification {
        let candidates = self.0.iter().filter(|key| match &token.key_id {
            Some(id) => key.id.as_ref() == Some(id),
            None => true,
        });
        let mut verification = Verification::UnknownKey;
        for key in candidates {
            if key.has_signed(token) {
                return Verification::Good;
            }
            verification = Verification::Bad;
        }
        verification
    }
}

impl Key {
    fn from_received(received: ReceivedKey) -> Option<Self> {
        if received
            .purpose
            .as_ref()
            .is_some_and(|purpose| purpose != "sig")
        {
            return None;
        }
        let algorithm = match &received.alg {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        let decode = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let (family, public) = match (received.kty.as_str(), received.crv.as_deref()) {
            ("RSA", _) => (
                Family::Rsa,
                rsa_public_key(&decode(&received.n)?, &decode(&received.e)?)?,
            ),
            ("EC", Some("P-256")) => (
                Family::P256,
                point(&decode(&received.x)?, &decode(&received.y)?, 32)?,
            ),
            ("EC", Some("P-384")) => (
                Family::P384,
                point(&decode(&received.x)?, &decode(&received.y)?, 48)?,
            ),
            ("OKP", Some("Ed25519")) => (
                Family::Ed25519,
                decode(&received.x).filter(|key| key.len() == 32)?,
            ),
            _ => return None,
        };
        Some(Self {
            id: received.kid,
            algorithm,
            family,
            public,
        })
    }

    fn has_signed(&self, token: &Jwt<'_>) -> bool {
        let (family, key, signature) = parameters(token.algorithm);
        let is_allowed = self
            .algorithm
            .is_none_or(|algorithm| algorithm == token.algorithm);
        if !is_allowed || family != self.family {
            return false;
        }
        let signed = match self.family {
            Family::Rsa | Family::Ed25519 => Some(token.signature.clone()),
            Family::P256 => ecdsa_der(&token.signature, 32),
            Family::P384 => ecdsa_der(&token.signature, 48),
        };
        let (Some(verifier), Some(signed)) = (verifier(key, signature), signed) else {
            return false;
        };
        verifier
            .verify_signature(&self.public, token.signed, &signed)
            .is_ok()
    }
}

/// Which keys an algorithm is for, and how X.509 names both: the language of the crypto providers.
fn parameters(algorithm: Algorithm) -> (Family, AlgorithmIdentifier, AlgorithmIdentifier) {
    let rsa = |signature| (Family::Rsa, alg_id::RSA_ENCRYPTION, signature);
    match algorithm {
        Algorithm::Rs256 => rsa(alg_id::RSA_PKCS1_SHA256),
        Algorithm::Rs384 => rsa(alg_id::RSA_PKCS1_SHA384),
        Algorithm::Rs512 => rsa(alg_id::RSA_PKCS1_SHA512),
        Algorithm::Es256 => (Family::P256, alg_id::ECDSA_P256, alg_id::ECDSA_SHA256),
        Algorithm::Es384 => (Family::P384, alg_id::ECDSA_P384, alg_id::ECDSA_SHA384),
        Algorithm::EdDsa => (Family::Ed25519, alg_id::ED25519, alg_id::ED25519),
    }
}

fn verifier(
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    let all = tls::provider().signature_verification_algorithms.all;
    let mut found = all.iter().copied();
    found.find(|one| one.public_key_alg_id() == key && one.signature_alg_id() == signature)
}

/// An uncompressed point of a curve.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

/// `RSAPublicKey` of PKCS #1, DER.
fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    if modulus.len() > MODULUS + 1 || exponent.len() > 8 {
        return None;
    }
    Some(sequence(&[integer(modulus), integer(exponent)].concat()))
}

/// The two numbers of an ECDSA signature as DER has them; a token has them side by side.
fn ecdsa_der(signature: &[u8], length: usize) -> Option<Vec<u8>> {
    if signature.len() != 2 * length {
        return None;
    }
    let (r, s) = signature.split_at(length);
    Some(sequence(&[integer(r), integer(s)].concat()))
}

/// The two numbers of an ECDSA signature in DER, side by side as a token has them.
pub(crate) fn ecdsa_raw(der: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut rest = der.strip_prefix(&[0x30])?.get(1..)?;
    let mut raw = Vec::with_capacity(2 * length);
    for _ in 0..2 {
        let [0x02, count, after @ ..] = rest else {
            return None;
        };
        let (number, after) = after.split_at_checked(usize::from(*count))?;
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let digits = &number[zeros..];
        raw.resize(raw.len() + length.checked_sub(digits.len())?, 0);
        raw.extend_from_slice(digits);
        rest = after;
    }
    Some(raw)
}

/// A number that is not negative, DER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros.min(bytes.len().saturating_sub(1))..];
    let is_padded = digits.first().is_none_or(|byte| byte & 0x80 != 0);
    let mut content = Vec::with_capacity(digits.len() + 1);
    if is_padded {
        content.push(0);
    }
    content.extend_from_slice(digits);
    element(0x02, &content)
}

fn sequence(content: &[u8]) -> Vec<u8> {
    element(0x30, content)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let digits = &length[zeros..];
    let mut element = vec![tag];
    match digits {
        [] => element.push(0),
        [short] if *short < 0x80 => element.push(*short),
        digits => {
            let count = u8::try_from(digits.len()).expect("a length has eight bytes at most");
            element.push(0x80 | count);
            element.extend_from_slice(digits);
        }
    }
    element.extend_from_slice(content);
    element
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
