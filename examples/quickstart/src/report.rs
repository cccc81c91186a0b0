//! What was promised, what was seen: the same for the terminal and for `--json`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// What the hub promises; the quickstart is there to see each one kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    Same,
    OneList,
    Noticed,
    Reads,
    Refused,
    WatchOpen,
    Restart,
    Resume,
    OnceEach,
    Prompt,
    Delta,
}

/// What became of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Kept,
    Broken,
    /// The story ended before its turn.
    Untried,
}

/// A promise, and what was seen of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    #[serde(serialize_with = "in_words")]
    pub(crate) promise: Promise,
    pub(crate) outcome: Outcome,
    pub(crate) seen: String,
}

/// One line of the story.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fact {
    pub(crate) text: String,
    #[serde(rename = "millis", serialize_with = "millis")]
    pub(crate) took: Option<Duration>,
    pub(crate) link_bytes: Option<u64>,
    /// Whether it is as promised, where something was.
    pub(crate) is_good: Option<bool>,
}

/// A chapter of the story.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) title: String,
    pub(crate) facts: Vec<Fact>,
}

/// The whole of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) cloud: String,
    pub(crate) steps: Vec<Step>,
    verdicts: BTreeMap<Promise, (Outcome, String)>,
    /// What ended the story early, beside the promises.
    pub(crate) interruption: Option<String>,
}

/// What `--json` writes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    is_kept: bool,
    #[serde(rename = "millis", serialize_with = "millis")]
    took: Option<Duration>,
    cloud: &'a str,
    interruption: Option<&'a str>,
    promises: Vec<Verdict>,
    steps: &'a [Step],
}

// === Promise ===

impl Promise {
    /// All of them, in the order of the story.
    pub(crate) const ALL: [Self; 11] = [
        Self::Same,
        Self::OneList,
        Self::Noticed,
        Self::Reads,
        Self::Refused,
        Self::WatchOpen,
        Self::Restart,
        Self::Resume,
        Self::OnceEach,
        Self::Prompt,
        Self::Delta,
    ];

    /// The promise as a sentence.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Same => "the hub answers what the cloud would",
            Self::OneList => "ten clients cost the cloud one list",
            Self::Noticed => "a silent cut costs a reader 8 s at most",
            Self::Reads => "cut off, reads are answered",
            Self::Refused => "cut off, a write is refused, not lost",
            Self::WatchOpen => "cut off, the watch stays open",
            Self::Restart => "a killed hub knows what it knew",
            Self::Resume => "the watch resumes over the restart",
            Self::OnceEach => "what happened meanwhile arrives, once",
            Self::Prompt => "and within 2 s of the link's return",
            Self::Delta => "and costs the difference, not a list",
        }
    }
}

// === Report ===

impl Report {
    /// Notes what was seen of a promise; one that is broken stays broken.
    pub(crate) fn judge(&mut self, promise: Promise, is_kept: bool, seen: String) {
        let outcome = if is_kept {
            Outcome::Kept
        } else {
            Outcome::Broken
        };
        match self.verdicts.get(&promise) {
            Some((Outcome::Broken, _)) => {}
            _ => drop(self.verdicts.insert(promise, (outcome, seen))),
        }
    }

    /// Every promise and what became of it.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |promise| {
            let known = self.verdicts.get(&promise).cloned();
            let (outcome, seen) =
                known.unwrap_or((Outcome::Untried, "the story ended before".to_owned()));
            Verdict {
                promise,
                outcome,
                seen,
            }
        };
        Promise::ALL.into_iter().map(verdict).collect()
    }

    /// Whether every promise was tried and kept.
    pub(crate) fn is_kept(&self) -> bool {
        let verdicts = self.verdicts();
        self.interruption.is_none()
            && verdicts
                .iter()
                .all(|verdict| verdict.outcome == Outcome::Kept)
    }

    /// The report as data.
    pub(crate) fn json(&self, took: Duration) -> String {
        let document = Document {
            is_kept: self.is_kept(),
            took: Some(took),
            cloud: &self.cloud,
            interruption: self.interruption.as_deref(),
            promises: self.verdicts(),
            steps: &self.steps,
        };
        let mut text =
            serde_json::to_string_pretty(&document).expect("texts and numbers are always JSON");
        text.push('\n');
        text
    }
}

// === Fact ===

impl Fact {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(crate) fn took(self, took: Duration) -> Self {
        Self {
            took: Some(took),
            ..self
        }
    }

    pub(crate) fn on_the_link(self, bytes: u64) -> Self {
        Self {
            link_bytes: Some(bytes),
            ..self
        }
    }

    pub(crate) fn good(self, is_good: bool) -> Self {
        Self {
            is_good: Some(is_good),
            ..self
        }
    }
}

fn in_words<S: Serializer>(promise: &Promise, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(promise.words())
}

fn millis<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds are as fine as anybody can use.
    let millis = took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3);
    millis.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kept() -> Report {
        let mut report = Report::default();
        for promise in Promise::ALL {
            report.judge(promise, true, "seen".to_owned());
        }
        report
    }

    #[test]
    fn only_a_report_of_kept_promises_is_kept() {
        assert!(all_kept().is_kept());
        assert!(!Report::default().is_kept());
        for promise in Promise::ALL {
            let mut report = all_kept();
            report.judge(promise, false, "something else".to_owned());
            assert!(!report.is_kept(), "{promise:?}");
        }
        let mut report = all_kept();
        report.interruption = Some("Ctrl-C".to_owned());
        assert!(!report.is_kept());
    }

    #[test]
    fn a_broken_promise_stays_broken() {
        let mut report = all_kept();
        report.judge(Promise::Refused, false, "it was written".to_owned());
        report.judge(Promise::Refused, true, "503".to_owned());
        let verdict = &report.verdicts()[4];
        assert_eq!(
            (verdict.promise, verdict.outcome),
            (Promise::Refused, Outcome::Broken)
        );
        assert_eq!(verdict.seen, "it was written");
    }

    #[test]
    fn the_data_names_what_was_not_kept_and_not_tried() {
        let mut report = Report::default();
        report.judge(Promise::Same, false, "another list".to_owned());
        let json: serde_json::Value =
            serde_json::from_str(&report.json(Duration::from_millis(1500))).unwrap();
        assert_eq!(json["isKept"], false);
        assert_eq!(json["millis"], 1500.0);
        assert_eq!(
            json["promises"][0]["promise"],
            "the hub answers what the cloud would"
        );
        assert_eq!(json["promises"][0]["outcome"], "broken");
        assert_eq!(json["promises"][0]["seen"], "another list");
        assert_eq!(json["promises"][1]["outcome"], "untried");
        assert_eq!(json["promises"].as_array().unwrap().len(), 11);
    }
}
