//! Watches through the hub, against watches of the server: where they begin, what they tell, how they end.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use testbed::{
    client::{Client, Event, Watch},
    link::Cut,
    semantics::place::revision,
};

use crate::{
    checks::{self, Checks, cut, difference},
    reading::warm,
    rows::{METADATA, TABLE, escaped},
    site::{PATIENCE, Site},
    world,
};

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/world/configmaps";

/// What a watch told until it ended.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    code: u16,
    content_type: String,
    refusal: Value,
    /// Without bookmarks.
    events: Vec<Event>,
    bookmarks: usize,
    ends_of_initial_events: usize,
}

/// The beginnings and the ends of watches: online, cut off, and after a power cut of the hub.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn every_watch_begins_and_ends_as_the_servers_does() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    let now = warm(&site).await;
    let questions = questions(now);

    let truth = stories(&site.direct, &questions).await;
    let mut groups = vec![compared("watch online", &site.hub, &questions, &truth).await];
    site.cut(Cut::Refuse, MAPS).await;
    groups.push(compared("watch cut off", &site.hub, &questions, &truth).await);
    site.kill_hub();
    site.start_hub().await;
    groups.push(compared("watch restarted", &site.hub, &questions, &truth).await);
    checks::finish_all(groups);
}

/// The same changes, told by the server and by the hub to every kind of watch.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn every_change_is_told_as_the_server_tells_it() {
    let site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    let now = warm(&site).await;
    let questions = living(now);
    let (direct, hub) = tokio::join!(open(&site.direct, &questions), open(&site.hub, &questions));
    changes(&site.direct, Once::Yes).await;
    let (truth, got) = tokio::join!(
        join_all(direct.into_iter().map(told)),
        join_all(hub.into_iter().map(told))
    );
    let mut checks = Checks::new("changes");
    for (((accept, path), truth), got) in questions.iter().zip(&truth).zip(&got) {
        checks.check(&called(accept, path), same_story(truth, got, path));
    }
    let last = truth[0].events.last().expect("the server told the changes");
    checks.equal(
        "the server told the last change",
        "end",
        last.object["metadata"]["name"].as_str().unwrap_or_default(),
    );
    checks.finish();
}

fn called(accept: &str, path: &str) -> String {
    let form = match accept {
        TABLE => " as Table",
        METADATA => " as metadata",
        _ => "",
    };
    format!("{path}{form}")
}

