//! How bytes become objects, events and answers, and back. Everything here is pure and
//! bounded: bytes from a peer never panic and never make us allocate what they declare.

/// The largest object that is taken, as JSON. etcd takes requests of 1.5 MiB (`--max-request-bytes`), and Go's encoder
/// writes a byte as six at most (`<` as `\u003c`): 9 MiB, and room for the names of fields, which protobuf leaves out.
pub(crate) const OBJECT_LIMIT: usize = 12 << 20;

mod compact;
pub(crate) mod fields;
mod inflate;
mod json;
mod list;
mod object;
#[cfg(test)]
mod odd;
mod path;
pub(crate) mod protobuf;
mod selector;
mod status;
mod table;
mod type_meta;
mod watch;

pub(crate) use compact::compact;
pub(crate) use inflate::{Inflate, accepts_gzip, inflate};
pub(crate) use list::{ListError, ListHead, ListSplitter};
pub(crate) use object::{
    ObjectError, ObjectMeta, field, strip_type, with_field, with_resource_version,
};
pub(crate) use path::JsonPath;
pub(crate) use selector::{FieldSelector, LabelSelector};
pub(crate) use status::{Cause, Status, Subject};
pub(crate) use table::{
    Column, IncludeObject, PrinterColumn, partial_object, table_head, table_row,
};
pub(crate) use type_meta::{TypeMeta, with_type_meta, without_type_meta};
pub(crate) use watch::{EventLines, EventType, WatchError, bookmark, frame, is_initial_events_end};
