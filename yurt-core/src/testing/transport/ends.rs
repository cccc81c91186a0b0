//! What the clauses are made of: waits with a bound, connected streams, and bytes that cannot be mistaken.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{sleep, timeout};

use super::Pair;
use crate::transport::{Error, ErrorKind, Incoming, Open, Result, Stream, Target};

/// Far longer than any wait takes on a busy machine; so a clause fails by its name instead of hanging.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A deadline that is meant to pass.
pub(super) const SHORT: Duration = Duration::from_millis(200);

/// Returns what `future` does; panics when it takes too long.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Returns when `is_so` holds; panics when that takes too long.
pub(super) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let becomes_so = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, becomes_so).await;
}

// === Streams ===

pub(super) fn to(host: &str) -> Open {
    let target = Target::dial(host, 10250).expect("a host that may be named");
    Open::new(target, PATIENCE)
}

impl Pair {
    pub(super) async fn open(&self, open: Open) -> Result<Box<dyn Stream>> {
        within("an open returns", self.opener.open(open)).await
    }

    pub(super) async fn accept(&self) -> Box<dyn Incoming> {
        let incoming = within("an open arrives", self.acceptor.accept()).await;
        incoming.expect("the session lives")
    }

    /// Returns an open that the peer has taken and not answered.
    pub(super) async fn taken(
        &self,
        open: Open,
    ) -> (
        impl Future<Output = Result<Box<dyn Stream>>> + Unpin,
        Box<dyn Incoming>,
    ) {
        let mut open = self.opener.open(open);
        let incoming = tokio::select! {
            answer = &mut open => panic!("nobody has answered, and the open returned {answer:?}"),
            incoming = self.accept() => incoming,
        };
        (open, incoming)
    }

    /// Returns the opener's and the acceptor's end of a stream; what else waits to be accepted is rejected.
    pub(super) async fn stream(&self, open: Open) -> [Box<dyn Stream>; 2] {
        let target = open.target.clone();
        let accepted = async {
            loop {
                let incoming = self.accept().await;
                if incoming.request().target == target {
                    break within("an accept returns", incoming.accept()).await;
                }
            }
        };
        let (opened, accepted) = tokio::join!(self.open(open), accepted);
        [
            opened.expect("the peer accepts"),
            accepted.expect("the opener waits"),
        ]
    }

    /// Shows that the session takes a new stream, and that bytes go through it.
    pub(super) async fn goes_on(&self) {
        let [mut ours, mut theirs] = self.stream(to("goes-on")).await;
        exchange(&mut ours, &mut theirs, 100_000).await;
        finish(ours, theirs).await;
    }

    pub(super) async fn has_no_streams(&self) {
        let count = || (self.opener.stats().streams, self.acceptor.stats().streams);
        let seen = timeout(PATIENCE, async {
            while count() != (0, 0) {
                sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(
            seen.await.is_ok(),
            "streams are left at the ends: {:?}",
            count()
        );
    }
}

/// Ends both directions cleanly.
pub(super) async fn finish(mut ours: Box<dyn Stream>, mut theirs: Box<dyn Stream>) {
    ours.shutdown().await.expect("our direction is ended");
    theirs.shutdown().await.expect("their direction is ended");
    ends_cleanly(&mut theirs).await;
    ends_cleanly(&mut ours).await;
}

pub(super) async fn ends_cleanly(stream: &mut Box<dyn Stream>) {
    let end = within("a stream ends", stream.read(&mut [0; 1])).await;
    assert_eq!(end.expect("it ends cleanly"), 0, "bytes behind the last");
}

/// Returns the reason for which reads fail, after whatever bytes come first.
pub(super) async fn read_failure(stream: &mut Box<dyn Stream>) -> ErrorKind {
    let read = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => panic!("it ended cleanly instead of failing"),
                Ok(_) => {}
                Err(error) => break kind(&error),
            }
        }
    };
    within("a read fails", read).await
}

/// Returns the reason for which writes fail, at once or soon.
pub(super) async fn write_failure(stream: &mut Box<dyn Stream>) -> ErrorKind {
    let write = async {
        loop {
            if let Err(error) = stream.write_all(b"is anybody there?").await {
                break kind(&error);
            }
            if let Err(error) = stream.flush().await {
                break kind(&error);
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    within("a write fails", write).await
}

/// Returns the reason for which a stream is over that is neither read nor written.
pub(super) async fn reset_of(stream: &mut Box<dyn Stream>) -> ErrorKind {
    kind(&poll_fn(|cx| stream.poll_reset(cx)).await)
}

fn kind(error: &io::Error) -> ErrorKind {
    Error::of(error)
        .unwrap_or_else(|| panic!("not a transport's error: {error:?}"))
        .kind()
}

// === Bytes ===

/// Sends `len` bytes each way at once.
pub(super) async fn exchange(ours: &mut Box<dyn Stream>, theirs: &mut Box<dyn Stream>, len: usize) {
    let pieces = || std::iter::repeat_n(16 << 10, len / (16 << 10)).chain([len % (16 << 10)]);
    exchange_pieces(ours, theirs, &pieces().collect::<Vec<_>>()).await;
}

/// Writes pieces of these lengths each way at once, and reads them.
pub(super) async fn exchange_pieces(
    ours: &mut Box<dyn Stream>,
    theirs: &mut Box<dyn Stream>,
    pieces: &[usize],
) {
    let len = pieces.iter().sum();
    let (mut our_reader, mut our_writer) = split(ours);
    let (mut their_reader, mut their_writer) = split(theirs);
    let all = async {
        tokio::join!(
            send(&mut our_writer, 1, pieces),
            send(&mut their_writer, 2, pieces),
            receive(&mut our_reader, 2, len),
            receive(&mut their_reader, 1, len),
        )
    };
    within("bytes arrive both ways", all).await;
}

/// Writes pieces of these lengths, whose bytes the seed tells.
pub(super) async fn send(writer: &mut (impl AsyncWrite + Unpin), seed: u64, pieces: &[usize]) {
    let mut pattern = Pattern::new(seed);
    for len in pieces {
        let piece = pattern.next(*len);
        writer.write_all(&piece).await.expect("bytes are written");
    }
    writer.flush().await.expect("bytes are sent");
}

/// Reads so many bytes and compares them with what the seed tells.
pub(super) async fn receive(reader: &mut (impl AsyncRead + Unpin), seed: u64, len: usize) {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; 64 << 10];
    let mut seen = 0;
    while seen < len {
        let room = buffer.len().min(len - seen);
        let read = reader.read(&mut buffer[..room]).await;
        let read = read.expect("bytes arrive");
        assert_ne!(read, 0, "it ended after {seen} of {len} bytes");
        let is_right = buffer[..read] == pattern.next(read)[..];
        assert!(is_right, "wrong bytes between {seen} and {}", seen + read);
        seen += read;
    }
}

/// A sequence of bytes in which no part repeats another.
pub(super) struct Pattern {
    seed: u64,
    at: usize,
}

impl Pattern {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }

    pub(super) fn next(&mut self, len: usize) -> Vec<u8> {
        let (word, skip) = (self.at / 8, self.at % 8);
        let words = word..word + (skip + len).div_ceil(8);
        let bytes = words.flat_map(|word| mixed(self.seed, word as u64).to_le_bytes());
        self.at += len;
        bytes.skip(skip).take(len).collect()
    }
}

/// Returns a number that depends on every bit of both (Steele, Lea, Flood, "Fast splittable pseudorandom
/// number generators", 2014).
pub(super) fn mixed(seed: u64, number: u64) -> u64 {
    let mut z = (seed << 40 ^ number)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
