//! Subresources that are no part of the object: logs, streams, tokens, bindings, evictions.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    auth::User,
    body::json_body,
    present,
    reply::{self, Reply},
    request::{Query, Target},
    resource::Resource,
    serve::{Server, plain_json, text},
    state::{State, format_time},
    status::ApiError,
    write::Write,
};

const STREAMS: [&str; 3] = ["exec", "attach", "portforward"];
const LOG: &str = "first line\nsecond line\nthird line\n";

/// Lists subresource, kind and verbs, as discovery shows them.
pub(crate) fn subresources(resource: &Resource) -> Vec<(&'static str, &str, Value)> {
    let mut found = Vec::new();
    if resource.has_status {
        found.push((
            "status",
            resource.kind.as_str(),
            json!(["get", "patch", "update"]),
        ));
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => {
            found.push(("attach", "PodAttachOptions", json!(["create", "get"])));
            found.push(("binding", "Binding", json!(["create"])));
            found.push(("eviction", "Eviction", json!(["create"])));
            found.push(("exec", "PodExecOptions", json!(["create", "get"])));
            found.push(("log", "Pod", json!(["get"])));
            found.push((
                "portforward",
                "PodPortForwardOptions",
                json!(["create", "get"]),
            ));
        }
        ("", "serviceaccounts") => found.push(("token", "TokenRequest", json!(["create"]))),
        ("", "namespaces") => found.push(("finalize", "Namespace", json!(["update"]))),
        _ => {}
    }
    found
}

/// Tells whether the resource has such a subresource.
pub(crate) fn is_subresource(resource: &Resource, name: &str) -> bool {
    subresources(resource)
        .iter()
        .any(|(known, _, _)| *known == name)
}

/// Tells whether the request is for one that is answered here.
pub(crate) fn is_connect(resource: &Resource, target: &Target) -> bool {
    let name = target.subresource.as_deref().unwrap_or_default();
    !matches!(name, "" | "status" | "finalize") && is_subresource(resource, name)
}

