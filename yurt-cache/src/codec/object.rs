//! What the hub needs to know of one object, read and changed without building a tree.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{offset, write_string};

/// What the hub knows of an object beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectMeta {
    /// Group and version, where the object says so.
    pub(crate) api_version: Option<String>,
    /// The kind, where the object says so.
    pub(crate) kind: Option<String>,
    /// The namespace; empty if there is none.
    pub(crate) namespace: String,
    /// The name; empty in bookmarks.
    pub(crate) name: String,
    /// The server's own identity of the object.
    pub(crate) uid: String,
    /// The revision; 0 if there is none or it is no number.
    pub(crate) resource_version: u64,
    /// When it was created, as written.
    pub(crate) creation_timestamp: Option<String>,
    /// The labels, sorted by key.
    pub(crate) labels: Vec<(String, String)>,
}

/// Why bytes are not an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ObjectError {
    /// The bytes are not text.
    #[error("object is not UTF-8")]
    Decode(#[source] std::str::Utf8Error),
    /// The text is not a Kubernetes object.
    #[error("malformed object")]
    Parse(#[source] serde_json::Error),
    /// There is no `metadata` to change.
    #[error("object has no metadata")]
    FindMetadata,
}

impl ObjectMeta {
    /// Reads the metadata and checks that all of the object is JSON.
    pub(crate) fn parse(object: &[u8]) -> Result<Self, ObjectError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Object {
            api_version: Option<String>,
            kind: Option<String>,
            metadata: Option<Metadata>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            namespace: Option<String>,
            name: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            creation_timestamp: Option<String>,
            #[serde(default, deserialize_with = "labels")]
            labels: Vec<(String, String)>,
        }
        let text = std::str::from_utf8(object).map_err(ObjectError::Decode)?;
        let Object {
            api_version,
            kind,
            metadata,
        } = serde_json::from_str(text).map_err(ObjectError::Parse)?;
        let metadata = metadata.unwrap_or_default();
        let revision = metadata.resource_version.as_deref().and_then(revision);
        Ok(Self {
            api_version,
            kind,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: revision.unwrap_or(0),
            creation_timestamp: metadata.creation_timestamp,
            labels: metadata.labels,
        })
    }
}

/// Reads a revision. Those beyond no server ever reaches that counts its writes, and the hub counts on from what it is
/// told: there is room for that.
pub(super) fn revision(text: &str) -> Option<u64> {
    text.parse().ok().filter(|revision| *revision < 1 << 62)
}

/// Reads labels sorted by key; of equal keys the last counts, as in Go.
fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Labels;

    impl<'de> Visitor<'de> for Labels {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut labels: Vec<(String, String)> = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                labels.push((key, value.unwrap_or_default()));
            }
            labels.reverse();
            labels.sort_by(|a, b| a.0.cmp(&b.0));
            labels.dedup_by(|later, kept| later.0 == kept.0);
            Ok(labels)
        }
    }

    from.deserialize_any(Labels)
}

/// What follows the type of an object as the server's typed encoder writes it, which is the
/// bare object without its opening brace; none if the object begins otherwise.
///
/// Items of built-in lists carry no kind and apiVersion, objects of watches do; both are kept bare.
pub(crate) fn strip_type<'a>(object: &'a [u8], api_version: &str, kind: &str) -> Option<&'a [u8]> {
    object
        .strip_prefix(b"{\"kind\":\"")?
        .strip_prefix(kind.as_bytes())?
        .strip_prefix(b"\",\"apiVersion\":\"")?
        .strip_prefix(api_version.as_bytes())?
        .strip_prefix(b"\",")
}

/// A bare object with its type written in front, as the server's typed encoder does.
pub(crate) fn with_type(bare: &[u8], api_version: &str, kind: &str) -> Bytes {
    let Some(fields) = bare.trim_ascii_start().strip_prefix(b"{") else {
        return Bytes::copy_from_slice(bare);
    };
    let mut object = BytesMut::with_capacity(bare.len() + api_version.len() + kind.len() + 32);
    write_type(api_version, kind, &mut object);
    if !fields.trim_ascii_start().starts_with(b"}") {
        object.put_u8(b',');
    }
    object.put_slice(fields);
    object.freeze()
}

