//! Chapter 4: the hub is killed and started again, while it cannot ask anybody.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Broken, Known, PATIENCE, Scene, Stage, at_hand};
use crate::reader::{Follower, List, ReadError, Reader};
use crate::report::{Fact, Promise};
use crate::teller::{count, size, time};

/// How soon a client comes back when its connection broke.
const COME_BACK: Duration = Duration::from_millis(20);

pub(super) async fn crash(
    stage: &mut Stage<'_>,
    scene: &Scene,
    known: Known,
) -> Result<Known, Broken> {
    stage
        .teller
        .step("The hub is killed with SIGKILL and started again, still cut off");
    let this = Promise::Restart;
    let old = stage.hub.as_ref().map_or(0, |hub| hub.door().id);
    this.within(PATIENCE, "kill the hub", stage.kill_hub())
        .await?;
    let begun = Instant::now();
    let starting = stage.start_hub(&scene.orders);
    let hub = this
        .within(PATIENCE, "start the hub again", starting)
        .await?;
    let told = format!("pid {old} is gone, pid {} takes its place", hub.id);
    stage.teller.fact(Fact::new(told).took(begun.elapsed()));

    let listing = lists(stage, &scene.reader);
    let (stations, geese) = this
        .within(PATIENCE, "list from the new hub", listing)
        .await?;
    let took = begun.elapsed();
    let is_kept = stations.bytes == known.stations.bytes && geese.bytes == known.geese.bytes;
    let told = if is_kept {
        let objects = count(stations.items.len() + geese.items.len());
        format!("the same client lists the same {objects} objects")
    } else {
        "the same client does not get the same objects".to_owned()
    };
    stage.teller.fact(Fact::new(told).took(took).good(is_kept));
    if is_kept {
        let bytes = stations.bytes.len().saturating_add(geese.bytes.len());
        let bytes = size(bytes.try_into().unwrap_or(u64::MAX));
        let told = format!("{bytes}, byte for byte, at revision {}", stations.revision);
        stage.teller.aside(&told);
    }
    let seen = format!("all of it, {} after the start", time(took));
    stage.teller.judge(
        this,
        is_kept,
        if is_kept {
            seen
        } else {
            "other objects".to_owned()
        },
    );

    let follower = resume(stage, scene, &known.follower.revision).await?;
    Ok(Known {
        stations,
        geese,
        follower,
        ..known
    })
}

/// Lists as a client does whose connection has just broken: it comes back until somebody is there.
async fn lists(stage: &Stage<'_>, reader: &Reader) -> Result<(List, List), ReadError> {
    let stations = at_hand(&stage.cloud.place.stations());
    let geese = at_hand(&stage.cloud.place.geese());
    loop {
        match (reader.list(&stations).await, reader.list(&geese).await) {
            (Ok(stations), Ok(geese)) => return Ok((stations, geese)),
            (Err(ReadError::Ask(_)), _) | (_, Err(ReadError::Ask(_))) => sleep(COME_BACK).await,
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
}

async fn resume(stage: &mut Stage<'_>, scene: &Scene, revision: &str) -> Result<Follower, Broken> {
    let this = Promise::Resume;
    let begun = Instant::now();
    let stations = stage.cloud.place.stations();
    let following = scene.reader.follow(&stations, revision);
    let mut follower = this
        .within(PATIENCE, "watch again from the last revision", following)
        .await?;
    let took = begun.elapsed();
    let is_open = follower.is_open().await;
    let told = if is_open {
        format!("its watch goes on from revision {revision}")
    } else {
        format!("its watch does not go on from revision {revision}")
    };
    stage.teller.fact(Fact::new(told).took(took).good(is_open));
    let seen = if is_open {
        format!("from revision {revision}")
    } else {
        "it ended or repeats".to_owned()
    };
    stage.teller.judge(this, is_open, seen);
    Ok(follower)
}
