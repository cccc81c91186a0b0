//! kubectl, pointed at any API server: the real one, or a hub before it.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command};

use super::{Binaries, Error, Version, kubeconfig, write};
use crate::endpoint::Endpoint;

/// kubectl with a configuration and a cache of its own.
#[derive(Debug)]
pub struct Kubectl {
    /// kubectl, or what starts it in another place, with its arguments.
    program: Vec<OsString>,
    home: TempDir,
}

impl Kubectl {
    /// Prepares kubectl for an API server, as the holder of the endpoint's token.
    ///
    /// # Errors
    ///
    /// When kubectl is not there, or its configuration cannot be written.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        Self::inside(endpoint, &[])
    }

    /// Prepares kubectl to be started by another program, such as one that enters a namespace.
    ///
    /// # Errors
    ///
    /// As [`Kubectl::new`].
    pub fn inside(endpoint: &Endpoint, starter: &[OsString]) -> Result<Self, Error> {
        let kubectl = Binaries::find(Version::default())?.kubernetes("kubectl")?;
        let mut program = starter.to_vec();
        program.push(kubectl.into_os_string());
        let home = tempfile::tempdir().map_err(|source| Error::WriteFile {
            path: std::env::temp_dir(),
            source,
        })?;
        write(home.path().join("ca.pem"), &endpoint.ca_pem)?;
        let config = kubeconfig(
            &endpoint.url,
            &home.path().join("ca.pem"),
            json!({"token": endpoint.admin_token}),
        );
        write(home.path().join("config"), &config)?;
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
        let (program, before) = self.program.split_first().expect("kubectl itself is there");
        let mut command = Command::new(program);
        command
            .args(before)
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
        printed(arguments, output.map_err(spawn_error)?)
    }

    /// Creates or changes what a manifest says, YAML or JSON, and returns what kubectl printed.
    ///
    /// # Errors
    ///
    /// As [`Kubectl::run`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future kills the process; some of the objects may have been applied.
    pub async fn apply(&self, manifest: &str) -> Result<String, Error> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let mut command = self.command(&arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(spawn_error)?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // One that ends before it has read all says why by itself.
        _ = stdin.write_all(manifest.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await;
        printed(&arguments, output.map_err(spawn_error)?)
    }
}

fn spawn_error(source: std::io::Error) -> Error {
    Error::Spawn {
        name: "kubectl",
        source,
    }
}

fn printed(arguments: &[&str], output: Output) -> Result<String, Error> {
    if !output.status.success() {
        return Err(Error::Kubectl {
            arguments: arguments.join(" "),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
