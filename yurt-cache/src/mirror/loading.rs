//! What the store remembers of all mirrors is taken over at the start, and what is damaged or leads nowhere is told
//! from it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use yurt_core::store::{Batch, ErrorKind, Result, Store};

use super::history::{History, Holding, Tombstone};
use super::record::Record;
use super::saved::{
    SavedScope, decode_era, decode_holding, decode_remembered, decode_tombstone, id_of,
    parse_member_key, parse_object_key, parse_scope_key, parse_tombstone_key,
};
use super::version::MirrorId;
use super::{Kind, Limit, Mirror};
use crate::api::{ObjectKey, Resource, Scope, Within};
use crate::store::layout::{
    ERAS, HEALED, LAYOUT, LAYOUT_VERSION, MEMBERS, RECORDS, REMEMBERED, SCOPES, TABLES, TOMBSTONES,
};

/// Keys that are deleted at a time.
const PORTION: usize = 1_000;

/// What the store remembers.
pub(crate) struct Loaded {
    pub(crate) kinds: HashMap<Resource, Arc<Kind>>,
    pub(crate) mirrors: Vec<Mirror>,
    /// Keys of the store that nothing leads to.
    pub(crate) orphans: Vec<Bytes>,
    /// The highest id that anything in the store names.
    pub(crate) last_id: MirrorId,
    /// So many records are damaged, and not all of them say which: any mirror may lack something.
    pub(crate) damaged: Option<u64>,
}

/// The work of loading.
struct Loading<'a> {
    store: &'a Arc<dyn Store>,
    window: Limit,
    make_kind: &'a dyn Fn(&Resource) -> Kind,
    loaded: Loaded,
    damage: Damage,
}

/// What was found of one mirror.
#[derive(Default)]
struct Found {
    holdings: Vec<(ObjectKey, Holding)>,
    tombstones: Vec<Tombstone>,
    /// Something of it cannot be read.
    is_damaged: bool,
    /// A deletion cannot be read: nobody may resume from before it.
    forgets: bool,
}

/// How much of what the store calls damaged is accounted for.
#[derive(Default)]
struct Damage {
    keys: u64,
    objects: HashSet<(Resource, ObjectKey)>,
}

/// Takes over what the store remembers. Blocks on the store.
///
/// # Errors
/// If the store cannot be read at all; what is damaged is told by the mirrors that may lack it.
pub(crate) fn load(
    store: &Arc<dyn Store>,
    window: Limit,
    make_kind: &dyn Fn(&Resource) -> Kind,
    now: Instant,
) -> Result<Loaded> {
    let loaded = Loaded {
        kinds: HashMap::new(),
        mirrors: Vec::new(),
        orphans: Vec::new(),
        last_id: 0,
        damaged: None,
    };
    let mut loading = Loading {
        store,
        window,
        make_kind,
        loaded,
        damage: Damage::default(),
    };
    loading.check_layout()?;
    loading.load_eras()?;
    let saved = loading.load_scopes()?;
    let mut found = loading.load_members(&saved)?;
    loading.load_tombstones(&saved, &mut found)?;
    loading.load_by_name()?;
    loading.look_at_records()?;
    loading.look_for_damage()?;
    for (id, saved) in saved {
        let found = found.remove(&id).unwrap_or_default();
        loading.restore(id, &saved, found, now);
    }
    Ok(loading.loaded)
}

