//! One event as it came, read as far as a history must.

use bytes::{Bytes, BytesMut};

use super::kind::Kind;
use super::window::Event;
use crate::api::{ObjectKey, key};
use crate::codec::fields::Attributes;
use crate::codec::{self, EventType, ObjectError, ObjectMeta, without_type_meta};

/// An event of the upstream watch, or one that the node makes itself in the same form.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) event_type: EventType,
    pub(crate) revision: u64,
    pub(crate) kind: String,
    pub(crate) key: ObjectKey,
    /// The object in the form that is kept.
    pub(crate) body: Bytes,
    line: Bytes,
    object: Bytes,
    pub(crate) traits: Attributes,
}

impl Incoming {
    /// Reads one event. A bookmark has neither key nor body.
    ///
    /// # Errors
    /// What makes it no event of this kind.
    pub(crate) fn read(
        kind: &Kind,
        event_type: EventType,
        object: &[u8],
    ) -> Result<Self, ObjectError> {
        let meta = ObjectMeta::parse(object)?;
        let (line, shown) = framed(event_type, object);
        let body = kind.form().map_or_else(
            || Bytes::copy_from_slice(object),
            |type_meta| without_type_meta(object, &type_meta),
        );
        let traits = kind.traits(&meta, object);
        Ok(Self {
            event_type,
            revision: meta.resource_version,
            kind: meta.kind.unwrap_or_default(),
            key: key(&meta.namespace, &meta.name),
            body,
            line,
            object: shown,
            traits,
        })
    }

    /// Returns the length of the object as it is kept.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.body.len()).expect("a store takes no value of 4 GiB")
    }

    /// Returns the event as clients are told it, at a place in the history.
    pub(crate) fn told(self, event_type: EventType, order: u64) -> Event {
        let (line, object) = if event_type == self.event_type {
            (self.line, self.object)
        } else {
            framed(event_type, &self.object)
        };
        Event {
            order,
            revision: self.revision,
            event_type,
            key: self.key,
            line,
            object,
            traits: self.traits,
            before: None,
        }
    }
}

/// Returns the line of an event, and the object within it.
fn framed(event_type: EventType, object: &[u8]) -> (Bytes, Bytes) {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    codec::frame(event_type, object, &mut line);
    let line = line.freeze();
    // The line ends with the object, a brace and a line feed.
    let end = line.len() - 2;
    let shown = line.slice(end - object.len()..end);
    (line, shown)
}
