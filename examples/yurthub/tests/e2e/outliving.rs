//! Watches that are held through a cut, and resumed after the end of the hub.

use std::time::Duration;

use serde_json::json;
use testbed::{link::Cut, semantics::place::revision};

use crate::{
    changing::{Once, changes},
    checks::Checks,
    reading::warm,
    site::Site,
    story::{same_events, until},
    world,
};

const MAPS: &str = "/api/v1/namespaces/world/configmaps";

/// A watch that is held through a cut tells what happened meanwhile, once each, as the server tells it.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_watch_outlives_the_cut_and_the_hub() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    let mut checks = Checks::new("outlives");
    for (round, how) in [("refused", Cut::Refuse), ("silent", Cut::Silent)] {
        site.direct
            .post(MAPS, &json!({"metadata": {"name": "plain"}}))
            .await
            .unwrap();
        let now = warm(&site).await;
        let path = format!("{MAPS}?watch=1&resourceVersion={now}&allowWatchBookmarks=true");
        let (mut direct, mut held) = (
            site.direct.watch(&path).await.unwrap(),
            site.hub.watch(&path).await.unwrap(),
        );
        let from_zero = format!("{MAPS}?watch=1&labelSelector=tier%3Dweb");
        let mut selecting = site.hub.watch(&from_zero).await.unwrap();
        let mut selecting_direct = site.direct.watch(&from_zero).await.unwrap();
        let (answer, took) = site.cut(how, MAPS).await;
        checks.equal(&format!("{round}: a list is answered"), 200, answer.code);
        let bound = if how == Cut::Refuse { 2 } else { 16 };
        println!("{how:?}: cut until the first answer {took:?}");
        checks.that(
            &format!("{round}: in time"),
            took < Duration::from_secs(bound),
            || format!("{took:?}"),
        );
        changes(&site.direct, Once::No).await;
        let truth = until(&mut direct, "end").await;
        let truth_selected = until(&mut selecting_direct, "end").await;
        site.link.mend().await.unwrap();
        let mended = tokio::time::Instant::now();
        let got = until(&mut held, "end").await;
        let took = mended.elapsed();
        println!("{how:?}: link back until the events of the meantime {took:?}");
        checks.that(
            &format!("{round}: back in time"),
            took < Duration::from_secs(4),
            || format!("{took:?}"),
        );
        checks.check(
            &format!("{round}: the held watch"),
            same_events(&truth, &got, now),
        );
        let selected = until(&mut selecting, "end").await;
        checks.check(
            &format!("{round}: the held watch with a selector"),
            same_events(&truth_selected, &selected, now),
        );
        for name in ["end", "moving"] {
            site.direct
                .delete(&format!("{MAPS}/{name}"), None)
                .await
                .unwrap()
                .expect(200);
        }
    }
    // Over the end of the hub: the client resumes from what it saw last.
    site.direct
        .post(MAPS, &json!({"metadata": {"name": "plain"}}))
        .await
        .unwrap();
    let now = warm(&site).await;
    let mut direct = site
        .direct
        .watch(&format!("{MAPS}?watch=1&resourceVersion={now}"))
        .await
        .unwrap();
    let mut held = site
        .hub
        .watch(&format!("{MAPS}?watch=1&resourceVersion={now}"))
        .await
        .unwrap();
    world::post(&site.direct, MAPS, json!({"metadata": {"name": "before"}}))
        .await
        .unwrap();
    let mut got = until(&mut held, "before").await;
    let seen = revision(&got.last().expect("one event").object);
    site.cut(Cut::Refuse, MAPS).await;
    site.kill_hub();
    drop(held);
    world::make_more(&site.direct).await;
    site.start_hub().await;
    let mut resumed = site
        .hub
        .watch(&format!(
            "{MAPS}?watch=1&resourceVersion={seen}&allowWatchBookmarks=true"
        ))
        .await
        .unwrap();
    changes(&site.direct, Once::No).await;
    site.link.mend().await.unwrap();
    let truth = until(&mut direct, "end").await;
    got.extend(until(&mut resumed, "end").await);
    checks.check("killed: the resumed watch", same_events(&truth, &got, now));
    checks.finish();
}
