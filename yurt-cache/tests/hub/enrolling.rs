//! Certificates that the hub asks of the cluster: its own as a client, and the one that it presents.

use std::os::unix::fs::MetadataExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::api::{ApiConfig, User};
use testbed::client::Client;
use testbed::pki::{ExtendedKeyUsagePurpose, Validity};
use yurt_cache::hub::ServingSigner;

use super::site::{Bed, SOON, eventually};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const MAPS: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const TOKEN: &str = "abcdef.0123456789abcdef";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";

/// A bed whose hub has nothing but a bootstrap token.
async fn joining(file: &std::path::Path) -> Bed {
    write(file, TOKEN);
    let user = User::new("system:bootstrap:abcdef", &["system:bootstrappers"]);
    let config = ApiConfig {
        tokens: [(TOKEN.to_owned(), user)].into(),
        ..ApiConfig::default()
    };
    let file = file.to_owned();
    Bed::with(config, |mut site| {
        site.adjust(move |config| config.bootstrap_token_file = Some(file.clone()));
        site
    })
    .await
}

/// Returns the requests to a signer.
async fn requests(bed: &Bed, signer: &str) -> Vec<Value> {
    let list = bed.cloud().get(REQUESTS).await.unwrap().expect(200);
    let items = list["items"].as_array().unwrap().iter();
    items
        .filter(|item| item["spec"]["signerName"] == signer)
        .cloned()
        .collect()
}

/// Waits for the next request to a signer that nobody has answered.
async fn next(bed: &Bed, signer: &str) -> Value {
    let found = std::cell::RefCell::new(Value::Null);
    eventually("a certificate is asked for", async || {
        let open = requests(bed, signer).await;
        let mut open = open
            .into_iter()
            .filter(|one| one["status"] == json!({}) || one["status"].is_null());
        found.replace(open.next().unwrap_or_default());
        !found.borrow().is_null()
    })
    .await;
    found.into_inner()
}

async fn answer(bed: &Bed, mut request: Value, status: Value) {
    let name = request["metadata"]["name"].as_str().unwrap();
    let path = format!("{REQUESTS}/{name}/status");
    request["status"] = status;
    bed.cloud().put(&path, &request).await.unwrap().expect(200);
}

/// Signs the next request as a controller manager does, from `days` ago for ten days.
async fn sign(bed: &Bed, signer: &str, days: i64) -> Value {
    let request = next(bed, signer).await;
    let pem = STANDARD
        .decode(request["spec"]["request"].as_str().unwrap())
        .unwrap();
    let begin = Timestamp::now() - SignedDuration::from_secs(days * 86_400);
    let validity = Validity {
        not_before: begin,
        not_after: begin + SignedDuration::from_secs(10 * 86_400),
    };
    let purpose = if signer == CLIENT {
        ExtendedKeyUsagePurpose::ClientAuth
    } else {
        ExtendedKeyUsagePurpose::ServerAuth
    };
    let pem = bed
        .site
        .pki
        .sign_request(std::str::from_utf8(&pem).unwrap(), purpose, validity);
    answer(
        bed,
        request.clone(),
        json!({"certificate": STANDARD.encode(pem)}),
    )
    .await;
    request
}

