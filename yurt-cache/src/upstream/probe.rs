//! Watches over one API server: finds out at the start, looks again when a connection breaks, and
//! asks a server that is down until it answers.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::header::{DATE, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::BodyExt;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::Shared;
use super::dial::DialError;
use super::pick::{self, Health};
use super::pool::{Connection, Permit};
use super::response::Held;
use super::streams::Purpose;
use super::{Credential, address_to};
use crate::body;
use crate::tasks::{Panicked, blocking};

/// Bytes of an answer to `/readyz` that are read.
const ANSWER: usize = 64 << 10;

/// A connection that was idle for so long is surplus.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Why a server does not count as up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum ProbeError {
    /// There is no connection.
    #[error("dial the API server")]
    Dial(#[source] DialError),
    /// The connection broke before the answer.
    #[error("ask for /readyz")]
    Ask(#[source] hyper::Error),
    /// It keeps silent.
    #[error("no answer to /readyz within {0:?}")]
    Silent(Duration),
    /// It says so itself.
    #[error("/readyz says {0}")]
    NotReady(StatusCode),
}

/// Keeps the verdict on one server true until the upstream stops.
pub(super) async fn watch_over(shared: Arc<Shared>, index: usize) {
    let server = shared.set.server(index);
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.stop.is_cancelled() {
        let (health, epoch) = shared.set.state(index);
        match health {
            Health::Unknown => settle(&shared, index, &epoch, shared.config.connect_timeout).await,
            Health::Up => tokio::select! {
                () = epoch.cancelled() => {}
                () = alarmed(&shared, index) => {
                    let within = pick::confirm_within(server.dialled_in(), shared.config.connect_timeout);
                    settle(&shared, index, &epoch, within).await;
                }
                _ = sweep.tick() => tidy(&shared, index).await,
            },
            Health::Down => {
                let connection = revive(&shared, index, &epoch).await;
                welcome(&shared, index, &epoch, connection);
            }
        }
    }
}

/// Probes once, and says what came of it.
async fn settle(shared: &Arc<Shared>, index: usize, epoch: &CancellationToken, within: Duration) {
    // Whoever wants a connection meanwhile waits for this one.
    let dialing = shared.set.server(index).pool(Credential::Node).begin_dial();
    match probe(shared, index, epoch, within).await {
        Ok(connection) => welcome(shared, index, epoch, connection),
        Err(error) => shared.set.mark_down(index, epoch, &error),
    }
    drop(dialing);
}

/// Asks a server that is down until it answers.
///
/// A new probe starts at every interval, whatever became of the one before: a SYN that was lost in
/// the cut is sent again after seconds only.
async fn revive(shared: &Arc<Shared>, index: usize, epoch: &CancellationToken) -> Arc<Connection> {
    let mut probes = JoinSet::new();
    loop {
        let pause = sleep(pick::jittered(shared.config.probe_interval, random()));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(probed) = probes.join_next() => match probed {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => {
                        let error: &(dyn std::error::Error + 'static) = &error;
                        tracing::debug!(index, error, "the API server is still down");
                    }
                    Err(error) => tracing::error!(%error, "a probe panicked"),
                },
            }
        }
        let (shared, epoch) = (shared.clone(), epoch.clone());
        probes.spawn(async move {
            let within = shared.config.connect_timeout;
            probe(&shared, index, &epoch, within).await
        });
    }
}

/// Puts a proven connection to use.
fn welcome(shared: &Shared, index: usize, epoch: &CancellationToken, connection: Arc<Connection>) {
    shared
        .set
        .server(index)
        .pool(Credential::Node)
        .add(connection);
    shared.set.mark_up(index, epoch);
}

