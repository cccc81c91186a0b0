//! The links of a thousand agents whose server goes and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::world::{Cloud, World, at};
use crate::agent::Shared;
use crate::agent::keeper::Keeper;
use crate::agent::memory::Remembered;

const AGENTS: usize = 1_000;

#[tokio::test(start_paused = true)]
async fn a_thousand_agents_come_back_within_seconds_and_not_all_at_once() {
    let world = World::new();
    let cloud = Cloud::new(&world.udp, at(1)).await;
    let mut links = JoinSet::new();
    for _ in 0..AGENTS {
        let config = world.config(&[at(1)]);
        let shared = Shared::new(config, world.transports(), Remembered::default());
        let name = at(1).ip().to_string();
        let keeper = Keeper::new(Arc::new(shared), at(1), name);
        links.spawn(keeper.run(CancellationToken::new()));
    }
    let mut sessions = Vec::new();
    for _ in 0..AGENTS {
        sessions.push(cloud.next().await);
    }

    world.udp.cut(at(1));
    sleep(Duration::from_secs(1)).await;
    world.udp.mend(at(1));
    let back = Instant::now();
    let mut arrivals = BTreeMap::new();
    sessions.clear();
    for _ in 0..AGENTS {
        sessions.push(cloud.next().await);
        *arrivals
            .entry(back.elapsed().as_millis() / 100)
            .or_insert(0) += 1;
    }
    assert!(back.elapsed() < Duration::from_secs(5), "{arrivals:?}");
    let most = arrivals.values().max().unwrap();
    assert!(*most < AGENTS / 3, "{arrivals:?}");
    // Whoever is back stays.
    assert!(!cloud.is_called_within(Duration::from_secs(60)).await);
}
