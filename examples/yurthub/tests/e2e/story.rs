//! What a watch tells, and how two tellings of the same are compared.

use std::time::Duration;

use serde_json::Value;
use testbed::client::{Event, Watch};

use crate::{
    checks::{cut, difference},
    site::PATIENCE,
};

/// What a watch told until it ended.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) code: u16,
    content_type: String,
    refusal: Value,
    /// Without bookmarks.
    pub(crate) events: Vec<Event>,
    bookmarks: usize,
    ends_of_initial_events: usize,
}

/// Reads a watch to its end.
pub(crate) async fn told(mut watch: Watch) -> Story {
    let content_type = watch
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut story = Story {
        code: watch.code,
        content_type,
        refusal: Value::Null,
        events: Vec::new(),
        bookmarks: 0,
        ends_of_initial_events: 0,
    };
    if watch.code != 200 {
        // A refusal is one line of JSON.
        story.refusal = watch
            .next(Duration::from_secs(5))
            .await
            .ok()
            .flatten()
            .map(|e| e.object)
            .unwrap_or_default();
        return story;
    }
    loop {
        match watch.next(PATIENCE).await {
            Ok(Some(event)) if event.kind == "BOOKMARK" => {
                story.bookmarks += 1;
                if event.object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true" {
                    story.ends_of_initial_events += 1;
                }
            }
            Ok(Some(event)) => story.events.push(event),
            Ok(None) => return story,
            Err(error) => {
                story.events.push(Event {
                    kind: format!("BROKEN {error}"),
                    object: Value::Null,
                });
                return story;
            }
        }
    }
}

/// Compares two stories of the same watch.
pub(crate) fn same_story(truth: &Story, got: &Story, path: &str, state: u64) -> Result<(), String> {
    if (truth.code, &truth.content_type) != (got.code, &got.content_type) {
        return Err(format!(
            "expected {} {}, got {} {}",
            truth.code, truth.content_type, got.code, got.content_type
        ));
    }
    if let Some(place) = difference(&truth.refusal, &got.refusal, "") {
        return Err(place);
    }
    same_events(&truth.events, &got.events, state)?;
    if truth.ends_of_initial_events != got.ends_of_initial_events {
        return Err(format!(
            "expected {} ends of the initial events, got {}",
            truth.ends_of_initial_events, got.ends_of_initial_events
        ));
    }
    // One before the end is welcome; none comes unasked.
    let may_come = path.contains("allowWatchBookmarks");
    if (truth.bookmarks > 0 && got.bookmarks == 0) || (got.bookmarks > 0 && !may_come) {
        return Err(format!(
            "expected {} bookmarks, got {}",
            truth.bookmarks, got.bookmarks
        ));
    }
    Ok(())
}

/// Compares what happened, event by event and in its order; the state at the beginning, up to the revision `state`,
/// comes in any order.
pub(crate) fn same_events(truth: &[Event], got: &[Event], state: u64) -> Result<(), String> {
    let short = |events: &[Event]| {
        let told = events.iter().map(|event| {
            format!(
                "{} {} {}",
                event.kind,
                event.object["metadata"]["name"].as_str().unwrap_or("?"),
                event.object["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap_or("?")
            )
        });
        told.collect::<Vec<_>>().join(", ")
    };
    let (truth, got) = (in_order(truth, state), in_order(got, state));
    if truth.len() != got.len() {
        return Err(format!(
            "expected {} events [{}]\n         got {} [{}]",
            truth.len(),
            cut(&short(&truth)),
            got.len(),
            cut(&short(&got))
        ));
    }
    for (at, (a, b)) in truth.iter().zip(&got).enumerate() {
        let place = if a.kind == b.kind {
            difference(&settled(&a.object), &settled(&b.object), "")
        } else {
            Some(format!(
                "expected {}, got {}: {}",
                a.kind,
                b.kind,
                cut(&b.object.to_string())
            ))
        };
        if let Some(place) = place {
            return Err(format!(
                "event {at} ({} {}): {place}\n  expected {}\n       got {}",
                a.kind,
                a.object["metadata"]["name"],
                cut(&short(&truth)),
                cut(&short(&got))
            ));
        }
    }
    Ok(())
}

/// Sorts the state with which a watch begins; what comes after it stays as it came.
fn in_order(events: &[Event], state: u64) -> Vec<Event> {
    let revision = |event: &Event| {
        let text = event.object["metadata"]["resourceVersion"].as_str();
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut events = events.to_vec();
    let begins = events
        .iter()
        .take_while(|event| revision(event) <= state)
        .count();
    events[..begins].sort_by_key(revision);
    events
}

/// What an error says of numbers differs from one server to the next.
fn settled(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] == "Status" {
        object["message"] = Value::Null;
    }
    object
}

/// Reads events until one about `name`, which is the last; bookmarks are left out.
pub(crate) async fn until(watch: &mut Watch, name: &str) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = watch
            .next(PATIENCE)
            .await
            .unwrap_or_else(|error| panic!("waiting for {name}: {error}, after {events:?}"));
        let event =
            event.unwrap_or_else(|| panic!("the watch ended before {name}, after {events:?}"));
        if event.kind == "BOOKMARK" {
            continue;
        }
        let is_last = event.object["metadata"]["name"] == name;
        events.push(event);
        if is_last {
            return events;
        }
    }
}
