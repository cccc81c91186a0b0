//! Clauses 1 to 6 and 23: how streams come to be.

use std::error::Error as _;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Pair;
use super::ends::{PATIENCE, SHORT, finish, read_failure, receive, send, to, within};
use crate::transport::{
    Error, ErrorKind, MAX_HOST_LEN, MAX_MESSAGE_LEN, Open, Priority, State, Target,
};

/// 1. An open arrives at the peer as it was requested, and is a stream for both when the peer accepts it.
pub async fn an_open_arrives_as_it_was_requested(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let longest = "h".repeat(MAX_HOST_LEN);
    let hosts = [
        "a",
        "gateway-7.shop.example",
        "2001:db8::7",
        "gerät-7",
        &longest,
    ];
    let dial = |node: Option<&str>, host: &str, port| Target::Dial {
        node: node.map(|name| name.parse().expect("it is a node's name")),
        host: host.to_owned(),
        port,
    };
    let mut targets = vec![Target::Echo, Target::Servers];
    targets.extend(hosts.map(|host| dial(None, host, 10250)));
    targets.extend([0, 1, u16::MAX].map(|port| dial(Some("gateway-7"), "192.0.2.7", port)));
    targets.push(dial(Some(&"n".repeat(63)), &longest, u16::MAX));
    for (number, target) in targets.into_iter().enumerate() {
        let mut open = Open::new(target, PATIENCE);
        open.priority = [Priority::Interactive, Priority::Bulk][number % 2];
        arrives(&pair, open).await;
    }
}

async fn arrives(pair: &Pair, open: Open) {
    let asked = open.clone();
    let accepted = async {
        // An accept that is dropped loses no stream.
        let accept = async {
            loop {
                let accept = timeout(Duration::from_millis(1), pair.acceptor.accept());
                if let Ok(incoming) = accept.await {
                    break incoming.expect("the session lives");
                }
            }
        };
        let incoming = within("an open arrives", accept).await;
        let seen = incoming.request().clone();
        assert_eq!(
            (&seen.target, seen.priority),
            (&asked.target, asked.priority)
        );
        let left = seen.deadline;
        assert!(
            !left.is_zero() && left <= asked.deadline,
            "{left:?} are left"
        );
        incoming.accept().await.expect("the opener waits")
    };
    let (ours, mut theirs) = tokio::join!(pair.open(open), accepted);
    let mut ours = ours.expect("the peer accepts");
    assert_eq!(ours.id(), theirs.id(), "both ends know it by one number");
    // The end that accepted may speak first.
    send(&mut theirs, 2, &[100]).await;
    within("the peer's first bytes arrive", receive(&mut ours, 2, 100)).await;
    send(&mut ours, 1, &[100]).await;
    within("the opener's bytes arrive", receive(&mut theirs, 1, 100)).await;
    finish(ours, theirs).await;
}

/// 2. A rejected open fails with the kind and the message of the rejection.
pub async fn a_rejected_open_fails_with_the_kind_and_the_message(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    for kind in [
        ErrorKind::NoPeer,
        ErrorKind::Refused,
        ErrorKind::Unreachable,
        ErrorKind::Timeout,
        ErrorKind::Forbidden,
        ErrorKind::Overloaded,
        ErrorKind::Draining,
        ErrorKind::Other,
    ] {
        for message in [
            "dial 192.0.2.7:10250",
            "",
            "»kein Gerät« 拒否 \u{1f6ab}\0\n",
        ] {
            let error = rejected(&pair, Error::new(kind, message)).await;
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
        }
    }
    let long = format!("x{}", "é".repeat(MAX_MESSAGE_LEN));
    let cut = rejected(&pair, Error::new(ErrorKind::Refused, &long)).await;
    let cut = cut.to_string();
    assert!(long.starts_with(&cut), "it begins as it was: {cut}");
    assert!((MAX_MESSAGE_LEN - 3..=MAX_MESSAGE_LEN).contains(&cut.len()));
    let cause = Error::new(ErrorKind::Refused, "dial").with_source("not for the peer");
    let cause = rejected(&pair, cause).await;
    assert!(cause.source().is_none(), "the cause stays where it was");
    let (open, incoming) = pair.taken(to("dropped")).await;
    drop(incoming);
    let dropped = within("a dropped open fails", open).await.map(drop);
    let dropped = dropped.expect_err("nobody has accepted it");
    assert_eq!(dropped.kind(), ErrorKind::Other);
    pair.goes_on().await;
    pair.has_no_streams().await;
}

async fn rejected(pair: &Pair, why: Error) -> Error {
    let (open, incoming) = pair.taken(to("rejected")).await;
    incoming.reject(why);
    let answer = within("a rejection arrives", open).await.map(drop);
    answer.expect_err("the peer has rejected it")
}

