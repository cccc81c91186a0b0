//! One node and its cloud: a cluster of its own, a link to cut, a hub, and clients on both sides of it.

use std::time::Duration;

use serde_json::json;
use testbed::{
    client::{Answer, Client},
    cluster::{Cluster, ClusterConfig, Kubectl},
    endpoint::Endpoint,
    link::{Cut, Link},
};
use tokio::time::{Instant, sleep, timeout};

use crate::hub::{Hub, NODE};

/// Nothing that a test waits for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node and its cloud.
pub(crate) struct Site {
    /// The cloud.
    pub(crate) cluster: Cluster,
    /// The way from the node to the cloud.
    pub(crate) link: Link,
    /// The administrator, straight at the API server.
    pub(crate) direct: Client,
    /// The administrator, at the hub.
    pub(crate) hub: Client,
    process: Hub,
}

impl Site {
    /// Starts a cloud and a hub that holds the node's certificate.
    pub(crate) async fn start() -> Self {
        Self::start_with(ClusterConfig::default()).await
    }

    /// Starts a cloud that is told something, and a hub that writes nothing of its own.
    pub(crate) async fn start_with(config: ClusterConfig) -> Self {
        Self::start_told(config, &["--autonomy-condition", "false"]).await
    }

    /// Starts a cloud and a hub that are told something.
    pub(crate) async fn start_told(config: ClusterConfig, flags: &[&str]) -> Self {
        let cluster = Cluster::start(config).await.expect("`make assets` was run");
        let cloud = cluster.endpoint();
        let link = Link::start(cloud.addr()).unwrap();
        let user = format!("system:node:{NODE}");
        let identity = cluster.pki().client(&user, &["system:nodes"]);
        let process = Hub::start(cloud.through(link.addr()), Some(identity), flags).await;
        Self {
            direct: Client::new(&cloud).unwrap(),
            hub: Client::new(&process.endpoint()).unwrap(),
            cluster,
            link,
            process,
        }
    }

    /// The hub, as its administrator.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.process.endpoint()
    }

    /// The kubelet of the node, at the hub.
    pub(crate) fn kubelet(&self) -> Client {
        let user = format!("system:node:{NODE}");
        let (certificate, key) = self.cluster.pki().client(&user, &["system:nodes"]);
        Client::with_certificate(&self.endpoint(), &certificate, &key).unwrap()
    }

    /// kubectl at the hub.
    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.endpoint()).unwrap()
    }

    /// The same caller, straight and at the hub.
    pub(crate) fn both(&self, client: impl Fn(&Endpoint) -> Client) -> (Client, Client) {
        (client(&self.cluster.endpoint()), client(&self.endpoint()))
    }

    /// Ends the hub as a power cut would.
    pub(crate) fn kill_hub(&mut self) {
        self.process.kill();
    }

    /// Starts the hub on the data that is there.
    pub(crate) async fn start_hub(&mut self) {
        self.process.start_again().await;
        self.hub = Client::new(&self.endpoint()).unwrap();
    }

    /// Asks the hub to end; returns its exit code.
    pub(crate) async fn terminate_hub(&mut self) -> Option<i32> {
        self.process.terminate().await.code()
    }

    /// What the hub has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Cuts the link and waits until the hub answers a list by itself. Returns how long that took.
    pub(crate) async fn cut(&self, how: Cut, path: &str) -> (Answer, Duration) {
        self.link.cut(how).await;
        let start = Instant::now();
        let answer = timeout(PATIENCE, self.hub.get(path)).await;
        let answer = answer.expect("an answer in time").unwrap();
        (answer, start.elapsed())
    }

    /// Mends the link and waits until the hub forwards a write again. Returns how long that took.
    pub(crate) async fn mend(&self) -> Duration {
        self.link.mend().await.unwrap();
        let start = Instant::now();
        let body = json!({"metadata": {"name": "mended"}});
        let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
        loop {
            let answer = self.hub.post(path, &body).await.unwrap();
            if answer.code == 201 {
                return start.elapsed();
            }
            assert!(start.elapsed() < PATIENCE, "{}", answer.text());
            sleep(Duration::from_millis(20)).await;
        }
    }
}
