//! A quiet cluster with one node behind a hub: what the node says is nearly all that is written there.
//!
//! In a busy cluster the cloud's revisions overtake within seconds whatever was told on a node that was cut off, and
//! hide what is wrong with it.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use super::site::PATIENCE;
use crate::{
    cluster::{Cluster, ClusterConfig, Controllers, Kubectl, Version},
    node::{Error, HubConfig, Network, Node, NodeConfig, Polls, Road, eventually},
    workload::Workload,
};

/// What kube-proxy lists and watches (`NewProxyServer` in `kubernetes/cmd/kube-proxy/app/server.go`).
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices?resourceVersion=0&labelSelector=\
     %21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name";
const KUBE_PROXY_TOKEN: &str = "/var/lib/kube-proxy/token";
/// The kubelet's own view of its pods, which asks nobody.
const PODS: &str = "http://127.0.0.1:10255/pods";

/// A cluster, its node and what runs there.
pub(super) struct Quiet {
    pub(super) cluster: Cluster,
    pub(super) node: Node,
    shop: Workload,
    service: SocketAddr,
    _network: Arc<Network>,
}

/// Endpoints of the Service, as somebody knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slices {
    /// The list's revision.
    pub(super) revision: u64,
    /// The slice's own.
    pub(super) slice: u64,
    /// Ready addresses.
    pub(super) ready: BTreeSet<String>,
}

/// The pods that the kubelet says are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) containers: BTreeSet<String>,
    pub(super) addresses: BTreeSet<String>,
}

impl Quiet {
    pub(super) async fn start(version: Version, hub: PathBuf) -> Result<Self, Error> {
        let network = Network::new()?;
        let cluster = Cluster::start(ClusterConfig {
            version,
            address: network.address(),
            controllers: Some(Controllers {
                // A node that renews its lease every quarter of an hour is not dead.
                arguments: vec!["--node-monitor-grace-period=2h".to_owned()],
                ..Controllers::default()
            }),
            // Each of them writes every ten seconds.
            arguments: vec![
                "--endpoint-reconciler-type=none".to_owned(),
                "--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false"
                    .to_owned(),
            ],
            ..ClusterConfig::default()
        })
        .await?;
        let mut config = NodeConfig::new("edge-1");
        let kubelet = [
            ("nodeLeaseDurationSeconds", json!(3600)),
            ("nodeStatusReportFrequency", json!("1h")),
            ("readOnlyPort", json!(10255)),
        ];
        let kubelet = kubelet.map(|(key, value)| (key.to_owned(), value));
        config.kubelet.extend(kubelet);
        config.road = Road::Hub(HubConfig::new(hub));
        let node = Node::start(&network, &cluster, config).await?;
        node.ready(&cluster, PATIENCE).await?;
        let shop = Workload::new("shop");
        let kubectl = cluster.kubectl();
        kubectl.apply(&shop.manifest()).await?;
        let rollout = ["rollout", "status", "--timeout=120s", "deployment/shop"];
        kubectl.run(&rollout).await?;
        let service = format!("{}:80", shop.cluster_ip(kubectl).await?);
        let service = service.parse().map_err(|_| Error::Late {
            what: "a cluster IP".to_owned(),
            seconds: 0,
            last: service,
        })?;
        Ok(Self {
            cluster,
            node,
            shop,
            service,
            _network: network,
        })
    }

    /// Polls the Service from the node.
    pub(super) fn poll(&self) -> Result<Polls, Error> {
        self.node.poll(self.service)
    }

    /// Waits until the kubelet says that all pods are ready, in containers that are none of these.
    pub(super) async fn ready(&self, none_of: &BTreeSet<String>) -> Result<Ready, Error> {
        let count = self.shop.replicas as usize;
        let what = format!("{count} new and ready pods, as the kubelet knows them");
        eventually(&what, PATIENCE, async || {
            let ready = self.now_ready().await?;
            if ready.containers.len() == count && ready.containers.is_disjoint(none_of) {
                Ok(ready)
            } else {
                Err(format!("{ready:?}"))
            }
        })
        .await
    }

