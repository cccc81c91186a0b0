//! How a decided change of a mirror's history happens: first on the disk, then for everybody to see. No lock that a
//! reader takes is held while the disk is waited for.

use std::collections::HashMap;

use bytes::Bytes;
use yurt_core::store::Result;

use super::bodies::Writer;
use super::history::{Deletion, Holding, Last, Listed, Transition};
use super::ingest::shown_before;
use super::remembered::{Learned, Renewed};
use super::saved::{encode_holding, encode_tombstone, member_key, scope_key, tombstone_key};
use super::version::Version;
use super::window::Step;
use super::{Mirror, Phase, State};
use crate::api::ObjectKey;
use crate::codec::{self, EventType};

/// Which record of the scope is written with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeRecord {
    /// If the objects alone would lead to less after a restart.
    IfNeeded,
    /// In any case: a list is complete.
    Always,
}

impl Mirror {
    /// Writes a transition and lets it happen. The caller holds `writing`. Blocks on the store.
    ///
    /// # Errors
    /// If the store takes no write; then nothing has happened.
    pub(super) fn happen(
        &self,
        mut transition: Transition,
        record: ScopeRecord,
        staged: &[Listed],
    ) -> Result<()> {
        let (is_silent, needs_record) = {
            let history = &self.state.read().history;
            (
                transition.is_silent(history),
                transition.needs_record(history),
            )
        };
        if is_silent && record == ScopeRecord::IfNeeded {
            self.state.write().history.commit(transition);
            self.note_followed();
            return Ok(());
        }
        let mut writer = self.kind.bodies.writer();
        let (before, renewed) = self.describe(&transition, &mut writer);
        if needs_record || record == ScopeRecord::Always {
            let saved = self.saved_after(&transition, record);
            writer.batch.put(scope_key(self.id), saved.encode());
        }
        for one in staged {
            // The scope itself holds it now, and not the list that was being taken.
            writer.release(&one.key, one.version);
        }
        self.look_back(&mut transition, &before);
        writer.write(|| {
            self.show(transition, record);
            self.kind.show_renewed(renewed);
        })
    }

    /// Lets a written transition be seen.
    fn show(&self, transition: Transition, record: ScopeRecord) {
        let mut state = self.state.write();
        state.history.commit(transition);
        if record == ScopeRecord::Always {
            state.end_list();
        }
        drop(state);
        self.note_followed();
        self.changed.send_replace(());
    }

    /// Describes a transition to the store; returns what its objects were before.
    fn describe(
        &self,
        transition: &Transition,
        writer: &mut Writer<'_>,
    ) -> (HashMap<ObjectKey, Bytes>, Vec<Renewed>) {
        let (mut before, mut renewed) = (HashMap::new(), Vec::new());
        let fresh: HashMap<(&ObjectKey, Version), &Bytes> = {
            let bodies = transition.bodies.iter();
            bodies
                .map(|(key, version, body)| ((key, *version), body))
                .collect()
        };
        for (key, holding) in &transition.holdings {
            let held = self.state.read().history.holding(key);
            if let Some(body) = held.member.and_then(|one| writer.before(key, one.version)) {
                before.insert(key.clone(), body);
            }
            for version in holding.versions().filter(|new| !held.has(*new)) {
                let body = fresh.get(&(key, version)).copied();
                writer.retain(key, version, holding.len(version), body);
            }
            for version in held.versions().filter(|old| !holding.has(*old)) {
                writer.release(key, version);
            }
            let learned = match holding.cloud_version() {
                Some(version) => Learned::There(version, holding.len(version)),
                None => self.ended(key, &held, transition),
            };
            renewed.extend(self.kind.renew_by_name(writer, key, learned, &fresh));
            match *holding == Holding::default() {
                true => drop(writer.batch.delete(member_key(self.id, key))),
                false => drop(
                    writer
                        .batch
                        .put(member_key(self.id, key), encode_holding(holding)),
                ),
            }
        }
        for deletion in &transition.deletions {
            self.describe_deletion(deletion, writer);
        }
        for order in &transition.forgotten {
            writer.batch.delete(tombstone_key(self.id, *order));
        }
        (before, renewed)
    }

    /// Returns what the end of an object in the scope says of the object: a selector may have lost it. Where a list found
    /// it nobody knows when it was, but that it was after what the scope held.
    fn ended(&self, key: &ObjectKey, held: &Holding, transition: &Transition) -> Learned {
        let at = |revision| Version::cloud(transition.era, revision);
        let said = transition.ended.get(key).copied().map(at);
        match (self.scope.is_by_key(), said) {
            (true, said) => Learned::Gone(said.unwrap_or(at(transition.marks.upstream))),
            (false, Some(said)) => Learned::Left(said),
            (false, None) => held
                .cloud_version()
                .map_or(Learned::Left(at(0)), Learned::Lost),
        }
    }

    fn describe_deletion(
        &self,
        Deletion {
            tombstone, last, ..
        }: &Deletion,
        writer: &mut Writer<'_>,
    ) {
        let body = match last {
            Last::Bytes(body) => body.clone(),
            Last::Version(version) => {
                let body = writer.before(&tombstone.key, *version).unwrap_or_default();
                codec::with_resource_version(&body, tombstone.order).unwrap_or(body)
            }
        };
        let stored = encode_tombstone(tombstone, &body);
        writer
            .batch
            .put(tombstone_key(self.id, tombstone.order), stored);
    }

    /// Adds to each event the object before it, where selectors could tell the difference.
    fn look_back(&self, transition: &mut Transition, before: &HashMap<ObjectKey, Bytes>) {
        let mut earlier: HashMap<ObjectKey, Bytes> = HashMap::new();
        for step in &mut transition.steps {
            let Step::Event(event) = step else { continue };
            let was_here = event.event_type != EventType::Added;
            // What is new was nothing before, if something of its name was there or not.
            let body = earlier.get(&event.key).or_else(|| before.get(&event.key));
            let body = body.filter(|_| was_here);
            event.before = body.and_then(|body| shown_before(&self.kind, &event.traits, body));
            let is_unknown = was_here && body.is_none();
            earlier.insert(event.key.clone(), event.object.clone());
            if is_unknown {
                // It was damaged: who selects has to see for itself whether it had the object.
                *step = Step::Jump { to: event.order };
            }
        }
    }
}

impl State {
    /// Notes that a list is wholly in place.
    fn end_list(&mut self) {
        self.is_suspect = false;
        if matches!(self.phase, Phase::Syncing | Phase::Refused(_)) {
            self.phase = Phase::Behind;
        }
    }
}
