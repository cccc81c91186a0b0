//! Discovery, OpenAPI and version: remembered as the cloud sent them, in each form that it sent.

mod form;
mod keeping;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
    VARY,
};
use http::{HeaderMap, Response, StatusCode, Uri};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use yurt_core::store::{Batch, MAX_KEY_LEN, Result, Store};

use self::form::Wanted;
use self::keeping::{Rank, Seat, plan};
use crate::body::{self, Body};
use crate::codec::{accepts_gzip, inflate};
use crate::limits::Tenant;
use crate::retention::{Bounds, Budget, Held};
use crate::store::layout::DOCUMENTS;

/// What most documents are.
const JSON: &str = "application/json";

/// The longest document that is remembered: an OpenAPI description of a large cluster is about half of it.
pub(crate) const LIMIT: usize = 12 << 20;

const KEPT: [HeaderName; 6] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    ETAG,
    LAST_MODIFIED,
    CACHE_CONTROL,
    VARY,
];

#[derive(Serialize, Deserialize)]
struct Head {
    headers: Vec<(String, String)>,
}

/// The documents that the store remembers.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    store: Arc<dyn Store>,
    bounds: Bounds,
    /// How many one caller may have.
    of_caller: usize,
    kept: Arc<Mutex<HashMap<Bytes, Kept>>>,
}

/// How long a document is, whose it is and when it was used.
#[derive(Clone, Debug)]
struct Kept {
    held: Held,
    /// Who had it remembered; the node as soon as it asks.
    owner: Tenant,
    used: Instant,
}

