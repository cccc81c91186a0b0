//! The objects of one resource that the node holds, whichever scopes hold them: bytes in the store,
//! names and revisions in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use yurt_core::store::{Batch, Result, Store};

use super::record::{CLOUD, REMEMBERED, Record, Version, Versions, is_local, told};
use super::remembered::{Remembered, Uses, remembered_of};
use crate::api::{ObjectKey, Resource, Within, key};
use crate::codec::fields::Attributes;
use crate::codec::{Column, JsonPath, ObjectMeta, TypeMeta, fields};
use crate::retention::{Budget, Held};

/// Bytes of replaced versions that are kept for lists still being sent; beyond, such a list is cut off.
const PINNED_LIMIT: usize = 16 << 20;

/// What a CustomResourceDefinition says that answers need.
#[derive(Debug, Default)]
pub(crate) struct Custom {
    /// There is such a definition.
    pub(crate) is_defined: bool,
    pub(crate) columns: Vec<Column>,
    /// Field label and where its value is.
    pub(crate) selectable: Vec<(String, JsonPath)>,
}

/// One change that a scope saw. The body is in the form that is kept.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put {
        key: ObjectKey,
        revision: u64,
        body: Bytes,
    },
    /// The object is gone, or left what the scope selects.
    Delete { key: ObjectKey },
    /// The scope ends; the object is what it was.
    Release { key: ObjectKey },
    /// The node knows better than the cloud for now.
    Cover {
        key: ObjectKey,
        revision: u64,
        body: Bytes,
    },
    /// What is local goes, and the cloud's version is back.
    Uncover { key: ObjectKey },
}

/// The objects of one resource.
pub(crate) struct Kind {
    pub(crate) resource: Resource,
    store: Arc<dyn Store>,
    form: RwLock<Option<Arc<TypeMeta>>>,
    custom: RwLock<Arc<Custom>>,
    pub(super) objects: RwLock<BTreeMap<ObjectKey, Versions>>,
    /// Held over each read-modify-write of a record.
    writing: Mutex<()>,
    pins: Mutex<Pins>,
    budget: Budget,
    held: Mutex<Held>,
    pub(super) remembered: Arc<Remembered>,
    pub(super) uses: Uses,
}

#[derive(Default)]
struct Pins {
    snapshots: usize,
    kept: HashMap<(ObjectKey, u64), Bytes>,
    bytes: usize,
}

