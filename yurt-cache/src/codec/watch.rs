//! The watch stream: events out of bytes that arrive in chunks, and events as bytes.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Balance, MAX_DEPTH, TooDeep, rewind};
use super::object::write_type;

/// What happened to an object, or to the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum EventType {
    /// It is new, or new to the selection.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or left the selection; the object is its last state.
    Deleted,
    /// Nothing; the object's revision is how far the watch has come.
    Bookmark,
    /// The watch failed; the object is a `Status`.
    Error,
}

/// Why a stream is not a watch that we accept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WatchError {
    /// One event is too large, or does not end.
    #[error("event of more than {limit} bytes")]
    TooLarge {
        /// What was allowed.
        limit: usize,
    },
    /// The bytes cannot be an event.
    #[error("malformed event: {0}")]
    Malformed(&'static str),
    /// The text is not an event.
    #[error("malformed event")]
    Parse(#[source] serde_json::Error),
    /// The stream ended within an event.
    #[error("watch ends within an event")]
    Truncated,
}

/// A push parser for the body of a watch.
///
/// After an error the rest of the stream means nothing: every later call fails too.
#[derive(Debug)]
pub(crate) struct EventLines {
    limit: usize,
    state: State,
    /// The begun event, if a chunk ended within it.
    event: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Between,
    Event(Balance),
    Failed,
}

impl EventType {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

impl EventLines {
    /// Expects events of at most `limit` bytes each.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: State::Between,
            event: Vec::new(),
        }
    }

    /// Feeds the next bytes; calls `event` with each complete event's object, byte for byte.
    pub(crate) fn push<E: From<WatchError>>(
        &mut self,
        chunk: &[u8],
        event: &mut impl FnMut(EventType, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = std::mem::replace(&mut self.state, State::Failed);
        let mut rest = chunk;
        while !rest.is_empty() {
            (state, rest) = match state {
                State::Between => Self::read_between(rest)?,
                State::Event(balance) => self.read_event(balance, rest, event)?,
                State::Failed => return Err(WatchError::Malformed("it was given up before").into()),
            };
        }
        self.state = state;
        Ok(())
    }

    /// Ends the stream, which may do so between two events only.
    pub(crate) fn finish(self) -> Result<(), WatchError> {
        match self.state {
            State::Between => Ok(()),
            State::Event(_) => Err(WatchError::Truncated),
            State::Failed => Err(WatchError::Malformed("it was given up before")),
        }
    }

    fn read_between(rest: &[u8]) -> Result<(State, &[u8]), WatchError> {
        let rest = rest.trim_ascii_start();
        match rest.first() {
            None => Ok((State::Between, rest)),
            // The event within may be as deep as any object.
            Some(b'{') => Ok((State::Event(Balance::new(MAX_DEPTH + 1)), rest)),
            Some(_) => Err(WatchError::Malformed("it is not an object")),
        }
    }

    fn read_event<'c, E: From<WatchError>>(
        &mut self,
        mut balance: Balance,
        rest: &'c [u8],
        event: &mut impl FnMut(EventType, &[u8]) -> Result<(), E>,
    ) -> Result<(State, &'c [u8]), E> {
        let end = balance
            .advance(rest)
            .map_err(|TooDeep| WatchError::Malformed("it nests too deep"))?;
        let (part, rest) = rest.split_at(end.unwrap_or(rest.len()));
        if self.event.len() + part.len() > self.limit {
            return Err(WatchError::TooLarge { limit: self.limit }.into());
        }
        if end.is_some() && self.event.is_empty() {
            take_event(part, event)?;
        } else {
            self.event.extend_from_slice(part);
            if end.is_none() {
                return Ok((State::Event(balance), rest));
            }
            take_event(&self.event, event)?;
            rewind(&mut self.event);
        }
        Ok((State::Between, rest))
    }
}

fn take_event<E: From<WatchError>>(
    bytes: &[u8],
    event: &mut impl FnMut(EventType, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: EventType,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let text = std::str::from_utf8(bytes).map_err(|_| WatchError::Malformed("it is not UTF-8"))?;
    let Event { kind, object } = serde_json::from_str(text).map_err(WatchError::Parse)?;
    if !object.get().starts_with('{') {
        return Err(WatchError::Malformed("its object is not an object").into());
    }
    event(kind, object.get().as_bytes())
}

/// Writes one event as the server frames it.
pub(crate) fn frame(kind: EventType, object: &[u8], into: &mut BytesMut) {
    into.reserve(object.len() + 40);
    into.put_slice(b"{\"type\":\"");
    into.put_slice(kind.as_str().as_bytes());
    into.put_slice(b"\",\"object\":");
    into.put_slice(object);
    into.put_slice(b"}\n");
}

/// The object of a bookmark: the type, the revision, and whether the initial events are over.
///
/// The server's typed encoder adds the zero values of required fields (`"spec":{}`), which no
/// client may read.
pub(crate) fn bookmark(
    api_version: &str,
    kind: &str,
    resource_version: u64,
    initial_events_end: bool,
) -> Bytes {
    let mut object = BytesMut::with_capacity(160);
    write_type(api_version, kind, &mut object);
    object.put_slice(
        format!(",\"metadata\":{{\"resourceVersion\":\"{resource_version}\"").as_bytes(),
    );
    if initial_events_end {
        object.put_slice(b",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}");
    }
    object.put_slice(b"}}");
    object.freeze()
}

/// Whether the object of a bookmark says that the initial events are over.
pub(crate) fn is_initial_events_end(bookmark: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        annotations: Annotations,
    }
    #[derive(Deserialize)]
    struct Annotations {
        #[serde(rename = "k8s.io/initial-events-end")]
        initial_events_end: String,
    }
    serde_json::from_slice(bookmark)
        .is_ok_and(|object: Object| object.metadata.annotations.initial_events_end == "true")
}

#[cfg(test)]
mod tests;
