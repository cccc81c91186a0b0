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

/// The groups that kube-apiserver itself serves (`pkg/controlplane/instance.go`), without the `.k8s.io` at their end.
const OWN: &str = " admissionregistration apiextensions apiregistration apps authentication authorization autoscaling \
    batch certificates coordination discovery events extensions flowcontrol.apiserver imagepolicy \
    internal.apiserver networking node policy rbac.authorization resource scheduling storage storagemigration ";

/// Returns whether a resource may have a definition, or another server: the server's own groups have none, and others
/// are named like them, as `metrics.k8s.io`.
pub(crate) fn may_be_custom(resource: &Resource) -> bool {
    let group = resource.group.as_str();
    let stem = group.strip_suffix(".k8s.io").unwrap_or(group);
    !group.is_empty() && !OWN.split(' ').any(|own| own == stem)
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
            ("snapshot.storage.k8s.io", true),
            ("metrics.k8s.io", true),
            ("metrics", true),
        ] {
            let resource = Resource::new(group, "v1", "things");
            assert_eq!(may_be_custom(&resource), expected, "{group}");
        }
    }
}
