//! The files of a stock node, with what kubeadm would write into them.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value, json};

use super::{Error, image};
use crate::{cluster::kubeconfig, pki::Pki, system::run};

/// Where Debian has them.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// The kubelet's own certificate with its key, where the kubelet keeps it.
pub const NODE_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The cluster's certificate authority.
pub const CA_FILE: &str = "/etc/kubernetes/pki/ca.crt";
/// Where the hub keeps what outlives a power cut.
pub const HUB_DATA: &str = "/var/lib/yurthub";

/// Everything that is written into a node's files.
pub(super) struct Files<'a> {
    pub(super) persistent: &'a Path,
    pub(super) name: &'a str,
    pub(super) address: Ipv4Addr,
    /// The bridge, which knows no DNS: what is asked there is refused at once.
    pub(super) gateway: Ipv4Addr,
    pub(super) pod_cidr: String,
    pub(super) cluster_cidr: String,
    pub(super) cluster_dns: &'a str,
    pub(super) cgroup: &'a str,
    pub(super) pki: &'a Pki,
    /// What the kubelet and kube-proxy take for the API server.
    pub(super) server: &'a str,
    pub(super) kube_proxy_token: &'a str,
    pub(super) kubelet: &'a Map<String, Value>,
    pub(super) kube_proxy: &'a Map<String, Value>,
}