impl Kind {
    pub(crate) fn new(
        resource: Resource,
        store: Arc<dyn Store>,
        budget: Budget,
        remembered: Arc<Remembered>,
    ) -> Self {
        Self {
            resource,
            store,
            form: RwLock::default(),
            custom: RwLock::default(),
            objects: RwLock::default(),
            writing: Mutex::default(),
            pins: Mutex::default(),
            budget,
            held: Mutex::default(),
            remembered,
            uses: Uses::default(),
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    /// Returns how much of the kind is held, by whomever.
    pub(crate) fn held(&self) -> Held {
        *self.held.lock()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn form(&self) -> Option<Arc<TypeMeta>> {
        self.form.read().clone()
    }

    /// Takes over the form; returns whether it is news.
    pub(crate) fn learn_form(&self, form: TypeMeta) -> bool {
        let mut known = self.form.write();
        if known.as_deref() == Some(&form) {
            return false;
        }
        *known = Some(Arc::new(form));
        true
    }

    /// Takes over what the store held of an object when it was opened. Holders that `is_live` denies are forgotten;
    /// returns whether anybody is left.
    pub(crate) fn load(&self, key: &str, record: &Record, is_live: impl Fn(u32) -> bool) -> bool {
        let mut versions = record.versions();
        for version in &mut versions {
            version.holders.retain(|holder| is_live(*holder));
        }
        if !versions.iter().any(|version| is_local(version.revision)) {
            for version in &mut versions {
                version.holders.retain(|holder| *holder != CLOUD);
            }
        }
        versions.retain(|version| !version.holders.is_empty());
        let is_held = !versions.is_empty();
        if is_held {
            self.place(&mut self.objects.write(), key.into(), versions);
        }
        is_held
    }

    /// Puts what is held of an object, nothing included, and counts it.
    fn place(
        &self,
        objects: &mut BTreeMap<ObjectKey, Versions>,
        key: ObjectKey,
        versions: Versions,
    ) {
        let now = (held_of(&versions), remembered_of(&versions));
        if now.1 == Held::default() {
            self.uses.forget(&key);
        }
        let before = if versions.is_empty() {
            objects.remove(&key)
        } else {
            objects.insert(key, versions)
        };
        let before = before.unwrap_or_default();
        let mut held = self.held.lock();
        *held = held.plus(now.0).minus(held_of(&before));
        self.remembered.change(remembered_of(&before), now.1);
    }

    /// Returns the bytes of a version, `None` if it is gone.
    pub(crate) fn read(&self, key: &ObjectKey, revision: u64) -> Result<Option<Bytes>> {
        if let Some(body) = self
            .record(key)?
            .and_then(|record| record.at(revision).cloned())
        {
            return Ok(Some(body));
        }
        Ok(self.pins.lock().kept.get(&(key.clone(), revision)).cloned())
    }

    /// Returns the newest version of an object, whoever holds it, what is local before all. A mirror that covers the place knows better
    /// than what was remembered at a revision that it has passed.
    pub(crate) fn newest(
        &self,
        namespace: &str,
        name: &str,
        covering: Option<Covering>,
    ) -> Result<Option<(u64, Bytes)>> {
        let key = key(namespace, name);
        let counts = |version: &&Version| match covering {
            None => true,
            Some(mirror) => {
                version.holders.contains(&mirror.holder) || version.revision > mirror.revision
            }
        };
        let newest = {
            let objects = self.objects.read();
            let versions = objects.get(&key).into_iter().flatten();
            versions
                .filter(counts)
                .map(|version| version.revision)
                .max()
        };
        let Some(revision) = newest else {
            return Ok(None);
        };
        Ok(self
            .read(&key, revision)?
            .map(|body| (told(revision), body)))
    }

    /// Returns the cloud's revision at which `holder` holds an object, if something local is in front or not.
    pub(crate) fn revision_of(&self, holder: u32, key: &str) -> Option<u64> {
        let objects = self.objects.read();
        let versions = objects.get(key)?;
        let held_by = |holder: u32| {
            versions
                .iter()
                .find(|version| version.holders.contains(&holder))
                .map(|version| version.revision)
        };
        held_by(holder).and_then(|revision| {
            if is_local(revision) {
                held_by(CLOUD)
            } else {
                Some(revision)
            }
        })
    }

    /// Returns the keys of a namespace, whoever holds them.
    pub(crate) fn keys_in(&self, namespace: &str) -> Vec<ObjectKey> {
        let (from, to) = Within::Namespace(namespace).bounds();
        let objects = self.objects.read();
        let range = objects.range::<str, _>((
            from.as_ref().map(String::as_str),
            to.as_ref().map(String::as_str),
        ));
        range.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the objects that anything local is in front of.
    pub(crate) fn all_covered(&self) -> Vec<ObjectKey> {
        let objects = self.objects.read();
        let covered = objects
            .iter()
            .filter(|(_, versions)| versions.iter().any(|version| is_local(version.revision)));
        covered.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the objects that `holder` holds something local of.
    pub(crate) fn covered(&self, holder: u32) -> Vec<ObjectKey> {
        let objects = self.objects.read();
        let covered = objects.iter().filter(|(_, versions)| {
            versions
                .iter()
                .any(|version| is_local(version.revision) && version.holders.contains(&holder))
        });
        covered.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the cloud's own bytes of an object that has something local in front of it.
    pub(crate) fn behind(&self, key: &ObjectKey) -> Result<Option<Bytes>> {
        let revision = self.revision_of(CLOUD, key);
        revision.map_or(Ok(None), |revision| self.read(key, revision))
    }

    /// Returns since which revision the object that `holder` holds has been there.
    pub(crate) fn added(&self, holder: u32, key: &str) -> Option<u64> {
        let objects = self.objects.read();
        let versions = objects.get(key)?;
        versions
            .iter()
            .find(|version| version.holders.contains(&holder))
            .map(|version| version.added)
    }

    /// Returns what selectors look at in an object.
    pub(crate) fn traits(&self, meta: &ObjectMeta, object: &[u8]) -> Attributes {
        let custom = self.custom.read().clone();
        let fields = fields::values(
            &self.resource.group,
            &self.resource.plural,
            &custom.selectable,
            object,
            meta,
        );
        Attributes {
            labels: meta.labels.clone(),
            fields,
        }
    }

    /// Returns what the resource's definition says of it, where it is a custom one.
    pub(crate) fn custom(&self) -> Arc<Custom> {
        self.custom.read().clone()
    }

    /// Takes over what the resource's definition says.
    pub(crate) fn learn_custom(&self, custom: Custom) {
        *self.custom.write() = Arc::new(custom);
    }

    /// Applies what `holder` saw, together with `batch`; returns for each change the bytes that `holder` held before.
    ///
    /// Blocks on the store.
    ///
    /// # Errors
    /// As [`Store::write`]; then nothing was applied.
    pub(crate) fn apply(
        &self,
        holder: u32,
        changes: &[Change],
        mut batch: Batch,
    ) -> Result<Vec<Option<Bytes>>> {
        let _writing = self.writing.lock();
        let mut touched: HashMap<ObjectKey, Record> = HashMap::new();
        let mut before = Vec::with_capacity(changes.len());
        let mut replaced = Vec::new();
        for change in changes {
            let key = change.key();
            if !touched.contains_key(key) {
                touched.insert(key.clone(), self.record_of_live(key)?);
            }
            let record = touched.get_mut(key).expect("inserted above");
            let held = match change {
                Change::Put { revision, body, .. } => {
                    record.renew(REMEMBERED, *revision, body);
                    record.hold(holder, *revision, body.clone())
                }
                Change::Delete { .. } => {
                    let held = record.release(holder);
                    // What somebody once read of it by name is no longer true.
                    record.release(REMEMBERED);
                    held
                }
                Change::Release { .. } => record.release(holder),
                Change::Cover { revision, body, .. } => {
                    record.cover(holder, *revision, body.clone())
                }
                Change::Uncover { .. } => record.uncover(holder),
            };
            if let Some((version, body)) = &held {
                replaced.push((key.clone(), version.revision, body.clone()));
            }
            before.push(held.map(|(_, body)| body));
        }
        for (key, record) in &mut touched {
            record.settle();
            if record.0.is_empty() {
                batch.delete(self.record_key(key));
            } else {
                batch.put(self.record_key(key), record.encode());
            }
        }
        // Before the write, so that a reader finds an old version in the store or here.
        self.pins.lock().keep(replaced);
        if !batch.is_empty() {
            self.store.write(batch)?;
        }
        let mut objects = self.objects.write();
        for (key, record) in touched {
            let versions = record.versions();
            self.place(&mut objects, key, versions);
        }
        Ok(before)
    }

    /// Deletes what the store has of an object that nobody holds.
    pub(crate) fn delete_orphan(&self, key: &str) -> Result<()> {
        let _writing = self.writing.lock();
        if self.objects.read().contains_key(key) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(self.record_key(key));
        self.store.write(batch)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.objects.read().is_empty()
    }

    /// Returns the keys that `holder` holds and `seen` does not name.
    pub(crate) fn unseen(&self, holder: u32, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let objects = self.objects.read();
        let held = objects.iter().filter(|(_, versions)| {
            versions
                .iter()
                .any(|version| version.holders.contains(&holder))
        });
        held.map(|(key, _)| key)
            .filter(|key| !seen.contains(*key))
            .cloned()
            .collect()
    }

    /// Returns what `holder` holds now, in the order of the server's lists: names and revisions. While the
    /// snapshot lives, each of its versions can be read.
    pub(crate) fn snapshot(
        self: &Arc<Self>,
        holder: u32,
        within: Within<'_>,
        take: impl Fn(u64, u64) -> bool,
    ) -> Snapshot {
        let objects = self.objects.read();
        let (from, to) = within.bounds();
        let range = objects.range::<str, _>((
            from.as_ref().map(String::as_str),
            to.as_ref().map(String::as_str),
        ));
        let mut items = Vec::new();
        for (key, versions) in range {
            let held = versions
                .iter()
                .find(|version| version.holders.contains(&holder));
            if let Some(version) = held.filter(|version| take(version.revision, version.added)) {
                items.push(Item {
                    key: key.clone(),
                    revision: version.revision,
                    added: version.added,
                });
            }
        }
        self.pins.lock().snapshots += 1;
        Snapshot {
            kind: self.clone(),
            items,
        }
    }

    /// Returns whether its objects have namespaces, as far as there are any.
    pub(crate) fn is_namespaced(&self) -> bool {
        self.objects
            .read()
            .keys()
            .next()
            .is_some_and(|key| !key.starts_with('/'))
    }

    /// Returns whether its objects have no namespaces, as far as there are any.
    pub(crate) fn is_cluster_scoped(&self) -> bool {
        self.objects
            .read()
            .keys()
            .next()
            .is_some_and(|key| key.starts_with('/'))
    }

    /// Returns the highest revision of the cloud that `holder` holds, 0 if it holds nothing.
    pub(crate) fn newest_revision(&self, holder: u32) -> u64 {
        let objects = self.objects.read();
        let held = objects
            .values()
            .flatten()
            .filter(|version| version.holders.contains(&holder) && !is_local(version.revision));
        held.map(|version| version.revision).max().unwrap_or(0)
    }

    /// Returns how many objects `holder` holds, and their bytes.
    pub(crate) fn size(&self, holder: u32) -> (usize, u64) {
        let objects = self.objects.read();
        let held = objects
            .values()
            .flatten()
            .filter(|version| version.holders.contains(&holder));
        held.fold((0, 0), |(count, bytes), version| {
            (count + 1, bytes + u64::from(version.len))
        })
    }

    fn record(&self, key: &str) -> Result<Option<Record>> {
        let bytes = self.store.get(&self.record_key(key))?;
        Ok(bytes.and_then(Record::decode))
    }

    /// The record as memory knows it: holders that are gone are left out, a damaged record counts as none.
    fn record_of_live(&self, key: &ObjectKey) -> Result<Record> {
        let live = self.objects.read().get(key).cloned().unwrap_or_default();
        if live.is_empty() {
            return Ok(Record::default());
        }
        let stored = self.record(key).unwrap_or_else(|error| {
            tracing::warn!(resource = %self.resource, %key, %error, "a damaged object is replaced");
            None
        });
        let mut record = stored.unwrap_or_default();
        record.0.retain_mut(|(version, _)| {
            match live.iter().find(|one| one.revision == version.revision) {
                Some(one) => {
                    version.clone_from(one);
                    true
                }
                None => false,
            }
        });
        Ok(record)
    }

    fn record_key(&self, key: &str) -> Bytes {
        record_key(&self.resource, key)
    }
}

/// Returns how much an object is, all of its versions.
fn held_of(versions: &[Version]) -> Held {
    Held {
        objects: usize::from(!versions.is_empty()),
        bytes: versions.iter().map(|version| u64::from(version.len)).sum(),
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind")
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// The prefix of the keys under which objects are stored.
pub(crate) const RECORDS: &[u8] = b"o/";

fn record_key(resource: &Resource, key: &str) -> Bytes {
    format!(
        "o/{}/{}/{}/{key}",
        resource.group, resource.version, resource.plural
    )
    .into()
}

/// Returns the resource and the object's key that a stored key names.
pub(crate) fn parse_record_key(stored: &[u8]) -> Option<(Resource, String)> {
    let text = std::str::from_utf8(stored).ok()?.strip_prefix("o/")?;
    let mut parts = text.splitn(4, '/');
    let resource = Resource::new(parts.next()?, parts.next()?, parts.next()?);
    Some((resource, parts.next()?.to_owned()))
}

impl Change {
    pub(crate) fn key(&self) -> &ObjectKey {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::Release { key }
            | Self::Cover { key, .. }
            | Self::Uncover { key } => key,
        }
    }
}

/// A synced mirror that holds everything of a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covering {
    pub(crate) holder: u32,
    pub(crate) revision: u64,
}

/// One object of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: ObjectKey,
    pub(crate) revision: u64,
    pub(crate) added: u64,
}

/// What a scope held at one moment. Its versions stay readable while it lives.
pub(crate) struct Snapshot {
    kind: Arc<Kind>,
    pub(crate) items: Vec<Item>,
}

impl Snapshot {
    /// Returns the kind of its objects.
    pub(crate) fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("items", &self.items.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut pins = self.kind.pins.lock();
        pins.snapshots -= 1;
        if pins.snapshots == 0 {
            pins.kept = HashMap::new();
            pins.bytes = 0;
        }
    }
}

impl Pins {
    fn keep(&mut self, replaced: Vec<(ObjectKey, u64, Bytes)>) {
        if self.snapshots == 0 {
            return;
        }
        for (key, revision, body) in replaced {
            if self.bytes + body.len() > PINNED_LIMIT {
                return;
            }
            self.bytes += body.len();
            self.kept.insert((key, revision), body);
        }
    }
}
