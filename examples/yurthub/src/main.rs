//! The hub as a program: configuration, assembly, drain.

mod config;
mod heaps;

use std::{error::Error, io::IsTerminal, pin::pin, process::ExitCode, sync::Arc};

use clap::Parser;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};
use yurt_cache::hub::{Config, HttpProxy, Hub};
use yurt_cache::store::{LogConfig, LogStore};
use yurt_core::error::Chain;

use self::config::{Flags, Settings};

/// The exit code of a configuration that cannot work.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    heaps::limit();
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
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&Chain(error.as_ref()).to_string());
            ExitCode::FAILURE
        }
    }
}

/// Assembles the hub and runs it until a signal.
#[tokio::main(worker_threads = 2)]
async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    let store = LogStore::open(settings.data_dir.join("store"), LogConfig::default())?;
    let mut config = Config::new(settings.node_name, settings.upstream, settings.data_dir);
    config.upstream.proxy = HttpProxy::from_environment(|name| std::env::var(name).ok())?;
    config.listen = settings.listen;
    config.serving_certificate = settings.serving_certificate;
    config.serving_key = settings.serving_key;
    config.serving_names = settings.serving_names;
    config.serving_signer = settings.serving_signer;
    config.bootstrap_token_file = settings.bootstrap_token_file;
    config.seal_key_file = settings.seal_key_file;
    config.verdict_limit = settings.verdict_limit;
    config.secret_verdict_limit = settings.secret_verdict_limit;
    config.client_ca_file = settings.client_ca_file;
    config.admin_listen = Some(settings.admin_listen);
    config.pod_address = settings.pod_address;
    config.pool_name = settings.pool_name;
    config.filters = settings.filters;
    config.limits = settings.limits;
    settings.kept.tell(&mut config);
    let hub = Hub::new(config, Arc::new(store), Timestamp::now())?;
    let shutdown = CancellationToken::new();
    let mut running = pin!(hub.run(shutdown.clone()));
    // A hub that ends by itself ends the program: whoever supervises it starts it again.
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
    eprintln!("yurthub: {message}");
}
