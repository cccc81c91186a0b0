//! What the hub reads of Kubernetes' protobuf: the few fields of the few requests that it answers itself.
//!
//! The envelope is that of `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`: the bytes `k8s\0` and a
//! `runtime.Unknown`. Field numbers are those of the `generated.proto` files beside the Go types.

use bytes::Bytes;
use prost::Message;

use super::ObjectMeta;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProtobufError {
    #[error("the body does not begin with the envelope of Kubernetes' protobuf")]
    FindEnvelope,
    #[error("malformed protobuf")]
    Decode(#[source] prost::DecodeError),
    #[error("the body is a {0} and not what the path names")]
    OtherKind(String),
}

/// What a token is asked for: `authentication.k8s.io/v1`, `TokenRequest.spec`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct TokenRequestSpec {
    #[prost(string, repeated, tag = "1")]
    pub(crate) audiences: Vec<String>,
    #[prost(int64, optional, tag = "4")]
    pub(crate) expiration_seconds: Option<i64>,
    #[prost(message, optional, tag = "3")]
    pub(crate) bound_object_ref: Option<BoundObjectReference>,
}

/// The object with which a token ends: `authentication.k8s.io/v1`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct BoundObjectReference {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

/// Every object that we read has its metadata in field 1.
#[derive(Clone, PartialEq, Message)]
struct Object {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
}

#[derive(Clone, PartialEq, Message)]
struct TokenRequest {
    #[prost(message, optional, tag = "2")]
    spec: Option<TokenRequestSpec>,
}

/// `core/v1`, `Event`, as far as it says how often it happened.
#[derive(Clone, PartialEq, Message)]
struct CoreEvent {
    #[prost(int32, tag = "8")]
    count: i32,
    #[prost(message, optional, tag = "11")]
    series: Option<EventSeries>,
}

/// The same in `events.k8s.io/v1`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(message, optional, tag = "3")]
    series: Option<EventSeries>,
    #[prost(int32, tag = "15")]
    deprecated_count: i32,
}

#[derive(Clone, PartialEq, Message)]
struct EventSeries {
    #[prost(int32, tag = "1")]
    count: i32,
}

/// Reads how often what an event tells of has happened.
pub(crate) fn event_count(body: &Bytes) -> Result<u64, ProtobufError> {
    let unknown = open(body)?;
    let is_core = unknown.type_meta.unwrap_or_default().api_version == "v1";
    let (count, series) = if is_core {
        let event = CoreEvent::decode(unknown.raw).map_err(ProtobufError::Decode)?;
        (event.count, event.series)
    } else {
        let event = Event::decode(unknown.raw).map_err(ProtobufError::Decode)?;
        (event.deprecated_count, event.series)
    };
    let count = count.max(series.map_or(0, |series| series.count));
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Reads the metadata of an object of any kind, without labels and times.
pub(crate) fn metadata(body: &Bytes) -> Result<ObjectMeta, ProtobufError> {
    let unknown = open(body)?;
    let object = Object::decode(unknown.raw).map_err(ProtobufError::Decode)?;
    let type_meta = unknown.type_meta.unwrap_or_default();
    let metadata = object.metadata.unwrap_or_default();
    Ok(ObjectMeta {
        api_version: Some(type_meta.api_version),
        kind: Some(type_meta.kind),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        resource_version: metadata.resource_version.parse().unwrap_or(0),
        ..ObjectMeta::default()
    })
}

/// Reads what a token is asked for.
pub(crate) fn token_request(body: &Bytes) -> Result<TokenRequestSpec, ProtobufError> {
    let unknown = open(body)?;
    let kind = unknown.type_meta.unwrap_or_default().kind;
    if kind != "TokenRequest" {
        return Err(ProtobufError::OtherKind(kind));
    }
    let request = TokenRequest::decode(unknown.raw).map_err(ProtobufError::Decode)?;
    Ok(request.spec.unwrap_or_default())
}

fn open(body: &Bytes) -> Result<Unknown, ProtobufError> {
    if !body.starts_with(MAGIC) {
        return Err(ProtobufError::FindEnvelope);
    }
    Unknown::decode(body.slice(MAGIC.len()..)).map_err(ProtobufError::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(kind: &str, raw: Vec<u8>) -> Bytes {
        let unknown = Unknown {
            type_meta: Some(TypeMeta {
                api_version: "v1".into(),
                kind: kind.into(),
            }),
            raw: raw.into(),
        };
        let mut body = MAGIC.to_vec();
        body.extend(unknown.encode_to_vec());
        body.into()
    }

    #[test]
    fn the_metadata_of_any_object_is_read() {
        let object = Object {
            metadata: Some(Metadata {
                name: "a.1".into(),
                namespace: "shop".into(),
                uid: "u".into(),
                resource_version: "7".into(),
            }),
        };
        let meta = metadata(&envelope("Event", object.encode_to_vec())).unwrap();
        assert_eq!(
            (meta.name.as_str(), meta.namespace.as_str()),
            ("a.1", "shop")
        );
        assert_eq!(meta.kind.as_deref(), Some("Event"));
        assert_eq!(meta.resource_version, 7);
    }

    #[test]
    fn a_token_request_is_read_and_another_kind_is_refused() {
        let spec = TokenRequestSpec {
            audiences: vec!["x".into()],
            expiration_seconds: Some(3_607),
            bound_object_ref: Some(BoundObjectReference {
                kind: "Pod".into(),
                name: "p".into(),
                uid: "u".into(),
            }),
        };
        let request = TokenRequest {
            spec: Some(spec.clone()),
        };
        let raw = request.encode_to_vec();
        assert_eq!(
            token_request(&envelope("TokenRequest", raw.clone())).unwrap(),
            spec
        );
        assert!(matches!(
            token_request(&envelope("Secret", raw)),
            Err(ProtobufError::OtherKind(kind)) if kind == "Secret"
        ));
    }

    #[test]
    fn how_often_an_event_happened_is_read_in_both_groups() {
        let core = CoreEvent {
            count: 3,
            series: Some(EventSeries { count: 5 }),
        };
        let body = envelope("Event", core.encode_to_vec());
        assert_eq!(event_count(&body).unwrap(), 5);
        let event = Event {
            series: None,
            deprecated_count: 4,
        };
        let unknown = Unknown {
            type_meta: Some(TypeMeta {
                api_version: "events.k8s.io/v1".into(),
                kind: "Event".into(),
            }),
            raw: event.encode_to_vec().into(),
        };
        let body = [MAGIC, &unknown.encode_to_vec()].concat();
        assert_eq!(event_count(&body.into()).unwrap(), 4);
    }

    #[test]
    fn bytes_that_are_cut_or_garbage_are_refused() {
        let object = Object {
            metadata: Some(Metadata {
                name: "a".repeat(40),
                ..Metadata::default()
            }),
        };
        let whole = envelope("Event", object.encode_to_vec());
        for len in 0..whole.len() {
            // A cut between two fields leaves a message without the later ones.
            let read = metadata(&whole.slice(..len));
            assert!(
                !read.is_ok_and(|meta| !meta.name.is_empty()),
                "cut at {len}"
            );
        }
        let garbage = [MAGIC, &[0xff; 64]].concat();
        assert!(metadata(&garbage.into()).is_err());
    }
}
