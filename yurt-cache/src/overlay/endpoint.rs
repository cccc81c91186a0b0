//! Correct endpoints: the endpoints of Services with the addresses and the readiness of the pods that really run
//! here. The rules are those of `k8s.io/endpointslice`, `utils.go`, `podToEndpoint`.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::codec::{ObjectError, field, with_field};

/// What endpoints say of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) uid: String,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) is_ready: bool,
    pub(crate) is_terminating: bool,
}

/// The pods that endpoints are corrected by, by uid.
pub(crate) type Pods = HashMap<String, PodFacts>;

/// Whether a Service wants pods that are not ready too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    Hidden,
    Published,
}

impl PodFacts {
    /// Reads a pod; `None` if it is none.
    pub(crate) fn read(pod: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Pod {
            metadata: Metadata,
            #[serde(default)]
            status: Status,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            uid: String,
            deletion_timestamp: Option<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Status {
            phase: Option<String>,
            #[serde(default, rename = "podIPs")]
            pod_ips: Vec<PodIp>,
            #[serde(default)]
            conditions: Vec<Condition>,
        }
        #[derive(Deserialize)]
        struct PodIp {
            ip: String,
        }
        #[derive(Deserialize)]
        struct Condition {
            #[serde(rename = "type")]
            name: String,
            status: String,
        }
        let pod: Pod = serde_json::from_slice(pod).ok()?;
        if pod.metadata.uid.is_empty() {
            // No endpoint could be told to be its.
            return None;
        }
        let is_over = matches!(pod.status.phase.as_deref(), Some("Failed" | "Succeeded"));
        let mut conditions = pod.status.conditions.iter();
        let is_ready = conditions.any(|one| one.name == "Ready" && one.status == "True");
        let ips = pod
            .status
            .pod_ips
            .iter()
            .filter_map(|one| one.ip.parse().ok());
        Some(Self {
            uid: pod.metadata.uid,
            ips: ips.collect(),
            is_ready: is_ready && !is_over,
            is_terminating: pod.metadata.deletion_timestamp.is_some(),
        })
    }

    fn ip(&self, address_type: &str) -> Option<IpAddr> {
        let is_wanted = |ip: &&IpAddr| match address_type {
            "IPv4" => ip.is_ipv4(),
            "IPv6" => ip.is_ipv6(),
            _ => false,
        };
        self.ips.iter().find(is_wanted).copied()
    }
}

/// Returns an EndpointSlice as it really is; `None` if it is so already.
pub(crate) fn correct_slice(
    slice: &Bytes,
    pods: &Pods,
    unready: Unready,
) -> Result<Option<Bytes>, ObjectError> {
    let text = std::str::from_utf8(slice).map_err(ObjectError::Decode)?;
    let parse =
        |name| field(text, name).and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
    let address_type = parse("addressType");
    let address_type = address_type
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(Value::Array(before)) = parse("endpoints") else {
        return Ok(None);
    };
    let mut endpoints = before.clone();
    for endpoint in &mut endpoints {
        if let Some(facts) = target(endpoint, pods) {
            correct_endpoint(endpoint, facts, address_type, unready);
        }
    }
    if endpoints == before {
        return Ok(None);
    }
    let endpoints = Value::Array(endpoints).to_string();
    with_field(slice, "endpoints", endpoints.as_bytes()).map(Some)
}

/// Returns an Endpoints object as it really is; `None` if it is so already.
pub(crate) fn correct_endpoints(
    endpoints: &Bytes,
    pods: &Pods,
    unready: Unready,
) -> Result<Option<Bytes>, ObjectError> {
    let text = std::str::from_utf8(endpoints).map_err(ObjectError::Decode)?;
    let before = field(text, "subsets").and_then(|raw| serde_json::from_str(raw.get()).ok());
    let Some(Value::Array(before)) = before else {
        return Ok(None);
    };
    let mut subsets = before.clone();
    for subset in &mut subsets {
        if let Value::Object(subset) = subset {
            correct_subset(subset, pods, unready);
        }
    }
    if subsets == before {
        return Ok(None);
    }
    let subsets = Value::Array(subsets).to_string();
    with_field(endpoints, "subsets", subsets.as_bytes()).map(Some)
}

fn target<'a>(endpoint: &Value, pods: &'a Pods) -> Option<&'a PodFacts> {
    pods.get(endpoint.get("targetRef")?.get("uid")?.as_str()?)
}

fn correct_endpoint(endpoint: &mut Value, facts: &PodFacts, address_type: &str, unready: Unready) {
    let ip = facts.ip(address_type);
    let serves = facts.is_ready && ip.is_some();
    let is_ready = (serves && !facts.is_terminating) || unready == Unready::Published;
    if let Some(ip) = ip
        && (serves || is_ready || leads_somewhere(endpoint))
    {
        endpoint["addresses"] = json!([ip]);
    }
    let Some(endpoint) = endpoint.as_object_mut() else {
        return;
    };
    let conditions = endpoint.entry("conditions").or_insert_with(|| json!({}));
    if let Value::Object(conditions) = conditions {
        conditions.insert("ready".to_owned(), is_ready.into());
        conditions.insert("serving".to_owned(), serves.into());
        conditions.insert("terminating".to_owned(), facts.is_terminating.into());
    }
}

/// Returns whether anybody may be sent to an endpoint. While nobody is, its address is not worth a version of its own:
/// kube-proxy looks at nothing for a second after each, and what it would miss is that the pod is ready.
fn leads_somewhere(endpoint: &Value) -> bool {
    let conditions = &endpoint["conditions"];
    conditions["ready"] != Value::Bool(false) || conditions["serving"] == Value::Bool(true)
}

fn correct_subset(subset: &mut Map<String, Value>, pods: &Pods, unready: Unready) {
    let mut take = |name: &str| match subset.remove(name) {
        Some(Value::Array(addresses)) => addresses,
        _ => Vec::new(),
    };
    let was_ready = take("addresses").into_iter().map(|address| (address, true));
    let was_unready = take("notReadyAddresses").into_iter();
    let was_unready: Vec<(Value, bool)> = was_unready.map(|address| (address, false)).collect();
    let (mut ready, mut not_ready) = (Vec::new(), Vec::new());
    for (mut address, was_ready) in was_ready.chain(was_unready) {
        let mut is_ready = was_ready;
        if let Some(facts) = target(&address, pods) {
            let is_ipv6 = address["ip"].as_str().is_some_and(|ip| ip.contains(':'));
            let ip = facts.ip(if is_ipv6 { "IPv6" } else { "IPv4" });
            is_ready = unready == Unready::Published
                || (facts.is_ready && ip.is_some() && !facts.is_terminating);
            if let Some(ip) = ip
                && (is_ready || was_ready)
            {
                address["ip"] = json!(ip);
            }
        }
        if is_ready { &mut ready } else { &mut not_ready }.push(address);
    }
    for (name, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        if !addresses.is_empty() {
            subset.insert(name.to_owned(), Value::Array(addresses));
        }
    }
}

#[cfg(test)]
mod tests;
