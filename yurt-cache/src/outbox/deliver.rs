//! Tells the cloud what waits, the oldest first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use yurt_core::backoff::Backoff;

use super::event::json_count;
use super::queue::Next;
use super::{Event, Outbox, stored_key};
use crate::body::{self, Body};
use crate::identity::Caller;
use crate::tasks::blocking;
use crate::upstream::client::{Content, JSON};
use crate::upstream::{SendError, Upstream};

/// The longest event that is read from the cloud, to see which is later.
const LONGEST_THERE: usize = 256 << 10;

/// The shortest and the longest wait when the cloud does not take an event now.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What became of an attempt to deliver an event.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    Exists,
    Refused(StatusCode),
    /// The cloud has answered that it cannot.
    Failed(StatusCode),
    /// There was no answer.
    Unheard,
}

impl Outbox {
    /// Tells the cloud, the oldest first, until nothing is left; waits where the cloud takes none now.
    ///
    /// # Cancel safety
    /// An event whose answer was not heard is told again: the server knows it by its name.
    pub(crate) async fn deliver(self: &Arc<Self>, upstream: &Upstream) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while let Some(number) = self.first() {
            let (store, key) = (self.store.clone(), stored_key(number));
            let stored = blocking(move || store.get(&key)).await;
            let Some(event) = stored.ok().flatten().and_then(Event::decode) else {
                self.forget(number).await;
                continue;
            };
            let counter = match tell(upstream, &event).await {
                Sent::Taken | Sent::Exists => &self.delivered,
                Sent::Refused(code) => {
                    tracing::debug!(%code, name = event.name, "the cloud does not want an event");
                    &self.refused
                }
                Sent::Failed(code) => {
                    let postponed = self.queue.lock().postpone(number);
                    // What may be the event's own fault holds up nobody who has not been tried yet.
                    match postponed {
                        None => {
                            tracing::warn!(%code, name = event.name, "the cloud cannot take an event: it is dropped");
                            &self.refused
                        }
                        Some(Next::Untried) if code == StatusCode::INTERNAL_SERVER_ERROR => {
                            continue;
                        }
                        Some(Next::Untried | Next::Tried) => {
                            tokio::time::sleep(backoff.next_delay(fastrand::f64())).await;
                            continue;
                        }
                    }
                }
                Sent::Unheard => {
                    tokio::time::sleep(backoff.next_delay(fastrand::f64())).await;
                    continue;
                }
            };
            backoff.reset();
            counter.fetch_add(1, Ordering::Relaxed);
            self.forget(number).await;
        }
    }
}

/// Tells the cloud one event. One that it has may be what it was told before without an answer, and may have been
/// counted up since: only a later word replaces it.
async fn tell(upstream: &Upstream, event: &Event) -> Sent {
    match send(upstream, event, Method::POST).await {
        Ok(_) => Sent::Taken,
        Err(Sent::Exists) => {
            let there = match send(upstream, event, Method::GET).await {
                Ok(response) => body::read(response.into_body(), LONGEST_THERE).await,
                Err(failed) => return failed,
            };
            let Ok(there) = there else {
                return Sent::Unheard;
            };
            if event.count() <= json_count(&there) {
                return Sent::Exists;
            }
            let sent = send(upstream, event, Method::PUT).await;
            sent.map_or_else(|failed| failed, |_| Sent::Taken)
        }
        Err(failed) => failed,
    }
}

async fn send(upstream: &Upstream, event: &Event, method: Method) -> Result<Response<Body>, Sent> {
    let client = Caller::Node.client(upstream);
    let named = format!("{}/{}", event.path, event.name);
    let content = Content {
        media_type: &event.content_type,
        bytes: event.body.clone(),
    };
    let sent = match method {
        Method::POST => client.post(&event.path, content).await,
        Method::PUT => client.put(&named, content).await,
        _ => client.get(&named, JSON).await,
    };
    let response = sent.map_err(|error| match error {
        SendError::Request(_) => Sent::Refused(StatusCode::BAD_REQUEST),
        _ => Sent::Unheard,
    })?;
    match response.status() {
        code if code.is_success() => Ok(response),
        StatusCode::CONFLICT => Err(Sent::Exists),
        StatusCode::TOO_MANY_REQUESTS => Err(Sent::Failed(StatusCode::TOO_MANY_REQUESTS)),
        code if code.is_client_error() => Err(Sent::Refused(code)),
        code => Err(Sent::Failed(code)),
    }
}
