//! Resources and scopes that the hub itself knows by name.

use yurt_core::name::NodeName;

use super::{Resource, Scope};

/// The scope of the Node itself.
pub(crate) fn node_scope(node: &NodeName) -> Scope {
    Scope::all(Resource::core("nodes")).named(node.as_str())
}

/// The scope of the node's pods.
pub(crate) fn pods_scope(node: &NodeName) -> Scope {
    Scope::all(Resource::core("pods")).with_field("spec.nodeName", node.as_str())
}

/// The resource of what drivers say of a node.
pub(crate) fn csi_nodes() -> Resource {
    Resource::new("storage.k8s.io", "v1", "csinodes")
}

/// The resource of leases.
pub(crate) fn leases() -> Resource {
    Resource::new("coordination.k8s.io", "v1", "leases")
}

/// The resource of definitions.
pub(crate) fn definitions() -> Resource {
    Resource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// Returns whether a resource may have a definition: the server's own groups have none.
pub(crate) fn may_be_custom(resource: &Resource) -> bool {
    let group = resource.group.as_str();
    let is_own =
        !group.contains('.') || (group.ends_with(".k8s.io") && !group.ends_with(".x-k8s.io"));
    !is_own || group == "snapshot.storage.k8s.io" || group == "gateway.networking.k8s.io"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_groups_have_no_definitions() {
        for (group, expected) in [
            ("", false),
            ("apps", false),
            ("rbac.authorization.k8s.io", false),
            ("example.com", true),
            ("cluster.x-k8s.io", true),
        ] {
            let resource = Resource::new(group, "v1", "things");
            assert_eq!(may_be_custom(&resource), expected, "{group}");
        }
    }
}
