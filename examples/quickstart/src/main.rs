//! The main job in one command: a node loses the cloud, and its clients do not notice.

mod bridge;
mod cloud;
mod hub;
mod kubeconfig;
mod object;
mod reader;
mod report;
mod story;
mod teller;

use std::error::Error;
use std::fs::File;
use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};

use self::cloud::Cloud;
use self::kubeconfig::Access;
use self::story::{Broken, Stage};
use self::teller::Teller;

/// The exit code of flags that cannot work.
const BAD_FLAGS: u8 = 2;

/// How long a real cluster may take to accept that everything is deleted.
const CLEAN_UP: Duration = Duration::from_secs(20);

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
    /// Uses the cluster of this kubeconfig's current context instead: in a namespace and with a
    /// CustomResourceDefinition of its own, both called yurt-quickstart-… and deleted at the end
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(hub::FLAG) {
        return end(be_the_hub());
    }
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) if !error.use_stderr() => {
            // --help, for whoever still reads.
            let _printed = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            say(&format!(
                "{} (try --help)",
                line.trim_start_matches("error: ")
            ));
            return ExitCode::from(BAD_FLAGS);
        }
    };
    match prepare(flags) {
        Ok((access, json)) => end(tell(access, json)),
        Err(error) => {
            say(&with_sources(error.as_ref()));
            ExitCode::from(BAD_FLAGS)
        }
    }
}

/// Finds out what is wrong with the flags before anything starts.
fn prepare(flags: Flags) -> Result<(Option<Access>, Option<File>), Box<dyn Error>> {
    let access = flags.kubeconfig.as_deref().map(Access::read).transpose()?;
    let create = |path: PathBuf| {
        File::create(&path).map_err(|error| format!("--json: {}: {error}", path.display()))
    };
    Ok((access, flags.json.map(create).transpose()?))
}

#[tokio::main(flavor = "current_thread")]
async fn be_the_hub() -> Result<bool, Box<dyn Error>> {
    hub::serve().await?;
    Ok(true)
}

/// Sets the stage, tells the story until its end or a signal, and clears the stage.
#[tokio::main(worker_threads = 2)]
async fn tell(access: Option<Access>, json: Option<File>) -> Result<bool, Box<dyn Error>> {
    let begun = Instant::now();
    let is_colored = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut teller = Teller::new(Box::new(stdout()), is_colored);
    teller.title("Yurt quickstart: a node loses the cloud, and its clients do not notice");
    let cloud = match access {
        None => Cloud::inside().await?,
        Some(access) => Cloud::cluster(access).await?,
    };
    teller.report.cloud.clone_from(&cloud.words);
    let folder = tempfile::Builder::new()
        .prefix("yurt-quickstart-")
        .tempdir()?;
    let mut stage = Stage {
        teller: &mut teller,
        cloud: &cloud,
        folder: folder.path(),
    };
    let told = tokio::select! {
        told = Box::pin(story::tell(&mut stage)) => Some(told),
        () = asked_to_end() => None,
    };
    note(&mut teller, told);
    let cleaned = timeout(CLEAN_UP, cloud.clean()).await;
    teller.summary(begun.elapsed());
    if let Some(mut json) = json {
        json.write_all(teller.report.json(begun.elapsed()).as_bytes())?;
    }
    folder.close()?;
    cleaned??;
    Ok(teller.report.is_kept())
}

fn note(teller: &mut Teller, told: Option<Result<(), Broken>>) {
    match told {
        Some(Ok(())) => {}
        Some(Err(broken)) => {
            let why = with_sources(&broken.cause);
            teller.judge(broken.promise, false, why);
        }
        None => teller.report.interruption = Some("asked to end".to_owned()),
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn asked_to_end() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
}

fn end(ended: Result<bool, Box<dyn Error>>) -> ExitCode {
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&with_sources(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// An error and all that led to it, in one line.
fn with_sources(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[expect(clippy::print_stderr, reason = "a program's last word")]
fn say(message: &str) {
    eprintln!("quickstart: {message}");
}
