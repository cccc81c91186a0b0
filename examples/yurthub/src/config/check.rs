//! What makes one value wrong, in words that follow its place.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use http::Uri;
use tracing_subscriber::filter::{LevelFilter, Targets};
use yurt_cache::hub::{Budget, CallerName, FilterName};
use yurt_core::credentials::{CredentialsError, Pem};
use yurt_core::error::Chain;
use yurt_core::name::NodeName;

/// An API server's URL: scheme, host and perhaps a port, nothing else.
pub(crate) fn server(text: &str) -> Result<Uri, String> {
    let url: Uri = text
        .parse()
        .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if url.scheme_str() != Some("https") {
        Err(format!("{text:?} is not https"))
    } else if authority.contains('@') || url.host().is_none_or(str::is_empty) {
        Err(format!("{text:?} is not https://host:port"))
    } else if !matches!(
        url.path_and_query().map(|path| path.as_str()),
        None | Some("/")
    ) {
        Err(format!("{text:?} has a path: only https://host:port"))
    } else {
        Ok(url)
    }
}

/// The same for the same server: the port is 443 where none is given.
pub(crate) fn host_and_port(url: &Uri) -> (String, u16) {
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    (host, url.port_u16().unwrap_or(443))
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:10268"))
}

/// Where pods reach the hub: their environment holds it, so it is a full address.
pub(crate) fn pod_address(text: &str) -> Result<SocketAddr, String> {
    match address(text) {
        Ok(address) if address.ip().is_unspecified() || address.port() == 0 => Err(format!(
            "{text:?} is not an address that pods can reach, such as 169.254.2.1:10268"
        )),
        checked => checked,
    }
}

/// A pool's name: it is asked for and compared with labels.
pub(crate) fn pool_name(text: &str) -> Result<String, String> {
    let name: Result<NodeName, _> = text.parse();
    match name {
        Ok(name) if text.len() <= 63 => Ok(name.to_string()),
        Ok(_) => Err(format!("{text:?} is longer than 63 bytes")),
        Err(error) => Err(error.to_string()),
    }
}

/// A filter and for whom it is: `name=caller,caller`, or `name=off`.
pub(crate) fn filter(text: &str) -> Result<(FilterName, Vec<CallerName>), String> {
    let Some((name, callers)) = text.split_once('=') else {
        return Err(format!(
            "{text:?} is neither filter=caller,caller nor filter=off"
        ));
    };
    let name: FilterName = name.trim().parse().map_err(|error| {
        format!(
            "{error}: there are {}",
            FilterName::ALL.map(FilterName::as_str).join(", ")
        )
    })?;
    if callers.trim() == "off" {
        return Ok((name, Vec::new()));
    }
    let callers: Result<Vec<CallerName>, _> = callers
        .split(',')
        .map(|caller| caller.trim().parse())
        .collect();
    callers
        .map(|callers| (name, callers))
        .map_err(|error| error.to_string())
}

/// A number of things of which there is at least one.
pub(crate) fn count<T: FromStr + Default + PartialEq>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(number) if number != T::default() => Ok(number),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a whole number above 0")),
    }
}

/// A time: a whole number of `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 30s, 5m, 12h or 7d");
    let (unit, seconds) = match text.chars().next_back() {
        Some('s') => ('s', 1),
        Some('m') => ('m', 60),
        Some('h') => ('h', 3_600),
        Some('d') => ('d', 86_400),
        _ => return Err(wrong()),
    };
    let number: u64 = count(text.trim_end_matches(unit)).map_err(|_| wrong())?;
    // The clock that this is added to ends in some centuries.
    let seconds = number
        .checked_mul(seconds)
        .filter(|seconds| *seconds <= 10 * 365 * 86_400);
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// A number of objects and their bytes: `5000/32Mi`.
pub(crate) fn budget(text: &str) -> Result<Budget, String> {
    let wrong = || format!("{text:?} is not a number and bytes such as 5000/32Mi");
    let (objects, bytes) = text.split_once('/').ok_or_else(wrong)?;
    let (digits, unit) = match bytes.find(|byte: char| !byte.is_ascii_digit()) {
        Some(end) => bytes.split_at(end),
        None => (bytes, ""),
    };
    let factor: u64 = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = count::<u64>(digits).map_err(|_| wrong())?;
    let bytes = bytes.checked_mul(factor).ok_or_else(wrong)?;
    Ok(Budget::new(count(objects).map_err(|_| wrong())?, bytes))
}

/// A kind and what is kept of it: `deployments.apps=1000/2Mi`.
pub(crate) fn kind_budget(text: &str) -> Result<(String, Budget), String> {
    match text.split_once('=') {
        Some((kind, kept)) if !kind.is_empty() && !kind.contains('/') => {
            Ok((kind.to_owned(), budget(kept)?))
        }
        _ => Err(format!(
            "{text:?} is not a kind and what is kept of it, such as deployments.apps=1000/2Mi"
        )),
    }
}

pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is neither true nor false"))
}

/// A name or an address for a certificate.
pub(crate) fn serving_name(text: &str) -> Result<String, String> {
    let is_name = rustls::pki_types::ServerName::try_from(text).is_ok();
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is neither a DNS name nor an address"))
    }
}

/// A PEM file with at least one certificate.
pub(crate) fn certificates(path: &Path) -> Result<(), String> {
    let found = Pem::read(path).and_then(|pem| pem.certificates());
    found.map(drop).map_err(|error| unusable(&error))
}

/// A PEM file with a private key.
pub(crate) fn private_key(path: &Path) -> Result<(), String> {
    let found = Pem::read(path).and_then(|pem| pem.key());
    found.map(drop).map_err(|error| unusable(&error))
}

/// The folder for the hub's files: made at start, but never in place of a file.
pub(crate) fn folder(path: &Path) -> Result<(), String> {
    if path.exists() && !path.is_dir() {
        Err(format!("{} is not a folder", path.display()))
    } else if path.is_absolute() {
        Ok(())
    } else {
        Err(format!("{} is not an absolute path", path.display()))
    }
}

/// A file, or by `$CREDENTIALS_DIRECTORY/<name>` one of the credentials that systemd gives the program in a folder.
pub(crate) fn credential(text: &str, folder: Option<OsString>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("$CREDENTIALS_DIRECTORY/"), folder) {
        (None, _) => PathBuf::from(text),
        (Some(name), Some(folder)) => Path::new(&folder).join(name),
        (Some(_), None) => {
            return Err("systemd gives no credentials: set LoadCredential= in the unit".to_owned());
        }
    };
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// A level, or `target=level` with commas between: `Targets` would take a misspelt level for a target.
pub(crate) fn log(text: &str) -> Result<Targets, String> {
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

fn unusable(error: &CredentialsError) -> String {
    match error {
        CredentialsError::ReadFile { .. } => format!("cannot {}", Chain(error)),
        _ => Chain(error).to_string(),
    }
}
