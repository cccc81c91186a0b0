//! Who asks: this node's own kubelet and friends, or the bearer of a token.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::token::{Account, Validity};
use crate::limits::Tenant;
use crate::upstream::client::Client;
use crate::upstream::{Credential, Upstream};

/// An authenticated caller. Nobody's identity is lent to another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// A client certificate of the cluster that names this node.
    Node,
    /// A bearer token; whose it is the API server knows, and of a service account's also we.
    Token(Token),
}

/// A bearer token, the digest by which it is recognised while the cloud is away, and what is known of it.
#[derive(Clone)]
pub(crate) struct Token {
    secret: Arc<str>,
    digest: Arc<str>,
    identified: Option<Arc<Identified>>,
    /// Whose it is by its own word.
    claimed: Option<Arc<str>>,
    stranger: Option<Stranger>,
}

/// Where a token came from for which nobody has vouched yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) source: IpAddr,
    /// Why the cloud need not be asked.
    pub(crate) refused: Option<Refused>,
}

/// Why a token is refused without the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the token has the cluster's name and is not signed by its keys")]
    Forged,
    #[error("the cloud refused this token a moment ago")]
    Lately,
}

/// What a token says of itself, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) validity: Validity,
    pub(crate) subject: Option<Subject>,
}

/// A service account that somebody's keys vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// As Kubernetes names it as a user.
    pub(crate) user_name: String,
    pub(crate) account: Account,
    pub(crate) issuer: Issuer,
}

/// Whose keys vouch for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Issuer {
    Cluster,
    /// This hub made it while the cloud was away; nobody else takes it.
    Hub,
}

impl Caller {
    /// Returns with which of the node's connections the caller's requests go to the cloud.
    pub(crate) fn credential(&self) -> Credential {
        match self {
            Self::Node => Credential::Node,
            Self::Token(token) if token.stranger.is_some() => Credential::Stranger,
            Self::Token(_) => Credential::Bearer,
        }
    }

    /// Returns whose share its requests and mirrors are counted to, once it is recognised.
    pub(crate) fn tenant(&self) -> Tenant {
        match self {
            Self::Node => Tenant::Node,
            Self::Token(_) => Tenant::Caller(self.id().into()),
        }
    }

    /// Puts the caller's own identity into a request to the cloud.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        headers.extend(self.authorization().map(|value| (AUTHORIZATION, value)));
    }

    /// Returns who asks the API as the caller.
    pub(crate) fn client<'a>(&self, upstream: &'a Upstream) -> Client<'a> {
        Client::new(upstream, self.credential(), self.authorization())
    }

    fn authorization(&self) -> Option<HeaderValue> {
        let Self::Token(token) = self else {
            return None;
        };
        // What is no header, as from a file with a slip in it, makes the caller nobody.
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns whose token it is: as keys vouch for, else as the token itself says, which nobody has checked.
    /// `None` for the node.
    pub(crate) fn claims_to_be(&self) -> Option<&str> {
        match self {
            Self::Node => None,
            Self::Token(token) => match token.subject() {
                Some(subject) => Some(&subject.user_name),
                None => token.claimed.as_deref(),
            },
        }
    }

    /// Returns the text by which the caller is remembered: never a secret. The tokens of one service account
    /// have one.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Node => "node",
            Self::Token(token) => match token.subject() {
                Some(subject) => &subject.user_name,
                None => &token.digest,
            },
        }
    }

    /// Returns the texts by which the caller may be remembered: before the cluster's keys were known, its token
    /// was.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        let digest = match self {
            Self::Token(token) if token.subject().is_some() => Some(&*token.digest),
            Self::Node | Self::Token(_) => None,
        };
        std::iter::once(self.id()).chain(digest)
    }

    /// Returns which of the service accounts that ever had its name it is, where its token says it.
    pub(crate) fn account_uid(&self) -> Option<&str> {
        match self {
            Self::Node => None,
            Self::Token(token) => token.subject()?.account.uid.as_deref(),
        }
    }

    /// Returns whether its token says that it is not good any more at that time.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        match self {
            Self::Node => false,
            Self::Token(token) => token.expires().is_some_and(|expires| expires < now),
        }
    }

    /// Returns whether it comes with a token of the hub's own, which nobody else takes.
    pub(crate) fn is_of_hub(&self) -> bool {
        match self {
            Self::Node => false,
            Self::Token(token) => token.is_of_hub(),
        }
    }
}

