//! Forwards a request to the cloud as its caller, and remembers what the answer is worth later.

use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::route::Remember;
use super::tee::{decompress, tee};
use super::{Proxy, access, upload};
use crate::answer::RETRY;
use crate::api::request::{ApiRequest, Path, Shape, Target, Verb};
use crate::api::{ListAt, Scope, human};
use crate::authorize::Access;
use crate::body::{self, Body};
use crate::codec::{Inflate, Status, accepts_gzip};
use crate::discovery::{self, LIMIT};
use crate::identity::Caller;
use crate::limits::Place;
use crate::upstream::SendError;

/// Headers about one connection, not about the request (RFC 9110, section 7.6.1).
const NOT_FORWARDED: [HeaderName; 9] = [
    CONNECTION,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
];

/// What tells of who is in front of us, and as whom: nobody in front of us may say it.
const CLAIMS: [&str; 4] = ["forwarded", "x-forwarded-", "x-real-ip", "x-remote-"];

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
        caller: &Caller,
        exchange: &Exchange,
        scope: Option<&Scope>,
        remember: Remember,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Broken> {
        let api = &exchange.api;
        let (parts, body) = request.into_parts();
        let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
        // A backend behind the server may want the body of a read; the server itself does not look at any.
        let is_bare = is_read && (remember != Remember::Nothing || body.is_end_stream());
        let (body, verdict) = match (is_bare, api.lasts()) {
            (true, _) => (body::empty(), upload::Verdict::default()),
            // What is sent to a pod is a stream of its own, of any length and pace.
            (false, true) => (body::incoming(body), upload::Verdict::default()),
            (false, false) => upload::bounded(body::incoming(body), self.body_limit),
        };
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = parts.method.clone();
        *outgoing.uri_mut() = parts
            .uri
            .path_and_query()
            .map_or_else(|| http::Uri::from_static("/"), |path| path.clone().into());
        *outgoing.headers_mut() = forwarded(&parts.headers);
        if is_bare {
            // Its body stays here, and HTTP/2 takes a length without one for an error.
            outgoing.headers_mut().remove(CONTENT_LENGTH);
        }
        caller.sign(outgoing.headers_mut());
        let mut decompresses = false;
        let is_sifted = exchange.sieve.is_some();
        if is_sifted || (remember != Remember::Nothing && api.verb != Verb::Write) {
            decompresses = is_sifted || !accepts_gzip(&parts.headers);
            outgoing
                .headers_mut()
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let is_remembered = remember == Remember::Object && api.verb == Verb::Get;
        if is_sifted || (is_remembered && api.shape == Some(Shape::Object)) {
            outgoing
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static("application/json"));
        }
        let sent = match self.upstream.send(caller.credential(), outgoing).await {
            Ok(response) if remember == Remember::Object && is_read => whole(response).await,
            sent => sent,
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => {
                let refused = verdict.status();
                return Err(Broken {
                    parts,
                    error,
                    refused,
                });
            }
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authenticator.refused(caller);
        }
        remove_hop_headers(response.headers_mut());
        if response.status() == StatusCode::FORBIDDEN {
            self.remember_refusal(caller, api, scope);
        }
        let response = self.remember(caller, api, scope, remember, &parts, response);
        Ok(if decompresses {
            plain(response)
        } else {
            response
        })
    }

    /// Forwards a request that becomes a raw stream in both directions.
    pub(super) async fn upgrade(
        self: &Arc<Self>,
        caller: &Caller,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let local = hyper::upgrade::on(&mut request);
        let place = request.extensions().get::<Option<Place>>().cloned();
        let (parts, body) = request.into_parts();
        let mut outgoing = Request::new(body::incoming(body));
        *outgoing.method_mut() = parts.method.clone();
        *outgoing.uri_mut() = parts
            .uri
            .path_and_query()
            .map_or_else(|| http::Uri::from_static("/"), |path| path.clone().into());
        *outgoing.headers_mut() = forwarded(&parts.headers);
        if let Some(protocol) = parts.headers.get(UPGRADE) {
            let headers = outgoing.headers_mut();
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        caller.sign(outgoing.headers_mut());
        let sent = self.upstream.upgrade(caller.credential(), outgoing).await;
        let (mut response, remote) = sent.map_err(|error| unsent(&error, self.since()))?;
        let Some(remote) = remote else {
            remove_hop_headers(response.headers_mut());
            return Ok(response);
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

    fn remember(
        self: &Arc<Self>,
        caller: &Caller,
        api: &ApiRequest,
        scope: Option<&Scope>,
        remember: Remember,
        parts: &Parts,
        response: Response<Body>,
    ) -> Response<Body> {
        match (remember, &api.target) {
            (Remember::Scope, _) => {
                if let Some(scope) = scope.filter(|_| response.status() == StatusCode::OK) {
                    self.remember_scope(caller, api, scope);
                }
                response
            }
            (Remember::Document, _)
                if response.status() == StatusCode::OK && parts.method == Method::GET =>
            {
                self.remember_document(parts, response)
            }
            // A status is answered from its object while the cloud is away, to whom the cloud showed it.
            (Remember::Nothing, Target::Resource(path))
                if api.verb == Verb::Get
                    && path.subresource.as_deref() == Some("status")
                    && response.status() == StatusCode::OK =>
            {
                self.verdicts.grant(caller, &access("get", path));
                response
            }
            (Remember::Object, Target::Resource(path))
                if response.status() == StatusCode::CREATED
                    && is_of_node(caller, path)
                    && api.method == Method::POST =>
            {
                let itself = Path {
                    name: Some(self.node.to_string()),
                    ..path.clone()
                };
                self.fetch_object(caller, &itself);
                response
            }
            (Remember::Object, Target::Resource(path)) => {
                self.remember_object(caller, api, path, response)
            }
            _ => response,
        }
    }

    /// What the cloud has refused to a reader is refused as well while it is away.
    fn remember_refusal(&self, caller: &Caller, api: &ApiRequest, scope: Option<&Scope>) {
        let access = match (api.verb, scope, &api.target) {
            (Verb::List, Some(scope), _) => Access::to_scope("list", scope),
            (Verb::Watch, Some(scope), _) => Access::to_scope("watch", scope),
            (Verb::Get, _, Target::Resource(path)) => access("get", path),
            _ => return,
        };
        self.verdicts.deny(caller, &access);
    }

    fn remember_scope(self: &Arc<Self>, caller: &Caller, api: &ApiRequest, scope: &Scope) {
        let verb = if api.verb == Verb::Watch {
            "watch"
        } else {
            "list"
        };
        let access = Access::to_scope(verb, scope);
        self.verdicts.grant(caller, &access);
        self.learn(caller, scope);
        // It begins beside the answer, if it can.
        self.registry
            .find_or_start(scope, ListAt::Latest, caller, Instant::now());
    }

    fn remember_document(
        self: &Arc<Self>,
        parts: &Parts,
        response: Response<Body>,
    ) -> Response<Body> {
        let (documents, tasks) = (self.documents.clone(), self.tasks.clone());
        let uri = parts.uri.clone();
        let accept = discovery::accept(&parts.headers).to_owned();
        let (head, body) = response.into_parts();
        let headers = head.headers.clone();
        let body = tee(body, announced(&head.headers), LIMIT, move |text| {
            tasks.spawn_blocking(move || {
                if let Err(error) =
                    documents.remember(&uri, &accept, &headers, &text, Instant::now())
                {
                    tracing::warn!(%uri, %error, "a document is not remembered");
                }
            });
        });
        Response::from_parts(head, body)
    }
}

/// Returns whether a node makes such an object of itself, once, and reads it by name at each of its starts.
fn is_of_node(caller: &Caller, path: &Path) -> bool {
    let Path {
        resource,
        namespace,
        ..
    } = path;
    *caller == Caller::Node
        && match (resource.group.as_str(), resource.plural.as_str()) {
            ("storage.k8s.io", "csinodes") => true,
            ("coordination.k8s.io", "leases") => namespace.as_deref() == Some("kube-node-lease"),
            _ => false,
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
        _ => Status::timeout(
            "the link to the cloud broke before the answer came: the request may have been carried out or not",
        ),
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

pub(super) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    remove_hop_headers(&mut kept);
    let claims: Vec<HeaderName> = kept
        .keys()
        .filter(|name| CLAIMS.iter().any(|claim| name.as_str().starts_with(claim)))
        .cloned()
        .collect();
    for name in claims {
        kept.remove(name);
    }
    kept
}

pub(super) fn remove_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in NOT_FORWARDED.iter().chain(&named) {
        headers.remove(name);
    }
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

/// Returns the length that the sender announced.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"))
}
