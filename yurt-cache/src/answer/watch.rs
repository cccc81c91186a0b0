//! WATCH: a client's own place in a mirror's history. It lives in the hub, so it survives a cut.

mod replay;
mod told;

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::replay::Replay;
use self::told::{Untold, survey, tell};
use super::weight::Weight;
use super::write::Writer;
use super::{Reading, json};
use crate::api::Selection;
use crate::api::request::{Options, Revision};
use crate::authorize::LastingPermit;
use crate::body::{self, Body};
use crate::codec::{self, EventType, Status};
use crate::filter::chain::FilterChain;
use crate::filter::seen::Seen;
use crate::mirror::window::{Event, Step};
use crate::mirror::{Counted, Mirror, Read};

/// Bytes of events that are sent at a time.
const PORTION: usize = 64 << 10;

/// How often a silent watch is told its revision: as the server does.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// How long a watch lasts that does not say: as the server, half an hour and up to as much again.
const LASTS: Duration = Duration::from_secs(1_800);

/// How long a watch lasts at most, whatever its client asks for: as long as the server lets one last that does not
/// say. Whoever wants to go on opens another, and is authorized anew.
const LASTS_AT_MOST: Duration = Duration::from_secs(3_600);

/// Answers a WATCH from a synced mirror.
pub(crate) fn watch(
    permit: LastingPermit,
    reading: Reading<'_>,
    stop: CancellationToken,
) -> Response<Body> {
    let Reading {
        mirror,
        selection,
        options,
        writer,
    } = reading;
    let (mut stage, reached) = begin(mirror, &selection, options);
    if mirror.has_failed() {
        // What was looked at may have been half erased.
        stage = Stage::End(Some(Status::expired_watch(reached, mirror.revision())));
    }
    let lasts = options.timeout_seconds.map_or_else(
        || LASTS.mul_f64(1.0 + fastrand::f64()),
        |seconds| Duration::from_secs(seconds).min(LASTS_AT_MOST),
    );
    let now = Instant::now();
    let first_bookmark = BOOKMARKS
        .mul_f64(0.9 + 0.2 * fastrand::f64())
        .min(lasts.saturating_sub((lasts / 2).min(Duration::from_secs(2))));
    let weight = match &stage {
        Stage::Replay(replay) => replay.weight(),
        Stage::Live { .. } | Stage::End(_) => Weight::default(),
    };
    let may_hide = writer.chain().is_some_and(FilterChain::may_hide);
    let is_resumed = !matches!(&stage, Stage::Replay(replay) if replay.is_state());
    let watching = Watching {
        seen: may_hide.then(Seen::default),
        saw: (may_hide && is_resumed).then_some(reached),
        changed: mirror.changed(),
        _counted: Counted::new(mirror.clone()),
        mirror: mirror.clone(),
        selection,
        writer,
        reached,
        told: None,
        sends_bookmarks: options.allows_bookmarks,
        ends_at: now + lasts,
        bookmark_at: now + first_bookmark,
        stage,
        permit,
        stop,
    };
    let chunks = stream::unfold(watching, |mut watching| async move {
        let chunk = watching.next().await?;
        Some((Ok::<_, body::BoxError>(Frame::data(chunk)), watching))
    });
    let mut response = json(StatusCode::OK, StreamBody::new(chunks).boxed_unsync());
    response.extensions_mut().insert(weight);
    response
}

fn begin(mirror: &Arc<Mirror>, selection: &Selection, options: &Options) -> (Stage, u64) {
    let wants_state = options
        .initial_events
        .unwrap_or(!matches!(options.revision, Revision::At(_)));
    if wants_state {
        let view = mirror.view(selection.within());
        if let Revision::At(wanted) = options.revision
            && wanted > view.revision
        {
            let status = Status::too_large_resource_version(wanted, view.revision);
            return (Stage::End(Some(status)), view.revision);
        }
        let ends = options.allows_bookmarks && options.initial_events == Some(true);
        let replay = Replay::state(view, ends, selection);
        let revision = replay.revision();
        return (Stage::Replay(replay), revision);
    }
    let Revision::At(from) = options.revision else {
        let view = mirror.view(selection.within());
        return (Stage::Live { place: view.place }, view.revision);
    };
    if from > mirror.revision() {
        // Nobody here knows what the client has seen; silence would leave it with that for ever.
        let expired = Status::expired_watch(from, mirror.revision());
        return (Stage::End(Some(expired)), from);
    }
    if let Some(place) = mirror.place_after(from) {
        return (Stage::Live { place }, from);
    }
    match Replay::since(mirror, from, selection) {
        Some(replay) => (Stage::Replay(replay), from),
        None => (
            Stage::End(Some(Status::expired_watch(from, mirror.revision()))),
            from,
        ),
    }
}

struct Watching {
    mirror: Arc<Mirror>,
    changed: watch::Receiver<()>,
    selection: Selection,
    writer: Writer,
    stage: Stage,
    /// What the client knows, where a filter may hide objects.
    seen: Option<Seen>,
    /// The revision that the client saw before it came, until it is known what it saw there.
    saw: Option<u64>,
    /// The revision that the client has reached: it began there, or was sent an event or a bookmark of it.
    reached: u64,
    /// The revision of the bookmark that ended the initial events: it need not be told twice.
    told: Option<u64>,
    sends_bookmarks: bool,
    ends_at: Instant,
    bookmark_at: Instant,
    permit: LastingPermit,
    stop: CancellationToken,
    _counted: Counted,
}

