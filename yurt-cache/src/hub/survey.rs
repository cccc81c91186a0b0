//! Reads off the mirrors what this node needs now.

use serde::Deserialize;
use yurt_core::name::NodeName;

use crate::api::well_known::{definitions, pods_scope};
use crate::api::{Resource, Within, key};
use crate::follow::registry::Registry;
use crate::retention::Needs;
use crate::retention::pod::{CLAIMS, Pod};

/// What is needed, as far as it can be seen.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) needs: Needs,
    /// How well the pods of the node are known.
    pub(crate) pods: Pods,
}

/// How well the pods of the node are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pods {
    /// No kubelet has asked for them.
    Unasked,
    /// They have been asked for and are not there yet.
    Unknown,
    Known,
}

#[derive(Deserialize)]
struct Claim {
    #[serde(default)]
    spec: ClaimSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSpec {
    volume_name: Option<String>,
}

/// Surveys. Blocks on the store.
pub(crate) fn survey(registry: &Registry, node: &NodeName) -> Survey {
    let mut pods = Vec::new();
    let mirror = registry.find(&pods_scope(node));
    let mut known = match &mirror {
        None => Pods::Unasked,
        Some(mirror) if mirror.is_synced() => Pods::Known,
        Some(_) => Pods::Unknown,
    };
    if let Some(mirror) = mirror.filter(|_| known == Pods::Known) {
        let view = mirror.view(Within::Everything);
        for item in &view.snapshot.items {
            let text = view.snapshot.read(item).ok();
            match text.and_then(|text| Pod::read(&text)) {
                // Wider mirrors hold the pods of other nodes too.
                Some(pod) if pod.node.as_deref() != Some(node.as_str()) => {}
                Some(pod) => pods.push(pod),
                None => known = Pods::Unknown,
            }
        }
    }
    let claims = registry.known_kind(&Resource::core(CLAIMS));
    let volume_of = |namespace: &str, name: &str| {
        let text = claims.as_ref()?.newest(namespace, name).ok()??.1;
        let claim: Claim = serde_json::from_slice(&text).ok()?;
        let volume = claim.spec.volume_name?;
        // As of references: other names cannot be.
        volume.parse::<NodeName>().is_ok().then_some(volume)
    };
    let mut needs = Needs::of(node, &pods, volume_of);
    for mirror in registry.all() {
        let resource = &mirror.scope.resource;
        let definition = format!("{}.{}", resource.plural, resource.group);
        needs.keep(definitions(), key("", &definition));
    }
    Survey { needs, pods: known }
}

impl Survey {
    /// Returns the needs to keep things for; `None` while they cannot be told.
    pub(crate) fn settled(self) -> Option<Needs> {
        (self.pods != Pods::Unknown).then_some(self.needs)
    }
}
