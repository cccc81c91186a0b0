//! Service-account tokens as an API server signs them: real signatures, and a record of what was signed.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use parking_lot::Mutex;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};

/// What kube-apiserver's own name is unless it is told another.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// A key that signs tokens, and the tokens that it has signed.
pub struct TokenIssuer {
    name: String,
    audience: String,
    key: KeyPair,
    key_id: String,
    issued: Mutex<BTreeMap<String, Value>>,
}

impl TokenIssuer {
    /// Makes an issuer of this name with a new key (ES256).
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a P-256 key needs only randomness");
        let key_id = URL_SAFE_NO_PAD.encode(&key.der_bytes()[1..13]);
        Self {
            name: name.to_owned(),
            audience: name.to_owned(),
            key,
            key_id,
            issued: Mutex::default(),
        }
    }

    /// Makes it sign for another audience than its own name.
    #[must_use]
    pub fn with_audience(mut self, audience: &str) -> Self {
        audience.clone_into(&mut self.audience);
        self
    }

    /// Returns whom its tokens are for.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Returns its name, the `iss` of its tokens.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the id of its key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Returns claims as the API server makes them for a service account, valid from now for so many seconds.
    pub fn claims(&self, namespace: &str, name: &str, now: Timestamp, seconds: i64) -> Value {
        let begins = now.as_second();
        json!({
            "iss": self.name,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "aud": [self.name],
            "exp": begins + seconds,
            "nbf": begins,
            "iat": begins,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": name, "uid": "00000000-0000-0000-0000-000000000001"},
            },
        })
    }

    /// Signs claims, whatever they say.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.key_id, "typ": "JWT"});
        let token = self.sign_with(&header, claims);
        self.issued.lock().insert(token.clone(), claims.clone());
        token
    }

    /// Signs claims under any header, as only a forger does: the API server does not take it.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(signed.as_bytes());
        let signature = raw(&signature.expect("the key signs"));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Takes a token back, as when its pod is deleted.
    pub fn revoke(&self, token: &str) {
        self.issued.lock().remove(token);
    }

    /// Returns the claims of a token that is good at this time for this audience.
    pub(crate) fn good(&self, token: &str, now: Timestamp) -> Option<Value> {
        let claims = self.issued.lock().get(token).cloned()?;
        let time = |name: &str| claims[name].as_i64();
        let is_alive = time("exp")? > now.as_second() && time("nbf")? <= now.as_second();
        let is_ours = claims["iss"] == self.name
            && claims["aud"]
                .as_array()?
                .iter()
                .any(|one| *one == self.audience);
        (is_alive && is_ours).then_some(claims)
    }

    /// Returns its public key as the API server shows it.
    pub fn key_set(&self) -> Value {
        let point = self.key.der_bytes();
        json!({"keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]})
    }

    /// Returns what the API server says of its tokens.
    pub(crate) fn configuration(&self) -> Value {
        json!({
            "issuer": self.name,
            "jwks_uri": format!("{}/openid/v1/jwks", self.name),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// The two numbers of a DER signature side by side.
fn raw(der: &[u8]) -> [u8; 64] {
    let mut raw = [0; 64];
    let mut at = 2;
    for half in raw.chunks_exact_mut(32) {
        let length = usize::from(der[at + 1]);
        let digits = &der[at + 2..at + 2 + length];
        let digits = &digits[digits.len().saturating_sub(32)..];
        half[32 - digits.len()..].copy_from_slice(digits);
        at += 2 + length;
    }
    raw
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
