//! Opens a stream on the first of several sessions that can: one may be dead unnoticed, or not have the node.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use yurt_core::transport::{Error, ErrorKind, Open, Opener, Stream, Target};

/// A session that has not answered for so long, or for so many of its round trips, may be dead: the next is tried
/// beside it.
const HEDGE: Duration = Duration::from_millis(500);
const HEDGE_TRIPS: u32 = 3;

/// The position of a session, and the result of its open.
type Tried = (usize, Result<Box<dyn Stream>, Error>);

/// Returns the first stream that a session opens. The sessions are tried in their order: the next one when one has
/// failed, or beside those that have not answered in time.
///
/// An error about the target, such as a refused connection, ends the attempt: another session leads to the same target.
///
/// # Errors
/// An error about the target; else the error of the earliest session that has the node; `None` if none has it.
pub(super) async fn open_first(
    sessions: Vec<Arc<dyn Opener>>,
    target: &Target,
    end: Instant,
) -> Result<Box<dyn Stream>, Option<Error>> {
    let mut untried = sessions.into_iter().enumerate();
    let mut tries = JoinSet::new();
    let mut failed: Option<(usize, Error)> = None;
    let mut next_at = begin(&mut tries, &mut untried, target, end);
    while !tries.is_empty() {
        let tried = tokio::select! {
            Some(tried) = tries.join_next() => tried,
            () = sleep_until(next_at), if untried.len() > 0 => {
                next_at = begin(&mut tries, &mut untried, target, end);
                continue;
            }
        };
        let aborted = |_| (0, Err(Error::new(ErrorKind::Other, "an open was aborted")));
        match tried.unwrap_or_else(aborted) {
            (_, Ok(stream)) => return Ok(stream),
            (_, Err(error)) if error.kind() == ErrorKind::NoPeer => {}
            (number, Err(error)) if is_of_session(error.kind()) => {
                if failed.as_ref().is_none_or(|(first, _)| number < *first) {
                    failed = Some((number, error));
                }
            }
            (_, Err(error)) => return Err(Some(error)),
        }
        // Those that have not answered are still waited for.
        next_at = begin(&mut tries, &mut untried, target, end);
    }
    Err(failed.map(|(_, error)| error))
}

/// Starts an open on the next session, if there is one; returns when to start another beside it.
fn begin(
    tries: &mut JoinSet<Tried>,
    untried: &mut impl Iterator<Item = (usize, Arc<dyn Opener>)>,
    target: &Target,
    end: Instant,
) -> Instant {
    let Some((number, session)) = untried.next() else {
        return end;
    };
    let now = Instant::now();
    let left = end.saturating_duration_since(now);
    let next_at = now + hedge(session.stats().round_trip, left);
    let target = target.clone();
    tries.spawn(async move { (number, open(&session, &target, end).await) });
    next_at
}

/// How long to wait before the next session is tried, in time however far away this one is.
fn hedge(round_trip: Option<Duration>, left: Duration) -> Duration {
    let trips = round_trip.unwrap_or_default().saturating_mul(HEDGE_TRIPS);
    HEDGE.max(trips.min(left / 2))
}

/// Opens a stream on one session.
pub(super) async fn open(
    session: &Arc<dyn Opener>,
    target: &Target,
    end: Instant,
) -> Result<Box<dyn Stream>, Error> {
    let left = end.saturating_duration_since(Instant::now());
    session.open(Open::new(target.clone(), left)).await
}

/// Whether an error is about the session and not the target, so that another session may succeed.
fn is_of_session(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NoPeer
            | ErrorKind::Draining
            | ErrorKind::Overloaded
            | ErrorKind::Closed
            | ErrorKind::Timeout
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::sync::watch;
    use tokio::time::sleep;
    use yurt_core::testing::transport::{memory_pair, node, server};
    use yurt_core::transport::{Peer, Session, State, Stats};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(8);

    /// A session far away; one that is dead does not answer.
    #[derive(Debug)]
    struct Far {
        session: Arc<dyn Opener>,
        round_trip: Option<Duration>,
        answers_after: Option<Duration>,
        opens: AtomicUsize,
    }

    #[async_trait]
    impl Session for Far {
        fn peer(&self) -> &Peer {
            self.session.peer()
        }

        fn remote(&self) -> SocketAddr {
            self.session.remote()
        }

        fn state(&self) -> watch::Receiver<State> {
            self.session.state()
        }

        async fn ping(&self) -> Result<Duration, Error> {
            self.session.ping().await
        }

        fn drain(&self) {
            self.session.drain();
        }

        async fn close(&self, reason: &str) {
            self.session.close(reason).await;
        }

        fn stats(&self) -> Stats {
            let mut stats = self.session.stats();
            stats.round_trip = self.round_trip;
            stats
        }
    }

    #[async_trait]
    impl Opener for Far {
        async fn open(&self, open: Open) -> Result<Box<dyn Stream>, Error> {
            self.opens.fetch_add(1, Ordering::Relaxed);
            match self.answers_after {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
            self.session.open(open).await
        }
    }

    fn far(round_trip: Option<Duration>, answers_after: Option<Duration>) -> Arc<Far> {
        let (session, acceptor) = memory_pair(server("cloud"), node("edge-1"));
        tokio::task::spawn_local(async move {
            while let Ok(incoming) = acceptor.accept().await {
                let _stream = incoming.accept().await;
            }
        });
        Arc::new(Far {
            session,
            round_trip,
            answers_after,
            opens: AtomicUsize::new(0),
        })
    }

    /// How long an open took, and how many sessions were asked.
    async fn opened(sessions: &[&Arc<Far>]) -> (Duration, usize) {
        let began = Instant::now();
        let all = sessions
            .iter()
            .map(|far| Arc::<Far>::clone(far) as Arc<dyn Opener>);
        let tried = open_first(all.collect(), &Target::Echo, began + DEADLINE).await;
        tried.expect("one of them answers");
        let opens = sessions.iter().map(|far| far.opens.load(Ordering::Relaxed));
        (began.elapsed(), opens.sum())
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_session_on_a_long_way_is_waited_for_and_no_other_asked() {
        for trip in [20, 200, 700, 1_200] {
            let sessions = [(); 3].map(|()| far(Some(ms(trip)), Some(ms(trip + 50))));
            let (took, opens) = opened(&[&sessions[0], &sessions[1], &sessions[2]]).await;
            assert_eq!((took, opens), (ms(trip + 50), 1), "{trip} ms");
        }
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn beside_a_dead_session_the_next_is_asked_in_time() {
        for (trip, after) in [
            (None, 500),
            (Some(20), 500),
            (Some(700), 2_100),
            (Some(60_000), 4_000),
        ] {
            let dead = far(trip.map(ms), None);
            let (took, _) = opened(&[&dead, &far(Some(ms(20)), Some(ms(20)))]).await;
            assert_eq!(took, ms(after + 20), "{trip:?}");
        }
    }
}
