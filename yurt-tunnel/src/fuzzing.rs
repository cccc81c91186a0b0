//! What of the tunnel reads bytes that others chose, for the fuzzer and for the replay of what it has found. Each
//! function takes any bytes; what must hold of them is asserted in it.

mod life;

use std::path::Path;

use crate::agent::Allow;
use crate::dial::Address;
use crate::egress::{self, Policy};
use crate::identity;
use crate::nodes::{Found, parse as parse_nodes};
use crate::servers;
use crate::wire::{Answer, Frame, Head, MAX_BODY, PREFIX, Prefix};

use self::life::{Life, Script};

/// What a peer says on the control pipe, message after message.
pub fn frames(bytes: &[u8]) {
    for_each_message(bytes, |kind, body| {
        let Ok(Some(frame)) = Frame::decode(kind, body) else {
            return;
        };
        let mut again = Vec::new();
        frame.encode(&mut again);
        let (kind, body) = parts(&again);
        assert_eq!(Frame::decode(kind, body), Ok(Some(frame)));
    });
}

/// How a peer begins a stream, and answers one.
pub fn opening(bytes: &[u8]) {
    for_each_message(bytes, |kind, body| {
        let mut again = Vec::new();
        if let Ok(head) = Head::decode(kind, body) {
            head.encode(&mut again);
            let (kind, body) = parts(&again);
            assert_eq!(Head::decode(kind, body), Ok(head));
        }
        again.clear();
        if let Ok(answer) = Answer::decode(kind, body) {
            answer.encode(&mut again);
            let (kind, body) = parts(&again);
            assert_eq!(Answer::decode(kind, body), Ok(answer));
        }
    });
}

fn for_each_message(mut bytes: &[u8], mut take: impl FnMut(u8, &[u8])) {
    while let Some((prefix, rest)) = bytes.split_first_chunk() {
        let Ok(Prefix { kind, len }) = Prefix::decode(*prefix) else {
            return;
        };
        assert!(len <= MAX_BODY);
        let (body, rest) = rest.split_at(len.min(rest.len()));
        take(kind, body);
        bytes = rest;
    }
}

/// Takes a message of ours apart.
fn parts(message: &[u8]) -> (u8, &[u8]) {
    let prefix = message.first_chunk().expect("it was written by us");
    let prefix = Prefix::decode(*prefix).expect("it was written by us");
    assert_eq!(message.len(), PREFIX + prefix.len);
    (prefix.kind, &message[PREFIX..])
}

/// A session that any peer and any owners live through.
pub fn link(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let Some(mut life) = Life::begin(&mut script) else {
        return;
    };
    while life.step(&mut script) {}
    life.end();
}

/// The head of a request to a front door, whole and in pieces: the first byte says how long these are.
pub fn head(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = egress::head(bytes);
    assert!(
        bytes.len() < egress::MAX_HEAD_LEN || whole != Ok(None),
        "a head has its limit"
    );
    let mut end = 0;
    while end < bytes.len() {
        end = bytes.len().min(end + usize::from(*size).max(1));
        match egress::head(&bytes[..end]) {
            Ok(None) => {}
            Ok(found) => assert_eq!(Ok(found), whole, "more bytes make it no other"),
            Err(_) => assert!(whole.is_err(), "more bytes make it no better"),
        }
    }
    if let Ok(Some(head)) = whole {
        assert!(head.len <= bytes.len());
        assert!(bytes[..head.len].ends_with(b"\n"), "it ends with a line");
        let again = head.address.to_string().parse::<Address>();
        assert_eq!(again.ok(), Some(head.address));
        if let Some(forwarded) = head.forward {
            let mut headers = [httparse::EMPTY_HEADER; 128];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(&forwarded);
            assert_eq!(parsed, Ok(httparse::Status::Complete(forwarded.len())));
        }
    }
}

/// The list of servers that a server sends, or the agent's answer.
pub fn server_list(bytes: &[u8]) {
    if let Some(process) = servers::decode_answer(bytes) {
        let again = servers::decode_answer(&servers::encode_answer(&process));
        assert_eq!(again, Some(process));
    }
    if let Ok(told) = servers::decode(bytes) {
        assert!(told.len() <= servers::MAX_SERVERS);
        let again = servers::decode(&servers::encode(&told));
        assert_eq!(again.expect("it was written by us"), told);
    }
}

/// A file of nodes.
pub fn nodes_file(bytes: &[u8]) {
    let Ok(table) = parse_nodes(Path::new("nodes"), bytes) else {
        return;
    };
    for node in table.nodes() {
        assert_eq!(table.find(node.name.as_str()), Found::Node(node));
        for address in &node.addresses {
            match table.find(address) {
                Found::Node(owner) if owner == node => {}
                Found::Node(owner) => {
                    assert!(
                        owner.name.as_str().eq_ignore_ascii_case(address),
                        "{address}"
                    );
                }
                Found::Disputed => {}
                Found::Kubelet(_) | Found::Nobody => panic!("{address} is listed"),
            }
        }
    }
}

/// What a configuration says of who may reach what, and a target that an agent may dial.
pub fn policy(bytes: &[u8]) {
    if let Ok(file) = serde_json::from_slice(bytes) {
        match Policy::read(&file) {
            Ok(policy) => assert_eq!(policy.clients.is_empty(), rules(&file) == 0),
            Err(mistakes) => assert!(!mistakes.is_empty(), "an error has its reason"),
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(allow) = text.parse::<Allow>()
    {
        let again = allow.to_string().parse::<Allow>();
        assert_eq!(again.ok(), Some(allow));
    }
}

fn rules(file: &serde_json::Value) -> usize {
    file["clients"].as_array().map_or(0, Vec::len)
}

/// A certificate.
pub fn certificate(bytes: &[u8]) {
    if let Ok(peer) = identity::peer(bytes) {
        let _node = peer.node();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Runs a target over all that the fuzzer has found worth keeping.
    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let files = std::fs::read_dir(&folder).unwrap();
        let inputs: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert!(inputs.len() >= 10, "{} holds the corpus", folder.display());
        for input in inputs {
            run(&std::fs::read(&input).unwrap());
        }
    }

    #[test]
    fn what_the_fuzzer_has_found_is_read_as_it_should() {
        replay("frames", super::frames);
        replay("opening", super::opening);
        replay("link", super::link);
        replay("head", super::head);
        replay("server_list", super::server_list);
        replay("nodes_file", super::nodes_file);
        replay("policy", super::policy);
        replay("certificate", super::certificate);
    }
}
