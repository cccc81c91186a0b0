//! How a client of Kubernetes is told where its API server is and who it is itself.

use std::path::Path;

use serde_json::{Value, json};

/// Writes a kubeconfig for one server and one user, in JSON, which is YAML.
#[must_use]
pub fn kubeconfig(server: &str, ca_file: &Path, user: Value) -> String {
    let cluster = json!({"server": server, "certificate-authority": ca_file});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": user}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    config.to_string()
}
