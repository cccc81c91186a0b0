//! What of a mirror is in the store beside its objects: its scope and revision, the deletions it
//! remembers, and what a re-list has fetched and not yet put in place.

use bincode::{Decode, Encode};
use bytes::{BufMut, Bytes, BytesMut};

use crate::api::{ObjectKey, Resource, Scope};
use crate::codec::{FieldSelector, LabelSelector, TypeMeta};

/// The prefix of the keys under which scopes are stored.
pub(crate) const SCOPES: &[u8] = b"s/";

const LIMIT: usize = 64 << 10;

fn layout() -> impl bincode::config::Config {
    bincode::config::legacy().with_limit::<LIMIT>()
}

/// A scope as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SavedScope {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: String,
    pub(crate) fields: String,
    pub(crate) form: Option<TypeMeta>,
    pub(crate) is_synced: bool,
    /// What clients were told, at least.
    pub(crate) revision: u64,
    /// How far the upstream watch had come, at least; objects and deletions may say more.
    pub(crate) followed: u64,
    pub(crate) floor: u64,
    /// A re-list at this revision is complete and has to be put in place.
    pub(crate) relisted: Option<u64>,
}

impl SavedScope {
    pub(crate) fn new(scope: &Scope) -> Self {
        Self {
            group: scope.resource.group.clone(),
            version: scope.resource.version.clone(),
            plural: scope.resource.plural.clone(),
            namespace: scope.namespace.clone(),
            labels: scope.labels.to_string(),
            fields: scope.fields.to_string(),
            form: None,
            is_synced: false,
            revision: 0,
            followed: 0,
            floor: 0,
            relisted: None,
        }
    }

    /// Returns the scope, `None` if its selectors do not parse.
    pub(crate) fn scope(&self) -> Option<Scope> {
        Some(Scope {
            resource: Resource::new(&self.group, &self.version, &self.plural),
            namespace: self.namespace.clone(),
            labels: LabelSelector::parse(&self.labels).ok()?,
            fields: FieldSelector::parse(&self.fields).ok()?,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        bincode::encode_to_vec(self, layout())
            .expect("a scope is under the limit")
            .into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (saved, consumed) = bincode::decode_from_slice(bytes, layout()).ok()?;
        (consumed == bytes.len()).then_some(saved)
    }
}

pub(crate) fn scope_key(id: u32) -> Bytes {
    format!("s/{id:08x}").into()
}

/// Returns the id in a stored scope's key.
pub(crate) fn parse_scope_key(stored: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(stored).ok()?.strip_prefix("s/")?, 16).ok()
}

pub(crate) fn tombstone_prefix(id: u32) -> Bytes {
    format!("t/{id:08x}/").into()
}

pub(crate) fn tombstone_key(id: u32, revision: u64) -> Bytes {
    format!("t/{id:08x}/{revision:016x}").into()
}

/// Returns the revision in a stored deletion's key.
pub(crate) fn parse_tombstone_key(stored: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(stored).ok()?;
    u64::from_str_radix(text.rsplit('/').next()?, 16).ok()
}

/// A stored deletion: when the object had appeared, its key, its last bytes.
pub(crate) fn encode_tombstone(added: u64, key: &str, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(9 + key.len() + body.len());
    bytes.put_u64_le(added);
    bytes.put_slice(key.as_bytes());
    bytes.put_u8(b'\n');
    bytes.put_slice(body);
    bytes.freeze()
}

pub(crate) fn decode_tombstone(mut bytes: Bytes) -> Option<(u64, ObjectKey, Bytes)> {
    let added = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    bytes = bytes.slice(8..);
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let key: ObjectKey = std::str::from_utf8(&bytes[..end]).ok()?.into();
    Some((added, key, bytes.slice(end + 1..)))
}

pub(crate) fn staged_prefix(id: u32) -> Bytes {
    format!("n/{id:08x}/").into()
}

pub(crate) fn staged_key(id: u32, key: &str) -> Bytes {
    format!("n/{id:08x}/{key}").into()
}

/// Returns the object's key in a staged object's key.
pub(crate) fn parse_staged_key(stored: &[u8]) -> Option<ObjectKey> {
    Some(std::str::from_utf8(stored).ok()?.get(11..)?.into())
}

/// A staged object: its revision and bytes; no bytes say that it is gone.
pub(crate) fn encode_staged(revision: u64, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + body.len());
    bytes.put_u64_le(revision);
    bytes.put_slice(body);
    bytes.freeze()
}

pub(crate) fn decode_staged(bytes: &Bytes) -> Option<(u64, Bytes)> {
    let revision = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    Some((revision, bytes.slice(8..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_reads_back_and_garbage_does_not() {
        let saved = SavedScope {
            group: "apps".into(),
            version: "v1".into(),
            plural: "deployments".into(),
            namespace: Some("shop".into()),
            labels: "app=x".into(),
            fields: String::new(),
            form: None,
            is_synced: true,
            revision: 7,
            followed: 6,
            floor: 3,
            relisted: None,
        };
        assert_eq!(SavedScope::decode(&saved.encode()), Some(saved.clone()));
        assert_eq!(SavedScope::decode(&saved.encode()[1..]), None);
        assert_eq!(parse_scope_key(&scope_key(7)), Some(7));
        assert_eq!(parse_tombstone_key(&tombstone_key(7, 99)), Some(99));
        assert_eq!(&*parse_staged_key(&staged_key(7, "a/b")).unwrap(), "a/b");
        let stone = decode_tombstone(encode_tombstone(3, "a/b", b"{}")).unwrap();
        assert_eq!((stone.0, &*stone.1, &stone.2[..]), (3, "a/b", &b"{}"[..]));
        assert_eq!(decode_tombstone(Bytes::from_static(b"short")), None);
        assert_eq!(
            decode_staged(&encode_staged(9, b"{}")),
            Some((9, Bytes::from_static(b"{}")))
        );
    }
}