/// Dials anew and asks whether the server is ready; one that refuses to tell us is.
///
/// Without a client certificate nothing is asked: kube-apiserver closes every connection that carried an
/// anonymous request, and with it goes the pulse.
async fn probe(
    shared: &Arc<Shared>,
    index: usize,
    epoch: &CancellationToken,
    within: Duration,
) -> Result<Arc<Connection>, ProbeError> {
    let connection = shared
        .dial(index, Credential::Node, epoch, within)
        .await
        .map_err(ProbeError::Dial)?;
    if shared.config.client_certificate.is_none() {
        return Ok(connection);
    }
    let guard = connection.guard();
    let patience = shared.config.connect_timeout;
    let asked = ask(shared, index, connection.permit());
    let status = timeout(patience, asked)
        .await
        .map_err(|_| ProbeError::Silent(patience))??;
    if status.is_server_error() {
        return Err(ProbeError::NotReady(status));
    }
    guard.disarm();
    Ok(connection)
}

/// Reads the time in a header.
fn time_of(date: &HeaderValue) -> Option<Timestamp> {
    let date = date.as_bytes();
    rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
}

/// Resolves when there is reason to think that a server is gone.
async fn alarmed(shared: &Arc<Shared>, index: usize) {
    tokio::select! {
        () = shared.set.server(index).probe_now.notified() => {}
        () = pulse_lost(shared, index) => {}
    }
}

/// Asks over a connection whether the server is ready.
async fn ask(shared: &Shared, index: usize, permit: Permit) -> Result<StatusCode, ProbeError> {
    let mut request = Request::new(body::empty());
    *request.uri_mut() = Uri::from_static("/readyz");
    address_to(&shared.set.server(index).address, &permit, &mut request);
    let sent = permit.send(request).await;
    let response = sent.map_err(|failed| ProbeError::Ask(failed.into_error()))?;
    if let Some(time) = response.headers().get(DATE).and_then(time_of) {
        shared.set.note_time(time, Instant::now());
    }
    let status = response.status();
    let answer = Held::new(response.into_body(), permit).boxed_unsync();
    // The rest of a long answer is not worth a connection.
    let _read = body::read(answer, ANSWER).await;
    Ok(status)
}

/// Resolves when a server of HTTP/1.1, which has no pings, did not answer in time.
async fn pulse_lost(shared: &Arc<Shared>, index: usize) {
    let pool = shared.set.server(index).pool(Credential::Node);
    if !pool.is_http1() || shared.config.client_certificate.is_none() {
        return std::future::pending().await;
    }
    loop {
        sleep(shared.config.keep_alive_interval).await;
        let asked = async {
            let acquired = shared.acquire(index, Credential::Node, &Purpose::Request);
            let permit = acquired.await.ok()?;
            ask(shared, index, permit).await.ok()
        };
        let asked = timeout(shared.config.keep_alive_timeout, asked).await;
        if !matches!(asked, Ok(Some(_))) {
            return;
        }
    }
}

/// Closes surplus connections, and those of a certificate that was replaced.
async fn tidy(shared: &Arc<Shared>, index: usize) {
    let files = shared.files.clone();
    let refreshed = blocking(move || {
        files.refresh();
        Ok::<(), Panicked>(())
    });
    if let Err(error) = refreshed.await {
        tracing::error!(%error, "the TLS files cannot be read anew");
    }
    let generation = shared.files.generation();
    let server = shared.set.server(index);
    // One connection stays to feel the server's pulse.
    server.pool(Credential::Node).sweep(1, generation);
    server.pool(Credential::Bearer).sweep(0, generation);
    server.pool(Credential::Stranger).sweep(0, generation);
}

/// Enough to keep nodes out of step.
fn random() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_read_and_garbage_is_none() {
        let read = |text: &'static str| time_of(&HeaderValue::from_static(text));
        let time = read("Tue, 01 Dec 2026 05:04:37 GMT").unwrap();
        assert_eq!(time.to_string(), "2026-12-01T05:04:37Z");
        for garbage in [
            "",
            "yesterday",
            "Tue, 01 Dec 2026",
            "Tue, 41 Dec 2026 05:04:37 GMT",
        ] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }
}
