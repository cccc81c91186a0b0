//! The main job in one command: a node loses the cloud, and its clients do not notice.

mod bridge;
mod cloud;
mod flags;
mod hub;
mod kubeconfig;
mod object;
mod reader;
mod report;
mod story;
mod teller;

use std::error::Error;
use std::io::{IsTerminal, Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};
use yurt_core::error::Chain;

use self::cloud::Cloud;
use self::flags::Wish;
use self::story::{Broken, Stage};
use self::teller::Teller;

/// The exit code of flags that cannot work.
const BAD_FLAGS: u8 = 2;

/// How long a real cluster may take to accept that everything is deleted.
const CLEAN_UP: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(hub::FLAG) {
        return end(be_the_hub());
    }
    match flags::parse() {
        Ok(wish) => end(tell(wish)),
        Err(flags::Error::Help) => ExitCode::SUCCESS,
        Err(error) => {
            say(&Chain(&error).to_string());
            ExitCode::from(BAD_FLAGS)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn be_the_hub() -> Result<bool, Box<dyn Error>> {
    hub::serve().await?;
    Ok(true)
}

/// Sets the stage, tells the story until its end or a signal, and clears the stage.
#[tokio::main(worker_threads = 2)]
async fn tell(wish: Wish) -> Result<bool, Box<dyn Error>> {
    let begun = Instant::now();
    let is_colored = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut teller = Teller::new(Box::new(stdout()), is_colored);
    teller.title("Yurt quickstart: a node loses the cloud, and its clients do not notice");
    let cloud = match wish.access {
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
        hub: None,
    };
    let told = tokio::select! {
        told = Box::pin(story::tell(&mut stage)) => Some(told),
        () = asked_to_end() => None,
    };
    stage.kill_hub().await?;
    note(&mut teller, told, folder.path());
    let cleaned = timeout(CLEAN_UP, cloud.clean()).await;
    teller.summary(begun.elapsed());
    if let Some(mut json) = wish.json {
        json.write_all(teller.report.json(begun.elapsed()).as_bytes())?;
    }
    folder.close()?;
    let left = |error: &dyn Error| {
        let namespace = &cloud.place.namespace;
        format!("{namespace} may be left in the cluster: {}", Chain(error))
    };
    cleaned
        .map_err(|error| left(&error))?
        .map_err(|error| left(&error))?;
    Ok(teller.report.is_kept())
}

/// Notes why the story did not reach its end, if it did not.
fn note(teller: &mut Teller, told: Option<Result<(), Broken>>, folder: &Path) {
    match told {
        Some(Ok(())) => {}
        Some(Err(broken)) => {
            let log = std::fs::read_to_string(folder.join(hub::LOG)).unwrap_or_default();
            teller.broken(broken.promise, Chain(&broken.cause).to_string(), &log);
        }
        None => teller.report.interruption = Some("asked to end".to_owned()),
    }
}

/// Waits for Ctrl-C, SIGTERM, or the terminal to be closed.
async fn asked_to_end() {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        // Without handlers the kernel ends us, and the hub sees its stdin end.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

fn end(ended: Result<bool, Box<dyn Error>>) -> ExitCode {
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&Chain(error.as_ref()).to_string());
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's last word")]
fn say(message: &str) {
    eprintln!("quickstart: {message}");
}
