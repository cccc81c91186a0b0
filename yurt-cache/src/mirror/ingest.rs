//! What happens to a mirror while it follows the cloud: events are taken, a revision is proven, local versions come
//! and go.

use bytes::Bytes;
use yurt_core::store::Result;

use super::Mirror;
use super::incoming::Incoming;
use super::kind::Kind;
use super::window::Before;
use super::write::ScopeRecord;
use crate::api::{ObjectKey, Selection};
use crate::codec::fields::Attributes;
use crate::codec::{EventType, ObjectError, ObjectMeta, with_type_meta};

impl Mirror {
    /// Reads one event of the watch. A bookmark has neither key nor body.
    ///
    /// # Errors
    /// What makes it no event of this kind.
    pub(crate) fn read_event(
        &self,
        event_type: EventType,
        object: &[u8],
    ) -> std::result::Result<Incoming, ObjectError> {
        Incoming::read(&self.kind, event_type, object)
    }

    /// Takes over events, in their order. Blocks on the store.
    ///
    /// # Errors
    /// If the store takes no write; then none of them was taken.
    pub(crate) fn take(&self, events: Vec<Incoming>) -> Result<()> {
        let writing = self.writing.lock();
        // What comes from a later era does not continue an earlier one: it is listed.
        if writing.is_ended || self.is_outdated() {
            return Ok(());
        }
        let transition = self.state.read().history.events(events);
        self.happen(transition, ScopeRecord::IfNeeded, &[])
    }

    /// Notes that nothing happened in the scope up to `revision`. Blocks on the store: what clients are told has to be
    /// known after a restart.
    pub(crate) fn claim(&self, revision: u64) -> Result<()> {
        let writing = self.writing.lock();
        if writing.is_ended || !self.is_live() {
            return Ok(());
        }
        let transition = self.state.read().history.proven(revision);
        self.happen(transition, ScopeRecord::IfNeeded, &[])
    }

    /// Puts `object` in front of what is held under its key; `false` if nothing is. Blocks on the store.
    pub(crate) fn cover(&self, object: &Bytes) -> Result<bool> {
        let Some(event) = self.own_event(object) else {
            return Ok(false);
        };
        let writing = self.writing.lock();
        if writing.is_ended {
            return Ok(false);
        }
        let is_selected = Selection::of(&self.scope).matches(&event.key, &event.traits);
        let transition = self.state.read().history.cover(event, is_selected);
        let Some(transition) = transition else {
            return Ok(false);
        };
        self.happen(transition, ScopeRecord::IfNeeded, &[])?;
        Ok(true)
    }

    /// Takes away what is local of those that `is_meant`; returns how many objects that were. Blocks on the store.
    pub(crate) fn uncover(&self, is_meant: &dyn Fn(&ObjectKey) -> bool) -> Result<usize> {
        let writing = self.writing.lock();
        if writing.is_ended {
            return Ok(0);
        }
        let mut events = Vec::new();
        for (key, version) in self.covered(is_meant) {
            let Some(body) = self.kind.read(&key, version)? else {
                continue;
            };
            let form = self.kind.form();
            let body = form.map_or_else(|| body.clone(), |form| with_type_meta(&body, &form));
            events.extend(self.own_event(&body));
        }
        let count = events.len();
        let transition = self.state.read().history.uncover(events);
        self.happen(transition, ScopeRecord::IfNeeded, &[])?;
        Ok(count)
    }

    fn covered(
        &self,
        is_meant: &dyn Fn(&ObjectKey) -> bool,
    ) -> Vec<(ObjectKey, super::version::Version)> {
        let state = self.state.read();
        let behind = state.history.behind().filter(|(key, _)| is_meant(key));
        behind
            .map(|(key, version)| (key.clone(), version))
            .collect()
    }

    fn own_event(&self, object: &Bytes) -> Option<Incoming> {
        let event = self.read_event(EventType::Modified, object);
        let event = event.inspect_err(|error| {
            tracing::warn!(scope = %self.scope, %error, "something local is no object");
        });
        event.ok()
    }
}

/// Returns the object before an event, where selectors could tell the difference.
pub(super) fn shown_before(kind: &Kind, now: &Attributes, body: &Bytes) -> Option<Before> {
    let meta = ObjectMeta::parse(body).ok()?;
    let traits = kind.traits(&meta, body);
    if traits == *now {
        return None;
    }
    let form = kind.form();
    let object = form.map_or_else(|| body.clone(), |form| with_type_meta(body, &form));
    Some(Before { traits, object })
}
