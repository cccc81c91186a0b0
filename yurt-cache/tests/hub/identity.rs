//! Who may come in, and what each may see.

use std::collections::BTreeMap;

use serde_json::json;
use testbed::api::{ApiConfig, Authorizer, User};
use testbed::client::Client;

use super::site::{Bed, eventually, names};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";

/// A bed where the node and `reader` may do everything, `blind` may nothing and `guest` may only get.
async fn bed() -> Bed {
    let user = |name: &str| (format!("{name}-token"), User::new(name, &[]));
    let config = ApiConfig {
        tokens: BTreeMap::from(["reader", "blind", "guest"].map(user)),
        authorizer: Authorizer::new(|user, asked| match user.name.as_str() {
            "blind" => asked.resource.ends_with("accessreviews"),
            "guest" => asked.resource.ends_with("accessreviews") || asked.verb == "get",
            _ => true,
        }),
        ..ApiConfig::default()
    };
    let bed = Bed::with(config, |site| site).await;
    let body = json!({"metadata": {"name": "a"}});
    bed.cloud().post(MAPS, &body).await.unwrap().expect(201);
    bed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_or_is_somebody_else_is_refused() {
    let bed = bed().await;
    let strangers = [
        Client::anonymous(&bed.site.endpoint()).unwrap(),
        bed.site.certified("system:node:n2", &["system:nodes"]),
        bed.site.certified("system:node:n1", &["somebody"]),
        bed.site.certified("admin", &["system:masters"]),
    ];
    for stranger in &strangers {
        for path in [FROM_MIRROR, MAPS, "/version/x", "/api"] {
            let answer = stranger.get(path).await.unwrap();
            answer.expect_status(401, "Unauthorized");
        }
    }
    assert!(bed.site.metric("yurthub_mirrors", "").await < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_cloud_has_not_seen_here_is_refused_while_cut_off() {
    let bed = bed().await;
    let reader = bed.site.bearer("reader-token");
    reader.get(FROM_MIRROR).await.unwrap().expect(200);
    reader.get("/version").await.unwrap().expect(200);
    bed.cut().await;
    assert_eq!(
        names(&reader.get(FROM_MIRROR).await.unwrap().expect(200)),
        ["a"]
    );
    reader.get("/version").await.unwrap().expect(200);
    for token in ["guest-token", "garbage"] {
        let stranger = bed.site.bearer(token);
        for path in [FROM_MIRROR, MAPS, "/version", &format!("{MAPS}/a")] {
            stranger
                .get(path)
                .await
                .unwrap()
                .expect_status(401, "Unauthorized");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_another_filled_shows_nothing_to_who_may_not_see_it() {
    let bed = bed().await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    let watch = format!("{MAPS}?watch=1");
    let one = format!("{MAPS}/a?resourceVersion=0");
    let blind = bed.site.bearer("blind-token");
    for path in [FROM_MIRROR, &one, MAPS, &watch] {
        blind
            .get(path)
            .await
            .unwrap()
            .expect_status(403, "Forbidden");
    }
    let guest = bed.site.bearer("guest-token");
    for path in [FROM_MIRROR, MAPS, &watch] {
        guest
            .get(path)
            .await
            .unwrap()
            .expect_status(403, "Forbidden");
    }
    guest.get(&one).await.unwrap().expect(200);
    bed.cut().await;
    for path in [FROM_MIRROR, &one, MAPS, &watch] {
        blind
            .get(path)
            .await
            .unwrap()
            .expect_status(403, "Forbidden");
    }
    for path in [FROM_MIRROR, MAPS, &watch] {
        guest
            .get(path)
            .await
            .unwrap()
            .expect_status(403, "Forbidden");
    }
    guest.get(&one).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_list_and_not_watch_does_not_watch_the_mirror() {
    let config = ApiConfig {
        tokens: BTreeMap::from([("t".to_owned(), User::new("lister", &[]))]),
        authorizer: Authorizer::new(|user, asked| user.name != "lister" || asked.verb != "watch"),
        ..ApiConfig::default()
    };
    let bed = Bed::with(config, |site| site).await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    let lister = bed.site.bearer("t");
    lister.get(FROM_MIRROR).await.unwrap().expect(200);
    let watch = format!("{MAPS}?watch=1&timeoutSeconds=1");
    for _ in 0..2 {
        lister
            .get(&watch)
            .await
            .unwrap()
            .expect_status(403, "Forbidden");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_see_nothing_starts_no_mirror() {
    let bed = bed().await;
    for token in ["garbage", "blind-token"] {
        let stranger = bed.site.bearer(token);
        for place in ["default", "kube-system", "kube-public"] {
            for query in ["?resourceVersion=0", "?limit=500", "?watch=1", ""] {
                let path = format!("/api/v1/namespaces/{place}/configmaps{query}");
                let answer = stranger.get(&path).await.unwrap();
                assert!(matches!(answer.code, 401 | 403), "{answer:?}");
            }
        }
    }
    assert!(bed.site.metric("yurthub_mirrors", "").await < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_acts_for_another_is_answered_by_the_cloud_alone() {
    let bed = bed().await;
    let node = bed.site.node();
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    let as_blind = [("impersonate-user", "blind")];
    let get = |path| node.send(http::Method::GET, path, &as_blind, "");
    let one = format!("{MAPS}/a?resourceVersion=0");
    for path in [FROM_MIRROR, &one, MAPS] {
        let answer = get(path).await.unwrap();
        assert_eq!(answer.header("x-yurt-served-from"), "cloud", "{path}");
    }
    bed.cut().await;
    for path in [FROM_MIRROR, &one, MAPS] {
        get(path)
            .await
            .unwrap()
            .expect_status(503, "ServiceUnavailable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_asks_in_vain_leaves_no_trace() {
    let bed = bed().await;
    let stranger = bed.site.bearer("garbage");
    let reader = bed.site.bearer("reader-token");
    for number in 0..30 {
        for client in [&stranger, &reader] {
            let path = format!("/apis/g{number}.example.com/v1/things/t");
            let answer = client.get(&path).await.unwrap();
            assert!(matches!(answer.code, 401 | 404), "{answer:?}");
        }
    }
    let (_, metrics) = bed.site.page("/metrics").await;
    assert!(!metrics.contains("g7.example.com"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_is_remembered_over_a_restart_while_cut_off() {
    let mut bed = bed().await;
    let reader = bed.site.bearer("reader-token");
    reader.get(FROM_MIRROR).await.unwrap().expect(200);
    let watch = format!("{MAPS}?watch=1&timeoutSeconds=1");
    reader.get(&watch).await.unwrap().expect(200);
    bed.site
        .bearer("blind-token")
        .get(FROM_MIRROR)
        .await
        .unwrap()
        .expect(403);
    drop(reader);
    bed.cut().await;
    bed.restart().await;
    let (reader, blind) = (
        bed.site.bearer("reader-token"),
        bed.site.bearer("blind-token"),
    );
    eventually("the hub knows that it is cut off", async || {
        reader.get(FROM_MIRROR).await.unwrap().code == 200
    })
    .await;
    reader.get(&watch).await.unwrap().expect(200);
    blind
        .get(FROM_MIRROR)
        .await
        .unwrap()
        .expect_status(403, "Forbidden");
}
