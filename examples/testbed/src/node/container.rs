//! The containers that really run on a node, as its runtime knows them.

use serde_json::Value;

use super::{Error, Node};
use crate::system;

/// A running container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's name for it: another one after each restart.
    pub id: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container's name in the pod.
    pub name: String,
    /// Its first process, as the node numbers it.
    pub pid: u32,
}

impl Node {
    /// Returns the containers that run now; pods' sandboxes are not among them.
    ///
    /// # Errors
    ///
    /// When containerd does not run.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left of a dropped future.
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        let mut found = Vec::new();
        for (id, pid) in running(&self.ctr(&["tasks", "list"]).await?) {
            // It may have ended meanwhile.
            if let Ok(description) = self.ctr(&["containers", "info", &id]).await {
                found.extend(container(id, pid, &description));
            }
        }
        // containerd lists its tasks in no order.
        found.sort_by(|one: &Container, other| one.id.cmp(&other.id));
        Ok(found)
    }

    /// Runs a command in a container, as `kubectl exec` would but without asking anybody.
    ///
    /// # Errors
    ///
    /// When the pod has no running container, or the command ends with an error.
    ///
    /// # Cancel safety
    ///
    /// The command of a dropped future goes on.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        command: &[&str],
    ) -> Result<String, Error> {
        let containers = self.containers().await?;
        let found = containers
            .iter()
            .find(|container| container.namespace == namespace && container.pod == pod);
        let found = found.ok_or_else(|| system::Error::Command {
            command: format!("exec in pod {namespace}/{pod}"),
            said: "it has no running container".to_owned(),
        })?;
        let id = format!("exec-{}", self.next_exec());
        let words = ["tasks", "exec", "--exec-id", &id, &found.id];
        self.ctr(&[&words, command].concat()).await
    }

    async fn ctr(&self, arguments: &[&str]) -> Result<String, Error> {
        let words = ["ctr", "--namespace", "k8s.io"];
        self.run(&[&words, arguments].concat()).await
    }
}

/// Reads a table of TASK, PID and STATUS.
fn running(table: &str) -> Vec<(String, u32)> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let (id, pid, status) = (columns.next()?, columns.next()?, columns.next()?);
        (status == "RUNNING").then_some((id.to_owned(), pid.parse().ok()?))
    });
    rows.collect()
}

fn container(id: String, pid: u32, description: &str) -> Option<Container> {
    let description: Value = serde_json::from_str(description).ok()?;
    let label = |name: &str| {
        let label = &description["Labels"][format!("io.kubernetes.{name}")];
        label.as_str().map(str::to_owned)
    };
    Some(Container {
        id,
        pid,
        namespace: label("pod.namespace")?,
        pod: label("pod.name")?,
        // A sandbox has none.
        name: label("container.name")?,
    })
}