fn questions(now: u64) -> Vec<(&'static str, String)> {
    let mut questions = Vec::new();
    let mut ask =
        |accept, rest: &str| questions.push((accept, format!("{rest}&watch=1&timeoutSeconds=2")));
    for path in [
        MAPS,
        "/api/v1/configmaps",
        "/api/v1/pods",
        "/api/v1/nodes",
        "/apis/desert.example.com/v1/cacti",
        "/apis/apps/v1/namespaces/world/deployments",
    ] {
        ask(JSON, &format!("{path}?"));
        ask(JSON, &format!("{path}?resourceVersion=0"));
        ask(JSON, &format!("{path}?resourceVersion={now}"));
        ask(JSON, &format!("{path}?resourceVersion=1"));
        ask(JSON, &format!("{path}?resourceVersion=4294967295"));
        ask(
            JSON,
            &format!("{path}?resourceVersion={now}&allowWatchBookmarks=true"),
        );
        ask(
            JSON,
            &format!(
                "{path}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
            ),
        );
        ask(
            JSON,
            &format!(
                "{path}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=0"
            ),
        );
        ask(
            JSON,
            &format!(
                "{path}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion={now}"
            ),
        );
        ask(
            JSON,
            &format!(
                "{path}?sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion={now}"
            ),
        );
        ask(METADATA, &format!("{path}?resourceVersion=0"));
    }
    ask(
        JSON,
        &format!(
            "{MAPS}?labelSelector={}",
            escaped("tier in (web,db),env=prod")
        ),
    );
    ask(
        JSON,
        &format!("{MAPS}?fieldSelector={}", escaped("metadata.name=plain")),
    );
    ask(
        JSON,
        &format!(
            "{MAPS}?fieldSelector={}&resourceVersion=0",
            escaped("metadata.name=absent")
        ),
    );
    ask(JSON, &format!("{MAPS}/plain?resourceVersion={now}"));
    ask(
        JSON,
        &format!(
            "/api/v1/pods?fieldSelector={}",
            escaped("spec.nodeName=edge-1")
        ),
    );
    ask(
        JSON,
        &format!(
            "/apis/desert.example.com/v1/cacti?fieldSelector={}",
            escaped("spec.colour=green")
        ),
    );
    ask(JSON, "/api/v1/namespaces/nowhere/configmaps?");
    ask(
        JSON,
        "/api/v1/namespaces/empty/configmaps?resourceVersion=0",
    );
    ask(
        METADATA,
        &format!(
            "{MAPS}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        ),
    );
    // Refused at once.
    ask(JSON, &format!("{MAPS}?labelSelector={}", escaped("a=b=c")));
    ask(
        JSON,
        &format!("{MAPS}?fieldSelector={}", escaped("data.k=v")),
    );
    ask(JSON, "/api/v1/namespaces/world/nodes?");
    questions
}

fn living(now: u64) -> Vec<(&'static str, String)> {
    let mut questions = vec![(JSON, format!("{MAPS}?resourceVersion={now}"))];
    for text in [
        "tier=web",
        "tier!=web",
        "tier",
        "!tier",
        "tier in (web,db),env=prod",
        "env notin (prod)",
    ] {
        questions.push((
            JSON,
            format!(
                "{MAPS}?resourceVersion={now}&labelSelector={}",
                escaped(text)
            ),
        ));
        questions.push((
            JSON,
            format!("{MAPS}?resourceVersion=0&labelSelector={}", escaped(text)),
        ));
    }
    for text in [
        "metadata.name=moving",
        "metadata.name!=moving",
        "metadata.namespace=world",
    ] {
        questions.push((
            JSON,
            format!(
                "/api/v1/configmaps?resourceVersion={now}&fieldSelector={}",
                escaped(text)
            ),
        ));
    }
    for text in [
        "spec.nodeName=edge-1",
        "status.phase=Running",
        "status.phase!=Running,spec.nodeName=edge-1",
    ] {
        questions.push((
            JSON,
            format!(
                "/api/v1/pods?resourceVersion={now}&fieldSelector={}",
                escaped(text)
            ),
        ));
    }
    for text in ["spec.colour=green", "spec.colour!=green"] {
        questions.push((
            JSON,
            format!(
                "/apis/desert.example.com/v1/cacti?resourceVersion={now}&fieldSelector={}",
                escaped(text)
            ),
        ));
    }
    questions.push((METADATA, format!("{MAPS}?resourceVersion={now}")));
    questions.push((
        METADATA,
        format!("{MAPS}?resourceVersion={now}&labelSelector=tier%3Dweb"),
    ));
    questions.push((JSON, format!("/api/v1/namespaces?resourceVersion={now}")));
    questions.push((
        JSON,
        format!("/api/v1/namespaces/other/configmaps?resourceVersion={now}"),
    ));
    questions.push((
        JSON,
        format!("/apis/desert.example.com/v1/cacti?resourceVersion={now}"),
    ));
    questions
        .iter_mut()
        .for_each(|(_, path)| path.push_str("&watch=1&timeoutSeconds=5"));
    questions
}

/// Whether changes are made that cannot be made a second time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Once {
    Yes,
    No,
}

