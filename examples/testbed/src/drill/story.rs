//! What happens in a drill, step by step.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Drill, Report,
    site::{PATIENCE, Site},
};
use crate::{
    cluster::Version,
    node::{Container, Cut, Error, eventually},
};

/// How soon a silent cut has to be noticed.
const NOTICED: Duration = Duration::from_secs(8);
/// How soon pods have to run after the power is back.
const RUNNING: Duration = Duration::from_secs(8);
/// How soon after that the Service has to answer.
const ANSWERING: Duration = Duration::from_secs(5);
/// How soon the node has to have followed when the link is back.
const CONVERGED: Duration = Duration::from_secs(15);

/// A drill under way.
pub(super) struct Story<'a> {
    site: Site,
    drill: &'a Drill,
    report: Report,
}

impl<'a> Story<'a> {
    pub(super) fn new(site: Site, drill: &'a Drill) -> Self {
        let version = match drill.version {
            Version::Oldest => "the oldest supported Kubernetes",
            Version::Newest => "the newest supported Kubernetes",
        };
        let cut = match drill.cut {
            Cut::Unplugged => "the link goes down",
            Cut::Silent => "packets are dropped silently",
        };
        let title = format!("{version}: {cut}, the power fails, {}", drill.fault);
        Self {
            site,
            drill,
            report: Report {
                title,
                ..Report::default()
            },
        }
    }

    pub(super) async fn tell(mut self) -> Result<Report, Error> {
        let before = self.cut().await?;
        self.drill.fault.before_power_off(&self.site).await?;
        let after = self.power_cut(&before).await?;
        self.pods_read_as_themselves().await?;
        self.cloud_changes().await?;
        self.drill.fault.mend(&mut self.site).await?;
        self.back(&after).await?;
        self.report.hub_peak = self.site.hub_peak;
        Ok(self.report)
    }

