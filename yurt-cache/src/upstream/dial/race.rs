//! From a name to a TCP connection, past addresses that do not answer (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until};

/// How long an address has the start of the next one: as Go's.
const HEAD_START: Duration = Duration::from_millis(300);

/// Addresses of a name that are tried.
const ADDRESSES: usize = 16;

/// Connects to the address of a name that answers first.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((host, port)).await?.collect();
    first(in_turn(addresses), TcpStream::connect).await
}

/// The addresses as they are tried: in the resolver's order, but the families take turns.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first_family = addresses.first().map(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| Some(address.is_ipv6()) == is_first_family);
    let longest = first.len().max(second.len());
    (0..longest)
        .flat_map(|at| [first.get(at), second.get(at)])
        .flatten()
        .copied()
        .take(ADDRESSES)
        .collect()
}

/// Begins the next attempt when the last one has had its head start, or when one has failed; takes the first that
/// succeeds.
async fn first<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = None;
    attempts.extend(waiting.next().map(&connect));
    let mut next_at = Instant::now() + HEAD_START;
    loop {
        let has_more = waiting.len() > 0;
        tokio::select! {
            biased;
            ended = attempts.next(), if !attempts.is_empty() => match ended {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => failed = Some(failed.unwrap_or(error)),
                None => {}
            },
            () = sleep_until(next_at), if has_more => {}
            else => break,
        }
        attempts.extend(waiting.next().map(&connect));
        next_at = Instant::now() + HEAD_START;
    }
    Err(failed
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use parking_lot::Mutex;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_families_take_turns() {
        let table: [(&[&str], &[&str]); 4] = [
            (&[], &[]),
            (&["1.1.1.1:1", "1.1.1.2:1"], &["1.1.1.1:1", "1.1.1.2:1"]),
            (
                &["[::1]:1", "[::2]:1", "1.1.1.1:1"],
                &["[::1]:1", "1.1.1.1:1", "[::2]:1"],
            ),
            (
                &["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"],
                &["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"],
            ),
        ];
        for (resolved, tried) in table {
            let resolved = resolved.iter().map(|text| address(text)).collect();
            let tried: Vec<_> = tried.iter().map(|text| address(text)).collect();
            assert_eq!(in_turn(resolved), tried);
        }
    }

    /// What came of the attempts, and when each began; the last number of an address says what it does.
    async fn race(addresses: &[&str]) -> (io::Result<SocketAddr>, Vec<Duration>) {
        let (start, begun) = (Instant::now(), Mutex::new(Vec::new()));
        let addresses = addresses.iter().map(|text| address(text)).collect();
        let connected = first(addresses, |address| {
            begun.lock().push(start.elapsed());
            async move {
                match address.port() {
                    1 => pending().await,
                    2 => Err(io::ErrorKind::ConnectionRefused.into()),
                    _ => Ok(address),
                }
            }
        });
        let connected = tokio::time::timeout(Duration::from_secs(3), connected).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        (connected, begun.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_silent_costs_its_head_start_and_one_that_refuses_nothing() {
        let ms = Duration::from_millis;
        for (addresses, wanted, begun) in [
            (&["1.1.1.1:9"][..], Some("1.1.1.1:9"), vec![ms(0)]),
            (
                &["[::1]:1", "1.1.1.1:9"],
                Some("1.1.1.1:9"),
                vec![ms(0), ms(300)],
            ),
            (
                &["1.1.1.2:1", "1.1.1.1:9"],
                Some("1.1.1.1:9"),
                vec![ms(0), ms(300)],
            ),
            (
                &["[::1]:2", "1.1.1.1:9"],
                Some("1.1.1.1:9"),
                vec![ms(0), ms(0)],
            ),
            (
                &["[::1]:1", "1.1.1.1:2", "[::2]:9"],
                Some("[::2]:9"),
                vec![ms(0), ms(300), ms(300)],
            ),
            (&["[::1]:1", "1.1.1.1:1"], None, vec![ms(0), ms(300)]),
            (&["[::1]:2", "1.1.1.1:2"], None, vec![ms(0), ms(0)]),
            (&[], None, vec![]),
        ] {
            let (connected, seen) = race(addresses).await;
            assert_eq!(connected.ok(), wanted.map(address), "{addresses:?}");
            let seen: Vec<_> = seen
                .iter()
                .map(|at| ms(u64::try_from(at.as_millis()).unwrap()))
                .collect();
            assert_eq!(seen, begun, "{addresses:?}");
        }
    }
}
