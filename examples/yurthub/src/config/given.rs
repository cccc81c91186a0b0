//! What was given for each key, by the file and by flags, on its way to settings or mistakes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http::Uri;
use yurt_cache::hub::{FilterConfig, Limits, Order, ServingSigner, UpstreamConfig};

use super::{
    Flags, Mistake, Settings, check,
    file::{self, Entry},
    kept::{self, Kept},
};

/// The keys of the file and the flags that override them.
pub(super) const KEYS: [(&str, &str); 29] = [
    ("nodeName", "--node-name"),
    ("servers", "--server"),
    ("order", "--order"),
    ("caFile", "--ca-file"),
    ("clientCertificate", "--client-certificate"),
    ("clientKey", "--client-key"),
    ("bootstrapTokenFile", "--bootstrap-token-file"),
    ("listen", "--listen"),
    ("servingCertificate", "--serving-certificate"),
    ("servingKey", "--serving-key"),
    ("servingNames", "--serving-name"),
    ("servingSigner", "--serving-signer"),
    ("clientCaFile", "--client-ca-file"),
    ("adminListen", "--admin-listen"),
    ("dataDir", "--data-dir"),
    ("sealKeyFile", "--seal-key-file"),
    ("verdictLimit", "--verdict-limit"),
    ("secretVerdictLimit", "--secret-verdict-limit"),
    ("podAddress", "--pod-address"),
    ("poolName", "--pool-name"),
    ("filters", "--filter"),
    ("callerConnections", "--caller-connections"),
    ("callerRequests", "--caller-requests"),
    ("callerWatches", "--caller-watches"),
    ("callerMirrors", "--caller-mirrors"),
    ("callerRate", "--caller-rate"),
    ("anonymousConnections", "--anonymous-connections"),
    ("bodyLimit", "--body-limit"),
    ("log", "--log"),
];

/// What was given for each key and where, and the mistakes so far.
#[derive(Default)]
pub(super) struct Given {
    texts: BTreeMap<&'static str, Vec<Placed>>,
    mistakes: Vec<Mistake>,
    /// What is missing may be in the file that could not be read: that it could not is told already.
    is_file_unread: bool,
}

struct Placed {
    place: String,
    text: String,
}

impl Given {
    pub(super) fn read_file(&mut self, name: String, text: io::Result<String>) {
        let entries = text
            .map_err(|error| {
                (
                    "--config".to_owned(),
                    format!("cannot read {name}: {error}"),
                )
            })
            .and_then(|text| file::parse(&text).map_err(|error| (name.clone(), error)));
        match entries {
            Ok(entries) => {
                for (key, entry) in entries {
                    self.take_entry(&name, &key, entry);
                }
            }
            Err((place, problem)) => {
                self.is_file_unread = true;
                self.mistake(place, problem);
            }
        }
    }

    fn take_entry(&mut self, file: &str, key: &str, entry: Entry) {
        let place = format!("{file}: {key}");
        let mut known = KEYS.iter().chain(&kept::KEYS);
        let Some((key, _)) = known.find(|(known, _)| *known == key) else {
            return self.mistake(place, "there is no such key");
        };
        let texts = match (*key, entry) {
            (_, Entry::Empty) => Vec::new(),
            ("servers" | "listen" | "servingNames" | "filters" | "kinds", Entry::List(texts)) => {
                let placed = |(index, text)| Placed {
                    place: format!("{place}[{index}]"),
                    text,
                };
                texts.into_iter().enumerate().map(placed).collect()
            }
            ("servers" | "servingNames" | "filters" | "kinds", _) => {
                return self.mistake(place, "a list of texts is expected");
            }
            (_, Entry::Text(text)) => vec![Placed { place, text }],
            (_, Entry::List(_) | Entry::Nested) => {
                return self.mistake(place, "a text is expected");
            }
        };
        self.texts.insert(key, texts);
    }

