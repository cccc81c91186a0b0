//! Takes whole lists: the first one, which becomes visible when it is complete, and later ones, of which
//! only the difference is put in place.
//!
//! A later list is written beside what is visible, then the scope says that it is complete, then it is put
//! in place. A crash before the word leaves the old state, a crash after it is finished at the next start.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use yurt_core::store::{Batch, Result};

use super::kind::Change;
use super::record::REMEMBERED;
use super::saved::{
    decode_staged, encode_staged, encode_tombstone, parse_staged_key, scope_key, staged_key,
    staged_prefix, tombstone_key,
};
use super::window::Step;
use super::{Mirror, Phase, Tombstone};
use crate::api::{ObjectKey, Within, split_key};
use crate::codec;
use crate::codec::TypeMeta;

/// Bytes that are put in place at a time.
const PORTION: usize = 1 << 20;

/// One object of a list, in the form that is kept.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) key: ObjectKey,
    pub(crate) revision: u64,
    pub(crate) body: Bytes,
}

impl Mirror {
    /// Takes over a part of a list. Blocks on the store.
    pub(crate) fn take_listed(&self, items: Vec<Listed>) -> Result<()> {
        if self.is_synced() {
            self.stage(items)
        } else {
            let changes: Vec<Change> = items.into_iter().map(Listed::into_change).collect();
            self.kind.apply(self.id, &changes, Batch::new()).map(drop)
        }
    }

    fn stage(&self, items: Vec<Listed>) -> Result<()> {
        let mut batch = Batch::new();
        for item in items {
            if self.kind.revision_of(self.id, &item.key) != Some(item.revision) {
                batch.put(
                    staged_key(self.id, &item.key),
                    encode_staged(item.revision, &item.body),
                );
            }
        }
        if batch.is_empty() {
            Ok(())
        } else {
            self.store.write(batch)
        }
    }

    /// Clears the way for a list: a complete one that was interrupted is finished, others are dropped.
    pub(crate) fn begin_list(&self) -> Result<()> {
        let relisted = self.state.lock().relisted;
        match relisted {
            Some(revision) => self.put_in_place(revision),
            None => self.unstage(),
        }
    }

    /// Drops what an interrupted list left behind.
    pub(crate) fn unstage(&self) -> Result<()> {
        loop {
            let staged = self.staged(PORTION)?;
            if staged.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for key in &staged {
                batch.delete(staged_key(self.id, key));
            }
            self.store.write(batch)?;
        }
    }

    /// Makes a complete list visible as a whole. Blocks on the store.
    pub(crate) fn finish_list(
        &self,
        revision: u64,
        form: TypeMeta,
        seen: &HashSet<ObjectKey>,
    ) -> Result<()> {
        self.kind.learn_form(form);
        if self.is_synced() {
            self.finish_later_list(revision, seen)?;
        } else {
            self.finish_first_list(revision, seen)?;
        }
        self.forget_unlisted(revision, seen)
    }

    /// Forgets what was once read by name where a list of everything no longer has it.
    fn forget_unlisted(&self, revision: u64, seen: &HashSet<ObjectKey>) -> Result<()> {
        if !self.scope.labels.is_everything() || !self.scope.fields.is_everything() {
            return Ok(());
        }
        let namespace = self.scope.namespace.as_deref();
        let is_gone = |key: &ObjectKey| {
            namespace.is_none_or(|namespace| split_key(key).0 == namespace)
                && self.kind.revision_of(REMEMBERED, key) <= Some(revision)
        };
        let unlisted = self.kind.unseen(REMEMBERED, seen).into_iter();
        let gone: Vec<Change> = unlisted
            .filter(is_gone)
            .map(|key| Change::Delete { key })
            .collect();
        self.kind.apply(REMEMBERED, &gone, Batch::new()).map(drop)
    }

