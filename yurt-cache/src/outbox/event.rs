//! An event, and how it is kept.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;

use crate::codec::protobuf;

/// An event as its teller posted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Where it was posted: the path of the namespace's events.
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

impl Event {
    /// Returns how often it has happened; 0 where that cannot be read.
    pub(super) fn count(&self) -> u64 {
        if self.content_type.starts_with(protobuf::MEDIA_TYPE) {
            protobuf::event_count(&self.body).unwrap_or(0)
        } else {
            json_count(&self.body)
        }
    }

    /// Returns what an event is told from others by: path and name.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.path, self.name)
    }

    /// Three lines, then the body.
    pub(super) fn encode(&self) -> Bytes {
        let head = format!("{}\n{}\n{}\n", self.path, self.name, self.content_type);
        let mut bytes = BytesMut::with_capacity(head.len() + self.body.len());
        bytes.put_slice(head.as_bytes());
        bytes.put_slice(&self.body);
        bytes.freeze()
    }

    /// Reads what `encode` wrote; `None` of what is damaged.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let mut line = || {
            let end = bytes.iter().position(|byte| *byte == b'\n')?;
            let line = std::str::from_utf8(&bytes[..end]).ok()?.to_owned();
            bytes = bytes.slice(end + 1..);
            Some(line)
        };
        let (path, name, content_type) = (line()?, line()?, line()?);
        Some(Self {
            path,
            name,
            content_type,
            body: bytes,
        })
    }
}

/// Returns how often what an event tells of has happened; 0 where it does not say.
pub(super) fn json_count(event: &[u8]) -> u64 {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Counted {
        count: Option<u64>,
        /// The same in `events.k8s.io`.
        deprecated_count: Option<u64>,
        series: Option<Series>,
    }
    #[derive(Deserialize)]
    struct Series {
        count: Option<u64>,
    }
    let Ok(event) = serde_json::from_slice::<Counted>(event) else {
        return 0;
    };
    let series = event.series.and_then(|series| series.count);
    let counts = [event.count, event.deprecated_count, series];
    counts.into_iter().flatten().max().unwrap_or(0)
}
