//! The values of each key, from the file and the flags, and their way to settings or mistakes.

use std::{collections::BTreeMap, fmt, io, path::PathBuf, str::FromStr};

use serde_json::Value;
use yurt_core::error::Chain;
use yurt_core::name::NodeName;
use yurt_tunnel::agent::{Allow, Config, KeepAlive};
use yurt_tunnel::dial::Address;
use yurt_tunnel::identity::{Credentials, Files};

use super::{Flags, Mistake, Settings, check};

/// The keys of the file and the flags that override them.
pub(super) const KEYS: [(&str, &str); 15] = [
    ("servers", "--server"),
    ("nodeName", "--node-name"),
    ("caFile", "--ca-file"),
    ("certificate", "--certificate"),
    ("key", "--key"),
    ("allow", "--allow"),
    ("transport", "--transport"),
    ("links", "--links"),
    ("keepAlive", "--keep-alive"),
    ("metered", "--metered"),
    ("kubeletPort", "--kubelet-port"),
    ("dataDir", "--data-dir"),
    ("buffers", "--buffers"),
    ("adminListen", "--admin-listen"),
    ("log", "--log"),
];

/// The keys that take a list.
const LISTS: [&str; 2] = ["servers", "allow"];

/// The values of each key with their places, and the mistakes so far.
#[derive(Default)]
pub(super) struct Given {
    texts: BTreeMap<&'static str, Vec<Placed>>,
    mistakes: Vec<Mistake>,
    /// The file could not be read, which is a mistake already: a missing key may be in it.
    is_file_unread: bool,
}

struct Placed {
    place: String,
    text: String,
}

impl Given {
    pub(super) fn read_file(&mut self, name: &str, text: io::Result<String>) {
        let place = |error| {
            (
                "--config".to_owned(),
                format!("cannot read {name}: {error}"),
            )
        };
        let keys = text
            .map_err(place)
            .and_then(|text| parse(&text).map_err(|error| (name.to_owned(), error)));
        match keys {
            Ok(keys) => {
                for (key, value) in keys {
                    self.take(name, &key, value);
                }
            }
            Err((place, problem)) => {
                self.is_file_unread = true;
                self.mistake(place, problem);
            }
        }
    }

    fn take(&mut self, file: &str, key: &str, value: Value) {
        let place = format!("{file}: {key}");
        let Some((key, _)) = KEYS.iter().find(|(known, _)| *known == key) else {
            return self.mistake(place, "there is no such key");
        };
        let texts: Option<Vec<String>> = match (value, LISTS.contains(key)) {
            (Value::Null, _) => Some(Vec::new()),
            (Value::Array(items), true) => items.into_iter().map(text).collect(),
            (value, false) => text(value).map(|text| vec![text]),
            (_, true) => None,
        };
        let expected = match LISTS.contains(key) {
            true => "a list of texts is expected",
            false => "a text is expected",
        };
        let Some(texts) = texts else {
            return self.mistake(place, expected);
        };
        let placed = |(index, text)| Placed {
            place: match LISTS.contains(key) {
                true => format!("{place}[{index}]"),
                false => place.clone(),
            },
            text,
        };
        let placed = texts.into_iter().enumerate().map(placed).collect();
        self.texts.insert(key, placed);
    }

    pub(super) fn lay_over(&mut self, flags: Flags) {
        let one = |flag: Option<String>| flag.into_iter().collect();
        let texts: [Vec<String>; KEYS.len()] = [
            flags.servers,
            one(flags.node_name),
            one(flags.ca_file),
            one(flags.certificate),
            one(flags.key),
            flags.allow,
            one(flags.transport),
            one(flags.links),
            one(flags.keep_alive),
            one(flags.metered.then(|| "true".to_owned())),
            one(flags.kubelet_port),
            one(flags.data_dir),
            one(flags.buffers),
            one(flags.admin_listen),
            one(flags.log),
        ];
        for ((key, flag), texts) in KEYS.into_iter().zip(texts) {
            if !texts.is_empty() {
                let place = || flag.to_owned();
                let placed = texts.into_iter().map(|text| Placed {
                    place: place(),
                    text,
                });
                self.texts.insert(key, placed.collect());
            }
        }
    }

