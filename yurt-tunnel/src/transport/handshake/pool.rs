//! Peers on their way to a session: a bounded number, and no source keeps the others out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use yurt_core::admission::{Admission, Ticket};
use yurt_core::transport::{Error, ErrorKind, Result};

use super::{HANDSHAKE_LIMIT, MAX_HANDSHAKES, failure, refusal};
use crate::identity::Refusal;

/// Who a peer is, as soon as its certificate has proven it.
pub(crate) type User = Arc<OnceLock<String>>;

type Waiting = Arc<Mutex<Admission<Source, CancellationToken>>>;

/// Handshakes, side by side. When there are too many, the source that has most of them loses its oldest.
pub(crate) struct Handshakes<T> {
    running: JoinSet<Result<T>>,
    waiting: Waiting,
}

/// Where connections come from that share their places: an address of IPv4, or what one site has of IPv6, a /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

/// The place of one handshake; free again when this is dropped.
struct Place {
    waiting: Waiting,
    ticket: Ticket,
}

impl<T: Send + 'static> Handshakes<T> {
    pub(crate) fn new() -> Self {
        Self {
            running: JoinSet::new(),
            waiting: Arc::new(Mutex::new(Admission::new(MAX_HANDSHAKES))),
        }
    }

    /// Begins one, which notes the user as soon as that is known.
    ///
    /// # Errors
    /// When no other source has more than its share. It is dropped then.
    pub(crate) fn begin<F>(
        &mut self,
        address: SocketAddr,
        shake: impl FnOnce(User) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let end = CancellationToken::new();
        let entered = {
            let mut waiting = self.waiting.lock();
            waiting.enter_if_fair(Source::of(address), end.clone())
        };
        let Ok((ticket, evicted)) = entered else {
            return Err(refusal(address, Refusal::TooManyHandshakes));
        };
        if let Some(oldest) = evicted {
            oldest.cancel();
        }
        let place = Place {
            waiting: self.waiting.clone(),
            ticket,
        };
        let user = User::default();
        let shaken = shake(user.clone());
        self.running.spawn(async move {
            let _place = place;
            let shaken = end.run_until_cancelled(timeout(HANDSHAKE_LIMIT, shaken));
            let refusal = match shaken.await {
                Some(Ok(shaken)) => return shaken,
                Some(Err(_elapsed)) => Refusal::HandshakeTimeout,
                None => Refusal::TooManyHandshakes,
            };
            Err(failure(
                address,
                user.get().map(String::as_str),
                refusal,
                None,
            ))
        });
        Ok(())
    }

    /// Returns what came of the next that ends; never, if there is none. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<T> {
        match self.running.join_next().await {
            Some(Ok(shaken)) => shaken,
            Some(Err(panicked)) => {
                Err(Error::new(ErrorKind::Closed, "shake hands").with_source(panicked))
            }
            None => std::future::pending().await,
        }
    }

    /// Returns how many there are.
    #[cfg(feature = "quic")]
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }
}

impl Source {
    fn of(address: SocketAddr) -> Self {
        const SITE: u128 = !0 << 64;
        Self(match address.ip().to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & SITE).into(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.lock().leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use yurt_core::error::Chain;

    use super::*;

    fn of(text: &str) -> Source {
        Source::of(SocketAddr::new(text.parse().unwrap(), 1))
    }

    #[test]
    fn a_source_is_an_address_of_ipv4_or_a_site_of_ipv6() {
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_greedy_source_loses_its_oldest_and_whoever_is_too_slow_goes_with_its_name() {
        let mut handshakes = Handshakes::<()>::new();
        let greedy = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut begin = |address| {
            handshakes.begin(address, |user| async move {
                user.get_or_init(|| "system:node:edge-1".to_owned());
                std::future::pending().await
            })
        };
        for port in 1..=512 {
            begin(greedy(port)).unwrap();
        }
        let refused = begin(greedy(513)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        assert_eq!(refused.to_string(), "shake hands with 192.0.2.1:513");
        begin(([192, 0, 2, 2], 1).into()).unwrap();
        // A task that has not run yet is not over.
        let evicted = handshakes.next().await.unwrap_err();
        assert_eq!(Refusal::of(&evicted), Refusal::TooManyHandshakes);
        assert!(evicted.to_string().contains("192.0.2.1:1"), "{evicted}");
        let slow = handshakes.next().await.unwrap_err();
        assert_eq!(Refusal::of(&slow), Refusal::HandshakeTimeout);
        let expected = "shake hands with system:node:edge-1 at 192.0.2.1:";
        assert!(slow.to_string().starts_with(expected), "{slow}");
    }

    #[tokio::test]
    async fn a_handshake_that_panics_is_one_peers_error() {
        let mut handshakes = Handshakes::<()>::new();
        let from = ([192, 0, 2, 1], 1).into();
        let panics = |_| async { panic!("a wrong turn") };
        handshakes.begin(from, panics).unwrap();
        let error = handshakes.next().await.unwrap_err();
        // The listener rests after an error of the kind that the system's are of.
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(Chain(&error).to_string().contains("a wrong turn"));
        assert!(handshakes.waiting.lock().is_empty());
    }
}
