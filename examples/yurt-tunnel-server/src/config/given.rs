//! The values of each key, from the file and the flags, and their way to settings or mistakes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use yurt_core::error::Chain;
use yurt_tunnel::dial::Address;
use yurt_tunnel::egress::Policy;
use yurt_tunnel::identity::{Credentials, Files, SERVERS_GROUP};
use yurt_tunnel::nodes::Grants;

use super::{Cluster, Flags, Mistake, NodesFrom, Settings, check};

/// The keys of the file and the flags that override them.
pub(super) const KEYS: [(&str, &str); 19] = [
    ("listen", "--listen"),
    ("advertise", "--advertise"),
    ("peers", "--peer"),
    ("caFile", "--ca-file"),
    ("certificate", "--certificate"),
    ("key", "--key"),
    ("egressSocket", "--egress-socket"),
    ("egressListen", "--egress-listen"),
    ("connectListen", "--connect-listen"),
    ("nodesFile", "--nodes-file"),
    ("kubeconfig", "--kubeconfig"),
    ("dataDir", "--data-dir"),
    ("nodeNetworks", "--node-networks"),
    ("serviceNetworks", "--service-networks"),
    ("deniedNodes", "--denied-nodes"),
    ("adminListen", "--admin-listen"),
    ("drain", "--drain"),
    ("buffers", "--buffers"),
    ("log", "--log"),
];

/// The keys whose values are lists.
const LISTS: [&str; 4] = ["advertise", "peers", "nodeNetworks", "serviceNetworks"];

/// The keys without a flag: the policy of the doors.
const POLICY: [&str; 2] = ["apiServers", "clients"];

const ADMIN: &str = "127.0.0.1:10265";

/// The values of each key with their places, and the mistakes so far.
#[derive(Default)]
pub(super) struct Given {
    texts: BTreeMap<&'static str, Vec<Placed>>,
    /// The file's name, and its keys of the policy.
    policy: Option<(String, Map<String, Value>)>,
    mistakes: Vec<Mistake>,
    /// The file could not be read, which is a mistake already: a missing key may be in it.
    is_file_unread: bool,
}

struct Placed {
    place: String,
    text: String,
}

