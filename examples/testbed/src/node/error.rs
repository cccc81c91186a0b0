//! Why there is no node, or it does not do what it was told.

use std::{io, path::PathBuf};

use super::Program;
use crate::{cluster, system};

/// Why there is no node, or it does not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// All names and address ranges for networks are in use.
    #[error("{0} networks of nodes exist already")]
    NoSlot(u8),
    /// A file of the node could not be written or read.
    #[error("cannot {step} {path}")]
    File {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The node is switched off, or on where it should be off.
    #[error("node {name} is switched {}", if *.is_on { "on" } else { "off" })]
    Power {
        /// The node.
        name: String,
        /// What it is.
        is_on: bool,
    },
    /// A program of the node is not running, or is where it should not be.
    #[error("{program} is {}", if *.is_running { "running" } else { "not running" })]
    Program {
        /// The program.
        program: Program,
        /// What it is.
        is_running: bool,
    },
    /// The disk of the whole machine is not to be filled.
    #[error("the hub has no disk of its own")]
    NoDisk,
    /// The clock of a program could not be set.
    #[error("cannot set the clock of {program}")]
    Clock {
        /// The program.
        program: Program,
        /// Why.
        source: io::Error,
    },
    /// A program could not be stopped, or be let go on.
    #[error("cannot signal {program}")]
    Signal {
        /// The program.
        program: Program,
        /// Why.
        source: io::Error,
    },
    /// Something did not come in time.
    #[error("{what} did not come in {seconds} s: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// What was seen the last time.
        last: String,
    },
    /// The machine lacks something, or a command on it or on the node ended with an error.
    #[error(transparent)]
    System(#[from] system::Error),
    /// The cluster has no such program or refuses.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
}
