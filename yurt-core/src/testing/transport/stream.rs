//! Clauses 7 to 14, 21 and 22: what becomes of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::task::JoinSet;

use super::ends::{
    Pattern, ends_cleanly, eventually, exchange, exchange_pieces, finish, mixed, read_failure,
    receive, reset_of, send, to, within, write_failure,
};
use super::{Pair, UNREAD};
use crate::transport::{ErrorKind, Priority, Stream};

/// More than an unread stream may take.
const TOO_MUCH: usize = 8 << 20;

/// 7. Bytes arrive as they were written, in both directions at once, whatever the size of the pieces.
pub async fn bytes_arrive_as_they_were_written(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let tiny = vec![1; 1_000];
    let big = vec![16 << 20];
    // Of every order of magnitude, and none at all.
    let any = |number| {
        let len = mixed(7, number) >> (46 + mixed(8, number) % 18);
        usize::try_from(len).expect("18 bits")
    };
    let any: Vec<_> = (0..200).map(any).collect();
    let [mut one, mut two] = [pair.stream(to("tiny")).await, pair.stream(to("any")).await];
    let mut three = pair.stream(to("big")).await;
    let [[a, b], [c, d], [e, f]] = [&mut one, &mut two, &mut three];
    tokio::join!(
        exchange_pieces(a, b, &tiny),
        exchange_pieces(c, d, &any),
        exchange_pieces(e, f, &big),
    );
    for [ours, theirs] in [one, two, three] {
        finish(ours, theirs).await;
    }
    let len = [tiny, any, big].concat().iter().sum::<usize>() as u64;
    for stats in [pair.opener.stats(), pair.acceptor.stats()] {
        assert_eq!((stats.sent, stats.received), (len, len), "what was counted");
    }
}

/// 8. A shutdown ends one direction after its last byte, and the other goes on.
pub async fn a_shutdown_ends_one_direction(pair: impl AsyncFn() -> Pair) {
    const LEN: usize = 1 << 20;
    let pair = pair().await;
    for is_ours_first in [true, false] {
        let [ours, theirs] = pair.stream(to("half-closed")).await;
        let (mut first, mut second) = if is_ours_first {
            (ours, theirs)
        } else {
            (theirs, ours)
        };
        let upload = async {
            send(&mut first, 1, &[LEN]).await;
            first.shutdown().await.expect("a direction is ended");
        };
        let all = async { tokio::join!(upload, receive(&mut second, 1, LEN)) };
        within("everything before the end arrives", all).await;
        ends_cleanly(&mut second).await;
        // Only now does the other speak.
        let all = async { tokio::join!(send(&mut second, 2, &[LEN]), receive(&mut first, 2, LEN)) };
        within("the other direction goes on", all).await;
        second.shutdown().await.expect("a direction is ended");
        ends_cleanly(&mut first).await;
    }
    let [ours, theirs] = pair.stream(to("nothing-sent")).await;
    finish(ours, theirs).await;
    pair.has_no_streams().await;
}

/// 9. A flush sends what was written without waiting for more.
pub async fn a_flush_sends_what_was_written(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let [mut ours, mut theirs] = pair.stream(to("flushed")).await;
    let rounds = async {
        for round in 0..100 {
            ours.write_all(&[round]).await.expect("a byte is written");
            ours.flush().await.expect("a byte is sent");
            assert_eq!(theirs.read_u8().await.expect("a byte arrives"), round);
            theirs
                .write_all(&[round, round])
                .await
                .expect("bytes are written");
            theirs.flush().await.expect("bytes are sent");
            assert_eq!(ours.read_u8().await.expect("a byte arrives"), round);
            assert_eq!(ours.read_u8().await.expect("a byte arrives"), round);
        }
    };
    within("each byte arrives by itself", rounds).await;
    finish(ours, theirs).await;
}

