//! Parsers of values; an error follows the place of its value.

use std::{fs::File, net::SocketAddr, path::PathBuf, time::Duration};

use tracing_subscriber::filter::{LevelFilter, Targets};
use yurt_core::name::NodeName;
use yurt_tunnel::identity::Credentials;

use super::Transports;

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:10266"))
}

/// A positive number.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a whole number above 0")),
    }
}

/// A number of seconds, below the five minutes after which the server pings a silent link itself.
pub(super) fn keep_alive(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').and_then(|text| text.parse().ok());
    match seconds {
        Some(seconds @ 1..=240) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(format!("{text:?} is not a time of 1s to 240s")),
    }
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a port")),
    }
}

pub(super) fn transport(text: &str) -> Result<Transports, String> {
    match text {
        "auto" => Ok(Transports::Auto),
        "quic" => Ok(Transports::Quic),
        "h2" => Ok(Transports::H2),
        _ => Err(format!("{text:?} is not auto, quic or h2")),
    }
}

/// The folder for the agent's files: made at start, but never in place of a file.
pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.exists() && !path.is_dir() {
        Err(format!("{text} is not a folder"))
    } else if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{text} is not an absolute path"))
    }
}

/// A level, or `target=level` with commas between: `Targets` would take a misspelt level for a target.
pub(super) fn log(text: &str) -> Result<Targets, String> {
    for directive in text.split(',') {
        let level = directive.rsplit('=').next().unwrap_or_default();
        if level.trim().parse::<LevelFilter>().is_err() {
            return Err(format!(
                "{level:?} is not a level: off, error, warn, info, debug, trace"
            ));
        }
    }
    text.parse()
        .map_err(|error| format!("{text:?} is not a filter: {error}"))
}

/// A file that this process can read.
pub(super) fn readable(text: &str) -> Result<PathBuf, String> {
    match File::open(text) {
        Ok(_) => Ok(PathBuf::from(text)),
        Err(error) => Err(format!("cannot read {text}: {error}")),
    }
}

/// The certificate must be the node's: servers accept no other.
pub(super) fn identity(credentials: &Credentials, node: &NodeName) -> Result<(), String> {
    let own = credentials.own();
    match own.node() {
        Some(name) if name == *node => Ok(()),
        Some(name) => Err(format!(
            "the certificate is that of node {name}, not of {node}"
        )),
        None => Err(format!(
            "the certificate is that of {:?}, not of system:node:{node} in the group system:nodes",
            own.user
        )),
    }
}