    async fn now_ready(&self) -> Result<Ready, String> {
        let pods = self
            .node
            .get(PODS)
            .await
            .map_err(|error| error.to_string())?;
        let pods: Value = serde_json::from_str(&pods).map_err(|error| error.to_string())?;
        let mut ready = Ready::default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let container = &pod["status"]["containerStatuses"][0];
            let id = container["containerID"].as_str();
            let address = pod["status"]["podIP"].as_str();
            if let (Some(id), Some(address), true) =
                (id, address, container["ready"] == json!(true))
            {
                ready.containers.insert(id.to_owned());
                ready.addresses.insert(address.to_owned());
            }
        }
        Ok(ready)
    }

    /// Returns what the hub tells kube-proxy when it lists.
    pub(super) async fn told(&self) -> Result<Slices, Error> {
        let file = self.node.file(KUBE_PROXY_TOKEN);
        let token = fs::read_to_string(&file).map_err(|source| Error::File {
            step: "read",
            path: file,
            source,
        })?;
        self.slices(&self.node.kubectl(&token)?).await
    }

    /// Returns what the cloud itself has.
    pub(super) async fn cloud(&self) -> Result<Slices, Error> {
        self.slices(self.cluster.kubectl()).await
    }

    /// Waits until the cloud has what the node has: as the kubelet knows it then, which is surer of a pod's address when it
    /// has run for a while.
    pub(super) async fn cloud_agrees(&self) -> Result<(), Error> {
        eventually("the node's addresses in the cloud", PATIENCE, async || {
            let here = self.now_ready().await?;
            let there = self.cloud().await.map_err(|error| error.to_string())?;
            if there.ready == here.addresses && here.addresses.len() == self.shop.replicas as usize
            {
                Ok(())
            } else {
                Err(format!("{there:?}, on the node {:?}", here.addresses))
            }
        })
        .await
    }

    async fn slices(&self, kubectl: &Kubectl) -> Result<Slices, Error> {
        let text = kubectl.run(&["get", &format!("--raw={SLICES}")]).await?;
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut slices = Slices {
            revision: revision(&list),
            ..Slices::default()
        };
        for slice in list["items"].as_array().into_iter().flatten() {
            if slice["metadata"]["labels"]["kubernetes.io/service-name"] != self.shop.name {
                continue;
            }
            slices.slice = revision(slice);
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                if endpoint["conditions"]["ready"] == json!(true) {
                    let address = endpoint["addresses"][0].as_str().unwrap_or_default();
                    slices.ready.insert(address.to_owned());
                }
            }
        }
        Ok(slices)
    }

    /// Returns the addresses to which kube-proxy's rules lead.
    pub(super) async fn rules(&self) -> Result<BTreeSet<String>, Error> {
        let table = ["nft", "list", "table", "ip", "kube-proxy"];
        let table = self.node.run(&table).await?;
        Ok(led_to(
            &table,
            &format!("default/{}/tcp/ {{", self.shop.name),
        ))
    }
}

fn revision(of: &Value) -> u64 {
    let revision = of["metadata"]["resourceVersion"].as_str();
    revision
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// Reads the choice in a Service's chain: of endpoints' chains, `numgen random mod 2 vmap { 0 : goto
/// endpoint-…/tcp/__10.0.0.1/80, … }`, or since Kubernetes 1.36 of addresses, `… map { 0 : 10.0.0.1 . 80, … }`.
fn led_to(table: &str, service: &str) -> BTreeSet<String> {
    let chains = table.split("chain ").filter(|chain| {
        let head = chain.lines().next().unwrap_or_default();
        head.starts_with("service-") && head.ends_with(service)
    });
    let choices = chains
        .flat_map(str::lines)
        .filter(|line| line.contains("numgen"));
    let words = choices.flat_map(|line| line.split(|c: char| !c.is_ascii_digit() && c != '.'));
    words
        .filter(|word| word.parse::<std::net::Ipv4Addr>().is_ok())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_lead_to_what_is_chosen_from_and_not_to_what_is_left_over() {
        let chains = "\
            chain service-AB-default/shop/tcp/ {\n\
                ip daddr 10.96.1.2 tcp dport 80 jump mark-for-masquerade\n\
                numgen random mod 2 vmap { 0 : goto endpoint-C-default/shop/tcp/__10.1.1.5/8080, \
                1 : goto endpoint-D-default/shop/tcp/__10.1.1.6/8080 }\n\
            }\n\
            chain endpoint-E-default/shop/tcp/__10.1.1.3/8080 {\n}\n\
            chain service-F-default/other/tcp/ {\n\
                numgen random mod 1 vmap { 0 : goto endpoint-G-default/other/tcp/__10.1.1.9/80 }\n}";
        let addresses = "\
            chain service-AB-default/shop/tcp/ {\n\
                ip daddr 10.96.1.2 tcp dport 80 jump mark-for-masquerade\n\
                meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.1.1.5 . 8080, 1 : 10.1.1.6 . 8080 }\n\
            }";
        for table in [chains, addresses] {
            let led = led_to(table, "default/shop/tcp/ {");
            let led: Vec<&str> = led.iter().map(String::as_str).collect();
            assert_eq!(led, ["10.1.1.5", "10.1.1.6"]);
        }
    }
}