/// Who the cloud took the node for when it asked for a map by name.
async fn forwarded_as(bed: &Bed) -> String {
    bed.api.forget_requests();
    let path = "/api/v1/namespaces/default/configmaps/none";
    bed.site.node().get(path).await.unwrap();
    let told = bed.api.requests();
    let one = told.iter().find(|one| one.name == "none");
    one.map(|one| one.user.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_by_a_token_and_then_by_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap");
    let mut bed = joining(&file).await;
    let request = sign(&bed, CLIENT, 0).await;
    assert_eq!(
        request["spec"]["usages"],
        json!(["digital signature", "client auth"])
    );
    eventually("the token is wiped", async || !file.exists()).await;
    let kept = bed.site.data_dir().join("node-client.key");
    assert_eq!(std::fs::metadata(kept).unwrap().mode() & 0o777, 0o600);
    eventually("the hub asks with it", async || {
        forwarded_as(&bed).await == "system:node:n1"
    })
    .await;
    bed.restart().await;
    bed.site.sees_the_cloud(true).await;
    assert_eq!(forwarded_as(&bed).await, "system:node:n1");
    assert_eq!(
        requests(&bed, CLIENT).await.len(),
        1,
        "it is not asked for twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_certificate_is_renewed_by_itself_and_no_watch_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap");
    let bed = joining(&file).await;
    // Nine and a half of its ten days are over: it is renewed at once.
    sign(&bed, CLIENT, 9).await;
    let node = bed.site.node();
    eventually("the hub asks with it", async || {
        forwarded_as(&bed).await == "system:node:n1"
    })
    .await;
    let path = "/api/v1/namespaces/default/configmaps?watch=1";
    let mut watch = node.watch(path).await.unwrap();
    let renewal = sign(&bed, CLIENT, 0).await;
    let told = bed.api.requests();
    let mut asked = told
        .iter()
        .filter(|one| one.resource == "certificatesigningrequests" && one.verb == "create");
    let last = asked.next_back().unwrap();
    assert_eq!(last.user, "system:node:n1", "{renewal}");
    let body = json!({"metadata": {"name": "later"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    bed.cloud().post(maps, &body).await.unwrap().expect(201);
    loop {
        let event = watch.next(SOON).await.unwrap().expect("the watch goes on");
        if event.object["metadata"]["name"] == "later" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_denied_or_another_ones_is_asked_for_again_and_nothing_stops() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap");
    let bed = joining(&file).await;
    let request = next(&bed, CLIENT).await;
    let denied =
        json!({"conditions": [{"type": "Denied", "status": "True", "message": "not today"}]});
    answer(&bed, request, denied).await;
    let reader = bed
        .issuer()
        .sign(&bed.issuer().claims("default", "r", Timestamp::now(), 3_600));
    bed.site
        .bearer(&reader)
        .get(MAPS)
        .await
        .unwrap()
        .expect(200);
    let request = next(&bed, CLIENT).await;
    let (other, _) = bed.site.pki.client("system:node:n1", &["system:nodes"]);
    answer(
        &bed,
        request,
        json!({"certificate": STANDARD.encode(other)}),
    )
    .await;
    bed.site
        .bearer(&reader)
        .get(MAPS)
        .await
        .unwrap()
        .expect(200);
    assert!(file.exists(), "who has not joined keeps the token");
    assert!(!bed.site.data_dir().join("node-client.pem").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_trust_the_cluster_reach_the_hub_when_the_cluster_has_signed() {
    let mut bed = Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(|config| config.serving_signer = ServingSigner::Cluster);
        site
    })
    .await;
    let node = bed.site.node();
    let mut watch = node
        .watch("/api/v1/namespaces/default/configmaps?watch=1")
        .await
        .unwrap();
    let stock = async |bed: &Bed| {
        let mut endpoint = bed.site.endpoint();
        endpoint.ca_pem = bed.site.pki.ca_pem().to_owned();
        let client = Client::new(&endpoint).unwrap();
        client
            .get(MAPS)
            .await
            .is_ok_and(|answer| answer.code == 200)
    };
    assert!(!stock(&bed).await, "the hub's own CA is not the cluster's");
    let request = sign(&bed, SERVING, 0).await;
    assert_eq!(
        request["spec"]["usages"],
        json!(["digital signature", "server auth"])
    );
    eventually("the hub presents it", async || stock(&bed).await).await;
    let body = json!({"metadata": {"name": "later"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    bed.cloud().post(maps, &body).await.unwrap().expect(201);
    loop {
        let event = watch
            .next(SOON)
            .await
            .unwrap()
            .expect("who was connected stays");
        if event.object["metadata"]["name"] == "later" {
            break;
        }
    }
    bed.cut().await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    assert!(stock(&bed).await, "after a restart while cut off");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file needs no crash safety"
)]
fn write(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
