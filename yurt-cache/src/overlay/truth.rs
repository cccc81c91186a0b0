//! What the node's own pods really are, as its kubelet reported it, and the endpoints that follow from that.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::OverlayError;
use super::endpoint::{PodFacts, Pods, Unready, correct_endpoints, correct_slice};
use crate::api::{ObjectKey, Resource, split_key};
use crate::codec::{ObjectMeta, field};
use crate::follow::registry::Registry;
use crate::mirror::Mirror;
use crate::mirror::kind::Kind;

/// The label that names a slice's Service (`k8s.io/api/discovery/v1`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Pods that the node told of since the cut.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// By the pod's key.
    pods: Mutex<HashMap<ObjectKey, PodFacts>>,
}

impl Truth {
    /// Takes up again what was known before a restart: the pods whose status only this node knows. Blocks on the store.
    pub(crate) fn recall(registry: &Registry) -> Self {
        let truth = Self::default();
        if let Some(kind) = registry.known_kind(&pods()) {
            for key in kind.all_covered() {
                let facts = newest(&kind, &key).and_then(|pod| PodFacts::read(&pod));
                truth.pods.lock().extend(facts.map(|facts| (key, facts)));
            }
        }
        truth
    }

    /// Takes over what the kubelet has just said of a pod, and corrects its endpoints. Blocks on the store.
    pub(crate) fn note(
        &self,
        registry: &Registry,
        key: &ObjectKey,
        pod: &Bytes,
    ) -> Result<(), OverlayError> {
        if let Some(facts) = PodFacts::read(pod) {
            self.pods.lock().insert(key.clone(), facts);
            self.correct(registry, split_key(key).0)?;
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
            self.correct(registry, &namespace)?;
        }
        Ok(())
    }

    /// Forgets the pods of which the cloud says the same, which are gone there, or which it wants gone: the
    /// server wins. Returns whether any are left. Blocks on the store.
    pub(crate) fn agree(&self, registry: &Registry) -> bool {
        let cloud = registry.known_kind(&pods());
        let mut pods = self.pods.lock();
        pods.retain(|key, facts| {
            let seen = cloud.as_ref().and_then(|kind| newest(kind, key));
            let seen = seen.and_then(|pod| PodFacts::read(&pod));
            seen.is_some_and(|seen| seen.uid == facts.uid && !seen.is_terminating && seen != *facts)
        });
        !pods.is_empty()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.pods.lock().clear();
    }

    fn correct(&self, registry: &Registry, namespace: &str) -> Result<(), OverlayError> {
        let known = self.known_in(namespace);
        for resource in endpoint_resources() {
            let Some(kind) = registry.known_kind(&resource) else {
                continue;
            };
            for key in kind.keys_in(namespace) {
                let Some(body) = newest(&kind, &key).filter(|body| names_any(body, &known)) else {
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

    fn known_in(&self, namespace: &str) -> Pods {
        let pods = self.pods.lock();
        let here = pods.iter().filter(|(key, _)| split_key(key).0 == namespace);
        here.map(|(_, facts)| (facts.uid.clone(), facts.clone()))
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
    let (namespace, name) = split_key(key);
    kind.newest(namespace, name, None)
        .ok()
        .flatten()
        .map(|(_, body)| body)
}

/// A cheap look before an object is parsed.
fn names_any(body: &Bytes, pods: &Pods) -> bool {
    pods.keys().any(|uid| {
        let uid = uid.as_bytes();
        body.windows(uid.len()).any(|window| window == uid)
    })
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
        let (_, service) = services.newest(namespace, &service, None).ok()??;
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
