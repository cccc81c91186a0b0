//! kubectl, pointed at any API server: the real one, or a hub before it.

use std::{path::PathBuf, process::Stdio};

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Binaries, Error, write};
use crate::endpoint::Endpoint;

/// kubectl with a configuration and a cache of its own.
#[derive(Debug)]
pub struct Kubectl {
    program: PathBuf,
    home: TempDir,
}

impl Kubectl {
    /// Prepares kubectl for an API server, as the holder of the endpoint's token.
    ///
    /// # Errors
    ///
    /// When kubectl is not there, or its configuration cannot be written.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        let program = Binaries::find()?.kubectl;
        let home = tempfile::tempdir().map_err(|source| Error::WriteFile {
            path: std::env::temp_dir(),
            source,
        })?;
        write(home.path().join("ca.pem"), &endpoint.ca_pem)?;
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": endpoint.url, "certificate-authority": home.path().join("ca.pem")}}],
            "users": [{"name": "it", "user": {"token": endpoint.admin_token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        write(home.path().join("config"), &config.to_string())?;
        Ok(Self { program, home })
    }

    /// The configuration file, for other clients.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    /// Returns kubectl with these arguments, not started, for those that run for long.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.config())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// [`Error::Kubectl`] with what it printed to stderr when its exit code is not 0.
    ///
    /// # Cancel safety
    ///
    /// A dropped future kills the process.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = self.command(arguments).output().await;
        let output = output.map_err(|source| Error::Spawn {
            name: "kubectl",
            source,
        })?;
        if !output.status.success() {
            return Err(Error::Kubectl {
                arguments: arguments.join(" "),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
