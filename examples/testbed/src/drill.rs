//! The drill: a real node with a hub; the link is cut, the power is cut, the node is switched on again, the cloud
//! changes meanwhile, the link comes back. Each step is shown with the seconds that it took.
//!
//! ```no_run
//! use testbed::{cluster::Version, drill::{Drill, Fault}, node::Cut};
//!
//! # async fn run() -> Result<(), testbed::node::Error> {
//! let drill = Drill { version: Version::Newest, cut: Cut::Silent, fault: Fault::None, hub: "yurthub".into() };
//! println!("{}", drill.run().await?);
//! # Ok(())
//! # }
//! ```

mod fault;
mod quiet;
mod report;
mod returns;
mod rounds;
mod site;
mod story;

use std::path::PathBuf;

pub use self::{
    fault::Fault,
    report::{Report, Step},
    returns::ShortReturns,
    rounds::{Knew, Round, Rounds},
};
use self::{site::Site, story::Story};
use crate::{
    cluster::Version,
    node::{Cut, Error},
};

/// What is drilled.
#[derive(Clone, Debug)]
pub struct Drill {
    /// Which Kubernetes.
    pub version: Version,
    /// How the link is cut.
    pub cut: Cut,
    /// What goes wrong besides.
    pub fault: Fault,
    /// The program `yurthub`.
    pub hub: PathBuf,
}

impl Drill {
    /// Runs the drill.
    ///
    /// # Errors
    ///
    /// With the first step that is not so in time: what was waited for, and what was seen last.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends everything that it has started.
    pub async fn run(&self) -> Result<Report, Error> {
        let site = Site::start(self).await?;
        Story::new(site, self).tell().await
    }
}
