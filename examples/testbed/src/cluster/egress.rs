//! The door of a tunnel, as kube-apiserver's egress selector is told of it.
//!
//! The API server reads its files once, and dials the door only when it has to: who answers there may be started
//! later.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{Error, write};
use crate::pki::Pki;

pub(super) const FILE: &str = "egress.json";

/// Who dials for the API server, by HTTP CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// A server behind a Unix socket, which has to be an absolute path.
    Socket(PathBuf),
    /// A server with a certificate of the cluster's authority for this IP address; it is shown one of the same
    /// authority for `kube-apiserver-egress-client`.
    Tls(SocketAddr),
}

impl Egress {
    /// Writes an EgressSelectorConfiguration, and the files that it names.
    pub(super) fn write_files(&self, folder: &Path, pki: &Pki) -> Result<(), Error> {
        let transport = match self {
            Self::Socket(path) => json!({"uds": {"udsName": path}}),
            Self::Tls(address) => {
                let (certificate, key) = pki.client("kube-apiserver-egress-client", &[]);
                write(folder.join("egress-client.pem"), &certificate)?;
                write(folder.join("egress-client.key"), &key)?;
                json!({"tcp": {"url": format!("https://{address}"), "tlsConfig": {
                    "caBundle": "ca.pem", "clientCert": "egress-client.pem", "clientKey": "egress-client.key"}}})
            }
        };
        let connection = json!({"proxyProtocol": "HTTPConnect", "transport": transport});
        let configuration = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "cluster", "connection": connection}],
        });
        write(folder.join(FILE), &configuration.to_string())
    }
}
