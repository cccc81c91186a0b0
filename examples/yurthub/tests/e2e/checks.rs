//! What is compared, and how a run tells all that differs instead of the first.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;
use testbed::client::Answer;

/// Checks that fail: in which groups, how they are called, and the number in the report. One that passes has to go.
pub(crate) const KNOWN: &[(&str, &str, u32)] = &[];

/// The results of a group of checks.
pub(crate) struct Checks {
    group: &'static str,
    passed: usize,
    known: Vec<String>,
    failed: Vec<String>,
}

impl Checks {
    /// Begins a group.
    pub(crate) fn new(group: &'static str) -> Self {
        Self {
            group,
            passed: 0,
            known: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Notes a check.
    pub(crate) fn check(&mut self, name: &str, result: Result<(), String>) {
        let name = &without_revision(name);
        let full = format!("{}: {name}", self.group);
        let is_it = |(groups, known, _): &&(&str, &str, u32)| {
            groups.split('|').any(|group| group == self.group) && *known == name
        };
        let known = KNOWN.iter().find(is_it);
        match (result, known) {
            (Ok(()), None) => self.passed += 1,
            (Ok(()), Some((_, _, number))) => self.failed.push(format!(
                "{full}\n    passes now: take #{number} out of KNOWN"
            )),
            (Err(why), Some((_, _, number))) => {
                self.known.push(format!("{full} (#{number}): {why}"))
            }
            (Err(why), None) => self.failed.push(format!("{full}\n    {why}")),
        }
    }

    /// Notes whether something holds.
    pub(crate) fn that(&mut self, name: &str, holds: bool, why: impl FnOnce() -> String) {
        self.check(name, if holds { Ok(()) } else { Err(why()) });
    }

    /// Notes whether two values are equal.
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
        &mut self,
        name: &str,
        expected: T,
        got: T,
    ) {
        self.that(name, expected == got, || {
            format!("expected {expected:?}\n         got {got:?}")
        });
    }

    /// Tells everything.
    #[track_caller]
    pub(crate) fn finish(self) {
        finish_all(vec![self]);
    }

    fn tell(&self) {
        let mut told = String::new();
        for line in &self.failed {
            _ = writeln!(told, "FAILED {line}");
        }
        for line in &self.known {
            _ = writeln!(told, "known  {line}");
        }
        println!(
            "{}: {} passed, {} known to fail, {} failed\n{told}",
            self.group,
            self.passed,
            self.known.len(),
            self.failed.len(),
        );
    }
}

/// Tells everything of several groups.
#[track_caller]
pub(crate) fn finish_all(groups: Vec<Checks>) {
    groups.iter().for_each(Checks::tell);
    let failed: usize = groups.iter().map(|group| group.failed.len()).sum();
    assert!(failed == 0, "{failed} checks failed");
}

/// A name that is the same in every run: the revision of the moment is `N`.
fn without_revision(name: &str) -> String {
    let Some((before, after)) = name.split_once("resourceVersion=") else {
        return name.to_owned();
    };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    match after.len() - rest.len() {
        2..=9 => format!("{before}resourceVersion=N{rest}"),
        _ => name.to_owned(),
    }
}

/// Compares two whole answers: code, content type, meaning of the body, text of its numbers.
pub(crate) fn same(expected: &Answer, got: &Answer) -> Result<(), String> {
    if expected.code != got.code {
        return Err(format!(
            "expected {}, got {}: {}",
            expected.code,
            got.code,
            cut(&got.text())
        ));
    }
    for name in ["content-type", "retry-after", "allow"] {
        let (a, b) = (expected.header(name), got.header(name));
        if a != b {
            return Err(format!("{name}: expected {a:?}, got {b:?}"));
        }
    }
    same_body(expected, got)
}

/// Compares the bodies: byte by byte where they are no JSON.
pub(crate) fn same_body(expected: &Answer, got: &Answer) -> Result<(), String> {
    let parsed = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body);
    let (Ok(a), Ok(b)) = (parsed(expected), parsed(got)) else {
        // A list in protobuf holds its revision, which rises with every write of anybody.
        return if masked(&expected.body) == masked(&got.body) {
            Ok(())
        } else {
            Err(format!(
                "bodies differ\n      expected {}\n      got      {}",
                cut(&expected.text()),
                cut(&got.text())
            ))
        };
    };
    let is_list = a["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"));
    let (a, b) = (settled(a), settled(b));
    if let Some(where_) = difference(&a, &b, "") {
        return Err(where_);
    }
    // Revisions are text: what is left are the objects' own numbers.
    if !is_list && numbers(&expected.body) != numbers(&got.body) {
        return Err("numbers are written in another way".to_owned());
    }
    Ok(())
}

