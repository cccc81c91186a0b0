//! The one task of a session: the control pipe, the timers, and the heads of new pipes.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use yurt_core::transport::{ErrorKind, State};

use super::accept::{Offer, offer};
use super::{Carrier, Core};
use crate::transport::pipe::{malformed, transport_error};
use crate::wire::{Frame, PREFIX, Prefix};

/// A peer that lets this much be said to it without reading is not one of ours.
const MAX_UNSAID: usize = 1 << 20;

/// The peer's questions wait while this much is still to be said to it.
const ENOUGH_UNSAID: usize = 64 << 10;

/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Work that an owner of a stream leaves behind.
pub(super) type Chore = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Lives as long as the session.
pub(super) async fn drive<C: Carrier>(
    core: Arc<Core<C>>,
    (mut send, receive): (C::Send, C::Receive),
    offers: Option<mpsc::Sender<Box<Offer<C>>>>,
    mut chores: mpsc::UnboundedReceiver<Chore>,
) {
    let mut frames = Frames::new(receive);
    let mut unsaid = Vec::new();
    let mut said = 0;
    let mut tasks = JoinSet::new();
    loop {
        let (timer, state) = core.with(|inner, _| {
            unsaid.append(&mut inner.control);
            (inner.link.timeout(), inner.link.state().clone())
        });
        if let State::Closed { reason, .. } = state {
            let last = async {
                send.write_all(&unsaid[said..]).await?;
                send.shutdown().await?;
                frames.end().await
            };
            let _ = timeout(LAST_WORDS, last).await; // the peer may be gone
            core.carrier.close(&reason);
            return;
        }
        if unsaid.len() - said > MAX_UNSAID {
            core.with(|inner, _| {
                inner
                    .link
                    .fail(ErrorKind::Protocol, "the peer does not listen")
            });
            continue;
        }
        let is_said = said == unsaid.len();
        let timer = async {
            match timer {
                Some(at) => sleep_until(core.began + at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            written = send.write(&unsaid[said..]), if !is_said => {
                said += match written {
                    Ok(bytes) => bytes,
                    Err(error) => { lost(&core, &error); continue; }
                };
                if said == unsaid.len() {
                    (unsaid, said) = (Vec::new(), 0);
                    if let Err(error) = send.flush().await { lost(&core, &error); }
                }
            }
            frame = frames.next(), if unsaid.len() - said < ENOUGH_UNSAID => match frame {
                Ok((frame, bytes)) => core.with(|inner, now| {
                    inner.purposes.received(frame.as_ref(), bytes);
                    if let Some(frame) = frame {
                        inner.link.on_frame(frame, now);
                    }
                }),
                Err(error) => lost(&core, &error),
            },
            pipe = core.carrier.accept(), if offers.is_some() => match (pipe, &offers) {
                (Ok(pipe), Some(offers)) => {
                    tasks.spawn(offer(core.clone(), pipe, offers.clone()));
                }
                (Ok(_), None) => {}
                (Err(error), _) => lost(&core, &error),
            },
            Some(chore) = chores.recv() => { tasks.spawn(chore); }
            Some(_) = tasks.join_next() => {}
            () = core.changed.notified() => {}
            () = timer => core.with(|inner, now| inner.link.on_timeout(now)),
        }
    }
}

fn lost<C: Carrier>(core: &Core<C>, error: &io::Error) {
    let error = transport_error(error);
    core.with(|inner, _| match error.kind() {
        ErrorKind::Protocol => inner.link.fail(ErrorKind::Protocol, &error.to_string()),
        _ => inner.link.on_lost(&error.to_string()),
    });
}

/// The peer's frames; whoever waits for one may be dropped.
struct Frames<R> {
    pipe: R,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(pipe: R) -> Self {
        Self {
            pipe,
            bytes: Vec::new(),
        }
    }

    /// Returns a frame, `None` if this version does not know it, and its length.
    async fn next(&mut self) -> io::Result<(Option<Frame>, usize)> {
        loop {
            if let Some(frame) = self.parse()? {
                return Ok(frame);
            }
            if self.pipe.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits until the peer, too, has said its last word.
    async fn end(&mut self) -> io::Result<()> {
        let mut ignored = [0; 256];
        while self.pipe.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    fn parse(&mut self) -> io::Result<Option<(Option<Frame>, usize)>> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let prefix = Prefix::decode(*prefix).map_err(malformed)?;
        let end = PREFIX + prefix.len;
        let Some(body) = self.bytes.get(PREFIX..end) else {
            return Ok(None);
        };
        let frame = Frame::decode(prefix.kind, body).map_err(malformed)?;
        self.bytes.drain(..end);
        if self.bytes.is_empty() {
            self.bytes = Vec::new(); // an idle session keeps nothing
        }
        Ok(Some((frame, end)))
    }
}
