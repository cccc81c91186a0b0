//! What does not grow: a small answer while the hub holds a thousand scopes, an event for ten thousand watchers,
//! a start with all that, and what an idle node writes.

use std::time::Duration;

use testbed::link::Cut;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Connection, Watch};
use crate::row;
use crate::setup::{Fault, Setup};

const SCOPES: usize = 1_000;
const OBJECTS_OF_A_SCOPE: usize = 100;

const WATCHERS: usize = 10_000;
/// As many streams of HTTP/2 as servers allow by custom.
const WATCHERS_OF_A_CONNECTION: usize = 100;
const EVENTS: usize = 20;

/// How long nothing happens but what Kubernetes does by itself.
const IDLE: Duration = Duration::from_secs(180);
const IDLE_SCOPES: usize = 200;
const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// Requests whose CPU time is read together: the system counts it in hundredths of a second.
const REQUESTS: u32 = 2_000;

/// Prints the rows.
pub(crate) async fn rows() -> Result<(), Fault> {
    let setup = Setup::start(0).await?;
    for scope in 0..SCOPES {
        setup.fill(&namespace(scope), OBJECTS_OF_A_SCOPE).await?;
    }
    let alone = small_answers(&setup, 1).await?;
    for scope in 1..IDLE_SCOPES {
        open(&setup, scope).await?;
    }
    idle(&setup).await?;
    for scope in IDLE_SCOPES..SCOPES {
        open(&setup, scope).await?;
    }
    row(
        "RSS, 1,000 scopes of 100 objects",
        &setup.memory()?.to_string(),
        "<= 70 MB",
    );
    let among_many = small_answers(&setup, SCOPES).await?;
    for (what, alone, among_many) in [
        ("GET", alone.get, among_many.get),
        ("LIST of ten by selector", alone.list, among_many.list),
    ] {
        let ratio = among_many.as_secs_f64() / alone.as_secs_f64();
        row(
            &format!("{what}: CPU with 1,000 scopes to CPU with one"),
            &format!("{ratio:.2}"),
            "<= 1.5",
        );
    }
    watchers(&setup).await?;
    restarts(&setup).await
}

/// CPU time of the hub for one answer.
struct Small {
    get: Duration,
    list: Duration,
}

async fn small_answers(setup: &Setup, scopes: usize) -> Result<Small, Fault> {
    open(setup, 0).await?;
    let path = format!("/api/v1/namespaces/{}/configmaps", namespace(0));
    let get = one(setup, &format!("{path}/cm-00001?resourceVersion=0")).await?;
    let list = format!("{path}?labelSelector=tens%3D0&resourceVersion=0");
    let list = one(setup, &list).await?;
    for (what, took) in [("GET", get), ("LIST of ten by selector", list)] {
        let figure = format!("{:.3} ms", took.as_secs_f64() * 1e3);
        row(&format!("CPU of a {what}, {scopes} scopes"), &figure, "");
    }
    Ok(Small { get, list })
}

async fn one(setup: &Setup, path: &str) -> Result<Duration, Fault> {
    let mut hub = setup.hub().await?;
    let before = setup.processor_time()?;
    for _ in 0..REQUESTS {
        hub.get(path).await?;
    }
    Ok((setup.processor_time()? - before) / REQUESTS)
}

async fn open(setup: &Setup, scope: usize) -> Result<(), Fault> {
    let path = format!(
        "/api/v1/namespaces/{}/configmaps?resourceVersion=0",
        namespace(scope)
    );
    setup.hub().await?.get(&path).await.map(drop)
}

async fn idle(setup: &Setup) -> Result<(), Fault> {
    let before = setup.metric("yurthub_store_written_bytes_total").await?;
    let began = Instant::now();
    sleep(IDLE).await;
    let written = setup.metric("yurthub_store_written_bytes_total").await? - before;
    let of_a_day = written / began.elapsed().as_secs_f64() * SECONDS_OF_A_DAY;
    let figure = format!("{:.2} MB a day", of_a_day / 1e6);
    row(
        "flash bytes of an idle node, 200 mirrors",
        &figure,
        "<= 10 MB a day",
    );
    Ok(())
}

