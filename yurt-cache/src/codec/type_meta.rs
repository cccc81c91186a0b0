//! Kind and version of an object, which lists write once and every object by itself has to carry.

use bytes::{Bytes, BytesMut};

use super::object::{strip_type, with_type};

/// How the server writes objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct TypeMeta {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
}

/// Returns the object in the form that is kept: as the server's lists have it.
pub(crate) fn without_type_meta(object: &[u8], type_meta: &TypeMeta) -> Bytes {
    match strip_type(object, &type_meta.api_version, &type_meta.kind) {
        Some(rest) => {
            let mut bare = BytesMut::with_capacity(rest.len() + 1);
            bare.extend_from_slice(b"{");
            bare.extend_from_slice(rest);
            bare.freeze()
        }
        None => Bytes::copy_from_slice(object),
    }
}

/// Returns the object as a GET or a watch has it: with its kind and version.
pub(crate) fn with_type_meta(body: &Bytes, type_meta: &TypeMeta) -> Bytes {
    if body.starts_with(b"{\"metadata\"") {
        with_type(body, &type_meta.api_version, &type_meta.kind)
    } else {
        body.clone()
    }
}
