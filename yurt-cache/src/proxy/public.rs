//! What kube-apiserver tells everybody by default (`system:public-info-viewer`): whether it is well, and its version.
//! Load balancers and monitors ask so, without credentials.
//!
//! It is asked as nobody, and what it says to nobody is passed on: a cluster that tells strangers nothing does not tell
//! them here. The answer serves all who ask within some seconds, because kube-apiserver closes the connection of each
//! anonymous request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{Answer, Proxy};
use crate::answer::{self, RETRY};
use crate::api::request::ApiRequest;
use crate::body::{self, Body, BoxError};
use crate::codec::Status;
use crate::limits::Requester;
use crate::metrics::ServedFrom;
use crate::upstream::client::Client;
use crate::upstream::{Credential, Link};

/// How long an answer serves others.
const FRESH: Duration = Duration::from_secs(10);

/// How long the cloud may take: others wait for the same answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of such an answer.
const LIMIT: usize = 64 << 10;

/// What everybody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicPath {
    Healthz,
    Livez,
    Readyz,
    Version,
}

impl PublicPath {
    /// Returns what a request asks, if it is one of these.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        if *request.method() != Method::GET {
            return None;
        }
        match request.uri().path() {
            "/healthz" => Some(Self::Healthz),
            "/livez" => Some(Self::Livez),
            "/readyz" => Some(Self::Readyz),
            "/version" | "/version/" => Some(Self::Version),
            _ => None,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Healthz => "/healthz",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Version => "/version",
        }
    }
}

/// What the cloud said last to nobody.
#[derive(Debug, Default)]
pub(crate) struct PublicAnswers {
    healthz: Mutex<Option<Said>>,
    livez: Mutex<Option<Said>>,
    readyz: Mutex<Option<Said>>,
    version: Mutex<Option<Said>>,
}

impl PublicAnswers {
    fn of(&self, path: PublicPath) -> &Mutex<Option<Said>> {
        match path {
            PublicPath::Healthz => &self.healthz,
            PublicPath::Livez => &self.livez,
            PublicPath::Readyz => &self.readyz,
            PublicPath::Version => &self.version,
        }
    }
}

#[derive(Clone, Debug)]
struct Said {
    at: Instant,
    status: StatusCode,
    content_type: Option<HeaderValue>,
    text: Bytes,
}

impl Said {
    fn is_refusal(&self) -> bool {
        matches!(
            self.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        )
    }

    fn show(&self) -> Response<Body> {
        let mut response = Response::new(body::full(self.text.clone()));
        *response.status_mut() = self.status;
        let content_type = self.content_type.clone();
        let headers = response.headers_mut();
        headers.extend(content_type.map(|value| (CONTENT_TYPE, value)));
        response
    }
}

impl Proxy {
    /// Answers a request without credentials.
    pub(crate) async fn serve_public(
        self: &Arc<Self>,
        path: PublicPath,
        requester: &Requester,
        request: &Request<Incoming>,
    ) -> Response<Body> {
        let began = Instant::now();
        let api = ApiRequest::read(request.method(), request.uri(), request.headers());
        let (place, placed) = self.place(requester, &api).await;
        let answered = match placed {
            Ok(()) => self.public(path).await,
            Err(refused) => Err(refused),
        };
        let (mut response, from) =
            answered.unwrap_or_else(|status| (answer::status(&status), ServedFrom::Hub));
        answer::mark(&mut response, from.as_str());
        self.metrics
            .request(api.verb, None, from, response.status(), began.elapsed());
        response.map(|body| body::holding(body, place))
    }

    async fn public(&self, path: PublicPath) -> Result<Answer, Status> {
        // Who comes second waits for the first one's answer.
        let mut last = self.public_answers.of(path).lock().await;
        if self.link() == Link::Up {
            if let Some(said) = last.as_ref().filter(|said| said.at.elapsed() < FRESH) {
                return Ok((said.show(), ServedFrom::Cloud));
            }
            if let Ok(Ok(said)) = timeout(PATIENCE, self.ask(path)).await {
                return Ok((last.insert(said).show(), ServedFrom::Cloud));
            }
        }
        match (path, last.as_ref()) {
            (_, Some(said)) if said.is_refusal() => Ok((said.show(), ServedFrom::Store)),
            // The hub is well, whatever became of the link.
            (PublicPath::Healthz | PublicPath::Livez, _) => {
                let mut response = Response::new(body::full("ok"));
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, text);
                Ok((response, ServedFrom::Hub))
            }
            (PublicPath::Version, Some(said)) if said.status.is_success() => {
                Ok((said.show(), ServedFrom::Store))
            }
            (PublicPath::Version | PublicPath::Readyz, _) => {
                Err(self.unavailable("only it can say this", Some(RETRY)))
            }
        }
    }

    async fn ask(&self, path: PublicPath) -> Result<Said, BoxError> {
        let client = Client::new(&self.upstream, Credential::Stranger, None);
        let (head, body) = client.get(path.path(), "*/*").await?.into_parts();
        Ok(Said {
            text: body::read(body, LIMIT).await?,
            at: Instant::now(),
            status: head.status,
            content_type: head.headers.get(CONTENT_TYPE).cloned(),
        })
    }
}