async fn watchers(setup: &Setup) -> Result<(), Fault> {
    let scope = format!("/api/v1/namespaces/{}/configmaps", namespace(0));
    let way = setup.way()?;
    let list = format!("{scope}?resourceVersion=0&limit=1");
    let revision = setup.hub().await?.revision(&list).await?;
    let path = format!("{scope}?watch=1&resourceVersion={revision}");
    let mut readers = JoinSet::new();
    for _ in 0..WATCHERS / WATCHERS_OF_A_CONNECTION {
        let connection = way.open_shared().await?;
        for _ in 0..WATCHERS_OF_A_CONNECTION {
            let watch = connection.watch(&path).await?;
            readers.spawn(timeout(Duration::from_secs(120), times(watch)));
        }
    }
    setup.create(&namespace(0), "news").await?;
    // The first event finds them all; those that are measured find them waiting.
    sleep(Duration::from_secs(2)).await;
    let before = setup.processor_time()?;
    let mut cloud = setup.cloud().await?;
    let mut began = Vec::new();
    for _ in 0..EVENTS {
        began.push(Instant::now());
        let object = crate::setup::config_map("news", 0);
        cloud.put("PUT", &format!("{scope}/news"), object).await?;
        sleep(Duration::from_secs(1)).await;
    }
    let mut last = began.clone();
    while let Some(reader) = readers.join_next().await {
        let seen = reader.map_err(Fault::new)?.map_err(Fault::new)??;
        for (last, seen) in last.iter_mut().zip(seen) {
            *last = (*last).max(seen);
        }
    }
    let spent = setup.processor_time()? - before;
    let mut took: Vec<Duration> = last
        .iter()
        .zip(&began)
        .map(|(last, began)| *last - *began)
        .collect();
    took.sort();
    let figure = format!(
        "{:.0} ms, median of {EVENTS}",
        took[EVENTS / 2].as_secs_f64() * 1e3
    );
    row(
        "a write until the last of 10,000 watchers has it",
        &figure,
        "<= 150 ms",
    );
    let each = spent.as_secs_f64() * 1e6
        / (10_000.0 * f64::from(u32::try_from(EVENTS).map_err(Fault::new)?));
    row(
        "CPU of an event and watcher",
        &format!("{each:.1} µs"),
        "<= 10 µs",
    );
    Ok(())
}

/// When each of the events came, without the first.
async fn times(mut watch: Watch) -> Result<Vec<Instant>, Fault> {
    let mut seen = Vec::with_capacity(EVENTS + 1);
    while seen.len() <= EVENTS {
        watch.line().await?;
        seen.push(Instant::now());
    }
    Ok(seen.split_off(1))
}

async fn restarts(setup: &Setup) -> Result<(), Fault> {
    let took = first_answer(setup).await?;
    row(
        "start with 1,000 scopes until the first answer",
        &format!("{:.2} s", took.as_secs_f64()),
        "<= 1.5 s",
    );
    row("RSS after it", &setup.memory()?.to_string(), "<= 70 MB");
    setup.link.cut(Cut::Refuse).await;
    // It has to know of the cut before it is switched off.
    while setup.metric("yurthub_cut_off_seconds").await? == 0.0 {
        sleep(Duration::from_millis(100)).await;
    }
    let took = first_answer(setup).await?;
    row(
        "the same while cut off",
        &format!("{:.2} s", took.as_secs_f64()),
        "<= 1.5 s",
    );
    Ok(())
}

/// Kills the hub; how long a client that asks again and again waits for its list after the next start.
async fn first_answer(setup: &Setup) -> Result<Duration, Fault> {
    let path = format!("/api/v1/namespaces/{}/configmaps", namespace(1));
    let began = Instant::now();
    setup.start_again()?;
    loop {
        let connection: Result<Connection, Fault> = setup.hub().await;
        if let Ok(mut hub) = connection
            && hub.get(&path).await.is_ok()
        {
            return Ok(began.elapsed());
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err(Fault::new("no answer in a minute"));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn namespace(scope: usize) -> String {
    format!("scope-{scope:04}")
}
