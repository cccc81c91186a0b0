//! What every cluster has beside its servers, as kubeadm would install it: the rights of kube-proxy, and DNS.

use serde_json::{Value, json};

use super::{Cluster, Error};
use crate::node::image;

/// The cluster IP of the Service `kube-dns`.
pub(crate) const DNS_ADDRESS: &str = "10.96.0.10";

const COREFILE: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    cache 30
    reload
    loadbalance
}
";

impl Cluster {
    /// Gives kube-proxy its service account and rights and returns a token of it, valid for a day.
    ///
    /// # Errors
    ///
    /// [`Error::Kubectl`] when the API server refuses.
    ///
    /// # Cancel safety
    ///
    /// May be called again.
    pub async fn kube_proxy_token(&self) -> Result<String, Error> {
        self.kubectl.apply(&kube_proxy().to_string()).await?;
        let arguments = "create token kube-proxy --namespace=kube-system --duration=24h";
        let arguments: Vec<&str> = arguments.split(' ').collect();
        Ok(self.kubectl.run(&arguments).await?.trim().to_owned())
    }

    /// Installs CoreDNS, as a Deployment of one pod behind the Service `kube-dns`.
    ///
    /// # Errors
    ///
    /// [`Error::Kubectl`] when the API server refuses.
    ///
    /// # Cancel safety
    ///
    /// May be called again.
    pub async fn install_dns(&self) -> Result<(), Error> {
        self.kubectl.apply(&dns().to_string()).await.map(drop)
    }
}

fn kube_proxy() -> Value {
    list(json!([
        service_account("kube-proxy"),
        cluster_role_binding("kubeadm:node-proxier", "system:node-proxier", "kube-proxy"),
    ]))
}

fn dns() -> Value {
    let rules = json!([
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"],
         "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    list(json!([
        service_account("coredns"),
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
         "metadata": {"name": "system:coredns"}, "rules": rules},
        cluster_role_binding("system:coredns", "system:coredns", "coredns"),
        {"apiVersion": "v1", "kind": "ConfigMap",
         "metadata": {"name": "coredns", "namespace": "kube-system"}, "data": {"Corefile": COREFILE}},
        {"apiVersion": "v1", "kind": "Service",
         "metadata": {"name": "kube-dns", "namespace": "kube-system"},
         "spec": {"selector": {"k8s-app": "kube-dns"}, "clusterIP": DNS_ADDRESS, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}},
        dns_deployment(),
    ]))
}

fn dns_deployment() -> Value {
    let labels = json!({"k8s-app": "kube-dns"});
    let container = json!({
        "name": "coredns", "image": image::COREDNS, "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "ports": [{"containerPort": 53, "name": "dns", "protocol": "UDP"},
                  {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"}],
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 60,
                          "timeoutSeconds": 5, "failureThreshold": 5},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
    });
    let tolerations = json!([
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
    ]);
    let spec = json!({
        "serviceAccountName": "coredns", "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical", "tolerations": tolerations,
        // Its own grace of 5 s, and a little more.
        "terminationGracePeriodSeconds": 7,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {
            "name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}}],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": spec}},
    })
}

fn list(items: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn service_account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount",
           "metadata": {"name": name, "namespace": "kube-system"}})
}

fn cluster_role_binding(name: &str, role: &str, account: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}],
    })
}
