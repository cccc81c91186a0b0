//! What the node's own pods really are, as its kubelet reported it, and the endpoints that follow from that.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use yurt_core::name::NodeName;

use super::OverlayError;
use super::endpoint::{PodFacts, Pods, Unready, correct_endpoints, correct_slice};
use super::unheard::Unheard;
use crate::api::well_known::pods_scope;
use crate::api::{ObjectKey, Resource, Within, split_key};
use crate::codec::{ObjectMeta, field};
use crate::follow::registry::Registry;
use crate::mirror::Mirror;
use crate::mirror::kind::Kind;
use crate::mirror::version::Version;
use crate::retention::pod::Pod;

/// The label that names a slice's Service (`k8s.io/api/discovery/v1`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Pods that the node told of since the cut.
#[derive(Debug, Default)]
pub(crate) struct LocalPods {
    /// By the pod's key.
    pods: Mutex<HashMap<ObjectKey, Held>>,
    /// Whom the endpoints name, so that one pod's word costs its own endpoints and not all of its namespace.
    named: Mutex<HashMap<(Resource, ObjectKey), Named>>,
}

/// What is held true of a pod.
#[derive(Clone, Debug)]
struct Held {
    facts: PodFacts,
    from: From,
}

impl Held {
    /// What the kubelet, or the cloud, said of a pod.
    fn said(facts: PodFacts) -> Self {
        Self {
            facts,
            from: From::Said,
        }
    }

    /// What follows from the machine's start for a pod that was there before: it does not run.
    fn assumed(facts: PodFacts) -> Self {
        Self {
            facts: PodFacts {
                is_ready: false,
                ..facts
            },
            from: From::Reboot,
        }
    }
}

/// Where it is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The kubelet, or the cloud, said so.
    Said,
    /// The machine was started again, and the kubelet has not said anything yet.
    Reboot,
}

/// Whom an endpoints object names, as of a version of it. Two with one hash cost a useless look, and no more.
#[derive(Clone, Debug)]
struct Named {
    version: Version,
    /// Hashes of uids, sorted.
    uids: Arc<[u64]>,
}

impl LocalPods {
    /// Takes up again what was known before a restart: the pods whose status only this node knows, and those of whom
    /// the kubelet has not said anything since the machine's start. Blocks on the store.
    pub(crate) fn recall(registry: &Registry, unheard: &Unheard) -> Self {
        let Some(kind) = registry.known_kind(&pods()) else {
            return Self::default();
        };
        let covered: BTreeSet<ObjectKey> = kind.all_covered().into_iter().collect();
        let keys = unheard.keys().map(ObjectKey::from).chain(covered.clone());
        let recalled = keys.filter_map(|key| {
            let (number, pod) = newest_numbered(&kind, &key)?;
            let facts = PodFacts::read(&pod)?;
            if unheard.has(&key, number) {
                return Some((key, Held::assumed(facts)));
            }
            let is_covered = covered.contains(&key);
            is_covered.then(|| (key, Held::said(facts)))
        });
        Self {
            pods: Mutex::new(recalled.collect()),
            ..Self::default()
        }
    }

    /// Takes over what the kubelet has just said of a pod, and corrects its endpoints. Blocks on the store.
    pub(crate) fn note(
        &self,
        registry: &Registry,
        key: &ObjectKey,
        pod: &Bytes,
    ) -> Result<(), OverlayError> {
        if let Some(facts) = PodFacts::read(pod) {
            let uid = hash(&facts.uid);
            self.pods.lock().insert(key.clone(), Held::said(facts));
            self.correct(registry, split_key(key).0, &[uid])?;
        }
        Ok(())
    }

    /// Corrects every endpoint of the pods that are known here. Blocks on the store.
    pub(crate) fn correct_all(&self, registry: &Registry) -> Result<(), OverlayError> {
        let mut namespaces: Vec<String> = {
            let pods = self.pods.lock();
            pods.keys().map(|key| split_key(key).0.to_owned()).collect()
        };
        namespaces.sort();
        namespaces.dedup();
        for namespace in namespaces {
            let known = self.known_in(&namespace);
            let uids: Vec<u64> = known.keys().map(|uid| hash(uid)).collect();
            self.correct(registry, &namespace, &uids)?;
        }
        Ok(())
    }

