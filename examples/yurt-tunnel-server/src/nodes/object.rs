//! The parts of a Node object that say how the node is reached. The rest, tens of kilobytes, is skipped.

use std::borrow::Cow;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::core::v1::{Node as KubeNode, NodeAddress, NodeDaemonEndpoints};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use yurt_tunnel::nodes::{KUBELET_PORT, Node};

/// Nodes with this label are at the edge (OpenYurt's well-known label).
pub(super) const EDGE_LABEL: &str = "openyurt.io/is-edge-worker";

/// How many addresses of one Node count: it could claim those of all future nodes.
const MAX_ADDRESSES: usize = 64;

/// DNS has no longer names.
const MAX_NAME: usize = 253;

/// The parts of a Node that are needed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeObject {
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    addresses: Vec<NodeAddress>,
    daemon_endpoints: NodeDaemonEndpoints,
}

impl Resource for NodeObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KubeNode::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        KubeNode::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        KubeNode::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        KubeNode::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A node, and when it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    created: Option<Time>,
    pub(super) node: Node,
}

/// Sorts nodes by age, those of the same second by name. The API server sets the time, not the kubelet.
pub(super) fn oldest_first<'a>(known: impl IntoIterator<Item = &'a Known>) -> Vec<Node> {
    let mut known: Vec<_> = known.into_iter().collect();
    known.sort_by_key(|Known { created, node }| (created.is_none(), created, &node.name));
    known.into_iter().map(|known| known.node.clone()).collect()
}

/// Reads a Node object; `None` if its name is invalid.
pub(super) fn known(object: &NodeObject) -> Option<Known> {
    let name = object.metadata.name.as_deref()?.parse().ok()?;
    let status = object.status.clone();
    // The address at which nodes reach each other is dialled first.
    let mut addresses = status.addresses;
    addresses.sort_by_key(|address| address.type_ != "InternalIP");
    let addresses = addresses.into_iter().map(|one| one.address);
    let addresses = addresses
        .filter(|address| address.len() <= MAX_NAME)
        .take(MAX_ADDRESSES)
        .collect();
    let port = status
        .daemon_endpoints
        .kubelet_endpoint
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0);
    let labels = object.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(EDGE_LABEL));
    let node = Node {
        name,
        addresses,
        edge: label.is_some_and(|value| value == "true"),
        kubelet_port: port.unwrap_or(KUBELET_PORT),
    };
    let created = object.metadata.creation_timestamp.clone();
    Some(Known { created, node })
}