impl Given {
    pub(super) fn read_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let entries = fs::read_to_string(path)
            .map_err(|error| {
                (
                    "--config".to_owned(),
                    format!("cannot read {name}: {error}"),
                )
            })
            .and_then(|text| check::yaml(&text).map_err(|problem| (name.clone(), problem)));
        match entries {
            Ok(entries) => {
                let (policy, entries): (Map<_, _>, Map<_, _>) = entries
                    .into_iter()
                    .partition(|(key, _)| POLICY.contains(&key.as_str()));
                for (key, value) in entries {
                    self.take_entry(&format!("{name}: {key}"), &key, value);
                }
                self.policy = Some((name, policy));
            }
            Err((place, problem)) => {
                self.is_file_unread = true;
                self.mistake(place, problem);
            }
        }
    }

    fn take_entry(&mut self, place: &str, key: &str, value: Value) {
        if value.is_null() {
            return;
        }
        let Some((key, _)) = KEYS.iter().find(|(known, _)| *known == key) else {
            return self.mistake(place, "there is no such key");
        };
        let is_list = LISTS.contains(key);
        let texts = match value {
            Value::Array(items) if is_list => {
                let texts = items.into_iter().map(text).enumerate();
                let placed = texts.map(|(index, text)| {
                    let place = format!("{place}[{index}]");
                    Some(Placed { place, text: text? })
                });
                placed.collect()
            }
            value if is_list => {
                drop(value);
                None
            }
            value => text(value).map(|text| {
                vec![Placed {
                    place: place.to_owned(),
                    text,
                }]
            }),
        };
        match texts {
            Some(texts) => drop(self.texts.insert(key, texts)),
            None if is_list => self.mistake(place, "a list of texts is expected"),
            None => self.mistake(place, "a text is expected"),
        }
    }

    pub(super) fn lay_over(&mut self, flags: Flags) {
        if flags.nodes_file.is_some() || flags.kubeconfig.is_some() {
            // A flag for one source of nodes wins over the file's other one.
            self.texts.remove("nodesFile");
            self.texts.remove("kubeconfig");
        }
        let one = |flag: Option<String>| flag.into_iter().collect();
        let texts: [Vec<String>; KEYS.len()] = [
            one(flags.listen),
            flags.advertise,
            flags.peers,
            one(flags.ca_file),
            one(flags.certificate),
            one(flags.key),
            one(flags.egress_socket),
            one(flags.egress_listen),
            one(flags.connect_listen),
            one(flags.nodes_file),
            one(flags.kubeconfig),
            one(flags.data_dir),
            flags.node_networks,
            flags.service_networks,
            one(flags.denied_nodes),
            one(flags.admin_listen),
            one(flags.drain),
            one(flags.buffers),
            one(flags.log),
        ];
        for ((key, flag), texts) in KEYS.into_iter().zip(texts) {
            if !texts.is_empty() {
                let placed = texts.into_iter().map(|text| Placed {
                    place: flag.to_owned(),
                    text,
                });
                self.texts.insert(key, placed.collect());
            }
        }
    }

    pub(super) fn settings(mut self) -> Result<Settings, Vec<Mistake>> {
        let listen = self.or("listen", "0.0.0.0:443", check::address);
        let advertise = self.every("advertise", check::host_and_port);
        let peers = self.every("peers", check::host_and_port);
        let credentials = self.credentials();
        let egress_socket = self.optional("egressSocket", check::absolute);
        let egress_listen = self.optional("egressListen", check::address);
        let connect_listen = self.optional("connectListen", check::address);
        let policy = self.policy();
        let grants = self.grants(advertise.iter().chain(&peers));
        let nodes = self.nodes(grants);
        let denied_nodes = self.optional("deniedNodes", check::readable);
        let admin_listen = self.or("adminListen", ADMIN, check::address);
        let drain = self.or("drain", "30s", check::duration);
        let buffers = self.or("buffers", "64Mi", check::buffers);
        let log = self.or("log", "info", check::log);
        self.apart([
            ("listen", listen),
            ("egressListen", egress_listen),
            ("connectListen", connect_listen),
            ("adminListen", admin_listen),
        ]);
        if let Some(own) = credentials.as_ref().map(Credentials::own)
            && !peers.is_empty()
            && !own.groups.iter().any(|group| group == SERVERS_GROUP)
        {
            let problem = format!(
                "other servers let in only certificates with the organization {SERVERS_GROUP:?}"
            );
            self.mistake("certificate", problem);
        }
        let settings = || {
            Some(Settings {
                listen: listen?,
                advertise,
                peers,
                credentials: credentials?,
                egress_socket,
                egress_listen,
                connect_listen,
                policy: policy?,
                nodes: nodes?,
                denied_nodes,
                admin_listen: admin_listen?,
                drain: drain?,
                buffers: buffers?,
                log: log?,
            })
        };
        match settings() {
            Some(settings) if self.mistakes.is_empty() => Ok(settings),
            _ => Err(self.mistakes),
        }
    }

    pub(super) fn admin(mut self) -> Result<SocketAddr, Vec<Mistake>> {
        let address = self.or("adminListen", ADMIN, check::address);
        match address {
            Some(address) if self.mistakes.is_empty() => Ok(address),
            _ => Err(self.mistakes),
        }
    }

    fn credentials(&mut self) -> Option<Credentials> {
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
        match loaded {
            Ok(credentials) => Some(credentials),
            Err(error) => {
                let mut files = given.into_iter();
                let (place, _) = files.find(|(_, path)| path == error.path())?;
                self.mistake(place, Chain(&error).to_string());
                None
            }
        }
    }

    /// A file that can be read, and where it was given.
    fn file(&mut self, key: &str) -> Option<(String, PathBuf)> {
        let place = self.texts.get(key)?.last()?.place.clone();
        Some((place, self.optional(key, check::readable)?))
    }

    fn policy(&mut self) -> Option<Policy> {
        let Some((file, policy)) = self.policy.take() else {
            return Some(Policy::default());
        };
        let mistakes = match Policy::read(&Value::Object(policy)) {
            Ok(policy) => return Some(policy),
            Err(mistakes) => mistakes,
        };
        for mistake in mistakes {
            self.mistake(format!("{file}: {}", mistake.place), mistake.problem);
        }
        None
    }

    fn grants<'a>(&mut self, servers: impl Iterator<Item = &'a Address>) -> Grants {
        let mut grants = Grants {
            service_networks: self.every("serviceNetworks", check::network),
            servers: servers.map(|server| server.host.clone()).collect(),
            ..Grants::default()
        };
        if self.is_given("nodeNetworks") {
            grants.node_networks = self.every("nodeNetworks", check::network);
        }
        grants
    }

    fn nodes(&mut self, grants: Grants) -> Option<NodesFrom> {
        let folder = self.optional("dataDir", check::absolute);
        if self.is_given("nodesFile") && self.is_given("kubeconfig") {
            self.mistake("nodesFile", "excludes kubeconfig, with which the nodes come from the API server: remove one of them");
        }
        let kubeconfig = self.optional("kubeconfig", check::readable);
        if self.is_given("nodesFile") {
            return self
                .optional("nodesFile", check::readable)
                .map(NodesFrom::File);
        }
        let cluster = match kubeconfig {
            Some(path) => Cluster::by_file(&path),
            None => Cluster::of_pod(),
        };
        match cluster {
            Ok(cluster) => Some(NodesFrom::Cluster(cluster, folder, grants)),
            Err(_) if self.is_file_unread => None,
            Err(problem) => {
                self.mistake("kubeconfig", problem);
                None
            }
        }
    }

    /// Checks that no two listen at the same address.
    fn apart(&mut self, listeners: [(&'static str, Option<SocketAddr>); 4]) {
        for (index, (key, address)) in listeners.iter().enumerate() {
            let Some(address) = address.filter(|address| address.port() != 0) else {
                continue;
            };
            let mut before = listeners[..index].iter();
            if let Some((other, _)) = before.find(|(_, before)| *before == Some(address)) {
                self.mistake(*key, format!("{address} is the address of {other} too"));
            }
        }
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

    fn require(&mut self, key: &str) {
        if self.is_given(key) || self.is_file_unread {
            return;
        }
        let known = KEYS.iter().find(|(known, _)| *known == key);
        let flag = known.map_or("", |(_, flag)| flag);
        self.mistake(key, format!("missing: set it in the file or by {flag}"));
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

    fn mistake(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            place: place.into(),
            problem: problem.into(),
        });
    }
}

/// A text; a number or a boolean counts as it is written.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
