//! A cluster with one node behind a hub, and what runs there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::json;

use super::{Drill, Fault};
use crate::{
    cluster::{Cluster, ClusterConfig, Controllers, Kubectl},
    node::{Container, Error, HubConfig, Network, Node, NodeConfig, Program, Road, eventually},
    workload::Workload,
};

/// Beyond what any step takes on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Where pods find the hub.
const POD_ADDRESS: &str = "169.254.2.1:10268";

/// Room for the hub's store and its next segments.
const DISK: u64 = 96 << 20;

/// Everything that a drill needs.
pub(super) struct Site {
    pub(super) cluster: Cluster,
    pub(super) node: Node,
    /// What has to live through everything.
    pub(super) shop: Workload,
    /// What the cloud deletes while it is away.
    pub(super) old: Workload,
    /// What the cloud adds while it is away.
    pub(super) new: Workload,
    pub(super) service: String,
    pub(super) pods: Vec<String>,
    pub(super) hub_peak: u64,
    _network: Arc<Network>,
}

impl Site {
    pub(super) async fn start(drill: &Drill) -> Result<Self, Error> {
        let network = Network::new()?;
        let cluster = Cluster::start(ClusterConfig {
            version: drill.version,
            address: network.address(),
            controllers: Some(Controllers::default()),
            ..ClusterConfig::default()
        })
        .await?;
        let mut hub = HubConfig::new(&drill.hub);
        hub.keys.insert("podAddress".to_owned(), json!(POD_ADDRESS));
        hub.disk = (drill.fault == Fault::DiskFull).then_some(DISK);
        let mut config = NodeConfig::new("edge-1");
        if drill.fault == Fault::CertificateExpired {
            // A kubelet that renews its certificate by itself presents none at all once that has expired
            // (`Current` in `k8s.io/client-go/util/certificate/certificate_manager.go`).
            config
                .kubelet
                .insert("rotateCertificates".to_owned(), json!(false));
        }
        config.road = Road::Hub(hub);
        let node = Node::start(&network, &cluster, config).await?;
        node.ready(&cluster, PATIENCE).await?;
        let one = |name| Workload {
            replicas: 1,
            ..Workload::new(name)
        };
        let (shop, old, new) = (Workload::new("shop"), one("old"), one("new"));
        let kubectl = cluster.kubectl();
        cluster.install_dns().await?;
        for workload in [&shop, &old] {
            kubectl.apply(&workload.manifest()).await?;
        }
        for name in ["deployment/shop", "deployment/old"] {
            kubectl
                .run(&["rollout", "status", "--timeout=120s", name])
                .await?;
        }
        let dns = [
            "rollout",
            "status",
            "--timeout=120s",
            "--namespace=kube-system",
            "deployment/coredns",
        ];
        kubectl.run(&dns).await?;
        let service = shop.cluster_ip(kubectl).await?;
        let pods = shop.pods(kubectl).await?;
        let site = Self {
            cluster,
            node,
            shop,
            old,
            new,
            service,
            pods,
            hub_peak: 0,
            _network: network,
        };
        site.answers().await?;
        site.resolves(&site.pods[0]).await?;
        for pod in &site.pods {
            site.read_as(pod).await?;
        }
        Ok(site)
    }

    /// Reads as a pod, with its token: what it may, and that it is refused the rest.
    pub(super) async fn read_as(&self, pod: &str) -> Result<(), Error> {
        let kubectl = self.node.kubectl(&self.token(pod).await?)?;
        kubectl.run(&["get", "pod", pod]).await?;
        kubectl.run(&["get", "pods"]).await?;
        kubectl.run(&["get", "configmap", "shop"]).await?;
        refused(&kubectl, &["get", "secret", "shop"]).await?;
        refused(&kubectl, &["get", "secrets"]).await
    }

    /// Waits until the Service's cluster IP leads to one of its pods.
    pub(super) async fn answers(&self) -> Result<(), Error> {
        eventually("an answer of the Service", PATIENCE, async || {
            let asked = self.shop.ask(&self.node, &self.service).await;
            asked.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    /// Waits until a pod finds the Service by its name: CoreDNS runs, and knows.
    pub(super) async fn resolves(&self, pod: &str) -> Result<(), Error> {
        let name = format!("{}.default.svc.cluster.local", self.shop.name);
        let command = ["nslookup", &name];
        eventually(
            "the Service's name in the DNS",
            PATIENCE,
            async || match self.node.exec("default", pod, &command).await {
                Ok(found) if found.contains(&self.service) => Ok(()),
                Ok(found) => Err(found),
                Err(error) => Err(error.to_string()),
            },
        )
        .await
    }

    /// Returns the containers of a workload's pods that run now.
    pub(super) async fn containers(&self, of: &Workload) -> Result<Vec<Container>, Error> {
        let mut containers = self.node.containers().await?;
        let prefix = format!("{}-", of.name);
        containers.retain(|one| one.namespace == "default" && one.pod.starts_with(&prefix));
        containers.sort_by(|a, b| a.pod.cmp(&b.pod));
        Ok(containers)
    }

    /// Waits until so many containers of a workload run that are none of these.
    pub(super) async fn runs(
        &self,
        of: &Workload,
        count: usize,
        none_of: &[Container],
    ) -> Result<Vec<Container>, Error> {
        let gone: BTreeSet<&str> = none_of.iter().map(|one| one.id.as_str()).collect();
        let what = format!("{count} containers of {}", of.name);
        eventually(&what, PATIENCE, async || {
            let running = self
                .containers(of)
                .await
                .map_err(|error| error.to_string())?;
            let is_new = running.iter().all(|one| !gone.contains(one.id.as_str()));
            if running.len() == count && is_new {
                Ok(running)
            } else {
                Err(format!("{running:?}"))
            }
        })
        .await
    }

    /// Returns the token of a pod, as its container finds it.
    pub(super) async fn token(&self, pod: &str) -> Result<String, Error> {
        self.node
            .exec("default", pod, &["cat", Workload::TOKEN_FILE])
            .await
    }

    /// Notes how much memory the hub has.
    pub(super) fn weigh(&mut self) {
        let memory = self.node.memory(Program::Hub);
        self.hub_peak = self.hub_peak.max(memory.map_or(0, |memory| memory.peak));
    }
}

/// Checks that a read is forbidden.
async fn refused(kubectl: &Kubectl, arguments: &[&str]) -> Result<(), Error> {
    let refused = kubectl.run(arguments).await;
    let said = refused.unwrap_or_else(|error| error.to_string());
    if said.contains("Forbidden") {
        return Ok(());
    }
    Err(Error::Late {
        what: format!("a refusal of {}", arguments.join(" ")),
        seconds: 0,
        last: said,
    })
}
