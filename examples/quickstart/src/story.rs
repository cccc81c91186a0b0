//! The story, chapter by chapter; each tells what it sees and judges the promises that it is about.

mod back;
mod crash;
mod cut;
mod online;
mod start;

use std::path::Path;
use std::time::Duration;

use testbed::client;
use testbed::endpoint::Endpoint;
use testbed::link::Link;
use tokio::time::{Instant, sleep, timeout};

use crate::cloud::{self, Cloud};
use crate::hub::{self, Door, HubProcess, Orders};
use crate::object;
use crate::reader::{Follower, List, ReadError, Reader};
use crate::report::Promise;
use crate::teller::{Teller, size};

/// How long anything may take for which no promise sets a shorter time.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a real cluster may take for the thousand objects.
const FILL_PATIENCE: Duration = Duration::from_secs(120);

/// The link is quiet when nothing passed for so long.
const QUIET: Duration = Duration::from_millis(150);

/// What the chapters work on. Whatever ends the story, this is left to clean up.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) teller: &'a mut Teller,
    pub(crate) cloud: &'a Cloud,
    pub(crate) folder: &'a Path,
    /// The hub's process, while there is one.
    pub(crate) hub: Option<HubProcess>,
}

/// What is there once everything has started.
#[derive(Debug)]
struct Scene {
    link: Link,
    orders: Orders,
    /// The hub, as its clients see it.
    endpoint: Endpoint,
    reader: Reader,
}

/// What the client knows when the link is cut.
#[derive(Debug)]
struct Known {
    stations: List,
    geese: List,
    follower: Follower,
    /// What the first list cost on the link.
    first_list_bytes: u64,
}

/// Why the story cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{}", promise.words())]
pub(crate) struct Broken {
    pub(crate) promise: Promise,
    #[source]
    pub(crate) cause: Cause,
}

/// What stands in its way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Cause {
    /// It takes too long.
    #[error("{what}: not within {} s", limit.as_secs())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The hub's answer.
    #[error("{what}")]
    Read {
        /// What was read.
        what: &'static str,
        /// Why not.
        source: ReadError,
    },
    /// The hub's process.
    #[error("{what}")]
    Hub {
        /// What was done with it.
        what: &'static str,
        /// Why not.
        source: hub::Error,
    },
    /// The cloud.
    #[error("{what}")]
    Cloud {
        /// What was asked of it.
        what: &'static str,
        /// Why not.
        source: cloud::Error,
    },
    /// A file or a port.
    #[error("{what}")]
    Machine {
        /// What was wanted of it.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// Tells the whole story.
pub(crate) async fn tell(stage: &mut Stage<'_>) -> Result<(), Broken> {
    let scene = start::start(stage).await?;
    let known = online::read(stage, &scene).await?;
    let known = cut::cut(stage, &scene, known).await?;
    let known = crash::crash(stage, &scene, known).await?;
    let meantime = back::meanwhile(stage).await?;
    back::mend(stage, &scene, known, meantime).await
}

impl Stage<'_> {
    /// Starts a hub and keeps it.
    async fn start_hub(&mut self, orders: &Orders) -> Result<Door, hub::Error> {
        let hub = HubProcess::start(orders, &self.folder.join(hub::LOG)).await?;
        Ok(self.hub.insert(hub).door().clone())
    }

    /// Kills the hub, if there is one, and waits for its end.
    pub(crate) async fn kill_hub(&mut self) -> Result<(), hub::Error> {
        match self.hub.take() {
            Some(hub) => hub.kill().await,
            None => Ok(()),
        }
    }

    /// The hub's memory in use, where the system tells.
    fn hub_memory(&self) -> Option<String> {
        let bytes = self.hub.as_ref().and_then(HubProcess::resident_bytes);
        bytes.map(size)
    }
}

impl Scene {
    fn link_bytes(&self) -> u64 {
        self.link.bytes_up().saturating_add(self.link.bytes_down())
    }

    /// Waits until nothing passes on the link, so that what follows is counted alone.
    async fn quiet(&self) {
        let limit = Instant::now() + Duration::from_secs(2);
        let mut before = self.link_bytes();
        while Instant::now() < limit {
            sleep(QUIET).await;
            let now = self.link_bytes();
            if now == before {
                return;
            }
            before = now;
        }
    }
}

impl Promise {
    /// Runs what the promise is about, for so long at most.
    async fn within<T, E: IntoCause>(
        self,
        limit: Duration,
        what: &'static str,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Broken> {
        match timeout(limit, Box::pin(future)).await {
            Ok(result) => result.map_err(|error| self.broken(what, error)),
            Err(_) => Err(Broken {
                promise: self,
                cause: Cause::TimedOut { what, limit },
            }),
        }
    }

    fn broken(self, what: &'static str, error: impl IntoCause) -> Broken {
        Broken {
            promise: self,
            cause: error.into_cause(what),
        }
    }
}

/// An error that becomes a [`Cause`] when it is said what was tried.
trait IntoCause {
    fn into_cause(self, what: &'static str) -> Cause;
}

impl IntoCause for ReadError {
    fn into_cause(self, what: &'static str) -> Cause {
        Cause::Read { what, source: self }
    }
}

impl IntoCause for client::Error {
    fn into_cause(self, what: &'static str) -> Cause {
        ReadError::Ask(self).into_cause(what)
    }
}

impl IntoCause for hub::Error {
    fn into_cause(self, what: &'static str) -> Cause {
        Cause::Hub { what, source: self }
    }
}

impl IntoCause for cloud::Error {
    fn into_cause(self, what: &'static str) -> Cause {
        Cause::Cloud { what, source: self }
    }
}

impl IntoCause for std::io::Error {
    fn into_cause(self, what: &'static str) -> Cause {
        Cause::Machine { what, source: self }
    }
}

fn station(stage: &Stage<'_>, index: usize) -> String {
    format!(
        "{}/{}",
        stage.cloud.place.stations(),
        object::station_name(index)
    )
}

/// A path as an informer lists it: from what is at hand.
fn at_hand(path: &str) -> String {
    format!("{path}?resourceVersion=0")
}