    pub(super) fn lay_over(&mut self, flags: Flags) {
        let one = |flag: Option<String>| flag.into_iter().collect();
        let texts: [Vec<String>; KEYS.len()] = [
            one(flags.node_name),
            flags.servers,
            one(flags.order),
            one(flags.ca_file),
            one(flags.client_certificate),
            one(flags.client_key),
            one(flags.bootstrap_token_file),
            flags.listen,
            one(flags.serving_certificate),
            one(flags.serving_key),
            flags.serving_names,
            one(flags.serving_signer),
            one(flags.client_ca_file),
            one(flags.admin_listen),
            one(flags.data_dir),
            one(flags.seal_key_file),
            one(flags.verdict_limit),
            one(flags.secret_verdict_limit),
            one(flags.pod_address),
            one(flags.pool_name),
            flags.filters,
            one(flags.caller_connections),
            one(flags.caller_requests),
            one(flags.caller_watches),
            one(flags.caller_mirrors),
            one(flags.caller_rate),
            one(flags.anonymous_connections),
            one(flags.body_limit),
            one(flags.log),
        ];
        let kept = kept::KEYS.into_iter().zip(flags.kept.texts());
        for ((key, flag), texts) in KEYS.into_iter().zip(texts).chain(kept) {
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
        let node_name = self.required("nodeName", |text| text.parse().map_err(display));
        let servers = self.servers();
        let order = self.or("order", "roundRobin", |text| match text {
            "roundRobin" => Ok(Order::RoundRobin),
            "priority" => Ok(Order::Priority),
            _ => Err(format!("{text:?} is neither roundRobin nor priority")),
        });
        let ca_file = self.required("caFile", |text| path(text, check::certificates));
        let is_joining = self.is_given("bootstrapTokenFile");
        if is_joining && self.is_given("clientCertificate") {
            self.mistake(
                "bootstrapTokenFile",
                "with it the hub gets a certificate of its own: leave clientCertificate out",
            );
        }
        let client = self.pair(("clientCertificate", "clientKey"));
        let bootstrap_token_file =
            self.optional("bootstrapTokenFile", |text| Ok(PathBuf::from(text)));
        let serving = self.pair(("servingCertificate", "servingKey"));
        let client_ca_file = self.optional("clientCaFile", |text| path(text, check::certificates));
        let listen = self.listen();
        let serving_signer = self.or("servingSigner", "own", |text| match text {
            "own" => Ok(ServingSigner::Own),
            "cluster" => Ok(ServingSigner::Cluster),
            _ => Err(format!("{text:?} is neither own nor cluster")),
        });
        let serving_names = self.every("servingNames", check::serving_name);
        let admin_listen = self.or("adminListen", "127.0.0.1:10267", check::address);
        if let Some(address) = admin_listen.filter(|address| listen.contains(address))
            && address.port() != 0
        {
            self.mistake(
                "adminListen",
                format!("{address} is the address of listen too"),
            );
        }
        let data_dir = self.or("dataDir", "/var/lib/yurthub", |text| {
            path(text, check::folder)
        });
        let seal_key_file = self.optional("sealKeyFile", |text| {
            check::credential(text, std::env::var_os("CREDENTIALS_DIRECTORY"))
        });
        let verdict_limit = self.or("verdictLimit", "30d", check::duration);
        let secret_verdict_limit = self.or("secretVerdictLimit", "24h", check::duration);
        let pod_address = self.optional("podAddress", check::pod_address);
        let pool_name = self.optional("poolName", check::pool_name);
        let filters = self.filters();
        let limits = self.limits();
        let kept = Kept::read(&mut self);
        let log = self.or("log", "info", check::log);

        let settings = || {
            let (client_certificate, client_key) = client;
            let (serving_certificate, serving_key) = serving;
            Some(Settings {
                node_name: node_name?,
                upstream: UpstreamConfig {
                    servers,
                    ca_file: ca_file?,
                    client_certificate,
                    client_key,
                    order: order?,
                    ..UpstreamConfig::default()
                },
                listen,
                serving_names,
                serving_signer: serving_signer?,
                bootstrap_token_file,
                serving_certificate,
                serving_key,
                client_ca_file,
                admin_listen: admin_listen?,
                data_dir: data_dir?,
                seal_key_file,
                verdict_limit: verdict_limit?,
                secret_verdict_limit: secret_verdict_limit?,
                pod_address,
                pool_name,
                filters,
                limits,
                kept: kept?,
                log: log?,
            })
        };
        match settings() {
            Some(settings) if self.mistakes.is_empty() => Ok(settings),
            _ => Err(self.mistakes),
        }
    }

    /// What is not given keeps its default; a number that is none is a mistake of its own.
    fn limits(&mut self) -> Limits {
        let mut limits = Limits::default();
        let connections = self.optional("callerConnections", check::count);
        let requests = self.optional("callerRequests", check::count);
        let watches = self.optional("callerWatches", check::count);
        let mirrors = self.optional("callerMirrors", check::count);
        let rate = self.optional("callerRate", check::count);
        let anonymous_connections = self.optional("anonymousConnections", check::count);
        let body = self.optional("bodyLimit", check::count);
        limits.caller_connections = connections.unwrap_or(limits.caller_connections);
        limits.caller_requests = requests.unwrap_or(limits.caller_requests);
        limits.caller_watches = watches.unwrap_or(limits.caller_watches);
        limits.caller_mirrors = mirrors.unwrap_or(limits.caller_mirrors);
        limits.caller_rate = rate.unwrap_or(limits.caller_rate);
        limits.anonymous_connections =
            anonymous_connections.unwrap_or(limits.anonymous_connections);
        limits.body_bytes = body.unwrap_or(limits.body_bytes);
        limits
    }

    fn listen(&mut self) -> Vec<SocketAddr> {
        if !self.is_given("listen") {
            let default = self.or("listen", "127.0.0.1:10268", check::address);
            return default.into_iter().collect();
        }
        self.every("listen", check::address)
    }

    /// Each text of a list.
    fn every<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut parsed = Vec::new();
        for Placed { place, text } in self.texts.remove(key).unwrap_or_default() {
            match parse(&text) {
                Ok(one) => parsed.push(one),
                Err(problem) => self.mistake(place, problem),
            }
        }
        parsed
    }

