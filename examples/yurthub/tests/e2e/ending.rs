//! The end: of a history, of a page's token, of the program.

use std::time::Duration;

use serde_json::json;
use testbed::{
    client::Event,
    cluster::ClusterConfig,
    link::Cut,
    semantics::place::{names, revision},
};
use tokio::time::{Instant, sleep};

use crate::{
    checks::{Checks, difference},
    reading::{hold, warm},
    site::{PATIENCE, Site},
    story::until,
    world,
};

const SECRETS: &str = "/api/v1/namespaces/world/secrets";

/// etcd forgets the past while the link is cut: the hub cannot resume, and tells the difference instead.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_forgotten_history_is_told_as_a_difference() {
    // Without its own memory of secrets the API server has to ask etcd, which forgets every other second.
    let arguments = [
        "--watch-cache-sizes=secrets#0",
        "--etcd-compaction-interval=1s",
    ];
    let config = ClusterConfig {
        arguments: arguments.map(str::to_owned).to_vec(),
        ..ClusterConfig::default()
    };
    let site = Site::start_with(config).await;
    world::make(&site.direct).await.unwrap();
    let now = hold(&site.hub, "/api/v1/secrets").await;
    let mut held = site
        .hub
        .watch(&format!("{SECRETS}?watch=1&resourceVersion={now}"))
        .await
        .unwrap();
    let mut checks = Checks::new("forgotten");
    let before = site.direct.get(SECRETS).await.unwrap().expect(200);
    site.cut(Cut::Refuse, SECRETS).await;
    // Changed twice, made and deleted, deleted, deleted and made again, new.
    let one = |name: &str| format!("{SECRETS}/{name}");
    for value in ["1", "2"] {
        let patch = json!({"stringData": {"password": value}});
        site.direct
            .patch(&one("basic"), "merge", &patch)
            .await
            .unwrap()
            .expect(200);
    }
    for name in ["passing", "fresh"] {
        world::post(&site.direct, SECRETS, json!({"metadata": {"name": name}}))
            .await
            .unwrap();
    }
    site.direct
        .delete(&one("passing"), None)
        .await
        .unwrap()
        .expect(200);
    site.direct
        .delete(&one("opaque"), None)
        .await
        .unwrap()
        .expect(200);
    is_forgotten(&site, now).await;
    site.link.mend().await.unwrap();
    let start = Instant::now();
    let mut told: Vec<Event> = Vec::new();
    while told.len() < 3 {
        let event = held
            .next(PATIENCE)
            .await
            .unwrap()
            .expect("the watch goes on");
        if event.kind != "BOOKMARK" {
            told.push(event);
        }
    }
    println!(
        "forgotten: the difference is told {:?} after the link is back",
        start.elapsed()
    );
    world::post(&site.direct, SECRETS, json!({"metadata": {"name": "end"}}))
        .await
        .unwrap();
    told.extend(until(&mut held, "end").await);
    let after = site.direct.get(SECRETS).await.unwrap().expect(200);
    let mut short: Vec<String> = told
        .iter()
        .map(|event| {
            format!(
                "{} {}",
                event.kind,
                event.object["metadata"]["name"].as_str().unwrap_or("?")
            )
        })
        .collect();
    checks.equal(
        "the last is last",
        Some("ADDED end".to_owned()),
        short.pop(),
    );
    short.sort();
    checks.equal(
        "the difference, once each",
        vec![
            "ADDED fresh".to_owned(),
            "DELETED opaque".to_owned(),
            "MODIFIED basic".to_owned(),
        ],
        short,
    );
    let find = |list: &serde_json::Value, name: &str| {
        list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|item| item["metadata"]["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    for event in &told {
        let name = event.object["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        let (list, is_deleted) = if event.kind == "DELETED" {
            (&before, true)
        } else {
            (&after, false)
        };
        let (mut wanted, mut got) = (find(list, name), event.object.clone());
        for object in [&mut wanted, &mut got] {
            let fields = object.as_object_mut().expect("an object");
            fields.remove("kind");
            fields.remove("apiVersion");
            if is_deleted {
                object["metadata"]["resourceVersion"] = json!("…");
            }
        }
        let place = difference(&wanted, &got, "");
        checks.that(
            &format!("{} {name} is whole", event.kind),
            place.is_none(),
            || place.unwrap_or_default(),
        );
        checks.that(
            &format!("{} {name} is newer", event.kind),
            revision(&event.object) > now,
            || format!("{} <= {now}", revision(&event.object)),
        );
    }
    let revisions: Vec<u64> = told.iter().map(|event| revision(&event.object)).collect();
    checks.that("revisions rise", revisions.is_sorted(), || {
        format!("{revisions:?}")
    });
    let list = site
        .hub
        .get(&format!("{SECRETS}?resourceVersion=0"))
        .await
        .unwrap()
        .expect(200);
    checks.equal("the list is the server's", names(&after), names(&list));
    // Resuming from the past that the hub itself knows goes on; from before that it is honest.
    let mut old = site
        .hub
        .watch(&format!("{SECRETS}?watch=1&resourceVersion=1"))
        .await
        .unwrap();
    let event = old.next(PATIENCE).await.unwrap().expect("an answer");
    checks.equal(
        "from too long ago",
        ("ERROR", 410),
        (
            event.kind.as_str(),
            event.object["code"].as_i64().unwrap_or(0),
        ),
    );
    checks.finish();
}

