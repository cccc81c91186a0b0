//! Chapters 5 and 6: the cloud goes on without the node, then the link is back.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Broken, Known, PATIENCE, Scene, Stage, at_hand, station};
use crate::cloud::text;
use crate::object::{self, STATIONS, station_name};
use crate::reader::{List, Seen};
use crate::report::{Fact, Promise};
use crate::story::cut::REFUSED;
use crate::teller::{size, time};

/// How long after the link's return the events may take, as promised.
const PROMPT: Duration = Duration::from_secs(2);

/// What the difference may cost, in percent of the first list.
const DELTA: u64 = 10;

/// Who changes, who goes, who comes, and who tells that nothing is left to come.
const CHANGED: usize = 7;
const DELETED: usize = 42;
const ADDED: usize = STATIONS;
const LAST: usize = 500;

/// What happened in the cloud while nobody on the node could know.
#[derive(Debug)]
pub(super) struct Meantime(BTreeSet<(&'static str, String)>);

pub(super) async fn meanwhile(stage: &mut Stage<'_>) -> Result<Meantime, Broken> {
    stage.teller.step("Meanwhile, in the cloud");
    let (this, cloud) = (Promise::OnceEach, stage.cloud);
    let path = station(stage, CHANGED);
    let changing = cloud.change(&path, json!({"data": {"unit": "fahrenheit"}}));
    this.within(PATIENCE, "change a ConfigMap in the cloud", changing)
        .await?;
    let path = station(stage, DELETED);
    this.within(
        PATIENCE,
        "delete a ConfigMap in the cloud",
        cloud.delete(&path),
    )
    .await?;
    let (path, object) = (cloud.place.stations(), object::station(ADDED));
    let creating = cloud.create(&path, &object);
    this.within(PATIENCE, "create a ConfigMap in the cloud", creating)
        .await?;
    let told = format!(
        "{} changes, {} is deleted, {} is new",
        station_name(CHANGED),
        station_name(DELETED),
        station_name(ADDED)
    );
    stage.teller.fact(Fact::new(told));
    let happened = [
        ("MODIFIED", CHANGED),
        ("DELETED", DELETED),
        ("ADDED", ADDED),
    ];
    let happened = happened.map(|(kind, index)| (kind, station_name(index)));
    Ok(Meantime(happened.into()))
}

pub(super) async fn mend(
    stage: &mut Stage<'_>,
    scene: &Scene,
    mut known: Known,
    meantime: Meantime,
) -> Result<(), Broken> {
    stage.teller.step("The link is back");
    let this = Promise::OnceEach;
    let before = scene.link_bytes();
    let mended = scene.link.mend().await;
    mended.map_err(|error| this.broken("mend the link", error))?;
    let begun = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < meantime.0.len() {
        let waiting = known.follower.next(PATIENCE);
        let event = this
            .within(PATIENCE, "wait for what happened meanwhile", waiting)
            .await?;
        let took = begun.elapsed();
        let Seen { kind, name, .. } = &event;
        let is_expected = meantime.0.contains(&(kind.as_str(), name.clone()));
        let fact = Fact::new(format!("{kind:<8} {name}")).took(took);
        stage.teller.fact(fact.good(is_expected));
        seen.push(event);
    }
    let took = begun.elapsed();
    let bytes = scene.link_bytes().saturating_sub(before);
    stage
        .teller
        .judge(Promise::Prompt, took <= PROMPT, time(took));

    once(stage, &mut known, &meantime, &seen).await?;
    let percent = bytes.saturating_mul(100) / known.first_list_bytes.max(1);
    let is_delta = percent < DELTA;
    let share = match percent {
        0 => "under 1 %".to_owned(),
        percent => format!("{percent} %"),
    };
    let told = format!("the three cost {share} of the first list");
    stage
        .teller
        .fact(Fact::new(told).on_the_link(bytes).good(is_delta));
    let told = format!("{} against {}", size(bytes), size(known.first_list_bytes));
    stage.teller.judge(Promise::Delta, is_delta, told);
    agree(stage, scene).await?;
    refused(stage).await
}

/// Nothing else came: the next event is of a change that is made only now.
async fn once(
    stage: &mut Stage<'_>,
    known: &mut Known,
    meantime: &Meantime,
    seen: &[Seen],
) -> Result<(), Broken> {
    let this = Promise::OnceEach;
    let path = station(stage, LAST);
    let changing = stage
        .cloud
        .change(&path, json!({"data": {"unit": "rankine"}}));
    let changed = this
        .within(PATIENCE, "change a last ConfigMap", changing)
        .await?;
    let waiting = known.follower.next(PATIENCE);
    let next = this
        .within(PATIENCE, "wait for the last event", waiting)
        .await?;
    let is_last = next.kind == "MODIFIED"
        && next.name == station_name(LAST)
        && next.revision == text(&changed["metadata"]["resourceVersion"]);
    let came: BTreeSet<(&str, String)> = seen
        .iter()
        .map(|event| (event.kind.as_str(), event.name.clone()))
        .collect();
    let is_kept = is_last && came == meantime.0;
    let told = if is_last {
        "nothing else: the next event is of the next change".to_owned()
    } else {
        format!("{} {} came in between", next.kind, next.name)
    };
    stage.teller.fact(Fact::new(told).good(is_last));
    let seen = if is_kept {
        "one changed, one deleted, one added"
    } else {
        "other events"
    };
    stage.teller.judge(this, is_kept, seen);
    Ok(())
}

/// At the end both ends of the link know the same.
async fn agree(stage: &mut Stage<'_>, scene: &Scene) -> Result<(), Broken> {
    let this = Promise::OnceEach;
    let stations = stage.cloud.place.stations();
    let asking = stage.cloud.get(&stations);
    let cloud = List::from(this.within(PATIENCE, "list in the cloud", asking).await?);
    let path = at_hand(&stations);
    let hub = this
        .within(PATIENCE, "list at the hub", scene.reader.list(&path))
        .await?;
    let is_same = cloud.items == hub.items;
    let told = if is_same {
        "hub and cloud have the same objects again"
    } else {
        "hub and cloud have different objects"
    };
    stage.teller.fact(Fact::new(told).good(is_same));
    if !is_same {
        stage
            .teller
            .judge(this, false, "hub and cloud differ in the end");
    }
    Ok(())
}

/// What was refused while cut off was not kept for later either.
async fn refused(stage: &mut Stage<'_>) -> Result<(), Broken> {
    let this = Promise::Refused;
    let path = station(stage, REFUSED);
    let asking = stage.cloud.get(&path);
    let answer = this
        .within(PATIENCE, "look for what was refused", asking)
        .await?;
    let is_absent = answer.code == 404;
    if !is_absent {
        stage
            .teller
            .judge(this, false, "it was written all the same");
    }
    let told = if is_absent {
        "the write that was refused was not done later either"
    } else {
        "the write that was refused was done after all"
    };
    stage.teller.fact(Fact::new(told).good(is_absent));
    Ok(())
}
