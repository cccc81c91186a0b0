//! The moment of the cut, and of its end: what is under way then, and how long it takes to know.

use std::time::Duration;

use futures_util::future::join_all;
use testbed::{client::Client, link::Cut};
use tokio::time::{Instant, timeout};

use crate::{
    checks::{Checks, cut},
    reading::warm,
    site::{PATIENCE, Site},
    world,
};

const PATHS: &[&str] = &[
    "/api/v1/namespaces/world/configmaps",
    "/api/v1/configmaps",
    "/api/v1/namespaces/world/configmaps/plain",
    "/api/v1/pods?resourceVersion=0",
    "/apis/desert.example.com/v1/cacti",
    "/api/v1/namespaces/world/secrets/absent",
    "/api",
];

/// Reads that nobody has asked for before: they may be refused, but in time.
const NEW: &[&str] = &[
    "/api/v1/namespaces/new-{n}/configmaps",
    "/api/v1/namespaces/new-{n}/secrets?resourceVersion=0",
    "/api/v1/namespaces/new-{n}/pods/absent",
    "/api/v1/namespaces/new-{n}/services?watch=1&timeoutSeconds=1",
    "/apis/new-{n}.example.com/v1",
];

/// Reads that are under way when the link is cut are answered, in time and rightly; so are those that begin then.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn reads_under_way_are_answered_when_the_link_is_cut() {
    let site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    warm(&site).await;
    let known: Vec<String> = PATHS.iter().map(ToString::to_string).collect();
    let truth = answers(&site.hub, &known).await;
    let mut checks = Checks::new("under way");
    for round in 0..8_u32 {
        let how = if round % 8 == 7 {
            Cut::Silent
        } else {
            Cut::Refuse
        };
        let limit = if how == Cut::Silent { 16 } else { 2 };
        let new = |n: u32| {
            NEW.iter()
                .map(move |path| path.replace("{n}", &n.to_string()))
        };
        let paths: Vec<String> = known.iter().cloned().chain(new(round * 2)).collect();
        let first = answers(&site.hub, &paths);
        let cutting = async {
            // Another instant of the requests' lives each time.
            for _ in 0..round * 9 {
                tokio::task::yield_now().await;
            }
            site.link.cut(how).await;
        };
        let start = Instant::now();
        let (first, ()) = tokio::join!(first, cutting);
        let paths: Vec<String> = known.iter().cloned().chain(new(round * 2 + 1)).collect();
        let second = answers(&site.hub, &paths).await;
        for (when, got) in [("under way", &first), ("after", &second)] {
            for ((path, truth), (got, took)) in PATHS.iter().zip(&truth).zip(got) {
                let name = format!("{how:?} {round} {when}: {path}");
                let code = truth.0.as_ref().map(|answer| answer.0);
                let is_right = matches!((code, got), (Ok(a), Ok((b, _))) if a == *b);
                checks.that(
                    &name,
                    is_right && *took < Duration::from_secs(limit),
                    || {
                        let text = got.as_ref().map_or_else(Clone::clone, |(code, text)| {
                            format!("{code} {}", cut(text))
                        });
                        format!("after {took:?} (cut {:?} ago): {text}", start.elapsed())
                    },
                );
            }
            for (path, (got, took)) in NEW.iter().zip(&got[PATHS.len()..]) {
                let name = format!("{how:?} {round} {when}: {path}");
                checks.that(
                    &name,
                    got.is_ok() && *took < Duration::from_secs(limit),
                    || format!("after {took:?}: {got:?}"),
                );
            }
        }
        site.mend().await;
    }
    checks.finish();
}

async fn answers(
    client: &Client,
    paths: &[String],
) -> Vec<(Result<(u16, String), String>, Duration)> {
    join_all(paths.iter().map(async |path| {
        let start = Instant::now();
        let answer = match timeout(PATIENCE, client.get(path)).await {
            Err(_) => Err("no answer".to_owned()),
            Ok(Err(error)) => Err(format!("{error:?}")),
            Ok(Ok(answer)) => Ok((answer.code, answer.text())),
        };
        (answer, start.elapsed())
    }))
    .await
}
