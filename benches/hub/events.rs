//! Events: how long they take to a hundred watchers, how many a second, and what they cost the flash.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Watch;
use crate::row;
use crate::setup::{Fault, Setup, config_map};

const WATCHERS: usize = 100;

/// When each object was sent, by name.
type Sent = Arc<Mutex<HashMap<String, Instant>>>;

/// 20 writes a second for ten seconds.
pub(crate) async fn latency(setup: &Setup, whose: &str, is_hub: bool) -> Result<(), Fault> {
    let (sent, mut readers) = watchers(setup, is_hub, 200).await?;
    let prefix = format!("lat-{}", whose.len());
    let mut cloud = setup.cloud().await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for at in 0..200 {
        ticks.tick().await;
        let name = format!("{prefix}-{at}");
        sent.lock().insert(name.clone(), Instant::now());
        cloud
            .put(
                "POST",
                "/api/v1/namespaces/default/configmaps",
                config_map(&name, 0),
            )
            .await?;
    }
    let mut took = Vec::new();
    while let Some(reader) = readers.join_next().await {
        took.extend(reader.map_err(Fault::new)??);
    }
    took.sort();
    let at = |part: usize| took[took.len() * part / 1_000].as_secs_f64() * 1e3;
    let figure = format!("p50 {:.1} ms, p99 {:.1} ms", at(500), at(990));
    row(
        &format!("event to 100 watchers, 20 writes/s, {whose}"),
        &figure,
        "<= 12 / 25 ms",
    );
    Ok(())
}

/// 200 writes as fast as the API server takes them.
pub(crate) async fn burst(setup: &Setup, whose: &str, is_hub: bool) -> Result<(), Fault> {
    let (sent, mut readers) = watchers(setup, is_hub, 200).await?;
    let prefix = format!("burst-{}", whose.len());
    let began = Instant::now();
    let writers = (0..8).map(|part| {
        let (sent, prefix) = (sent.clone(), prefix.clone());
        async move {
            let mut cloud = setup.cloud().await?;
            for at in (part..200).step_by(8) {
                let name = format!("{prefix}-{at}");
                sent.lock().insert(name.clone(), Instant::now());
                cloud
                    .put(
                        "POST",
                        "/api/v1/namespaces/default/configmaps",
                        config_map(&name, 0),
                    )
                    .await?;
            }
            Ok::<(), Fault>(())
        }
    });
    futures_util::future::join_all(writers)
        .await
        .into_iter()
        .collect::<Result<(), Fault>>()?;
    while let Some(reader) = readers.join_next().await {
        reader.map_err(Fault::new)??;
    }
    let rate = 200.0 * 100.0 / began.elapsed().as_secs_f64();
    row(
        &format!("burst of 200 events to 100 watchers, {whose}"),
        &format!("{rate:.0} events/s"),
        ">= the API server",
    );
    Ok(())
}

/// 100 updates a second for ten seconds to one set of objects.
pub(crate) async fn flash(setup: &Setup) -> Result<(), Fault> {
    let before = setup.metric("yurthub_store_written_bytes_total").await?;
    let events_before = setup.metric("yurthub_mirror_upstream_events_total").await?;
    let mut clouds = [setup.cloud().await?, setup.cloud().await?];
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut size = 0;
    for at in 0..500 {
        ticks.tick().await;
        for (part, cloud) in clouds.iter_mut().enumerate() {
            let name = format!("cm-{:05}", (at * 2 + part) % 1_000);
            let path = format!("/api/v1/namespaces/load/configmaps/{name}");
            cloud.put("PUT", &path, config_map(&name, 0)).await?;
        }
    }
    let mut hub = setup.hub().await?;
    size += hub
        .get("/api/v1/namespaces/load/configmaps/cm-00000")
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = setup.metric("yurthub_mirror_upstream_events_total").await? - events_before;
    let written = setup.metric("yurthub_store_written_bytes_total").await? - before;
    let size = f64::from(u32::try_from(size).map_err(Fault::new)?);
    let figure = format!("{:.2} x an object of {size} B", written / events / size);
    row(
        "flash bytes of a watch event at 100 events/s",
        &figure,
        "<= 1.3 x",
    );
    Ok(())
}

/// A hundred watchers, each of which returns how long each of `count` events took.
async fn watchers(
    setup: &Setup,
    is_hub: bool,
    count: usize,
) -> Result<(Sent, JoinSet<Result<Vec<Duration>, Fault>>), Fault> {
    let sent = Sent::default();
    let mut readers = JoinSet::new();
    let revision = latest(setup).await?;
    for _ in 0..WATCHERS {
        let connection = if is_hub {
            setup.hub().await?
        } else {
            setup.cloud().await?
        };
        let path =
            format!("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={revision}");
        let watch = connection.watch(&path).await?;
        let read = tokio::time::timeout(Duration::from_secs(60), read(watch, sent.clone(), count));
        readers.spawn(async move { read.await.map_err(Fault::new)? });
    }
    Ok((sent, readers))
}

async fn read(mut watch: Watch, sent: Sent, count: usize) -> Result<Vec<Duration>, Fault> {
    let mut took = Vec::with_capacity(count);
    while took.len() < count {
        let line = watch.line().await?;
        let now = Instant::now();
        let text = std::str::from_utf8(&line).map_err(Fault::new)?;
        let name = text
            .split("\"name\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        if let Some(began) = name.and_then(|name| sent.lock().get(name).copied()) {
            took.push(now - began);
        }
    }
    Ok(took)
}

async fn latest(setup: &Setup) -> Result<String, Fault> {
    let mut hub = setup.hub().await?;
    // The mirror has to be there before its watchers are measured.
    hub.get("/api/v1/namespaces/default/configmaps?resourceVersion=0")
        .await?;
    let name = format!("mark-{}", fastrand::u32(..));
    setup.create("default", &name).await?;
    let mut watch = setup
        .hub()
        .await?
        .watch("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0")
        .await?;
    loop {
        let line = watch.line().await?;
        let text = String::from_utf8_lossy(&line).into_owned();
        if text.contains(&name) {
            let revision = text
                .split("\"resourceVersion\":\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            return revision
                .map(str::to_owned)
                .ok_or_else(|| Fault::new("an event without a revision"));
        }
    }
}