    /// The link is cut: what runs goes on, and the node answers.
    async fn cut(&mut self) -> Result<Vec<Container>, Error> {
        let before = self.site.containers(&self.site.shop).await?;
        self.site.node.cut(self.drill.cut)?;
        let began = Instant::now();
        let token = self.site.token(&self.site.pods[0]).await?;
        let kubectl = self.site.node.kubectl(&token)?;
        eventually("an answer of the hub about pods", PATIENCE, async || {
            let pods = kubectl.run(&["get", "pods"]).await;
            pods.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        self.step(
            "cut: kubectl get pods answers through the hub",
            began,
            Some(NOTICED),
        );
        let began = Instant::now();
        self.site.answers().await?;
        same(&before, &self.site.containers(&self.site.shop).await?)?;
        self.step(
            "the Service answers, no container was restarted",
            began,
            None,
        );
        Ok(before)
    }

    /// Everything is killed at once and comes back without the cloud.
    async fn power_cut(&mut self, before: &[Container]) -> Result<Vec<Container>, Error> {
        self.site.node.power_off();
        self.drill.fault.without_power(&mut self.site)?;
        let began = Instant::now();
        self.site.node.power_on().await?;
        self.step(
            "the power is back: containerd and the hub answer",
            began,
            None,
        );
        let after = self
            .site
            .runs(&self.site.shop, before.len(), before)
            .await?;
        self.step("both pods run, with their mounts", began, Some(RUNNING));
        let began = Instant::now();
        self.site.answers().await?;
        self.step("the Service's cluster IP answers", began, Some(ANSWERING));
        let began = Instant::now();
        self.site.resolves(&self.site.pods[0]).await?;
        self.step(
            "CoreDNS, which asks the hub, resolves its name",
            began,
            None,
        );
        self.site.weigh();
        Ok(after)
    }

    /// A pod reads what it may, with its own token, and nothing else.
    async fn pods_read_as_themselves(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        self.site.read_as(&self.site.pods[1]).await?;
        self.step(
            "a pod reads its own objects with its token, and no Secret",
            began,
            None,
        );
        Ok(())
    }

    /// What happens in the cloud meanwhile.
    async fn cloud_changes(&mut self) -> Result<(), Error> {
        let kubectl = self.site.cluster.kubectl();
        kubectl
            .run(&["delete", "deployment", &self.site.old.name, "--wait=false"])
            .await?;
        let patch = r#"{"data":{"greeting":"good evening"}}"#;
        kubectl
            .run(&["patch", "configmap", "shop", "--type=merge", "-p", patch])
            .await?;
        kubectl.apply(&self.site.new.manifest()).await?;
        Ok(())
    }

    /// The link is back: the node follows, and nothing is killed.
    async fn back(&mut self, after: &[Container]) -> Result<(), Error> {
        self.site.node.mend()?;
        let began = Instant::now();
        self.site.runs(&self.site.old, 0, &[]).await?;
        self.step(
            "the link is back: what was deleted is gone",
            began,
            Some(CONVERGED),
        );
        self.site.runs(&self.site.new, 1, &[]).await?;
        self.step("what was added runs", began, Some(CONVERGED));
        self.site.node.ready(&self.site.cluster, PATIENCE).await?;
        self.step("the node is Ready", began, Some(CONVERGED));
        self.cloud_agrees().await?;
        self.step(
            "the cloud has the pods' new addresses, all ready",
            began,
            Some(CONVERGED),
        );
        self.told_of_the_cut().await?;
        self.step(
            "the events of the cut are in the cloud",
            began,
            Some(CONVERGED),
        );
        self.follows_the_config_map().await?;
        self.step(
            "the changed ConfigMap is seen on the node",
            began,
            Some(CONVERGED),
        );
        let began = Instant::now();
        self.site.answers().await?;
        same(after, &self.site.containers(&self.site.shop).await?)?;
        self.step(
            "the Service answers, no surviving container was restarted",
            began,
            None,
        );
        self.site.weigh();
        Ok(())
    }

    async fn cloud_agrees(&self) -> Result<(), Error> {
        let kubectl = self.site.cluster.kubectl();
        let pods = [
            "get",
            "pods",
            "-l",
            "app=shop",
            "-o",
            "jsonpath={.items[*].status.podIP}",
        ];
        let slices = [
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=shop",
            "-o",
            "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]} {end}",
        ];
        let ask = async |arguments: &[&str]| -> Result<Vec<String>, String> {
            let text = kubectl
                .run(arguments)
                .await
                .map_err(|error| error.to_string())?;
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            Ok(words)
        };
        eventually(
            "the same addresses in the cloud as on the node",
            PATIENCE,
            async || {
                let (pods, ready) = (ask(&pods).await?, ask(&slices).await?);
                let here = self.addresses().await.map_err(|error| error.to_string())?;
                if pods == here && ready == here {
                    Ok(())
                } else {
                    Err(format!(
                        "pods {pods:?}, ready endpoints {ready:?}, on the node {here:?}"
                    ))
                }
            },
        )
        .await
    }

    /// Returns the addresses that the pods really have.
    async fn addresses(&self) -> Result<Vec<String>, Error> {
        let mut addresses = Vec::new();
        for pod in &self.site.pods {
            let hosts = ["cat", "/etc/hosts"];
            let hosts = self.site.node.exec("default", pod, &hosts).await?;
            let line = hosts.lines().find(|line| line.ends_with(pod.as_str()));
            addresses.extend(
                line.and_then(|line| line.split_whitespace().next())
                    .map(str::to_owned),
            );
        }
        addresses.sort();
        Ok(addresses)
    }

    /// The kubelet says so when it finds a pod without its sandbox: while the cloud was away.
    async fn told_of_the_cut(&self) -> Result<(), Error> {
        let kubectl = self.site.cluster.kubectl();
        let arguments = [
            "get",
            "events",
            "--field-selector=reason=SandboxChanged",
            "-o",
            "jsonpath={.items[*].involvedObject.name}",
        ];
        eventually("events of both pods", PATIENCE, async || {
            let told = kubectl
                .run(&arguments)
                .await
                .map_err(|error| error.to_string())?;
            if self.site.pods.iter().all(|pod| told.contains(pod.as_str())) {
                Ok(())
            } else {
                Err(told)
            }
        })
        .await
    }

    async fn follows_the_config_map(&self) -> Result<(), Error> {
        let token = self.site.token(&self.site.pods[0]).await?;
        let kubectl = self.site.node.kubectl(&token)?;
        let arguments = [
            "get",
            "configmap",
            "shop",
            "-o",
            "jsonpath={.data.greeting}",
        ];
        eventually("the new greeting", PATIENCE, async || {
            match kubectl.run(&arguments).await {
                Ok(greeting) if greeting == "good evening" => Ok(()),
                Ok(greeting) => Err(greeting),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    fn step(&mut self, what: &str, began: Instant, target: Option<Duration>) {
        self.report.step(what, began.elapsed(), target);
    }
}

/// Checks that nothing was restarted.
fn same(before: &[Container], after: &[Container]) -> Result<(), Error> {
    if before == after {
        return Ok(());
    }
    Err(Error::Late {
        what: "the containers that ran before".to_owned(),
        seconds: 0,
        last: format!("{before:?} became {after:?}"),
    })
}
