//! Follows a scope by a watch.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::run::Follower;
use super::source::{Events, FetchError, SILENCE, next_chunk, selectors, stored};
use crate::api::well_known::may_be_custom;
use crate::codec::{EventType, Status};
use crate::identity::Caller;
use crate::mirror::Phase;
use crate::mirror::incoming::Incoming;

/// Shortest and longest life of an upstream watch, in seconds. Long, since each new one costs a round trip
/// and some hundred bytes; spread, so that a node's watches do not all end together.
const WATCH_SECONDS: Range<u64> = 900..1_800;

impl Follower {
    /// Follows the watch until it ends, does not bring what the cloud has, or the cloud turns out to have
    /// gone back in time: a watch from a revision of the future is silent. One that follows a list begins where
    /// the cloud has just been.
    ///
    /// # Cancel safety
    /// What came is taken or not, as a whole.
    pub(super) async fn watch(&self, caller: &Caller, is_resumed: bool) -> Result<(), FetchError> {
        let before = self.mirror.followed();
        tokio::select! {
            ended = self.events(caller) => ended,
            error = self.went_back(caller, before), if is_resumed => Err(error),
            () = self.following.reopen.notified() => Err(FetchError::Unproven),
            () = self.mirror.suspect() => Err(FetchError::Suspect),
        }
    }

    /// Follows the watch from the mirror's revision until it ends.
    async fn events(&self, caller: &Caller) -> Result<(), FetchError> {
        let seconds = fastrand::u64(WATCH_SECONDS);
        self.mirror.counters.watches.fetch_add(1, Ordering::Relaxed);
        let mut query = selectors(&self.mirror);
        query.extend([
            ("watch", "1".to_owned()),
            ("resourceVersion", self.mirror.followed().to_string()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("timeoutSeconds", seconds.to_string()),
        ]);
        let response = self.ask(caller, &query).await?;
        let mut stream = Events::of(response, self.config.object_limit);
        self.mirror.note_watched_as(caller, Instant::now());
        self.mirror.set_phase(Phase::Live);
        self.following.refused.send_replace(false);
        let mut reached = self.mirror.followed();
        let ends_at = Instant::now() + Duration::from_secs(seconds) + SILENCE;
        while let Some(chunk) =
            next_chunk(&self.mirror, &mut stream.body, ends_at - Instant::now()).await?
        {
            let mut events = Vec::new();
            let read = stream.push(&chunk, &mut |event_type, object| {
                if event_type == EventType::Error {
                    return Err(refusal(object));
                }
                let event = self.mirror.read_event(event_type, object)?;
                self.check_event(&event, reached)?;
                reached = event.revision;
                events.push(event);
                Ok::<(), FetchError>(())
            });
            if !events.is_empty() {
                self.mirror.counters.events.fetch_add(
                    u64::try_from(events.len()).unwrap_or(u64::MAX),
                    Ordering::Relaxed,
                );
                let mirror = self.mirror.clone();
                stored(move || mirror.take(events)).await?;
            }
            read?;
        }
        stream.lines.finish()?;
        Ok(())
    }

    /// Refuses what no server sends in a watch of this scope.
    fn check_event(&self, event: &Incoming, reached: u64) -> Result<(), FetchError> {
        if event.revision < reached {
            return Err(FetchError::Backwards {
                before: reached,
                now: event.revision,
            });
        }
        if event.event_type == EventType::Bookmark {
            return Ok(());
        }
        self.check_key(&event.key)?;
        let form = self.mirror.kind.form();
        match form.filter(|_| !may_be_custom(&self.mirror.scope.resource)) {
            Some(form) if event.kind != form.kind => Err(FetchError::OtherKind(event.kind.clone())),
            _ => Ok(()),
        }
    }
}

/// Returns what an ERROR event says.
pub(super) fn refusal(object: &[u8]) -> FetchError {
    let status = Status::received(StatusCode::INTERNAL_SERVER_ERROR, object);
    if status.code == StatusCode::GONE {
        FetchError::Expired
    } else {
        FetchError::Refused(status)
    }
}
