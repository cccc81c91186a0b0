//! Whether a refusal is the API server's own word on its caller: not that of a backend behind it, nor of a firewall or a
//! balancer in front of it.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;

use super::Proxy;
use super::exchange::{Exchange, access};
use super::headers::announced;
use super::tee::tee;
use crate::api::request::{Target, Verb};
use crate::authorize::Access;
use crate::body::Body;
use crate::identity::Caller;

/// What the API server puts into each of its answers:
/// `k8s.io/apiserver/pkg/endpoints/filters/audit_init.go`.
const AUDIT_ID: &str = "audit-id";

/// The longest refusal that is looked at.
const LIMIT: usize = 64 << 10;

impl Proxy {
    /// Takes from a refusal what it says of the caller, if it is the API server's own: it is signed, or worded as one.
    pub(super) fn note_refusal(
        self: &Arc<Self>,
        exchange: &Exchange,
        path: &str,
        response: Response<Body>,
    ) -> Response<Body> {
        let code = response.status();
        let refuses = matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if !refuses || !self.is_for_the_server(exchange, path) {
            return response;
        }
        let (caller, access) = (exchange.caller.clone(), read(exchange));
        if is_signed(response.headers()) {
            self.take_refusal(code, &caller, access);
            return response;
        }
        let proxy = self.clone();
        let (head, body) = response.into_parts();
        let body = tee(body, announced(&head.headers), LIMIT, move |text| {
            if is_status(&text) {
                proxy.take_refusal(code, &caller, access);
            }
        });
        Response::from_parts(head, body)
    }

    /// What the cloud has refused to a reader is refused as well while it is away.
    fn take_refusal(&self, code: StatusCode, caller: &Caller, access: Option<Access>) {
        match (code, access) {
            (StatusCode::UNAUTHORIZED, _) => self.verdicts.refused(caller),
            (_, Some(access)) => self.verdicts.deny(caller, &access),
            (_, None) => {}
        }
    }

    /// Returns whether it is the API server itself that a request is for.
    fn is_for_the_server(&self, exchange: &Exchange, path: &str) -> bool {
        match &exchange.api.target {
            Target::Resource(path) => {
                let subresource = path.subresource.as_deref().unwrap_or_default();
                let is_passed_on = subresource.split('/').next() == Some("proxy");
                !is_passed_on && self.registry.is_served_by_kube_apiserver(&path.resource)
            }
            // An aggregated API describes itself.
            Target::Document => !path.starts_with("/apis/"),
            Target::Other => false,
        }
    }
}

/// Returns what a request wants to read.
fn read(exchange: &Exchange) -> Option<Access> {
    let api = &exchange.api;
    match (api.verb, exchange.scope(), &api.target) {
        (Verb::List, Some(scope), _) => Some(Access::to_scope("list", scope)),
        (Verb::Watch, Some(scope), _) => Some(Access::to_scope("watch", scope)),
        (Verb::Get, _, Target::Resource(path)) => Some(access("get", path)),
        _ => None,
    }
}

/// Returns whether the API server says that it made the answer.
pub(crate) fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key(AUDIT_ID)
}

fn is_status(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        kind: String,
        api_version: String,
    }
    let head = serde_json::from_slice::<Head>(text);
    head.is_ok_and(|head| head.kind == "Status" && head.api_version == "v1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_worded_as_the_servers_own_if_it_is_a_status() {
        for (text, expected) in [
            (r#"{"kind":"Status","apiVersion":"v1","code":403}"#, true),
            (r#"{"kind":"Status"}"#, false),
            (r#"{"kind":"Pod","apiVersion":"v1"}"#, false),
            ("<html>no</html>", false),
            ("", false),
        ] {
            assert_eq!(is_status(text.as_bytes()), expected, "{text}");
        }
    }
}
