//! Keeps what the cluster says of its tokens: issuer and keys, asked for with the node's identity where it may,
//! else with that of a caller whom the cloud has just recognised.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use yurt_core::backoff::Backoff;

use super::authenticator::Authenticator;
use super::caller::Caller;
use super::keys::KeySet;
use super::trust::SavedTrust;
use crate::body;
use crate::upstream::{Reach, SendError, Upstream};

/// How long keys are used before they are asked for again: as long as the server lets them be cached.
const REFRESH: Duration = Duration::from_secs(3_600);

/// How often they are asked for at most, however many tokens with unknown keys come.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// How soon keys that nobody could show yet are asked for again, when somebody has come who perhaps can.
const FIRST: Duration = Duration::from_secs(1);

/// How long each of the documents may be.
const LIMIT: usize = 128 << 10;

/// Why the keys could not be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("ask for {0}")]
    Send(&'static str, #[source] SendError),
    #[error("read {0}")]
    Read(&'static str, #[source] body::BoxError),
    #[error("{0} is refused with {1}")]
    Refused(&'static str, StatusCode),
    #[error("parse {0}")]
    Parse(&'static str, #[source] serde_json::Error),
    #[error("the server has no keys to show")]
    NoKeys,
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
}

/// Keeps the keys fresh until `stop`.
pub(crate) async fn run(
    authenticator: Arc<Authenticator>,
    upstream: Upstream,
    stop: CancellationToken,
) {
    let keeping = async {
        let mut backoff = Backoff::new(AT_MOST_EVERY, REFRESH);
        let mut reach = upstream.reach();
        loop {
            let is_online = |reach: &Reach| matches!(reach, Reach::Online);
            if reach.wait_for(is_online).await.is_err() {
                return;
            }
            let began = Instant::now();
            let pause = match fetch(&authenticator, &upstream).await {
                Ok(saved) => {
                    authenticator.trust(saved);
                    authenticator.note_keys(began);
                    backoff.reset();
                    REFRESH.mul_f64(0.9 + 0.2 * fastrand::f64())
                }
                Err(error) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::debug!(error, "the keys of the cluster's tokens are not to be had");
                    // Never less than half of it: it is nobody's fault, and nothing waits for it.
                    backoff.next_delay(0.5 + fastrand::f64() / 2.0)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = authenticator.wanted.notified() => {
                    let earliest = if authenticator.cluster().is_some() { AT_MOST_EVERY } else { FIRST };
                    tokio::time::sleep_until(began + earliest).await;
                }
            }
        }
    };
    stop.run_until_cancelled(keeping).await;
}

async fn fetch(
    authenticator: &Authenticator,
    upstream: &Upstream,
) -> Result<SavedTrust, FetchError> {
    let guide = authenticator.guide.lock().clone();
    let mut refused = FetchError::NoKeys;
    for caller in std::iter::once(Caller::Node).chain(guide) {
        match fetch_as(upstream, &caller).await {
            Err(FetchError::Refused(what, code)) => refused = FetchError::Refused(what, code),
            fetched => return fetched,
        }
    }
    Err(refused)
}

async fn fetch_as(upstream: &Upstream, caller: &Caller) -> Result<SavedTrust, FetchError> {
    const CONFIGURATION: &str = "/.well-known/openid-configuration";
    const KEYS: &str = "/openid/v1/jwks";
    let text = get(upstream, caller, CONFIGURATION).await?;
    let configuration: Configuration =
        serde_json::from_slice(&text).map_err(|source| FetchError::Parse(CONFIGURATION, source))?;
    let text = get(upstream, caller, KEYS).await?;
    let keys = KeySet::parse(&text).map_err(|source| FetchError::Parse(KEYS, source))?;
    if keys.is_empty() {
        return Err(FetchError::NoKeys);
    }
    Ok(SavedTrust {
        issuer: configuration.issuer,
        audiences: Vec::new(),
        keys: String::from_utf8_lossy(&text).into_owned(),
    })
}

async fn get(
    upstream: &Upstream,
    caller: &Caller,
    path: &'static str,
) -> Result<Bytes, FetchError> {
    // The server has the keys as a type of their own, and refuses who asks for JSON.
    let response = caller.client(upstream).get(path, "*/*").await;
    let response = response.map_err(|source| FetchError::Send(path, source))?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Refused(path, response.status()));
    }
    body::read(response.into_body(), LIMIT)
        .await
        .map_err(|source| FetchError::Read(path, source))
}
