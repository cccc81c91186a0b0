//! The Node condition `Autonomy`: what the report says to the cloud, and when it is worth a write.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, Report};

/// The condition's type, as OpenYurt's users know it.
pub(crate) const TYPE: &str = "Autonomy";

/// The field manager of the condition, and of nothing else.
pub(crate) const MANAGER: &str = "yurthub-autonomy";

/// The reason where there is nothing to complain of.
const WELL: &str = "WouldSurviveReboot";

/// How much longer than between two looks it takes until a condition is only worded differently, or tried
/// again after the cloud refused it.
const SELDOM: u32 = 10;

/// The longest message, in bytes: the API takes more, and nobody reads it.
const MESSAGE_LIMIT: usize = 1_024;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Since when the status is what it is.
    pub(crate) since: Timestamp,
}

/// What the cloud is known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Absent,
    Present(Condition),
}

/// The last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// How long it is ago.
    pub(crate) ago: Duration,
    pub(crate) was_refused: bool,
}

/// Returns what is to be written, if anything is to be now; `pause` is the least time between two writes.
pub(crate) fn plan(
    report: &Report,
    seen: &Seen,
    last: Option<Attempt>,
    pause: Duration,
    now: Timestamp,
) -> Option<Condition> {
    let said = Said::of(report);
    let (is_changed, since) = match seen {
        Seen::Absent => (true, now),
        Seen::Present(before) => {
            let is_changed = before.status != said.status || before.reason != said.reason;
            if !is_changed && before.message == said.message {
                return None;
            }
            let is_same = before.status == said.status;
            (is_changed, if is_same { before.since } else { now })
        }
    };
    let is_urgent = is_changed && !last.is_some_and(|last| last.was_refused);
    let pause = if is_urgent { pause } else { pause * SELDOM };
    if last.is_some_and(|last| last.ago < pause) {
        return None;
    }
    Some(Condition {
        status: said.status.to_owned(),
        reason: said.reason.to_owned(),
        message: said.message,
        since,
    })
}

