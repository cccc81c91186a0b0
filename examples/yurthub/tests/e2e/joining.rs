//! Joining the real API server: a bootstrap token, a certificate signing request, a certificate.

use std::{collections::BTreeSet, fs};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testbed::{
    client::Client,
    cluster::{Cluster, ClusterConfig, Token},
    pki::{ExtendedKeyUsagePurpose, Validity},
};
use tokio::time::{Instant, sleep};

use crate::{
    hub::{Hub, NODE},
    site::PATIENCE,
};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const TOKEN: &str = "abcdef.0123456789abcdef";

/// Approves the next request as an administrator does, and signs it as kube-controller-manager does.
async fn sign(
    cluster: &Cluster,
    admin: &Client,
    purpose: ExtendedKeyUsagePurpose,
    done: &mut BTreeSet<String>,
) -> Value {
    let start = Instant::now();
    let request = loop {
        let list = admin.get(REQUESTS).await.unwrap().expect(200);
        let items = list["items"].as_array().unwrap();
        let is_new = |item: &&Value| !done.contains(item["metadata"]["name"].as_str().unwrap());
        if let Some(item) = items.iter().find(is_new) {
            break item.clone();
        }
        assert!(start.elapsed() < PATIENCE, "nobody asks for a certificate");
        sleep(std::time::Duration::from_millis(50)).await;
    };
    let name = request["metadata"]["name"].as_str().unwrap().to_owned();
    done.insert(name.clone());
    let approve = ["certificate", "approve", &name];
    cluster.kubectl().run(&approve).await.unwrap();
    let path = format!("{REQUESTS}/{name}");
    let mut approved = admin.get(&path).await.unwrap().expect(200);
    let pem = STANDARD
        .decode(request["spec"]["request"].as_str().unwrap())
        .unwrap();
    let pem = cluster.pki().sign_request(
        std::str::from_utf8(&pem).unwrap(),
        purpose,
        Validity::default(),
    );
    approved["status"]["certificate"] = STANDARD.encode(pem).into();
    let signed = admin
        .put(&format!("{path}/status"), &approved)
        .await
        .unwrap();
    signed.expect(200);
    request
}

/// The hub joins with nothing but a token, and ends with both certificates of the cluster.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_hub_joins_by_a_bootstrap_token() {
    let bootstrap = Token {
        token: TOKEN.to_owned(),
        user: "system:bootstrap:abcdef".to_owned(),
        groups: vec!["system:bootstrappers".to_owned()],
    };
    let config = ClusterConfig {
        tokens: vec![bootstrap],
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.expect("`make assets` was run");
    let admin = Client::new(&cluster.endpoint()).unwrap();
    let binding = json!({
        "metadata": {"name": "bootstrappers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-bootstrapper"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(bindings, &binding).await.unwrap().expect(201);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap-token");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's files need not survive a crash"
    )]
    fs::write(&file, TOKEN).unwrap();
    let flags = [
        "--bootstrap-token-file",
        file.to_str().unwrap(),
        "--serving-signer",
        "cluster",
    ];
    let hub = Hub::start(cluster.endpoint(), None, &flags).await;
    let mut done = BTreeSet::new();
    let mut told = Vec::new();
    // The client certificate comes first: the node alone may ask for the other.
    for purpose in [
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ] {
        let request = sign(&cluster, &admin, purpose, &mut done).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        told.push((
            text(&request["spec"]["signerName"]),
            text(&request["spec"]["username"]),
        ));
    }
    let node = format!("system:node:{NODE}");
    assert_eq!(
        told,
        [
            (
                "kubernetes.io/kube-apiserver-client-kubelet".to_owned(),
                "system:bootstrap:abcdef".to_owned()
            ),
            ("kubernetes.io/kubelet-serving".to_owned(), node.clone()),
        ]
    );
    // Stock clients trust the cluster's CA, and the node is forwarded with the certificate that it has now.
    let mut endpoint = hub.endpoint();
    endpoint.ca_pem = cluster.pki().ca_pem().to_owned();
    let (certificate, key) = cluster.pki().client(&node, &["system:nodes"]);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let start = Instant::now();
    loop {
        let client = Client::with_certificate(&endpoint, &certificate, &key).unwrap();
        if let Ok(answer) = client.post(reviews, &review).await
            && answer.code == 201
        {
            assert_eq!(
                answer.json()["status"]["userInfo"]["username"],
                node.as_str()
            );
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{}", hub.log());
        sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!file.exists(), "the token is wiped");
    let log = hub.log();
    assert!(!log.contains(TOKEN), "{log}");
}
