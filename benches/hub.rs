//! The hub's figures on the real kube-apiserver: memory, answers, watchers, events, bytes.
//!
//! `make assets && cargo build --release -p yurthub && cargo bench -p benches --bench hub`
//!
//! With `-- flood` it makes the row of the flood only, with `-- scale` those of a thousand scopes and of ten
//! thousand watchers (a quarter of an hour), which it makes only then.
//!
//! It prints one row a figure, with the target of the design beside it. The API server, the hub and the
//! clients share the machine; read ratios and medians.

#[path = "hub/client.rs"]
mod client;
#[path = "hub/events.rs"]
mod events;
#[path = "hub/flood.rs"]
mod flood;
#[path = "hub/scale.rs"]
mod scale;
#[path = "hub/setup.rs"]
mod setup;

use std::time::Duration;

use testbed::link::Cut;
use tokio::time::Instant;

use self::client::Connection;
use self::setup::{Fault, Setup};

const LIST: &str = "/api/v1/configmaps?resourceVersion=0";

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Fault> {
    if std::env::args().any(|argument| argument == "flood") {
        return flood::row_of_node(&Setup::start(200).await?).await;
    }
    if std::env::args().any(|argument| argument == "scale") {
        return scale::rows().await;
    }
    let objects = 10_000;
    let mut setup = Setup::start(objects).await?;
    row(
        "hub binary",
        &format!("{:.1} MB", mega(setup.binary_bytes()?)),
        "<= 10 MB",
    );
    row("RSS idle", &setup.memory()?.to_string(), "<= 6 MB");
    lists(&setup).await?;
    ten_clients(&setup).await?;
    watchers(&setup).await?;
    if std::env::args().any(|argument| argument == "memory") {
        return Ok(());
    }
    events::latency(&setup, "hub", true).await?;
    events::latency(&setup, "API server", false).await?;
    events::burst(&setup, "hub", true).await?;
    events::burst(&setup, "API server", false).await?;
    events::flash(&setup).await?;
    flood::row_of_node(&setup).await?;
    cuts(&mut setup).await
}

/// Three lists of everything, as three clients make them one after the other.
async fn lists(setup: &Setup) -> Result<(), Fault> {
    let before = setup.link_bytes();
    for _ in 0..3 {
        setup.hub().await?.get(LIST).await?;
    }
    row(
        "RSS after three LISTs",
        &setup.memory()?.to_string(),
        "<= 11 MB",
    );
    row(
        "bytes from the cloud for them",
        &format!("{:.1} MB", mega(setup.link_bytes() - before)),
        "once",
    );
    Ok(())
}

async fn ten_clients(setup: &Setup) -> Result<(), Fault> {
    let before = setup.link_bytes();
    for _ in 0..2 {
        let clients = (0..10).map(|_| async { setup.hub().await?.get(LIST).await });
        for answer in futures_util::future::join_all(clients).await {
            answer?;
        }
    }
    let mut watches = Vec::new();
    let path = watch_from_now(setup).await?;
    for _ in 0..100 {
        watches.push(setup.hub().await?.watch(&path).await?);
    }
    row(
        "RSS after 10 clients list twice at once, and 100 watchers",
        &setup.memory()?.to_string(),
        "<= 24 MB",
    );
    row(
        "bytes from the cloud for them",
        &format!("{} B", setup.link_bytes() - before),
        "none",
    );
    drop(watches);
    Ok(())
}

/// Returns the path of a watch of everything that begins with what comes.
async fn watch_from_now(setup: &Setup) -> Result<String, Fault> {
    let list = format!("{LIST}&limit=1");
    let revision = setup.hub().await?.revision(&list).await?;
    Ok(format!(
        "/api/v1/configmaps?watch=1&resourceVersion={revision}"
    ))
}

async fn watchers(setup: &Setup) -> Result<(), Fault> {
    setup.restart().await?;
    setup.hub().await?.get(LIST).await?;
    let before = setup.memory()?.resident;
    let mut watches = Vec::new();
    let path = watch_from_now(setup).await?;
    for _ in 0..200 {
        watches.push(setup.hub().await?.watch(&path).await?);
    }
    let each = (setup.memory()?.resident - before) / 200;
    row(
        "RSS of a watch, 200 watchers",
        &format!("{} kB", each / 1_000),
        "<= 40 kB",
    );
    Ok(())
}

async fn cuts(setup: &mut Setup) -> Result<(), Fault> {
    let mut watch = setup
        .hub()
        .await?
        .watch("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0")
        .await?;
    setup.link.cut(Cut::Silent).await;
    let began = Instant::now();
    setup
        .hub()
        .await?
        .get("/api/v1/namespaces/load/configmaps/cm-00001")
        .await?;
    row(
        "silent cut until the first cached answer",
        &format!("{:.1} s", began.elapsed().as_secs_f64()),
        "<= 8 s",
    );
    offline(setup, LIST, 20, "offline LIST of them", "<= 25 ms").await?;
    offline(
        setup,
        "/api/v1/namespaces/load/configmaps/cm-00001",
        500,
        "offline GET",
        "<= 0.12 ms",
    )
    .await?;
    setup.create("default", "meanwhile").await?;
    setup.link.mend().await.map_err(Fault::new)?;
    let began = Instant::now();
    watch.until("meanwhile", Duration::from_secs(30)).await?;
    row(
        "link back until a watch event of the meantime",
        &format!("{:.2} s", began.elapsed().as_secs_f64()),
        "<= 0.5 s",
    );
    Ok(())
}

async fn offline(
    setup: &Setup,
    path: &str,
    times: usize,
    what: &str,
    target: &str,
) -> Result<(), Fault> {
    let mut connection: Connection = setup.hub().await?;
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        connection.get(path).await?;
        took.push(began.elapsed());
    }
    took.sort();
    row(
        what,
        &format!(
            "{:.2} ms (median of {times})",
            took[times / 2].as_secs_f64() * 1e3
        ),
        target,
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn row(what: &str, figure: &str, target: &str) {
    println!("| {what:<58} | {figure:<38} | {target:<24} |");
}

fn mega(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1_000).unwrap_or(u32::MAX)) / 1e3
}
