//! Heads of requests that are still coming: how long one may take, and how many large ones there are at a time.
//!
//! kube-apiserver takes heads of 1 MiB, so the hub does; what costs little is free, and of large ones all clients
//! together have a few at a time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::PATIENCE;
use super::valve::Valve;
use crate::tls::Protocol;

/// Bytes of a head, as kube-apiserver's.
pub(super) const MAX_HEAD: usize = 1 << 20;

/// Header lines of a head: hyper makes room for so many at each HTTP/1.1 request.
pub(super) const MAX_LINES: usize = 10_000;

/// A head of more bytes is a large one.
const LARGE: usize = 64 << 10;

/// Large heads at a time, of all clients together.
const LARGE_HEADS: usize = 16;

/// The large heads that there may be.
#[derive(Clone, Debug)]
pub(in crate::hub) struct LargeHeads(Arc<Semaphore>);

impl LargeHeads {
    pub(in crate::hub) fn new() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_HEADS)))
    }

    /// Takes the place that a request's head needs, if it needs one: `Err` if there is none left.
    pub(super) fn admit(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<OwnedSemaphorePermit>, TooManyLargeHeads> {
        let lines = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
        let length = path + lines.sum::<usize>();
        (length > LARGE).then(|| self.enter()).transpose()
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, TooManyLargeHeads> {
        let permit = self.0.clone().try_acquire_owned();
        permit.map_err(|_| TooManyLargeHeads)
    }
}

/// All places of large heads are taken.
#[derive(Debug, thiserror::Error)]
#[error("too many large request heads at a time")]
pub(super) struct TooManyLargeHeads;

// === Meter ===

/// Measures the head that is coming over one connection.
#[derive(Debug)]
pub(super) struct Meter {
    heads: LargeHeads,
    state: Mutex<State>,
    /// Since when a head is under way.
    since: watch::Sender<Option<Instant>>,
}

#[derive(Debug)]
struct State {
    framing: Framing,
    place: Option<OwnedSemaphorePermit>,
}

impl Meter {
    pub(super) fn new(protocol: Protocol, heads: LargeHeads) -> Self {
        let framing = match protocol {
            Protocol::Http1 => Framing::Http1(Lines::default()),
            Protocol::Http2 => Framing::Http2(Frames::default()),
        };
        Self {
            heads,
            state: Mutex::new(State {
                framing,
                place: None,
            }),
            since: watch::Sender::new(None),
        }
    }

    /// Counts what came, as of a time.
    fn count(&self, bytes: &[u8], now: Instant) -> Result<(), TooManyLargeHeads> {
        let mut state = self.state.lock();
        let open = match &mut state.framing {
            Framing::Http1(lines) => lines.count(bytes),
            Framing::Http2(frames) => frames.count(bytes),
        };
        if open <= LARGE {
            state.place = None;
        } else if state.place.is_none() {
            state.place = Some(self.heads.enter()?);
        }
        drop(state);
        self.since.send_if_modified(|since| {
            let changed = since.is_some() != (open > 0);
            *since = (open > 0).then(|| since.unwrap_or(now));
            changed
        });
        Ok(())
    }

    /// Notes that a request has begun: its head has come.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        if let Framing::Http1(lines) = &mut state.framing {
            lines.open = 0;
            lines.running += 1;
            state.place = None;
            self.since.send_replace(None);
        }
    }

    /// Notes that the answer to a request has ended.
    pub(super) fn end(&self) {
        if let Framing::Http1(lines) = &mut self.state.lock().framing {
            lines.running -= 1;
        }
    }

    /// Notes that the connection was upgraded: no head comes any more.
    pub(super) fn upgrade(&self) {
        if let Framing::Http1(lines) = &mut self.state.lock().framing {
            // A request that never ends.
            lines.running += 1;
        }
    }

    /// Resolves when a head takes too long.
    pub(super) async fn is_stuck(&self) {
        let mut since = self.since.subscribe();
        loop {
            let began = since.wait_for(Option::is_some).await;
            let Some(began) = began.ok().and_then(|began| *began) else {
                return std::future::pending().await;
            };
            tokio::select! {
                _came = since.wait_for(|since| *since != Some(began)) => {}
                () = sleep_until(began + PATIENCE) => return,
            }
        }
    }
}

/// Where a head begins and ends.
#[derive(Debug)]
enum Framing {
    Http1(Lines),
    Http2(Frames),
}

/// A head of HTTP/1.1 is what comes while no request runs.
#[derive(Debug, Default)]
struct Lines {
    open: usize,
    running: usize,
}

impl Lines {
    fn count(&mut self, bytes: &[u8]) -> usize {
        if self.running == 0 {
            self.open += bytes.len();
        }
        self.open
    }
}

/// A head of HTTP/2 is a HEADERS frame and its CONTINUATIONs (RFC 9113, 4.1 and 6.10).
#[derive(Debug)]
struct Frames {
    /// Bytes of the client's preface that are still to come.
    preface: usize,
    header: [u8; 9],
    filled: usize,
    /// Bytes of the frame's payload that are still to come.
    payload: usize,
    open: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            preface: 24,
            header: [0; 9],
            filled: 0,
            payload: 0,
            open: 0,
        }
    }
}

