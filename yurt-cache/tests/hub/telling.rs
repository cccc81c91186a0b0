//! Events that waited for the cloud, told to a cloud that does not take all of them.

use serde_json::json;
use testbed::link::{Cut, Link};
use testbed::pki::Pki;

use std::sync::Arc;

use super::cloud::{Asked, Cloud, Say};
use super::site::{Site, eventually};

const EVENTS: &str = "/api/v1/namespaces/default/events";

/// A site that is cut off from a cloud, with these events in its outbox: name and count.
async fn waiting(
    answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    events: &[(&str, u32)],
) -> (Cloud, Link, Site) {
    let pki = Arc::new(Pki::new());
    let cloud = Cloud::start(&pki, answer).await;
    let link = Link::start(cloud.addr).unwrap();
    let mut site = Site::new(pki, vec![link.addr()]);
    site.start();
    site.sees_the_cloud(true).await;
    link.cut(Cut::Refuse).await;
    site.sees_the_cloud(false).await;
    for (name, count) in events {
        let event = json!({
            "kind": "Event", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default"},
            "reason": "Started", "count": count,
        });
        let posted = site.node().post(EVENTS, &event).await.unwrap();
        posted.expect(201);
    }
    (cloud, link, site)
}

async fn delivered(site: &Site, count: f64) {
    eventually("the cloud has been told", async || {
        site.metric("yurthub_events_delivered_total", "").await > count - 0.5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_cloud_cannot_take_holds_up_no_other() {
    let cannot = |asked: &Asked| {
        let text = String::from_utf8_lossy(&asked.body).into_owned();
        match (asked.path.as_str(), text.contains("odd")) {
            (EVENTS, true) => Say::json(500, r#"{"kind":"Status","code":500}"#),
            (EVENTS, false) => Say::json(201, text),
            _ => Say::json(404, "{}"),
        }
    };
    let (_cloud, link, site) = waiting(cannot, &[("odd", 1), ("a", 1), ("b", 1)]).await;
    link.mend().await.unwrap();
    delivered(&site, 2.0).await;
    assert_eq!(site.metric("yurthub_events_queued", "").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_cloud_has_is_replaced_by_a_later_one_only() {
    let has_it = |asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", EVENTS) => Say::json(409, r#"{"kind":"Status","code":409}"#),
        ("GET", _) if asked.path.starts_with(EVENTS) => {
            Say::json(200, r#"{"kind":"Event","apiVersion":"v1","count":3}"#)
        }
        ("PUT", _) => Say::json(200, asked.body.clone()),
        _ => Say::json(404, "{}"),
    };
    let events = [("older", 2), ("unheard", 3), ("newer", 4)];
    let (cloud, link, site) = waiting(has_it, &events).await;
    link.mend().await.unwrap();
    delivered(&site, 3.0).await;
    let put: Vec<String> = cloud
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "PUT")
        .map(|asked| asked.path)
        .collect();
    assert_eq!(put, [format!("{EVENTS}/newer")]);
}
