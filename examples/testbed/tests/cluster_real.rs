//! The real cluster itself: it starts, serves its callers as who they are, and leaves nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use testbed::{
    cluster::{Cluster, ClusterConfig, Egress, Error, Kubectl, Token, shared},
    pki::Pki,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_cluster_serves_each_caller_as_who_they_are_and_ends_with_its_value() {
    let config = ClusterConfig {
        tokens: vec![Token {
            token: "reader-token".to_owned(),
            user: "reader".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
        }],
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();

    let version = cluster
        .kubectl()
        .run(&["get", "--raw=/version"])
        .await
        .unwrap();
    assert!(version.contains("\"v1.34."), "{version}");
    let metrics = cluster.metrics().await.unwrap();
    assert!(metrics.contains("apiserver_request_total"));

    let mut reader = cluster.endpoint();
    reader.admin_token = "reader-token".to_owned();
    let reader = Kubectl::new(&reader).unwrap();
    let who = reader
        .run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo}"])
        .await
        .unwrap();
    assert!(
        who.contains(r#""groups":["a","b","system:authenticated"]"#),
        "{who}"
    );
    assert!(who.contains(r#""username":"reader""#), "{who}");
    let refused = reader.run(&["get", "secrets"]).await.unwrap_err();
    assert!(matches!(&refused, Error::Kubectl { stderr, .. } if stderr.contains("Forbidden")));

    let admin = Kubectl::new(&cluster.endpoint()).unwrap();
    drop(cluster);
    let gone = admin.run(&["get", "--raw=/readyz"]).await.unwrap_err();
    assert!(gone.to_string().contains("refused"), "{gone}");
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn two_clusters_run_at_once_and_know_nothing_of_each_other() {
    let start = || Cluster::start(ClusterConfig::default());
    let (one, other) = tokio::try_join!(start(), start()).unwrap();
    let make = ["create", "configmap", "only-in-one"];
    one.kubectl().run(&make).await.unwrap();
    let get = ["get", "configmap", "only-in-one"];
    one.kubectl().run(&get).await.unwrap();
    let absent = other.kubectl().run(&get).await.unwrap_err();
    assert!(absent.to_string().contains("NotFound"), "{absent}");
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_wrong_argument_is_told_in_the_servers_own_words() {
    let config = ClusterConfig {
        arguments: vec!["--no-such-flag".to_owned()],
        ..ClusterConfig::default()
    };
    let error = Cluster::start(config).await.unwrap_err();
    assert!(
        error.to_string().contains("unknown flag: --no-such-flag"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn the_tests_of_a_run_share_one_cluster() {
    let (one, other) = tokio::try_join!(shared(), shared()).unwrap();
    assert_eq!(one.url, other.url);
}

/// A server of TLS that wants a certificate of the cluster's authority from everyone.
fn door(pki: &Pki) -> TlsAcceptor {
    let (own, key) = pki.server(&["127.0.0.1"]);
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate(pki.ca_pem())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![certificate(&own)],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn an_api_server_with_a_door_of_tls_asks_there_for_a_node_and_shows_its_certificate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ClusterConfig {
        egress: Some(Egress::Tls(listener.local_addr().unwrap())),
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}"#;
    cluster.kubectl().apply(node).await.unwrap();
    let door = door(cluster.pki());
    let asked = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = door.accept(stream).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let refusal = b"HTTP/1.1 502 the edge is away\r\n\r\n";
        stream.write_all(refusal).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let ask = ["get", "--raw=/api/v1/nodes/edge/proxy/healthz"];
    let (head, answer) = tokio::join!(asked, cluster.kubectl().run(&ask));
    assert!(
        head.starts_with("CONNECT 192.0.2.1:10250 HTTP/1.1\r\n"),
        "{head}"
    );
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("the edge is away"), "{error}");
}
