//! The objects of one resource that the node holds, whichever scopes hold them: bytes in the store, counted in
//! memory, and what the resource says of itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::Instant;
use yurt_core::store::{Batch, Error, ErrorKind, Result, Store};

use super::bodies::Bodies;
use super::pins::Pinned;
use super::remembered::{ByName, Remembered};
use super::saved::{encode_era, era_key};
use super::version::{Era, Version};
use crate::api::{ObjectKey, Resource, Within, key};
use crate::codec::fields::Attributes;
use crate::codec::{Column, JsonPath, ObjectMeta, TypeMeta, fields};
use crate::retention::{Budget, Held};

/// How long a definition counts: columns are added to one that is in use.
const DEFINED_FOR: Duration = Duration::from_secs(600);

/// What a CustomResourceDefinition says that answers need.
#[derive(Debug, Default)]
pub(crate) struct Custom {
    /// There is such a definition.
    pub(crate) is_defined: bool,
    pub(crate) columns: Vec<Column>,
    /// Field label and where its value is.
    pub(crate) selectable: Vec<(String, JsonPath)>,
}

/// The objects of one resource.
pub(crate) struct Kind {
    pub(crate) resource: Resource,
    form: RwLock<Option<Arc<TypeMeta>>>,
    custom: RwLock<Arc<Custom>>,
    /// When the definition was fetched last.
    defined_at: RwLock<Option<Instant>>,
    /// How far the cloud has come, as anybody has seen, in the last era. Who waits is woken by another era only.
    reached: watch::Sender<Version>,
    pub(super) bodies: Bodies,
    budget: Budget,
    pub(super) remembered: Arc<Remembered>,
    pub(super) by_name: ByName,
}

/// A synced mirror that holds everything of a place, and what it holds of the object there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covering {
    pub(crate) version: Option<Version>,
    /// How far the mirror has followed the cloud.
    pub(crate) followed: Version,
    pub(crate) revision: u64,
}

/// What the node can say of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its `resourceVersion`, and its bytes.
    There(u64, Bytes),
    Absent,
    Unknown,
}

