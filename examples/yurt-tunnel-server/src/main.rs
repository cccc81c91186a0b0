//! The tunnel's cloud end as a program: configuration, assembly, drain.

mod certificates;
mod check;
mod config;
mod nodes;
mod serve;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use yurt_core::error::Chain;

use self::config::{Cli, Command, Settings};

/// The exit code of a command line or a configuration that cannot work.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Check(asked)) => check::run(&asked),
        None => match config::load(cli.flags) {
            Ok(settings) => run(settings),
            Err(mistakes) => {
                mistakes
                    .iter()
                    .for_each(|mistake| say(&mistake.to_string()));
                ExitCode::from(BAD_CONFIG)
            }
        },
    }
}

fn run(settings: Settings) -> ExitCode {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines)
        .with(settings.log.clone())
        .init();
    // One thread: a stream's bytes never change hands, which halves both the latency and the CPU.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(serve::serve(settings)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&Chain(error.as_ref()).to_string());
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "before there is a log, and when there is none any more"
)]
fn say(message: &str) {
    eprintln!("yurt-tunnel-server: {message}");
}