    /// Holds none of the node's pods for ready until its kubelet says so: the machine was started again, and nothing
    /// that ran before does. Then kube-proxy begins with nobody that is gone. Returns the pods, for a hub that starts
    /// later. Blocks on the store.
    pub(crate) fn start_anew(
        &self,
        registry: &Registry,
        node: &NodeName,
    ) -> Result<Unheard, OverlayError> {
        let mut unheard = Unheard::default();
        let mirror = registry.find(&pods_scope(node));
        let Some(mirror) = mirror.filter(|mirror| mirror.is_synced()) else {
            return Ok(unheard);
        };
        let kind = registry.kind(&pods());
        for item in &mirror.view(Within::Everything).snapshot.items {
            let Some((number, text)) = newest_numbered(&kind, &item.key) else {
                continue;
            };
            let is_here =
                Pod::read(&text).is_some_and(|pod| pod.node.as_deref() == Some(node.as_str()));
            if let Some(facts) = PodFacts::read(&text).filter(|_| is_here) {
                self.pods
                    .lock()
                    .insert(item.key.clone(), Held::assumed(facts));
                unheard.insert(&item.key, number);
            }
        }
        self.correct_all(registry)?;
        Ok(unheard)
    }

    /// Returns whether anything is held true that nobody has said.
    pub(crate) fn assumes(&self) -> bool {
        let pods = self.pods.lock();
        pods.values().any(|held| held.from == From::Reboot)
    }

    /// Forgets the pods of which the cloud says the same, which are gone there, or which it wants gone: the
    /// server wins. Returns whether any are left. Blocks on the store.
    pub(crate) fn agree(&self, registry: &Registry) -> bool {
        let cloud = registry.known_kind(&pods());
        let mut pods = self.pods.lock();
        pods.retain(|key, held| {
            let seen = cloud.as_ref().and_then(|kind| newest(kind, key));
            let seen = seen.and_then(|pod| PodFacts::read(&pod));
            let Some(seen) = seen.filter(|seen| seen.uid == held.facts.uid) else {
                return false;
            };
            if held.from == From::Reboot {
                // What was only assumed gives way at once, and the endpoints with it.
                *held = Held::said(seen);
                return true;
            }
            !seen.is_terminating && seen != held.facts
        });
        !pods.is_empty()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.pods.lock().clear();
        self.named.lock().clear();
    }

    /// Corrects the endpoints of a namespace that name any of these.
    fn correct(
        &self,
        registry: &Registry,
        namespace: &str,
        uids: &[u64],
    ) -> Result<(), OverlayError> {
        let known = self.known_in(namespace);
        for resource in endpoint_resources() {
            let Some(kind) = registry.known_kind(&resource) else {
                continue;
            };
            for key in kind.keys_in(namespace) {
                let named = self.named_by(&kind, &key).unwrap_or_default();
                if !uids.iter().any(|uid| named.binary_search(uid).is_ok()) {
                    continue;
                }
                let Some(body) = newest(&kind, &key) else {
                    continue;
                };
                let unready = unready(registry, &resource, &key, &body);
                registry.cover(&resource, &key, |object| {
                    let corrected = if resource.plural == "endpoints" {
                        correct_endpoints(object, &known, unready)
                    } else {
                        correct_slice(object, &known, unready)
                    };
                    corrected.map_err(OverlayError::Change)
                })?;
            }
        }
        Ok(())
    }

    /// Returns whom an endpoints object names; it is read and parsed once for each version of the cloud's. What is
    /// local changes addresses and readiness, and never whom it names.
    fn named_by(&self, kind: &Kind, key: &ObjectKey) -> Option<Arc<[u64]>> {
        let version = kind.cloud_version(key)?;
        let place = (kind.resource.clone(), key.clone());
        let held = self.named.lock().get(&place).cloned();
        if let Some(held) = held.filter(|held| held.version == version) {
            return Some(held.uids);
        }
        let uids: Arc<[u64]> = uids(&newest(kind, key)?).into();
        let named = Named {
            version,
            uids: uids.clone(),
        };
        self.named.lock().insert(place, named);
        Some(uids)
    }

    fn known_in(&self, namespace: &str) -> Pods {
        let pods = self.pods.lock();
        let here = pods.iter().filter(|(key, _)| split_key(key).0 == namespace);
        here.map(|(_, held)| (held.facts.uid.clone(), held.facts.clone()))
            .collect()
    }
}