impl Files<'_> {
    pub(super) fn write_all(&self) -> Result<(), Error> {
        self.folders()?;
        self.system()?;
        self.put("/etc/containerd/config.toml", &containerd())?;
        self.put("/etc/cni/net.d/10-bridge.conflist", &self.cni().to_string())?;
        self.credentials()?;
        self.kubeconfigs()?;
        let kubelet = overlaid(self.kubelet_config(), self.kubelet);
        self.put("/var/lib/kubelet/config.yaml", &kubelet.to_string())?;
        let kube_proxy = overlaid(self.kube_proxy_config(), self.kube_proxy);
        self.put("/var/lib/kube-proxy/config.conf", &kube_proxy.to_string())
    }

    fn folders(&self) -> Result<(), Error> {
        for folder in [
            "/etc/containerd",
            "/etc/cni/net.d",
            "/etc/kubernetes/manifests",
            "/etc/kubernetes/pki",
            "/etc/yurthub",
            "/var/lib/containerd",
            "/var/lib/cni",
            "/var/lib/kubelet/pki",
            "/var/lib/kube-proxy",
            HUB_DATA,
            "/var/log/pods",
            "/var/log/containers",
        ] {
            let path = outside(self.persistent, folder);
            fs::create_dir_all(&path).map_err(|source| Error::File {
                step: "make",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// What the machine's own programs need: dynamic libraries, alternatives, users.
    fn system(&self) -> Result<(), Error> {
        let taken = [
            "/etc/alternatives",
            "/etc/group",
            "/etc/ld.so.cache",
            "/etc/localtime",
            "/etc/passwd",
            "/etc/protocols",
            "/etc/services",
        ];
        let there = taken.into_iter().filter(|path| Path::new(path).exists());
        let mut copy = Command::new("cp");
        copy.arg("--archive").args(there);
        run(copy.arg(outside(self.persistent, "/etc")))?;
        // Nothing that a static program would have to load.
        let sources = ["passwd", "group", "services", "protocols", "hosts"];
        let sources: String = sources.map(|of| format!("{of}: files\n")).concat();
        self.put("/etc/nsswitch.conf", &sources)?;
        let name = self.name;
        self.put("/etc/hostname", &format!("{name}\n"))?;
        let hosts = format!("127.0.0.1 localhost\n{} {name}\n", self.address);
        self.put("/etc/hosts", &hosts)?;
        let resolver = format!("nameserver {}\n", self.gateway);
        self.put("/etc/resolv.conf", &resolver)?;
        // An id of the network's and the node's own.
        let [.., slot, host] = self.address.octets();
        self.put("/etc/machine-id", &format!("{slot:016x}{host:016x}\n"))
    }

    fn cni(&self) -> Value {
        let ipam = json!({
            "type": "host-local", "ranges": [[{"subnet": self.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        let bridge = json!({
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
            "hairpinMode": true, "ipam": ipam,
        });
        json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]})
    }

    /// The kubelet's two certificates, and the one with which a hub may serve.
    fn credentials(&self) -> Result<(), Error> {
        self.put(CA_FILE, self.pki.ca_pem())?;
        let user = format!("system:node:{}", self.name);
        let (client, key) = self.pki.client(&user, &["system:nodes"]);
        self.put(NODE_CERTIFICATE, &format!("{client}{key}"))?;
        let address = self.address.to_string();
        let (serving, key) = self.pki.server(&[self.name, &address]);
        self.put("/var/lib/kubelet/pki/kubelet.crt", &serving)?;
        self.put("/var/lib/kubelet/pki/kubelet.key", &key)?;
        let hub = ["127.0.0.1", "localhost", "169.254.2.1", &address];
        let (serving, key) = self.pki.server(&hub);
        self.put("/etc/yurthub/serving.pem", &serving)?;
        self.put("/etc/yurthub/serving.key", &key)?;
        self.put("/var/lib/kube-proxy/token", self.kube_proxy_token)
    }

    fn kubeconfigs(&self) -> Result<(), Error> {
        let ca = Path::new(CA_FILE);
        let node = json!({"client-certificate": NODE_CERTIFICATE, "client-key": NODE_CERTIFICATE});
        let kubelet = kubeconfig(self.server, ca, node);
        self.put("/etc/kubernetes/kubelet.conf", &kubelet)?;
        let account = json!({"tokenFile": "/var/lib/kube-proxy/token"});
        let kube_proxy = kubeconfig(self.server, ca, account);
        self.put("/var/lib/kube-proxy/kubeconfig.conf", &kube_proxy)
    }

    fn kubelet_config(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": true},
                "x509": {"clientCAFile": CA_FILE}},
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [self.cluster_dns], "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "healthzBindAddress": "127.0.0.1", "healthzPort": 10248,
            "resolvConf": "/etc/resolv.conf",
            "rotateCertificates": true,
            "staticPodPath": "/etc/kubernetes/manifests",
            "tlsCertFile": "/var/lib/kubelet/pki/kubelet.crt",
            "tlsPrivateKeyFile": "/var/lib/kubelet/pki/kubelet.key",
            // From here on: what this machine asks for, not kubeadm.
            "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", self.cgroup),
            "failCgroupV1": false, "failSwapOn": false,
            // Images cannot be fetched again, and a full disk of the machine is not the node's.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%",
                             "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
            // Not into the machine's /usr.
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        })
    }

    fn kube_proxy_config(&self) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
            "clusterCIDR": self.cluster_cidr,
            "hostnameOverride": self.name,
            "mode": "nftables",
            // Only the machine's own network may set the limits of its connections.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s",
                          "tcpCloseWaitTimeout": "0s"},
        })
    }

    fn put(&self, path: &str, text: &str) -> Result<(), Error> {
        write(&outside(self.persistent, path), text)
    }
}

/// Returns where a file of the node that outlives a power cut is on this machine.
pub(super) fn outside(persistent: &Path, path: &str) -> PathBuf {
    persistent.join(path.trim_start_matches('/'))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's files need not survive a crash"
)]
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| failed("write", path, source))
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File {
        step,
        path: path.to_owned(),
        source,
    }
}

fn overlaid(mut config: Value, changes: &Map<String, Value>) -> Value {
    for (key, value) in changes {
        config[key] = value.clone();
    }
    config
}

// Native: overlays of overlays are not allowed where the machine is a container itself.
fn containerd() -> String {
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PLUGINS}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#,
        pause = image::PAUSE
    )
}
