//! What the quickstart is asked to do, checked before anything starts.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use clap::Parser;

use crate::kubeconfig::{self, Access};

/// Shows what a hub does for a node that loses the cloud, in half a minute.
///
/// Starts an API server inside this process, a hub as a process of its own, and a link between them that it
/// cuts. Nothing is left behind. Exits with 0 if every promise was kept, with 1 if not, with 2 for wrong flags.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
struct Flags {
    /// Writes what was seen as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Uses the cluster of this kubeconfig's current context instead
    ///
    /// Works in a namespace and with a CustomResourceDefinition of its own, both named yurt-quickstart-… and
    /// deleted at the end, whatever happens. Needs a token or a client certificate that may do that.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// A real cluster.
    pub(crate) access: Option<Access>,
    /// Where the report goes as data.
    pub(crate) json: Option<File>,
}

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `--help` or `--version`; it has been printed.
    #[error("asked for help")]
    Help,
    /// A flag that does not exist, or without its value.
    #[error("{0} (--help explains)")]
    Flag(String),
    /// The kubeconfig.
    #[error("--kubeconfig")]
    Kubeconfig(#[from] kubeconfig::Error),
    /// The report cannot be written.
    #[error("--json: create {path}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Reads the command line, and the files that it names.
pub(crate) fn parse() -> Result<Wish, Error> {
    let flags = Flags::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Whoever asks for help and closes the pipe has had enough of it.
            let _printed = error.print();
            return Error::Help;
        }
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        Error::Flag(line.trim_start_matches("error: ").to_owned())
    })?;
    let access = flags.kubeconfig.as_deref().map(Access::read).transpose()?;
    let create = |path: PathBuf| File::create(&path).map_err(|source| Error::Json { path, source });
    Ok(Wish {
        access,
        json: flags.json.map(create).transpose()?,
    })
}
