//! How bytes become objects, events and answers, and back. Everything here is pure and
//! bounded: bytes from a peer never panic and never make us allocate what they declare.

#![cfg_attr(not(test), expect(dead_code, reason = "the mirrors will use it"))]
#![expect(unused_imports, reason = "the mirrors will use them")]

pub(crate) mod fields;
mod json;
mod list;
mod object;
mod path;
mod selector;
mod status;
mod table;
mod watch;

pub(crate) use list::{ListError, ListHead, ListSplitter};
pub(crate) use object::{ObjectError, ObjectMeta, strip_type, with_resource_version, with_type};
pub(crate) use path::{JsonPath, JsonPathError};
pub(crate) use selector::{FieldOperator, FieldSelector, FieldTerm, LabelSelector, SelectorError};
pub(crate) use status::{Cause, Details, ReceivedStatus, Status, Subject};
pub(crate) use table::{
    Column, IncludeObject, PrinterColumn, human_duration, partial_list_head, partial_object,
    table_head, table_row,
};
pub(crate) use watch::{EventLines, EventType, WatchError, bookmark, frame, is_initial_events_end};
