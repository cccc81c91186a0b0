//! Whoever hangs up, the other end knows soon, whatever is stalled or has ended: and nothing of the tunnel is left.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::bed::{Bed, ESTABLISHED, Road, SOON, answer, shake, soon, until};
use super::targets::Target;

/// Short, as each case waits for it.
const ORPHAN: Duration = Duration::from_millis(50);

/// A client whose socket the test has in its hands.
enum Client {
    Plain(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What has come to a stop before somebody hangs up: nobody reads it, and its buffers are full.
#[derive(Clone, Copy, Debug)]
struct Before {
    upload_is_stalled: bool,
    download_is_stalled: bool,
    client_has_ended: bool,
    target_has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangUp {
    ClientCloses,
    ClientResets,
    TargetResets,
}

/// Every state in which one of the two may still hang up.
fn states() -> Vec<Before> {
    let mut states = Vec::new();
    for bits in 0..16 {
        let is = |bit: u8| bits & 1 << bit != 0;
        let before = Before {
            upload_is_stalled: is(0),
            download_is_stalled: is(1),
            client_has_ended: is(2),
            target_has_ended: is(3),
        };
        // Whoever has ended may have bytes on their way, which is an end like any other; with both it is the end.
        let is_over = before.client_has_ended && before.target_has_ended;
        let is_ended = before.client_has_ended && before.upload_is_stalled
            || before.target_has_ended && before.download_is_stalled;
        if !is_over && !is_ended {
            states.push(before);
        }
    }
    states
}

impl Client {
    async fn dial(bed: &Bed, is_plain: bool) -> Self {
        const REQUEST: &[u8] = b"CONNECT edge-1:10250 HTTP/1.1\r\n\r\n";
        if is_plain {
            let mut stream = UnixStream::connect(&bed.socket).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            assert_eq!(answer(&mut stream).await, ESTABLISHED);
            return Self::Plain(stream);
        }
        let tls = bed.client("prometheus", &[]);
        let mut stream = shake(&tls, bed.connect).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        assert_eq!(answer(&mut stream).await, ESTABLISHED);
        Self::Tls(Box::new(stream))
    }

    async fn fill(&mut self) {
        match self {
            Self::Plain(stream) => fill(stream).await,
            Self::Tls(stream) => fill(stream).await,
        }
    }

    async fn end(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown().await.unwrap(),
            Self::Tls(stream) => stream.shutdown().await.unwrap(),
        }
    }

    /// Hears the end of the target's direction.
    async fn hear_the_end(&mut self) {
        let mut nothing = [0];
        let heard = match self {
            Self::Plain(stream) => soon(stream.read(&mut nothing)).await,
            Self::Tls(stream) => soon(stream.read(&mut nothing)).await,
        };
        assert_eq!(heard.unwrap(), 0);
    }

    fn reset(self) {
        if let Self::Tls(stream) = &self {
            let socket = SockRef::from(stream.get_ref().0);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Waits until the connection is over as a whole, and takes nothing of what it carries.
    async fn is_over(&self) {
        match self {
            Self::Plain(stream) => {
                while !stream
                    .ready(Interest::WRITABLE)
                    .await
                    .unwrap()
                    .is_write_closed()
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Self::Tls(stream) => is_over(stream.get_ref().0).await,
        }
    }
}

async fn is_over(stream: &TcpStream) {
    while !stream
        .ready(Interest::WRITABLE)
        .await
        .unwrap()
        .is_write_closed()
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes until nothing more is taken for a while.
async fn fill(stream: &mut (impl AsyncWrite + Unpin)) {
    let piece = vec![7; 256 << 10];
    let quiet = Duration::from_millis(30);
    while let Ok(written) = timeout(quiet, stream.write(&piece)).await {
        written.unwrap();
    }
}

/// Brings a tunnel into a state, has somebody hang up, and waits until the other one knows.
async fn hang_up(mut client: Client, mut target: TcpStream, before: Before, how: HangUp) {
    if before.target_has_ended {
        target.shutdown().await.unwrap();
        client.hear_the_end().await;
    }
    if before.client_has_ended {
        client.end().await;
        assert_eq!(target.read(&mut [0]).await.unwrap(), 0);
    }
    if before.upload_is_stalled {
        client.fill().await;
    }
    if before.download_is_stalled {
        fill(&mut target).await;
    }
    match how {
        HangUp::ClientCloses => drop(client),
        HangUp::ClientResets => client.reset(),
        HangUp::TargetResets => {
            target.set_zero_linger().unwrap();
            drop(target);
            return client.is_over().await;
        }
    }
    is_over(&target).await;
}

/// TCP tells of a close in order, behind bytes that nobody takes; and of no close after an end, before it is asked.
/// The kernels find out by themselves after some minutes.
fn is_told(before: Before, how: HangUp, is_plain: bool) -> bool {
    is_plain
        || how != HangUp::ClientCloses
        || before.download_is_stalled
        || !(before.upload_is_stalled || before.client_has_ended)
}

#[tokio::test]
async fn whoever_hangs_up_the_other_end_knows() {
    let bed = Bed::with(|config| config.limits.orphan = ORPHAN);
    let (held, mut taken) = Target::held().await;
    bed.roads.lead("edge-1", Road::To(held.address));
    for is_plain in [true, false] {
        for before in states() {
            for how in [
                HangUp::ClientCloses,
                HangUp::ClientResets,
                HangUp::TargetResets,
            ] {
                if !is_told(before, how, is_plain) {
                    continue;
                }
                let client = Client::dial(&bed, is_plain).await;
                let target = soon(taken.recv()).await.unwrap();
                let case = format!("{how:?}, plain {is_plain}, {before:?}");
                let known = timeout(SOON, hang_up(client, target, before, how)).await;
                assert!(known.is_ok(), "{case}");
                until(&case, || {
                    bed.counted("door_tunnels")
                        .iter()
                        .all(|line| line.ends_with(" 0"))
                })
                .await;
            }
        }
    }
}
