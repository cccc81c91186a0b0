//! How one object lies in the store: the versions that scopes hold, each the server's own bytes.
//!
//! Nearly always there is one version. Two scopes that overlap may see a change at different moments;
//! until the slower one has caught up both versions are in the record.

use bincode::{Decode, Encode};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// The holder of what a caller read by name, outside every mirror.
pub(crate) const REMEMBERED: u32 = 0;

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

    /// Returns who holds any version.
    pub(crate) fn holders(&self) -> impl Iterator<Item = u32> {
        let versions = self.0.iter();
        versions.flat_map(|(version, _)| version.holders.iter().copied())
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
        record
            .0
            .iter()
            .find(|(version, _)| version.holders.contains(&holder))
            .unwrap()
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