impl Documents {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        bounds: Bounds,
        of_caller: usize,
        now: Instant,
    ) -> Result<Self> {
        let mut kept = HashMap::new();
        store.keys(DOCUMENTS.as_bytes(), None, &mut |key, len| {
            let known = Kept {
                held: Held::one(len),
                // Nobody knows, until somebody asks for it.
                owner: Tenant::of(""),
                used: now,
            };
            kept.insert(Bytes::copy_from_slice(key), known);
            ControlFlow::Continue(())
        })?;
        Ok(Self {
            store,
            bounds,
            of_caller,
            kept: Arc::new(Mutex::new(kept)),
        })
    }

    /// Returns how much may be remembered.
    pub(crate) fn budget(&self) -> Budget {
        self.bounds.budget
    }

    /// Returns how much is remembered.
    pub(crate) fn held(&self) -> Held {
        total(&self.kept.lock())
    }

    /// Forgets what nobody has asked for long, and what is over the budget. Blocks on the store.
    pub(crate) fn sweep(&self, now: Instant) -> Result<usize> {
        let mut batch = Batch::new();
        let gone = self.forget(&mut self.kept.lock(), now);
        for key in &gone {
            batch.delete(key.clone());
        }
        if !batch.is_empty() {
            self.store.write(batch)?;
        }
        Ok(gone.len())
    }

    /// Remembers a document, instead of others if there is no room. Blocks on the store.
    pub(crate) fn remember(
        &self,
        uri: &Uri,
        (headers, text): (&HeaderMap, &[u8]),
        tenant: &Tenant,
        now: Instant,
    ) -> Result<()> {
        let (Some(form), Some(place)) = (form::of_answer(headers), place(uri)) else {
            return Ok(());
        };
        let kept = KEPT.iter().filter_map(|name| {
            Some((
                name.to_string(),
                headers.get(name)?.to_str().ok()?.to_owned(),
            ))
        });
        let head = serde_json::to_vec(&Head {
            headers: kept.collect(),
        })
        .expect("a struct of plain fields is JSON");
        let mut value = BytesMut::with_capacity(head.len() + text.len() + 1);
        value.put_slice(&head);
        value.put_u8(b'\n');
        value.put_slice(text);
        let value = value.freeze();
        let held = Held::one(value.len());
        if self.bounds.budget.is_exceeded_by(held) {
            return Ok(());
        }
        let key = key(&place, &form);
        if self.store.get(&key)?.as_ref() == Some(&value) {
            self.note_use(&key, tenant, now);
            return Ok(());
        }
        let gone = {
            let mut kept = self.kept.lock();
            let before = kept.get(&key).map(|kept| kept.owner.clone());
            let known = Kept {
                held,
                owner: owner(before, tenant),
                used: now,
            };
            kept.insert(key.clone(), known);
            self.forget(&mut kept, now)
        };
        if gone.contains(&key) {
            return self.delete(gone);
        }
        let mut batch = Batch::new();
        batch.put(key, value);
        for key in gone {
            batch.delete(key);
        }
        self.store.write(batch)
    }

    fn delete(&self, keys: Vec<Bytes>) -> Result<()> {
        let mut batch = Batch::new();
        for key in keys {
            batch.delete(key);
        }
        self.store.write(batch)
    }

    fn note_use(&self, key: &Bytes, tenant: &Tenant, now: Instant) {
        if let Some(kept) = self.kept.lock().get_mut(key) {
            kept.used = now;
            kept.owner = owner(Some(kept.owner.clone()), tenant);
        }
    }

    /// Answers with a remembered document; `None` if it was never sent in a form that is taken. Blocks on the store.
    pub(crate) fn answer(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        tenant: &Tenant,
        now: Instant,
    ) -> Result<Option<Response<Body>>> {
        let Some(place) = place(uri) else {
            return Ok(None);
        };
        // kube-apiserver names no form for `/openapi/v3`, whatever is asked for: Go's library calls it text.
        let sniffed = Wanted::Form("text/plain".to_owned());
        for wanted in form::wanted(headers).into_iter().chain([sniffed]) {
            let Some(key) = self.find(&place, &wanted) else {
                continue;
            };
            let Some(value) = self.store.get(&key)? else {
                continue;
            };
            self.note_use(&key, tenant, now);
            return Ok(answer(&value, accepts_gzip(headers)));
        }
        Ok(None)
    }

    /// Returns under which key there is a form that is taken.
    fn find(&self, place: &str, wanted: &Wanted) -> Option<Bytes> {
        let kept = self.kept.lock();
        let begins = match wanted {
            Wanted::Form(form) => {
                return Some(key(place, form)).filter(|key| kept.contains_key(key));
            }
            Wanted::Any(begins) => begins,
        };
        let is_plain =
            |form: &str| form.starts_with(begins.as_str()) && !form.contains([';', ',', '*']);
        let here = key(place, "");
        let forms = kept.keys().filter(|key| {
            let form = key.strip_prefix(&here[..]).map(std::str::from_utf8);
            matches!(form, Some(Ok(form)) if is_plain(form))
        });
        let json = key(place, JSON);
        let best = forms.min_by_key(|key| (**key != json, (*key).clone()));
        best.cloned()
    }

    /// Takes out what goes. Documents are remembered and swept only while the cloud is there.
    fn forget(&self, kept: &mut HashMap<Bytes, Kept>, now: Instant) -> Vec<Bytes> {
        let keys: Vec<Bytes> = kept.keys().cloned().collect();
        let seat = |key: &Bytes| Seat {
            owner: kept[key].owner.clone(),
            rank: rank(key, &kept[key].owner),
            idle: now.duration_since(kept[key].used),
            held: kept[key].held,
        };
        let seats: Vec<Seat> = keys.iter().map(seat).collect();
        let goes = plan(&seats, &self.bounds, self.of_caller);
        let gone: Vec<Bytes> = goes.into_iter().map(|at| keys[at].clone()).collect();
        for key in &gone {
            kept.remove(key);
        }
        gone
    }
}

fn total(kept: &HashMap<Bytes, Kept>) -> Held {
    let all = kept.values();
    all.fold(Held::default(), |total, one| total.plus(one.held))
}

fn owner(before: Option<Tenant>, tenant: &Tenant) -> Tenant {
    match before {
        Some(before) if *tenant != Tenant::Node && before != Tenant::of("") => before,
        Some(_) | None => tenant.clone(),
    }
}