    pub(super) fn check(mut self) -> Result<Settings, Vec<Mistake>> {
        self.require("servers");
        let servers: Vec<Address> = self.every("servers", parsed);
        self.require("nodeName");
        let node_name: Option<NodeName> = self.optional("nodeName", parsed);
        let credentials = self.credentials(node_name.as_ref());
        let allow: Vec<Allow> = self.every("allow", parsed);
        let transport = self.or("transport", "auto", check::transport);
        let links = self.or("links", "3", check::count);
        let keep_alive = self.keep_alive();
        let kubelet_port = self.or("kubeletPort", "10250", check::port);
        let data_dir = self.or("dataDir", "/var/lib/yurt-tunnel-agent", check::folder);
        let admin_listen = self.or("adminListen", "127.0.0.1:10266", check::address);
        let buffers = self.or("buffers", "64Mi", parsed);
        let log = self.or("log", "info", check::log);

        let settings = || {
            let mut agent = Config::new(node_name?, servers, data_dir?);
            agent.allow = allow;
            agent.links = links?;
            agent.keep_alive = keep_alive?;
            agent.kubelet_port = kubelet_port?;
            agent.buffers = buffers?;
            agent.admin_listen = Some(admin_listen?);
            Some(Settings {
                agent,
                credentials: credentials?,
                transport: transport?,
                log: log?,
            })
        };
        match settings() {
            Some(settings) if self.mistakes.is_empty() => Ok(settings),
            _ => Err(self.mistakes),
        }
    }

    /// The CA, the certificate and its key, which may be in the certificate's file.
    fn credentials(&mut self, node: Option<&NodeName>) -> Option<Credentials> {
        self.require("caFile");
        self.require("certificate");
        let ca = self.file("caFile");
        let certificate = self.file("certificate");
        let key = if self.is_given("key") {
            self.file("key")
        } else {
            certificate.clone()
        };
        let given = [ca?, certificate?, key?];
        let [ca, certificate, key] = given.clone().map(|(_, path)| path);
        let loaded = Credentials::load(Files {
            ca,
            certificate,
            key,
        });
        let credentials = match loaded {
            Ok(credentials) => credentials,
            Err(error) => {
                let mut files = given.into_iter();
                let (place, _) = files.find(|(_, path)| path == error.path())?;
                self.mistake(place, Chain(&error).to_string());
                return None;
            }
        };
        if let Some(Err(problem)) = node.map(|node| check::identity(&credentials, node)) {
            let [_, (place, _), _] = given;
            self.mistake(place, problem);
            return None;
        }
        Some(credentials)
    }

    /// A file that can be read, and where it was given.
    fn file(&mut self, key: &str) -> Option<(String, PathBuf)> {
        let place = self.texts.get(key)?.last()?.place.clone();
        Some((place, self.optional(key, check::readable)?))
    }

    /// A fixed interval, or how the agent chooses it.
    fn keep_alive(&mut self) -> Option<KeepAlive> {
        let is_fixed = self.is_given("keepAlive");
        let fixed = self.optional("keepAlive", check::keep_alive);
        let is_metered = self.or("metered", "false", parsed)?;
        match (is_fixed, is_metered) {
            (true, true) => {
                self.mistake(
                    "metered",
                    "excludes keepAlive: the agent chooses the interval",
                );
                None
            }
            (true, false) => fixed.map(KeepAlive::Fixed),
            (false, true) => Some(KeepAlive::Metered),
            (false, false) => Some(KeepAlive::Adaptive),
        }
    }

    /// Each text of a list.
    fn every<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut all = Vec::new();
        for Placed { place, text } in self.texts.remove(key).unwrap_or_default() {
            match parse(&text) {
                Ok(one) => all.push(one),
                Err(problem) => self.mistake(place, problem),
            }
        }
        all
    }

    fn or<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.is_given(key) {
            self.optional(key, parse)
        } else {
            parse(default)
                .map_err(|problem| self.mistake(key, problem))
                .ok()
        }
    }

    fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Placed { place, text } = self.texts.remove(key)?.pop()?;
        parse(&text)
            .map_err(|problem| self.mistake(place, problem))
            .ok()
    }

    fn is_given(&self, key: &str) -> bool {
        self.texts.get(key).is_some_and(|texts| !texts.is_empty())
    }

    fn require(&mut self, key: &str) {
        if self.is_given(key) || self.is_file_unread {
            return;
        }
        let known = KEYS.iter().find(|(known, _)| *known == key);
        let flag = known.map_or("", |(_, flag)| flag);
        self.mistake(key, format!("missing: set it in the file or by {flag}"));
    }

    fn mistake(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            place: place.into(),
            problem: problem.into(),
        });
    }
}

/// Reads the file's text; the error is one line with the place in the file.
fn parse(text: &str) -> Result<BTreeMap<String, Value>, String> {
    // Nothing but comments is a file without keys.
    let keys: Option<_> = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        message.lines().next().unwrap_or_default().to_owned()
    })?;
    Ok(keys.unwrap_or_default())
}

/// A text; a number or a boolean counts as it is written.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
