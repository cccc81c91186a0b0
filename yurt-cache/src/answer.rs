//! What mirrors and the store hold, made into what Kubernetes answers: GET, LIST and WATCH with their
//! exact semantics. Never the network.

pub(crate) mod list;
pub(crate) mod object;
pub(crate) mod watch;
pub(crate) mod weight;
pub(crate) mod write;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use yurt_core::store::ErrorKind;

use self::write::Writer;
use crate::api::Selection;
use crate::api::request::Options;
use crate::body::{self, Body};
use crate::codec::Status;
use crate::mirror::Mirror;
use crate::tasks;

/// When a client may ask again for what the cloud has to answer. Clients repeat a refused request ten times
/// at this pace before they tell anybody, so it is short; a refused read does not say it at all.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Marks the hub's own continue tokens.
const TOKEN_VERSION: &str = "yurt/v1";

/// Marks the server's: `k8s.io/apiserver/pkg/storage`, `continue.go`.
const SERVER_VERSION: &str = "meta.k8s.io/v1";

/// What is read of a synced mirror, and how it is written.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) mirror: &'a Arc<Mirror>,
    pub(crate) selection: Selection,
    pub(crate) options: &'a Options,
    pub(crate) writer: Writer,
}

/// Where a paged list goes on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    start: String,
}

/// Returns whether a continue token is the hub's and not the server's.
pub(crate) fn is_our_token(token: &str) -> bool {
    Token::parse(token).is_some()
}

/// Returns at which revision a token of the server goes on.
pub(crate) fn continues_at(token: &str) -> Option<u64> {
    Token::of_server(token, None).map(|token| token.rv)
}

impl Token {
    fn parse(token: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(token).ok()?;
        let token: Self = serde_json::from_slice(&json).ok()?;
        (token.v == TOKEN_VERSION).then_some(token)
    }

    /// Reads a token of the server, whose key is within its namespace: where it goes on here. The list that
    /// it belongs to is not here, so it has expired; the hub's own token in the refusal goes on.
    fn of_server(token: &str, namespace: Option<&str>) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(token).ok()?;
        let mut token: Self = serde_json::from_slice(&json).ok()?;
        if token.v != SERVER_VERSION {
            return None;
        }
        let last = token.start.trim_end_matches('\0');
        token.start = match namespace {
            Some(namespace) => format!("{namespace}/{last}"),
            None if last.contains('/') => last.to_owned(),
            None => format!("/{last}"),
        };
        Some(token)
    }

    /// Writes a token as the server's own: where the mirror has moved on, the cloud goes on.
    fn server_text(rv: u64, namespace: Option<&str>, last: &str) -> String {
        let prefix = namespace.unwrap_or_default();
        let within = last.strip_prefix(prefix).unwrap_or(last);
        let within = within.strip_prefix('/').unwrap_or(within);
        let token = Self {
            v: SERVER_VERSION.to_owned(),
            rv,
            start: format!("{within}\0"),
        };
        token.encode()
    }

    fn text(rv: u64, start: &str) -> String {
        let token = Self {
            v: TOKEN_VERSION.to_owned(),
            rv,
            start: start.to_owned(),
        };
        token.encode()
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a struct of plain fields is JSON"))
    }
}

/// Makes an answer of JSON.
pub(crate) fn json(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Makes an answer of a status.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let mut response = json(status.code, body::full(status.body()));
    if let Some(seconds) = status.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds a warning that people see (`kubectl` prints it).
pub(crate) fn warn(response: &mut Response<Body>, text: &str) {
    let text: String = text
        .chars()
        .map(|one| {
            if one == '"' || one == '\\' || one.is_control() {
                ' '
            } else {
                one
            }
        })
        .collect();
    if let Ok(value) = HeaderValue::from_str(&format!("299 yurthub \"{text}\"")) {
        response.headers_mut().append(WARNING, value);
    }
}

/// Marks where an answer came from.
pub(crate) fn mark(response: &mut Response<Body>, served_from: &'static str) {
    response.headers_mut().insert(
        HeaderName::from_static("x-yurt-served-from"),
        HeaderValue::from_static(served_from),
    );
}

/// Reads on the store where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> yurt_core::store::Result<T> + Send + 'static,
) -> Result<T, Status> {
    tasks::blocking(work).await.map_err(unread)
}

/// What is said where the store does not give what it has.
fn unread(error: yurt_core::store::Error) -> Status {
    match error.kind() {
        // It is fetched again as soon as the cloud is there.
        ErrorKind::Damaged => {
            Status::unavailable(format!("the node's store is damaged: {error}"), Some(RETRY))
        }
        _ => Status::internal(&format!("read the node's store: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_continue_token_is_told_from_the_servers() {
        let ours = Token::text(7, "a/b");
        assert_eq!(Token::parse(&ours).unwrap().start, "a/b");
        assert!(is_our_token(&ours));
        assert!(!is_our_token(
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0"
        ));
        assert!(!is_our_token("garbage!"));
        let theirs = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":7,"start":"b\u0000"}"#);
        assert!(!is_our_token(&theirs));
        assert_eq!(Token::of_server(&theirs, Some("a")).unwrap().start, "a/b");
        assert_eq!(Token::of_server(&theirs, None).unwrap().start, "/b");
        assert_eq!(continues_at(&theirs), Some(7));
        for (namespace, key) in [(Some("a"), "a/b"), (None, "a/b"), (None, "/b")] {
            let text = Token::server_text(7, namespace, key);
            let token = Token::of_server(&text, namespace).unwrap();
            assert_eq!((token.start.as_str(), token.rv), (key, 7));
        }
    }
}