/// 10. A reset fails the peer's reads and writes with its code, and touches no other stream.
pub async fn a_reset_fails_the_peer_with_its_code(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let [mut ours, mut theirs] = pair.stream(to("untouched")).await;
    for (code, is_ours) in [(0, true), (7, false), (u16::MAX, true), (u16::MAX, false)] {
        let [one, two] = pair.stream(to("reset")).await;
        let (mut by, mut of) = if is_ours { (one, two) } else { (two, one) };
        send(&mut by, 1, &[50_000]).await;
        by.reset(code);
        assert_eq!(
            read_right_bytes_and_fail(&mut of).await,
            ErrorKind::Reset(code)
        );
        assert_eq!(write_failure(&mut of).await, ErrorKind::Reset(code));
        drop(by);
        exchange(&mut ours, &mut theirs, 100_000).await;
    }
    for is_ours in [true, false] {
        let [one, two] = pair.stream(to("reset-while-writing")).await;
        let (mut by, mut of) = if is_ours { (one, two) } else { (two, one) };
        // Whoever waits for room is told as well.
        let write = async {
            let written = of.write_all(&vec![0; TOO_MUCH]).await;
            written.expect_err("nobody reads it");
            write_failure(&mut of).await
        };
        let reset = async {
            within("bytes arrive", by.read_u8())
                .await
                .expect("bytes arrive");
            by.reset(9);
        };
        let both = async { tokio::join!(write, reset).0 };
        assert_eq!(within("a writer fails", both).await, ErrorKind::Reset(9));
        exchange(&mut ours, &mut theirs, 100_000).await;
    }
    finish(ours, theirs).await;
    pair.has_no_streams().await;
}

/// What arrived before a reset is what was written.
async fn read_right_bytes_and_fail(stream: &mut Box<dyn Stream>) -> ErrorKind {
    let mut pattern = Pattern::new(1);
    let mut buffer = vec![0; 4096];
    loop {
        let read = within("a read returns", stream.read(&mut buffer)).await;
        match read {
            Ok(0) => panic!("it ended cleanly"),
            Ok(read) => assert!(buffer[..read] == pattern.next(read)[..], "wrong bytes"),
            Err(_) => return read_failure(stream).await,
        }
    }
}

/// 11. A stream dropped before both directions ended is reset, never ended cleanly.
pub async fn a_dropped_stream_is_reset(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let is_reset = |kind| assert!(matches!(kind, ErrorKind::Reset(_)), "{kind:?}");
    for is_ours in [true, false] {
        let ends = || async {
            let [one, two] = pair.stream(to("dropped")).await;
            if is_ours { (one, two) } else { (two, one) }
        };
        // Untouched.
        let (dropped, mut left) = ends().await;
        drop(dropped);
        is_reset(read_failure(&mut left).await);
        is_reset(write_failure(&mut left).await);
        // With bytes on their way.
        let (mut dropped, mut left) = ends().await;
        send(&mut dropped, 1, &[50_000]).await;
        drop(dropped);
        is_reset(read_right_bytes_and_fail(&mut left).await);
        // The peer has ended its direction, its own stands.
        let (mut dropped, mut left) = ends().await;
        left.shutdown().await.expect("a direction is ended");
        ends_cleanly(&mut dropped).await;
        drop(dropped);
        is_reset(read_failure(&mut left).await);
        // It has ended its direction, the peer's stands.
        let (mut dropped, mut left) = ends().await;
        dropped.shutdown().await.expect("a direction is ended");
        ends_cleanly(&mut left).await;
        drop(dropped);
        is_reset(write_failure(&mut left).await);
        // Both have ended theirs: what was written is there to be read.
        let (mut dropped, mut left) = ends().await;
        left.shutdown().await.expect("a direction is ended");
        send(&mut dropped, 1, &[50_000]).await;
        dropped.shutdown().await.expect("a direction is ended");
        ends_cleanly(&mut dropped).await;
        drop(dropped);
        within("bytes arrive", receive(&mut left, 1, 50_000)).await;
        ends_cleanly(&mut left).await;
    }
    pair.has_no_streams().await;
}

