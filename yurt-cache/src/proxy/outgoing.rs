//! The request that goes to the cloud as the caller, made of the one that came.

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};
use hyper::body::{Body as _, Incoming};

use super::exchange::Exchange;
use super::headers::forwarded;
use super::route::Remember;
use super::upload;
use crate::api::request::{Shape, Verb};
use crate::body::{self, Body};
use crate::codec::accepts_gzip;
use crate::identity::Caller;

/// A request that is ready to go, and what becomes of its answer.
pub(super) struct Outgoing {
    pub(super) request: Request<Body>,
    /// Whether the caller's own body kept to its bounds.
    pub(super) upload: upload::UploadFault,
    /// Whether the answer was asked for compressed, and the caller wants it plain.
    pub(super) decompresses: bool,
}

/// Makes a request of the same method, path and headers, signed by the caller.
pub(super) fn request(caller: &Caller, parts: &Parts, body: Body) -> Request<Body> {
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method.clone();
    let path = parts.uri.path_and_query();
    *outgoing.uri_mut() = path.map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
    *outgoing.headers_mut() = forwarded(&parts.headers);
    caller.sign(outgoing.headers_mut());
    outgoing
}

/// Returns whether a request only reads.
pub(super) fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

impl Outgoing {
    /// Makes what is sent of a request, with its body up to `limit` bytes.
    pub(super) fn of(
        exchange: &Exchange,
        remember: Remember,
        (parts, body): (&Parts, Incoming),
        limit: u64,
    ) -> Self {
        // A backend behind the server may want the body of a read; the server itself does not look at any.
        let is_bare =
            is_read(&parts.method) && (remember != Remember::Nothing || body.is_end_stream());
        let (body, upload) = match (is_bare, exchange.api.lasts()) {
            (true, _) => (body::empty(), upload::UploadFault::default()),
            // What is sent to a pod is a stream of its own, of any length and pace.
            (false, true) => (body::incoming(body), upload::UploadFault::default()),
            (false, false) => upload::bounded(body::incoming(body), limit),
        };
        let mut request = request(&exchange.caller, parts, body);
        if is_bare {
            // Its body stays here, and HTTP/2 takes a length without one for an error.
            request.headers_mut().remove(CONTENT_LENGTH);
        }
        let decompresses = prefer(exchange, remember, &parts.headers, request.headers_mut());
        Self {
            request,
            upload,
            decompresses,
        }
    }
}

/// Asks for what the hub can read of an answer that it looks at; returns whether the caller wants it plain.
fn prefer(
    exchange: &Exchange,
    remember: Remember,
    came: &HeaderMap,
    headers: &mut HeaderMap,
) -> bool {
    let api = &exchange.api;
    let is_filtered = exchange.chain.is_some();
    let is_looked_at = is_filtered || (remember != Remember::Nothing && api.verb != Verb::Write);
    if is_looked_at {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let is_remembered = remember == Remember::Object && api.verb == Verb::Get;
    if is_filtered || (is_remembered && api.shape == Some(Shape::Object)) {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    }
    is_looked_at && (is_filtered || !accepts_gzip(came))
}
