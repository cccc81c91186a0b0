//! Discovery, OpenAPI and version: remembered as the cloud sent them, for each form that was asked for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    LAST_MODIFIED, VARY,
};
use http::{HeaderMap, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use yurt_core::store::{Batch, Result, Store};

use crate::body::{self, Body};
use crate::codec::Inflate;

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
pub(crate) struct Documents(Arc<dyn Store>);

impl Documents {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// Remembers a document. Blocks on the store.
    pub(crate) fn remember(
        &self,
        uri: &Uri,
        accept: &str,
        headers: &HeaderMap,
        text: &[u8],
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
        let key = key(uri, accept);
        if self.0.get(&key)?.as_ref() == Some(&value) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(key, value);
        self.0.write(batch)
    }

    /// Answers with a remembered document; `None` if it was never asked for in this form. Blocks on the store.
    pub(crate) fn answer(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<Response<Body>>> {
        let Some(value) = self.0.get(&key(uri, accept(headers)))? else {
            return Ok(None);
        };
        Ok(answer(&value, accepts_gzip(headers)))
    }
}

/// Returns the `Accept` header, empty if there is none.
pub(crate) fn accept(headers: &HeaderMap) -> &str {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

/// Returns whether the caller takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let value = headers
        .get(http::header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        value
            .split(',')
            .any(|one| matches!(one.trim(), "gzip" | "*"))
    })
}

fn key(uri: &Uri, accept: &str) -> Bytes {
    let text = format!(
        "d/{}\n{accept}",
        uri.path_and_query().map_or("/", |path| path.as_str())
    );
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

/// Decompresses a whole text, up to the limit.
pub(crate) fn inflate(encoding: Option<&HeaderValue>, text: &[u8]) -> Option<Bytes> {
    let mut plain = BytesMut::new();
    let mut inflate = Inflate::for_encoding(encoding);
    let pushed = inflate.push(text, &mut |chunk: &[u8]| {
        plain.put_slice(chunk);
        if plain.len() > 4 * LIMIT {
            Err(std::io::Error::other("too long"))
        } else {
            Ok(())
        }
    });
    pushed.ok()?;
    inflate.finish().ok()?;
    Some(plain.freeze())
}
