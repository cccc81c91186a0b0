//! What is read through the hub, against what the server says itself.

use futures_util::{StreamExt, stream};
use serde_json::Value;
use testbed::{
    client::{Answer, Client},
    link::Cut,
    semantics::place::revision,
};

use crate::{
    checks::{self, Checks, cut, difference, same, settled},
    rows::{self, Offline, Row},
    site::{PATIENCE, Site},
    world::{self, COLLECTIONS},
};

/// Reads every row of the world five times: online, cut off loudly, cut off silently, after a power cut of the
/// hub while cut off, and online again.
#[tokio::test]
#[ignore = "needs kube-apiserver"]
async fn every_read_through_the_hub_is_what_the_server_says() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    let floor = warm(&site).await;
    let rows = with_revisions(floor);

    let truth = read(&site.direct, &rows).await;
    let mut checks = Checks::new("online");
    for ((row, truth), got) in rows.iter().zip(&truth).zip(read(&site.hub, &rows).await) {
        checks.check(&row.name(), online(floor, truth, &got));
    }
    let mut groups = vec![checks];

    for how in [Cut::Refuse, Cut::Silent] {
        warm(&site).await;
        let (_, took) = site.cut(how, "/api/v1/namespaces/world/configmaps").await;
        println!("{how:?}: first answer after {took:?}");
        groups.push(
            offline_checks(
                if how == Cut::Refuse {
                    "refused"
                } else {
                    "silent"
                },
                &site.hub,
                floor,
                &rows,
                &truth,
            )
            .await,
        );
        let took = site.mend().await;
        println!("{how:?}: mended after {took:?}");
    }

    warm(&site).await;
    site.cut(Cut::Refuse, "/api/v1/namespaces/world/configmaps")
        .await;
    site.kill_hub();
    site.start_hub().await;
    groups.push(offline_checks("restarted", &site.hub, floor, &rows, &truth).await);

    site.mend().await;
    let mut checks = Checks::new("back");
    let truth = read(&site.direct, &rows).await;
    for ((row, truth), got) in rows.iter().zip(&truth).zip(read(&site.hub, &rows).await) {
        checks.check(&row.name(), online(floor, truth, &got));
    }
    groups.push(checks);
    checks::finish_all(groups);
}

async fn offline_checks(
    group: &'static str,
    hub: &Client,
    floor: u64,
    rows: &[Row],
    truth: &[Answer],
) -> Checks {
    let mut checks = Checks::new(group);
    for ((row, truth), got) in rows.iter().zip(truth).zip(read(hub, rows).await) {
        checks.check(&row.name(), offline(row, floor, truth, &got));
    }
    checks
}

/// Makes the hub hold every collection, up to a revision that it returns.
pub(crate) async fn warm(site: &Site) -> u64 {
    let floor = revision(
        &site
            .direct
            .get("/api/v1/configmaps?limit=1")
            .await
            .unwrap()
            .expect(200),
    );
    for collection in COLLECTIONS {
        hold(&site.hub, &collection.all()).await;
    }
    floor
}