/// Waits until the API server cannot tell the past any more.
async fn is_forgotten(site: &Site, revision: u64) {
    let start = Instant::now();
    loop {
        let path = format!(
            "/api/v1/secrets?resourceVersion={revision}&resourceVersionMatch=Exact&limit=1"
        );
        if site.direct.get(&path).await.unwrap().code == 410 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "etcd does not forget");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Pages through the hub are one list, online and cut off; a page of another time is not passed off as one.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn pages_are_one_list_on_both_sides_of_a_cut() {
    let site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    world::make_more(&site.direct).await;
    warm(&site).await;
    let mut checks = Checks::new("pages");
    let maps = "/api/v1/namespaces/world/configmaps";
    let all = site.direct.get(maps).await.unwrap().expect(200);
    let wanted: Vec<String> = names(&all).into_iter().map(str::to_owned).collect();
    checks.equal("online", Ok(wanted.clone()), pages(&site, maps, 4).await);
    let first = site
        .hub
        .get(&format!("{maps}?limit=4"))
        .await
        .unwrap()
        .expect(200);
    site.cut(Cut::Refuse, maps).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let next = site
        .hub
        .get(&format!("{maps}?limit=4&continue={token}"))
        .await
        .unwrap();
    // It goes on where the node's copy still is what the page was of.
    let is_page = next.code == 200 && names(&next.json()) == wanted_after(&all, 4);
    checks.that(
        "the server's token cut off",
        is_page || ([410, 503].contains(&next.code) && next.json()["kind"] == "Status"),
        || next.text(),
    );
    checks.equal("cut off", Ok(wanted.clone()), pages(&site, maps, 4).await);
    let own = site
        .hub
        .get(&format!("{maps}?limit=4"))
        .await
        .unwrap()
        .expect(200);
    checks.equal(
        "cut off, one at a time",
        Ok(wanted),
        pages(&site, maps, 1).await,
    );
    site.mend().await;
    if let Some(token) = own["metadata"]["continue"].as_str() {
        let next = site
            .hub
            .get(&format!("{maps}?limit=4&continue={token}"))
            .await
            .unwrap();
        let is_page = next.code == 200 && names(&next.json()) == wanted_after(&all, 4);
        checks.that("the hub's token, back", is_page || next.code == 410, || {
            next.text()
        });
    }
    checks.finish();
}

fn wanted_after(all: &serde_json::Value, first: usize) -> Vec<&str> {
    names(all).into_iter().skip(first).take(4).collect()
}

async fn pages(site: &Site, path: &str, limit: usize) -> Result<Vec<String>, String> {
    let (mut found, mut token, mut at) = (Vec::new(), String::new(), None);
    loop {
        let answer = site
            .hub
            .get(&format!("{path}?limit={limit}{token}"))
            .await
            .unwrap();
        if answer.code != 200 {
            return Err(answer.text());
        }
        let list = answer.json();
        let revision = list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if *at.get_or_insert(revision.clone()) != revision {
            return Err(format!("a page at {revision} after one at {at:?}"));
        }
        found.extend(names(&list).into_iter().map(str::to_owned));
        match list["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = format!("&continue={next}"),
            _ => return Ok(found),
        }
    }
}

/// SIGTERM ends the program in time and with 0, whoever is connected; the next start is as after a power cut.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn sigterm_ends_the_program_in_order() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    let now = warm(&site).await;
    let mut checks = Checks::new("sigterm");
    let mut watch = site
        .hub
        .watch(&format!("{SECRETS}?watch=1&resourceVersion={now}"))
        .await
        .unwrap();
    let start = Instant::now();
    let status = site.terminate_hub().await;
    checks.equal("the exit code", Some(0), status);
    checks.that("in time", start.elapsed() < Duration::from_secs(12), || {
        format!("{:?}", start.elapsed())
    });
    println!("sigterm: ended after {:?}", start.elapsed());
    let end = watch.next(PATIENCE).await;
    checks.that("the watch ends", matches!(end, Ok(None)), || {
        format!("{end:?}")
    });
    site.link.cut(Cut::Refuse).await;
    site.start_hub().await;
    let list = site.hub.get(SECRETS).await.unwrap().expect(200);
    checks.equal(
        "what was known is known",
        vec!["basic", "opaque"],
        names(&list),
    );
    let status = site.terminate_hub().await;
    checks.equal("the exit code cut off", Some(0), status);
    checks.finish();
}

/// A path that no server would understand breaks nothing for others.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn a_malformed_path_costs_nobody_else_anything() {
    let site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    warm(&site).await;
    let mut checks = Checks::new("malformed");
    let accepted = site.link.accepted();
    for path in [
        "/api/v1/namespaces/world/configmaps/%zz",
        "/api/v1/namespaces/world/configmaps/%",
        "/%",
        "/api/v1/configmaps?labelSelector=%zz",
        "/api/v1/configmaps?%",
    ] {
        let answer = site.hub.get(path).await;
        let code = answer.as_ref().map_or(0, |answer| answer.code);
        checks.that(
            path,
            (400..=499).contains(&code) || path.contains('?'),
            || format!("{answer:?}"),
        );
        let next = site
            .hub
            .get("/api/v1/namespaces/world/configmaps/plain?fieldManager=x")
            .await
            .unwrap();
        checks.equal(
            "the next is forwarded",
            (200, ""),
            (next.code, next.header("warning")),
        );
    }
    checks.equal("connections to the cloud", accepted, site.link.accepted());
    checks.that(
        "the hub did not think that the link broke",
        !site.log().contains("the link broke"),
        || "it did".to_owned(),
    );
    checks.finish();
}
