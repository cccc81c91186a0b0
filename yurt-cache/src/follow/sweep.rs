//! What leaves the registry: mirrors that nobody asks for or that are over a budget, objects that were read
//! by name long ago, and what nothing leads to any more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use yurt_core::store::{Batch, Result};

use super::registry::Registry;
use crate::api::{ObjectKey, Resource};
use crate::codec::Status;
use crate::mirror::Mirror;
use crate::mirror::kind::Kind;
use crate::mirror::remembered::Remembered;
use crate::mirror::saved::parse_object_key;
use crate::mirror::version::Era;
use crate::retention::{Bounds, Entry, Held, Needs, plan};
use crate::store::layout::{HEALED, RECORDS};
use crate::upstream::Link;

/// How many went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) mirrors: usize,
    pub(crate) objects: usize,
}

impl Registry {
    /// Drops nothing while cut off. Drops mirrors that failed; with `needs`, which are known only while the cloud is there, drops what
    /// nobody needs and what is over the budgets too. Blocks on the store.
    pub(crate) fn sweep(&self, now: Instant, link: Link, needs: Option<&Needs>) -> Result<Gone> {
        if link == Link::Cut {
            return Ok(Gone::default());
        }
        self.drop_failed(now)?;
        let Some(needs) = needs else {
            return Ok(Gone::default());
        };
        let mirrors = self.sweep_mirrors(now, needs)?;
        self.forget_left()?;
        let objects = self.sweep_remembered(now, needs)?;
        self.sweep_orphans()?;
        self.note_healed()?;
        // What a kind says of itself is learned again with its next mirror, but for its era.
        let is_unused = |kind: &Kind| kind.is_empty() && kind.era() == Era::default();
        self.kinds
            .write()
            .retain(|_, kind| Arc::strong_count(kind) > 1 || !is_unused(kind));
        Ok(Gone { mirrors, objects })
    }

    /// Notes that what was damaged is healed, once every mirror has been listed anew: the bytes stay in the store until
    /// it is compacted, and are not to make the next start doubt again. Blocks on the store.
    fn note_healed(&self) -> Result<()> {
        let Some(damaged) = *self.damaged.lock() else {
            return Ok(());
        };
        if self.all().iter().any(|mirror| mirror.is_suspect()) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(HEALED, damaged.to_string());
        self.store.write(batch)?;
        *self.damaged.lock() = None;
        tracing::info!(
            damaged,
            "all that damage to the store could concern is listed anew"
        );
        Ok(())
    }

    /// Writes how far the mirrors have followed the cloud. Blocks on the store.
    pub(crate) fn note_progress(&self) {
        for mirror in self.all() {
            if let Err(error) = mirror.claim(mirror.followed()) {
                tracing::warn!(scope = %mirror.scope, %error, "how far the mirror has come is not written");
            }
        }
    }

    fn drop_failed(&self, now: Instant) -> Result<()> {
        let failed: Vec<Arc<Mirror>> = self
            .all()
            .into_iter()
            .filter(|mirror| mirror.is_done_resting(now))
            .collect();
        for mirror in &failed {
            self.end(mirror, |mirror| mirror.is_done_resting(now))?;
        }
        Ok(())
    }

    /// Takes a mirror out and erases it, unless somebody has asked for it meanwhile. Who asks is noted under
    /// the same lock, so whoever finds a mirror keeps it.
    fn end(&self, mirror: &Mirror, is_due: impl Fn(&Mirror) -> bool) -> Result<bool> {
        {
            let mut mirrors = self.mirrors.lock();
            if !is_due(mirror) {
                return Ok(false);
            }
            mirrors.remove(mirror);
        }
        tracing::info!(scope = %mirror.scope, "a mirror ends");
        mirror.end(Status::expired_watch(mirror.revision(), mirror.revision()));
        mirror.erase()?;
        Ok(true)
    }

    // === Mirrors ===

    fn sweep_mirrors(&self, now: Instant, needs: &Needs) -> Result<usize> {
        let needed = self.needed(needs);
        let mut of_kinds: HashMap<Resource, Vec<Arc<Mirror>>> = HashMap::new();
        for mirror in self.all().into_iter().filter(|one| !one.has_failed()) {
            let resource = mirror.scope.resource.clone();
            of_kinds.entry(resource).or_default().push(mirror);
        }
        let mut gone = 0;
        for mirrors in of_kinds.into_values() {
            gone += self.sweep_kind(&mirrors, &needed, now)?;
        }
        Ok(gone)
    }

