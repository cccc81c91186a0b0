//! Bearer tokens as JSON Web Tokens: what one says, before anybody vouches for it. Bounded and strict, and
//! nothing in it makes us panic: whoever reaches the hub may send one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

/// The longest token that is read: those of the API server have about 1 KiB, a header of HTTP/2 a few more.
const LIMIT: usize = 16 << 10;

/// Audiences that one token may name.
const AUDIENCES: usize = 32;

/// What precedes namespace and name in the user name of a service account.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Why a text is no token that the hub reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("it is longer than {LIMIT} bytes")]
    TooLong,
    #[error("it has not three parts")]
    Parts,
    #[error("a part is not base64url")]
    Base64,
    #[error("its header is not that of a signed token")]
    Header,
    #[error("its algorithm is not one of the hub's")]
    Algorithm,
    #[error("its claims are not those of a token")]
    Claims,
}

/// How a token is signed; whatever else there is proves nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    EdDsa,
}

/// A token taken apart.
pub(crate) struct Jwt<'a> {
    /// What is signed.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Claims,
}

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) subject: String,
    pub(crate) validity: Validity,
    /// The service account, if the subject is one and the private claims say the same.
    pub(crate) account: Option<Account>,
}

/// From when until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) expires: Timestamp,
}

/// A service account, and for which pod its token was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Which of the accounts that ever had this name, where the token says it: the hub's own do not.
    pub(crate) uid: Option<String>,
    pub(crate) pod: Option<BoundPod>,
}

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct BoundPod {
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood: we know none.
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct ReceivedClaims {
    iss: String,
    sub: String,
    #[serde(default)]
    aud: Audiences,
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Some(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    pod: Option<BoundPod>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: Option<String>,
}

impl<'a> Jwt<'a> {
    /// Takes a token apart: a JSON Web Signature in its compact form (RFC 7515) with claims (RFC 7519).
    ///
    /// # Errors
    /// What keeps it from being one that the hub could verify.
    pub(crate) fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > LIMIT {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Parts)?;
        if claims.contains('.') {
            return Err(TokenError::Parts);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Base64);
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Header)?;
        if header.crit.is_some() {
            return Err(TokenError::Header);
        }
        Ok(Self {
            signed: signed.as_bytes(),
            signature: decode(signature)?,
            algorithm: Algorithm::named(&header.alg).ok_or(TokenError::Algorithm)?,
            key_id: header.kid,
            claims: Claims::parse(&decode(claims)?).ok_or(TokenError::Claims)?,
        })
    }
}

impl Algorithm {
    /// Returns the algorithm of a name as RFC 7518 and RFC 8037 write it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

impl Claims {
    fn parse(json: &[u8]) -> Option<Self> {
        let received: ReceivedClaims = serde_json::from_slice(json).ok()?;
        let audiences = match received.aud {
            Audiences::One(one) => vec![one],
            Audiences::Some(some) => some,
        };
        if audiences.len() > AUDIENCES {
            return None;
        }
        let time = |seconds: Option<i64>| match seconds {
            Some(seconds) => Timestamp::from_second(seconds).ok().map(Some),
            None => Some(None),
        };
        let (not_before, issued) = (time(received.nbf)?, time(received.iat)?);
        let validity = Validity {
            // One from the future is not valid yet, whatever it says of itself.
            not_before: not_before.max(issued),
            expires: Timestamp::from_second(received.exp).ok()?,
        };
        let account = received
            .kubernetes
            .and_then(|private| private.account(&received.sub));
        Some(Self {
            issuer: received.iss,
            audiences,
            subject: received.sub,
            validity,
            account,
        })
    }
}

impl Kubernetes {
    /// Returns the account that both subject and private claims name.
    fn account(self, subject: &str) -> Option<Account> {
        let account = Account {
            namespace: self.namespace,
            name: self.serviceaccount.name,
            uid: self.serviceaccount.uid.filter(|uid| is_uid(uid)),
            pod: self.pod,
        };
        let is_plain = |name: &str| {
            let is_known = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
            };
            !name.is_empty() && name.len() <= 253 && name.bytes().all(is_known)
        };
        let is_named = is_plain(&account.namespace) && is_plain(&account.name);
        (is_named && account.user_name() == subject).then_some(account)
    }
}

/// Returns whether it is one word of a length that is worth remembering.
fn is_uid(uid: &str) -> bool {
    !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Account {
    /// Returns how Kubernetes names the account as a user.
    pub(crate) fn user_name(&self) -> String {
        format!("{ACCOUNT_PREFIX}{}:{}", self.namespace, self.name)
    }
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl fmt::Debug for Jwt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
