//! What a user deploys: two pods of a web server with a ConfigMap, a Secret and a service-account token, behind a
//! Service.

use serde_json::{Value, json};

use crate::{
    cluster::{self, Kubectl},
    node::{Error, Node, image},
    system,
};

/// A web server in the namespace `default`; all its objects have its name.
///
/// It answers with the pod's name, a greeting from the ConfigMap and a word from the Secret, each as it was when
/// the container started. Its service account may read pods and ConfigMaps, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The name of all its objects.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// The ConfigMap's `greeting`.
    pub greeting: String,
    /// The Secret's `word`.
    pub word: String,
}

impl Workload {
    /// Where the container finds the ConfigMap's greeting.
    pub const GREETING_FILE: &'static str = "/config/greeting";
    /// Where the container finds the Secret's word.
    pub const WORD_FILE: &'static str = "/secret/word";
    /// Where the container finds its service-account token.
    pub const TOKEN_FILE: &'static str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

    /// Two pods.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            replicas: 2,
            greeting: "good morning".to_owned(),
            word: "swordfish".to_owned(),
        }
    }

    /// All objects, for `kubectl apply`.
    #[must_use]
    pub fn manifest(&self) -> String {
        let items = json!([
            self.core("ServiceAccount", json!({})),
            self.core("ConfigMap", json!({"data": {"greeting": self.greeting}})),
            self.core("Secret", json!({"stringData": {"word": self.word}})),
            self.role(),
            self.role_binding(),
            self.core(
                "Service",
                json!({"spec": {
                "selector": {"app": self.name}, "ports": [{"port": 80, "targetPort": 8080}]}})
            ),
            self.deployment(),
        ]);
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }

    /// Returns the names of its pods.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left of a dropped future.
    pub async fn pods(&self, kubectl: &Kubectl) -> Result<Vec<String>, cluster::Error> {
        let names = "jsonpath={.items[*].metadata.name}";
        let selector = format!("app={}", self.name);
        let arguments = ["get", "pods", "-l", &selector, "-o", names];
        let found = kubectl.run(&arguments).await?;
        Ok(found.split_whitespace().map(str::to_owned).collect())
    }

    /// Returns the cluster IP of its Service.
    ///
    /// # Errors
    ///
    /// When there is none, or the API server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left of a dropped future.
    pub async fn cluster_ip(&self, kubectl: &Kubectl) -> Result<String, cluster::Error> {
        let address = "jsonpath={.spec.clusterIP}";
        kubectl
            .run(&["get", "service", &self.name, "-o", address])
            .await
    }

    /// Asks the Service from the node and returns which pod has answered.
    ///
    /// # Errors
    ///
    /// When nobody answers within two seconds, or the pod has not the ConfigMap and the Secret of this workload.
    ///
    /// # Cancel safety
    ///
    /// The request of a dropped future goes on.
    pub async fn ask(&self, node: &Node, cluster_ip: &str) -> Result<String, Error> {
        let url = format!("http://{cluster_ip}/");
        let answer = node.get(&url).await?;
        let expected = format!(" {} {}\n", self.greeting, self.word);
        match answer.strip_suffix(&expected) {
            Some(pod) => Ok(pod.to_owned()),
            None => Err(Error::System(system::Error::Command {
                command: url,
                said: format!("{answer:?} does not end with {expected:?}"),
            })),
        }
    }

    fn core(&self, kind: &str, mut object: Value) -> Value {
        object["apiVersion"] = "v1".into();
        object["kind"] = kind.into();
        object["metadata"] = self.metadata();
        object
    }

    fn metadata(&self) -> Value {
        json!({"name": self.name, "namespace": "default", "labels": {"app": self.name}})
    }

    fn role(&self) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": self.metadata(),
            "rules": [{"apiGroups": [""], "resources": ["configmaps", "pods"],
                       "verbs": ["get", "list", "watch"]}],
        })
    }

    fn role_binding(&self) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": self.metadata(),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.name},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": "default"}],
        })
    }

    fn deployment(&self) -> Value {
        let labels = json!({"app": self.name});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.metadata(),
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": self.pod()},
            },
        })
    }

    fn pod(&self) -> Value {
        let script = format!(
            "mkdir -p /www; echo \"$POD $(cat {}) $(cat {})\" >/www/index.html; \
             echo started; exec httpd -f -p 8080 -h /www",
            Self::GREETING_FILE,
            Self::WORD_FILE
        );
        let container = json!({
            "name": "web", "image": image::BUSYBOX, "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", script],
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
            "volumeMounts": [
                {"name": "config", "mountPath": "/config"},
                {"name": "secret", "mountPath": "/secret"},
            ],
        });
        json!({
            "serviceAccountName": self.name,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [
                {"name": "config", "configMap": {"name": self.name}},
                {"name": "secret", "secret": {"secretName": self.name}},
            ],
        })
    }
}