fn rank(key: &Bytes, owner: &Tenant) -> Rank {
    let path = key.strip_prefix(DOCUMENTS.as_bytes()).unwrap_or_default();
    match owner {
        Tenant::Node => Rank::OfNode,
        Tenant::Caller(_) | Tenant::Anonymous(_) if path.starts_with(b"/openapi") => Rank::Other,
        Tenant::Caller(_) | Tenant::Anonymous(_) => Rank::Discovery,
    }
}

/// Returns what the server tells documents apart by: the path, and the digest that OpenAPI v3 is asked for with. However
/// else a request is written, it is for the same document.
fn place(uri: &Uri) -> Option<String> {
    let path = percent_decode_str(uri.path()).decode_utf8().ok()?;
    let path = path.trim_end_matches('/');
    let parameters = uri.query().unwrap_or_default().split('&');
    let hash = parameters
        .filter_map(|one| one.strip_prefix("hash="))
        .find(|_| path.starts_with("/openapi/v3/"));
    match hash.filter(|hash| !hash.is_empty()) {
        Some(hash) => Some(format!("{path}?hash={hash}")),
        None => Some(path.to_owned()),
    }
}

fn key(place: &str, form: &str) -> Bytes {
    let text = format!("{DOCUMENTS}{place}\n{form}");
    if text.len() <= MAX_KEY_LEN {
        return text.into();
    }
    let digest = Sha256::digest(place.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{DOCUMENTS}{digest}\n{form}").into()
}

fn answer(value: &Bytes, accepts_gzip: bool) -> Option<Response<Body>> {
    let end = value.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(&value[..end]).ok()?;
    let mut text = value.slice(end + 1..);
    let mut headers = HeaderMap::new();
    for (name, value) in head.headers {
        headers.insert(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_str(&value).ok()?,
        );
    }
    if !accepts_gzip && headers.contains_key(CONTENT_ENCODING) {
        text = inflate(headers.get(CONTENT_ENCODING), &text)?;
        headers.remove(CONTENT_ENCODING);
    }
    let mut response = Response::new(body::full(text));
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = headers;
    Some(response)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::ACCEPT;

    use super::*;

    fn place_of(uri: &str) -> String {
        place(&uri.parse().unwrap()).unwrap()
    }

    #[test]
    fn only_what_a_server_tells_apart_makes_another_document() {
        for uri in [
            "/api?timeout=32s",
            "/api/",
            "/%61pi",
            "/api?x=1&hash=A",
            "/api?",
        ] {
            assert_eq!(place_of(uri), "/api", "{uri}");
        }
        let hashed = place_of("/openapi/v3/api?hash=A");
        assert_eq!(place_of("/openapi/v3/api?x=1&hash=A&hash=B"), hashed);
        assert_ne!(place_of("/openapi/v3/api?hash=B"), hashed);
        assert_eq!(place_of("/openapi/v3/api?hash="), "/openapi/v3/api");
        assert_ne!(place_of("/api"), place_of("/apis"));
    }

    #[test]
    fn what_a_server_calls_text_whatever_is_asked_for_is_found_again() {
        let bounds = Bounds {
            age: Duration::MAX,
            budget: Budget::new(10, 10_000),
        };
        let store = Arc::new(crate::store::MemoryStore::new());
        let now = Instant::now();
        let documents = Documents::open(store, bounds, 10, now).unwrap();
        let header = |name, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        let text = header(CONTENT_TYPE, "text/plain; charset=utf-8");
        let (uri, tenant) = (Uri::from_static("/openapi/v3"), Tenant::of("a"));
        documents
            .remember(&uri, (&text, b"{}"), &tenant, now)
            .unwrap();
        let json = header(ACCEPT, "application/json");
        let found = documents.answer(&uri, &json, &tenant, now).unwrap();
        assert_eq!(
            found.unwrap().headers()[CONTENT_TYPE],
            "text/plain; charset=utf-8"
        );
    }

    #[test]
    fn long_places_do_not_collide() {
        let long = "x".repeat(MAX_KEY_LEN);
        let of = |last: u8| key(&format!("/api/{long}{last}"), JSON);
        assert!(of(1).len() <= MAX_KEY_LEN);
        assert_ne!(of(1), of(2));
    }
}
