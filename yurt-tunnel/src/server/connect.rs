//! Connects directly, to the first address of a name that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use yurt_core::transport::{Error, ErrorKind};

use crate::dial::Address;

/// How long a target may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait before the next address is tried beside this one: as long as Go.
const FALLBACK_DELAY: Duration = Duration::from_millis(300);

/// How long a connection may be silent before it is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Connects to an address, or to a name.
pub(super) async fn direct(address: &Address, deadline: Duration) -> Result<TcpStream, Error> {
    let connect = async {
        let addresses = lookup_host((address.host.as_str(), address.port)).await?;
        first_connected(interleaved(addresses.collect()), TcpStream::connect).await
    };
    let late = |_| {
        let message = format!("{address} did not accept the connection in time");
        Error::new(ErrorKind::Timeout, message)
    };
    let connected = timeout(CONNECT_LIMIT.min(deadline), connect)
        .await
        .map_err(late)?;
    let socket = connected.map_err(|source| failed(address, source))?;
    let options = SockRef::from(&socket);
    // A socket without them works too.
    let _ = options.set_tcp_nodelay(true);
    let _ = options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
    Ok(socket)
}

/// Returns the first connection that is made. The next address is tried when one has failed, and beside those that
/// have not answered for a while: packets to them may be dropped.
///
/// # Errors
/// The last failure.
async fn first_connected<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let done = |tried: Result<io::Result<T>, JoinError>| tried.map_err(io::Error::other).flatten();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut tries = JoinSet::new();
    for address in addresses {
        tries.spawn(connect(address));
        if let Ok(Some(tried)) = timeout(FALLBACK_DELAY, tries.join_next()).await {
            match done(tried) {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
    }
    while let Some(tried) = tries.join_next().await {
        match done(tried) {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Interleaves IPv6 and IPv4, beginning with the resolver's first: one family may not work at all (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let begins_with_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (preferred, others): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == begins_with_ipv4);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut turns = Vec::new();
    while preferred.len() + others.len() > 0 {
        turns.extend(preferred.next());
        turns.extend(others.next());
    }
    turns
}

fn failed(address: &Address, source: io::Error) -> Error {
    let (kind, message) = match source.kind() {
        io::ErrorKind::ConnectionRefused => (
            ErrorKind::Refused,
            format!("{address} refuses the connection"),
        ),
        io::ErrorKind::TimedOut => (ErrorKind::Timeout, format!("{address} does not answer")),
        _ => (
            ErrorKind::Unreachable,
            format!("{address} cannot be reached"),
        ),
    };
    Error::new(kind, message).with_source(source)
}

#[cfg(test)]
mod tests {
    use std::future;

    use tokio::time::Instant;

    use super::*;

    /// What becomes of a connection, by the last number of its address.
    async fn connect(address: SocketAddr) -> io::Result<SocketAddr> {
        match address.port() {
            1 => Ok(address),
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            3 => Err(io::ErrorKind::NetworkUnreachable.into()),
            _ => future::pending().await,
        }
    }

    fn all(ports: &[u16]) -> Vec<SocketAddr> {
        let addresses = ports.iter().map(|port| ([192, 0, 2, 1], *port).into());
        addresses.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_packets_is_not_waited_for() {
        for (addresses, after) in [
            (&[1][..], 0),
            (&[1, 9], 0),
            (&[2, 1], 0),
            (&[9, 1], 300),
            (&[9, 3, 1], 300),
            (&[9, 9, 9, 1], 900),
        ] {
            let began = Instant::now();
            let connected = first_connected(all(addresses), connect).await.unwrap();
            assert_eq!(connected.port(), 1);
            assert_eq!(began.elapsed().as_millis(), after, "{addresses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_is_still_waited_for_when_the_next_has_failed() {
        let slow = async |address: SocketAddr| {
            if address.port() == 9 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Ok(address);
            }
            connect(address).await
        };
        let connected = first_connected(all(&[9, 2]), move |address| Box::pin(slow(address))).await;
        assert_eq!(connected.unwrap().port(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_last_says_why() {
        let failed = first_connected(all(&[3, 2]), connect).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionRefused);
        let failed = first_connected(all(&[]), connect).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn ipv6_and_ipv4_are_interleaved() {
        for (given, expected) in [
            ("a:: b:: c:: 192.0.2.1", "a:: 192.0.2.1 b:: c::"),
            ("192.0.2.1 192.0.2.2 a:: b::", "192.0.2.1 a:: 192.0.2.2 b::"),
            ("192.0.2.1", "192.0.2.1"),
            ("", ""),
        ] {
            let read = |text: &str| -> Vec<SocketAddr> {
                let hosts = text.split_whitespace();
                hosts
                    .map(|host| SocketAddr::new(host.parse().unwrap(), 1))
                    .collect()
            };
            assert_eq!(interleaved(read(given)), read(expected));
        }
    }
}
