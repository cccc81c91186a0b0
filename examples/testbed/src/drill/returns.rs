//! The short returns: several power cuts in a row while the link is cut, and after each the link comes back for a
//! moment, and is cut again; at last it comes back for good.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    quiet::{Quiet, Ready, Slices},
    rounds::{Knew, Round, Rounds},
};
use crate::{
    cluster::Version,
    node::{Cut, Error, Polls},
};

/// For how long the link comes back, between less than it takes to connect and enough to follow everything.
const BACK_FOR: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// For how long the Service is polled after the link's return.
const WATCHED: Duration = Duration::from_secs(3);
/// After so long without an answer a Service is dead.
const DEAD: Duration = Duration::from_secs(6);

/// What is drilled: all kinds of cuts and returns on one node in a quiet cluster.
#[derive(Clone, Debug)]
pub struct ShortReturns {
    /// Which Kubernetes.
    pub version: Version,
    /// The program `yurthub`.
    pub hub: PathBuf,
}

impl ShortReturns {
    /// Runs the drill; what goes wrong in a round is in its line, and the next one follows.
    ///
    /// # Errors
    ///
    /// When there is no node, or its pods do not run in time.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends everything that it has started.
    pub async fn run(&self) -> Result<Rounds, Error> {
        let mut drill = Rounding {
            quiet: Quiet::start(self.version, self.hub.clone()).await?,
            rounds: Vec::new(),
        };
        for cut in [Cut::Silent, Cut::Unplugged] {
            drill.cut(cut).await?;
        }
        let version = match self.version {
            Version::Oldest => "the oldest supported Kubernetes",
            Version::Newest => "the newest supported Kubernetes",
        };
        Ok(Rounds {
            title: format!(
                "{version}, a quiet cluster: the power fails while the link is cut, and the link comes back"
            ),
            rounds: drill.rounds,
        })
    }
}

/// A drill under way.
struct Rounding {
    quiet: Quiet,
    rounds: Vec<Round>,
}

impl Rounding {
    /// One long cut with its short returns, and the return for good.
    async fn cut(&mut self, cut: Cut) -> Result<(), Error> {
        let mut ready = self.quiet.ready(&BTreeSet::new()).await?;
        let told = self.quiet.told().await?;
        self.quiet.node.cut(cut)?;
        let mut told = told.revision;
        for back_for in BACK_FOR.into_iter().map(Some).chain([None]) {
            let (round, now) = self.round(cut, back_for, told, &ready).await?;
            told = round.told[1];
            ready = now;
            self.rounds.push(round);
        }
        self.quiet
            .node
            .ready(&self.quiet.cluster, super::site::PATIENCE)
            .await?;
        self.quiet.cloud_agrees().await
    }

    async fn round(
        &mut self,
        cut: Cut,
        back_for: Option<Duration>,
        told: u64,
        before: &Ready,
    ) -> Result<(Round, Ready), Error> {
        self.quiet.node.power_off();
        let began = Instant::now();
        self.quiet.node.power_on().await?;
        let polls = self.quiet.poll()?;
        let ready = self.quiet.ready(&before.containers).await?;
        let ran = Instant::now();
        let answered = polls.steady(DEAD).await;
        let mut round = Round {
            cut,
            back_for,
            running: ran - began,
            answering: answered.map(|since| since.saturating_duration_since(ran)),
            polls: 0,
            failures: Vec::new(),
            told: [told, 0],
            cloud: 0,
            knew: None,
        };
        if round.answering.is_err() {
            round.knew = Some(self.knew("before the link came back", &ready).await?);
        }
        self.link_back(&mut round, &polls).await?;
        round.told[1] = self.quiet.told().await?.revision;
        round.cloud = self.quiet.cloud().await?.revision;
        if !round.is_met() && round.knew.is_none() {
            round.knew = Some(self.knew("after the link's return", &ready).await?);
        }
        Ok((round, ready))
    }

    /// The link comes back, for a moment or for good; the Service is polled then and after.
    async fn link_back(&mut self, round: &mut Round, polls: &Polls) -> Result<(), Error> {
        let from = Instant::now();
        self.quiet.node.mend()?;
        if let Some(back_for) = round.back_for {
            sleep(back_for).await;
            self.quiet.node.cut(round.cut)?;
        }
        let until = Instant::now() + WATCHED;
        round.note_polls(&polls.between(from, until).await);
        Ok(())
    }

    async fn knew(&self, when: &'static str, ready: &Ready) -> Result<Knew, Error> {
        let pair = |slices: Slices| (slices.slice, slices.ready);
        Ok(Knew {
            when,
            pods: ready.addresses.clone(),
            hub: pair(self.quiet.told().await?),
            rules: self.quiet.rules().await?,
            cloud: pair(self.quiet.cloud().await?),
        })
    }
}