/// A condition without its time.
struct Said {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Said {
    fn of(report: &Report) -> Self {
        let outcome = report.outcome();
        let status = match outcome {
            Outcome::Holds => "True",
            Outcome::Fails => "False",
            Outcome::Unknown => "Unknown",
        };
        if outcome == Outcome::Holds {
            let until = report
                .until
                .map_or_else(String::new, |until| format!(" until {until}"));
            return Self {
                status,
                reason: WELL,
                message: format!("the node would survive a reboot without the cloud{until}"),
            };
        }
        let found: Vec<String> = report
            .with(outcome)
            .map(|one| format!("{}: {}", one.check.as_str(), one.sentence))
            .collect();
        let first = report.with(outcome).next();
        Self {
            status,
            reason: first.map_or("NotObserved", |one| one.check.as_str()),
            message: shortened(found.join("; ")),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MESSAGE_LIMIT {
        let end = (0..=MESSAGE_LIMIT)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<Value>,
}

/// Reads the condition off a Node; `None` if these bytes are none.
pub(crate) fn read(node: &[u8]) -> Option<Seen> {
    let node: Node = serde_json::from_slice(node).ok()?;
    let mut conditions = node.status.conditions.iter();
    let Some(found) = conditions.find(|one| one.get("type") == Some(&TYPE.into())) else {
        return Some(Seen::Absent);
    };
    let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
    Some(Seen::Present(Condition {
        status: text("status").to_owned(),
        reason: text("reason").to_owned(),
        message: text("message").to_owned(),
        since: text("lastTransitionTime").parse().unwrap_or_default(),
    }))
}

/// Returns the patch for a server-side apply: the condition alone, so that nobody else's is touched.
pub(crate) fn patch(node: &str, condition: &Condition, now: Timestamp) -> Value {
    // As Kubernetes writes times: whole seconds.
    let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node },
        "status": { "conditions": [{
            "type": TYPE,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastHeartbeatTime": time(now),
            "lastTransitionTime": time(condition.since),
        }]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autonomy::{Check, Finding};

    fn report(findings: &[(Check, Outcome, &str)]) -> Report {
        let finding = |(check, outcome, sentence): &(Check, Outcome, &str)| Finding {
            check: *check,
            outcome: *outcome,
            sentence: (*sentence).to_owned(),
            detail: "7 left".to_owned(),
        };
        Report {
            findings: findings.iter().map(finding).collect(),
            until: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ago(seconds: u64, was_refused: bool) -> Option<Attempt> {
        Some(Attempt {
            ago: Duration::from_secs(seconds),
            was_refused,
        })
    }

    const PAUSE: Duration = Duration::from_secs(10);

    const WELL_NOW: (Check, Outcome, &str) = (Check::KubeletScopes, Outcome::Holds, "well");
    const BAD: (Check, Outcome, &str) = (Check::StoreDurable, Outcome::Fails, "full");

    #[test]
    fn the_first_failure_gives_the_reason_and_every_one_is_told() {
        let both = report(&[
            WELL_NOW,
            BAD,
            (Check::StoreSpace, Outcome::Unknown, "who knows"),
            (Check::StoreDamage, Outcome::Fails, "damaged"),
        ]);
        let condition = plan(&both, &Seen::Absent, None, PAUSE, at(5)).unwrap();
        assert_eq!(
            (&*condition.status, &*condition.reason, &*condition.message),
            (
                "False",
                "StoreDurable",
                "StoreDurable: full; StoreDamage: damaged"
            )
        );
        let well = plan(&report(&[WELL_NOW]), &Seen::Absent, None, PAUSE, at(5)).unwrap();
        assert_eq!((&*well.status, &*well.reason), ("True", WELL));
        let none = plan(&Report::default(), &Seen::Absent, None, PAUSE, at(5)).unwrap();
        assert_eq!((&*none.status, &*none.reason), ("Unknown", "NotObserved"));
    }

    #[test]
    fn what_the_cloud_has_is_not_written_again_and_what_it_lost_is() {
        let well = report(&[WELL_NOW]);
        let first = plan(&well, &Seen::Absent, None, PAUSE, at(5)).unwrap();
        let seen = Seen::Present(first.clone());
        assert_eq!(plan(&well, &seen, None, PAUSE, at(1_000)), None);
        let again = plan(&well, &Seen::Absent, ago(60, false), PAUSE, at(1_000)).unwrap();
        assert_eq!((again.status, again.since), (first.status, at(1_000)));
    }

    #[test]
    fn only_another_status_is_a_transition() {
        let seen = |report: &Report| {
            Seen::Present(plan(report, &Seen::Absent, None, PAUSE, at(5)).unwrap())
        };
        let bad = report(&[BAD]);
        let worse = report(&[(Check::StoreSpace, Outcome::Fails, "full"), BAD]);
        let other_reason = plan(&worse, &seen(&bad), ago(60, false), PAUSE, at(100)).unwrap();
        assert_eq!(other_reason.since, at(5));
        let well = plan(
            &report(&[WELL_NOW]),
            &seen(&bad),
            ago(60, false),
            PAUSE,
            at(100),
        )
        .unwrap();
        assert_eq!(well.since, at(100));
    }

    #[test]
    fn writes_keep_their_distance() {
        let bad = report(&[BAD]);
        let reworded = report(&[(BAD.0, BAD.1, "fuller")]);
        let seen = Seen::Present(plan(&bad, &Seen::Absent, None, PAUSE, at(5)).unwrap());
        let well = report(&[WELL_NOW]);
        for (report, last, is_written) in [
            (&well, None, true),
            (&well, ago(9, false), false),
            (&well, ago(10, false), true),
            (&well, ago(60, true), false),
            (&well, ago(100, true), true),
            (&reworded, ago(99, false), false),
            (&reworded, ago(100, false), true),
        ] {
            let written = plan(report, &seen, last, PAUSE, at(900));
            assert_eq!(written.is_some(), is_written, "{last:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let condition = plan(&report(&[BAD]), &Seen::Absent, None, PAUSE, at(5)).unwrap();
        let mut node = patch("n1", &condition, at(7));
        let others = node["status"]["conditions"].as_array_mut().unwrap();
        others.insert(0, json!({"type": "Ready", "status": "True"}));
        assert_eq!(
            read(node.to_string().as_bytes()),
            Some(Seen::Present(condition))
        );
        assert_eq!(read(b"{\"metadata\":{}}"), Some(Seen::Absent));
        assert_eq!(read(b"[1"), None);
    }

    #[test]
    fn a_message_ends_somewhere() {
        let long = report(&[(Check::PodObjects, Outcome::Fails, &"ü".repeat(5_000))]);
        let condition = plan(&long, &Seen::Absent, None, PAUSE, at(5)).unwrap();
        assert!(
            condition.message.len() <= MESSAGE_LIMIT + 3,
            "{}",
            condition.message.len()
        );
    }
}
