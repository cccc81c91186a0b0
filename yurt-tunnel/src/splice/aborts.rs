//! Two streams that are joined: a reset of the one passes, whatever is stalled or has ended.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use yurt_core::testing::transport::{memory_pair, node, server};
use yurt_core::transport::{Error, ErrorKind, Open, Stream, Target};

use super::both;

const SOON: Duration = Duration::from_secs(10);

/// Returns both ends of a stream, and what has to live as long.
async fn stream() -> ([Box<dyn Stream>; 2], impl Send) {
    let (opener, acceptor) = memory_pair(server("cloud"), node("edge-1"));
    let open = opener.open(Open::new(Target::Echo, SOON));
    let accept = async { acceptor.accept().await?.accept().await };
    let (ours, theirs) = tokio::join!(open, accept);
    ([ours.unwrap(), theirs.unwrap()], (opener, acceptor))
}

/// Writes until nothing more is taken.
async fn fill(stream: &mut Box<dyn Stream>) {
    let piece = vec![7; 64 << 10];
    while timeout(Duration::from_millis(10), stream.write(&piece))
        .await
        .is_ok()
    {}
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_one_end_passes_whatever_is_stalled_or_has_ended() {
    for bits in 0..16 {
        let is = |bit: u8| bits & 1 << bit != 0;
        let [is_stalled, is_other_stalled, has_ended, other_has_ended] =
            [is(0), is(1), is(2), is(3)];
        if has_ended && (other_has_ended || is_stalled) || other_has_ended && is_other_stalled {
            continue; // an end like any other
        }
        let ([mut far, mut near], _alive) = stream().await;
        let ([mut other, mut other_far], _alive_too) = stream().await;
        let talk = async {
            if has_ended {
                far.shutdown().await.unwrap();
                assert_eq!(other_far.read(&mut [0]).await.unwrap(), 0);
            }
            if other_has_ended {
                other_far.shutdown().await.unwrap();
                assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
            }
            if is_stalled {
                fill(&mut far).await;
            }
            if is_other_stalled {
                fill(&mut other_far).await;
            }
            far.reset(7);
            std::future::pending::<()>().await;
        };
        let joined = timeout(SOON, async {
            tokio::select! {
                joined = both(&mut near, &mut other) => joined,
                () = talk => unreachable!("it waits for ever"),
            }
        });
        let error = joined.await.expect("it passes").unwrap_err();
        let kind = Error::of(&error).unwrap().kind();
        assert_eq!(kind, ErrorKind::Reset(7), "case {bits:04b}");
    }
}
