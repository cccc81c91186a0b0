//! How one object lies in the store: the versions that scopes hold, each the server's own bytes.
//!
//! Nearly always there is one version. Two scopes that overlap may see a change at different moments;
//! until the slower one has caught up both versions are in the record.

use bincode::{Decode, Encode};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// The holder of what a caller read by name, outside every mirror.
pub(crate) const REMEMBERED: u32 = 0;

/// The holder of the cloud's version of an object while something local is in front of it.
pub(crate) const CLOUD: u32 = u32::MAX;

/// Marks the version of an object that only this node knows. Its number is not one of the cloud's, so the two
/// can never be taken for each other; clients are told it without the mark.
const LOCAL: u64 = 1 << 63;

/// Returns the revision of a version as clients are told it.
pub(crate) fn told(revision: u64) -> u64 {
    revision & !LOCAL
}

/// Returns whether a version is one that only this node knows.
pub(crate) fn is_local(revision: u64) -> bool {
    revision & LOCAL != 0
}

/// Heads longer than this are damage: a record has a few versions, held by some scopes each.
const HEAD_LIMIT: usize = 64 << 10;

fn layout() -> impl bincode::config::Config {
    bincode::config::legacy().with_limit::<HEAD_LIMIT>()
}

/// One version of an object, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The version's `metadata.resourceVersion`.
    pub(crate) revision: u64,
    /// The revision at which the object first appeared, as far as this node saw.
    pub(crate) added: u64,
    /// The length of its bytes.
    pub(crate) len: u32,
    /// The scopes that hold it.
    pub(crate) holders: SmallVec<[u32; 2]>,
}

/// The versions of one object.
pub(crate) type Versions = SmallVec<[Version; 1]>;

/// The versions of one object with their bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record(pub(crate) Vec<(Version, Bytes)>);

#[derive(Encode, Decode)]
struct Head {
    revision: u64,
    added: u64,
    holders: Vec<u32>,
    len: u32,
}

impl Record {
    /// Returns the record as the store keeps it.
    pub(crate) fn encode(&self) -> Bytes {
        let heads: Vec<Head> = self
            .0
            .iter()
            .map(|(version, _)| Head::of(version))
            .collect();
        let head = bincode::encode_to_vec(&heads, layout())
            .expect("a head of a few versions is under the limit");
        let mut bytes = BytesMut::with_capacity(
            head.len() + self.0.iter().map(|(_, body)| body.len()).sum::<usize>(),
        );
        bytes.put_slice(&head);
        for (_, body) in &self.0 {
            bytes.put_slice(body);
        }
        bytes.freeze()
    }

    /// Reads a record back; `None` if these bytes are not one.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let (heads, consumed): (Vec<Head>, usize) =
            bincode::decode_from_slice(&bytes, layout()).ok()?;
        bytes = bytes.slice(consumed..);
        let mut versions = Vec::with_capacity(heads.len());
        for head in heads {
            let len = usize::try_from(head.len).ok()?;
            if len > bytes.len() {
                return None;
            }
            let body = bytes.split_to(len);
            versions.push((head.into_version(), body));
        }
        bytes.is_empty().then_some(Self(versions))
    }

    /// Returns the versions without their bytes.
    pub(crate) fn versions(&self) -> Versions {
        self.0.iter().map(|(version, _)| version.clone()).collect()
    }

    /// Returns the bytes of the version at `revision`.
    pub(crate) fn at(&self, revision: u64) -> Option<&Bytes> {
        self.0
            .iter()
            .find(|(version, _)| version.revision == revision)
            .map(|(_, body)| body)
    }

    /// Makes `holder` hold this version and no other; returns the one that it held.
    pub(crate) fn hold(
        &mut self,
        holder: u32,
        revision: u64,
        body: Bytes,
    ) -> Option<(Version, Bytes)> {
        let before = self.release(holder);
        let added = self
            .0
            .iter()
            .map(|(version, _)| version.added)
            .chain(before.iter().map(|(version, _)| version.added))
            .min();
        match self
            .0
            .iter_mut()
            .find(|(version, _)| version.revision == revision)
        {
            Some((version, _)) => version.holders.push(holder),
            None => {
                let added = added.unwrap_or(revision);
                self.0.push((
                    Version {
                        revision,
                        added,
                        len: u32::try_from(body.len()).expect("a store takes no value of 4 GiB"),
                        holders: SmallVec::from_slice(&[holder]),
                    },
                    body,
                ));
            }
        }
        before
    }

    /// Makes `holder` hold this version if it holds an older one.
    pub(crate) fn renew(&mut self, holder: u32, revision: u64, body: &Bytes) {
        let is_older = |(version, _): &(Version, Bytes)| {
            version.revision < revision && version.holders.contains(&holder)
        };
        if self.0.iter().any(is_older) {
            self.hold(holder, revision, body.clone());
        }
    }

    /// Makes `holder` hold nothing of this object; returns the version that it held.
    pub(crate) fn release(&mut self, holder: u32) -> Option<(Version, Bytes)> {
        let place = self
            .0
            .iter()
            .position(|(version, _)| version.holders.contains(&holder))?;
        let held = self.0[place].clone();
        self.0[place].0.holders.retain(|one| *one != holder);
        if self.0[place].0.holders.is_empty() {
            self.0.remove(place);
        }
        Some(held)
    }
}

