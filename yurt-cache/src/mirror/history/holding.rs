//! What a scope holds of an object, and what it remembers of one that is gone.

use bytes::Bytes;

use crate::api::ObjectKey;
use crate::mirror::version::Version;

/// An object that the scope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) version: Version,
    /// Where in the history it became this version.
    pub(crate) order: u64,
    /// Where in the history it appeared.
    pub(crate) added: u64,
    /// The length of its bytes.
    pub(crate) len: u32,
}

/// The cloud's version of an object that has a local one in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) version: Version,
    pub(crate) len: u32,
}

/// A deletion that is remembered; the object's last bytes are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) order: u64,
    /// The cloud's revision of the deletion, 0 where a re-list found it.
    pub(crate) revision: u64,
    pub(crate) key: ObjectKey,
    /// Where in the history the object had appeared.
    pub(crate) added: u64,
}

/// Where the last bytes of a deleted object are.
#[derive(Clone, Debug)]
pub(crate) enum Last {
    Bytes(Bytes),
    /// In the objects, until the transition is written; told with the order as their revision.
    Version(Version),
}

/// What a scope holds of an object after a transition: nothing of it at all if both are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) member: Option<Member>,
    pub(crate) behind: Option<Behind>,
}

/// One object of a complete list that differs from what is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: ObjectKey,
    pub(crate) version: Version,
    pub(crate) len: u32,
}

impl Member {
    /// Returns the object as a version that came at a place in the history, after what it was before.
    pub(super) fn new(before: Option<Self>, version: Version, order: u64, len: u32) -> Self {
        Self {
            version,
            order,
            added: before.map_or(order, |before| before.added),
            len,
        }
    }
}

impl Holding {
    /// Returns the cloud's version, behind a local one or not.
    pub(crate) fn cloud_version(&self) -> Option<Version> {
        let behind = self.behind.map(|behind| behind.version);
        behind.or_else(|| self.member.map(|member| member.version))
    }

    /// Returns whether it needs the bytes of a version.
    pub(crate) fn has(&self, version: Version) -> bool {
        self.versions().any(|one| one == version)
    }

    /// Returns the length of a version that it holds.
    pub(crate) fn len(&self, version: Version) -> u32 {
        let member = self.member.map(|one| (one.version, one.len));
        let behind = self.behind.map(|one| (one.version, one.len));
        let mut held = member.into_iter().chain(behind);
        held.find(|(one, _)| *one == version)
            .map_or(0, |(_, len)| len)
    }

    /// Returns the versions whose bytes it needs.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Version> + use<> {
        let member = self.member.map(|member| member.version);
        member
            .into_iter()
            .chain(self.behind.map(|behind| behind.version))
    }
}

impl Listed {
    pub(super) fn held(&self, before: Option<Member>, order: u64) -> Holding {
        Holding {
            member: Some(Member::new(before, self.version, order, self.len)),
            behind: None,
        }
    }
}
