//! What a drill shows: a line for each step.

use std::{fmt, time::Duration};

/// One step of a drill.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What was so at its end.
    pub what: String,
    /// How long it took.
    pub took: Duration,
    /// How long it may take.
    pub target: Option<Duration>,
}

/// What a drill has shown.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was drilled.
    pub title: String,
    /// In the order in which they came.
    pub steps: Vec<Step>,
    /// The most memory that the hub had in RAM, in bytes.
    pub hub_peak: u64,
}

/// What the hub may have in RAM, in bytes.
const HUB_TARGET: u64 = 15_000_000;

impl Step {
    /// Returns whether it took no longer than it may.
    #[must_use]
    pub fn is_in_time(&self) -> bool {
        self.target.is_none_or(|target| self.took <= target)
    }
}

impl Report {
    /// Returns whether every step was in time and the hub stayed small.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.hub_peak <= HUB_TARGET && self.steps.iter().all(Step::is_in_time)
    }

    pub(super) fn step(&mut self, what: &str, took: Duration, target: Option<Duration>) {
        self.steps.push(Step {
            what: what.to_owned(),
            took,
            target,
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(f, "  {:>8}  {:>8}", "seconds", "target")?;
        for step in &self.steps {
            let target = step.target.map_or_else(String::new, |target| {
                format!(
                    "{} {}",
                    if step.is_in_time() { "≤" } else { "missed" },
                    target.as_secs()
                )
            });
            writeln!(
                f,
                "  {:>8.1}  {target:>8}  {}",
                step.took.as_secs_f64(),
                step.what
            )?;
        }
        let verdict = if self.hub_peak <= HUB_TARGET {
            "≤ 15"
        } else {
            "missed 15"
        };
        let peak = self.hub_peak / 100_000;
        write!(
            f,
            "  {:>8}  {verdict:>8}  MB of RAM at most for the hub",
            format!("{}.{}", peak / 10, peak % 10)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_that_names_what_was_missed() {
        let mut report = Report {
            title: "a drill".to_owned(),
            hub_peak: 12_340_000,
            ..Report::default()
        };
        report.step(
            "both pods run",
            Duration::from_millis(7_900),
            Some(Duration::from_secs(8)),
        );
        assert!(report.is_met());
        report.step(
            "the Service answers",
            Duration::from_millis(5_100),
            Some(Duration::from_secs(5)),
        );
        assert!(!report.is_met());
        assert_eq!(
            report.to_string(),
            "a drill\n   seconds    target\n       7.9       ≤ 8  both pods run\n       5.1  missed 5  the Service answers\n      12.3      ≤ 15  MB of RAM at most for the hub"
        );
    }
}
