//! What the node's own requests take while a pod floods the hub with requests and watches.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::setup::{Fault, Setup, Way};

/// What every node may read.
const SERVICES: &str = "/api/v1/services?resourceVersion=0";
const SERVICE: &str = "/api/v1/namespaces/default/services/kubernetes";

const WATCH: &str = "/api/v1/namespaces/load/configmaps?watch=1&resourceVersion=0";
const LIST: &str = "/api/v1/namespaces/load/configmaps?resourceVersion=0&limit=50";

/// Connections with which the pod floods: some ask without a pause, some open watches without a pause.
const FLOODING: usize = 16;

/// Rounds of each kind, in turn: the machine has other things to do.
const ROUNDS: usize = 5;

/// Prints the row.
pub(crate) async fn row_of_node(setup: &Setup) -> Result<(), Fault> {
    setup.restart_bounded().await?;
    setup.node().await?.get(SERVICES).await?;
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        quiet.push(round(setup).await?);
        let (stop, way) = (CancellationToken::new(), setup.way()?);
        let stopped = stop.clone();
        // The pod is a program of its own: it shares the machine with the node's, not its runtime.
        let flooding = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.map(|runtime| runtime.block_on(stopped.run_until_cancelled(flood(&way))))
        });
        // The flood is at its height before anything is measured.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let measured = round(setup).await;
        stop.cancel();
        let ended = flooding.join().map_err(|_| Fault::new("the flood broke"))?;
        ended.map_err(Fault::new)?;
        flooded.push(measured?);
    }
    let refused = setup.metric("yurthub_refused_total").await?;
    let (quiet, flooded) = (median(quiet), median(flooded));
    let figure = format!(
        "{:.1} / {:.1} ms, {:.1} times, {refused} refused",
        quiet.as_secs_f64() * 1e3,
        flooded.as_secs_f64() * 1e3,
        flooded.as_secs_f64() / quiet.as_secs_f64()
    );
    crate::row(
        "p99 of the node's requests, quiet / while a pod floods",
        &figure,
        "at most twice",
    );
    Ok(())
}

/// The 99th percentile of requests, half of them forwarded, half from the mirror.
async fn round(setup: &Setup) -> Result<Duration, Fault> {
    let mut node = setup.node().await?;
    let mut took = Vec::new();
    for number in 0..600 {
        let query = if number % 2 == 0 {
            ""
        } else {
            "?resourceVersion=0"
        };
        let began = Instant::now();
        node.get(&format!("{SERVICE}{query}")).await?;
        took.push(began.elapsed());
        // As a kubelet, which does not ask without a pause either.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.sort();
    Ok(took[took.len() * 99 / 100])
}

async fn flood(way: &Way) {
    let flooding = (0..FLOODING).map(|number| async move {
        let mut held = Vec::new();
        loop {
            // Whatever it is told, it goes on.
            let Ok(mut connection) = way.open().await else {
                continue;
            };
            if number % 2 == 0 {
                while connection.get(LIST).await.is_ok() {}
            } else if let Ok(watch) = connection.watch(WATCH).await {
                held.push(watch);
            }
        }
    });
    futures_util::future::join_all(flooding).await;
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}
