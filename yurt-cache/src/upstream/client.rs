//! One client of the API, for what the hub asks of its own accord, as some caller.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::request::Builder;
use http::{Request, Response};

use super::{Credential, Purpose, SendError, Upstream};
use crate::body::{self, Body, BoxError};
use crate::codec::Status;

/// How the hub names itself to the cloud.
const AGENT: &str = concat!("yurthub/", env!("CARGO_PKG_VERSION"));

/// What is asked for where nothing else is said, and how most is written.
pub(crate) const JSON: &str = "application/json";

/// Asks the API as one caller.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    upstream: &'a Upstream,
    credential: Credential,
    authorization: Option<HeaderValue>,
    purpose: Purpose,
}

impl<'a> Client<'a> {
    pub(crate) fn new(
        upstream: &'a Upstream,
        credential: Credential,
        authorization: Option<HeaderValue>,
    ) -> Self {
        Self {
            upstream,
            credential,
            authorization,
            purpose: Purpose::Request,
        }
    }

    /// Asks for what `purpose` says instead of requests that end soon.
    pub(crate) fn with_purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// Gets what is at a path, in the form `accept`.
    ///
    /// # Errors
    /// If there is no response; whatever the server says is one. The same for all of these.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> Result<Response<Body>, SendError> {
        let request = Request::get(path).header(ACCEPT, accept);
        self.send(request, body::empty()).await
    }

    /// Gets as `get`; the answer may be compressed.
    pub(crate) async fn fetch(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<Response<Body>, SendError> {
        let request = Request::get(path).header(ACCEPT, accept);
        self.send(request.header(ACCEPT_ENCODING, "gzip"), body::empty())
            .await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        content: Content<'_>,
    ) -> Result<Response<Body>, SendError> {
        self.write(Request::post(path), content).await
    }

    pub(crate) async fn put(
        &self,
        path: &str,
        content: Content<'_>,
    ) -> Result<Response<Body>, SendError> {
        self.write(Request::put(path), content).await
    }

    pub(crate) async fn patch(
        &self,
        path: &str,
        content: Content<'_>,
    ) -> Result<Response<Body>, SendError> {
        self.write(Request::patch(path), content).await
    }

    async fn write(
        &self,
        request: Builder,
        content: Content<'_>,
    ) -> Result<Response<Body>, SendError> {
        let request = request
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, content.media_type);
        self.send(request, body::full(content.bytes)).await
    }

    async fn send(&self, request: Builder, body: Body) -> Result<Response<Body>, SendError> {
        let mut request = request
            .header(USER_AGENT, AGENT)
            .body(body)
            .map_err(SendError::Request)?;
        if let Some(authorization) = self.authorization.clone() {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        // The futures of those who ask are large enough.
        let sent = self
            .upstream
            .send_for(&self.purpose, self.credential, request);
        Box::pin(sent).await
    }
}

/// What is written.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) bytes: Bytes,
}

impl Content<'static> {
    pub(crate) fn json(text: &serde_json::Value) -> Self {
        Self {
            media_type: JSON,
            bytes: text.to_string().into(),
        }
    }
}

/// Reads a short answer whole: its text, or the refusal.
///
/// # Errors
/// If it breaks, or is longer than `limit`.
pub(crate) async fn outcome(
    response: Response<Body>,
    limit: usize,
) -> Result<Result<Bytes, Status>, BoxError> {
    let code = response.status();
    let text = body::read(response.into_body(), limit).await?;
    Ok(if code.is_success() {
        Ok(text)
    } else {
        Err(Status::received(code, &text))
    })
}
