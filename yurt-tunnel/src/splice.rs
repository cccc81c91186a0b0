//! Two connections joined until both directions have ended.
//!
//! Bytes pass through a buffer of the thread, so that a pair that is silent holds none: what is kept is only what
//! one side has sent and the other could not take yet.

#[cfg(test)]
mod aborts;
mod socket;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use yurt_core::transport::Stream;

pub(crate) use self::socket::HangUp;
pub use self::socket::Socket;

/// What is read at once: what a direction holds at most for a side that takes nothing.
const PIECE: usize = 32 << 10;

/// How many pieces pass before other tasks have their turn.
const TURNS: usize = 16;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// One of two connections to be joined.
pub trait End: AsyncRead + AsyncWrite + Unpin {
    /// Resolves to why the connection is gone before its end. It is polled while nothing is read from it, so that no
    /// read would tell: the other connection takes no more, or the direction has ended.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;
}

impl End for Box<dyn Stream> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_reset(cx)
    }
}

/// Carries bytes both ways until both directions have ended, each on its own.
///
/// # Errors
/// The first error of either connection, also of one that is not read because the other is stalled. Resetting both is
/// up to the caller.
///
/// # Cancel safety
/// Dropped, bytes that were read and not written are lost.
pub async fn both<A, B>(a: &mut A, b: &mut B) -> io::Result<()>
where
    A: End,
    B: End,
{
    let (mut there, mut back) = (Direction::default(), Direction::default());
    poll_fn(|cx| {
        let ended = (there.poll(cx, a, b)?, back.poll(cx, b, a)?);
        if ended == (Poll::Ready(()), Poll::Ready(())) {
            return Poll::Ready(Ok(()));
        }
        if there.is_deaf()
            && let Poll::Ready(why) = a.poll_gone(cx)
        {
            return Poll::Ready(Err(why));
        }
        if back.is_deaf()
            && let Poll::Ready(why) = b.poll_gone(cx)
        {
            return Poll::Ready(Err(why));
        }
        Poll::Pending
    })
    .await
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// What was read and not written, and how much of it is written by now.
    left: Vec<u8>,
    written: usize,
    is_unflushed: bool,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Ended,
    Shut,
}

impl Direction {
    /// Whether its source is not read, and so cannot tell that it is gone.
    fn is_deaf(&self) -> bool {
        self.state != State::Open || self.written < self.left.len()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<Poll<()>> {
        for _ in 0..TURNS {
            match self.step(cx, from, to) {
                Poll::Ready(Ok(State::Shut)) => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(State::Open | State::Ended)) => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<State>> {
        while self.written < self.left.len() {
            let left = &self.left[self.written..];
            self.written += wrote(ready!(Pin::new(&mut *to).poll_write(cx, left))?)?;
        }
        (self.left, self.written) = (Vec::new(), 0);
        match self.state {
            State::Open => {}
            State::Ended => {
                ready!(Pin::new(to).poll_shutdown(cx))?;
                self.state = State::Shut;
                return Poll::Ready(Ok(State::Shut));
            }
            State::Shut => return Poll::Ready(Ok(State::Shut)),
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut piece = ReadBuf::new(buffer);
            if Pin::new(from).poll_read(cx, &mut piece)?.is_pending() {
                if self.is_unflushed {
                    self.is_unflushed = Pin::new(to).poll_flush(cx)?.is_pending();
                }
                return Poll::Pending;
            }
            self.pass(cx, piece.filled(), to)
        })
    }

    /// Writes what was read, and keeps what cannot be written.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        piece: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<State>> {
        if piece.is_empty() {
            self.state = State::Ended;
            return Poll::Ready(Ok(State::Ended));
        }
        self.is_unflushed = true;
        let mut written = 0;
        while written < piece.len() {
            match Pin::new(&mut *to).poll_write(cx, &piece[written..]) {
                Poll::Ready(count) => written += wrote(count?)?,
                Poll::Pending => {
                    self.left = piece[written..].to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(State::Open))
    }
}

fn wrote(count: usize) -> io::Result<usize> {
    match count {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};

    use super::*;

    /// These tell of their end by what is read and written.
    macro_rules! mute_ends {
        ($($end:ty),*) => {
            $(impl End for $end {
                fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<io::Error> {
                    Poll::Pending
                }
            })*
        };
    }
    mute_ends!(DuplexStream, BufWriter<DuplexStream>, Broken);

    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; count];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    /// Sends and ends while it reads to the end.
    async fn talk(mut end: DuplexStream, said: Vec<u8>) -> Vec<u8> {
        let mut heard = Vec::new();
        let (mut read, mut write) = tokio::io::split(&mut end);
        let say = async {
            write.write_all(&said).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (_, heard_all) = tokio::join!(say, read.read_to_end(&mut heard));
        heard_all.unwrap();
        heard
    }

    #[tokio::test]
    async fn every_byte_passes_both_ways_through_narrow_pipes() {
        for (seed, width) in [(1, 1), (2, 7), (3, 4096), (4, 1 << 20)] {
            let (client, mut a) = duplex(width);
            let (target, mut b) = duplex(width);
            let count = if width == 1 { 2_000 } else { 700_000 };
            let (up, down) = (bytes(count, seed), bytes(count / 3, seed + 9));
            let joined = both(&mut a, &mut b);
            let (joined, at_client, at_target) =
                tokio::join!(joined, talk(client, up.clone()), talk(target, down.clone()));
            joined.unwrap();
            assert!(at_target == up && at_client == down, "pipes of {width}");
        }
    }

    #[tokio::test]
    async fn a_direction_that_ended_leaves_the_other_open() {
        let (mut client, mut a) = duplex(64);
        let (mut target, mut b) = duplex(64);
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = String::new();
            target.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "question");
            target.write_all(b"answer").await.unwrap();
            target.shutdown().await.unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "answer");
        };
        let (joined, ()) = tokio::join!(both(&mut a, &mut b), talk);
        joined.unwrap();
    }

    #[tokio::test]
    async fn what_was_written_is_flushed_before_the_next_piece_comes() {
        let (mut client, mut a) = duplex(64);
        let (target, b) = duplex(64);
        let mut b = BufWriter::new(b);
        let mut target = tokio::io::BufReader::new(target);
        let talk = async {
            client.write_all(b"one").await.unwrap();
            let mut heard = [0; 3];
            target.read_exact(&mut heard).await.unwrap();
        };
        tokio::select! {
            _ = both(&mut a, &mut b) => panic!("nothing has ended"),
            () = talk => {}
        }
    }

    #[tokio::test]
    async fn a_side_that_takes_nothing_has_little_held_for_it() {
        let (mut client, mut a) = duplex(1 << 20);
        let (_target, mut b) = duplex(1);
        client.write_all(&bytes(1 << 20, 5)).await.unwrap();
        let room = poll_fn(|cx| Poll::Ready(Pin::new(&mut client).poll_write(cx, b"x").is_ready()));
        assert!(!room.await, "the pipe is full");
        let joined = poll_fn(|cx| {
            let mut joined = std::pin::pin!(both(&mut a, &mut b));
            for _ in 0..100 {
                assert!(joined.as_mut().poll(cx).is_pending());
            }
            Poll::Ready(())
        });
        joined.await;
        let taken = poll_fn(|cx| Pin::new(&mut client).poll_write(cx, &[0; 1 << 20])).await;
        assert!(taken.unwrap() <= 32 << 10);
    }

    #[tokio::test]
    async fn the_failure_of_one_side_is_told() {
        let (_client, mut a) = duplex(64);
        assert!(both(&mut a, &mut Broken).await.is_err());
    }

    /// A connection whose reads fail.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
