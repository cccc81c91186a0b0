//! An open watch: lines, each with a deadline.

use std::time::Duration;

use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::{Error, broken};

/// A line of a watch that is longer than this is no event.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// An open watch, read line by line.
#[derive(Debug)]
pub struct Watch {
    /// The status code; events only follow 200.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    pub(super) body: Incoming,
    pub(super) buffer: Vec<u8>,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub kind: String,
    /// The object.
    pub object: Value,
}

impl Watch {
    /// Waits for the next event; nothing when the server ended the watch.
    ///
    /// # Errors
    ///
    /// When nothing comes in time, the connection breaks, or a line is no event.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Event>, Error> {
        let Some(line) = self.next_line(within).await? else {
            return Ok(None);
        };
        let event: Value =
            serde_json::from_slice(&line).map_err(|error| Error::Malformed(error.to_string()))?;
        Ok(Some(Event {
            kind: event["type"].as_str().unwrap_or_default().to_owned(),
            object: event["object"].clone(),
        }))
    }

    /// Waits for the next event as it is on the wire, for one that is too deep to be made a tree.
    ///
    /// # Errors
    ///
    /// When nothing comes in time, or the connection breaks.
    pub async fn next_line(&mut self, within: Duration) -> Result<Option<Vec<u8>>, Error> {
        let line = tokio::time::timeout(within, self.line()).await;
        line.map_err(|_| Error::Silence("a watch".into()))?
    }

    /// Tells whether nothing at all comes for a while.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub async fn is_silent(&mut self, during: Duration) -> Result<bool, Error> {
        match tokio::time::timeout(during, self.line()).await {
            Err(_) => Ok(true),
            Ok(line) => line.map(|_| false),
        }
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(Error::Malformed("a line without end".into()));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|source| broken(&Method::GET, "watch", source))?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