/// 12. A stream that nobody reads stops its writer after a bounded number of bytes and holds up no other.
pub async fn an_unread_stream_holds_up_no_other(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let [mut ours, mut theirs] = pair.stream(to("beside")).await;
    for (count, is_ours) in [(1, true), (1, false), (UNREAD, true), (UNREAD, false)] {
        let (mut writers, mut unread) = (JoinSet::new(), Vec::new());
        let before = stalls(&pair, is_ours);
        let most = Arc::new(AtomicUsize::new(0));
        for _ in 0..count {
            let [one, two] = pair.stream(to("unread")).await;
            let (writer, reader) = if is_ours { (one, two) } else { (two, one) };
            unread.push(reader);
            writers.spawn(write_too_much(writer, Arc::clone(&most)));
        }
        let all_stall = || stalls(&pair, is_ours) >= before + count as u64;
        eventually("writers wait for a reader", all_stall).await;
        exchange(&mut ours, &mut theirs, 1 << 20).await;
        pair.goes_on().await;
        let most = most.load(Ordering::Relaxed);
        assert!(most < TOO_MUCH, "an unread stream took {most} bytes");
        writers.shutdown().await;
        drop(unread);
    }
    finish(ours, theirs).await;
    pair.has_no_streams().await;
}

fn stalls(pair: &Pair, is_ours: bool) -> u64 {
    if is_ours {
        pair.opener.stats().stalls
    } else {
        pair.acceptor.stats().stalls
    }
}

async fn write_too_much(mut writer: Box<dyn Stream>, most: Arc<AtomicUsize>) {
    let piece = [0; 16 << 10];
    let mut written = 0;
    while written < TOO_MUCH {
        written += writer.write(&piece).await.expect("it is open");
        most.fetch_max(written, Ordering::Relaxed);
    }
}

/// 13. A stream that was not read for long delivers every byte when it is.
pub async fn a_stream_read_late_delivers_every_byte(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    for is_ours in [true, false] {
        let [one, two] = pair.stream(to("read-late")).await;
        let (mut writer, mut reader) = if is_ours { (one, two) } else { (two, one) };
        let before = stalls(&pair, is_ours);
        let write = async {
            send(&mut writer, 1, &[100_000; 2 * TOO_MUCH / 100_000]).await;
            writer.shutdown().await.expect("a direction is ended");
        };
        let read = async {
            eventually("the writer waits", || stalls(&pair, is_ours) > before).await;
            pair.goes_on().await;
            receive(&mut reader, 1, 2 * TOO_MUCH / 100_000 * 100_000).await;
            ends_cleanly(&mut reader).await;
        };
        within("every byte arrives", async { tokio::join!(write, read) }).await;
        reader.shutdown().await.expect("a direction is ended");
        ends_cleanly(&mut writer).await;
    }
    pair.has_no_streams().await;
}

/// 14. A change of priority changes no byte.
pub async fn a_change_of_priority_changes_no_byte(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let [mut changed, mut reader] = pair.stream(to("changed")).await;
    let [mut ours, mut theirs] = pair.stream(to("beside")).await;
    let write = async {
        let mut pattern = Pattern::new(1);
        for round in 0..100 {
            let priority = [Priority::Bulk, Priority::Interactive][round % 2];
            changed.set_priority(priority);
            let written = changed.write_all(&pattern.next(10_007)).await;
            written.expect("bytes are written");
        }
        changed.shutdown().await.expect("a direction is ended");
    };
    let read = async {
        reader.set_priority(Priority::Bulk);
        receive(&mut reader, 1, 100 * 10_007).await;
        ends_cleanly(&mut reader).await;
    };
    let all = async { tokio::join!(write, read, exchange(&mut ours, &mut theirs, 1 << 20)) };
    within("every byte arrives", all).await;
    finish(ours, theirs).await;
}

/// When an end speaks, and when it listens.
#[derive(Clone, Copy, Debug)]
enum Turn {
    First,
    Second,
    AtOnce,
}

/// 21. What was written before both directions ended arrives, though its writer has dropped the stream.
pub async fn what_was_written_arrives_though_its_writer_is_gone(pair: impl AsyncFn() -> Pair) {
    const SIZES: [usize; 3] = [0, 100_000, 3 << 20];
    for turns in [
        [Turn::First, Turn::Second],
        [Turn::Second, Turn::First],
        [Turn::AtOnce, Turn::AtOnce],
    ] {
        for up in SIZES {
            // Anew, as what the session has carried before may matter.
            let pair = pair().await;
            for down in SIZES {
                let [ours, theirs] = pair.stream(to("gone")).await;
                let both = async {
                    tokio::join!(
                        converse(ours, turns[0], (1, up), (2, down)),
                        converse(theirs, turns[1], (2, down), (1, up)),
                    )
                };
                within(&format!("{up} and {down} arrive, {turns:?}"), both).await;
            }
            pair.has_no_streams().await;
        }
    }
}

