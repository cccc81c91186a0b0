//! The tunnel's edge end as a program: configuration, assembly, drain.

mod config;

use std::{error::Error, io::IsTerminal, pin::pin, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};
use yurt_core::error::Chain;
use yurt_tunnel::agent::Agent;

use self::config::{Flags, Settings};

/// The exit code of a configuration that cannot work.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let settings = match config::load(Flags::parse()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes
                .iter()
                .for_each(|mistake| say(&mistake.to_string()));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines)
        .with(settings.log.clone())
        .init();
    // One thread: a stream's bytes never change hands, and a node has other work for its cores.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve(settings)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&Chain(error.as_ref()).to_string());
            ExitCode::FAILURE
        }
    }
}

/// Assembles the agent and runs it until a signal.
async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    let transports = settings
        .transport
        .named(&settings.credentials, &settings.agent.buffers);
    let agent = Agent::new(settings.agent, transports).with_credentials(settings.credentials);
    let shutdown = CancellationToken::new();
    let mut running = pin!(agent.run(shutdown.clone()));
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        asked = asked_to_end() => asked?,
    }
    tracing::info!("draining");
    shutdown.cancel();
    Ok(running.await?)
}

/// Waits for SIGTERM or SIGINT.
async fn asked_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "before there is a log, and when there is none any more"
)]
fn say(message: &str) {
    eprintln!("yurt-tunnel-agent: {message}");
}