    fn sweep_kind(
        &self,
        mirrors: &[Arc<Mirror>],
        needed: &HashSet<u32>,
        now: Instant,
    ) -> Result<usize> {
        let Some(kind) = mirrors.first().map(|mirror| mirror.kind.clone()) else {
            return Ok(0);
        };
        let bounds = Bounds {
            age: self.retention.mirror_idle,
            budget: kind.budget(),
        };
        let entry = |mirror: &Arc<Mirror>| {
            let (objects, bytes) = mirror.size();
            Entry {
                idle: mirror
                    .idle_since()
                    .map_or(Duration::ZERO, |since| now.duration_since(since)),
                held: Held { objects, bytes },
                is_needed: needed.contains(&mirror.id),
            }
        };
        let entries: Vec<Entry> = mirrors.iter().map(entry).collect();
        let goes = plan(&entries, kind.held(), &bounds);
        let is_idle = |mirror: &Mirror| {
            let since = mirror.idle_since();
            since.is_some_and(|since| now.duration_since(since) > bounds.age)
        };
        let mut gone = 0;
        for at in &goes {
            let mirror = &mirrors[*at];
            if entries[*at].idle > bounds.age {
                gone += usize::from(self.end(mirror, is_idle)?);
            } else {
                tracing::warn!(scope = %mirror.scope, "a mirror is over the budget of its kind");
                self.give_up(mirror, now)?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Stops a mirror and releases what it holds; requests for its scope are forwarded for a while.
    fn give_up(&self, mirror: &Mirror, now: Instant) -> Result<()> {
        if let Some(kept) = self.mirrors.lock().by_id.get(&mirror.id) {
            kept.stop.cancel();
        }
        mirror.rest(now);
        mirror.erase()
    }

    /// Returns the mirrors from which a restart is answered.
    fn needed(&self, needs: &Needs) -> HashSet<u32> {
        let mirrors = self.all();
        let own = mirrors
            .iter()
            .map(|mirror| (mirror.scope.identity(), mirror));
        let own: HashMap<String, &Arc<Mirror>> = own.collect();
        let mut needed = HashSet::new();
        for scope in needs.scopes() {
            let own = own.get(&scope.identity());
            let is_enough = own.is_some_and(|mirror| mirror.is_synced());
            needed.extend(own.map(|mirror| mirror.id));
            if !is_enough {
                needed.extend(self.find(&scope).map(|mirror| mirror.id));
            }
        }
        needed
    }

    // === Objects by name ===

    fn forget_left(&self) -> Result<()> {
        let mirrors = self.all();
        let kinds = self.kinds();
        kinds.iter().try_for_each(|kind| kind.forget_left(&mirrors))
    }

    fn sweep_remembered(&self, now: Instant, needs: &Needs) -> Result<usize> {
        let kinds: Vec<Arc<Kind>> = self.kinds.read().values().cloned().collect();
        let mut objects: Vec<(Arc<Kind>, ObjectKey)> = Vec::new();
        let mut entries = Vec::new();
        for kind in &kinds {
            for (key, held, used) in kind.remembered() {
                entries.push(Entry {
                    idle: now.duration_since(used.unwrap_or(self.opened)),
                    held,
                    is_needed: needs.has_object(&kind.resource, &key),
                });
                objects.push((kind.clone(), key));
            }
        }
        let bounds = Bounds {
            age: self.retention.age,
            budget: self.remembered.budget(),
        };
        let goes = plan(&entries, self.remembered.held(), &bounds);
        let mut of_kinds: BTreeMap<&Resource, (&Arc<Kind>, Vec<ObjectKey>)> = BTreeMap::new();
        for at in &goes {
            let (kind, key) = &objects[*at];
            let of_kind = of_kinds.entry(&kind.resource);
            of_kind
                .or_insert_with(|| (kind, Vec::new()))
                .1
                .push(key.clone());
        }
        for (kind, keys) in of_kinds.values() {
            kind.release(keys)?;
        }
        Ok(goes.len())
    }

    // === Orphans ===

    /// Deletes records of which no holder is left, as after damage to a scope.
    fn sweep_orphans(&self) -> Result<()> {
        let orphans = std::mem::take(&mut *self.orphans.lock());
        let mut batch = Batch::new();
        for stored in orphans {
            let of_record =
                parse_object_key(&stored).filter(|_| stored.starts_with(RECORDS.as_bytes()));
            match of_record {
                Some((resource, key)) => match self.known_kind(&resource) {
                    Some(kind) => kind.delete_orphan(&key)?,
                    None => drop(batch.delete(stored)),
                },
                None => drop(batch.delete(stored)),
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.store.write(batch)
    }

    /// Returns how much is held of each kind.
    pub(crate) fn kinds(&self) -> Vec<Arc<Kind>> {
        let mut kinds: Vec<Arc<Kind>> = self.kinds.read().values().cloned().collect();
        kinds.sort_by(|one, other| one.resource.cmp(&other.resource));
        kinds
    }

    /// Returns what is remembered by name, of all kinds.
    pub(crate) fn remembered(&self) -> &Arc<Remembered> {
        &self.remembered
    }
}
