//! Chapter 3: the link is cut, and nobody is told.

use std::time::Duration;

use serde_json::Value;
use testbed::link::Cut;
use tokio::time::Instant;

use super::{Broken, Known, PATIENCE, Scene, Stage, station};
use crate::cloud::text;
use crate::object::{self, GEESE, STATIONS};
use crate::report::{Fact, Promise};
use crate::teller::{count, time};

/// What a reader may lose to a silent cut, as promised.
const NOTICED: Duration = Duration::from_secs(8);

/// A station beyond those that are there: the client tries to create it.
pub(super) const REFUSED: usize = STATIONS + 1_000;

pub(super) async fn cut(
    stage: &mut Stage<'_>,
    scene: &Scene,
    mut known: Known,
) -> Result<Known, Broken> {
    stage
        .teller
        .step("The link is cut: no error, no reset, bytes just stop");
    scene.link.cut(Cut::Silent).await;
    notice(stage, scene).await?;
    read(stage, scene).await?;
    write(stage, scene).await?;
    let is_open = known.follower.is_open().await;
    let told = if is_open {
        "the watch is still open, and waits"
    } else {
        "the watch is not open any more"
    };
    stage.teller.fact(Fact::new(told).good(is_open));
    let seen = if is_open {
        "open until the hub is killed"
    } else {
        "it ended"
    };
    stage.teller.judge(Promise::WatchOpen, is_open, seen);
    Ok(known)
}

/// The worst that can happen to a reader: it asks while nobody knows yet.
async fn notice(stage: &mut Stage<'_>, scene: &Scene) -> Result<(), Broken> {
    let this = Promise::Noticed;
    stage
        .teller
        .aside("A client gets a ConfigMap now, while nobody knows that the link is dead …");
    let begun = Instant::now();
    let path = station(stage, 1);
    let getting = scene.reader.get(&path);
    this.within(PATIENCE, "get a ConfigMap on a dead link", getting)
        .await?;
    let took = begun.elapsed();
    let is_kept = took <= NOTICED;
    let fact = Fact::new("the hub notices, and answers from its disk").took(took);
    stage.teller.fact(fact.good(is_kept));
    stage.teller.judge(this, is_kept, time(took));
    Ok(())
}

async fn read(stage: &mut Stage<'_>, scene: &Scene) -> Result<(), Broken> {
    let this = Promise::Reads;
    let (stations, geese) = (stage.cloud.place.stations(), stage.cloud.place.geese());
    let mut is_kept = true;

    let begun = Instant::now();
    let path = station(stage, 2);
    let got = this
        .within(PATIENCE, "get a ConfigMap", scene.reader.get(&path))
        .await?;
    let took = begun.elapsed();
    let is_it = got.json()["metadata"]["name"] == object::station_name(2);
    stage
        .teller
        .fact(Fact::new("get one ConfigMap").took(took).good(is_it));
    is_kept &= is_it;

    let begun = Instant::now();
    let path = format!("{stations}?labelSelector=region%3Dnorth");
    let listing = scene.reader.list(&path);
    let north = this.within(PATIENCE, "list by label", listing).await?;
    let listed = begun.elapsed();
    let is_all = north.items.len() == STATIONS / 4;
    let told = format!("list by label, region=north: {}", count(north.items.len()));
    stage.teller.fact(Fact::new(told).took(listed).good(is_all));
    if !north.warning.is_empty() {
        stage
            .teller
            .aside(&format!("Warning: {}", warning(&north.warning)));
    }
    is_kept &= is_all;

    let begun = Instant::now();
    let table = this
        .within(PATIENCE, "show a table", scene.reader.table(&geese))
        .await?;
    let shown = rows(&table);
    let is_flock = shown.len() == GEESE.len() + 1;
    // A hub knows a column only if it may read the definition, which few may on a real cluster.
    let has_column = shown.first().is_some_and(|head| head.contains("HONK"));
    let told = if has_column {
        "the geese as a table, their own column included"
    } else {
        "the geese as a table, without their own column"
    };
    let is_table = is_flock && (has_column || stage.cloud.node.is_none());
    stage
        .teller
        .fact(Fact::new(told).took(begun.elapsed()).good(is_table));
    for row in &shown {
        stage.teller.aside(row);
    }
    is_kept &= is_table;
    let seen = format!("get {}, list {}", time(took), time(listed));
    stage.teller.judge(this, is_kept, seen);
    Ok(())
}

async fn write(stage: &mut Stage<'_>, scene: &Scene) -> Result<(), Broken> {
    let this = Promise::Refused;
    let begun = Instant::now();
    let (path, object) = (stage.cloud.place.stations(), object::station(REFUSED));
    let creating = scene.reader.create(&path, &object);
    let answer = this
        .within(PATIENCE, "create a ConfigMap", creating)
        .await?;
    let status = answer.json();
    let reason = text(&status["reason"]);
    let is_kept = answer.code == 503 && reason == "ServiceUnavailable";
    let told = format!("a write is refused: {} {reason}", answer.code);
    stage
        .teller
        .fact(Fact::new(told).took(begun.elapsed()).good(is_kept));
    stage.teller.aside(&text(&status["message"]));
    let seen = format!("{} {reason}", answer.code);
    stage.teller.judge(this, is_kept, seen);
    Ok(())
}

/// The text between the quotation marks of a Warning header.
fn warning(header: &str) -> &str {
    let text = header.split_once('"').map_or(header, |(_, text)| text);
    text.trim_end_matches('"')
}

/// A Table's name, own column and age, as kubectl prints them.
fn rows(table: &Value) -> Vec<String> {
    let wanted = ["Name", "Honk", "Age"];
    let columns = table["columnDefinitions"].as_array().into_iter().flatten();
    let names: Vec<String> = columns.map(|column| text(&column["name"])).collect();
    let place = |wanted: &&str| names.iter().position(|name| name == wanted);
    let places: Vec<usize> = wanted.iter().filter_map(place).collect();
    let line = |cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:<10}")).collect();
        cells.concat().trim_end().to_owned()
    };
    let head = line(places.iter().map(|&at| names[at].to_uppercase()).collect());
    let rows = table["rows"].as_array().into_iter().flatten();
    let row = |row: &Value| line(places.iter().map(|&at| text(&row["cells"][at])).collect());
    std::iter::once(head).chain(rows.map(row)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_printed_as_kubectl_does() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Age"}, {"name": "Honk"}],
            "rows": [{"cells": ["akka", "3s", "low"]}],
        });
        assert_eq!(
            rows(&table),
            ["NAME      HONK      AGE", "akka      low       3s"]
        );
        assert_eq!(rows(&Value::Null), [""]);
    }

    #[test]
    fn a_warning_is_shown_without_its_wrapping() {
        assert_eq!(warning("299 - \"as of 3 s ago\""), "as of 3 s ago");
        assert_eq!(warning("odd"), "odd");
    }
}
