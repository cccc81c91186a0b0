//! How one object lies in the store: the versions that anybody holds, each the server's own bytes. Nearly always
//! there is one. Two scopes that overlap may see a change at different moments; until the slower one has caught
//! up both versions are in the record. Who holds which version is written beside it, with each scope.

use bincode::{Decode, Encode};
use bytes::{BufMut, Bytes, BytesMut};

use super::version::Version;

/// Heads longer than this are damage: a record has a few versions.
const HEAD_LIMIT: usize = 64 << 10;

fn layout() -> impl bincode::config::Config {
    bincode::config::legacy().with_limit::<HEAD_LIMIT>()
}

/// The versions of one object with their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record(pub(super) Vec<(Version, Bytes)>);

#[derive(Encode, Decode)]
struct Head {
    version: Version,
    len: u32,
}

impl Record {
    /// Returns the record as the store keeps it.
    pub(super) fn encode(&self) -> Bytes {
        let heads = self.0.iter().map(|(version, body)| Head {
            version: *version,
            len: u32::try_from(body.len()).expect("a store takes no value of 4 GiB"),
        });
        let heads: Vec<Head> = heads.collect();
        let head = bincode::encode_to_vec(&heads, layout())
            .expect("a head of a few versions is under the limit");
        let bodies: usize = self.0.iter().map(|(_, body)| body.len()).sum();
        let mut bytes = BytesMut::with_capacity(head.len() + bodies);
        bytes.put_slice(&head);
        for (_, body) in &self.0 {
            bytes.put_slice(body);
        }
        bytes.freeze()
    }

    /// Reads a record back; `None` if these bytes are not one.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let (heads, consumed): (Vec<Head>, usize) =
            bincode::decode_from_slice(&bytes, layout()).ok()?;
        bytes = bytes.slice(consumed..);
        let mut versions = Vec::new();
        for head in heads {
            let len = usize::try_from(head.len).ok()?;
            if len > bytes.len() {
                return None;
            }
            versions.push((head.version, bytes.split_to(len)));
        }
        bytes.is_empty().then_some(Self(versions))
    }

    /// Returns the bytes of a version.
    pub(super) fn at(&self, version: Version) -> Option<&Bytes> {
        let found = self.0.iter().find(|(one, _)| *one == version);
        found.map(|(_, body)| body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::version::Era;

    #[test]
    fn a_record_reads_back_as_it_was_written_and_garbage_reads_as_nothing() {
        let record = Record(vec![
            (
                Version::cloud(Era::default(), 5),
                Bytes::from_static(b"five"),
            ),
            (Version::local(7), Bytes::from_static(b"seven!")),
        ]);
        let bytes = record.encode();
        assert_eq!(Record::decode(bytes.clone()), Some(record));
        for len in 0..bytes.len() {
            assert!(Record::decode(bytes.slice(..len)).is_none(), "cut at {len}");
        }
        assert!(Record::decode(Bytes::from(vec![0xff; 64])).is_none());
    }
}
