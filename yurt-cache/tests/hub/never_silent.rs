//! Whatever a client asks, and however the hub is doing: there is an answer or a Status in time, nothing panics, and
//! the hub goes on. `YURT_REQUESTS=20000` tries so many in each state, each time others.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use testbed::api::{ADMIN_TOKEN, ApiConfig};
use testbed::link::Cut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use yurt_cache::store::MemoryStore;
use yurt_core::store::{Batch, Error, ErrorKind, Health, Result, Store};

use super::anything::{Anything, Caller, anything, long};
use super::cloud::{Cloud, Say, event};
use super::site::{Bed, NODE, SOON, Site, events};

/// Requests in each state, and how many of them at a time.
const REQUESTS: usize = 60;
const AT_A_TIME: usize = 8;

/// The longest that a request may wait: for a first list, and then for the cloud.
const BOUND: Duration = Duration::from_secs(45);

/// What took the hub down before, in one way or another.
fn known() -> Vec<Anything> {
    let maps = "/api/v1/namespaces/default/configmaps";
    let targets = [
        "/api/v1/pods".to_owned(),
        "/api/v1/namespaces/default/pods?resourceVersion=0".to_owned(),
        "/api/v1/watch/namespaces/default/pods/x".to_owned(),
        "/api/v1/watch/nodes/n1".to_owned(),
        "/api/v1/watch/namespaces/default/pods/x/status".to_owned(),
        format!("{maps}?watch=1&resourceVersion=0&timeoutSeconds=9223372036854775807"),
        format!("{maps}?watch=1&resourceVersion=18446744073709551615"),
        format!("{maps}?resourceVersion=0&labelSelector={}", long(5_000)),
        format!("{maps}?watch=1&labelSelector={}", long(5_000)),
        format!("/apis/{}/v1/pods?resourceVersion=0", "x".repeat(64_000)),
    ];
    targets.into_iter().map(Anything::get).collect()
}

fn requests() -> Vec<Anything> {
    let wanted = std::env::var("YURT_REQUESTS").ok();
    let wanted = wanted.map(|text| text.parse().expect("YURT_REQUESTS is a number"));
    let mut runner = match wanted {
        Some(_) => TestRunner::new(Config::default()),
        None => TestRunner::deterministic(),
    };
    let anything = anything();
    let mut make = || anything.new_tree(&mut runner).unwrap().current();
    let made = (0..wanted.unwrap_or(REQUESTS)).map(|_| make());
    known().into_iter().chain(made).collect()
}

/// Asks and returns what is wrong with what came.
async fn fault(site: &Site, asked: Anything) -> Option<String> {
    let answering = async {
        match answer(site, &asked).await {
            Ok(answer) if answer.is_empty() => Err("the end without a word".to_owned()),
            Ok(answer) => check(&String::from_utf8_lossy(&answer)),
            Err(error) => Err(error.to_string()),
        }
    };
    let answered = tokio::time::timeout(BOUND, answering).await;
    let wrong = answered.unwrap_or_else(|_| Err(format!("nothing in {BOUND:?}")));
    let text = String::from_utf8_lossy(&asked.text("...")).into_owned();
    let text: String = text.chars().take(2_000).collect();
    Some(format!("{text}\n=> {}", wrong.err()?))
}

/// Returns what comes, up to the end of a body whose length is known.
async fn answer(site: &Site, asked: &Anything) -> std::io::Result<Vec<u8>> {
    let identity = (asked.caller == Caller::Node).then(|| {
        site.pki
            .client(&format!("system:node:{NODE}"), &["system:nodes"])
    });
    let mut stream = site.raw(identity).await?;
    // A hub that refuses early may close before it has read everything.
    let _written = stream.write_all(&asked.text(ADMIN_TOKEN)).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut chunk).await {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if answer.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(answer)
}

/// Returns whether the head is there, and the body if its length is known; a watch goes on for ever.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    length.is_none_or(|length: usize| answer.len() >= head.len() + 4 + length)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(one, _)| one.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

/// An answer, or a Status that says the same code.
fn check(answer: &str) -> std::result::Result<(), String> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Err(format!("no answer but {answer:?}"));
    };
    let code = head.get(9..12).and_then(|code| code.parse::<u16>().ok());
    let code = code.ok_or_else(|| format!("no code in {head:?}"))?;
    let is_ours = header(head, "x-yurt-served-from") == Some("hub");
    if code < 400 || !is_ours || body.is_empty() {
        return Ok(());
    }
    let status: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    if status["kind"] == "Status" && status["code"] == code {
        return Ok(());
    }
    Err(format!("{code} with {body:?}"))
}

/// Panics are counted for the whole process: who looks at the count is alone.
static COUNT: Mutex<()> = Mutex::const_new(());

async fn panics(site: &Site) -> f64 {
    site.metric("yurthub_panics_total", "").await
}

/// Asks everything, and sees that the hub is as it was.
async fn holds(site: &Site, state: &str) {
    let _alone = COUNT.lock().await;
    let before = panics(site).await;
    let faults: Vec<String> = stream::iter(requests())
        .map(|asked| fault(site, asked))
        .buffer_unordered(AT_A_TIME)
        .filter_map(async |fault| fault)
        .collect()
        .await;
    assert!(faults.is_empty(), "while {state}: {}", faults.join("\n\n"));
    assert_eq!(site.page("/healthz").await.0, 200, "while {state}");
    let more = panics(site).await - before;
    assert!(more < 0.5, "{more} panics while {state}");
    let again = fault(site, Anything::get("/api/v1/nodes?resourceVersion=0"));
    assert_eq!(again.await, None, "while {state}");
}