pub(crate) async fn answer(
    server: &Arc<Server>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Reply>, ApiError> {
    let name = target.subresource.as_deref().unwrap_or_default();
    let object = find(server, target)?;
    tracing::trace!(user = user.name, name, "connect");
    match (name, request.method()) {
        ("log", &Method::GET) => Ok(log(query)),
        (name, &Method::GET | &Method::POST) if STREAMS.contains(&name) => upgrade(server, request),
        ("token", &Method::POST) => token(server, target, json_body(request).await?),
        ("binding" | "eviction", &Method::POST) => {
            let body = json_body(request).await?;
            change_pod(server, target, query, &object, &body)
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn find(server: &Server, target: &Target) -> Result<Arc<Value>, ApiError> {
    let mut state = server.state.lock();
    let resource = state.resolve(target)?;
    let key = state.key(&resource, target.namespace.as_deref(), target.name());
    let found = state.store.get(&key).cloned();
    found.ok_or_else(|| ApiError::not_found(&resource, target.name()))
}

// === Logs ===

fn log(query: &Query) -> Response<Reply> {
    if !query.is_set("follow") {
        return text(StatusCode::OK, LOG);
    }
    let mut response = text(StatusCode::OK, "");
    *response.body_mut() = reply::boxed(Following {
        text: Some(Bytes::from_static(LOG.as_bytes())),
    });
    response
}

/// The lines so far, and then silence until the client leaves.
struct Following {
    text: Option<Bytes>,
}

impl Body for Following {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.text.take() {
            Some(text) => Poll::Ready(Some(Ok(Frame::data(text)))),
            None => Poll::Pending,
        }
    }
}

// === Streams ===

/// Accepts SPDY and WebSocket upgrades by name, and gives every byte back.
fn upgrade(server: &Server, request: Request<Incoming>) -> Result<Response<Reply>, ApiError> {
    let headers = request.headers();
    let Some(protocol) = headers.get(header::UPGRADE).cloned() else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let mut response = Response::new(reply::boxed(Empty::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let shown = response.headers_mut();
    shown.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    shown.insert(header::UPGRADE, protocol);
    for name in ["x-stream-protocol-version", "sec-websocket-protocol"] {
        let first = headers.get(name).and_then(|value| value.to_str().ok());
        let first = first.and_then(|value| value.split(',').next());
        if let Some(value) = first.and_then(|value| HeaderValue::from_str(value.trim()).ok()) {
            shown.insert(name, value);
        }
    }
    let upgraded = hyper::upgrade::on(request);
    server.tasks.spawn(async move {
        match upgraded.await {
            Ok(stream) => echo(TokioIo::new(stream)).await,
            Err(error) => tracing::debug!(%error, "upgrade"),
        }
    });
    Ok(response)
}

/// Echoes until the client half-closes, then says goodbye and closes its own half.
async fn echo(mut stream: TokioIo<hyper::upgrade::Upgraded>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            Err(error) => return tracing::debug!(%error, "echo"),
        }
    }
    let farewell = async {
        stream.write_all(b"end\n").await?;
        stream.shutdown().await
    };
    if let Err(error) = farewell.await {
        tracing::debug!(%error, "farewell");
    }
}

// === Tokens ===

fn token(server: &Server, target: &Target, mut review: Value) -> Result<Response<Reply>, ApiError> {
    if !review.is_object() || !(review["spec"].is_object() || review["spec"].is_null()) {
        return Err(ApiError::bad_request("the object provided is unrecognized"));
    }
    let (namespace, name) = (
        target.namespace.as_deref().unwrap_or_default(),
        target.name(),
    );
    let seconds = review["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or(3_600);
    let now = (server.config.clock)();
    let seconds = seconds.max(600);
    let is_unnamed = review["spec"]["audiences"]
        .as_array()
        .is_none_or(Vec::is_empty);
    if is_unnamed {
        review["spec"]["audiences"] = json!([server.config.issuer.audience()]);
    }
    review["spec"]["expirationSeconds"] = seconds.into();
    let token = server.issue_token(namespace, name, &review["spec"], seconds);
    let expiry = now.as_second().saturating_add(seconds);
    let at = jiff::Timestamp::from_second(expiry).unwrap_or(now);
    review["kind"] = "TokenRequest".into();
    review["apiVersion"] = "authentication.k8s.io/v1".into();
    review["status"] = json!({"token": token, "expirationTimestamp": format_time(at)});
    Ok(plain_json(StatusCode::CREATED, &review))
}

// === Pods ===

/// A binding puts a pod on a node; an eviction deletes it.
fn change_pod(
    server: &Server,
    target: &Target,
    query: &Query,
    pod: &Value,
    body: &Value,
) -> Result<Response<Reply>, ApiError> {
    let is_binding = target.subresource.as_deref() == Some("binding");
    let target = Target {
        subresource: None,
        ..target.clone()
    };
    let mut guard = server.state.lock();
    let state: &mut State = &mut guard;
    let resource = state.resolve(&target)?;
    let write = Write {
        resource: resource.clone(),
        target: &target,
        query,
        now: (server.config.clock)(),
        is_dry: Write::is_dry(query, "CreateOptions")?,
        ca_pem: &server.ca_pem,
    };
    if is_binding {
        if pod["spec"]["nodeName"]
            .as_str()
            .is_some_and(|node| !node.is_empty())
        {
            let why = format!(
                "pod {} is already assigned to node {}",
                target.name(),
                pod["spec"]["nodeName"]
            );
            return Err(ApiError::conflict(&resource, target.name(), &why));
        }
        // Past the update: a binding is no change of the spec, and counts no generation.
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = body["target"]["name"].clone();
        let key = state.key(&write.resource, target.namespace.as_deref(), target.name());
        state.store.put(key, pod);
    } else {
        write.delete(state, &body["deleteOptions"])?;
    }
    server.announce(state);
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let body = Full::new(Bytes::from(present::status(&done))).boxed_unsync();
    let mut response = reply::with_type(Response::new(body), "application/json");
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}
