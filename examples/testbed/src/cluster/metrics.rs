//! metrics-server beside the API server, as operators run it: it asks every kubelet, and `kubectl top` asks it, by way
//! of the aggregated API.

use std::{net::SocketAddr, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Cluster, Error, answered, arguments, kubeconfig, pick, write};
use crate::pki::Pki;

const NAME: &str = "metrics-server";
/// As which user it speaks to the API server, to kubelets, and to a proxy of TLS on its way to them.
const USER: &str = "metrics-server";

/// What is different from a metrics-server that reaches kubelets directly.
#[derive(Clone, Debug, Default)]
pub struct MetricsServer {
    /// Its environment, such as `HTTPS_PROXY`; then `NO_PROXY` has to name the API server's address. It inherits
    /// none.
    pub environment: Vec<(String, String)>,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Cluster {
    /// Starts metrics-server on the API server's own address, and waits until it is asked for `metrics.k8s.io`.
    ///
    /// A node has figures when it was scraped twice: 10 to 20 s later. To kubelets it shows a certificate of the
    /// cluster's authority for the user `metrics-server`, and so it does to a proxy whose address begins with
    /// `https`, which has to have one of the same authority.
    ///
    /// # Errors
    ///
    /// When the program is missing or ends, or the API server refuses it: also one on loopback, which is no address
    /// for a Service.
    ///
    /// # Cancel safety
    ///
    /// The server of a dropped future runs on until the cluster ends.
    pub async fn start_metrics_server(&mut self, config: &MetricsServer) -> Result<(), Error> {
        let program = self.binaries.metrics_server()?;
        let (listen, held) = pick(self.endpoint.addr().ip())?;
        write_files(self.servers.folder(), &self.pki, &self.endpoint.url, listen)?;
        self.kubectl.apply(&rights().to_string()).await?;
        let service = service(listen, self.pki.ca_pem());
        self.kubectl.apply(&service.to_string()).await?;
        let mut arguments = arguments::metrics_server(listen);
        arguments.extend_from_slice(&config.arguments);
        drop(held);
        self.servers
            .spawn_with(NAME, &program, &arguments, &config.environment)?;
        let path = "--raw=/apis/metrics.k8s.io/v1beta1";
        answered(&mut self.servers, &self.kubectl, NAME, path).await
    }
}

fn write_files(folder: &Path, pki: &Pki, server: &str, listen: SocketAddr) -> Result<(), Error> {
    let address = listen.ip().to_string();
    let (serving, key) = pki.server(&["metrics-server.kube-system.svc", &address]);
    let (client, client_key) = pki.client(USER, &[]);
    let user =
        json!({"client-certificate": "metrics-client.pem", "client-key": "metrics-client.key"});
    for (name, text) in [
        ("metrics-server.pem", &serving),
        ("metrics-server.key", &key),
        ("metrics-client.pem", &client),
        ("metrics-client.key", &client_key),
        (
            "metrics-server.conf",
            &kubeconfig(server, Path::new("ca.pem"), user),
        ),
    ] {
        write(folder.join(name), text)?;
    }
    Ok(())
}

/// What its own manifests grant it, but to a user: it is no pod.
fn rights() -> Value {
    let rules = json!([
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]);
    let delegation = binding("ClusterRoleBinding", "metrics-server:system:auth-delegator");
    let delegation = bound(delegation, "ClusterRole", "system:auth-delegator");
    let mut reader = binding("RoleBinding", "metrics-server-auth-reader");
    reader["metadata"]["namespace"] = "kube-system".into();
    let reader = bound(reader, "Role", "extension-apiserver-authentication-reader");
    let own = binding("ClusterRoleBinding", "system:metrics-server");
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
         "metadata": {"name": "system:metrics-server"}, "rules": rules},
        bound(own, "ClusterRole", "system:metrics-server"), delegation, reader,
    ]})
}

fn binding(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    })
}

fn bound(mut binding: Value, kind: &str, role: &str) -> Value {
    binding["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role});
    binding
}

/// A Service without a selector, whose only endpoint is the process.
fn service(listen: SocketAddr, ca_pem: &str) -> Value {
    let labels = json!({"kubernetes.io/service-name": NAME});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": "kube-system"},
         "spec": {"ports": [{"name": "https", "port": 443, "targetPort": listen.port()}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": NAME, "namespace": "kube-system", "labels": labels},
         "addressType": "IPv4", "ports": [{"name": "https", "port": listen.port(), "protocol": "TCP"}],
         "endpoints": [{"addresses": [listen.ip()], "conditions": {"ready": true}}]},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
         "metadata": {"name": "v1beta1.metrics.k8s.io"},
         "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                  "versionPriority": 100, "caBundle": BASE64_STANDARD.encode(ca_pem),
                  "service": {"name": NAME, "namespace": "kube-system", "port": 443}}},
    ]})
}