async fn bed(adjust: impl FnOnce(Site) -> Site) -> Bed {
    let bed = Bed::with(ApiConfig::default(), adjust).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "till"}, "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]}});
    bed.cloud().post(pods, &pod).await.unwrap().expect(201);
    for path in [
        pods,
        "/api/v1/pods",
        "/api/v1/nodes",
        "/api/v1/namespaces/default/configmaps",
    ] {
        let list = format!("{path}?resourceVersion=0");
        bed.site.node().get(&list).await.unwrap().expect(200);
    }
    bed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn online_and_cut_off_whatever_is_asked_has_an_answer() {
    let bed = bed(|site| site).await;
    holds(&bed.site, "online").await;
    bed.cut().await;
    holds(&bed.site, "cut off").await;
    bed.mend().await;
    holds(&bed.site, "online again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_hub_starts_whatever_is_asked_has_an_answer() {
    let mut bed = bed(|site| site).await;
    bed.site.crash().await;
    bed.link.cut(Cut::Silent).await;
    bed.site.start();
    holds(&bed.site, "starting without a word of the cloud").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_mirrors_list_again_and_again_whatever_is_asked_has_an_answer() {
    let (_cloud, site) = Cloud::with_hub(|asked| match (asked.is_watch(), asked.before) {
        (true, _) => {
            let gone = r#"{"kind":"Status","apiVersion":"v1","code":410,"reason":"Expired"}"#;
            Say::json(200, format!("{{\"type\":\"ERROR\",\"object\":{gone}}}\n"))
        }
        (false, before) if before % 3 == 2 => Say::json(200, event("ADDED", "a", 1)),
        (false, before) => {
            let revision = 5 + u64::try_from(before).unwrap();
            Say::list(revision, &[("a", revision)])
        }
    })
    .await;
    holds(&site, "listing again").await;
}

/// A store that fails in everything, or panics at every object, when a test says so.
#[derive(Debug, Default)]
struct Failing {
    store: MemoryStore,
    is_failing: AtomicBool,
    is_broken: AtomicBool,
}

impl Failing {
    fn check(&self) -> Result<()> {
        if self.is_failing.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Other, "the test's disk has gone"));
        }
        Ok(())
    }
}

impl Store for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.check()?;
        let is_broken = key.starts_with(b"o/") && self.is_broken.load(Ordering::SeqCst);
        assert!(!is_broken, "the test's store is broken");
        self.store.get(key)
    }

    fn write(&self, batch: Batch) -> Result<()> {
        self.check()?;
        self.store.write(batch)
    }

    fn sync(&self) -> Result<()> {
        self.check()?;
        self.store.sync()
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        self.check()?;
        self.store.keys(prefix, after, visit)
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_fails_whatever_is_asked_has_an_answer() {
    let store = Arc::new(Failing::default());
    let bed = bed(|site| site.with_store(store.clone())).await;
    store.is_failing.store(true, Ordering::SeqCst);
    holds(&bed.site, "online with a store that fails").await;
    bed.cut().await;
    holds(&bed.site, "cut off with a store that fails").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_its_own_request_and_is_counted() {
    let _alone = COUNT.lock().await;
    let store = Arc::new(Failing::default());
    let bed = bed(|site| site.with_store(store.clone())).await;
    let (node, pods) = (bed.site.node(), "/api/v1/namespaces/default/pods");
    bed.cut().await;
    let before = panics(&bed.site).await;
    let path = format!("{pods}?watch=1&resourceVersion=0&allowWatchBookmarks=true");
    let mut watch = node.watch(&path).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["ADDED till"]);
    store.is_broken.store(true, Ordering::SeqCst);
    let answer = node.get(&format!("{pods}/till")).await.unwrap();
    let status = answer.expect(500);
    assert_eq!(
        (&status["kind"], &status["code"]),
        (&json!("Status"), &json!(500))
    );
    node.get(pods).await.unwrap().expect(500);
    assert!(panics(&bed.site).await - before > 1.5);
    store.is_broken.store(false, Ordering::SeqCst);
    node.get(&format!("{pods}/till")).await.unwrap().expect(200);
    let status = json!({"status": {"phase": "Failed"}});
    let path = format!("{pods}/till/status");
    let answer = node.patch(&path, "merge", &status).await.unwrap();
    answer.expect(200);
    assert_eq!(events(&mut watch, 1).await, ["MODIFIED till"]);
}

static CLOCK_IS_BROKEN: AtomicBool = AtomicBool::new(false);

fn clock() -> jiff::Timestamp {
    assert!(
        !CLOCK_IS_BROKEN.load(Ordering::SeqCst),
        "the test's clock is broken"
    );
    jiff::Timestamp::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_loses_a_task_ends_with_an_error_that_names_it() {
    let _alone = COUNT.lock().await;
    let mut bed = bed(|mut site| {
        site.adjust(|config| config.clock = clock);
        site
    })
    .await;
    bed.cut().await;
    CLOCK_IS_BROKEN.store(true, Ordering::SeqCst);
    // Several of the hub's tasks look at the clock; whichever does first is named.
    bed.link.mend().await.unwrap();
    let ended = bed.site.ended(SOON).await.expect("the hub has ended");
    CLOCK_IS_BROKEN.store(false, Ordering::SeqCst);
    let error = ended.unwrap_err();
    assert!(error.to_string().starts_with("run the task \""), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("the test's clock is broken"), "{source}");
}
