//! Discovery, OpenAPI and version: remembered as the cloud sent them, for each form that was asked for.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    LAST_MODIFIED, VARY,
};
use http::{HeaderMap, Response, StatusCode, Uri};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use yurt_core::store::{Batch, Result, Store};

use crate::body::{self, Body};
use crate::codec::{accepts_gzip, inflate};
use crate::retention::{Bounds, Entry, Held, plan};
use crate::store::layout::DOCUMENTS;

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
    kept: Arc<Mutex<HashMap<Bytes, Kept>>>,
}

/// How long a document is, and when it was used.
#[derive(Clone, Copy, Debug)]
struct Kept {
    held: Held,
    used: Instant,
}

impl Documents {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>, bounds: Bounds, now: Instant) -> Result<Self> {
        let mut kept = HashMap::new();
        store.keys(DOCUMENTS.as_bytes(), None, &mut |key, len| {
            let held = Held::one(len);
            kept.insert(Bytes::copy_from_slice(key), Kept { held, used: now });
            ControlFlow::Continue(())
        })?;
        Ok(Self {
            store,
            bounds,
            kept: Arc::new(Mutex::new(kept)),
        })
    }

    /// Returns how much is remembered.
    pub(crate) fn held(&self) -> Held {
        total(&self.kept.lock())
    }

    /// Forgets what nobody has asked for long, and what is over the budget. Blocks on the store.
    pub(crate) fn sweep(&self, now: Instant) -> Result<usize> {
        let mut batch = Batch::new();
        let gone = forget(&mut self.kept.lock(), &self.bounds, now);
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
        accept: &str,
        headers: &HeaderMap,
        text: &[u8],
        now: Instant,
    ) -> Result<()> {
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
        let key = key(uri, accept);
        if self.store.get(&key)?.as_ref() == Some(&value) {
            self.note_use(&key, now);
            return Ok(());
        }
        let gone = {
            let mut kept = self.kept.lock();
            kept.insert(key.clone(), Kept { held, used: now });
            forget(&mut kept, &self.bounds, now)
        };
        let mut batch = Batch::new();
        batch.put(key, value);
        for key in gone {
            batch.delete(key);
        }
        self.store.write(batch)
    }

    fn note_use(&self, key: &Bytes, now: Instant) {
        if let Some(kept) = self.kept.lock().get_mut(key) {
            kept.used = now;
        }
    }

    /// Answers with a remembered document; `None` if it was never asked for in this form. Blocks on the store.
    pub(crate) fn answer(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Option<Response<Body>>> {
        let key = key(uri, accept(headers));
        let Some(value) = self.store.get(&key)? else {
            return Ok(None);
        };
        self.note_use(&key, now);
        Ok(answer(&value, accepts_gzip(headers)))
    }
}

fn total(kept: &HashMap<Bytes, Kept>) -> Held {
    let all = kept.values();
    all.fold(Held::default(), |total, one| total.plus(one.held))
}

/// Takes out what goes. Documents are remembered and swept only while the cloud is there.
fn forget(kept: &mut HashMap<Bytes, Kept>, bounds: &Bounds, now: Instant) -> Vec<Bytes> {
    let keys: Vec<Bytes> = kept.keys().cloned().collect();
    let entry = |key: &Bytes| Entry {
        idle: now.duration_since(kept[key].used),
        held: kept[key].held,
        is_needed: false,
    };
    let entries: Vec<Entry> = keys.iter().map(entry).collect();
    let goes = plan(&entries, total(kept), bounds);
    let gone: Vec<Bytes> = goes.into_iter().map(|at| keys[at].clone()).collect();
    for key in &gone {
        kept.remove(key);
    }
    gone
}

/// Returns the `Accept` header, empty if there is none.
pub(crate) fn accept(headers: &HeaderMap) -> &str {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

/// A document is the same however long its reader is ready to wait for it.
fn key(uri: &Uri, accept: &str) -> Bytes {
    let parameters = uri.query().unwrap_or_default().split('&');
    let kept = parameters.filter(|one| !one.is_empty() && !one.starts_with("timeout="));
    let query = kept.collect::<Vec<_>>().join("&");
    let separator = if query.is_empty() { "" } else { "?" };
    let text = format!("{DOCUMENTS}{}{separator}{query}\n{accept}", uri.path());
    let mut key = text.into_bytes();
    key.truncate(yurt_core::store::MAX_KEY_LEN);
    key.into()
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
    use super::*;

    #[test]
    fn how_long_a_reader_waits_makes_no_other_document() {
        let key = |uri: &'static str| key(&Uri::from_static(uri), "*/*");
        assert_eq!(key("/api?timeout=32s"), key("/api"));
        assert_eq!(
            key("/openapi/v3/api?hash=A&timeout=5s"),
            key("/openapi/v3/api?hash=A")
        );
        assert_ne!(key("/openapi/v3/api?hash=A"), key("/openapi/v3/api?hash=B"));
        assert_ne!(key("/api"), key("/apis"));
    }
}