/// Takes out what differs between two answers to the same question.
pub(crate) fn settled(mut value: Value) -> Value {
    match value["kind"].as_str() {
        Some("Status") => {
            if let Some(Value::String(message)) = value.get_mut("message") {
                *message = without_digits(message);
            }
            if value["metadata"].get("continue").is_some() {
                value["metadata"]["continue"] = Value::from("…");
            }
        }
        Some(kind) if kind.ends_with("List") || kind == "Table" => {
            for name in ["resourceVersion", "continue"] {
                if let Some(Value::String(text)) = value["metadata"].get_mut(name)
                    && !text.is_empty()
                {
                    *text = "…".to_owned();
                }
            }
            if value["metadata"]["continue"] == "" {
                value["metadata"]
                    .as_object_mut()
                    .expect("it has a field")
                    .remove("continue");
            }
            // The API server's own leases change all the time.
            for items in ["items", "rows"] {
                if let Some(Value::Array(items)) = value.get_mut(items) {
                    items.retain(|item| {
                        [&item["metadata"], &item["object"]["metadata"]]
                            .iter()
                            .all(|metadata| metadata["namespace"] != "kube-system")
                    });
                }
            }
            without_ages(&mut value);
        }
        _ => {}
    }
    value
}

/// Takes the cells out of a table that say how long ago something was.
fn without_ages(table: &mut Value) {
    let columns = table["columnDefinitions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let is_age = |column: &Value| {
        let name = column["name"].as_str().unwrap_or_default();
        column["type"] == "date" || ["Age", "Last Seen", "First Seen"].contains(&name)
    };
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        for (at, _) in columns
            .iter()
            .enumerate()
            .filter(|(_, column)| is_age(column))
        {
            row["cells"][at] = Value::Null;
        }
    }
}

/// Bytes with every digit as `#`.
fn masked(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .map(|byte| if byte.is_ascii_digit() { b'#' } else { *byte })
        .collect()
}

/// A message with every run of digits as one `#`.
fn without_digits(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match (c.is_ascii_digit(), out.ends_with('#')) {
            (true, true) => {}
            (true, false) => out.push('#'),
            (false, _) => out.push(c),
        }
    }
    out
}

/// The first place where two values differ.
pub(crate) fn difference(a: &Value, b: &Value, path: &str) -> Option<String> {
    let text = |value: &Value| cut(&value.to_string());
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeMap<&String, ()> = a.keys().chain(b.keys()).map(|k| (k, ())).collect();
            keys.into_keys().find_map(|key| {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => difference(a, b, &path),
                    (Some(a), None) => Some(format!("{path}: missing, expected {}", text(a))),
                    (None, Some(b)) => Some(format!("{path}: not expected, got {}", text(b))),
                    (None, None) => None,
                }
            })
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => x
            .iter()
            .zip(y)
            .enumerate()
            .find_map(|(at, (a, b))| difference(a, b, &format!("{path}[{at}]"))),
        (Value::Array(x), Value::Array(y)) => {
            let names = |list: &[Value]| {
                let names = list
                    .iter()
                    .map(|v| v["metadata"]["name"].as_str().unwrap_or("?"));
                names.collect::<Vec<_>>().join(" ")
            };
            Some(format!(
                "{path}: expected {} [{}], got {} [{}]",
                x.len(),
                cut(&names(x)),
                y.len(),
                cut(&names(y))
            ))
        }
        (a, b) if a == b => None,
        (a, b) => Some(format!("{path}: expected {}, got {}", text(a), text(b))),
    }
}

/// Every number of a JSON text as it is written, sorted.
pub(crate) fn numbers(json: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < json.len() {
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < json.len() && b"+-.eE0123456789".contains(&json[at]) {
                    at += 1;
                }
                found.push(&json[start..at]);
            }
            _ => at += 1,
        }
    }
    found.sort_unstable();
    found
}

/// A text that fits on a line of a report.
pub(crate) fn cut(text: &str) -> String {
    let text = text.trim().replace('\n', " ");
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
