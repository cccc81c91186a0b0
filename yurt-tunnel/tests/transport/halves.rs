//! Half-closes at any moment, of any size, while bulk moves to a second connection: no byte is lost, no end is missed.

use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use yurt_core::transport::{Open, Stream, Target};
use yurt_tunnel::link::Config;

use crate::site::{Site, Way};

const PATIENCE: Duration = Duration::from_secs(60);

/// Streams that are open at once.
const STREAMS: usize = 8;

/// What one end says, and when.
struct Part {
    said: Vec<u8>,
    /// How much is heard before anything is said, and before the direction is ended.
    heard_before: [usize; 2],
    rng: Rng,
}

/// Two parts of a conversation that come to an end.
fn parts(seed: u64) -> [Part; 2] {
    let mut rng = Rng::with_seed(seed);
    let sizes = [0, 1, 70_000, 1 << 20, (1 << 20) + 1, 3 << 20];
    let said = [(); 2].map(|()| {
        let mut said = vec![0; sizes[rng.usize(..sizes.len())]];
        rng.fill(&mut said);
        said
    });
    // Only one of the two waits, so that neither waits for ever.
    let waits = rng.usize(..3);
    [0, 1].map(|end| {
        let all = said[1 - end].len();
        let mut heard_before = [0; 2];
        if waits == end {
            let most = [0, 1, all / 2, all];
            heard_before = [(); 2].map(|()| most[rng.usize(..most.len())].min(all));
            heard_before.sort_unstable();
        }
        Part {
            said: said[end].clone(),
            heard_before,
            rng: rng.fork(),
        }
    })
}

impl Part {
    /// Plays the part and drops the stream at once; returns what was heard.
    async fn play(mut self, stream: Box<dyn Stream>) -> Vec<u8> {
        let (mut reader, mut writer) = split(stream);
        let mut heard = Vec::new();
        listen(&mut reader, &mut heard, self.heard_before[0], &mut self.rng).await;
        let mut rng = self.rng.fork();
        let before_end = self.heard_before[1];
        let (told, may_end) = tokio::sync::oneshot::channel();
        let speak = async {
            speak(&mut writer, &self.said, &mut rng).await;
            may_end.await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let listen = async {
            listen(&mut reader, &mut heard, before_end, &mut self.rng).await;
            told.send(()).unwrap();
            listen(&mut reader, &mut heard, usize::MAX, &mut self.rng).await;
        };
        tokio::join!(speak, listen);
        heard
    }
}

async fn speak(writer: &mut (impl AsyncWrite + Unpin), said: &[u8], rng: &mut Rng) {
    let mut left = said;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.len().min(rng.usize(1..200_000)));
        writer.write_all(piece).await.unwrap();
        pause(rng).await;
        left = rest;
    }
}

/// Hears so much in all, or everything to a clean end.
async fn listen(
    reader: &mut (impl AsyncRead + Unpin),
    heard: &mut Vec<u8>,
    all: usize,
    rng: &mut Rng,
) {
    let mut buffer = vec![0; 1 << 17];
    while heard.len() < all {
        let room = rng.usize(1..=buffer.len()).min(all - heard.len());
        match reader.read(&mut buffer[..room]).await.unwrap() {
            0 => return,
            count => heard.extend_from_slice(&buffer[..count]),
        }
        pause(rng).await;
    }
}

async fn pause(rng: &mut Rng) {
    if rng.u8(..4) == 0 {
        for _ in 0..rng.u8(..50) {
            yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closes_in_any_order_lose_no_byte_and_no_end() {
    for way in [Way::Quic, Way::H2] {
        for round in 0..4 {
            let site = Site::new();
            let met = site.meet(way, Config::default()).await;
            let mut talking = JoinSet::new();
            for number in 0..STREAMS {
                let open = met.opener.open(Open::new(Target::Echo, PATIENCE));
                let accept = async { met.acceptor.accept().await?.accept().await };
                let (ours, theirs) = tokio::join!(open, accept);
                let seed = round * 1_000 + number as u64;
                let [one, two] = parts(seed);
                let expected = [two.said.clone(), one.said.clone()];
                let (ours, theirs) = (one.play(ours.unwrap()), two.play(theirs.unwrap()));
                talking.spawn(async move {
                    let (ours, theirs) = tokio::join!(ours, theirs);
                    assert!([ours, theirs] == expected, "{way:?}, seed {seed}");
                });
            }
            let all = async {
                while let Some(talked) = talking.join_next().await {
                    talked.unwrap();
                }
            };
            tokio::select! {
                ended = timeout(PATIENCE, all) => ended.unwrap(),
                _ = met.listener.accept() => panic!("the second connection is no session"),
            }
        }
    }
}
