//! Watches through the hub, against watches of the server: where they begin, what they tell, how they end.

use futures_util::future::join_all;
use testbed::{
    client::{Client, Watch},
    link::Cut,
};

use crate::{
    changing::{Once, changes},
    checks::{self, Checks},
    reading::warm,
    rows::{METADATA, TABLE, escaped},
    site::Site,
    story::{Story, same_story, told},
    world,
};

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/world/configmaps";

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
        checks.check(&called(accept, path), same_story(truth, got, path, now));
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
        // Not from a revision of the future: there the server is silent, and the hub sends to list again.
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
                same_story(truth, &got, path, u64::MAX)
            },
        );
    }
    checks
}
