//! The streams of one session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use yurt_core::transport::Acceptor;

use super::Shared;
use super::board::Place;
use super::dial::Dialer;

/// Answers every stream that the server wants, until the session is over; the number of those that go on is shown.
pub(super) async fn serve(
    shared: Arc<Shared>,
    session: Arc<dyn Acceptor>,
    server: SocketAddr,
    count: watch::Sender<usize>,
) {
    let dialer = Arc::new(Dialer::new(shared, server));
    let mut streams = JoinSet::new();
    loop {
        count.send_if_modified(|count| std::mem::replace(count, streams.len()) != streams.len());
        tokio::select! {
            Some(_) = streams.join_next() => {}
            incoming = session.accept() => match incoming {
                Ok(incoming) => {
                    streams.spawn(dialer.clone().answer(incoming));
                }
                Err(_) => break,
            },
        }
    }
    // What still goes on fails by itself, but a dial might take its time.
    streams.shutdown().await;
    count.send_replace(0);
}

/// Lets a session's streams finish, then closes it and says so by `stop`; at once when it is told so.
pub(super) async fn finish(
    session: Arc<dyn Acceptor>,
    place: Place,
    mut count: watch::Receiver<usize>,
    stop: CancellationToken,
) {
    place.leaving();
    session.drain();
    let mut state = session.state();
    let finished = async {
        // Once the server has answered, what it opened before it knew is here.
        let _ = timeout(ANSWER, session.ping()).await;
        let _ = count.wait_for(|count| *count == 0).await;
        // The last bytes of the last stream are on their way, which may be slow.
        let arrived = async {
            while session.stats().streams > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = timeout(TAIL_LIMIT, arrived).await;
        let _ = timeout(ANSWER, session.ping()).await;
    };
    tokio::select! {
        () = finished => {}
        () = stop.cancelled() => {}
        _ = state.wait_for(is_closed) => {}
    }
    let _ = timeout(
        ANSWER,
        session.close("the agent has gone over to another session"),
    )
    .await;
    drop(place);
    stop.cancel();
}

/// How long the last bytes may take: 8 MiB over a link of 256 kbit/s.
const TAIL_LIMIT: Duration = Duration::from_secs(300);

/// How long a server may take to answer when nothing else is waited for.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) fn is_closed(state: &yurt_core::transport::State) -> bool {
    matches!(state, yurt_core::transport::State::Closed { .. })
}
