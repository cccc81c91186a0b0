//! What an event is to a client that wants some of the mirror's objects.

use bytes::Bytes;

use super::window::Event;
use crate::api::Selection;
use crate::codec::{self, EventType};

impl Event {
    /// Returns what a client is told that wants a selection, and of which object; `None` if the event is nothing to it.
    /// An object that leaves the selection is deleted for the client, as it knew it, at the revision of the change.
    pub(crate) fn selected(&self, selection: &Selection) -> Option<(EventType, Bytes)> {
        let is = selection.matches(&self.key, &self.traits);
        let was = match &self.before {
            Some(before) => selection.matches(&self.key, &before.traits),
            None => is && self.event_type != EventType::Added,
        };
        let event_type = match (self.event_type, was, is) {
            (EventType::Deleted, false, _) | (_, false, false) => return None,
            (EventType::Deleted, true, _) => EventType::Deleted,
            (_, false, true) => EventType::Added,
            (_, true, true) => EventType::Modified,
            (_, true, false) => {
                let before = self.before.as_ref();
                let known = before.map_or(&self.object, |before| &before.object);
                let gone = codec::with_resource_version(known, self.revision);
                return Some((EventType::Deleted, gone.unwrap_or_else(|_| known.clone())));
            }
        };
        Some((event_type, self.object.clone()))
    }
}
