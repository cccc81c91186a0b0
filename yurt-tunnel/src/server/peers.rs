//! Links to other servers: this one connects to each, so that each can reach the agents that are connected here.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use yurt_core::backoff::Backoff;
use yurt_core::transport::{Acceptor, Error, ErrorKind, Incoming, Target};

use super::Shared;
use super::router::Router;
use crate::dial::{ABORTED, Address};
use crate::identity::{Refusal, is_server};
use crate::local;
use crate::splice;
use crate::transport::NamedTransport;

/// How often names are resolved again: the servers behind one name change.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// How long a resolver may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// How many attempts an address gets before its name is resolved again.
const ATTEMPTS: usize = 10;

/// How long the other server may take to read the last bytes.
const LINGER: Duration = Duration::from_secs(5);

/// How often the other server is pinged.
const PING_EVERY: Duration = Duration::from_secs(5);

/// A link that ends sooner counts as a failed attempt.
const STEADY: Duration = Duration::from_secs(10);

/// Keeps links to all servers behind a name, until the shutdown.
pub(super) async fn run(shared: Arc<Shared>, peer: Address, shutdown: CancellationToken) {
    let mut links = JoinSet::new();
    let mut linked = HashSet::new();
    loop {
        let addresses = timeout(RESOLVE_LIMIT, lookup_host((peer.host.as_str(), peer.port))).await;
        match addresses {
            Ok(Ok(addresses)) => {
                for address in addresses.filter(|address| !is_own(shared.address, *address)) {
                    if linked.insert(address) {
                        let (shared, name) = (shared.clone(), peer.host.clone());
                        let shutdown = shutdown.clone();
                        links.spawn(async move {
                            run_link(&shared, &name, address, &shutdown).await;
                            address
                        });
                    }
                }
            }
            Ok(Err(error)) => debug!(%peer, %error, "cannot resolve the name of a peer server"),
            Err(_) => debug!(%peer, "resolving the name of a peer server timed out"),
        }
        tokio::select! {
            () = sleep(RESOLVE_EVERY) => {}
            Some(Ok(address)) = links.join_next() => { linked.remove(&address); }
            () = shutdown.cancelled() => break,
        }
    }
    while links.join_next().await.is_some() {}
}

/// Whether an address is this server's own: a name may lead to all servers.
fn is_own(own: SocketAddr, address: SocketAddr) -> bool {
    let is_here = if own.ip().is_unspecified() {
        local::is_own(address.ip())
    } else {
        own.ip() == address.ip()
    };
    is_here && own.port() == address.port()
}

/// Connects to one server and serves the link until it ends, or until several attempts have failed: the name may
/// lead elsewhere by then.
async fn run_link(
    shared: &Arc<Shared>,
    name: &str,
    address: SocketAddr,
    shutdown: &CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    for _ in 0..ATTEMPTS {
        let began = Instant::now();
        let connected = tokio::select! {
            connected = connect(&shared.transports, name, address) => connected,
            () = shutdown.cancelled() => return,
        };
        match connected {
            Ok((_, session)) if !is_server(session.peer()) => {
                let user = &session.peer().user;
                warn!(%address, user, "the peer is not a tunnel server");
                shared.metrics.refused(Refusal::Unauthorized);
                session.close("only tunnel servers may ask for nodes").await;
            }
            Ok((transport, session)) => {
                info!(%address, transport, "linked to a peer server");
                serve(&shared.router, &session, shutdown).await;
                info!(%address, "the link to a peer server has ended");
                if began.elapsed() >= STEADY {
                    return;
                }
            }
            Err(error) => warn!(%address, %error, "cannot reach a peer server"),
        }
        let pause = backoff.next_delay(fastrand::f64());
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Connects by the first transport that does.
async fn connect(
    transports: &[NamedTransport],
    name: &str,
    address: SocketAddr,
) -> Result<(&'static str, Arc<dyn Acceptor>), Error> {
    let mut failure = Error::new(ErrorKind::Other, "there is no transport");
    for way in transports {
        match way.transport.connect(address, name).await {
            Ok(session) => return Ok((way.name, session)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Answers the streams of the other server until the session ends.
async fn serve(router: &Arc<Router>, session: &Arc<dyn Acceptor>, shutdown: &CancellationToken) {
    let mut streams = JoinSet::new();
    let leave = async {
        shutdown.cancelled().await;
        session.drain();
    };
    tokio::pin!(leave);
    // A dead link must be noticed at once: what it cannot forward fails.
    let ask = async {
        loop {
            sleep(PING_EVERY).await;
            if session.ping().await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(ask);
    let mut is_leaving = false;
    loop {
        tokio::select! {
            Some(_) = streams.join_next() => {}
            incoming = session.accept() => match incoming {
                Ok(incoming) => { streams.spawn(answer(router.clone(), incoming)); }
                Err(_) => break,
            },
            () = &mut ask => break,
            () = &mut leave, if !is_leaving => is_leaving = true,
            // The other server closes when it has read everything, unless it is gone already.
            () = sleep(LINGER), if is_leaving && streams.is_empty() => {
                session.close("the server has shut down").await;
            }
        }
    }
    streams.shutdown().await;
}

async fn answer(router: Arc<Router>, mut incoming: Box<dyn Incoming>) {
    let request = incoming.request().clone();
    let Target::Dial {
        node: Some(node), ..
    } = &request.target
    else {
        let message = "servers dial only nodes through each other";
        return incoming.reject(Error::new(ErrorKind::Forbidden, message));
    };
    let opened = tokio::select! {
        opened = router.open_stream_here(node, request.target.clone(), request.deadline) => opened,
        () = incoming.cancelled() => return,
    };
    let mut agent = match opened {
        Ok(stream) => stream,
        Err(error) => return incoming.reject(error),
    };
    let mut asker = match incoming.accept().await {
        Ok(stream) => stream,
        Err(_) => return agent.reset(ABORTED),
    };
    if let Err(error) = splice::both(&mut asker, &mut agent).await {
        debug!(%node, stream = agent.id(), %error, "a stream of a peer server was aborted");
        asker.reset(ABORTED);
        agent.reset(ABORTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_servers_behind_a_name_only_this_one_is_left_out() {
        let at = |text: &str| text.parse().unwrap();
        for (own, address, expected) in [
            ("0.0.0.0:443", "127.0.0.1:443", true),
            ("0.0.0.0:443", "127.0.0.1:8443", false),
            // Also where addresses may be bound that are not the machine's.
            ("0.0.0.0:443", "192.0.2.77:443", false),
            ("192.0.2.1:443", "192.0.2.1:443", true),
            ("192.0.2.1:443", "192.0.2.2:443", false),
        ] {
            assert_eq!(is_own(at(own), at(address)), expected, "{address} at {own}");
        }
    }
}
