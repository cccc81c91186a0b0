//! A policy in a configuration file: every mistake at once, each with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::{Nodes, Policy, Ports, Rule};
use crate::dial::Address;

/// A mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is, from the policy on: `clients[1].ports[0]`.
    pub place: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// What was found so far that is wrong.
#[derive(Default)]
struct Reading {
    mistakes: Vec<Mistake>,
}

pub(super) fn read(file: &Value) -> Result<Policy, Vec<Mistake>> {
    let mut reading = Reading::default();
    let policy = reading.policy(file);
    if reading.mistakes.is_empty() {
        Ok(policy)
    } else {
        Err(reading.mistakes)
    }
}

impl Reading {
    fn policy(&mut self, value: &Value) -> Policy {
        let mut policy = Policy::default();
        let mut keys = self.keys("", value, &["apiServers", "clients"]);
        if let Some((place, users)) = keys.remove("apiServers") {
            policy.api_servers = self.names(&place, users);
        }
        if let Some((place, rules)) = keys.remove("clients") {
            policy.clients = self.each(&place, rules, Self::rule);
        }
        policy
    }

    fn rule(&mut self, place: &str, value: &Value) -> Option<Rule> {
        const KEYS: [&str; 6] = ["users", "groups", "nodes", "cloudNodes", "ports", "direct"];
        let Value::Object(given) = value else {
            self.mistake(
                place,
                "a map with users or groups, and what they may reach, is expected",
            );
            return None;
        };
        let keys = self.keys(place, value, &KEYS);
        if !given.contains_key("users") && !given.contains_key("groups") {
            self.mistake(place, "it is for nobody: name users or groups");
        }
        if !["nodes", "cloudNodes", "direct"]
            .iter()
            .any(|key| given.contains_key(*key))
        {
            self.mistake(
                place,
                "it reaches nothing: name nodes, cloudNodes or direct",
            );
        }
        let mut rule = Rule::default();
        for (key, (place, value)) in keys {
            match key {
                "users" => rule.users = self.names(&place, value),
                "groups" => rule.groups = self.names(&place, value),
                "nodes" => rule.nodes = self.nodes(&place, value),
                "cloudNodes" => rule.cloud_nodes = self.nodes(&place, value),
                "ports" => rule.ports = self.ports(&place, value),
                "direct" => rule.direct = self.direct(&place, value),
                // KEYS has no other.
                _ => {}
            }
        }
        Some(rule)
    }

    /// Users or groups. Who has a certificate and nothing else is nobody.
    fn names(&mut self, place: &str, value: &Value) -> BTreeSet<String> {
        let names = self.each(place, value, |reading, place, value| match value {
            Value::String(name) if name == "*" => {
                reading.mistake(place, "everybody with a certificate is too many: name them");
                None
            }
            Value::String(name) if !name.is_empty() => Some(name.clone()),
            _ => {
                reading.mistake(place, "a name of a certificate is expected");
                None
            }
        });
        names.into_iter().collect()
    }

    fn nodes(&mut self, place: &str, value: &Value) -> Nodes {
        if is_every(value) {
            return Nodes::Every;
        }
        let names = self.each(place, value, |reading, place, value| {
            let name = value.as_str().and_then(|name| name.parse().ok());
            if name.is_none() {
                reading.mistake(
                    place,
                    format!("{value} is not a node's name, nor the only entry \"*\""),
                );
            }
            name
        });
        Nodes::Named(names.into_iter().collect())
    }

    fn ports(&mut self, place: &str, value: &Value) -> Ports {
        if is_every(value) {
            return Ports::Every;
        }
        let ports = self.each(place, value, |reading, place, value| {
            let number = match value {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            let port = number
                .and_then(|number| u16::try_from(number).ok())
                .filter(|port| *port != 0);
            if port.is_none() {
                reading.mistake(
                    place,
                    format!("{value} is not a port, nor the only entry \"*\""),
                );
            }
            port
        });
        Ports::Numbered(ports.into_iter().collect())
    }

    fn direct(&mut self, place: &str, value: &Value) -> BTreeSet<String> {
        let targets = self.each(place, value, |reading, place, value| {
            let address = value.as_str().and_then(|text| text.parse::<Address>().ok());
            if address.is_none() {
                reading.mistake(place, format!("{value} is not host:port"));
            }
            address.map(|address| address.to_string().to_lowercase())
        });
        targets.into_iter().collect()
    }

    /// The entries of a list that are right.
    fn each<T>(
        &mut self,
        place: &str,
        value: &Value,
        one: impl Fn(&mut Self, &str, &Value) -> Option<T>,
    ) -> Vec<T> {
        let Value::Array(items) = value else {
            self.mistake(place, "a list is expected");
            return Vec::new();
        };
        if items.is_empty() {
            self.mistake(place, "it is empty");
        }
        let placed = items.iter().enumerate();
        placed
            .filter_map(|(index, item)| one(self, &format!("{place}[{index}]"), item))
            .collect()
    }

    /// The entries of a map by their keys, with their places; a key without a value is as if it was not there.
    fn keys<'a>(
        &mut self,
        place: &str,
        value: &'a Value,
        known: &[&'static str],
    ) -> BTreeMap<&'static str, (String, &'a Value)> {
        let given = match value {
            Value::Object(given) => given,
            Value::Null => return BTreeMap::new(),
            _ => {
                self.mistake(place, format!("a map is expected, of {}", known.join(", ")));
                return BTreeMap::new();
            }
        };
        let mut found = BTreeMap::new();
        for (key, value) in given {
            let place = if place.is_empty() {
                key.clone()
            } else {
                format!("{place}.{key}")
            };
            match known.iter().find(|known| *known == key) {
                Some(_) if value.is_null() => {}
                Some(known) => drop(found.insert(*known, (place, value))),
                None => self.mistake(
                    &place,
                    format!("there is no such key: {}", known.join(", ")),
                ),
            }
        }
        found
    }

    fn mistake(&mut self, place: &str, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            place: place.to_owned(),
            problem: problem.into(),
        });
    }
}

fn is_every(value: &Value) -> bool {
    matches!(value, Value::Array(items) if matches!(items.as_slice(), [Value::String(all)] if all == "*"))
}
