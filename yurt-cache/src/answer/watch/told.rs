//! What a client with filters is told of an event, and what it had seen when it comes back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::super::blocking;
use super::super::write::Writer;
use crate::api::{ObjectKey, Selection};
use crate::codec::{EventType, Status};
use crate::filter::chain::{FilterChainError, Filtered};
use crate::filter::seen::{Seen, Told};
use crate::mirror::{Mirror, View};

/// Why an event cannot be told.
#[derive(Debug)]
pub(super) enum Untold {
    /// Nobody knows what the client knows of the object.
    Expired,
    Undecided(FilterChainError),
}

impl From<FilterChainError> for Untold {
    fn from(error: FilterChainError) -> Self {
        Self::Undecided(error)
    }
}

/// Writes an event as the client may see it. Of what becomes hidden it is told the last state, since clients
/// undo what they did for an object by what they are told of its end.
pub(super) fn tell(
    writer: &Writer,
    seen: &mut Option<Seen>,
    event_type: EventType,
    (key, revision, object): (&ObjectKey, u64, &Bytes),
    out: &mut BytesMut,
) -> Result<(), Untold> {
    let (object, is_hidden) = match writer.apply(object)? {
        Filtered::Shown(object) => (object, false),
        Filtered::Hidden => (object.clone(), true),
    };
    let told = match seen {
        Some(seen) => seen.tell(event_type, key, revision, is_hidden),
        None => Told::As(event_type),
    };
    match told {
        Told::Nothing => {}
        Told::As(event_type) => writer.event(event_type, &object, out),
        Told::Expired => return Err(Untold::Expired),
    }
    Ok(())
}

/// Looks at what was hidden from a client that saw the mirror at a revision and has been away since.
pub(super) async fn survey(
    mirror: &Arc<Mirror>,
    revision: u64,
    selection: &Selection,
    writer: &Writer,
) -> Result<Seen, Status> {
    let View {
        snapshot,
        revision: now,
        ..
    } = mirror.view(selection.within());
    let writer = writer.clone();
    let surveyed = blocking(move || {
        let mut seen = Seen::away_until(now);
        for item in snapshot.items.iter().filter(|item| item.order <= revision) {
            let body = snapshot.read(item)?;
            match writer.apply(&body) {
                Ok(Filtered::Hidden) => seen.hide(item.key.clone()),
                Ok(Filtered::Shown(_)) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(seen))
    });
    Ok(surveyed.await??)
}
