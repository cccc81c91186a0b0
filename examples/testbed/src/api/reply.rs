//! Responses: their bodies, their headers, and gzip where the real server would use it.

use std::{convert::Infallible, io::Write as _};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Body;

use super::{present, status::ApiError};

/// The body of every answer.
pub(crate) type Reply = UnsyncBoxBody<Bytes, Infallible>;

/// The real server compresses from here on.
const GZIP_FROM: usize = 128 * 1024;

pub(crate) fn boxed(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Reply {
    body.boxed_unsync()
}

/// A whole JSON document. It is kept beside the body until `finish` knows whether to compress it.
pub(crate) fn json(code: StatusCode, bytes: Vec<u8>) -> Response<Reply> {
    let bytes = Bytes::from(bytes);
    let mut response = Response::new(boxed(Full::new(bytes.clone())));
    *response.status_mut() = code;
    if bytes.len() > GZIP_FROM {
        response.extensions_mut().insert(Whole(bytes));
    }
    with_type(response, "application/json")
}

/// A body that comes as it comes.
pub(crate) fn stream(
    body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Response<Reply> {
    with_type(Response::new(boxed(body)), "application/json")
}

pub(crate) fn error(error: &ApiError) -> Response<Reply> {
    let mut response = if error.is_plain {
        let mut response = Response::new(boxed(Full::new(Bytes::from_static(
            b"404 page not found\n",
        ))));
        let options = HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, options);
        with_type(response, "text/plain; charset=utf-8")
    } else {
        json(error.code, present::status(error.status()))
    };
    *response.status_mut() = error.code;
    if let Some(seconds) = error.retry_after() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

pub(crate) fn with_type(mut response: Response<Reply>, kind: &'static str) -> Response<Reply> {
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|one| {
            one.split(';')
                .next()
                .is_some_and(|name| name.trim() == "gzip")
        })
    })
}

/// Adds what every answer has, and compresses a large one.
pub(crate) fn finish(mut response: Response<Reply>, accepts_gzip: bool) -> Response<Reply> {
    let whole = response.extensions_mut().remove::<Whole>();
    if let Some(Whole(bytes)) = whole.filter(|_| accepts_gzip)
        && let Ok(packed) = gzip(&bytes)
    {
        *response.body_mut() = boxed(Full::new(Bytes::from(packed)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    let caching = HeaderValue::from_static("no-cache, private");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, caching);
    response
}

#[derive(Clone)]
struct Whole(Bytes);

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
