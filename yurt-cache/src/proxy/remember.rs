//! What a forwarded answer is worth later: verdicts, mirrors, documents, objects.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::time::Instant;

use super::Proxy;
use super::exchange::{Exchange, access, scope_access};
use super::headers::announced;
use super::route::Remember;
use super::tee::tee;
use crate::api::ListAt;
use crate::api::request::{Path, Target, Verb};
use crate::body::Body;
use crate::discovery::LIMIT;
use crate::identity::Caller;

impl Proxy {
    /// Takes from an answer what it is worth later.
    pub(super) fn remember(
        self: &Arc<Self>,
        exchange: &Exchange,
        remember: Remember,
        parts: &Parts,
        response: Response<Body>,
    ) -> Response<Body> {
        let Exchange { caller, api, .. } = exchange;
        match (remember, &api.target) {
            (Remember::Scope, _) => {
                if response.status() == StatusCode::OK {
                    self.remember_scope(exchange);
                }
                response
            }
            (Remember::Document, _)
                if response.status() == StatusCode::OK && parts.method == Method::GET =>
            {
                self.remember_document(caller, parts, response)
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
                self.remember_object(exchange, path, response)
            }
            _ => response,
        }
    }

    fn remember_scope(self: &Arc<Self>, exchange: &Exchange) {
        let Some(scope) = exchange.scope() else {
            return;
        };
        let caller = &exchange.caller;
        let access = scope_access(&exchange.api, scope);
        self.verdicts.grant(caller, &access);
        self.learn(caller, scope);
        // It begins beside the answer, if it can.
        self.registry
            .find_or_start(scope, ListAt::Latest, caller, Instant::now());
    }

    fn remember_document(
        self: &Arc<Self>,
        caller: &Caller,
        parts: &Parts,
        response: Response<Body>,
    ) -> Response<Body> {
        let (documents, tasks) = (self.documents.clone(), self.tasks.clone());
        let (uri, tenant) = (parts.uri.clone(), caller.tenant());
        let (head, body) = response.into_parts();
        let headers = head.headers.clone();
        let body = tee(body, announced(&head.headers), LIMIT, move |text| {
            tasks.spawn_blocking(move || {
                let now = Instant::now();
                if let Err(error) = documents.remember(&uri, (&headers, &text), &tenant, now) {
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