/// The kinds of objects that say where a Service's pods are.
pub(crate) fn endpoint_resources() -> [Resource; 2] {
    [
        Resource::new("discovery.k8s.io", "v1", "endpointslices"),
        Resource::core("endpoints"),
    ]
}

pub(crate) fn pods() -> Resource {
    Resource::core("pods")
}

pub(crate) fn nodes() -> Resource {
    Resource::core("nodes")
}

/// What cannot be read is as if it were not there; the store says of damage by itself.
fn newest(kind: &Kind, key: &ObjectKey) -> Option<Bytes> {
    newest_numbered(kind, key).map(|(_, body)| body)
}

/// The same with its version's number.
fn newest_numbered(kind: &Kind, key: &ObjectKey) -> Option<(u64, Bytes)> {
    let (namespace, name) = split_key(key);
    kind.newest(namespace, name).ok().flatten()
}

/// Returns whom a slice, or an Endpoints object, names.
fn uids(endpoints: &[u8]) -> Vec<u64> {
    #[derive(Deserialize)]
    struct Object {
        endpoints: Option<Vec<Endpoint>>,
        subsets: Option<Vec<Subset>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Subset {
        addresses: Option<Vec<Endpoint>>,
        not_ready_addresses: Option<Vec<Endpoint>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Endpoint {
        target_ref: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        uid: Option<String>,
    }
    let Ok(object) = serde_json::from_slice::<Object>(endpoints) else {
        return Vec::new();
    };
    let of_subsets = object.subsets.into_iter().flatten();
    let of_subsets = of_subsets.flat_map(|subset| [subset.addresses, subset.not_ready_addresses]);
    let all = of_subsets.chain([object.endpoints]).flatten().flatten();
    let named = all.filter_map(|endpoint| endpoint.target_ref?.uid);
    let mut uids: Vec<u64> = named.map(|uid| hash(&uid)).collect();
    uids.sort_unstable();
    uids.dedup();
    uids
}

fn hash(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

/// Returns whether the Service wants pods that are not ready too.
fn unready(registry: &Registry, resource: &Resource, key: &ObjectKey, object: &Bytes) -> Unready {
    let (namespace, name) = split_key(key);
    let service = if resource.plural == "endpoints" {
        Some(name.to_owned())
    } else {
        ObjectMeta::parse(object).ok().and_then(|meta| {
            let mut labels = meta.labels.into_iter();
            labels
                .find(|(key, _)| key == SERVICE_NAME)
                .map(|(_, value)| value)
        })
    };
    let publishes = service.and_then(|service| {
        let services = registry.known_kind(&Resource::core("services"))?;
        let (_, service) = services.newest(namespace, &service).ok()??;
        let text = std::str::from_utf8(&service).ok()?;
        let spec = field(text, "spec")?.get();
        Some(field(spec, "publishNotReadyAddresses")?.get() == "true")
    });
    if publishes == Some(true) {
        Unready::Published
    } else {
        Unready::Hidden
    }
}

/// Returns the mirrors whose changes can change what endpoints ought to be.
pub(crate) fn concerned(registry: &Registry) -> Vec<Arc<Mirror>> {
    let mut mirrors = registry.all();
    let endpoints = endpoint_resources();
    mirrors.retain(|mirror| {
        let resource = &mirror.scope.resource;
        *resource == pods() || endpoints.contains(resource)
    });
    mirrors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_both_kinds_say_whom_they_name() {
        let slice = br#"{"endpoints":[{"targetRef":{"kind":"Pod","uid":"a"}},{"addresses":["1.1.1.1"]},{"targetRef":{"uid":"b"}},{"targetRef":{}}]}"#;
        let object = br#"{"subsets":[{"addresses":[{"ip":"1.1.1.1","targetRef":{"uid":"a"}}]},{"notReadyAddresses":[{"targetRef":{"uid":"b"}}]},{}]}"#;
        let mut both = vec![hash("a"), hash("b")];
        both.sort_unstable();
        assert_eq!(uids(slice), both);
        assert_eq!(uids(object), both);
        for nobody in [&b"{}"[..], br#"{"endpoints":null}"#, b"garbage"] {
            assert!(uids(nobody).is_empty());
        }
    }
}
