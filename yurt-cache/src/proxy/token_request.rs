//! The kubelet's requests for tokens of its pods. The cloud answers and the answer is kept; while it is away the
//! last real token is given again while it lives, and after that one of the hub's own.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use yurt_core::name::NodeName;

use super::exchange::Exchange;
use super::headers::remove_hop_headers;
use super::{Answer, Proxy, outgoing};
use crate::answer::{self, RETRY};
use crate::api::key;
use crate::api::request::{ApiRequest, Path, Shape};
use crate::api::well_known::pods_scope;
use crate::authorize::Permit;
use crate::body;
use crate::codec::{Status, Subject, protobuf};
use crate::identity::{Account, BoundPod, LocalToken, TokenKey, later};
use crate::metrics::ServedFrom;
use crate::tasks::blocking;
use crate::upstream::{Link, Purpose};

/// The longest request and answer: both hold a token's worth at most.
const LIMIT: usize = 64 << 10;

/// What a stored token must live at least to be given out.
const ALIVE_FOR: std::time::Duration = std::time::Duration::from_secs(60);

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    audiences: Vec<String>,
    bound_object_ref: Option<Bound>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Bound {
    kind: String,
    name: String,
    uid: String,
}

#[derive(Deserialize)]
struct TokenRequest {
    #[serde(default)]
    spec: Asked,
}

#[derive(Deserialize)]
struct Given {
    spec: Asked,
    status: GivenStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenStatus {
    token: String,
    expiration_timestamp: String,
}

/// What of a pod decides whether it gets a token.
#[derive(Deserialize)]
struct Pod {
    metadata: PodMetadata,
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodMetadata {
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    service_account_name: String,
}

impl Proxy {
    /// Asks the cloud for a token and keeps its answer; answers itself if the link breaks.
    pub(super) async fn forward_token_request(
        self: &Arc<Self>,
        permit: Permit,
        exchange: &Exchange,
        request: Request<Incoming>,
    ) -> Result<Answer, Status> {
        let Exchange { caller, api, .. } = exchange;
        let (parts, body) = request.into_parts();
        let body = read(body).await?;
        let mut outgoing = outgoing::request(caller, &parts, body::full(body.clone()));
        outgoing.headers_mut().remove(CONTENT_LENGTH);
        if api.shape == Some(Shape::Object) {
            let json = HeaderValue::from_static("application/json");
            outgoing.headers_mut().insert(ACCEPT, json);
        }
        let Ok(response) = self
            .upstream
            .send_for(&Purpose::Request, caller.credential(), outgoing)
            .await
        else {
            // Asking for a token twice does no harm.
            return self
                .answer_token_request(permit, api, &parts.headers, &body)
                .await;
        };
        let (mut head, given) = response.into_parts();
        let Ok(given) = body::read(given, LIMIT).await else {
            return self
                .answer_token_request(permit, api, &parts.headers, &body)
                .await;
        };
        remove_hop_headers(&mut head.headers);
        if head.status == StatusCode::CREATED
            && let (Ok(asked), Some(path)) = (Asked::read(&parts.headers, &body), api.path())
        {
            self.keep_token(path, &asked, &given);
        }
        let response = Response::from_parts(head, body::full(given));
        Ok((response, ServedFrom::Cloud))
    }

    fn keep_token(&self, path: &Path, asked: &Asked, given: &Bytes) {
        let Ok(read) = serde_json::from_slice::<Given>(given) else {
            return;
        };
        if asked.audiences.is_empty() {
            self.authenticator.learn_audiences(&read.spec.audiences);
        }
        self.authenticator.received(&read.status.token);
        let expires = read.status.expiration_timestamp.parse::<Timestamp>();
        if let (Some(order), Ok(expires)) = (asked.order(path), expires) {
            let now = self.authenticator.time();
            self.authenticator.issued.keep(&order, expires, given, now);
        }
    }

    /// Answers a request for a token from what the node itself has.
    pub(super) async fn answer_token_request(
        self: &Arc<Self>,
        _permit: Permit,
        api: &ApiRequest,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        if api.shape != Some(Shape::Object) {
            return Err(Status::not_acceptable(&["application/json"]));
        }
        let path = api.path().ok_or_else(Status::unknown_resource)?;
        let asked = Asked::read(headers, body).map_err(Status::bad_request)?;
        let (proxy, path) = (self.clone(), path.clone());
        let text = blocking(move || proxy.own_token(&path, &asked)).await?;
        let response = answer::json(StatusCode::CREATED, body::full(text));
        Ok((response, ServedFrom::Store))
    }

    /// Returns the last real token of the pod, or a new one of the hub's own. Blocks on the store.
    fn own_token(&self, path: &Path, asked: &Asked) -> Result<Bytes, Status> {
        let order = asked.order(path).ok_or_else(|| {
            self.unavailable(
                "the node itself makes tokens only for its pods",
                Some(RETRY),
            )
        })?;
        let then = later(self.authenticator.time(), ALIVE_FOR);
        let found = self.authenticator.issued.find(&order, then);
        match found.map_err(unreadable)? {
            Some(text) => Ok(text),
            None => self.mint(path, asked, &order),
        }
    }