    fn finish_first_list(&self, revision: u64, seen: &HashSet<ObjectKey>) -> Result<()> {
        let _whole = self.whole.write();
        let gone: Vec<Change> = self
            .kind
            .unseen(self.id, seen)
            .into_iter()
            .map(|key| Change::Delete { key })
            .collect();
        if self.has_failed() {
            return Ok(());
        }
        let mut saved = self.saved(&self.state.lock());
        saved.is_synced = true;
        saved.revision = revision;
        saved.followed = revision;
        saved.floor = revision;
        let mut batch = Batch::new();
        batch.put(scope_key(self.id), saved.encode());
        self.kind.apply(self.id, &gone, batch)?;

        let mut state = self.state.lock();
        state.revision = revision;
        state.followed = revision;
        state.floor = revision;
        state.window.restart(revision);
        state.phase = Phase::Behind;
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    fn finish_later_list(&self, revision: u64, seen: &HashSet<ObjectKey>) -> Result<()> {
        let mut batch = Batch::new();
        for key in self.kind.unseen(self.id, seen) {
            batch.put(staged_key(self.id, &key), encode_staged(0, b""));
        }
        let mut saved = self.saved(&self.state.lock());
        saved.relisted = Some(revision);
        batch.put(scope_key(self.id), saved.encode());
        self.store.write(batch)?;
        self.state.lock().relisted = Some(revision);
        self.put_in_place(revision)
    }

    /// Puts a complete later list in place; also the end of one that a crash or a full disk interrupted here.
    pub(crate) fn put_in_place(&self, revision: u64) -> Result<()> {
        let _whole = self.whole.write();
        let mut revisions = self.deleted_revisions(revision)?;
        loop {
            let staged = self.staged(PORTION)?;
            if staged.is_empty() {
                break;
            }
            let stones = self.put_portion(&staged, &mut revisions)?;
            let mut state = self.state.lock();
            state.tombstones.extend(stones);
            state
                .tombstones
                .make_contiguous()
                .sort_by_key(|stone| stone.revision);
        }
        let mut batch = Batch::new();
        let (told, has_gone_back, mut saved) = {
            let state = self.state.lock();
            let has_gone_back = revision < state.followed;
            if has_gone_back {
                for stone in &state.tombstones {
                    batch.delete(tombstone_key(self.id, stone.revision));
                }
            }
            (state.revision, has_gone_back, self.saved(&state))
        };
        // Clients may have been told more than the cloud has come to, of what only this node knew.
        let is_news = revision > saved.followed || told > saved.followed;
        saved.revision = match (has_gone_back, is_news) {
            (true, _) => revision,
            (false, true) => revision.max(told + 1),
            (false, false) => told,
        };
        saved.followed = revision;
        if has_gone_back {
            saved.floor = revision;
        }
        batch.put(scope_key(self.id), saved.encode());
        self.store.write(batch)?;

        let mut state = self.state.lock();
        if has_gone_back {
            // As when its etcd was restored: what clients know leads nowhere.
            state.tombstones.clear();
            state.window.restart(revision);
        } else if is_news {
            state.window.push(Step::Jump { to: saved.revision });
        }
        state.revision = saved.revision;
        state.followed = revision;
        state.floor = saved.floor;
        state.is_suspect = false;
        state.relisted = None;
        drop(state);
        self.changed.send_replace(());
        Ok(())
    }

    /// Leaves it for the next list to put in place what was fetched at this revision.
    pub(super) fn put_off(&self, revision: u64) {
        let mut state = self.state.lock();
        state.relisted = Some(revision);
        // A watch would follow on what is neither the old list nor the new one.
        state.is_suspect = true;
    }

    /// Returns the revisions that are left for deletions.
    fn deleted_revisions(&self, revision: u64) -> Result<DeletedRevisions> {
        let (from, mut taken) = {
            let state = self.state.lock();
            let stones = state.tombstones.iter().map(|stone| stone.revision);
            (state.revision, stones.collect::<BTreeSet<u64>>())
        };
        let newer = self
            .kind
            .snapshot(self.id, Within::Everything, |at, _| at > from);
        taken.extend(newer.items.iter().map(|item| item.revision));
        let mut staged = Vec::new();
        self.store
            .keys(&staged_prefix(self.id), None, &mut |stored, _| {
                staged.push(Bytes::copy_from_slice(stored));
                ControlFlow::Continue(())
            })?;
        for key in staged {
            let stored = self.store.get(&key)?;
            taken.extend(stored.as_ref().and_then(decode_staged).map(|(at, _)| at));
        }
        Ok(DeletedRevisions {
            next: revision,
            above: from,
            taken,
        })
    }

    fn put_portion(
        &self,
        staged: &[ObjectKey],
        revisions: &mut DeletedRevisions,
    ) -> Result<Vec<Tombstone>> {
        let mut batch = Batch::new();
        let mut stones = Vec::new();
        let mut changes = Vec::with_capacity(staged.len());
        for key in staged {
            batch.delete(staged_key(self.id, key));
            let stored = self.store.get(&staged_key(self.id, key))?;
            match stored.as_ref().and_then(decode_staged) {
                Some((at, body)) if !body.is_empty() => {
                    changes.push(Change::Put {
                        key: key.clone(),
                        revision: at,
                        body,
                    });
                }
                _ => {
                    let Some(held) = self.kind.revision_of(self.id, key) else {
                        continue;
                    };
                    let added = self.kind.added(self.id, key).unwrap_or(held);
                    let at = revisions.next();
                    let body = self.kind.read(key, held)?.unwrap_or_default();
                    let body = codec::with_resource_version(&body, at).unwrap_or(body);
                    batch.put(
                        tombstone_key(self.id, at),
                        encode_tombstone(added, key, &body),
                    );
                    stones.push(Tombstone {
                        revision: at,
                        key: key.clone(),
                        added,
                    });
                    changes.push(Change::Delete { key: key.clone() });
                }
            }
        }
        self.kind.apply(self.id, &changes, batch)?;
        Ok(stones)
    }

    /// Returns keys that are staged, of about `bytes` together.
    fn staged(&self, bytes: usize) -> Result<Vec<ObjectKey>> {
        let mut keys = Vec::new();
        let mut size = 0;
        self.store
            .keys(&staged_prefix(self.id), None, &mut |stored, len| {
                keys.extend(parse_staged_key(stored));
                size += len + 256;
                if size < bytes {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        Ok(keys)
    }
}

impl Listed {
    fn into_change(self) -> Change {
        Change::Put {
            key: self.key,
            revision: self.revision,
            body: self.body,
        }
    }
}

/// Revisions for deletions whose own is not known: distinct, the highest first, none that an object has.
/// Each deletion took one between the old list and the new one, so there are enough.
struct DeletedRevisions {
    next: u64,
    /// The old list's.
    above: u64,
    taken: BTreeSet<u64>,
}

impl DeletedRevisions {
    fn next(&mut self) -> u64 {
        while self.taken.contains(&self.next) {
            self.next = self.next.saturating_sub(1);
        }
        let revision = self.next.max(self.above + 1);
        self.next = self.next.saturating_sub(1);
        revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletions_of_a_relist_get_revisions_of_their_own() {
        let mut revisions = DeletedRevisions {
            next: 10,
            above: 6,
            taken: BTreeSet::from([9]),
        };
        let given = [(); 4].map(|()| revisions.next());
        assert_eq!(given, [10, 8, 7, 7], "never one that clients have passed");
    }
}
