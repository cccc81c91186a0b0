//! How a node comes into being: its files, its images, and the command lines of its programs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    sync::{Arc, atomic::AtomicU32},
};

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    CA_FILE, Error, HUB_DATA, HubConfig, NODE_CERTIFICATE, Network, Node, NodeConfig, Program,
    Road,
    files::{Files, outside, write},
    image::{self, Image},
    link::Link,
};
use crate::{
    cluster::{Cluster, DNS_ADDRESS},
    endpoint::Endpoint,
    system::{run, words},
};

const HUB_LISTEN: &str = "127.0.0.1:10268";
const HUB_ADMIN: &str = "127.0.0.1:10267";

/// The command lines of a node's programs.
#[derive(Debug)]
pub(super) struct Lines {
    lines: BTreeMap<Program, Vec<String>>,
    hub_probe: String,
}

impl Node {
    /// Makes a node and switches it on.
    ///
    /// Returns when its programs are started; [`Node::ready`] waits for the rest.
    ///
    /// # Errors
    ///
    /// When a program is missing, the system refuses, or containerd or the hub does not answer in 30 s.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind but kube-proxy's account in the cluster.
    pub async fn start(
        network: &Arc<Network>,
        cluster: &Cluster,
        config: NodeConfig,
    ) -> Result<Self, Error> {
        let token = cluster.kube_proxy_token().await?;
        let mut node = Self::prepare(network, cluster, &config, &token)?;
        node.power_on_bare().await?;
        node.start_program(Program::Containerd).await?;
        node.import_images(cluster).await?;
        for program in node.programs() {
            if program != Program::Containerd {
                node.start_program(program).await?;
            }
        }
        Ok(node)
    }

    fn prepare(
        network: &Arc<Network>,
        cluster: &Cluster,
        config: &NodeConfig,
        token: &str,
    ) -> Result<Self, Error> {
        let number = network.plug();
        let id = format!("{}-{number}", network.name());
        let address = network.node_address(number);
        let folder = network.folder().join(&id);
        let persistent = folder.join("disk");
        let cloud = cluster.endpoint();
        let server = match &config.road {
            Road::Direct => cloud.url.clone(),
            Road::Hub(hub) => format!("https://{}", hub.key("listen", HUB_LISTEN)),
        };
        let prefix = network.pod_prefix();
        Files {
            persistent: &persistent,
            name: &config.name,
            address,
            gateway: network.address(),
            pod_cidr: format!("{prefix}.{number}.0/24"),
            cluster_cidr: format!("{prefix}.0.0/16"),
            cluster_dns: DNS_ADDRESS,
            cgroup: &id,
            pki: cluster.pki(),
            server: &server,
            kube_proxy_token: token,
            kubelet: &config.kubelet,
            kube_proxy: &config.kube_proxy,
        }
        .write_all()?;
        let mut disk = None;
        if let Road::Hub(hub) = &config.road {
            let file = hub.config_file(&config.name, &cloud.url);
            write(&outside(&persistent, "/etc/yurthub/config.yaml"), &file)?;
            disk = hub.disk.map(|_| folder.join("hub.img"));
            if let (Some(size), Some(disk)) = (hub.disk, &disk) {
                make_disk(disk, size)?;
            }
        }
        Ok(Self {
            name: config.name.clone(),
            lines: Lines::new(cluster, config, address.to_string())?,
            server: Endpoint {
                url: server,
                ..cloud
            },
            link: Link {
                name: id.clone(),
                bridge: network.name(),
                gateway: network.address(),
                address,
                cut: None,
                is_behind_nat: config.is_behind_nat,
            },
            id,
            address,
            persistent,
            disk,
            processes: BTreeMap::new(),
            machine: None,
            clock: SignedDuration::ZERO,
            execs: AtomicU32::new(0),
            _network: network.clone(),
        })
    }

    async fn import_images(&self, cluster: &Cluster) -> Result<(), Error> {
        let busybox = run(&mut words("which busybox"))?;
        let busybox = Path::new(busybox.trim());
        let shell = [
            "cat",
            "httpd",
            "ls",
            "mkdir",
            "nc",
            "nslookup",
            "sh",
            "sha256sum",
            "sleep",
            "tar",
            "wget",
        ];
        let busybox = |name, entrypoint| Image {
            name,
            program: busybox,
            links: &shell,
            entrypoint,
        };
        self.import(&busybox(image::PAUSE, &["/bin/sleep", "2147483647"]))
            .await?;
        self.import(&busybox(image::BUSYBOX, &["/bin/sh"])).await?;
        // Not every folder of servers has it.
        if let Ok(coredns) = cluster.binaries().coredns() {
            self.import(&Image {
                name: image::COREDNS,
                program: &coredns,
                links: &[],
                entrypoint: &["/bin/coredns"],
            })
            .await?;
        }
        Ok(())
    }

