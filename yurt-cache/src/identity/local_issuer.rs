//! Tokens of the hub's own for this node's pods while the cloud is away: short-lived, and good for this hub only,
//! because nobody else knows its key, its issuer or its audience.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use yurt_core::credentials::{CredentialsError, read_file};
use yurt_core::files;
use yurt_core::name::NodeName;

use super::judge::later;
use super::keys::ecdsa_raw;
use super::token::{Account, BoundPod};
use super::trust::{SavedTrust, Trust};

const KEY_FILE: &str = "hub-token.key";

/// How long one lives: the shortest that Kubernetes knows, so that the real one is asked for soon after the
/// link is back.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("make the key of the hub's own tokens")]
pub(crate) struct LocalIssuerError(#[source] rcgen::Error);

/// A key that signs tokens for this hub.
pub(crate) struct LocalIssuer {
    issuer: String,
    key: KeyPair,
    key_id: String,
    trust: Trust,
}

/// Whether this hub shall accept a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It stands for one of the API server.
    Api,
    /// It stands for one of somebody else, who will not take it: its pod starts, and that is all.
    Elsewhere,
}

/// A token and its end.
pub(crate) struct LocalToken {
    pub(crate) token: String,
    pub(crate) expires: Timestamp,
}

impl LocalIssuer {
    /// Takes the key that an earlier start left in `dir`, or makes one; blocks on the disk.
    pub(crate) fn load_or_make(dir: &Path, node: &NodeName) -> Result<Self, LocalIssuerError> {
        let key = match load(&dir.join(KEY_FILE)) {
            Some(key) => key,
            None => make(dir)?,
        };
        let point = key.der_bytes();
        let digest = Sha256::digest(point);
        let key_id = URL_SAFE_NO_PAD.encode(&digest[..12]);
        let issuer = format!("urn:yurt:hub:{node}");
        let half = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        let keys = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "kid": key_id, "x": half(1), "y": half(33),
        }]});
        let trust = Trust::from_saved(SavedTrust {
            issuer: issuer.clone(),
            audiences: vec![issuer.clone()],
            keys: keys.to_string(),
        });
        Ok(Self {
            trust: trust.expect("one key and a name were written above"),
            issuer,
            key,
            key_id,
        })
    }

    /// Returns what vouches for its tokens.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Makes a token of an account for a pod.
    pub(crate) fn issue(
        &self,
        account: &Account,
        pod: &BoundPod,
        purpose: Purpose,
        now: Timestamp,
    ) -> Option<LocalToken> {
        let expires = later(now, LIFETIME);
        let audience = match purpose {
            Purpose::Api => self.issuer.clone(),
            Purpose::Elsewhere => format!("{}:elsewhere", self.issuer),
        };
        let claims = json!({
            "iss": self.issuer,
            "sub": account.user_name(),
            "aud": [audience],
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "exp": expires.as_second(),
            "jti": format!("{:032x}", fastrand::u128(..)),
            "kubernetes.io": {
                "namespace": account.namespace,
                "serviceaccount": {"name": account.name},
                "pod": {"name": pod.name, "uid": pod.uid},
            },
        });
        let token = self.sign(&claims)?;
        Some(LocalToken { token, expires })
    }

    fn sign(&self, claims: &Value) -> Option<String> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.key_id});
        let signed = format!("{}.{}", part(&header), part(claims));
        // Signing fails only where there is no randomness.
        let signature = self.key.sign(signed.as_bytes()).ok()?;
        let signature = URL_SAFE_NO_PAD.encode(ecdsa_raw(&signature, 32)?);
        Some(format!("{signed}.{signature}"))
    }
}

fn load(path: &Path) -> Option<KeyPair> {
    let read = read_file(path);
    if read.as_ref().is_err_and(CredentialsError::is_missing) {
        return None;
    }
    let text = read.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let key = text.and_then(|text| KeyPair::from_pem(&text).ok());
    let key = key.filter(|key| key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256));
    if key.is_none() {
        tracing::warn!(path = %path.display(), "the key of the hub's own tokens is broken: making another");
    }
    key
}

fn make(dir: &Path) -> Result<KeyPair, LocalIssuerError> {
    let key = KeyPair::generate().map_err(LocalIssuerError)?;
    if let Err(error) = files::replace(dir, &[(KEY_FILE, &key.serialize_pem(), 0o600)]) {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(
            error,
            "the key of the hub's own tokens is good for this run only"
        );
    }
    Ok(key)
}

impl fmt::Debug for LocalIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIssuer")
            .field("issuer", &self.issuer)
            .field("key", &format_args!("…"))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::super::token::Jwt;
    use super::super::trust::Vouch;
    use super::*;

    fn mint(dir: &TempDir, node: &str) -> LocalIssuer {
        LocalIssuer::load_or_make(dir.path(), &node.parse().unwrap()).unwrap()
    }

    fn order() -> (Account, BoundPod) {
        let pod = BoundPod {
            name: "till-1".to_owned(),
            uid: "u".to_owned(),
        };
        let account = Account {
            namespace: "shop".to_owned(),
            name: "till".to_owned(),
            uid: None,
            pod: Some(pod.clone()),
        };
        (account, pod)
    }

    fn issue(mint: &LocalIssuer, purpose: Purpose) -> String {
        let (account, pod) = order();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let minted = mint.issue(&account, &pod, purpose, now).unwrap();
        assert_eq!(minted.expires.as_second(), 1_800_000_600);
        minted.token
    }

    fn vouch(mint: &LocalIssuer, token: &str) -> Vouch {
        mint.trust().vouch(&Jwt::parse(token).unwrap())
    }

    #[test]
    fn its_tokens_are_good_for_itself_also_after_a_restart() {
        let dir = TempDir::new().unwrap();
        let first = mint(&dir, "n1");
        let token = issue(&first, Purpose::Api);
        assert_eq!(vouch(&first, &token), Vouch::For(order().0));
        assert_eq!(vouch(&mint(&dir, "n1"), &token), Vouch::For(order().0));
        assert_ne!(token, issue(&first, Purpose::Api), "each is another");
    }

    #[test]
    fn its_tokens_are_good_for_nobody_else() {
        let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let token = issue(&mint(&dir, "n1"), Purpose::Api);
        assert_eq!(vouch(&mint(&other, "n1"), &token), Vouch::UnknownKey);
        assert_eq!(vouch(&mint(&dir, "n2"), &token), Vouch::No);
    }

    #[test]
    fn a_token_for_somebody_else_does_not_open_this_door() {
        let dir = TempDir::new().unwrap();
        let mint = mint(&dir, "n1");
        let token = issue(&mint, Purpose::Elsewhere);
        assert_eq!(vouch(&mint, &token), Vouch::OtherAudience);
    }

    #[test]
    fn its_key_is_for_the_owner_alone_and_made_again_when_it_is_broken() {
        let dir = TempDir::new().unwrap();
        let token = issue(&mint(&dir, "n1"), Purpose::Api);
        let path = dir.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        files::replace(dir.path(), &[(KEY_FILE, "garbage", 0o600)]).unwrap();
        assert_eq!(vouch(&mint(&dir, "n1"), &token), Vouch::UnknownKey);
        assert!(!format!("{:?}", mint(&dir, "n1")).contains("PRIVATE"));
    }
}
