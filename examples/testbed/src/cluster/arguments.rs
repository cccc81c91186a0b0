//! How etcd, kube-apiserver and metrics-server are started.

use std::net::SocketAddr;

use super::{ClusterConfig, egress};

/// The servers run in the folder of their files, so that paths are relative.
pub(super) fn etcd(client: SocketAddr, peer: SocketAddr) -> Vec<String> {
    vec![
        "--data-dir=etcd".to_owned(),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=default=http://{peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

pub(super) fn apiserver(
    etcd: SocketAddr,
    secure: SocketAddr,
    config: &ClusterConfig,
) -> Vec<String> {
    let mut arguments = vec![
        format!("--etcd-servers=http://{etcd}"),
        format!("--bind-address={}", secure.ip()),
        format!("--secure-port={}", secure.port()),
        format!("--authorization-mode={}", config.authorization),
    ];
    let fixed = [
        "--tls-cert-file=serving.pem",
        "--tls-private-key-file=serving.key",
        "--client-ca-file=ca.pem",
        "--token-auth-file=tokens.csv",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file=service-accounts.pub",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-client-certificate=kubelet-client.pem",
        "--kubelet-client-key=kubelet-client.key",
        "--kubelet-certificate-authority=ca.pem",
        "--kubelet-preferred-address-types=InternalIP",
        // Aggregated APIs: the API server vouches for its callers there, and has no kube-proxy beside it.
        "--requestheader-client-ca-file=front-proxy-ca.pem",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--proxy-client-cert-file=front-proxy-client.pem",
        "--proxy-client-key-file=front-proxy-client.key",
        "--enable-aggregator-routing=true",
    ];
    arguments.extend(fixed.map(str::to_owned));
    if config.address.is_loopback() {
        // A loopback address is not a valid endpoint of the Service kubernetes.
        arguments.push("--endpoint-reconciler-type=none".to_owned());
    }
    if config.controllers.is_none() {
        // Without a controller manager no namespace has its default service account.
        arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    if config.egress.is_some() {
        arguments.push(format!("--egress-selector-config-file={}", egress::FILE));
    }
    arguments.extend_from_slice(&config.arguments);
    arguments
}

pub(super) fn metrics_server(listen: SocketAddr) -> Vec<String> {
    let mut arguments = vec![
        format!("--bind-address={}", listen.ip()),
        format!("--secure-port={}", listen.port()),
    ];
    let fixed = [
        "--kubeconfig=metrics-server.conf",
        "--authentication-kubeconfig=metrics-server.conf",
        "--authorization-kubeconfig=metrics-server.conf",
        "--tls-cert-file=metrics-server.pem",
        "--tls-private-key-file=metrics-server.key",
        "--kubelet-certificate-authority=ca.pem",
        "--kubelet-client-certificate=metrics-client.pem",
        "--kubelet-client-key=metrics-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-use-node-status-port",
        // The shortest that it takes.
        "--metric-resolution=10s",
        "--kubelet-request-timeout=9s",
    ];
    arguments.extend(fixed.map(str::to_owned));
    arguments
}
