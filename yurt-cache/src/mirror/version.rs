//! The numbers of a mirror, each a type of its own so that none is taken for another.

use bincode::{Decode, Encode};

/// Which scope holds an object, for as long as its store lives: never given twice.
pub(crate) type MirrorId = u32;

/// Marks a version that only this node knows.
const LOCAL: u64 = 1 << 63;

/// The bits above the revision count how often the cloud's revisions began to count again from a lower one.
const REVISION_BITS: u32 = 56;

const REVISION: u64 = (1 << REVISION_BITS) - 1;

/// How often a kind's revisions have gone back, as when the cloud's etcd was restored: a revision names the same bytes
/// only within one era.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Era(u8);

impl Era {
    const LAST: u8 = (1 << (63 - REVISION_BITS)) - 1;

    /// Returns the era after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1).min(Self::LAST))
    }
}

/// Which bytes of an object are meant: the cloud's at a revision, or this node's own at a number that it gave.
/// The two can never be taken for each other, whatever their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub(crate) struct Version(u64);

impl Version {
    /// Returns the cloud's version at a revision.
    pub(crate) fn cloud(era: Era, revision: u64) -> Self {
        Self(u64::from(era.0) << REVISION_BITS | (revision & REVISION))
    }

    /// Returns the node's own version at a number that it gave.
    pub(crate) fn local(number: u64) -> Self {
        Self((number & REVISION) | LOCAL)
    }

    /// Returns whether only this node knows it.
    pub(crate) fn is_local(self) -> bool {
        self.0 & LOCAL != 0
    }

    /// Returns the `resourceVersion` in its bytes.
    pub(crate) fn number(self) -> u64 {
        self.0 & REVISION
    }

    /// Returns the era of a version of the cloud.
    pub(crate) fn era(self) -> Era {
        let above = (self.0 & !LOCAL) >> REVISION_BITS;
        Era(u8::try_from(above).unwrap_or(Era::LAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_version_is_never_the_clouds_of_the_same_number_and_is_in_front_of_it() {
        let first = Era::default();
        let (cloud, local) = (Version::cloud(first, 7), Version::local(7));
        assert_ne!(cloud, local);
        assert_eq!((cloud.number(), local.number()), (7, 7));
        assert!(local.is_local() && !cloud.is_local());
        assert!(
            local > Version::cloud(Era(Era::LAST), u64::MAX),
            "what is local is in front"
        );
    }

    #[test]
    fn a_revision_that_counts_again_is_another_version_and_a_later_one() {
        let first = Era::default();
        let again = Version::cloud(first.next(), 3);
        assert!(again > Version::cloud(first, 7));
        assert_eq!((again.number(), again.era()), (3, first.next()));
        let mut last = first;
        for _ in 0..1_000 {
            last = last.next();
        }
        assert!(!Version::cloud(last, u64::MAX).is_local());
    }
}
