//! How a mirror lies in the store: its scope and how far it is, what it holds of each object, and the deletions that
//! it remembers.

use bincode::{Decode, Encode};
use bytes::{BufMut, Bytes, BytesMut};

use super::history::{Behind, Holding, Marks, Member, Tombstone};
use super::version::{Era, MirrorId, Version};
use crate::api::{ObjectKey, Resource, Scope};
use crate::codec::{FieldSelector, LabelSelector, TypeMeta};
use crate::store::layout::{ERAS, MEMBERS, RECORDS, REMEMBERED, SCOPES, TOMBSTONES};

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
    /// What clients were told, at least; objects and deletions may say more.
    pub(crate) revision: u64,
    /// How far the upstream watch had come, at least, and in which era; objects and deletions may say more. Earlier hubs
    /// wrote the revision alone, as if it were of the first era.
    pub(crate) followed: Version,
    pub(crate) compacted: u64,
    pub(crate) ahead_until: u64,
    /// An earlier hub says that the cloud's revisions had gone back, and that no list had come since.
    pub(crate) went_back: bool,
    /// Whose share the mirror is of. Earlier hubs did not write it.
    pub(crate) owner: Option<String>,
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
            followed: Version::cloud(Era::default(), 0),
            compacted: 0,
            ahead_until: 0,
            went_back: false,
            owner: None,
        }
    }

    /// Returns how far its history had come at least.
    pub(crate) fn marks(&self) -> Marks {
        Marks {
            revision: self.revision,
            upstream: self.followed.number(),
            compacted: self.compacted,
            ahead_until: self.ahead_until,
        }
    }

    /// Returns the scope, `None` if its selectors do not parse.
    pub(crate) fn scope(&self) -> Option<Scope> {
        Some(Scope {
            resource: self.resource(),
            namespace: self.namespace.clone(),
            labels: LabelSelector::parse(&self.labels).ok()?,
            fields: FieldSelector::parse(&self.fields).ok()?,
        })
    }

    /// Returns the resource that the scope is of.
    pub(crate) fn resource(&self) -> Resource {
        Resource {
            group: self.group.clone(),
            version: self.version.clone(),
            plural: self.plural.clone(),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let without_owner = || decode(&[bytes, &[0]].concat());
        decode(bytes).or_else(without_owner)
    }
}

fn encode(value: &impl Encode) -> Bytes {
    let bytes = bincode::encode_to_vec(value, layout());
    bytes
        .expect("what is stored of a scope is under the limit")
        .into()
}

fn decode<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    let (value, consumed) = bincode::decode_from_slice(bytes, layout()).ok()?;
    (consumed == bytes.len()).then_some(value)
}

// === Objects ===

/// Returns where the versions of an object are stored.
pub(crate) fn record_key(resource: &Resource, key: &str) -> Bytes {
    key_of(RECORDS, resource, key)
}

/// Returns where it is stored which version of an object was read by name.
pub(crate) fn remembered_key(resource: &Resource, key: &str) -> Bytes {
    key_of(REMEMBERED, resource, key)
}

/// Returns where it is stored in which era a resource's revisions are.
pub(crate) fn era_key(resource: &Resource) -> Bytes {
    key_of(ERAS, resource, "")
}

/// An era, as the first version in it.
pub(crate) fn encode_era(era: Era) -> Bytes {
    encode(&Version::cloud(era, 0))
}

pub(crate) fn decode_era(bytes: &[u8]) -> Option<Era> {
    decode::<Version>(bytes).map(Version::era)
}

fn key_of(table: &str, resource: &Resource, key: &str) -> Bytes {
    let Resource {
        group,
        version,
        plural,
    } = resource;
    format!("{table}{group}/{version}/{plural}/{key}").into()
}

/// Returns the resource and the object's key that a stored key of one of these tables names.
pub(crate) fn parse_object_key(stored: &[u8]) -> Option<(Resource, ObjectKey)> {
    let mut parts = std::str::from_utf8(stored).ok()?.get(2..)?.splitn(4, '/');
    let resource = Resource {
        group: parts.next()?.to_owned(),
        version: parts.next()?.to_owned(),
        plural: parts.next()?.to_owned(),
    };
    Some((resource, parts.next()?.into()))
}

/// A version that was read by name, and its length; 0 if nothing of it is kept.
pub(crate) fn encode_remembered(version: Version, len: Option<u32>) -> Bytes {
    encode(&(version, len.unwrap_or(0)))
}

pub(crate) fn decode_remembered(bytes: &[u8]) -> Option<(Version, Option<u32>)> {
    let (version, len) = decode::<(Version, u32)>(bytes)?;
    Some((version, Some(len).filter(|len| *len > 0)))
}

// === What a scope holds ===

pub(crate) fn scope_key(id: MirrorId) -> Bytes {
    format!("{SCOPES}{id:08x}").into()
}

/// Returns the id in a stored scope's key.
pub(crate) fn parse_scope_key(stored: &[u8]) -> Option<MirrorId> {
    u32::from_str_radix(std::str::from_utf8(stored).ok()?.strip_prefix(SCOPES)?, 16).ok()
}

pub(crate) fn member_key(id: MirrorId, key: &str) -> Bytes {
    format!("{MEMBERS}{id:08x}/{key}").into()
}

/// Returns the mirror's id in the key of a member or a deletion.
pub(crate) fn id_of(stored: &[u8]) -> Option<MirrorId> {
    let text = std::str::from_utf8(stored).ok()?;
    u32::from_str_radix(text.get(2..10)?, 16).ok()
}

/// Returns the object's key in a stored member's key.
pub(crate) fn parse_member_key(stored: &[u8]) -> Option<ObjectKey> {
    Some(std::str::from_utf8(stored).ok()?.get(11..)?.into())
}

