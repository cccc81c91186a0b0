//! Who asks: this node's own kubelet and friends, or the bearer of a token.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::upstream::Credential;

/// An authenticated caller. Nobody's identity is lent to another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// A client certificate of the cluster that names this node.
    Node,
    /// A bearer token; whose it is the API server knows.
    Token(Token),
}

/// A bearer token and the digest by which it is recognised while the cloud is away.
#[derive(Clone)]
pub(crate) struct Token {
    secret: Arc<str>,
    digest: Arc<str>,
    subject: Option<Arc<str>>,
}

impl Caller {
    /// Reads the caller of a request without a client certificate; `None` if it names nobody.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' '))
            .then(|| Self::Token(Token::new(token)))
    }

    /// Returns with which of the node's connections the caller's requests go to the cloud.
    pub(crate) fn credential(&self) -> Credential {
        match self {
            Self::Node => Credential::Node,
            Self::Token(_) => Credential::Bearer,
        }
    }

    /// Puts the caller's own identity into a request to the cloud.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        if let Self::Token(token) = self {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.secret));
            let mut value = value.expect("the token was read from a header");
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }

    /// Returns whose token it is, as the token itself says: nobody has checked it. `None` for the node.
    pub(crate) fn subject(&self) -> Option<&str> {
        match self {
            Self::Node => None,
            Self::Token(token) => token.subject.as_deref(),
        }
    }

    /// Returns the text by which the caller is remembered: never a secret.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Node => "node",
            Self::Token(token) => &token.digest,
        }
    }
}

impl Token {
    fn new(secret: &str) -> Self {
        let digest = Sha256::digest(secret.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            secret: secret.into(),
            digest: digest.into(),
            subject: subject_of(secret),
        }
    }
}

/// Reads the subject of a JSON Web Token.
fn subject_of(token: &str) -> Option<Arc<str>> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.sub.into())
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Token {}

impl std::hash::Hash for Token {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "Node",
            Self::Token(_) => "Token(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(value: &str) -> Option<Caller> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        Caller::from_headers(&headers)
    }

    #[test]
    fn a_bearer_token_is_a_caller_and_nothing_else_is() {
        assert_eq!(caller("Bearer abc"), caller("bearer  abc "));
        assert_ne!(caller("Bearer abc"), caller("Bearer abd"));
        for bad in ["Basic abc", "Bearer", "Bearer ", "Bearer a b", "abc"] {
            assert!(caller(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_token_says_whose_it_is_and_garbage_says_nothing() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"system:serviceaccount:a:b","x":1}"#);
        let subject = |token: &str| {
            let caller = caller(&format!("Bearer {token}")).unwrap();
            caller.subject().map(str::to_owned)
        };
        assert_eq!(
            subject(&format!("e30.{claims}.c")).as_deref(),
            Some("system:serviceaccount:a:b")
        );
        for garbage in ["abc", "a.b.c", "..", &claims, &format!("{claims}.e30.c")] {
            assert_eq!(subject(garbage), None, "{garbage}");
        }
        assert_eq!(Caller::Node.subject(), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let caller = caller("Bearer hunter2").unwrap();
        assert_eq!(format!("{caller:?}"), "Token(…)");
        assert!(!caller.id().contains("hunter2"));
    }
}
