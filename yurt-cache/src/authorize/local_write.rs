//! The writes that the node itself can stand behind while the cloud is away: what its kubelet says of the
//! node and its pods, its heartbeat, its events, and tokens for its pods. Nobody else's, and nothing else.

use http::Method;
use yurt_core::name::NodeName;

use super::Permit;
use crate::api::request::{ApiRequest, Path, Verb};
use crate::identity::Caller;

/// A write that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalWrite {
    /// The status of the node or of a pod.
    Status,
    /// The node's heartbeat.
    Lease,
    /// Something that happened, to be told to the cloud later.
    Event,
    /// The node introduces itself once more.
    Register,
    /// A token for a pod.
    TokenRequest,
}

/// Permits a write of the node `node`, if it is one that it can stand behind.
pub(crate) fn local_write(
    request: &ApiRequest,
    caller: &Caller,
    node: &NodeName,
) -> Option<(LocalWrite, Permit)> {
    Some((own_write(request, caller, node)?, Permit::new()))
}

fn own_write(request: &ApiRequest, caller: &Caller, node: &NodeName) -> Option<LocalWrite> {
    let path = request.path()?;
    if *caller != Caller::Node || request.verb != Verb::Write || request.is_upgrade {
        return None;
    }
    let is_put = matches!(request.method, Method::PUT | Method::PATCH);
    let is_post = request.method == Method::POST;
    let is_node = path.name.as_deref() == Some(node.as_str());
    match (kind(path), path.subresource.as_deref()) {
        (("", "pods"), Some("status")) if is_put => Some(LocalWrite::Status),
        (("", "nodes"), Some("status")) if is_put && is_node => Some(LocalWrite::Status),
        (("", "nodes"), None) if is_post => Some(LocalWrite::Register),
        (("", "serviceaccounts"), Some("token")) if is_post => Some(LocalWrite::TokenRequest),
        (("" | "events.k8s.io", "events"), None) if is_post || request.method == Method::PATCH => {
            Some(LocalWrite::Event)
        }
        (("coordination.k8s.io", "leases"), None) if is_lease_of(path, node) => {
            (is_put || is_post).then_some(LocalWrite::Lease)
        }
        _ => None,
    }
}

fn kind(path: &Path) -> (&str, &str) {
    (&path.resource.group, &path.resource.plural)
}

/// Heartbeats are leases of the node's name; a new one is posted without a name in its path.
fn is_lease_of(path: &Path, node: &NodeName) -> bool {
    path.namespace.as_deref() == Some("kube-node-lease")
        && path
            .name
            .as_deref()
            .is_none_or(|name| name == node.as_str())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::identity::Token;

    fn of(caller: &Caller, method: Method, uri: &str) -> Option<LocalWrite> {
        let request = ApiRequest::read(&method, &uri.parse().unwrap(), &HeaderMap::new());
        own_write(&request, caller, &"edge-1".parse().unwrap())
    }

    #[test]
    fn a_node_stands_behind_its_own_status_heartbeat_events_and_tokens_and_nothing_else() {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        for (method, uri, expected) in [
            (
                Method::PATCH,
                "/api/v1/namespaces/a/pods/p/status",
                Some(LocalWrite::Status),
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/a/pods/p/status",
                Some(LocalWrite::Status),
            ),
            (
                Method::PATCH,
                "/api/v1/nodes/edge-1/status",
                Some(LocalWrite::Status),
            ),
            (Method::PATCH, "/api/v1/nodes/edge-2/status", None),
            (Method::PATCH, "/api/v1/nodes/edge-1", None),
            (Method::POST, "/api/v1/nodes", Some(LocalWrite::Register)),
            (
                Method::PUT,
                &format!("{lease}/edge-1"),
                Some(LocalWrite::Lease),
            ),
            (Method::POST, lease, Some(LocalWrite::Lease)),
            (Method::PUT, &format!("{lease}/edge-2"), None),
            (Method::DELETE, &format!("{lease}/edge-1"), None),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/edge-1",
                None,
            ),
            (
                Method::POST,
                "/api/v1/namespaces/a/events",
                Some(LocalWrite::Event),
            ),
            (
                Method::PATCH,
                "/api/v1/namespaces/a/events/e",
                Some(LocalWrite::Event),
            ),
            (
                Method::POST,
                "/apis/events.k8s.io/v1/namespaces/a/events",
                Some(LocalWrite::Event),
            ),
            (
                Method::POST,
                "/api/v1/namespaces/a/serviceaccounts/default/token",
                Some(LocalWrite::TokenRequest),
            ),
            (Method::POST, "/api/v1/namespaces/a/pods", None),
            (Method::POST, "/api/v1/namespaces/a/pods/p/eviction", None),
            (Method::POST, "/api/v1/namespaces/a/pods/p/binding", None),
            (Method::DELETE, "/api/v1/namespaces/a/pods/p", None),
            (
                Method::POST,
                "/apis/certificates.k8s.io/v1/certificatesigningrequests",
                None,
            ),
            (Method::GET, "/api/v1/namespaces/a/pods/p/status", None),
        ] {
            assert_eq!(
                of(&Caller::Node, method.clone(), uri),
                expected,
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn nobody_but_the_node_writes_here() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer abc".parse().unwrap());
        let pod = Caller::Token(Token::from_headers(&headers).unwrap());
        for (method, uri) in [
            (Method::PATCH, "/api/v1/namespaces/a/pods/p/status"),
            (Method::POST, "/api/v1/namespaces/a/events"),
            (
                Method::POST,
                "/api/v1/namespaces/a/serviceaccounts/default/token",
            ),
        ] {
            assert_eq!(of(&pod, method, uri), None, "{uri}");
        }
    }
}