    fn servers(&mut self) -> Vec<Uri> {
        let given = self.texts.remove("servers").unwrap_or_default();
        if given.is_empty() {
            self.missing("servers");
        }
        let mut known = BTreeMap::new();
        let mut servers = Vec::new();
        for Placed { place, text } in given {
            match check::server(&text) {
                Ok(url) => match known.insert(check::host_and_port(&url), place.clone()) {
                    None => servers.push(url),
                    Some(_) => self.mistake(place, format!("{text:?} is given twice")),
                },
                Err(problem) => self.mistake(place, problem),
            }
        }
        servers
    }

    /// What is given changes the defaults, one filter each.
    fn filters(&mut self) -> FilterConfig {
        let mut config = FilterConfig::default();
        let mut known = BTreeSet::new();
        for Placed { place, text } in self.texts.remove("filters").unwrap_or_default() {
            match check::filter(&text) {
                Ok((name, callers)) if known.insert(name) => config.set(name, callers),
                Ok((name, _)) => self.mistake(place, format!("{name} is given twice")),
                Err(problem) => self.mistake(place, problem),
            }
        }
        config
    }

    /// A certificate and its key: the key may be in the certificate's file, but not alone.
    fn pair(&mut self, (certificate, key): (&str, &str)) -> (Option<PathBuf>, Option<PathBuf>) {
        let is_key_alone = !self.is_given(certificate) && self.is_given(key);
        let is_key_in_file = self.is_given(certificate) && !self.is_given(key);
        if is_key_alone {
            let place = self.texts[key].first().map(|placed| placed.place.clone());
            self.mistake(
                place.unwrap_or_default(),
                format!("a key without {certificate}"),
            );
        }
        let chain = self.optional(certificate, |text| {
            path(text, |file| {
                check::certificates(file)?;
                if is_key_in_file {
                    check::private_key(file)
                } else {
                    Ok(())
                }
            })
        });
        let key = self.optional(key, |text| path(text, check::private_key));
        // Who takes both names gets both.
        let key = if is_key_in_file { chain.clone() } else { key };
        (chain, key)
    }

    fn required<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if !self.is_given(key) {
            self.missing(key);
        }
        self.optional(key, parse)
    }

    /// Takes each text of a list.
    pub(super) fn each<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for Placed { place, text } in self.texts.remove(key).unwrap_or_default() {
            match parse(&text) {
                Ok(one) => all.push(one),
                Err(problem) => self.mistake(place, problem),
            }
        }
        all
    }

    pub(super) fn or<T>(
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

    fn missing(&mut self, key: &str) {
        if self.is_file_unread {
            return;
        }
        let flag = KEYS
            .iter()
            .find(|(known, _)| *known == key)
            .map_or("", |(_, flag)| flag);
        self.mistake(key, format!("missing: set it in the file or by {flag}"));
    }

    fn mistake(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            place: place.into(),
            problem: problem.into(),
        });
    }
}

fn path(text: &str, check: impl Fn(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    check(&path).map(|()| path)
}

fn display(error: impl fmt::Display) -> String {
    error.to_string()
}