    async fn import(&self, image: &Image<'_>) -> Result<(), Error> {
        let folder = self.file("/var/lib/image");
        image.write(&folder)?;
        let arguments = "ctr --namespace k8s.io images import --snapshotter native";
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.push("/var/lib/image/image.tar");
        let imported = self.run(&arguments).await;
        fs::remove_dir_all(&folder).map_err(|source| Error::File {
            step: "remove",
            path: folder,
            source,
        })?;
        imported.map(drop)
    }
}

impl HubConfig {
    fn config_file(&self, node: &str, cloud: &str) -> String {
        let mut file = json!({
            "nodeName": node, "servers": [cloud], "caFile": CA_FILE,
            "clientCertificate": NODE_CERTIFICATE, "clientCaFile": CA_FILE,
            "listen": HUB_LISTEN, "adminListen": HUB_ADMIN, "dataDir": HUB_DATA,
            "servingCertificate": "/etc/yurthub/serving.pem",
            "servingKey": "/etc/yurthub/serving.key",
        });
        for (key, value) in &self.keys {
            file[key] = value.clone();
        }
        file.to_string()
    }

    fn key(&self, name: &str, default: &str) -> String {
        let given = self.keys.get(name).and_then(Value::as_str);
        given.unwrap_or(default).to_owned()
    }
}

impl Lines {
    fn new(cluster: &Cluster, config: &NodeConfig, address: String) -> Result<Self, Error> {
        let binaries = cluster.binaries();
        let mut kubelet = line(
            &binaries.kubernetes("kubelet")?,
            &[
                "--config=/var/lib/kubelet/config.yaml",
                "--kubeconfig=/etc/kubernetes/kubelet.conf",
            ],
        );
        kubelet.push(format!("--hostname-override={}", config.name));
        kubelet.push(format!("--node-ip={address}"));
        kubelet.extend_from_slice(&config.kubelet_arguments);
        let mut kube_proxy = line(
            &binaries.kubernetes("kube-proxy")?,
            &["--config=/var/lib/kube-proxy/config.conf"],
        );
        kube_proxy.extend_from_slice(&config.kube_proxy_arguments);
        let mut lines = BTreeMap::from([
            (Program::Containerd, vec!["containerd".to_owned()]),
            (Program::Kubelet, kubelet),
            (Program::KubeProxy, kube_proxy),
        ]);
        let mut hub_probe = String::new();
        if let Road::Hub(hub) = &config.road {
            hub_probe = format!("http://{}/healthz", hub.key("adminListen", HUB_ADMIN));
            let arguments = ["--config", "/etc/yurthub/config.yaml"];
            lines.insert(Program::Hub, line(&hub.program, &arguments));
        }
        Ok(Self { lines, hub_probe })
    }

    pub(super) fn add(&mut self, added: Program, program: &Path, arguments: &[&str]) {
        self.lines.insert(added, line(program, arguments));
    }

    pub(super) fn of(&self, program: Program) -> &[String] {
        self.lines.get(&program).map_or(&[], Vec::as_slice)
    }

    pub(super) fn programs(&self) -> Vec<Program> {
        self.lines.keys().copied().collect()
    }

    /// What answers on the node when the hub is alive.
    pub(super) fn hub_probe(&self) -> &str {
        &self.hub_probe
    }
}

fn line(program: &Path, arguments: &[&str]) -> Vec<String> {
    let arguments = arguments.iter().map(|&argument| argument.to_owned());
    let program = program.display().to_string();
    [program].into_iter().chain(arguments).collect()
}

/// Makes an empty file system in a file.
fn make_disk(path: &Path, size: u64) -> Result<(), Error> {
    let made = File::create(path).and_then(|file| file.set_len(size));
    made.map_err(|source| Error::File {
        step: "make",
        path: path.to_owned(),
        source,
    })?;
    run(&mut words(&format!(
        "mkfs.ext4 -q -F -m 0 {}",
        path.display()
    )))?;
    Ok(())
}
