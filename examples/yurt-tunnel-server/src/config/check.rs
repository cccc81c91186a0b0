//! Parsers of values; an error follows the place of its value.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use yurt_tunnel::dial::Address;
use yurt_tunnel::link::{Buffers, InvalidBuffers};
use yurt_tunnel::nodes::{InvalidNetwork, Network};

/// The keys of a configuration file; the error is one line with the place in the file.
pub(super) fn yaml(text: &str) -> Result<BTreeMap<String, Value>, String> {
    // Nothing but comments is a file without keys.
    let keys: Option<_> = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        message.lines().next().unwrap_or_default().to_owned()
    })?;
    Ok(keys.unwrap_or_default())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:8443"))
}

pub(super) fn network(text: &str) -> Result<Network, String> {
    text.parse()
        .map_err(|error: InvalidNetwork| error.to_string())
}

pub(super) fn host_and_port(text: &str) -> Result<Address, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a name or an address with a port"))
}

/// A file that this process can read.
pub(super) fn readable(text: &str) -> Result<PathBuf, String> {
    match File::open(text) {
        Ok(_) => Ok(PathBuf::from(text)),
        Err(error) => Err(format!("cannot read {text}: {error}")),
    }
}

/// An absolute path: it does not depend on the working directory.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{text} is not an absolute path"))
    }
}

/// A time: a whole number of `s`, `m` or `h`, up to a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 30s, 5m or 1h, at most 24h");
    let (unit, seconds) = match text.chars().next_back() {
        Some('s') => ('s', 1),
        Some('m') => ('m', 60),
        Some('h') => ('h', 3_600),
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number
        .checked_mul(seconds)
        .filter(|seconds| *seconds <= 86_400);
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

pub(super) fn buffers(text: &str) -> Result<Buffers, String> {
    text.parse()
        .map_err(|error: InvalidBuffers| error.to_string())
}

/// A level, or a list of `target=level`.
pub(super) fn log(text: &str) -> Result<Targets, String> {
    let wrong = || format!("{text:?} is not a level: off, error, warn, info, debug, trace");
    for part in text.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        level.parse::<LevelFilter>().map_err(|_| wrong())?;
    }
    text.parse().map_err(|_| wrong())
}