/// 3. An open that the peer does not answer fails as a timeout at its deadline.
pub async fn an_unanswered_open_fails_at_its_deadline(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let mut open = to("taken");
    open.deadline = 5 * SHORT;
    let (open, mut incoming) = pair.taken(open).await;
    let answer = within("an open ends", open).await.map(drop);
    let answer = answer.expect_err("nobody has answered");
    assert_eq!(answer.kind(), ErrorKind::Timeout, "it was taken");
    within("the peer learns of it", incoming.cancelled()).await;
    drop(incoming);
    let begin = Instant::now();
    let untaken = failure(&pair, SHORT).await;
    assert_eq!(untaken, ErrorKind::Timeout, "nobody took it");
    assert!(begin.elapsed() >= SHORT, "before its deadline");
    pair.goes_on().await;
    pair.has_no_streams().await;
}

async fn failure(pair: &Pair, deadline: Duration) -> ErrorKind {
    let mut open = to("fails");
    open.deadline = deadline;
    let answer = pair.open(open).await.map(drop);
    answer.expect_err("it cannot be opened").kind()
}

/// 4. An open that is dropped is cancelled at the peer, and leaves nothing.
pub async fn a_dropped_open_is_cancelled_at_the_peer(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    // More of them than there may be streams at once: none takes a place for good.
    for round in 0..pair.limit + 10 {
        let (open, mut incoming) = pair.taken(to("dropped")).await;
        drop(open);
        within("the peer learns of it", incoming.cancelled()).await;
        if round % 2 == 0 {
            let accepted = within("an accept returns", incoming.accept()).await;
            let kind = accepted.map(drop).map_err(|error| error.kind());
            assert!(
                matches!(kind, Err(ErrorKind::Reset(_))),
                "accepted: {kind:?}"
            );
        }
    }
    let mut untaken = pair.opener.open(to("untaken"));
    assert!(
        timeout(SHORT, &mut untaken).await.is_err(),
        "nobody has answered"
    );
    drop(untaken);
    pair.goes_on().await;
    pair.has_no_streams().await;
}

/// 5. An open beyond the limit of streams waits until one ends; at its deadline it fails as overload.
pub async fn an_open_beyond_the_limit_waits(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    assert!(pair.limit > super::UNREAD, "the suite needs more streams");
    let mut streams = Vec::new();
    for _ in 0..pair.limit {
        streams.push(pair.stream(to("within")).await);
    }
    does_not_arrive(&pair).await;
    let [ours, theirs] = streams.pop().expect("there are streams");
    let (next, ()) = tokio::join!(pair.stream(to("next")), finish(ours, theirs));
    streams.push(next);
    does_not_arrive(&pair).await;
    let [mut ours, theirs] = streams.pop().expect("there are streams");
    ours.reset(7);
    drop((ours, theirs));
    pair.goes_on().await;
    for [mut ours, mut theirs] in streams {
        ours.write_all(b"still there").await.expect("it is open");
        ours.flush().await.expect("it is open");
        let mut seen = [0; 11];
        let read = theirs.read_exact(&mut seen);
        within("an open stream goes on", read)
            .await
            .expect("it is open");
    }
    pair.has_no_streams().await;
}

async fn does_not_arrive(pair: &Pair) {
    tokio::select! {
        kind = failure(pair, SHORT) => assert_eq!(kind, ErrorKind::Overloaded),
        incoming = pair.accept() => panic!("it arrived beyond the limit: {incoming:?}"),
    }
}

/// 6. Opens that nobody takes are refused as overload beyond a bound, and the session lives.
pub async fn opens_that_nobody_takes_are_refused_as_overload(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let mut opens = JoinSet::new();
    for _ in 0..pair.limit {
        let opener = pair.opener.clone();
        opens.spawn(async move { opener.open(to("flood")).await.map(drop) });
    }
    let first = within("one is refused", opens.join_next()).await;
    let first = first.expect("there are opens").expect("no open panics");
    let first = first.expect_err("nobody has accepted it");
    assert_eq!(first.kind(), ErrorKind::Overloaded, "{first}");
    opens.shutdown().await;
    assert_eq!(*pair.opener.state().borrow(), State::Open);
    pair.goes_on().await;
    pair.has_no_streams().await;
}

/// 23. An accept that is dropped ends the stream before it begins, or resets it, and leaves nothing.
pub async fn a_dropped_accept_ends_the_stream(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    // More of them than there may be streams at once: none takes a place for good.
    for _ in 0..pair.limit + 10 {
        let (open, incoming) = pair.taken(to("dropped")).await;
        let mut accept = incoming.accept();
        // It may be done at once, or not.
        let begun = poll_fn(|cx| Poll::Ready(accept.as_mut().poll(cx))).await;
        drop((accept, begun));
        match within("an open ends", open).await {
            Ok(mut stream) => {
                let kind = read_failure(&mut stream).await;
                assert!(matches!(kind, ErrorKind::Reset(_)), "a stream: {kind:?}");
            }
            Err(error) => {
                let kind = error.kind();
                let is_refused = matches!(kind, ErrorKind::Reset(_) | ErrorKind::Other);
                assert!(is_refused, "an open: {kind:?}");
            }
        }
    }
    pair.goes_on().await;
    pair.has_no_streams().await;
}