/// Sends so many bytes of one seed, receives those of the other, and drops the stream at once.
async fn converse(
    stream: Box<dyn Stream>,
    turn: Turn,
    (said, say): (u64, usize),
    (heard, hear): (u64, usize),
) {
    let (mut reader, mut writer) = split(stream);
    let speak = async {
        send(&mut writer, said, &[say]).await;
        writer.shutdown().await.expect("a direction is ended");
    };
    let listen = async {
        receive(&mut reader, heard, hear).await;
        let end = reader.read(&mut [0; 1]).await;
        assert_eq!(end.expect("it ends cleanly"), 0, "bytes behind the last");
    };
    match turn {
        Turn::First => {
            speak.await;
            listen.await;
        }
        Turn::Second => {
            listen.await;
            speak.await;
        }
        Turn::AtOnce => drop(tokio::join!(speak, listen)),
    }
}

/// Who ends the stream that somebody waits for.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Reset,
    Drop,
    Close,
}

/// 22. A reset is told to an end that only waits, whatever it has not read or sent; the end of the session is, as long
///     as the end has more to send.
pub async fn a_reset_is_told_to_an_end_that_only_waits(pair: impl AsyncFn() -> Pair) {
    let standing = pair().await;
    for ending in [Ending::Reset, Ending::Drop, Ending::Close] {
        for bits in 0..32 {
            let is = |bit: u8| bits & 1 << bit != 0;
            let ([is_ours, has_ended, peer_has_ended], [is_unread, is_stalled]) =
                ([is(0), is(1), is(2)], [is(3), is(4)]);
            if has_ended && (peer_has_ended || is_stalled || matches!(ending, Ending::Close)) {
                continue; // an end like any other
            }
            let own = match ending {
                Ending::Close => Some(pair().await),
                Ending::Reset | Ending::Drop => None,
            };
            let pair = own.as_ref().unwrap_or(&standing);
            let [one, two] = pair.stream(to("waits")).await;
            let (mut by, mut of) = if is_ours { (one, two) } else { (two, one) };
            if is_unread {
                send(&mut by, 1, &[50_000]).await;
            }
            if peer_has_ended {
                by.shutdown().await.expect("a direction is ended");
            }
            if peer_has_ended && !is_unread {
                ends_cleanly(&mut of).await;
            }
            if has_ended {
                of.shutdown().await.expect("a direction is ended");
                ends_cleanly(&mut by).await;
            }
            if is_stalled {
                let (before, much) = (stalls(pair, !is_ours), vec![0; 2 * TOO_MUCH]);
                tokio::select! {
                    _ = of.write_all(&much) => panic!("nobody reads it"),
                    () = eventually("a writer waits", || stalls(pair, !is_ours) > before) => {}
                }
            }
            let end = async {
                match ending {
                    Ending::Reset => by.reset(7),
                    Ending::Drop => drop(by),
                    Ending::Close => {
                        pair.opener.close("the end").await;
                        drop(by);
                    }
                }
            };
            let case = format!("{ending:?} is told, case {bits:05b}");
            let told = async { tokio::join!(reset_of(&mut of), end).0 };
            let kind = within(&case, told).await;
            match ending {
                Ending::Reset => assert_eq!(kind, ErrorKind::Reset(7), "{case}"),
                Ending::Drop => assert!(matches!(kind, ErrorKind::Reset(_)), "{case}: {kind:?}"),
                Ending::Close => assert_eq!(kind, ErrorKind::Closed, "{case}"),
            }
        }
    }
    // A clean end is none.
    let [mut ours, mut theirs] = standing.stream(to("clean")).await;
    for stream in [&mut ours, &mut theirs] {
        stream.shutdown().await.expect("a direction is ended");
    }
    ends_cleanly(&mut theirs).await;
    drop(theirs);
    standing.goes_on().await;
    let is_told = std::future::poll_fn(|cx| Poll::Ready(ours.poll_reset(cx).is_ready()));
    assert!(!is_told.await, "its end is unread, and a clean one");
    ends_cleanly(&mut ours).await;
    drop(ours);
    standing.has_no_streams().await;
}
