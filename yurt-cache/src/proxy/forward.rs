//! Forwards a request to the cloud as its caller.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::Proxy;
use super::exchange::Exchange;
use super::headers::{announced, remove_hop_headers};
use super::outgoing::{self, Outgoing, is_read};
use super::route::Remember;
use super::tee::decompress;
use crate::answer::RETRY;
use crate::api::human;
use crate::body::{self, Body};
use crate::codec::{Inflate, Status};
use crate::upstream::{Purpose, SendError};

/// An answer that is read whole before it is passed on.
const SHORT: usize = 64 << 10;

/// A request that got no answer.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) parts: Parts,
    pub(super) error: SendError,
    /// What the caller is told whose own body was the reason.
    pub(super) refused: Option<Status>,
}

impl Proxy {
    /// Forwards as the caller.
    pub(super) async fn forward(
        self: &Arc<Self>,
        exchange: &Exchange,
        remember: Remember,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Broken> {
        let caller = &exchange.caller;
        let (parts, body) = request.into_parts();
        let Outgoing {
            request,
            upload,
            decompresses,
        } = Outgoing::of(exchange, remember, (&parts, body), self.body_limit);
        let purpose = purpose(exchange);
        let sending = self
            .upstream
            .send_for(&purpose, caller.credential(), request);
        let sent = match sending.await {
            Ok(response) if remember == Remember::Object && is_read(&parts.method) => {
                whole(response).await
            }
            sent => sent,
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => {
                let refused = upload.status();
                return Err(Broken {
                    parts,
                    error,
                    refused,
                });
            }
        };
        remove_hop_headers(response.headers_mut());
        let response = self.note_refusal(exchange, parts.uri.path(), response);
        let response = self.remember(exchange, remember, &parts, response);
        Ok(if decompresses {
            plain(response)
        } else {
            response
        })
    }

    /// Forwards a request that becomes a raw stream in both directions.
    pub(super) async fn upgrade(
        self: &Arc<Self>,
        exchange: &Exchange,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let (caller, place) = (&exchange.caller, exchange.place.clone());
        let local = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let mut outgoing = outgoing::request(caller, &parts, body::incoming(body));
        if let Some(protocol) = parts.headers.get(UPGRADE) {
            let headers = outgoing.headers_mut();
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let sent = self.upstream.upgrade(caller.credential(), outgoing).await;
        let (mut response, remote) = sent.map_err(|error| unsent(&error, self.since()))?;
        let Some(remote) = remote else {
            remove_hop_headers(response.headers_mut());
            return Ok(self.note_refusal(exchange, parts.uri.path(), response));
        };
        let copying = async move {
            let Ok(local) = local.await else { return };
            let (mut local, mut remote) = (TokioIo::new(local), TokioIo::new(remote));
            // Each direction ends by itself; an error ends both, and both ends see it.
            let _ended = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
            drop(place);
        };
        self.tasks
            .spawn(self.end.clone().run_until_cancelled_owned(copying));
        Ok(response)
    }
}

/// What a caller is told whose request could not be sent, or got no answer.
pub(super) fn unsent(error: &SendError, since: Option<Duration>) -> Status {
    let since = since.map_or_else(String::new, |since| format!(" for {}", human(since)));
    match error {
        SendError::CutOff => Status::unavailable(
            format!("the cloud is not reachable{since}, and this request needs it"),
            Some(RETRY),
        ),
        SendError::NotCarriedOut { .. } => Status::unavailable(
            "the API server closed the connection before it took the request: send it again",
            Some(RETRY),
        ),
        SendError::InUse => Status::streams_in_use(),
        _ => Status::timeout(
            "the link to the cloud broke before the answer came: the request may have been carried out or not",
        ),
    }
}

/// Returns what the stream of a request is for.
fn purpose(exchange: &Exchange) -> Purpose {
    match exchange.api.lasts() {
        true => Purpose::Lasting(exchange.caller.tenant()),
        false => Purpose::Request,
    }
}

/// Reads a short answer to its end, so that a link that breaks within it breaks before the client sees it.
async fn whole(response: Response<Body>) -> Result<Response<Body>, SendError> {
    if announced(response.headers()).is_none_or(|length| length > SHORT) {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let text = body::read(body, SHORT).await.map_err(SendError::Body)?;
    Ok(Response::from_parts(head, body::full(text)))
}

fn plain(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let Some(encoding) = head.headers.remove(CONTENT_ENCODING) else {
        return Response::from_parts(head, body);
    };
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(
        head,
        decompress(body, Inflate::for_encoding(Some(&encoding))),
    )
}
