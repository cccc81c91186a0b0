//! What a session's bytes are for, as both ends count them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use yurt_core::transport::{Open, Session, Target, Traffic};
use yurt_tunnel::link::Config;

use crate::site::{Site, Way};

const PATIENCE: Duration = Duration::from_secs(60);

/// A copy that moves to a second connection of HTTP/2.
const COPY: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_counted_by_what_they_are_for() {
    for way in [Way::Quic, Way::H2] {
        let site = Site::new();
        let met = site.meet(way, Config::default()).await;
        let open = met.opener.open(Open::new(Target::Echo, PATIENCE));
        let accept = async { met.acceptor.accept().await?.accept().await };
        let (ours, theirs) = tokio::join!(open, accept);
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        let mut heard = Vec::new();
        let say = async {
            theirs.write_all(&vec![7; COPY]).await.unwrap();
            theirs.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(say, ours.read_to_end(&mut heard));
        assert_eq!(read.unwrap(), COPY);
        for _ in 0..10 {
            met.opener.ping().await.unwrap();
        }
        let agree = async {
            while !agree(&*met.opener, &*met.acceptor) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, agree).await.expect("both count the same");
        let [opener, acceptor] = [met.opener.stats(), met.acceptor.stats()];
        // A ping and a pong have four bytes each.
        assert!(
            (40..400).contains(&opener.keep_alive.sent),
            "{way:?}: {opener:?}"
        );
        assert!(
            opener.control.sent > opener.control.received,
            "{way:?}: credit is control: {opener:?}"
        );
        let said = COPY as u64;
        for wire in [opener.wire.received, acceptor.wire.sent] {
            assert!(wire > said, "{way:?}: {opener:?} {acceptor:?}");
            assert!(wire < said + said / 5, "{way:?}: {opener:?} {acceptor:?}");
        }
    }
}

/// Whether each end has received what the other has sent.
fn agree(one: &(impl Session + ?Sized), other: &(impl Session + ?Sized)) -> bool {
    let (one, other) = (one.stats(), other.stats());
    let is_received = |a: Traffic, b: Traffic| a.sent == b.received && b.sent == a.received;
    is_received(one.keep_alive, other.keep_alive) && is_received(one.control, other.control)
}
