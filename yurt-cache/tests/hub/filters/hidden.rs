//! Objects that a filter hides: a client hears of their end if it knows of their beginning.

use serde_json::{Value, json};

use super::super::site::{MOMENT, SOON, events, names, revision};
use super::{SERVICES, account, adjusted, bed, patch, put, service};

const DISCARD: &str = "svc.openyurt.io/discard";

fn discarded(is: bool) -> Value {
    json!({"metadata": {"annotations": {DISCARD: is.to_string()}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_object_is_in_no_list_and_no_read() {
    let bed = bed().await;
    put(
        &bed,
        SERVICES,
        &service("a", "LoadBalancer", json!({DISCARD: "true"})),
    )
    .await;
    put(&bed, SERVICES, &service("b", "LoadBalancer", json!({}))).await;
    put(
        &bed,
        SERVICES,
        &service("c", "LoadBalancer", json!({DISCARD: "true"})),
    )
    .await;
    put(&bed, SERVICES, &service("d", "LoadBalancer", json!({}))).await;
    let proxy = account(&bed, "kube-proxy").await;
    for query in ["", "?resourceVersion=0"] {
        let list = proxy
            .get(&format!("{SERVICES}{query}"))
            .await
            .unwrap()
            .expect(200);
        assert_eq!(names(&list), ["b", "d"]);
    }
    let page = proxy
        .get(&format!("{SERVICES}?limit=1"))
        .await
        .unwrap()
        .expect(200);
    assert_eq!(names(&page), ["b"]);
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let path = format!("{SERVICES}?limit=1&continue={token}");
    assert_eq!(names(&proxy.get(&path).await.unwrap().expect(200)), ["d"]);
    let one = proxy.get(&format!("{SERVICES}/a")).await.unwrap();
    one.expect_status(404, "NotFound");
    let all = bed.site.node().get(SERVICES).await.unwrap().expect(200);
    assert_eq!(names(&all), ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_once_that_an_object_became_hidden_and_once_that_it_is_back() {
    let bed = bed().await;
    put(&bed, SERVICES, &service("a", "LoadBalancer", json!({}))).await;
    let path = format!("{SERVICES}/a");
    let proxy = account(&bed, "kube-proxy").await;
    let then = revision(&proxy.get(SERVICES).await.unwrap().expect(200));
    let mut watch = proxy
        .watch(&format!("{SERVICES}?watch=1&resourceVersion={then}"))
        .await
        .unwrap();
    let hidden = patch(&bed, &path, &discarded(true)).await;
    patch(&bed, &path, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    let back = patch(&bed, &path, &discarded(false)).await;
    patch(&bed, &path, &json!({"metadata": {"labels": {"a": "c"}}})).await;
    for (kind, at) in [
        ("DELETED", Some(hidden)),
        ("ADDED", Some(back)),
        ("MODIFIED", None),
    ] {
        let event = watch.next(SOON).await.unwrap().unwrap();
        assert_eq!(event.kind, kind);
        assert!(
            at.is_none_or(|at| revision(&event.object) == at),
            "{}",
            event.object
        );
        assert_eq!(
            event.object["spec"]["clusterIP"], "10.96.0.7",
            "what kube-proxy undoes"
        );
    }
    patch(&bed, &path, &discarded(true)).await;
    bed.cloud().delete(&path, None).await.unwrap().expect(200);
    put(
        &bed,
        SERVICES,
        &service("b", "LoadBalancer", json!({DISCARD: "true"})),
    )
    .await;
    bed.cloud()
        .delete(&format!("{SERVICES}/b"), None)
        .await
        .unwrap()
        .expect(200);
    assert_eq!(events(&mut watch, 1).await, ["DELETED a"]);
    assert!(
        watch.is_silent(MOMENT).await.unwrap(),
        "of what is hidden nothing is heard"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_resumes_hears_what_can_be_known_and_else_has_to_look_again() {
    // An address for pods that is another after a restart would be news to everybody.
    let mut bed = adjusted(|config| config.pod_address = None).await;
    for name in ["a", "b"] {
        put(
            &bed,
            SERVICES,
            &service(name, "LoadBalancer", json!({DISCARD: "true"})),
        )
        .await;
    }
    let list = account(&bed, "kube-proxy").await.get(SERVICES).await;
    let from = format!(
        "{SERVICES}?watch=1&resourceVersion={}",
        revision(&list.unwrap().expect(200))
    );
    bed.site.is_live("v1/services").await;
    bed.cloud()
        .delete(&format!("{SERVICES}/a"), None)
        .await
        .unwrap()
        .expect(200);
    put(&bed, SERVICES, &service("c", "LoadBalancer", json!({}))).await;
    for is_restarted in [false, true] {
        if is_restarted {
            bed.restart().await;
            bed.site.sees_the_cloud(true).await;
            bed.site.is_live("v1/services").await;
        }
        // The node sees everything, and when it has, the mirror has too.
        let (node, proxy) = (bed.site.node(), account(&bed, "kube-proxy").await);
        let mut all = node.watch(&from).await.unwrap();
        assert_eq!(events(&mut all, 2).await, ["DELETED a", "ADDED c"]);
        let mut watch = proxy.watch(&from).await.unwrap();
        assert_eq!(events(&mut watch, 1).await, ["ADDED c"]);
        assert!(watch.is_silent(MOMENT).await.unwrap());
        patch(&bed, &format!("{SERVICES}/c"), &discarded(true)).await;
        assert_eq!(events(&mut watch, 1).await, ["DELETED c"]);
        patch(&bed, &format!("{SERVICES}/c"), &discarded(false)).await;
        assert_eq!(events(&mut watch, 1).await, ["ADDED c"]);
        bed.cloud()
            .delete(&format!("{SERVICES}/c"), None)
            .await
            .unwrap()
            .expect(200);
        put(&bed, SERVICES, &service("c", "LoadBalancer", json!({}))).await;
        assert_eq!(events(&mut watch, 2).await, ["DELETED c", "ADDED c"]);
    }
    let (node, proxy) = (bed.site.node(), account(&bed, "kube-proxy").await);
    let mut all = node.watch(&from).await.unwrap();
    patch(
        &bed,
        &format!("{SERVICES}/b"),
        &json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await;
    while events(&mut all, 1).await != ["MODIFIED b"] {}
    let mut watch = proxy.watch(&from).await.unwrap();
    let last = loop {
        let event = watch
            .next(SOON)
            .await
            .unwrap()
            .expect("the last word comes");
        assert!(event.object["metadata"]["name"] != "b", "{}", event.object);
        if event.kind == "ERROR" {
            break event.object;
        }
    };
    assert_eq!(
        (last["code"].as_u64(), last["reason"].as_str()),
        (Some(410), Some("Expired"))
    );
    assert!(watch.next(SOON).await.unwrap().is_none());
}