impl Loading<'_> {
    fn kind(&mut self, resource: &Resource) -> Arc<Kind> {
        let kinds = &mut self.loaded.kinds;
        let kind = kinds.entry(resource.clone());
        kind.or_insert_with(|| Arc::new((self.make_kind)(resource)))
            .clone()
    }

    /// Notes that an id was given once: it is not given again while anything in the store may name it.
    fn note_id(&mut self, id: MirrorId) {
        self.loaded.last_id = self.loaded.last_id.max(id);
    }

    /// Drops what was written in another layout.
    fn check_layout(&self) -> Result<()> {
        if self.store.get(LAYOUT.as_bytes()).ok().flatten().as_deref()
            == Some(LAYOUT_VERSION.as_bytes())
        {
            return Ok(());
        }
        let mut old = Vec::new();
        for table in TABLES {
            old.extend(self.stored_keys(table)?);
        }
        if !old.is_empty() {
            tracing::warn!(
                records = old.len(),
                "the store has another layout: it is fetched anew"
            );
        }
        for portion in old.chunks(PORTION) {
            let mut batch = Batch::new();
            for key in portion {
                batch.delete(key.clone());
            }
            self.store.write(batch)?;
        }
        let mut batch = Batch::new();
        batch.put(LAYOUT, LAYOUT_VERSION);
        // A disk that takes no write still answers what it has.
        if let Err(error) = self.store.write(batch) {
            tracing::warn!(%error, "the store's layout is not noted");
        }
        Ok(())
    }

    fn load_eras(&mut self) -> Result<()> {
        for stored in self.stored_keys(ERAS)? {
            let bytes = self.store.get(&stored).ok().flatten();
            let era = bytes.as_deref().and_then(decode_era);
            if let (Some((resource, _)), Some(era)) = (parse_object_key(&stored), era) {
                self.kind(&resource).note_era(era);
            }
        }
        Ok(())
    }

    fn load_scopes(&mut self) -> Result<BTreeMap<MirrorId, SavedScope>> {
        let mut scopes = BTreeMap::new();
        for stored in self.stored_keys(SCOPES)? {
            let saved = self.store.get(&stored);
            let saved = saved.unwrap_or_else(|error| {
                tracing::warn!(%error, "a damaged scope is forgotten");
                None
            });
            let Some(id) = parse_scope_key(&stored) else {
                continue;
            };
            self.note_id(id);
            scopes.extend(
                saved
                    .as_deref()
                    .and_then(SavedScope::decode)
                    .map(|saved| (id, saved)),
            );
        }
        Ok(scopes)
    }

    fn load_members(
        &mut self,
        scopes: &BTreeMap<MirrorId, SavedScope>,
    ) -> Result<HashMap<MirrorId, Found>> {
        let mut all: HashMap<MirrorId, Found> = HashMap::new();
        for stored in self.stored_keys(MEMBERS)? {
            let (Some(id), Some(key)) = (id_of(&stored), parse_member_key(&stored)) else {
                continue;
            };
            self.note_id(id);
            let Some(resource) = scopes.get(&id).map(SavedScope::resource) else {
                self.loaded.orphans.push(stored);
                continue;
            };
            let found = all.entry(id).or_default();
            let holding = self.read(&stored).and_then(|bytes| decode_holding(&bytes));
            let Some(holding) = holding else {
                found.is_damaged = true;
                continue;
            };
            let kind = self.kind(&resource);
            let key = kind.bodies.shared(key);
            for version in holding.versions() {
                kind.bodies.count(&key, version, holding.len(version));
                kind.note_era(version.era());
            }
            found.holdings.push((key, holding));
        }
        Ok(all)
    }

    fn load_tombstones(
        &mut self,
        scopes: &BTreeMap<MirrorId, SavedScope>,
        all: &mut HashMap<MirrorId, Found>,
    ) -> Result<()> {
        for stored in self.stored_keys(TOMBSTONES)? {
            let (Some(id), Some(order)) = (id_of(&stored), parse_tombstone_key(&stored)) else {
                continue;
            };
            self.note_id(id);
            if !scopes.contains_key(&id) {
                self.loaded.orphans.push(stored);
                continue;
            }
            let found = all.entry(id).or_default();
            let bytes = self.read(&stored);
            match bytes.and_then(|bytes| decode_tombstone(order, bytes)) {
                Some((stone, _)) => found.tombstones.push(stone),
                None => found.forgets = true,
            }
        }
        Ok(())
    }

    fn load_by_name(&mut self) -> Result<()> {
        for stored in self.stored_keys(REMEMBERED)? {
            let bytes = self.store.get(&stored).ok().flatten();
            let remembered = bytes.as_deref().and_then(decode_remembered);
            if let (Some((resource, key)), Some((version, len))) =
                (parse_object_key(&stored), remembered)
            {
                self.kind(&resource).recall_by_name(key, version, len);
            }
        }
        Ok(())
    }

    /// Tells from the records which objects are missing or damaged, and which nobody holds.
    fn look_at_records(&mut self) -> Result<()> {
        let is_damaged = self.store.health().damaged > 0;
        let mut stored: HashMap<Resource, HashSet<ObjectKey>> = HashMap::new();
        for record in self.stored_keys(RECORDS)? {
            let Some((resource, key)) = parse_object_key(&record) else {
                continue;
            };
            let kind = self.kind(&resource);
            if kind.bodies.versions(&key).is_empty() {
                self.loaded.orphans.push(record);
                continue;
            }
            let key = kind.bodies.shared(key);
            if is_damaged && !self.has_all(&kind, &record, &key) {
                self.damage.objects.insert((resource.clone(), key.clone()));
            }
            stored.entry(resource).or_default().insert(key);
        }
        for kind in self.loaded.kinds.values() {
            let stored = stored.remove(&kind.resource).unwrap_or_default();
            let missing = kind.bodies.keys(Within::Everything).into_iter();
            let missing = missing.filter(|key| !stored.contains(key));
            self.damage
                .objects
                .extend(missing.map(|key| (kind.resource.clone(), key)));
        }
        Ok(())
    }

    /// Returns whether a record has each version that somebody holds.
    fn has_all(&mut self, kind: &Kind, record: &[u8], key: &ObjectKey) -> bool {
        let stored = self.read(record).and_then(Record::decode);
        let versions = kind.bodies.versions(key);
        stored.is_some_and(|stored| versions.iter().all(|one| stored.at(one.version).is_some()))
    }

    /// Tells whether all the damage that the store knows of is accounted for: found in a record whose key can be read,
    /// or healed before.
    fn look_for_damage(&mut self) -> Result<()> {
        let damaged = self.store.health().damaged;
        if damaged == 0 {
            return Ok(());
        }
        let is_read = |key: &[u8]| {
            [MEMBERS, TOMBSTONES, RECORDS]
                .iter()
                .any(|table| key.starts_with(table.as_bytes()))
        };
        for key in self.stored_keys("")? {
            if !is_read(&key) {
                self.read(&key);
            }
        }
        let healed = self.store.get(HEALED.as_bytes()).ok().flatten();
        let healed = healed.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let known = self.damage.keys.max(healed.unwrap_or(0));
        self.loaded.damaged = (damaged > known).then_some(damaged);
        Ok(())
    }

    fn restore(&mut self, id: MirrorId, saved: &SavedScope, found: Found, now: Instant) {
        let Some(scope) = saved.scope() else { return };
        let kind = self.kind(&scope.resource);
        if let Some(form) = saved.form.clone() {
            kind.learn_form(form);
        }
        let is_unknown = self.loaded.damaged.is_some();
        let is_damaged = is_unknown || found.is_damaged || self.damage.lacks(&scope, &found);
        let era = saved.followed.era();
        let mirror = Mirror::new(id, scope, kind, self.store.clone(), self.window, now);
        if let Some(owner) = &saved.owner {
            mirror.note_owner(owner);
        }
        if saved.is_synced {
            let mut history = History::restored(
                (self.window, era),
                saved.marks(),
                found.holdings,
                found.tombstones,
            );
            if found.forgets {
                history.forget();
            }
            let era = history.era();
            mirror.restore(history, is_damaged);
            if saved.went_back {
                mirror.kind.note_era(era.next());
            }
        }
        self.loaded.mirrors.push(mirror);
    }

    /// Reads a value; notes that it is damaged.
    fn read(&mut self, stored: &[u8]) -> Option<Bytes> {
        match self.store.get(stored) {
            Ok(value) => value,
            Err(error) => {
                if error.kind() == ErrorKind::Damaged {
                    self.damage.keys += 1;
                }
                None
            }
        }
    }

    fn stored_keys(&self, prefix: &str) -> Result<Vec<Bytes>> {
        let mut keys = Vec::new();
        self.store.keys(prefix.as_bytes(), None, &mut |key, _| {
            keys.push(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }
}

impl Damage {
    /// Returns whether an object of the scope is missing or damaged.
    fn lacks(&self, scope: &Scope, found: &Found) -> bool {
        let lacks = |key: &ObjectKey| {
            let object = (scope.resource.clone(), key.clone());
            self.objects.contains(&object)
        };
        !self.objects.is_empty() && found.holdings.iter().any(|(key, _)| lacks(key))
    }
}
