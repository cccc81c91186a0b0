//! Clauses 15 to 20: how sessions live and end.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::Pair;
use super::ends::{exchange, finish, read_failure, send, to, within, write_failure};
use crate::transport::{Chain, Error, ErrorKind, Peer, Session, State, Stream};

/// 15. A ping returns when the peer has answered.
pub async fn a_ping_returns_when_the_peer_has_answered(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    for _ in 0..10 {
        ping(&*pair.opener).await.expect("the peer answers");
        ping(&*pair.acceptor).await.expect("the peer answers");
    }
    // An unread stream holds up no ping either.
    let [mut writer, _unread] = pair.stream(to("unread")).await;
    let piece = vec![0; 64 << 20];
    tokio::select! {
        written = writer.write_all(&piece) => panic!("nobody reads it: {written:?}"),
        pings = async { (ping(&*pair.opener).await, ping(&*pair.acceptor).await) } => {
            assert!(pings.0.is_ok() && pings.1.is_ok(), "{pings:?}");
        }
    }
}

async fn ping<S: Session + ?Sized>(session: &S) -> Result<(), ErrorKind> {
    let answer = within("a ping returns", session.ping()).await;
    answer.map(drop).map_err(|error| error.kind())
}

/// 16. After a drain of either end new opens fail as draining, and open streams finish.
pub async fn after_a_drain_new_opens_fail_and_open_streams_finish(pair: impl AsyncFn() -> Pair) {
    for is_ours in [true, false] {
        let pair = pair().await;
        let [mut ours, mut theirs] = pair.stream(to("before")).await;
        if is_ours {
            pair.opener.drain();
        } else {
            pair.acceptor.drain();
        }
        for _ in 0..3 {
            let refused = pair.open(to("after")).await.map(drop);
            let refused = refused.expect_err("the session takes no new streams");
            assert_eq!(refused.kind(), ErrorKind::Draining, "{refused}");
        }
        is_draining(&*pair.opener).await;
        is_draining(&*pair.acceptor).await;
        exchange(&mut ours, &mut theirs, 1 << 20).await;
        finish(ours, theirs).await;
        pair.has_no_streams().await;
    }
}

async fn is_draining<S: Session + ?Sized>(session: &S) {
    let mut state = session.state();
    let seen = within(
        "a drain is seen",
        state.wait_for(|state| *state != State::Open),
    )
    .await;
    assert_eq!(*seen.expect("a session has a state"), State::Draining);
}

/// 17. A close of either end is seen by both and fails every stream, open and accept.
pub async fn a_close_is_seen_by_both_ends(pair: impl AsyncFn() -> Pair) {
    const REASON: &str = "a new version is here";
    for is_ours in [true, false] {
        let pair = pair().await;
        let [mut ours, mut theirs] = pair.stream(to("open")).await;
        let (open, incoming) = pair.taken(to("waits")).await;
        let (acceptor, opener) = (Arc::clone(&pair.acceptor), Arc::clone(&pair.opener));
        let close = async {
            if is_ours {
                within("a close returns", opener.close(REASON)).await;
                within("a second close returns", opener.close("again")).await;
            } else {
                within("a close returns", acceptor.close(REASON)).await;
                within("a second close returns", acceptor.close("again")).await;
            }
        };
        let (our_failure, their_failure, opened, accepted, ()) = tokio::join!(
            read_failure(&mut ours),
            read_failure(&mut theirs),
            within("an open ends", open),
            within("an accept ends", pair.acceptor.accept()),
            close
        );
        assert_eq!([our_failure, their_failure], [ErrorKind::Closed; 2]);
        is_closed(opened);
        is_closed(accepted);
        let late = within("an accept returns", incoming.accept()).await;
        late.map(drop).expect_err("the session is over");
        for stream in [&mut ours, &mut theirs] {
            assert_eq!(write_failure(stream).await, ErrorKind::Closed);
        }
        was_closed(&*pair.opener, REASON).await;
        was_closed(&*pair.acceptor, REASON).await;
        is_closed(pair.open(to("after")).await);
        is_closed(within("an accept ends", pair.acceptor.accept()).await);
        drop((ours, theirs));
        pair.has_no_streams().await;
    }
}