impl Kind {
    pub(crate) fn new(
        resource: Resource,
        store: Arc<dyn Store>,
        budget: Budget,
        (remembered, pinned): (Arc<Remembered>, Arc<Pinned>),
    ) -> Self {
        Self {
            bodies: Bodies::new(resource.clone(), store, pinned),
            resource,
            form: RwLock::default(),
            custom: RwLock::default(),
            defined_at: RwLock::default(),
            reached: watch::Sender::new(Version::cloud(Era::default(), 0)),
            budget,
            remembered,
            by_name: ByName::default(),
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    /// Returns how much of the kind is held, by whomever.
    pub(crate) fn held(&self) -> Held {
        self.bodies.held()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.bodies.store()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bodies.first_key().is_none()
    }

    // === What the resource says of itself ===

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

    /// Returns what the resource's definition says of it, where it is a custom one.
    pub(crate) fn custom(&self) -> Arc<Custom> {
        self.custom.read().clone()
    }

    /// Takes over what the resource's definition says.
    pub(crate) fn learn_custom(&self, custom: Custom) {
        *self.custom.write() = Arc::new(custom);
    }

    /// Returns whether the definition is to be fetched, for the first time or again.
    pub(crate) fn is_definition_due(&self, now: Instant) -> bool {
        let last = *self.defined_at.read();
        last.is_none_or(|last| now.saturating_duration_since(last) >= DEFINED_FOR)
    }

    /// Notes that the definition was fetched.
    pub(crate) fn note_definition(&self, now: Instant) {
        *self.defined_at.write() = Some(now);
    }

    /// Returns what selectors look at in an object.
    pub(crate) fn traits(&self, meta: &ObjectMeta, object: &[u8]) -> Attributes {
        let custom = self.custom.read().clone();
        let Resource { group, plural, .. } = &self.resource;
        Attributes {
            labels: meta.labels.clone(),
            fields: fields::values(group, plural, &custom.selectable, object, meta),
        }
    }

    /// Returns whether its objects have namespaces, as far as there are any.
    pub(crate) fn is_namespaced(&self) -> bool {
        self.bodies
            .first_key()
            .is_some_and(|key| !key.starts_with('/'))
    }

    /// Returns whether its objects have no namespaces, as far as there are any.
    pub(crate) fn is_cluster_scoped(&self) -> bool {
        self.bodies
            .first_key()
            .is_some_and(|key| key.starts_with('/'))
    }

    // === Eras ===

    /// Returns in which era the cloud's revisions are, as far as anybody has seen.
    pub(crate) fn era(&self) -> Era {
        self.reached.borrow().era()
    }

    /// Returns how far the cloud has come in the last era, as anybody has seen.
    pub(super) fn reached(&self) -> Version {
        *self.reached.borrow()
    }

    /// Wakes when another era has begun.
    pub(super) fn eras(&self) -> watch::Receiver<Version> {
        self.reached.subscribe()
    }

    /// Notes that something is of this era.
    pub(super) fn note_era(&self, era: Era) {
        self.note_reached(Version::cloud(era, 0));
    }

    /// Notes that the cloud has come as far as a version.
    pub(super) fn note_reached(&self, version: Version) {
        self.reached.send_if_modified(|reached| {
            let is_other_era = version.era() > reached.era();
            *reached = version.max(*reached);
            is_other_era
        });
    }

    /// Notes that the cloud's revisions have gone back from those of `era`: whoever is still in it has to list anew.
    /// Blocks on the store, so that a restart knows it too.
    pub(super) fn end_era(&self, era: Era) -> Result<()> {
        self.note_era(era.next());
        let mut batch = Batch::new();
        batch.put(era_key(&self.resource), encode_era(self.era()));
        self.store().write(batch)
    }

    // === Objects ===

    /// Returns the bytes of a version, `None` if it is gone. Blocks on the store.
    pub(crate) fn read(&self, key: &ObjectKey, version: Version) -> Result<Option<Bytes>> {
        self.bodies.read(key, version)
    }

    /// Returns the newest version of an object, whoever holds it, what is local before all: its `resourceVersion`
    /// and its bytes. Blocks on the store.
    pub(crate) fn newest(&self, namespace: &str, name: &str) -> Result<Option<(u64, Bytes)>> {
        let newest = self.newest_of(&key(namespace, name), |_| true)?;
        Ok(newest.map(|(version, body)| (version.number(), body)))
    }

    /// Returns what a GET may say of an object. A mirror that covers the place knows better than what was remembered at
    /// a revision that it has passed; without one nobody knows what has become since of what was held before the
    /// cloud's revisions went back, or of what has left somebody's selector. Blocks on the store.
    pub(crate) fn known(
        &self,
        namespace: &str,
        name: &str,
        covering: Option<Covering>,
    ) -> Result<Known> {
        let key = key(namespace, name);
        let covering = covering.filter(|mirror| mirror.followed.era() == self.era());
        let has_passed = |at: Version| covering.is_some_and(|mirror| mirror.followed >= at);
        if self
            .left_by_name(&key)
            .is_some_and(|left| !has_passed(left))
        {
            return Ok(Known::Unknown);
        }
        let read = self.read_by_name(&key);
        let counts = |version: Version| match covering {
            None => version.is_local() || version.era() == self.era() || read == Some(version),
            // What is local in front of it in another scope is over where this one has heard more of the cloud.
            Some(mirror) if version.is_local() => mirror.version == Some(version),
            Some(mirror) => mirror.version == Some(version) || version > mirror.followed,
        };
        Ok(match self.newest_of(&key, counts)? {
            Some((version, body)) => Known::There(version.number(), body),
            None if covering.is_some() => Known::Absent,
            None => Known::Unknown,
        })
    }

    fn newest_of(
        &self,
        key: &ObjectKey,
        counts: impl Fn(Version) -> bool,
    ) -> Result<Option<(Version, Bytes)>> {
        loop {
            let versions = self.bodies.versions(key);
            let newest = versions.iter().map(|one| one.version);
            let Some(version) = newest.filter(|one| counts(*one)).max() else {
                return Ok(None);
            };
            if let Some(body) = self.read(key, version)? {
                return Ok(Some((version, body)));
            }
            if self.bodies.versions(key) == versions {
                let what = format!("what is stored of {key} is not there");
                return Err(Error::new(ErrorKind::Damaged, what));
            }
            // It was replaced between the two looks.
        }
    }

    /// Deletes what the store has of an object that nobody holds. Blocks on the store.
    pub(crate) fn delete_orphan(&self, key: &str) -> Result<()> {
        self.bodies.delete_orphan(key)
    }

    /// Returns the newest of the cloud's versions of an object that is here, whoever holds it.
    pub(crate) fn cloud_version(&self, key: &str) -> Option<Version> {
        let versions = self.bodies.versions(key);
        let of_cloud = versions.iter().map(|one| one.version);
        of_cloud.filter(|version| !version.is_local()).max()
    }

    /// Returns whether the newest that is here of an object is what the cloud has at a revision.
    pub(crate) fn is_at(&self, key: &str, revision: u64) -> bool {
        self.cloud_version(key) == Some(Version::cloud(self.era(), revision))
    }

    /// Returns the keys of a namespace, whoever holds them.
    pub(crate) fn keys_in(&self, namespace: &str) -> Vec<ObjectKey> {
        self.bodies.keys(Within::Namespace(namespace))
    }

    /// Returns the objects that anything local is in front of.
    pub(crate) fn all_covered(&self) -> Vec<ObjectKey> {
        self.bodies.with_local_versions()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind")
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}