/// Objects that come, change, enter and leave selections, go, and come again; the last is called `end`.
async fn changes(client: &Client, once: Once) {
    let merge = async |path: &str, body: Value| {
        client
            .patch(path, "merge", &body)
            .await
            .unwrap()
            .expect(200);
    };
    let one = |name: &str| format!("{MAPS}/{name}");
    let make = async |name: &str, labels: Value| {
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": {"n": "1"}});
        world::post(client, MAPS, body).await.unwrap();
    };
    make("moving", json!({})).await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "web", "env": "prod"}}}),
    )
    .await;
    merge(&one("moving"), json!({"data": {"n": "2"}})).await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "db"}}}),
    )
    .await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": null}}}),
    )
    .await;
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "web"}}}),
    )
    .await;
    client
        .delete(&one("moving"), None)
        .await
        .unwrap()
        .expect(200);
    make("moving", json!({"tier": "web"})).await;
    // Nothing changes: nothing is told.
    merge(
        &one("moving"),
        json!({"metadata": {"labels": {"tier": "web"}}}),
    )
    .await;
    merge(
        &one("plain"),
        json!({"metadata": {"annotations": {"a": "é"}, "finalizers": ["example.com/wait"]}}),
    )
    .await;
    client
        .delete(&one("plain"), None)
        .await
        .unwrap()
        .expect(200);
    merge(&one("plain"), json!({"metadata": {"finalizers": null}})).await;
    if once == Once::Yes {
        changes_for_once(client).await;
    }
    make("end", json!({"tier": "web", "env": "prod"})).await;
}

async fn changes_for_once(client: &Client) {
    let merge = async |path: &str, body: Value| {
        client
            .patch(path, "merge", &body)
            .await
            .unwrap()
            .expect(200);
    };
    let path = "/api/v1/namespaces/world/pods/waiting/status";
    merge(path, json!({"status": {"phase": "Running"}})).await;
    let bind =
        json!({"metadata": {"name": "waiting"}, "target": {"kind": "Node", "name": "edge-1"}});
    client
        .post("/api/v1/namespaces/world/pods/waiting/binding", &bind)
        .await
        .unwrap()
        .expect(201);
    merge(path, json!({"status": {"phase": "Failed"}})).await;
    let path = "/apis/desert.example.com/v1/namespaces/world/cacti/cholla";
    merge(path, json!({"spec": {"colour": "green"}})).await;
    merge(path, json!({"spec": {"colour": "brown"}})).await;
    merge(&format!("{path}/status"), json!({"status": {"size": 1.50}})).await;
    client.delete(path, None).await.unwrap().expect(200);
    client
        .delete(
            "/api/v1/namespaces/other/configmaps?labelSelector=env",
            None,
        )
        .await
        .unwrap()
        .expect(200);
}

