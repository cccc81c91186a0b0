//! What of the hub reads bytes that others chose, for the fuzzer and for the replay of what it has found. Each
//! function takes any bytes; what must hold of them is asserted in it.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};

use crate::api::request::{ApiRequest, Target, is_decodable};
use crate::authorize::local_write;
use crate::codec::{
    EventLines, EventType, FieldSelector, JsonPath, LabelSelector, ListError, ListSplitter,
    ObjectMeta, WatchError, compact, protobuf, with_resource_version,
};
use crate::identity::Caller;
use crate::identity::token::Jwt;
use crate::proxy::exchange::Exchange;
use crate::proxy::route::{Have, route};
use crate::upstream::Link;

/// Small, so that inputs reach it.
const LIMIT: usize = 4 << 10;

/// A request: method and target in the first line, headers in the others.
pub fn request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let Some((method, target)) = lines.next().and_then(|line| line.split_once(' ')) else {
        return;
    };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(64).filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (
            name.parse::<HeaderName>(),
            HeaderValue::from_str(value.trim()),
        ) {
            headers.append(name, value);
        }
    }
    if !is_decodable(&uri) {
        return;
    }
    let request = ApiRequest::read(&method, &uri, &headers);
    let _lasts = request.lasts();
    let node = "n".parse().expect("it is a name");
    let exchange = Exchange::new(Caller::Node, request);
    for link in [Link::Up, Link::Cut] {
        for have in [Have::Nothing, Have::Syncing, Have::Synced(7)] {
            let write = local_write(&exchange.api, &Caller::Node, &node);
            let _route = route(&exchange, link, have, write);
        }
    }
    if let Target::Resource(path) = &exchange.api.target {
        // What the hub asks for itself is what it was asked for.
        let collection = path.resource.path(path.namespace.as_deref());
        let again = collection.parse::<Uri>().expect("a path that we have made");
        let again = ApiRequest::read(&Method::GET, &again, &HeaderMap::new());
        if path.resource.plural != "watch" && path.resource.plural != "namespaces" {
            let again = again.path().expect("it is a resource's");
            assert_eq!(
                (&again.resource, &again.namespace),
                (&path.resource, &path.namespace)
            );
        }
        for name in path.name.iter().chain(&path.subresource) {
            assert!(!name.contains(char::is_control) && !name.contains('%'));
        }
    }
}

/// A label selector and a field selector: what was read means the same when it is written.
pub fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(labels) = LabelSelector::parse(text) {
        let canonical = labels.to_string();
        let again = LabelSelector::parse(&canonical).expect("it was written by us");
        assert_eq!(canonical, again.to_string());
    }
    if let Ok(fields) = FieldSelector::parse(text) {
        let canonical = fields.to_string();
        let again = FieldSelector::parse(&canonical).expect("it was written by us");
        assert_eq!(canonical, again.to_string());
    }
    if let Ok(path) = JsonPath::parse(text) {
        let _found = path.find(br#"{"a":[{"b":1,"c":"d"}],"spec":{"e":null}}"#);
    }
}

/// A bearer token.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _claims = Jwt::parse(text);
    }
}

/// A body in Kubernetes' protobuf.
pub fn protobuf(bytes: &[u8]) {
    let mut body = bytes.to_vec();
    for prefix in [&b""[..], b"k8s\0"] {
        body.splice(..0, prefix.iter().copied());
        let body = Bytes::from(body.clone());
        let _metadata = protobuf::metadata(&body);
        let _request = protobuf::token_request(&body);
        let _count = protobuf::event_count(&body);
    }
}

/// One object in JSON.
pub fn object(bytes: &[u8]) {
    let text = Bytes::copy_from_slice(bytes);
    let compacted = compact(&text);
    let (meta, again) = (ObjectMeta::parse(&text), ObjectMeta::parse(&compacted));
    if let (Ok(meta), Ok(again)) = (&meta, &again) {
        assert_eq!(meta.name, again.name);
    }
    if meta.is_ok()
        && let Ok(changed) = with_resource_version(&text, 7)
    {
        let changed = ObjectMeta::parse(&changed).expect("it was an object before");
        assert_eq!(changed.resource_version, 7);
    }
}

/// The body of a list, whole and in pieces: the first byte says how long these are.
pub fn list(bytes: &[u8]) {
    let Some((size, body)) = bytes.split_first() else {
        return;
    };
    let split = |size: usize| {
        let mut splitter = ListSplitter::new(LIMIT);
        let mut items = Vec::new();
        for chunk in body.chunks(size.max(1)) {
            let pushed = splitter.push(chunk, &mut |item: &[u8]| {
                assert!(item.len() <= LIMIT);
                items.push(item.to_vec());
                Ok::<(), ListError>(())
            });
            if pushed.is_err() {
                return None;
            }
        }
        let head = splitter.finish().ok()?;
        Some((head, items))
    };
    assert_eq!(split(body.len()), split(usize::from(*size)));
}

/// The body of a watch, whole and in pieces.
pub fn watch(bytes: &[u8]) {
    let Some((size, body)) = bytes.split_first() else {
        return;
    };
    let split = |size: usize| {
        let mut lines = EventLines::new(LIMIT);
        let mut events = Vec::new();
        for chunk in body.chunks(size.max(1)) {
            let pushed = lines.push(chunk, &mut |event_type: EventType, object: &[u8]| {
                assert!(object.len() <= LIMIT);
                events.push((event_type, object.to_vec()));
                Ok::<(), WatchError>(())
            });
            if pushed.is_err() {
                return None;
            }
        }
        lines.finish().ok()?;
        Some(events)
    };
    assert_eq!(split(body.len()), split(usize::from(*size)));
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
        replay("request", super::request);
        replay("selector", super::selector);
        replay("token", super::token);
        replay("protobuf", super::protobuf);
        replay("object", super::object);
        replay("list", super::list);
        replay("watch", super::watch);
    }
}