impl Frames {
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            let step = if self.preface > 0 {
                let step = self.preface.min(bytes.len());
                self.preface -= step;
                step
            } else if self.filled < self.header.len() {
                let step = (self.header.len() - self.filled).min(bytes.len());
                self.header[self.filled..self.filled + step].copy_from_slice(&bytes[..step]);
                self.filled += step;
                if self.filled == self.header.len() {
                    self.payload = self.length();
                }
                step
            } else {
                let step = self.payload.min(bytes.len());
                self.payload -= step;
                if self.is_head() {
                    self.open += step;
                }
                step
            };
            if self.filled == self.header.len() && self.payload == 0 {
                self.end_frame();
            }
            bytes = &bytes[step..];
        }
        self.open
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.header;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn is_head(&self) -> bool {
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        matches!(self.header[3], HEADERS | CONTINUATION)
    }

    fn end_frame(&mut self) {
        const END_HEADERS: u8 = 4;
        if self.is_head() {
            let is_whole = self.header[4] & END_HEADERS != 0;
            // A frame without bytes opens one too.
            self.open = if is_whole { 0 } else { self.open.max(1) };
        }
        self.filled = 0;
    }
}

// === Metered ===

/// A stream whose bytes go by a meter, and which says whether it takes more.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
    valve: Arc<Valve>,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, meter: Arc<Meter>, valve: Arc<Valve>) -> Self {
        Self {
            stream,
            meter,
            valve,
        }
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.valve.set(written.is_pending());
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let counted = self.meter.count(&buffer.filled()[before..], Instant::now());
        Poll::Ready(counted.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(vec![7; length]);
        frame
    }

    proptest::proptest! {
        #[test]
        fn a_head_of_http2_is_open_until_its_last_frame_in_whatever_pieces_it_comes(
            frames in proptest::collection::vec((0u8..10, 0u8..8, 0usize..300), 0..20),
            piece in 1usize..64,
        ) {
            let mut bytes = vec![0; 24];
            let mut open = 0;
            for (kind, flags, length) in &frames {
                bytes.extend(frame(*kind, *flags, *length));
                if matches!(kind, 1 | 9) {
                    open = if flags & 4 == 0 { (open + length).max(1) } else { 0 };
                }
            }
            let mut whole = Frames::default();
            let mut pieces = Frames::default();
            let last = bytes.chunks(piece).map(|piece| pieces.count(piece)).last();
            proptest::prop_assert_eq!(whole.count(&bytes), open);
            proptest::prop_assert_eq!(last, Some(open));
        }

        #[test]
        fn bytes_of_any_kind_are_counted(bytes: Vec<u8>) {
            let _open = Frames::default().count(&bytes);
        }
    }

    #[test]
    fn large_heads_have_a_number_of_places_and_give_them_back() {
        let heads = LargeHeads::new();
        let meters: Vec<_> = (0..=LARGE_HEADS)
            .map(|_| Meter::new(Protocol::Http1, heads.clone()))
            .collect();
        let (last, first) = meters.split_last().unwrap();
        let now = Instant::now();
        for meter in first {
            meter.count(&vec![b'x'; LARGE + 1], now).unwrap();
        }
        last.count(&vec![b'x'; LARGE], now).unwrap();
        last.count(b"x", now).unwrap_err();
        first[0].begin();
        last.count(b"x", now).unwrap();
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/short");
        assert!(heads.admit(&uri, &headers).unwrap().is_none());
        headers.insert("x", "y".repeat(LARGE).parse().unwrap());
        heads.admit(&uri, &headers).unwrap_err();
        first[1].begin();
        assert!(heads.admit(&uri, &headers).unwrap().is_some());
    }

    /// When a head that began after a while is given up.
    async fn stuck(meter: &Meter) -> Option<Duration> {
        let began = Instant::now();
        let day = Duration::from_secs(86_400);
        let stuck = tokio::time::timeout(day, meter.is_stuck()).await;
        stuck.ok().map(|()| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_and_an_idle_connection_all_of_it() {
        let meter = Meter::new(Protocol::Http1, LargeHeads::new());
        assert_eq!(stuck(&meter).await, None);
        meter.count(b"GET / HT", Instant::now()).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        meter.count(b"TP/1.1\r\n", Instant::now()).unwrap();
        let left = stuck(&meter).await.unwrap();
        assert!(left <= PATIENCE - Duration::from_secs(2), "{left:?}");
        meter.begin();
        meter.count(b"a body", Instant::now()).unwrap();
        assert_eq!(stuck(&meter).await, None);
        meter.end();
        assert_eq!(stuck(&meter).await, None);
    }

    #[test]
    fn what_goes_over_an_upgraded_connection_is_no_head() {
        let heads = LargeHeads::new();
        let meter = Meter::new(Protocol::Http1, heads.clone());
        let now = Instant::now();
        meter.count(b"GET / HTTP/1.1\r\n\r\n", now).unwrap();
        meter.begin();
        meter.upgrade();
        meter.end();
        meter.count(&vec![b'x'; 2 * LARGE], now).unwrap();
        assert_eq!(heads.0.available_permits(), LARGE_HEADS);
        assert!(meter.since.borrow().is_none());
    }
}
