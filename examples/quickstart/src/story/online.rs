//! Chapter 2: everybody reads through the hub, the cloud answers once.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Broken, Known, PATIENCE, Scene, Stage, at_hand, station};
use crate::object::{GEESE, STATIONS, station_name};
use crate::reader::{List, Reader};
use crate::report::{Fact, Promise};
use crate::teller::{count, size};

/// Clients beside the first one.
const OTHERS: usize = 9;

/// The station that changes while everything is well.
const CHANGED: usize = 123;

/// What the others may cost, against the first list: a sign of life on an idle connection is a few bytes.
const SHARE: u64 = 100;

pub(super) async fn read(stage: &mut Stage<'_>, scene: &Scene) -> Result<Known, Broken> {
    stage.teller.step("Everybody reads through the hub");
    let (stations, geese) = (stage.cloud.place.stations(), stage.cloud.place.geese());
    let this = Promise::Same;
    scene.quiet().await;

    let (begun, before) = (Instant::now(), scene.link_bytes());
    let path = at_hand(&stations);
    let listing = scene.reader.list(&path);
    let first = this
        .within(PATIENCE, "list the ConfigMaps", listing)
        .await?;
    let took = begun.elapsed();
    let first_list_bytes = scene.link_bytes().saturating_sub(before);
    let told = format!(
        "a client lists {} ConfigMaps: {}",
        count(first.items.len()),
        size(first.bytes.len().try_into().unwrap_or(u64::MAX))
    );
    let fact = Fact::new(told).took(took).on_the_link(first_list_bytes);
    stage.teller.fact(fact.good(first.items.len() == STATIONS));

    let (begun, before) = (Instant::now(), scene.link_bytes());
    let path = at_hand(&geese);
    let listing = scene.reader.list(&path);
    let flock = this.within(PATIENCE, "list the geese", listing).await?;
    let following = scene.reader.follow(&stations, &first.revision);
    let mut follower = this
        .within(PATIENCE, "watch the ConfigMaps", following)
        .await?;
    let took = begun.elapsed();
    scene.quiet().await;
    let bytes = scene.link_bytes().saturating_sub(before);
    let is_flock = flock.items.len() == GEESE.len();
    let told = format!(
        "it lists {} geese, and watches the ConfigMaps",
        flock.items.len()
    );
    stage
        .teller
        .fact(Fact::new(told).took(took).on_the_link(bytes).good(is_flock));

    others(stage, scene, &first, first_list_bytes).await?;
    if let Some(memory) = stage.hub_memory() {
        let told = format!("the hub holds it all, in {memory} of memory");
        stage.teller.fact(Fact::new(told));
    }
    change(stage, scene, &mut follower).await?;
    compare(stage, scene).await?;
    let listing = async {
        Ok::<_, crate::reader::ReadError>((
            scene.reader.list(&at_hand(&stations)).await?,
            scene.reader.list(&at_hand(&geese)).await?,
        ))
    };
    let (stations, geese) = this.within(PATIENCE, "list everything", listing).await?;
    Ok(Known {
        stations,
        geese,
        follower,
        first_list_bytes,
    })
}

/// Nine more clients, each with a connection of its own.
async fn others(
    stage: &mut Stage<'_>,
    scene: &Scene,
    first: &List,
    first_list_bytes: u64,
) -> Result<(), Broken> {
    let this = Promise::OneList;
    let is_little = |bytes: u64| bytes < first_list_bytes / SHARE;
    let mut asked = ask_all(stage, scene, first).await?;
    if !is_little(asked.bytes) {
        // A second after its first caller the hub learns the keys of the cluster's tokens, once: not for the nine.
        asked = ask_all(stage, scene, first).await?;
    }
    let is_kept = asked.are_same && asked.is_free && is_little(asked.bytes);
    let fact = Fact::new("nine more clients list the same").took(asked.took);
    stage
        .teller
        .fact(fact.on_the_link(asked.bytes).good(is_kept));
    let seen = format!(
        "{} once, then {}",
        size(first_list_bytes),
        size(asked.bytes)
    );
    stage.teller.judge(this, is_kept, seen);
    Ok(())
}

/// What came of nine lists.
struct Asked {
    are_same: bool,
    /// Whether the cloud, if it can be asked, was asked for nothing.
    is_free: bool,
    took: Duration,
    bytes: u64,
}

async fn ask_all(stage: &Stage<'_>, scene: &Scene, first: &List) -> Result<Asked, Broken> {
    let this = Promise::OneList;
    let path = at_hand(&stage.cloud.place.stations());
    let (begun, before, reads) = (Instant::now(), scene.link_bytes(), stage.cloud.reads());
    let mut are_same = true;
    for _ in 0..OTHERS {
        let reader = Reader::new(&scene.endpoint);
        let reader = reader.map_err(|error| this.broken("make a client", error))?;
        let listing = reader.list(&path);
        let list = this
            .within(PATIENCE, "list as another client", listing)
            .await?;
        are_same &= list.items == first.items;
    }
    Ok(Asked {
        are_same,
        is_free: reads == stage.cloud.reads(),
        took: begun.elapsed(),
        bytes: scene.link_bytes().saturating_sub(before),
    })
}

/// One change in the cloud, one event at the client.
async fn change(
    stage: &mut Stage<'_>,
    scene: &Scene,
    follower: &mut crate::reader::Follower,
) -> Result<(), Broken> {
    let this = Promise::Same;
    let path = station(stage, CHANGED);
    let before = scene.link_bytes();
    let changing = stage
        .cloud
        .change(&path, json!({"data": {"unit": "kelvin"}}));
    this.within(PATIENCE, "change a ConfigMap in the cloud", changing)
        .await?;
    let begun = Instant::now();
    let waiting = follower.next(PATIENCE);
    let seen = this
        .within(PATIENCE, "wait for the event of a change", waiting)
        .await?;
    let took = begun.elapsed();
    let is_it = seen.kind == "MODIFIED" && seen.name == station_name(CHANGED);
    let told = format!("one changes there, and the watch says {}", seen.kind);
    let bytes = scene.link_bytes().saturating_sub(before);
    stage
        .teller
        .fact(Fact::new(told).took(took).on_the_link(bytes).good(is_it));
    if !is_it {
        let seen = format!("{} {} instead of a change", seen.kind, seen.name);
        stage.teller.judge(this, false, seen);
    }
    Ok(())
}

/// The hub's list against the cloud's own.
async fn compare(stage: &mut Stage<'_>, scene: &Scene) -> Result<(), Broken> {
    let this = Promise::Same;
    let stations = stage.cloud.place.stations();
    let asking = stage.cloud.get(&stations);
    let cloud = List::from(this.within(PATIENCE, "list in the cloud", asking).await?);
    let path = at_hand(&stations);
    let hub = this
        .within(PATIENCE, "list at the hub", scene.reader.list(&path))
        .await?;
    let is_same = cloud.items == hub.items && hub.items.len() == STATIONS;
    let told = if is_same {
        "each name and revision at the hub is the cloud's"
    } else {
        "the hub's list is not the cloud's"
    };
    stage.teller.fact(Fact::new(told).good(is_same));
    let seen = format!("{} objects compared", count(hub.items.len()));
    stage.teller.judge(this, is_same, seen);
    Ok(())
}