/// Opens an object with its type; no comma follows.
pub(crate) fn write_type(api_version: &str, kind: &str, into: &mut BytesMut) {
    into.put_slice(b"{\"kind\":");
    write_string(kind, into);
    into.put_slice(b",\"apiVersion\":");
    write_string(api_version, into);
}

/// The object with another `metadata.resourceVersion`, byte for byte otherwise.
pub(crate) fn with_resource_version(
    object: &[u8],
    resource_version: u64,
) -> Result<Bytes, ObjectError> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, rename = "resourceVersion")]
        resource_version: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(object).map_err(ObjectError::Decode)?;
    let found: Object<'_> = serde_json::from_str(text).map_err(ObjectError::Parse)?;
    let metadata = found.metadata.ok_or(ObjectError::FindMetadata)?.get();
    let found: Metadata<'_> = serde_json::from_str(metadata).map_err(ObjectError::Parse)?;

    let revision = format!("\"{resource_version}\"");
    let (start, end, revision) = match found.resource_version {
        Some(old) => {
            let start = offset(object, old.get().as_bytes()).ok_or(ObjectError::FindMetadata)?;
            (start, start + old.get().len(), revision)
        }
        None => {
            let start = offset(object, metadata.as_bytes()).ok_or(ObjectError::FindMetadata)?;
            let fields = metadata
                .strip_prefix('{')
                .ok_or(ObjectError::FindMetadata)?;
            let comma = if fields.trim_ascii_start().starts_with('}') {
                ""
            } else {
                ","
            };
            (
                start + 1,
                start + 1,
                format!("\"resourceVersion\":{revision}{comma}"),
            )
        }
    };
    let mut changed = BytesMut::with_capacity(object.len() + revision.len());
    changed.put_slice(&object[..start]);
    changed.put_slice(revision.as_bytes());
    changed.put_slice(&object[end..]);
    Ok(changed.freeze())
}

/// The object with another value of one of its fields, byte for byte otherwise; a field that it lacks comes last.
pub(crate) fn with_field(object: &[u8], name: &str, value: &[u8]) -> Result<Bytes, ObjectError> {
    let text = std::str::from_utf8(object).map_err(ObjectError::Decode)?;
    let mut changed = BytesMut::with_capacity(object.len() + name.len() + value.len() + 4);
    if let Some(old) = field(text, name) {
        let old = old.get();
        let start = offset(object, old.as_bytes()).ok_or(ObjectError::FindMetadata)?;
        changed.put_slice(&object[..start]);
        changed.put_slice(value);
        changed.put_slice(&object[start + old.len()..]);
        return Ok(changed.freeze());
    }
    let end = object.trim_ascii_end();
    let fields = end.strip_suffix(b"}").ok_or(ObjectError::FindMetadata)?;
    changed.put_slice(fields);
    if !fields.trim_ascii_end().ends_with(b"{") {
        changed.put_u8(b',');
    }
    write_string(name, &mut changed);
    changed.put_u8(b':');
    changed.put_slice(value);
    changed.put_u8(b'}');
    Ok(changed.freeze())
}

/// The raw value of one field of a JSON object; of equal keys the last counts, as in Go.
pub(crate) fn field<'a>(object: &'a str, name: &str) -> Option<&'a RawValue> {
    struct Field<'n>(&'n str);

    impl<'de> Visitor<'de> for Field<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(Key(key)) = map.next_key()? {
                if key == self.0 {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }

    #[derive(Deserialize)]
    struct Key<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

    serde_json::Deserializer::from_str(object)
        .deserialize_map(Field(name))
        .ok()?
}

#[cfg(test)]
mod tests;