/// What a scope holds of an object: of a member version, order, beginning and length; of what is behind a local
/// version its version and length.
pub(crate) fn encode_holding(holding: &Holding) -> Bytes {
    let member = holding.member;
    let member = member.map(|one| (one.version, one.order, one.added, one.len));
    let behind = holding.behind.map(|one| (one.version, one.len));
    encode(&(member, behind))
}

pub(crate) fn decode_holding(bytes: &[u8]) -> Option<Holding> {
    type Saved = (Option<(Version, u64, u64, u32)>, Option<(Version, u32)>);
    let (member, behind) = decode::<Saved>(bytes)?;
    Some(Holding {
        member: member.map(|(version, order, added, len)| Member {
            version,
            order,
            added,
            len,
        }),
        behind: behind.map(|(version, len)| Behind { version, len }),
    })
}

// === Deletions ===

pub(crate) fn tombstone_prefix(id: MirrorId) -> Bytes {
    format!("{TOMBSTONES}{id:08x}/").into()
}

pub(crate) fn tombstone_key(id: MirrorId, order: u64) -> Bytes {
    format!("{TOMBSTONES}{id:08x}/{order:016x}").into()
}

/// Returns the order in a stored deletion's key.
pub(crate) fn parse_tombstone_key(stored: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(stored).ok()?;
    u64::from_str_radix(text.rsplit('/').next()?, 16).ok()
}

/// A stored deletion: its numbers, the object's key, its last bytes.
pub(crate) fn encode_tombstone(stone: &Tombstone, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(17 + stone.key.len() + body.len());
    bytes.put_u64_le(stone.added);
    bytes.put_u64_le(stone.revision);
    bytes.put_slice(stone.key.as_bytes());
    bytes.put_u8(b'\n');
    bytes.put_slice(body);
    bytes.freeze()
}

pub(crate) fn decode_tombstone(order: u64, mut bytes: Bytes) -> Option<(Tombstone, Bytes)> {
    let added = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let revision = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    bytes = bytes.slice(16..);
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let key: ObjectKey = std::str::from_utf8(&bytes[..end]).ok()?.into();
    let stone = Tombstone {
        order,
        revision,
        key,
        added,
    };
    Some((stone, bytes.slice(end + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::version::Era;

    #[test]
    fn a_scope_reads_back_and_garbage_does_not() {
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
            followed: Version::cloud(Era::default().next(), 6),
            compacted: 3,
            ahead_until: 2,
            went_back: false,
            owner: Some("system:serviceaccount:shop:web".into()),
        };
        assert_eq!(SavedScope::decode(&saved.encode()), Some(saved.clone()));
        assert_eq!(SavedScope::decode(&saved.encode()[1..]), None);
        assert_eq!(parse_scope_key(&scope_key(7)), Some(7));
    }

    #[test]
    fn what_an_earlier_hub_wrote_of_a_scope_is_of_the_first_era() {
        #[derive(Encode)]
        struct Earlier {
            text: [String; 3],
            namespace: Option<String>,
            selectors: [String; 2],
            form: Option<TypeMeta>,
            is_synced: bool,
            marks: [u64; 4],
            went_back: bool,
        }
        let earlier = Earlier {
            text: ["apps", "v1", "deployments"].map(str::to_owned),
            namespace: None,
            selectors: ["app=x", ""].map(str::to_owned),
            form: None,
            is_synced: true,
            marks: [7, 6, 3, 2],
            went_back: true,
        };
        let saved = SavedScope::decode(&encode(&earlier)).unwrap();
        assert_eq!(saved.followed, Version::cloud(Era::default(), 6));
        let marks = Marks {
            revision: 7,
            upstream: 6,
            compacted: 3,
            ahead_until: 2,
        };
        assert_eq!((saved.marks(), saved.went_back), (marks, true));
        assert_eq!(saved.owner, None);
    }

    #[test]
    fn an_era_reads_back_and_garbage_is_no_later_one() {
        let era = Era::default().next();
        assert_eq!(decode_era(&encode_era(era)), Some(era));
        assert_eq!(decode_era(b"garbage"), None);
        let core = Resource::core("pods");
        let (resource, _) = parse_object_key(&era_key(&core)).unwrap();
        assert_eq!(resource, core);
    }

    #[test]
    fn what_is_held_of_an_object_reads_back() {
        let member = Member {
            version: Version::local(9),
            order: 9,
            added: 3,
            len: 12,
        };
        let behind = Behind {
            version: Version::cloud(Era::default(), 5),
            len: 11,
        };
        for holding in [
            Holding::default(),
            Holding {
                member: Some(member),
                behind: Some(behind),
            },
        ] {
            assert_eq!(decode_holding(&encode_holding(&holding)), Some(holding));
        }
        assert_eq!(decode_holding(b"garbage"), None);
        assert_eq!(&*parse_member_key(&member_key(7, "a/b")).unwrap(), "a/b");
        let core = Resource {
            group: String::new(),
            version: "v1".into(),
            plural: "pods".into(),
        };
        let stored = record_key(&core, "a/b");
        assert_eq!(parse_object_key(&stored), Some((core, "a/b".into())));
    }

    #[test]
    fn a_deletion_reads_back() {
        let stone = Tombstone {
            order: 99,
            revision: 98,
            key: "a/b".into(),
            added: 3,
        };
        let stored = encode_tombstone(&stone, b"{}");
        let order = parse_tombstone_key(&tombstone_key(7, 99)).unwrap();
        let (read, body) = decode_tombstone(order, stored).unwrap();
        assert_eq!((read, &body[..]), (stone, &b"{}"[..]));
        assert_eq!(decode_tombstone(1, Bytes::from_static(b"short")), None);
    }
}