// === What only this node knows ===

impl Record {
    /// Puts a local version in front of the one that `holder` holds; returns that. Who holds nothing goes on
    /// holding nothing.
    pub(crate) fn cover(
        &mut self,
        holder: u32,
        revision: u64,
        body: Bytes,
    ) -> Option<(Version, Bytes)> {
        let (held, cloud) = self.held_by(holder)?.clone();
        let known = self.held_by(CLOUD).map(|(version, _)| version.revision);
        if !is_local(held.revision) && known.is_none_or(|known| known < held.revision) {
            self.hold(CLOUD, held.revision, cloud);
        }
        self.hold(holder, LOCAL | revision, body)
    }

    /// Makes `holder` hold the cloud's version again; returns the local one that it held.
    pub(crate) fn uncover(&mut self, holder: u32) -> Option<(Version, Bytes)> {
        let (held, _) = self.held_by(holder)?;
        if !is_local(held.revision) {
            return None;
        }
        let (version, body) = self.held_by(CLOUD)?.clone();
        self.hold(holder, version.revision, body)
    }

    /// Forgets the cloud's version as such once nothing local is in front of it.
    pub(crate) fn settle(&mut self) {
        if !self.0.iter().any(|(version, _)| is_local(version.revision)) {
            self.release(CLOUD);
        }
    }

    fn held_by(&self, holder: u32) -> Option<&(Version, Bytes)> {
        self.0
            .iter()
            .find(|(version, _)| version.holders.contains(&holder))
    }
}

impl Head {
    fn of(version: &Version) -> Self {
        Self {
            revision: version.revision,
            added: version.added,
            holders: version.holders.to_vec(),
            len: version.len,
        }
    }

    fn into_version(self) -> Version {
        Version {
            revision: self.revision,
            added: self.added,
            len: self.len,
            holders: SmallVec::from_vec(self.holders),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn held_by(record: &Record, holder: u32) -> &(Version, Bytes) {
        record.held_by(holder).unwrap()
    }

    #[test]
    fn the_cloud_s_version_stays_behind_a_local_one_until_nobody_sees_that_any_more() {
        let mut record = Record::default();
        record.hold(1, 5, body("five"));
        record.hold(2, 5, body("five"));
        assert!(
            record.cover(3, 8, body("local")).is_none(),
            "it holds nothing"
        );
        record.cover(1, 8, body("local"));
        record.cover(2, 8, body("local"));
        record.cover(1, 9, body("later"));
        record.settle();
        assert_eq!(held_by(&record, 1).1, "later");
        assert_eq!(held_by(&record, CLOUD).1, "five");
        assert_eq!(held_by(&record, CLOUD).0.added, held_by(&record, 1).0.added);
        record.hold(1, 8, body("the cloud's eight"));
        record.settle();
        assert_eq!(
            held_by(&record, 2).1,
            "local",
            "not what has the same number"
        );
        assert_eq!(record.uncover(2).unwrap().1, "local");
        assert_eq!(held_by(&record, 2).1, "five");
        assert!(record.uncover(2).is_none());
        record.settle();
        assert!(record.held_by(CLOUD).is_none());
    }

    #[test]
    fn a_version_lives_while_one_scope_holds_it() {
        let mut record = Record::default();
        assert!(record.hold(1, 5, body("five")).is_none());
        record.hold(2, 5, body("five"));
        assert_eq!(record.0.len(), 1, "the bytes are there once");
        record.hold(1, 7, body("seven"));
        assert_eq!(held_by(&record, 2).1, "five");
        assert_eq!(held_by(&record, 1).1, "seven");
        assert_eq!(held_by(&record, 1).0.added, 5, "it was there since 5");
        record.hold(2, 7, body("seven"));
        assert_eq!(record.0.len(), 1);
        record.release(1);
        record.release(2);
        assert!(record.0.is_empty());
    }

    #[test]
    fn who_holds_an_older_version_is_renewed_and_nobody_else_is() {
        let mut record = Record::default();
        record.hold(1, 5, body("five"));
        record.renew(REMEMBERED, 7, &body("seven"));
        assert_eq!(
            record.0.len(),
            1,
            "who holds nothing goes on holding nothing"
        );
        record.hold(REMEMBERED, 5, body("five"));
        record.renew(REMEMBERED, 4, &body("four"));
        assert_eq!(held_by(&record, REMEMBERED).1, "five");
        record.renew(REMEMBERED, 7, &body("seven"));
        assert_eq!(held_by(&record, REMEMBERED).1, "seven");
    }

    #[test]
    fn a_record_reads_back_as_it_was_written_and_garbage_reads_as_nothing() {
        let mut record = Record::default();
        record.hold(1, 5, body("five"));
        record.hold(2, 7, body("seven!"));
        let bytes = record.encode();
        let back = Record::decode(bytes.clone()).unwrap();
        assert_eq!(back.0, record.0);
        for len in 0..bytes.len() {
            assert!(Record::decode(bytes.slice(..len)).is_none(), "cut at {len}");
        }
        assert!(Record::decode(Bytes::from(vec![0xff; 64])).is_none());
    }
}
