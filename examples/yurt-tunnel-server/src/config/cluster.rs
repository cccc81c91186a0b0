//! Access to the API server that has the Node objects.

use std::env;
use std::path::Path;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use yurt_core::error::Chain;

/// Set in every pod.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// An API server, and the identity to ask it with.
#[derive(Debug)]
pub(crate) enum Cluster {
    /// By a kubeconfig.
    File(Box<Kubeconfig>),
    /// By the service account of this pod.
    Pod(Box<Config>),
}

impl Cluster {
    pub(crate) fn by_file(path: &Path) -> Result<Self, String> {
        Kubeconfig::read_from(path)
            .map(|file| Self::File(Box::new(file)))
            .map_err(|error| Chain(&error).to_string())
    }

    pub(super) fn of_pod() -> Result<Self, String> {
        if env::var_os(SERVICE_HOST).is_none() {
            return Err(
                "missing: set it or nodesFile; this is not a pod with a service account".to_owned(),
            );
        }
        Config::incluster()
            .map(|config| Self::Pod(Box::new(config)))
            .map_err(|error| Chain(&error).to_string())
    }

    /// Returns the configuration of a client.
    pub(crate) async fn config(self) -> Result<Config, KubeconfigError> {
        match self {
            Self::File(file) => {
                Config::from_custom_kubeconfig(*file, &KubeConfigOptions::default()).await
            }
            Self::Pod(config) => Ok(*config),
        }
    }
}