impl Token {
    /// Reads the bearer token of a request.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' '))
            .then(|| Self::new(token))
    }

    pub(crate) fn new(secret: &str) -> Self {
        let digest = Sha256::digest(secret.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            secret: secret.into(),
            digest: digest.into(),
            identified: None,
            claimed: subject_of(secret),
            stranger: None,
        }
    }

    pub(crate) fn identified(mut self, identified: Option<Arc<Identified>>) -> Self {
        self.identified = identified;
        self
    }

    pub(crate) fn of(mut self, stranger: Option<Stranger>) -> Self {
        self.stranger = stranger;
        self
    }

    pub(crate) fn stranger(&self) -> Option<Stranger> {
        self.stranger
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    pub(crate) fn subject(&self) -> Option<&Subject> {
        self.identified.as_ref()?.subject.as_ref()
    }

    pub(crate) fn is_of_hub(&self) -> bool {
        self.subject()
            .is_some_and(|subject| subject.issuer == Issuer::Hub)
    }

    pub(crate) fn validity(&self) -> Option<Validity> {
        Some(self.identified.as_ref()?.validity)
    }

    pub(crate) fn expires(&self) -> Option<Timestamp> {
        Some(self.validity()?.expires)
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

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject() {
            Some(subject) => write!(f, "Token({})", subject.user_name),
            None => f.write_str("Token(…)"),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("Node"),
            Self::Token(token) => token.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(value: &str) -> Option<Token> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        Token::from_headers(&headers)
    }

    fn account(token: Token, name: &str) -> Caller {
        let account = Account {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: None,
            pod: None,
        };
        let identified = Identified {
            validity: Validity {
                not_before: None,
                expires: Timestamp::MAX,
            },
            subject: Some(Subject {
                user_name: account.user_name(),
                account,
                issuer: Issuer::Cluster,
            }),
        };
        Caller::Token(token.identified(Some(identified.into())))
    }

    #[test]
    fn a_bearer_token_is_a_caller_and_nothing_else_is() {
        assert_eq!(token("Bearer abc"), token("bearer  abc "));
        assert_ne!(token("Bearer abc"), token("Bearer abd"));
        for bad in ["Basic abc", "Bearer", "Bearer ", "Bearer a b", "abc"] {
            assert!(token(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_token_says_whose_it_is_and_garbage_says_nothing() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"system:serviceaccount:a:b","x":1}"#);
        let subject = |token: &str| {
            let caller = Caller::Token(Token::new(token));
            caller.claims_to_be().map(str::to_owned)
        };
        assert_eq!(
            subject(&format!("e30.{claims}.c")).as_deref(),
            Some("system:serviceaccount:a:b")
        );
        for garbage in ["abc", "a.b.c", "..", &claims, &format!("{claims}.e30.c")] {
            assert_eq!(subject(garbage), None, "{garbage}");
        }
        assert_eq!(Caller::Node.claims_to_be(), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new("hunter2");
        assert_eq!(format!("{:?}", Caller::Token(token.clone())), "Token(…)");
        assert!(!Caller::Token(token.clone()).id().contains("hunter2"));
        let caller = account(token, "till");
        assert_eq!(
            format!("{caller:?}"),
            "Token(system:serviceaccount:shop:till)"
        );
    }

    #[test]
    fn the_tokens_of_one_account_are_remembered_alike() {
        let (one, two) = (Token::new("one"), Token::new("two"));
        let (first, second) = (account(one.clone(), "till"), account(two, "till"));
        assert_eq!(first.id(), second.id());
        assert_ne!(first, second);
        assert_ne!(first.id(), account(one.clone(), "boss").id());
        let before = Caller::Token(one);
        assert_eq!(first.ids().nth(1), Some(before.id()));
        assert_eq!(before.ids().count(), 1);
        assert_eq!(Caller::Node.ids().collect::<Vec<_>>(), ["node"]);
    }
}
