//! What a test sees and does inside a node: its files, its logs, commands on it, and its view of the API server.

use std::{fs, path::PathBuf, time::Duration};

use super::{Error, Node, Program, eventually, files};
use crate::{
    cluster::{Cluster, Kubectl},
    endpoint::Endpoint,
    system,
};

/// What makes the hub's disk full.
const FILL: &str = "/var/lib/yurthub/fill";
// The last blocks are given away one by one only, and only to who insists.
const FILL_UP: &str = r#"
cat /dev/zero >"$1"
while dd if=/dev/zero of="$1" bs=1k count=1 oflag=append,dsync conv=notrunc; do :; done
"#;
impl Node {
    /// Returns what a program has printed since the node was made.
    #[must_use]
    pub fn log(&self, program: Program) -> String {
        let bytes = fs::read(self.log_file(program)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns where a file of the node is on this machine, also while the node is off: one in `/etc`, `/var/lib`
    /// or `/var/log`, and not on a disk of the hub's own.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        files::outside(&self.persistent, path)
    }

    /// Writes a file of the node, one of those that [`Node::file`] finds, and its folder: for another certificate,
    /// say, or for a program that was added.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn write_file(&self, path: &str, text: &str) -> Result<(), Error> {
        let file = self.file(path);
        let folder = file.parent().unwrap_or(&self.persistent);
        fs::create_dir_all(folder).map_err(|source| Error::File {
            step: "make",
            path: folder.to_owned(),
            source,
        })?;
        files::write(&file, text)
    }

    /// Fills the hub's own disk to the last byte.
    ///
    /// # Errors
    ///
    /// When the node is off, or the hub has no [disk](super::HubConfig::disk) of its own.
    ///
    /// # Cancel safety
    ///
    /// The filling of a dropped future goes on.
    pub async fn fill_disk(&self) -> Result<(), Error> {
        if self.disk.is_none() {
            return Err(Error::NoDisk);
        }
        self.run(&["sh", "-c", FILL_UP, "fill", FILL])
            .await
            .map(drop)
    }

    /// Frees what [`Node::fill_disk`] has taken.
    ///
    /// # Errors
    ///
    /// When the node is off.
    ///
    /// # Cancel safety
    ///
    /// May be called again.
    pub async fn free_disk(&self) -> Result<(), Error> {
        self.run(&["rm", "-f", FILL]).await.map(drop)
    }

    /// Runs a command on the node and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the node is off, or the command ends with an error.
    ///
    /// # Cancel safety
    ///
    /// The command of a dropped future goes on.
    pub async fn run(&self, words: &[&str]) -> Result<String, Error> {
        let (program, arguments) = words.split_first().expect("a command has a first word");
        let mut command = self.machine()?.command(program);
        command.args(arguments).stdin(std::process::Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = command.output().await;
        let output = output.map_err(|source| system::spawn_error(command.as_std(), source))?;
        Ok(system::printed(command.as_std(), output)?)
    }

    /// Returns what an address answers to an HTTP GET from the node within two seconds: for a Service's cluster
    /// IP, whether it leads to a pod.
    ///
    /// # Errors
    ///
    /// When there is no answer, or one that is not 200.
    ///
    /// # Cancel safety
    ///
    /// The request of a dropped future goes on.
    pub async fn get(&self, url: &str) -> Result<String, Error> {
        self.run(&fetch(url)).await
    }

    /// Prepares kubectl on the node, before what the node takes for the API server, as the holder of a token.
    ///
    /// # Errors
    ///
    /// When the node is off. After a power cut another one has to be prepared.
    pub fn kubectl(&self, token: &str) -> Result<Kubectl, Error> {
        let endpoint = Endpoint {
            admin_token: token.to_owned(),
            ..self.server.clone()
        };
        let starter = self.machine()?.starter();
        let starter: Vec<_> = starter.into_iter().map(Into::into).collect();
        Ok(Kubectl::inside(&endpoint, &starter)?)
    }

    /// Waits until the API server says that the node is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] when it is not in time.
    ///
    /// # Cancel safety
    ///
    /// Only waits.
    pub async fn ready(&self, cluster: &Cluster, limit: Duration) -> Result<(), Error> {
        let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let arguments = ["get", "node", &self.name, "-o", condition];
        eventually(
            &format!("{} ready", self.name),
            limit,
            async || match cluster.kubectl().run(&arguments).await {
                Ok(status) if status == "True" => Ok(()),
                Ok(status) => Err(format!("Ready is {status:?}")),
                Err(error) => Err(error.to_string()),
            },
        )
        .await
    }
}

/// A command that prints what an URL answers. The timeout of busybox' own wget breaks it on some systems.
pub(super) fn fetch(url: &str) -> [&str; 7] {
    ["busybox", "timeout", "2", "wget", "-qO", "-", url]
}
