//! How a `Status` is written.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Details, Status};
use crate::codec::json::write_string;

impl Status {
    /// When to try again, for the `Retry-After` header: whole seconds.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        Some(seconds(self.details.as_ref()?.retry_after?))
    }

    /// The object, as the ERROR event of a watch holds it.
    pub(crate) fn object(&self) -> Bytes {
        let mut into = BytesMut::with_capacity(256 + self.message.len());
        self.write(&mut into);
        into.freeze()
    }

    /// The body of a response.
    pub(crate) fn body(&self) -> Bytes {
        let mut into = BytesMut::with_capacity(256 + self.message.len());
        self.write(&mut into);
        into.put_u8(b'\n');
        into.freeze()
    }

    fn write(&self, into: &mut BytesMut) {
        into.put_slice(br#"{"kind":"Status","apiVersion":"v1","metadata":{"#);
        if let Some(token) = &self.continue_token {
            into.put_slice(br#""continue":"#);
            write_string(token, into);
        }
        into.put_slice(br#"},"status":"Failure""#);
        write_field(",\"message\":", &self.message, into);
        write_field(",\"reason\":", &self.reason, into);
        if let Some(details) = &self.details {
            into.put_slice(br#","details":{"#);
            details.write(into);
            into.put_u8(b'}');
        }
        into.put_slice(format!(",\"code\":{}}}", self.code.as_u16()).as_bytes());
    }
}

impl Details {
    fn write(&self, into: &mut BytesMut) {
        let start = into.len();
        let fields = [
            ("\"name\":", &self.name),
            ("\"group\":", &self.group),
            ("\"kind\":", &self.kind),
        ];
        for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            separate(start, into);
            write_field(key, value, into);
        }
        if !self.causes.is_empty() {
            separate(start, into);
            into.put_slice(br#""causes":["#);
            let start = into.len();
            for cause in &self.causes {
                separate(start, into);
                into.put_u8(b'{');
                let start = into.len();
                let fields = [
                    ("\"reason\":", &*cause.reason),
                    ("\"message\":", &cause.message),
                    ("\"field\":", &cause.field),
                ];
                for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                    separate(start, into);
                    write_field(key, value, into);
                }
                into.put_u8(b'}');
            }
            into.put_u8(b']');
        }
        if let Some(retry_after) = self.retry_after {
            separate(start, into);
            into.put_slice(format!("\"retryAfterSeconds\":{}", seconds(retry_after)).as_bytes());
        }
    }
}

/// Rounds up: nobody should come back too early.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn separate(start: usize, into: &mut BytesMut) {
    if into.len() > start {
        into.put_u8(b',');
    }
}

/// Writes a field unless it is empty.
fn write_field(key: &str, value: &str, into: &mut BytesMut) {
    if !value.is_empty() {
        into.put_slice(key.as_bytes());
        write_string(value, into);
    }
}
