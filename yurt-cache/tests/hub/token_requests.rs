//! The kubelet's requests for tokens of its pods, while the cloud is there, away, and back.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::api::{ApiConfig, Authorizer};
use testbed::client::Answer;
use yurt_cache::hub::Config;

use super::site::Bed;

const MAPS: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const MAP: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets?resourceVersion=0";
const PODS: &str = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&resourceVersion=0";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/till/token";

static LATER: AtomicI64 = AtomicI64::new(0);

fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(LATER.load(Ordering::SeqCst))
}

/// A bed with a pod `till-1` of the account `till`, which may read ConfigMaps and no Secrets, and has.
async fn bed(clock: fn() -> Timestamp) -> (Bed, String) {
    bed_with(move |config| config.clock = clock).await
}

/// The same with another configuration.
async fn bed_with(adjust: impl Fn(&mut Config) + Send + Sync + 'static) -> (Bed, String) {
    let config = ApiConfig {
        authorizer: Authorizer::new(|user, asked| {
            user.name.starts_with("system:node:") || asked.resource != "secrets"
        }),
        ..ApiConfig::default()
    };
    let bed = Bed::with(config, |mut site| {
        site.adjust(adjust);
        site
    })
    .await;
    let cloud = bed.cloud();
    let account = json!({"metadata": {"name": "till"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cloud.post(accounts, &account).await.unwrap().expect(201);
    let pod = json!({
        "metadata": {"name": "till-1"},
        "spec": {
            "nodeName": "n1", "serviceAccountName": "till",
            "containers": [{"name": "c", "image": "i"}],
        },
    });
    let pods = "/api/v1/namespaces/default/pods";
    let pod = cloud.post(pods, &pod).await.unwrap().expect(201);
    for path in [MAPS, PODS, SECRETS] {
        bed.site.node().get(path).await.unwrap().expect(200);
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    (bed, uid)
}

async fn ask(bed: &Bed, uid: &str, audiences: &[&str]) -> Answer {
    ask_for(bed, TOKEN, "till-1", uid, audiences).await
}

async fn ask_for(bed: &Bed, path: &str, pod: &str, uid: &str, audiences: &[&str]) -> Answer {
    let request = json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": 3607,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid},
        },
    });
    bed.site.node().post(path, &request).await.unwrap()
}

fn token(answer: &Value) -> String {
    answer["status"]["token"].as_str().unwrap().to_owned()
}

async fn code(bed: &Bed, token: &str, path: &str) -> u16 {
    bed.site.bearer(token).get(path).await.unwrap().code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_restarts_while_cut_off_gets_its_last_token_again() {
    let (mut bed, uid) = bed(Timestamp::now).await;
    let given = ask(&bed, &uid, &[]).await;
    assert_eq!(given.header("x-yurt-served-from"), "cloud");
    let given = given.expect(201);
    let vault = token(&ask(&bed, &uid, &["vault"]).await.expect(201));
    assert_eq!(code(&bed, &token(&given), MAPS).await, 200);
    bed.cut().await;
    for round in ["cut off", "restarted"] {
        if round == "restarted" {
            bed.restart().await;
            bed.site.sees_the_cloud(false).await;
        }
        // After a restart there are none: without a key to seal them they are not on the disk.
        let has_them = round == "cut off";
        let again = ask(&bed, &uid, &[]).await.expect(201);
        assert_eq!(again == given, has_them, "{round}");
        assert_eq!(code(&bed, &token(&again), MAPS).await, 200, "{round}");
        let again = ask(&bed, &uid, &["vault"]).await.expect(201);
        assert_eq!(token(&again) == vault, has_them, "{round}");
        assert_eq!(code(&bed, &token(&given), MAPS).await, 200, "{round}");
        assert_eq!(code(&bed, &token(&given), SECRETS).await, 403, "{round}");
        assert_eq!(code(&bed, &vault, MAPS).await, 401, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_a_token_that_lives_gets_one_of_the_hubs_own() {
    LATER.store(0, Ordering::SeqCst);
    let (mut bed, uid) = bed(later).await;
    let real = token(&ask(&bed, &uid, &[]).await.expect(201));
    assert_eq!(code(&bed, &real, MAPS).await, 200);
    assert_eq!(code(&bed, &real, SECRETS).await, 403);
    bed.cut().await;
    LATER.store(2 * 3_600, Ordering::SeqCst);
    let answer = ask(&bed, &uid, &[]).await.expect(201);
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["spec"]["expirationSeconds"], 600);
    let own = token(&answer);
    assert_ne!(own, real);
    let watch = format!("{MAP}?watch=1&timeoutSeconds=1");
    for path in [MAPS, &watch, "/api/v1/namespaces/default/configmaps"] {
        assert_eq!(code(&bed, &own, path).await, 200, "{path}");
    }
    assert_eq!(code(&bed, &own, SECRETS).await, 403);
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    assert_eq!(code(&bed, &own, MAPS).await, 200, "after a restart");
    LATER.fetch_add(601, Ordering::SeqCst);
    assert_eq!(code(&bed, &own, MAPS).await, 401, "after its end");
    // One for somebody else opens nothing here.
    let vault = token(&ask(&bed, &uid, &["vault"]).await.expect(201));
    assert_eq!(code(&bed, &vault, MAPS).await, 401);
    assert!(bed.site.metric("yurthub_tokens_minted_total", "").await > 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_gives_no_token_a_longer_life() {
    static WALL: AtomicI64 = AtomicI64::new(0);
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let (mut bed, uid) = bed_with(|config| {
        config.clock = || Timestamp::now() + SignedDuration::from_secs(WALL.load(Ordering::SeqCst));
        config.uptime = || Duration::from_secs(10_000 + PASSED.load(Ordering::SeqCst));
    })
    .await;
    let reader = bed
        .issuer()
        .claims("default", "till", Timestamp::now(), 3_600);
    let reader = bed.issuer().sign(&reader);
    assert_eq!(code(&bed, &reader, MAPS).await, 200);
    bed.cut().await;
    let own = token(&ask(&bed, &uid, &[]).await.expect(201));
    // Two days back, and to the year 2000.
    for wall in [-2 * 86_400, 946_684_800 - Timestamp::now().as_second()] {
        WALL.store(wall, Ordering::SeqCst);
        assert_eq!(
            code(&bed, &own, MAPS).await,
            200,
            "it lives for ten minutes"
        );
    }
    PASSED.fetch_add(720, Ordering::SeqCst);
    assert_eq!(code(&bed, &own, MAPS).await, 401, "twelve minutes later");
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    assert_eq!(code(&bed, &own, MAPS).await, 401, "and after a restart");
    let another = token(&ask(&bed, &uid, &[]).await.expect(201));
    assert_eq!(code(&bed, &another, MAPS).await, 200);
    // What the cloud said counts for thirty days.
    PASSED.fetch_add(31 * 86_400, Ordering::SeqCst);
    assert_eq!(code(&bed, &reader, MAPS).await, 401, "a month later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_hubs_own_never_reaches_the_cloud() {
    let (bed, uid) = bed(Timestamp::now).await;
    let real = token(&ask(&bed, &uid, &["other"]).await.expect(201));
    assert_eq!(code(&bed, &real, MAPS).await, 401);
    let reader =
        bed.issuer().sign(
            &bed.issuer()
                .claims("default", "till", Timestamp::now(), 3_600),
        );
    assert_eq!(code(&bed, &reader, MAPS).await, 200);
    bed.cut().await;
    let own = token(&ask(&bed, &uid, &[]).await.expect(201));
    assert_eq!(code(&bed, &own, MAPS).await, 200);
    bed.mend().await;
    bed.api.forget_requests();
    // What the node has it may go on reading until it has another token; the rest is not asked in its name.
    assert_eq!(code(&bed, &own, MAPS).await, 200);
    let client = bed.site.bearer(&own);
    let body = json!({"metadata": {"name": "b"}});
    for answer in [
        client.post(MAP, &body).await.unwrap(),
        client
            .get("/api/v1/namespaces/default/pods/x/log")
            .await
            .unwrap(),
        client
            .send(Method::DELETE, &format!("{MAP}/a"), &[], "")
            .await
            .unwrap(),
    ] {
        answer.expect_status(401, "Unauthorized");
    }
    let told = bed.api.requests();
    assert!(
        told.iter()
            .all(|one| one.resource != "pods" && one.verb != "create"
                || one.user.starts_with("system:node:")),
        "{told:?}"
    );
    let direct = testbed::client::Client::with_token(&bed.api.endpoint(), &own).unwrap();
    direct.get(MAPS).await.unwrap().expect(401);
    // And the kubelet's next request is the cloud's again.
    let renewed = ask(&bed, &uid, &[]).await;
    assert_eq!(renewed.header("x-yurt-served-from"), "cloud");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pods_that_run_here_under_their_own_account_get_a_token() {
    let (bed, uid) = bed(Timestamp::now).await;
    let elsewhere = json!({
        "metadata": {"name": "far"},
        "spec": {"nodeName": "n2", "serviceAccountName": "till", "containers": [{"name": "c", "image": "i"}]},
    });
    let pods = "/api/v1/namespaces/default/pods";
    let far = bed
        .cloud()
        .post(pods, &elsewhere)
        .await
        .unwrap()
        .expect(201);
    let far = far["metadata"]["uid"].as_str().unwrap();
    // Whoever reads it through the hub leaves it in the store.
    bed.site
        .node()
        .get(&format!("{pods}/far"))
        .await
        .unwrap()
        .expect(200);
    bed.cut().await;
    let boss = "/api/v1/namespaces/default/serviceaccounts/boss/token";
    for (path, pod, uid, expected) in [
        (boss, "till-1", uid.as_str(), 403),
        (TOKEN, "till-1", "another", 403),
        (TOKEN, "far", far, 503),
        (TOKEN, "never", "u", 503),
        (TOKEN, "", "", 503),
        (TOKEN, "till-1", uid.as_str(), 201),
    ] {
        let answer = ask_for(&bed, path, pod, uid, &[]).await;
        assert_eq!(
            answer.code,
            expected,
            "{path} {pod} {uid}: {}",
            answer.text()
        );
    }
    let unbound = json!({"spec": {"audiences": []}});
    let node = bed.site.node();
    node.post(TOKEN, &unbound).await.unwrap().expect(503);
    for garbage in ["", "7", "{\"spec\": 7}"] {
        let answer = node.send(Method::POST, TOKEN, &[], garbage).await.unwrap();
        answer.expect_status(400, "BadRequest");
    }
    // Nobody but the node asks for tokens.
    let pod = bed.issuer().sign(
        &bed.issuer()
            .claims("default", "till", Timestamp::now(), 3_600),
    );
    let asked = bed.site.bearer(&pod).post(TOKEN, &unbound).await.unwrap();
    assert!(matches!(asked.code, 401 | 503), "{}", asked.text());
}
