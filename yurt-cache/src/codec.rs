//! How bytes become objects, events and answers, and back. Everything here is pure and
//! bounded: bytes from a peer never panic and never make us allocate what they declare.

#![cfg_attr(not(test), expect(dead_code, reason = "the mirrors will use it"))]
#![expect(unused_imports, reason = "the mirrors will use them")]

mod json;
mod list;
mod object;
mod path;
mod watch;

pub(crate) use list::{ListError, ListHead, ListSplitter};
pub(crate) use object::{ObjectError, ObjectMeta, strip_type, with_resource_version, with_type};
pub(crate) use path::{JsonPath, JsonPathError};
pub(crate) use watch::{EventLines, EventType, WatchError, bookmark, frame, is_initial_events_end};
