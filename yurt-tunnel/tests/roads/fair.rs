//! A copy through the tunnel beside the site's own TCP, on one line.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_tcp_congestion;
use testbed::wan::{Shape, Wan};
use tokio::time::sleep;

use super::shaped::{SOURCE, Shaped, drain};

/// Until both have found their shares, and how long they are watched then.
const WARM: Duration = Duration::from_secs(4);
const TIME: Duration = Duration::from_secs(8);

/// A line of 20 Mbit/s, 50 ms there and back.
fn line(queue: Duration) -> Shape {
    const RATE: u64 = 20_000_000;
    let bytes = RATE / 8 * u64::try_from(queue.as_millis()).unwrap() / 1_000;
    Shape {
        delay: Duration::from_millis(25),
        rate: Some(RATE),
        queue: usize::try_from(bytes).unwrap(),
        ..Shape::default()
    }
}

/// An upload of the site over TCP with CUBIC, which ends with the network; returns what has arrived so far.
fn upload(wan: &Wan) -> Arc<AtomicU64> {
    let address = wan.cloud().address();
    let listen = || TcpListener::bind((address, 0)).unwrap();
    let listener = wan.cloud().enter(listen).unwrap();
    let to = listener.local_addr().unwrap();
    let connect = || TcpStream::connect(to).unwrap();
    let mut up = wan.edge().enter(connect).unwrap();
    set_tcp_congestion(&up, "cubic").unwrap();
    let (mut down, _) = listener.accept().unwrap();
    let arrived = Arc::new(AtomicU64::new(0));
    let counted = arrived.clone();
    std::thread::spawn(move || while up.write_all(&[7; 64 << 10]).is_ok() {});
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = down.read(&mut buffer) {
            counted.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    arrived
}

/// What has come of a line in a time.
struct Outcome {
    /// Mbit/s of a copy through the tunnel, and of the upload.
    ours: f64,
    theirs: f64,
    /// Of all packets to the cloud, those that the queue had no room for.
    dropped: f64,
}

impl Outcome {
    fn share(&self) -> f64 {
        self.ours / (self.ours + self.theirs)
    }
}

/// A copy through the tunnel, alone or beside the upload.
async fn copy(queue: Duration, has_upload: bool) -> Outcome {
    let shaped = Shaped::new("quic", line(queue), None).await;
    let arrived = match has_upload {
        true => tokio::task::block_in_place(|| upload(shaped.wan())),
        false => Arc::default(),
    };
    let stream = shaped.open(SOURCE).await;
    let copied = AtomicU64::new(0);
    let now = || {
        let bytes = [&copied, &*arrived].map(|count| count.load(Ordering::Relaxed));
        let up = shaped.wan().counts().up;
        [bytes[0], bytes[1], up.overflowed, up.packets]
    };
    let watch = async {
        sleep(WARM).await;
        let before = now();
        sleep(TIME).await;
        std::array::from_fn(|index| (now()[index] - before[index]) as f64)
    };
    let both = async {
        tokio::select! {
            watched = watch => watched,
            () = drain(stream, WARM + TIME * 2, &copied) => panic!("the copy goes on"),
        }
    };
    let [ours, theirs, overflowed, packets] = shaped.during(both).await;
    let megabits = |bytes: f64| bytes * 8.0 / 1e6 / TIME.as_secs_f64();
    let outcome = Outcome {
        ours: megabits(ours),
        theirs: megabits(theirs),
        dropped: overflowed / (overflowed + packets),
    };
    println!(
        "{queue:?}: {:.1} beside {:.1} Mbit/s, {:.2} % dropped",
        outcome.ours,
        outcome.theirs,
        outcome.dropped * 100.0
    );
    outcome
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces"]
async fn a_copy_over_quic_and_an_upload_of_the_site_share_a_line() {
    // The simulation says 25 to 75 % of half a minute. Eight seconds are two or three of CUBIC's cycles, and a busy
    // machine sends in bursts of several milliseconds, of which a queue as short loses most, whoever controls what.
    // It was 95 % of the short queue and 2 % of the long one, and 8 % dropped alone: each time. Now and then a copy still
    // starves for the eight seconds, so that one of three has to be fair; none may take the line from the upload.
    for queue in [20, 50] {
        let mut shares = Vec::new();
        while shares.iter().all(|share| *share < 0.15) {
            assert!(shares.len() < 3, "{queue} ms: {shares:?}");
            let outcome = copy(Duration::from_millis(queue), true).await;
            assert!(outcome.share() <= 0.85, "{queue} ms: {}", outcome.share());
            assert!(outcome.dropped <= 0.03, "{queue} ms: {}", outcome.dropped);
            shares.push(outcome.share());
        }
    }
    let alone = copy(Duration::from_millis(10), false).await;
    assert!(alone.ours >= 10.0, "{}", alone.ours);
    // 1 to 3 % here, as the machine delays packets by more than that queue; next to nothing in the simulation.
    assert!(alone.dropped <= 0.04, "{}", alone.dropped);
}
