//! What the drill of the short returns shows: a line for each round, and for what went wrong what everybody knew.

use std::{collections::BTreeSet, fmt, time::Duration};

use crate::node::{Cut, Poll};

/// How soon after its pods run the Service has to answer.
const ANSWERING: Duration = Duration::from_secs(1);

/// All rounds.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// What was drilled.
    pub title: String,
    /// In the order in which they came.
    pub rounds: Vec<Round>,
}

/// One round: the power fails while the link is cut, and the link comes back.
#[derive(Clone, Debug)]
pub struct Round {
    /// How the link is cut.
    pub cut: Cut,
    /// For how long the link comes back; `None` for good.
    pub back_for: Option<Duration>,
    /// How long after the power was back the kubelet says that both pods are ready, in new containers.
    pub running: Duration,
    /// How long after that the Service answers, and goes on to; or what the last poll met.
    pub answering: Result<Duration, String>,
    /// How many polls there were at the link's return and after.
    pub polls: usize,
    /// Why some of them were not answered.
    pub failures: Vec<String>,
    /// The revision of the list that kube-proxy is told: before the power failed, and at the end.
    pub told: [u64; 2],
    /// The cloud's own at the end.
    pub cloud: u64,
    /// What everybody knew when something was wrong.
    pub knew: Option<Knew>,
}

/// Who knew which addresses of the Service, and of which revision the slice was.
#[derive(Clone, Debug)]
pub struct Knew {
    /// When that was.
    pub when: &'static str,
    /// The addresses that the pods have.
    pub pods: BTreeSet<String>,
    /// What the hub lists.
    pub hub: (u64, BTreeSet<String>),
    /// Where kube-proxy's rules lead.
    pub rules: BTreeSet<String>,
    /// What the cloud has.
    pub cloud: (u64, BTreeSet<String>),
}

impl Round {
    /// Returns whether the Service answered soon and no poll failed.
    #[must_use]
    pub fn is_met(&self) -> bool {
        let is_soon = matches!(self.answering, Ok(took) if took <= ANSWERING);
        is_soon && self.polls > 0 && self.failures.is_empty()
    }

    pub(super) fn note_polls(&mut self, polls: &[Poll]) {
        self.polls = polls.len();
        let failures = polls.iter().filter_map(Poll::failure);
        self.failures = failures.map(str::to_owned).collect();
    }
}

impl Rounds {
    /// Returns whether all rounds went as they have to.
    #[must_use]
    pub fn is_met(&self) -> bool {
        !self.rounds.is_empty() && self.rounds.iter().all(Round::is_met)
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "  {:>5}  {:<8}  {:>9}  {:>8}  {:>11}  {:>12}  {:>17}  {:>6}",
            "round",
            "cut",
            "link back",
            "pods run",
            "Service",
            "polls failed",
            "told by the hub",
            "cloud"
        )?;
        for (round, number) in self.rounds.iter().zip(1..) {
            writeln!(f, "  {number:>5}  {round}")?;
        }
        let seconds = ANSWERING.as_secs();
        write!(
            f,
            "  The Service has to answer {seconds} s after the pods run at the latest, and each poll once the link is back."
        )
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = match self.cut {
            Cut::Silent => "silent",
            Cut::Unplugged => "unplugged",
        };
        let back = self.back_for.map_or_else(
            || "for good".to_owned(),
            |time| format!("{:.1} s", time.as_secs_f64()),
        );
        let service = match &self.answering {
            Ok(took) => format!("{:.2} s later", took.as_secs_f64()),
            Err(_) => "dead".to_owned(),
        };
        let failed = format!("{} of {}", self.failures.len(), self.polls);
        let told = format!("{} → {}", self.told[0], self.told[1]);
        write!(
            f,
            "{cut:<8}  {back:>9}  {:>6.1} s  {service:>11}  {failed:>12}  {told:>17}  {:>6}",
            self.running.as_secs_f64(),
            self.cloud
        )?;
        if self.is_met() {
            return Ok(());
        }
        if let Err(last) = &self.answering {
            write!(f, "\n         the Service was not answered: {last}")?;
        }
        let whys: BTreeSet<&str> = self.failures.iter().map(String::as_str).collect();
        for why in whys {
            let count = self
                .failures
                .iter()
                .filter(|failure| *failure == why)
                .count();
            write!(f, "\n         {count} polls: {why}")?;
        }
        self.knew.iter().try_for_each(|knew| write!(f, "\n{knew}"))
    }
}

impl fmt::Display for Knew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |addresses: &BTreeSet<String>| {
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            if addresses.is_empty() {
                "nothing".to_owned()
            } else {
                addresses.join(", ")
            }
        };
        writeln!(f, "         {}:", self.when)?;
        writeln!(
            f,
            "           the pods have              {}",
            list(&self.pods)
        )?;
        let (revision, addresses) = &self.hub;
        writeln!(
            f,
            "           the hub lists              {}, the slice at {revision}",
            list(addresses)
        )?;
        writeln!(
            f,
            "           kube-proxy's rules lead to {}",
            list(&self.rules)
        )?;
        let (revision, addresses) = &self.cloud;
        write!(
            f,
            "           the cloud has              {}, the slice at {revision}",
            list(addresses)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round() -> Round {
        Round {
            cut: Cut::Silent,
            back_for: Some(Duration::from_millis(300)),
            running: Duration::from_millis(3_100),
            answering: Ok(Duration::from_millis(400)),
            polls: 66,
            failures: Vec::new(),
            told: [58_760, 58_764],
            cloud: 58_758,
            knew: None,
        }
    }

    #[test]
    fn a_round_is_a_line_and_says_who_knew_what_when_it_failed() {
        let known = |address: &str| BTreeSet::from([address.to_owned()]);
        let failed = Round {
            answering: Err("refused".to_owned()),
            failures: vec!["refused".to_owned(), "refused".to_owned()],
            back_for: None,
            knew: Some(Knew {
                when: "when the Service was given up",
                pods: known("10.0.0.6"),
                hub: (58_760, known("10.0.0.6")),
                rules: known("10.0.0.4"),
                cloud: (58_758, known("10.0.0.2")),
            }),
            ..round()
        };
        let rounds = Rounds {
            title: "rounds".to_owned(),
            rounds: vec![round(), failed],
        };
        assert!(rounds.rounds[0].is_met() && !rounds.is_met());
        let shown = rounds.to_string();
        for part in [
            "      1  silent        0.3 s     3.1 s  0.40 s later       0 of 66      58760 → 58764   58758",
            "      2  silent     for good     3.1 s         dead       2 of 66",
            "the Service was not answered: refused",
            "2 polls: refused",
            "the hub lists              10.0.0.6, the slice at 58760",
            "kube-proxy's rules lead to 10.0.0.4",
        ] {
            assert!(shown.contains(part), "{part}\nis not in\n{shown}");
        }
    }

    #[test]
    fn a_service_that_answers_late_is_a_failure() {
        let late = Round {
            answering: Ok(Duration::from_millis(1_001)),
            ..round()
        };
        assert!(!late.is_met());
    }
}