    /// Makes a token for a pod that runs here under that account.
    fn mint(&self, path: &Path, asked: &Asked, order: &TokenKey<'_>) -> Result<Bytes, Status> {
        if self.link() == Link::Up && !self.is_reach_unknown() {
            // One request broke, and the next may not: the cloud's token is better.
            return Err(Status::timeout(
                "the link to the cloud broke before the answer came",
            ));
        }
        let bound = asked.bound_object_ref.as_ref();
        let bound = bound.expect("an order is for a pod");
        let pod = self.own_pod(order.namespace, &bound.name)?;
        if !pod.is_for(order, &self.node) {
            let subject = Subject {
                group: "",
                resource: "serviceaccounts/token",
                name: order.account,
            };
            let why = "the cloud is not reachable, and no pod of this node has this name, uid and account";
            return Err(Status::forbidden(subject, why));
        }
        let bound = BoundPod {
            name: bound.name.clone(),
            uid: bound.uid.clone(),
        };
        let account = Account {
            namespace: order.namespace.to_owned(),
            name: order.account.to_owned(),
            uid: None,
            pod: Some(bound.clone()),
        };
        let purpose = self.authenticator.purpose(&asked.audiences);
        let now = self.authenticator.time();
        let minted = self
            .authenticator
            .local_issuer
            .issue(&account, &bound, purpose, now)
            .ok_or_else(|| Status::internal("sign a token of the hub's own"))?;
        self.authenticator.count_minted();
        Ok(granted(path, order, &bound, &minted, now))
    }

    /// Returns a pod as a mirror of this node's pods has it. Blocks on the store for one object.
    fn own_pod(&self, namespace: &str, name: &str) -> Result<Pod, Status> {
        let unknown = || {
            self.unavailable(
                "this node does not know the pod that the token is for",
                Some(RETRY),
            )
        };
        let scope = pods_scope(&self.node);
        let mirror = self.registry.find(&scope).ok_or_else(unknown)?;
        let key = key(namespace, name);
        let version = mirror.cloud_version(&key).ok_or_else(unknown)?;
        let read = mirror.kind.read(&key, version).map_err(unreadable)?;
        let text = read.ok_or_else(unknown)?;
        serde_json::from_slice(&text)
            .map_err(|error| Status::internal(&format!("read the pod {namespace}/{name}: {error}")))
    }
}

impl Pod {
    /// Returns whether a token for it may be given out on this node.
    fn is_for(&self, order: &TokenKey<'_>, node: &NodeName) -> bool {
        let account = match self.spec.service_account_name.as_str() {
            "" => "default",
            name => name,
        };
        self.metadata.uid == order.uid
            && self.spec.node_name == node.as_str()
            && account == order.account
    }
}

impl Asked {
    /// Reads a request, JSON or protobuf.
    fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, String> {
        let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content_type.is_some_and(|value| value.starts_with(protobuf::MEDIA_TYPE.as_bytes())) {
            let spec = protobuf::token_request(body)
                .map_err(|error| format!("the token request cannot be read: {error}"))?;
            return Ok(Self {
                audiences: spec.audiences,
                bound_object_ref: spec.bound_object_ref.map(|bound| Bound {
                    kind: bound.kind,
                    name: bound.name,
                    uid: bound.uid,
                }),
            });
        }
        let request: TokenRequest = serde_json::from_slice(body)
            .map_err(|error| format!("the token request cannot be read: {error}"))?;
        Ok(request.spec)
    }

    /// Returns under what the answer is kept; `None` unless it is for a pod.
    fn order<'a>(&'a self, path: &'a Path) -> Option<TokenKey<'a>> {
        let bound = self.bound_object_ref.as_ref()?;
        let is_pod = bound.kind == "Pod" && !bound.name.is_empty() && !bound.uid.is_empty();
        is_pod.then_some(TokenKey {
            namespace: path.namespace.as_deref()?,
            account: path.name.as_deref()?,
            uid: &bound.uid,
            audiences: &self.audiences,
        })
    }
}

/// Writes a token as the server's answer.
fn granted(
    path: &Path,
    order: &TokenKey<'_>,
    bound: &BoundPod,
    minted: &LocalToken,
    now: Timestamp,
) -> Bytes {
    let lifetime = minted.expires.as_second() - now.as_second();
    let answer = json!({
        "kind": "TokenRequest",
        "apiVersion": format!("authentication.k8s.io/{}", path.resource.version),
        "metadata": {
            "name": order.account,
            "namespace": order.namespace,
            "creationTimestamp": seconds(now),
        },
        "spec": {
            "audiences": order.audiences,
            "expirationSeconds": lifetime,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": bound.name, "uid": bound.uid},
        },
        "status": {"token": minted.token, "expirationTimestamp": seconds(minted.expires)},
    });
    answer.to_string().into()
}

fn unreadable(error: yurt_core::store::Error) -> Status {
    Status::internal(&format!("read the node's store: {error}"))
}

async fn read(body: Incoming) -> Result<Bytes, Status> {
    body::read(body::incoming(body), LIMIT)
        .await
        .map_err(|error| Status::bad_request(format!("read the token request: {error}")))
}

fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}