/// Makes the hub hold a collection as it is now, and returns its revision.
pub(crate) async fn hold(hub: &Client, path: &str) -> u64 {
    let path = format!(
        "{path}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    initial_events_end(hub, &path)
        .await
        .unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Watches until the initial events end, and returns the revision that the bookmark gives.
pub(crate) async fn initial_events_end(client: &Client, path: &str) -> Result<u64, String> {
    let mut watch = client
        .watch(path)
        .await
        .map_err(|error| error.to_string())?;
    loop {
        let event = watch
            .next(PATIENCE)
            .await
            .map_err(|error| error.to_string())?;
        let event = event.ok_or("ended before the initial events did")?;
        if event.kind == "ERROR" {
            return Err(event.object.to_string());
        }
        if event.kind == "BOOKMARK"
            && event.object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
        {
            return Ok(revision(&event.object));
        }
    }
}

fn with_revisions(floor: u64) -> Vec<Row> {
    let mut rows = rows::all();
    for row in &mut rows {
        row.path = row
            .path
            .replace("{now}", &floor.to_string())
            .replace("{future}", "4294967295");
    }
    rows
}

async fn read(client: &Client, rows: &[Row]) -> Vec<Answer> {
    let read = |row: Row| async move {
        let answer = client.get_as(&row.path, row.accept).await;
        answer.unwrap_or_else(|error| Answer {
            code: 0,
            headers: Default::default(),
            body: format!("no answer: {error:?}").into(),
        })
    };
    stream::iter(rows.to_vec())
        .map(read)
        .buffered(6)
        .collect()
        .await
}

fn online(floor: u64, truth: &Answer, got: &Answer) -> Result<(), String> {
    same(truth, got)?;
    known_revision(floor, truth, got)
}

fn offline(row: &Row, floor: u64, truth: &Answer, got: &Answer) -> Result<(), String> {
    match row.offline {
        Offline::Same => {
            same(truth, got)?;
            known_revision(floor, truth, got)?;
            aged(row, truth, got)
        }
        Offline::Table => table(truth, got),
        Offline::SameOrUnavailable if got.code == 503 => status(got, 503, "ServiceUnavailable"),
        Offline::SameOrUnavailable => same(truth, got),
        Offline::SameRefusal if truth.code == 500 && got.code == 400 => {
            status(got, 400, "BadRequest")
        }
        Offline::SameRefusal => status(
            got,
            truth.code,
            truth.json()["reason"].as_str().unwrap_or_default(),
        ),
        Offline::Expired => status(got, 410, "Expired"),
        Offline::SameOrNotAcceptable if got.code == 406 => status(got, 406, "NotAcceptable"),
        Offline::SameOrNotAcceptable => same(truth, got),
        Offline::Refused if (400..=599).contains(&got.code) => status(
            got,
            got.code,
            got.json()["reason"].as_str().unwrap_or_default(),
        ),
        Offline::Refused => Err(format!(
            "expected a refusal, got {}: {}",
            got.code,
            cut(&got.text())
        )),
    }
}

/// A list's revision is at least that of its newest item, and what was waited for.
fn known_revision(floor: u64, truth: &Answer, got: &Answer) -> Result<(), String> {
    let (truth, got) = (truth.json(), got.json());
    let is_list = |value: &Value| value["items"].is_array();
    if !is_list(&truth) || got["metadata"]["resourceVersion"].is_null() {
        return Ok(());
    }
    let of = |value: &Value| {
        value["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let list = of(&got).ok_or_else(|| {
        format!(
            "the list's revision is {}",
            got["metadata"]["resourceVersion"]
        )
    })?;
    let newest = got["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(of)
        .max()
        .unwrap_or(0);
    let asked_past = of(&truth).is_some_and(|revision| revision < floor);
    if list < newest || (list < floor && !asked_past) {
        return Err(format!(
            "the list's revision {list} is older than {}",
            newest.max(floor)
        ));
    }
    Ok(())
}

/// A list from memory that was asked for without a revision says how old it is.
fn aged(row: &Row, truth: &Answer, got: &Answer) -> Result<(), String> {
    let is_unset = !row.path.contains("resourceVersion") && !row.path.contains("watch=");
    let is_discovery = row.accept.contains("discovery");
    if !is_unset || is_discovery || truth.code != 200 || !got.json()["items"].is_array() {
        return Ok(());
    }
    match got.header("warning") {
        "" => Err("no Warning that says how old it is".to_owned()),
        warning if warning.starts_with("299 ") => Ok(()),
        warning => Err(format!("Warning is {warning:?}")),
    }
}

fn status(got: &Answer, code: u16, reason: &str) -> Result<(), String> {
    let body = got.json();
    let is_it = got.code == code
        && body["kind"] == "Status"
        && body["apiVersion"] == "v1"
        && body["status"] == "Failure"
        && body["code"] == code
        && body["reason"].as_str().unwrap_or_default() == reason
        && body["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty())
        && got.header("content-type") == "application/json";
    if is_it {
        Ok(())
    } else {
        Err(format!(
            "expected {code} {reason}, got {} {}: {}",
            got.code,
            got.header("content-type"),
            cut(&got.text())
        ))
    }
}

fn table(truth: &Answer, got: &Answer) -> Result<(), String> {
    if truth.code != 200 {
        return same(truth, got);
    }
    if (got.code, got.header("content-type")) != (200, truth.header("content-type")) {
        return Err(format!(
            "got {} {}: {}",
            got.code,
            got.header("content-type"),
            cut(&got.text())
        ));
    }
    let (truth, got) = (settled(truth.json()), settled(got.json()));
    if got["kind"] != "Table" {
        return Err(format!("kind {}", got["kind"]));
    }
    let columns = |table: &Value| -> Vec<String> {
        let columns = table["columnDefinitions"].as_array().into_iter().flatten();
        columns
            .filter_map(|column| Some(column["name"].as_str()?.to_owned()))
            .collect()
    };
    let (wanted, had) = (columns(&truth), columns(&got));
    let is_custom = wanted.iter().any(|name| name == "Colour");
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| (is_custom || *name == "Name") && !had.contains(name))
        .collect();
    if !missing.is_empty() {
        return Err(format!("columns {missing:?} are missing of {had:?}"));
    }
    if is_custom
        && let Some(place) = difference(
            &truth["columnDefinitions"],
            &got["columnDefinitions"],
            ".columnDefinitions",
        )
    {
        return Err(place);
    }
    let rows =
        |table: &Value| -> Vec<Value> { table["rows"].as_array().cloned().unwrap_or_default() };
    let (wanted_rows, had_rows) = (rows(&truth), rows(&got));
    if wanted_rows.len() != had_rows.len() {
        return Err(format!(
            "expected {} rows, got {}",
            wanted_rows.len(),
            had_rows.len()
        ));
    }
    for (a, b) in wanted_rows.iter().zip(&had_rows) {
        if let Some(place) = difference(&a["object"], &b["object"], ".object") {
            return Err(place);
        }
        for (at, name) in wanted.iter().enumerate().filter(|(_, name)| *name != "Age") {
            let same = had.iter().position(|other| other == name);
            if is_custom && same.is_some_and(|there| a["cells"][at] != b["cells"][there])
                || *name == "Name" && b["cells"][0] != a["cells"][at]
            {
                return Err(format!(
                    "{name}: expected {}, got {}",
                    a["cells"], b["cells"]
                ));
            }
        }
    }
    Ok(())
}
