//! What a restart of this node needs while the cloud is away: what the kubelet lists before it starts a
//! pod, and what the pods on the node refer to.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use yurt_core::name::NodeName;

use super::pod::{self, Pod};
use crate::api::well_known::{csi_nodes, leases, node_scope, pods_scope};
use crate::api::{ObjectKey, Resource, Scope, key};
use crate::codec::FieldSelector;

/// An object that a pod on the node refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The pod starts without it too.
    pub(crate) is_optional: bool,
    /// `namespace/name` of the pod.
    pub(crate) pod: ObjectKey,
}

/// What a restart needs.
#[derive(Debug)]
pub(crate) struct Needs {
    /// What every kubelet lists and watches.
    pub(crate) kubelet: Vec<Scope>,
    /// What the pods refer to.
    pub(crate) objects: Vec<Needed>,
    /// The pods that are to run.
    pub(crate) pods: usize,
    /// One of the pods is kube-proxy.
    pub(crate) has_proxy: bool,
    /// Some of them mount a token.
    pub(crate) has_tokens: bool,
    /// The user names of the pods' service accounts.
    pub(crate) accounts: BTreeSet<String>,
    /// Objects by name that are kept beside those of the pods.
    kept: HashMap<Resource, HashSet<ObjectKey>>,
}

impl Needs {
    /// Returns what is needed with these pods on the node; `volume_of` names the PersistentVolume of a claim.
    pub(crate) fn of(
        node: &NodeName,
        pods: &[Pod],
        volume_of: impl Fn(&str, &str) -> Option<String>,
    ) -> Self {
        let mut needs = Self {
            kubelet: kubelet(node),
            objects: Vec::new(),
            pods: 0,
            has_proxy: false,
            has_tokens: false,
            accounts: BTreeSet::new(),
            kept: HashMap::new(),
        };
        let node = node.to_string();
        needs.keep(Resource::core("nodes"), key("", &node));
        needs.keep(csi_nodes(), key("", &node));
        needs.keep(leases(), key("kube-node-lease", &node));
        for pod in pods {
            needs.keep(Resource::core("pods"), key(&pod.namespace, &pod.name));
            if pod.is_over {
                continue;
            }
            needs.pods += 1;
            needs.has_proxy |= pod.is_proxy;
            needs.has_tokens |= pod.has_token;
            let account = format!("system:serviceaccount:{}:{}", pod.namespace, pod.account);
            needs.accounts.insert(account);
            needs.add(pod, &volume_of);
        }
        needs
    }

    fn add(&mut self, pod: &Pod, volume_of: &impl Fn(&str, &str) -> Option<String>) {
        let user = key(&pod.namespace, &pod.name);
        let needed = |plural, namespace: &str, name: &str, is_optional| Needed {
            resource: Resource::core(plural),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            is_optional,
            pod: user.clone(),
        };
        for reference in &pod.references {
            let (plural, name) = (reference.plural, reference.name.as_str());
            let of_pod = needed(plural, &pod.namespace, name, reference.is_optional);
            self.keep(of_pod.resource.clone(), key(&of_pod.namespace, name));
            self.objects.push(of_pod);
            if plural == pod::CLAIMS
                && let Some(volume) = volume_of(&pod.namespace, name)
            {
                self.keep(Resource::core("persistentvolumes"), key("", &volume));
                self.objects
                    .push(needed("persistentvolumes", "", &volume, false));
            }
        }
    }

    /// Notes an object that is kept for another reason.
    pub(crate) fn keep(&mut self, resource: Resource, key: ObjectKey) {
        self.kept.entry(resource).or_default().insert(key);
    }

    /// Returns whether a restart needs the object, whoever remembers it.
    pub(crate) fn has_object(&self, resource: &Resource, key: &str) -> bool {
        // What a kubelet asks of an attached volume has a name that is a digest: there are few.
        resource.plural == "volumeattachments"
            || self
                .kept
                .get(resource)
                .is_some_and(|kept| kept.contains(key))
    }

    /// Returns the objects by name that a restart needs.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&Resource, &ObjectKey)> {
        let kinds = self.kept.iter();
        kinds.flat_map(|(resource, keys)| keys.iter().map(move |key| (resource, key)))
    }

    /// Returns the scopes from which a restart is answered.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> {
        let objects = self.objects.iter().map(Needed::scope);
        self.kubelet.iter().cloned().chain(objects)
    }
}

impl Needed {
    /// Returns the scope of the object alone, as a kubelet lists and watches it.
    pub(crate) fn scope(&self) -> Scope {
        let namespace = (!self.namespace.is_empty()).then(|| self.namespace.clone());
        Scope::all(self.resource.clone())
            .in_namespace(namespace)
            .named(&self.name)
    }
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.resource)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// What every kubelet lists and watches before it starts a pod: `pkg/kubelet/kubelet.go`.
fn kubelet(node: &NodeName) -> Vec<Scope> {
    let with_address = FieldSelector::parse("spec.clusterIP!=None");
    vec![
        node_scope(node),
        pods_scope(node),
        Scope {
            // Headless ones make no environment for a pod.
            fields: with_address.expect("a constant selector parses"),
            ..Scope::all(Resource::core("services"))
        },
        Scope::all(Resource::new("node.k8s.io", "v1", "runtimeclasses")),
        Scope::all(Resource::new("storage.k8s.io", "v1", "csidrivers")),
    ]
}

/// Returns whether a scope is kept whatever it costs: a single object, or what every kubelet lists.
pub(crate) fn is_always_kept(scope: &Scope) -> bool {
    scope.name().is_some()
        || scope.fields.exact("spec.nodeName").is_some()
        || matches!(
            (&*scope.resource.group, &*scope.resource.plural),
            ("", "services") | ("node.k8s.io", "runtimeclasses") | ("storage.k8s.io", "csidrivers")
        )
}

#[cfg(test)]
mod tests;
