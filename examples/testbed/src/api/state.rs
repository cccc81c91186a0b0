//! What the server knows: objects, resources, and the numbers it hands out.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    request::Target,
    resource::{Registry, Resource},
    status::ApiError,
    store::{Family, Key, Store},
};

/// Everything behind the one lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    families: BTreeMap<String, Family>,
    /// From which revision on a resource's events are known: a CRD's from its creation.
    windows: BTreeMap<Family, u64>,
    serial: u64,
    built_in_since: u64,
}

impl State {
    /// Starts with the namespaces of every cluster, and their root certificates.
    pub(crate) fn new(capacity: usize, ca_pem: &str, now: Timestamp) -> Self {
        let mut state = Self {
            store: Store::new(capacity),
            registry: Registry::new(),
            families: BTreeMap::new(),
            windows: BTreeMap::new(),
            serial: 0,
            built_in_since: 0,
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            state.seed_namespace(name, now);
            state.seed_root_certificate(name, ca_pem, now);
        }
        state.built_in_since = state.store.revision();
        state
    }

    fn seed_namespace(&mut self, name: &str, now: Timestamp) {
        let family = self.family("", "namespaces");
        let metadata = json!({
            "name": name,
            "uid": self.next_uid(),
            "creationTimestamp": format_time(now),
            "labels": {"kubernetes.io/metadata.name": name},
        });
        let namespace = json!({
            "kind": "Namespace",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        self.store.put(Key::new(&family, None, name), namespace);
    }

    /// What the controller manager does for every namespace.
    pub(crate) fn seed_root_certificate(&mut self, namespace: &str, ca_pem: &str, now: Timestamp) {
        let family = self.family("", "configmaps");
        let name = "kube-root-ca.crt";
        let metadata = json!({
            "name": name,
            "namespace": namespace,
            "uid": self.next_uid(),
            "creationTimestamp": format_time(now),
        });
        let object = json!({
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": metadata,
            "data": {"ca.crt": ca_pem},
        });
        self.store
            .put(Key::new(&family, Some(namespace), name), object);
    }

    /// Returns the one name of a family, so that keys share it.
    pub(crate) fn family(&mut self, group: &str, plural: &str) -> Family {
        let name = format!("{group}/{plural}");
        self.families
            .entry(name)
            .or_insert_with_key(|name| name.as_str().into())
            .clone()
    }

    pub(crate) fn key(&mut self, resource: &Resource, namespace: Option<&str>, name: &str) -> Key {
        let family = self.family(&resource.group, &resource.plural);
        let namespace = namespace.filter(|_| resource.is_namespaced);
        Key::new(&family, namespace, name)
    }

    /// Finds the resource of a path, or the server's own way to say that there is none.
    pub(crate) fn resolve(&self, target: &Target) -> Result<Arc<Resource>, ApiError> {
        let Target {
            group,
            version,
            plural,
            ..
        } = target;
        let registry = &self.registry;
        match registry.find(group, version, plural) {
            Some(resource) => Ok(resource.clone()),
            None if registry.is_built_in(group) => Err(ApiError::no_such_resource()),
            None => Err(ApiError::no_such_path()),
        }
    }

    /// Notes that the events of a family are known from now on only.
    pub(crate) fn open_window(&mut self, family: &Family) {
        let revision = self.store.revision();
        self.windows.insert(family.clone(), revision);
    }

    /// Returns the oldest revision from which a watch of the family may start.
    pub(crate) fn window(&self, family: &Family) -> u64 {
        let since = self.windows.get(family).copied().unwrap_or_default();
        since.max(self.built_in_since)
    }

    /// Returns the next uid: unique in this server, and the same in every run.
    pub(crate) fn next_uid(&mut self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.next_serial())
    }

    /// Returns five letters that no object of this server got before.
    pub(crate) fn next_suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let base = ALPHABET.len() as u64;
        // Scattered, so that nobody relies on an order; a bijection below 27^5, so that none repeats.
        let mut number = self.next_serial().wrapping_mul(7_919_031) % base.pow(5);
        (0..5)
            .map(|_| {
                let at = usize::try_from(number % base).unwrap_or_default();
                number /= base;
                char::from(ALPHABET[at])
            })
            .collect()
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// Writes a time as Kubernetes does: whole seconds, UTC.
pub(crate) fn format_time(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// Reads a string inside the metadata.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}
