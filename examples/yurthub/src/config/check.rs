//! What makes one value wrong, in words that follow its place.

use std::{fs, net::SocketAddr, path::Path, str::FromStr, time::Duration};

use http::Uri;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};
use tracing_subscriber::filter::{LevelFilter, Targets};
use yurt_cache::hub::{CallerName, FilterName};
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

/// A name or an address for a certificate.
pub(crate) fn serving_name(text: &str) -> Result<String, String> {
    let is_name = rustls::pki_types::ServerName::try_from(text).is_ok();
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is neither a DNS name nor an address"))
    }
}

/// A time of hours or days.
pub(crate) fn days(text: &str) -> Result<Duration, String> {
    let parse = |number: &str, unit: u64| number.parse::<u32>().ok().map(|n| u64::from(n) * unit);
    let seconds = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(number), _) => parse(number, 86_400),
        (None, Some(number)) => parse(number, 3_600),
        (None, None) => None,
    };
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not a time such as 12h or 30d")),
    }
}

/// A PEM file with at least one certificate.
pub(crate) fn certificates(path: &Path) -> Result<(), String> {
    let bytes = read(path)?;
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        certificate.map_err(|error| unreadable(path, &error))?;
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err(format!("{} holds no certificate in PEM", path.display()))
    }
}

/// A PEM file with a private key.
pub(crate) fn private_key(path: &Path) -> Result<(), String> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(_) => Ok(()),
        Err(Error::NoItemsFound) => Err(format!("{} holds no private key in PEM", path.display())),
        Err(error) => Err(unreadable(path, &error)),
    }
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

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn unreadable(path: &Path, error: &Error) -> String {
    format!("{} is not PEM: {error}", path.display())
}