fn is_closed<T>(result: Result<T, Error>) {
    let kind = result.map(drop).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::Closed));
}

async fn was_closed<S: Session + ?Sized>(session: &S, why: &str) {
    assert_eq!(ping(session).await, Err(ErrorKind::Closed));
    let (kind, reason) = closed(session).await;
    assert_eq!(kind, ErrorKind::Closed, "{reason}");
    assert!(reason.contains(why), "the reason became {reason:?}");
}

/// Returns why a session is over, when it is.
async fn closed<S: Session + ?Sized>(session: &S) -> (ErrorKind, String) {
    let mut state = session.state();
    let is_over = state.wait_for(|state| matches!(state, State::Closed { .. }));
    let state = within("a close is seen", is_over).await;
    match &*state.expect("a session has a state") {
        State::Closed { kind, reason } => (*kind, reason.clone()),
        State::Open | State::Draining => unreachable!("it was waited for"),
    }
}

/// 18. A session whose last owner dropped it is closed.
pub async fn a_session_is_closed_when_its_last_owner_drops_it(pair: impl AsyncFn() -> Pair) {
    for is_ours in [true, false] {
        let pair = pair().await;
        let [mut ours, mut theirs] = pair.stream(to("open")).await;
        send(&mut ours, 1, &[1_000]).await;
        let Pair {
            opener,
            acceptor,
            keep,
            ..
        } = pair;
        // A second owner keeps it.
        let second = (Arc::clone(&opener), Arc::clone(&acceptor));
        if is_ours {
            drop(opener);
            exchange_after(&mut ours, &mut theirs).await;
            drop(second.0);
            closed(&*acceptor).await;
            is_closed(within("an accept ends", acceptor.accept()).await);
        } else {
            drop(acceptor);
            exchange_after(&mut ours, &mut theirs).await;
            drop(second.1);
            closed(&*opener).await;
            is_closed(within("an open ends", opener.open(to("after"))).await);
        }
        assert_eq!(read_failure(&mut ours).await, ErrorKind::Closed);
        assert_eq!(read_failure(&mut theirs).await, ErrorKind::Closed);
        drop(keep);
    }
}

/// Reads what [`send`] of the clause has sent, and sees that the stream still stands.
async fn exchange_after(ours: &mut Box<dyn Stream>, theirs: &mut Box<dyn Stream>) {
    within("bytes arrive", super::ends::receive(theirs, 1, 1_000)).await;
    exchange(ours, theirs, 1_000).await;
}

/// 19. A thousand streams that ended leave nothing in the session.
pub async fn a_thousand_ended_streams_leave_nothing(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    let mut ids = HashSet::new();
    for _ in 0..20 {
        let mut wave = Vec::new();
        for _ in 0..50 {
            wave.push(pair.stream(to("ended")).await);
        }
        for (number, [mut ours, mut theirs]) in wave.into_iter().enumerate() {
            assert!(ids.insert(ours.id()), "number {} is reused", ours.id());
            match number % 5 {
                0 => finish(ours, theirs).await,
                1 => ours.reset(1),
                2 => theirs.reset(2),
                3 => drop(ours),
                _ => drop((theirs, ours)),
            }
        }
    }
    pair.has_no_streams().await;
    pair.goes_on().await;
    pair.has_no_streams().await;
    let opened = [pair.opener.stats().opened, pair.acceptor.stats().opened];
    assert_eq!(opened, [ids.len() as u64 + 1; 2], "what was counted");
}

/// 20. Each end knows who the other is before the first stream.
pub async fn each_end_knows_who_the_other_is(pair: impl AsyncFn() -> Pair) {
    let pair = pair().await;
    // What is kept of the certificates is the transport's own.
    let identity = |peer: &Peer| Peer {
        chain: Chain::default(),
        ..peer.clone()
    };
    assert_eq!(identity(pair.opener.peer()), identity(&pair.node));
    assert_eq!(identity(pair.acceptor.peer()), identity(&pair.server));
    for remote in [pair.opener.remote(), pair.acceptor.remote()] {
        assert!(!remote.ip().is_unspecified(), "the peer is at {remote}");
    }
}
