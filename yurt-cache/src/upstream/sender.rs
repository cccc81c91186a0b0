//! The sending end of a connection, whichever HTTP its server speaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use parking_lot::Mutex;

use super::pick;
use crate::body::Body;

/// Sends requests on one connection.
#[derive(Debug)]
pub(super) enum Sender {
    /// Many requests at a time.
    Http2 {
        requests: http2::SendRequest<Body>,
        /// How many streams the peer allows at once, as of the last request.
        streams_allowed: Arc<AtomicUsize>,
    },
    /// One request at a time.
    Http1(Arc<Mutex<http1::SendRequest<Body>>>),
}

impl Sender {
    /// Sends a request; an error holds the request if nothing of it left.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::Http2 { requests, .. } => requests.clone().try_send_request(request).await,
            Self::Http1(requests) => {
                let sent = requests.lock().try_send_request(request);
                let mut response = sent.await?;
                // What was agreed with the server on this connection says nothing of the caller's.
                *response.version_mut() = http::Version::HTTP_11;
                Ok(response)
            }
        }
    }

    /// Returns whether one more request fits.
    pub(super) fn has_room(&self, in_flight: usize) -> bool {
        match self {
            Self::Http2 { .. } => in_flight < pick::stream_limit(self.streams_allowed()),
            // After an early answer the server may still be busy with the body of its request.
            Self::Http1(requests) => in_flight == 0 && requests.lock().is_ready(),
        }
    }

    /// Returns how many requests at a time the peer allows.
    pub(super) fn streams_allowed(&self) -> usize {
        match self {
            Self::Http2 {
                streams_allowed, ..
            } => streams_allowed.load(Ordering::Relaxed),
            Self::Http1(_) => 1,
        }
    }

    pub(super) fn is_http1(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http2 { requests, .. } => requests.is_closed(),
            Self::Http1(requests) => requests.lock().is_closed(),
        }
    }
}