enum Stage {
    /// Sending what is or was there, then going on in the window.
    Replay(Replay),
    /// Sending what comes.
    Live { place: u64 },
    /// Sending the last word, if there is one, then nothing.
    End(Option<Status>),
}

impl Watching {
    /// Returns the next bytes for the client, `None` at the end. Nothing waits for a client that does not read.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        if let Some(revision) = self.saw.take() {
            match survey(&self.mirror, revision, &self.selection, &self.writer).await {
                Ok(seen) => self.seen = Some(seen),
                Err(status) => self.stage = Stage::End(Some(status)),
            }
        }
        if let Some(refusal) = self.permit.refusal().filter(|_| !self.is_ending()) {
            self.stage = Stage::End(Some(refusal));
        }
        loop {
            self.writer.renew();
            // The mirror's changes from here on wake the wait below.
            self.changed.mark_unchanged();
            match &mut self.stage {
                Stage::Replay(replay) => match replay.next(&self.writer, &mut self.seen).await {
                    Ok(Some(chunk)) => return Some(chunk),
                    Ok(None) => {
                        self.reached = self.reached.max(replay.revision());
                        self.told = replay.is_told().then_some(self.reached);
                        self.stage = Stage::Live {
                            place: replay.place(),
                        };
                    }
                    Err(status) => {
                        self.mirror.check_damage();
                        self.stage = Stage::End(Some(status));
                    }
                },
                Stage::End(status) => {
                    let status = status.take()?;
                    codec::frame(EventType::Error, &status.object(), &mut out);
                    return Some(out.freeze());
                }
                Stage::Live { .. } if Instant::now() >= self.ends_at => {
                    self.stage = Stage::End(None)
                }
                Stage::Live { place } => {
                    let place = *place;
                    self.stage = self.advance(place, &mut out);
                    if !out.is_empty() {
                        return Some(out.freeze());
                    }
                    if let Stage::Live { place: now } = self.stage
                        && now == place
                    {
                        self.wait(&mut out).await;
                        if !out.is_empty() {
                            return Some(out.freeze());
                        }
                    }
                }
            }
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::End(_))
    }

    fn advance(&mut self, mut place: u64, out: &mut BytesMut) -> Stage {
        let steps = match self.mirror.read(place, PORTION) {
            Read::Idle(_) => return Stage::Live { place },
            Read::Lost => {
                return Stage::End(Some(Status::expired_watch(
                    self.reached,
                    self.mirror.revision(),
                )));
            }
            Read::Ended(status) => return Stage::End(Some(status)),
            Read::Steps(steps) => steps,
        };
        let mut is_ahead = false;
        for step in steps {
            match &*step {
                Step::Event(event) if event.order > self.reached => {
                    if let Err(status) = self.send(event, out) {
                        return Stage::End(Some(status));
                    }
                    self.reached = event.order;
                    is_ahead = event.order != event.revision;
                }
                Step::Event(_) => {}
                Step::Jump { to } if *to <= self.reached => {}
                Step::Jump { .. } => {
                    return match Replay::since(&self.mirror, self.reached, &self.selection) {
                        Some(replay) => Stage::Replay(replay),
                        None => Stage::End(Some(Status::expired_watch(
                            self.reached,
                            self.mirror.revision(),
                        ))),
                    };
                }
            }
            place += 1;
        }
        if is_ahead && self.sends_bookmarks {
            // The objects' own numbers say less than the client knows: it would be told again what it has seen.
            self.writer.bookmark(self.reached, false, out);
        }
        Stage::Live { place }
    }

    fn send(&mut self, event: &Event, out: &mut BytesMut) -> Result<(), Status> {
        if self.selection.is_everything() && self.writer.is_plain() {
            out.put_slice(&event.line);
            return Ok(());
        }
        match event.selected(&self.selection) {
            Some((event_type, object)) => self.tell(event_type, event, &object, out),
            None => Ok(()),
        }
    }

    fn tell(
        &mut self,
        event_type: EventType,
        of: &Event,
        object: &Bytes,
        out: &mut BytesMut,
    ) -> Result<(), Status> {
        let event = (&of.key, of.order, object);
        let told = tell(&self.writer, &mut self.seen, event_type, event, out);
        told.map_err(|untold| match untold {
            Untold::Expired => Status::expired_watch(self.reached, self.mirror.revision()),
            Untold::Undecided(error) => error.into(),
        })
    }

    /// Waits for the mirror, the next bookmark or the end.
    async fn wait(&mut self, out: &mut BytesMut) {
        tokio::select! {
            biased;
            changed = self.changed.changed() => changed.expect("the mirror holds the sender"),
            () = self.stop.cancelled() => self.stage = Stage::End(None),
            refusal = self.permit.refused() => self.stage = Stage::End(Some(refusal)),
            () = tokio::time::sleep_until(self.ends_at) => self.stage = Stage::End(None),
            () = tokio::time::sleep_until(self.bookmark_at) => {
                self.bookmark_at += BOOKMARKS;
                if let Stage::Live { place } = self.stage
                    && self.sends_bookmarks
                    && let Read::Idle(revision) = self.mirror.read(place, 1)
                {
                    self.reached = self.reached.max(revision);
                    if self.told == Some(self.reached) {
                        return;
                    }
                    self.writer.bookmark(self.reached, false, out);
                }
            }
        }
    }
}