async fn open(client: &Client, questions: &[(&'static str, String)]) -> Vec<Watch> {
    let open = questions.iter().map(async |(accept, path)| {
        client
            .watch_as(path, accept)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error:?}"))
    });
    join_all(open).await
}

async fn stories(client: &Client, questions: &[(&'static str, String)]) -> Vec<Story> {
    join_all(open(client, questions).await.into_iter().map(told)).await
}

async fn compared(
    group: &'static str,
    hub: &Client,
    questions: &[(&'static str, String)],
    truth: &[Story],
) -> Checks {
    let mut checks = Checks::new(group);
    for (((accept, path), truth), got) in questions
        .iter()
        .zip(truth)
        .zip(stories(hub, questions).await)
    {
        // Cut off, the hub may remember less than the server did: it has to say so.
        let is_past = path.contains("resourceVersion=1&") && group != "watch online";
        let is_too_old = got.code == 200
            && got
                .events
                .iter()
                .all(|event| event.kind == "ERROR" && event.object["code"] == 410);
        checks.check(
            &called(accept, path),
            if is_past && is_too_old {
                Ok(())
            } else {
                same_story(truth, &got, path)
            },
        );
    }
    checks
}

/// Reads a watch to its end.
async fn told(mut watch: Watch) -> Story {
    let content_type = watch
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut story = Story {
        code: watch.code,
        content_type,
        refusal: Value::Null,
        events: Vec::new(),
        bookmarks: 0,
        ends_of_initial_events: 0,
    };
    if watch.code != 200 {
        // A refusal is one line of JSON.
        story.refusal = watch
            .next(Duration::from_secs(5))
            .await
            .ok()
            .flatten()
            .map(|e| e.object)
            .unwrap_or_default();
        return story;
    }
    loop {
        match watch.next(PATIENCE).await {
            Ok(Some(event)) if event.kind == "BOOKMARK" => {
                story.bookmarks += 1;
                if event.object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true" {
                    story.ends_of_initial_events += 1;
                }
            }
            Ok(Some(event)) => story.events.push(event),
            Ok(None) => return story,
            Err(error) => {
                story.events.push(Event {
                    kind: format!("BROKEN {error}"),
                    object: Value::Null,
                });
                return story;
            }
        }
    }
}

fn same_story(truth: &Story, got: &Story, path: &str) -> Result<(), String> {
    if (truth.code, &truth.content_type) != (got.code, &got.content_type) {
        return Err(format!(
            "expected {} {}, got {} {}",
            truth.code, truth.content_type, got.code, got.content_type
        ));
    }
    if let Some(place) = difference(&truth.refusal, &got.refusal, "") {
        return Err(place);
    }
    same_events(&truth.events, &got.events)?;
    if truth.ends_of_initial_events != got.ends_of_initial_events {
        return Err(format!(
            "expected {} ends of the initial events, got {}",
            truth.ends_of_initial_events, got.ends_of_initial_events
        ));
    }
    // One before the end is welcome; none comes unasked.
    let may_come = path.contains("allowWatchBookmarks");
    if (truth.bookmarks > 0 && got.bookmarks == 0) || (got.bookmarks > 0 && !may_come) {
        return Err(format!(
            "expected {} bookmarks, got {}",
            truth.bookmarks, got.bookmarks
        ));
    }
    Ok(())
}

/// Compares what happened, event by event; the state at the beginning comes in any order.
pub(crate) fn same_events(truth: &[Event], got: &[Event]) -> Result<(), String> {
    let short = |events: &[Event]| {
        let told = events.iter().map(|event| {
            format!(
                "{} {} {}",
                event.kind,
                event.object["metadata"]["name"].as_str().unwrap_or("?"),
                event.object["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap_or("?")
            )
        });
        told.collect::<Vec<_>>().join(", ")
    };
    let (truth, got) = (in_order(truth), in_order(got));
    if truth.len() != got.len() {
        return Err(format!(
            "expected {} events [{}]\n         got {} [{}]",
            truth.len(),
            cut(&short(&truth)),
            got.len(),
            cut(&short(&got))
        ));
    }
    for (at, (a, b)) in truth.iter().zip(&got).enumerate() {
        let place = if a.kind == b.kind {
            difference(&settled(&a.object), &settled(&b.object), "")
        } else {
            Some(format!(
                "expected {}, got {}: {}",
                a.kind,
                b.kind,
                cut(&b.object.to_string())
            ))
        };
        if let Some(place) = place {
            return Err(format!(
                "event {at} ({} {}): {place}\n  expected {}\n       got {}",
                a.kind,
                a.object["metadata"]["name"],
                cut(&short(&truth)),
                cut(&short(&got))
            ));
        }
    }
    Ok(())
}

fn in_order(events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    events.sort_by_key(|event| {
        event.object["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    });
    events
}

/// What an error says of numbers differs from one server to the next.
fn settled(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] == "Status" {
        object["message"] = Value::Null;
    }
    object
}

/// Reads events until one about `name`, which is the last; bookmarks are left out.
pub(crate) async fn until(watch: &mut Watch, name: &str) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = watch
            .next(PATIENCE)
            .await
            .unwrap_or_else(|error| panic!("waiting for {name}: {error}, after {events:?}"));
        let event =
            event.unwrap_or_else(|| panic!("the watch ended before {name}, after {events:?}"));
        if event.kind == "BOOKMARK" {
            continue;
        }
        let is_last = event.object["metadata"]["name"] == name;
        events.push(event);
        if is_last {
            return events;
        }
    }
}

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
            same_events(&truth, &got),
        );
        let selected = until(&mut selecting, "end").await;
        checks.check(
            &format!("{round}: the held watch with a selector"),
            same_events(&truth_selected, &selected),
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
    checks.check("killed: the resumed watch", same_events(&truth, &got));
    checks.finish();
}
