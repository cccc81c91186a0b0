//! The list of servers that a server sends to its agents, and the agent's answer: JSON documents on a stream of their
//! own.

use serde::{Deserialize, Serialize};

use crate::dial::Address;

/// The longest list, in bytes.
pub const MAX_BYTES: usize = 64 << 10;

/// The most servers in a list.
pub const MAX_SERVERS: usize = 64;

/// The longest answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1 << 10;

/// Why bytes are not a list of servers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidServers {
    /// It is too long.
    #[error("the list of servers is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It names too many servers.
    #[error("the list names {0} servers, more than {MAX_SERVERS}")]
    TooMany(usize),
    /// It is not such a document.
    #[error("parse the list of servers")]
    Parse(#[source] serde_json::Error),
    /// An entry is not `host:port`.
    #[error("{0:?} is not host:port")]
    Entry(String),
}

/// The document; later versions may add keys.
#[derive(Serialize, Deserialize)]
struct Document {
    servers: Vec<String>,
}

/// Encodes a list of servers, cut off after [`MAX_SERVERS`].
#[must_use]
pub fn encode(servers: &[Address]) -> Vec<u8> {
    let servers = servers.iter().take(MAX_SERVERS).map(ToString::to_string);
    let document = Document {
        servers: servers.collect(),
    };
    serde_json::to_vec(&document).expect("texts are JSON")
}

/// Decodes a list of servers.
///
/// # Errors
/// When it is too long, names too many, or is not `{"servers":["host:port",…]}`.
pub fn decode(bytes: &[u8]) -> Result<Vec<Address>, InvalidServers> {
    if bytes.len() > MAX_BYTES {
        return Err(InvalidServers::TooLong);
    }
    let document: Document = serde_json::from_slice(bytes).map_err(InvalidServers::Parse)?;
    if document.servers.len() > MAX_SERVERS {
        return Err(InvalidServers::TooMany(document.servers.len()));
    }
    let parse = |text: String| text.parse().map_err(|_| InvalidServers::Entry(text));
    document.servers.into_iter().map(parse).collect()
}

/// The agent's answer; later versions may add keys.
#[derive(Serialize, Deserialize)]
struct Answer {
    #[serde(default)]
    process: Option<String>,
}

/// Encodes the answer of an agent's process.
#[must_use]
pub fn encode_answer(process: &str) -> Vec<u8> {
    let answer = Answer {
        process: Some(process.to_owned()),
    };
    serde_json::to_vec(&answer).expect("a text is JSON")
}

/// Decodes the name of the process that answered, if it has one: unique to a process, the same in all its sessions.
#[must_use]
pub fn decode_answer(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<Answer>(bytes).ok()?.process
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_told_is_understood() {
        let servers = addresses(&["tunnel.example:8443", "192.0.2.7:443", "[2001:db8::1]:443"]);
        let document = encode(&servers);
        let text = String::from_utf8(document.clone()).unwrap();
        let expected = r#"{"servers":["tunnel.example:8443","192.0.2.7:443","[2001:db8::1]:443"]}"#;
        assert_eq!(text, expected);
        assert_eq!(decode(&document).unwrap(), servers);
    }

    #[test]
    fn what_a_later_version_says_besides_is_passed_over() {
        let document = br#"{"version":2,"servers":["a:1"],"zones":{"a":["b"]}}"#;
        assert_eq!(decode(document).unwrap(), addresses(&["a:1"]));
    }

    #[test]
    fn the_longest_list_that_is_told_is_understood() {
        let name = "a".repeat(253);
        let servers: Vec<Address> = (1..=100)
            .map(|port| format!("{name}:{port}").parse().unwrap())
            .collect();
        let understood = decode(&encode(&servers)).unwrap();
        assert_eq!(understood, servers[..MAX_SERVERS]);
    }

    #[test]
    fn an_answer_names_the_process_if_there_is_one() {
        assert_eq!(decode_answer(&encode_answer("7f")).as_deref(), Some("7f"));
        for none in ["", "{}", "[]", r#"{"process":1}"#, r#"{"uptime":3}"#] {
            assert_eq!(decode_answer(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_list_of_servers_is_an_error() {
        let many = format!(r#"{{"servers":[{}]}}"#, vec![r#""a:1""#; 65].join(","));
        let long = format!(r#"{{"servers":[]}}{}"#, " ".repeat(MAX_BYTES));
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"servers":"a:1"}"#,
            r#"{"servers":["a"]}"#,
            r#"{"servers":["a:0"]}"#,
            r#"{"servers":[1]}"#,
            &many,
            &long,
        ] {
            assert!(decode(wrong.as_bytes()).is_err(), "{:.40}", wrong);
        }
    }
}
