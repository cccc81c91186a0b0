//! The bad network itself: that real sockets on it see what was asked for, and that nothing is left of it.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]
#![expect(clippy::print_stdout, reason = "how a killed test says what it leaves")]

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use testbed::{
    node::eventually,
    wan::{Blackhole, Counts, NatConfig, Shape, Side, Wan, WanConfig},
};
use tokio::time::Instant;

/// Beyond what anything takes that is to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what is not to come: beyond all delays of these tests.
const SILENCE: Duration = Duration::from_millis(300);
/// Tells a test that it is to be killed, in a process of its own.
const VICTIM: &str = "YURT_TESTBED_VICTIM";

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn wan(link: Shape) -> Wan {
    Wan::new(WanConfig {
        seed: 7,
        link,
        nat: None,
    })
    .unwrap()
}

fn behind_nat(timeout: Duration) -> Wan {
    Wan::new(WanConfig {
        nat: Some(NatConfig {
            timeout,
            ..NatConfig::default()
        }),
        ..WanConfig::default()
    })
    .unwrap()
}

fn udp(side: &Side) -> UdpSocket {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let socket = side.enter(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn address(side: &Side, socket: &UdpSocket) -> SocketAddr {
    (side.address(), socket.local_addr().unwrap().port()).into()
}

/// A datagram that came, and from where; `None` when there is silence.
fn heard(socket: &UdpSocket, patience: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 2048];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Sends back what it receives, on one connection after the other.
fn echo(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut reader = stream.try_clone().unwrap();
            _ = std::io::copy(&mut reader, &mut stream);
            _ = stream.shutdown(Shutdown::Write);
        }
    });
}

fn tcp(wan: &Wan) -> TcpStream {
    let address = (wan.cloud().address(), 0);
    let listener = wan.cloud().enter(|| TcpListener::bind(address));
    let listener = listener.unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    echo(listener);
    let stream = wan.edge().enter(|| TcpStream::connect(address));
    let stream = stream.unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes through an echo and compares what comes back.
fn round(stream: &mut TcpStream, length: usize) {
    let mut random = fastrand::Rng::with_seed(1);
    let sent: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
    });
    let mut received = vec![0; length];
    stream.read_exact(&mut received).unwrap();
    writing.join().unwrap();
    assert!(sent == received, "the bytes are not those that were sent");
}

/// Waits until the relay has dealt with this number of packets to the cloud.
fn dealt_with(wan: &Wan, count: u64) -> Counts {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counts = wan.counts();
        let up = counts.up;
        let all = up.packets + up.lost + up.overflowed + up.oversized + up.swallowed;
        if all - up.duplicated >= count {
            return counts;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        thread::sleep(ms(1));
    }
}

/// Sends numbered datagrams to the cloud, without waiting for any.
fn send_numbers(wan: &Wan, to: SocketAddr, count: u32, length: usize) {
    let edge = udp(wan.edge());
    for number in 0..count {
        let mut datagram = vec![0; length];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        edge.send_to(&datagram, to).unwrap();
        // As fast as this does not overrun the receiver's buffer on a loaded machine.
        if number % 16 == 15 {
            thread::sleep(ms(1));
        }
    }
}

fn numbers(cloud: &UdpSocket) -> Vec<u32> {
    let mut found = Vec::new();
    while let Some((datagram, _)) = heard(cloud, SILENCE) {
        found.push(u32::from_be_bytes(datagram[..4].try_into().unwrap()));
    }
    found
}

#[test]
#[ignore = "needs root and network namespaces"]
fn every_packet_takes_the_delay_and_streams_arrive_whole() {
    let wan = wan(Shape {
        delay: ms(20),
        ..Shape::default()
    });
    let (cloud, edge) = (udp(wan.cloud()), udp(wan.edge()));
    let to = address(wan.cloud(), &cloud);
    let mut took: Vec<Duration> = (0..25)
        .map(|_| {
            let start = Instant::now();
            edge.send_to(b"ask", to).unwrap();
            let (asked, from) = heard(&cloud, PATIENCE).unwrap();
            assert_eq!((&*asked, from), (&b"ask"[..], address(wan.edge(), &edge)));
            cloud.send_to(b"answer", from).unwrap();
            heard(&edge, PATIENCE).unwrap();
            start.elapsed()
        })
        .collect();
    took.sort();
    println!("round trips: {:?}, {:?}, {:?}", took[0], took[12], took[24]);
    assert!(took[0] >= ms(40), "{took:?}");
    // The median, since this machine has other things to do.
    assert!(took[12] < ms(42), "{took:?}");
    round(&mut tcp(&wan), 1 << 20);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_seed_decides_which_packets_are_lost() {
    let arrived = || {
        let wan = wan(Shape {
            loss: 0.1,
            ..Shape::default()
        });
        let cloud = udp(wan.cloud());
        let to = address(wan.cloud(), &cloud);
        let reading = thread::spawn(move || numbers(&cloud));
        send_numbers(&wan, to, 2000, 100);
        let up = dealt_with(&wan, 2000).up;
        assert!((150..250).contains(&up.lost), "{up:?}");
        let arrived = reading.join().unwrap();
        assert_eq!(arrived.len() as u64, up.packets);
        arrived
    };
    assert_eq!(arrived(), arrived());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_slow_line_takes_its_time_and_its_queue_is_as_long_as_was_asked_for() {
    let wan = wan(Shape {
        rate: Some(8_000_000),
        queue: 20_000,
        ..Shape::default()
    });
    let start = Instant::now();
    round(&mut tcp(&wan), 1 << 20);
    let took = start.elapsed();
    println!("1 MiB at 8 Mbit/s: {took:?}");
    // A million bytes a second, and headers.
    assert!(took > ms(1048) && took < ms(3000), "{took:?}");

    let before = wan.counts().up;
    let (cloud, edge) = (udp(wan.cloud()), udp(wan.edge()));
    let to = address(wan.cloud(), &cloud);
    for _ in 0..200 {
        edge.send_to(&[0; 972], to).unwrap(); // 1,000 bytes with its headers
    }
    let after = dealt_with(&wan, before.packets + before.overflowed + 200).up;
    let overflowed = after.overflowed - before.overflowed;
    // Twenty wait, and one more for each millisecond that the burst itself takes.
    assert!((130..=180).contains(&overflowed), "{after:?}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn packets_come_twice_and_out_of_order_and_streams_whole_nevertheless() {
    let wan = wan(Shape {
        delay: ms(5),
        duplicate: 1.0,
        reorder: 0.2,
        reorder_by: ms(4),
        ..Shape::default()
    });
    let cloud = udp(wan.cloud());
    let to = address(wan.cloud(), &cloud);
    let reading = thread::spawn(move || numbers(&cloud));
    send_numbers(&wan, to, 200, 100);
    let mut arrived = reading.join().unwrap();
    assert!(!arrived.is_sorted());
    arrived.sort_unstable();
    let twice: Vec<u32> = (0..200).flat_map(|number| [number, number]).collect();
    assert_eq!(arrived, twice);
    assert!(wan.counts().up.reordered > 10, "{:?}", wan.counts());
    round(&mut tcp(&wan), 1 << 18);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_black_hole_takes_what_it_was_told_to_and_gives_it_back() {
    let wan = wan(Shape::default());
    let (cloud, edge) = (udp(wan.cloud()), udp(wan.edge()));
    let to = address(wan.cloud(), &cloud);
    let mut stream = tcp(&wan);
    let datagram_passes = || {
        edge.send_to(b"hello", to).unwrap();
        heard(&cloud, SILENCE).is_some()
    };
    for (hole, udp_passes, tcp_passes) in [
        (Blackhole::None, true, true),
        (Blackhole::Udp, false, true),
        (Blackhole::All, false, false),
        (Blackhole::None, true, true),
    ] {
        wan.blackhole(hole);
        assert_eq!(datagram_passes(), udp_passes, "{hole:?}");
        stream.write_all(b"x").unwrap();
        let patience = if tcp_passes { PATIENCE } else { SILENCE };
        stream.set_read_timeout(Some(patience)).unwrap();
        let read = stream.read(&mut [0; 16]);
        assert_eq!(read.is_ok(), tcp_passes, "{hole:?}: {read:?}");
    }
    assert!(wan.counts().up.swallowed >= 2);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn behind_a_router_the_edge_has_another_address_and_nobody_gets_in_unasked() {
    let wan = behind_nat(Duration::from_secs(30));
    let (cloud, edge) = (udp(wan.cloud()), udp(wan.edge()));
    let to = address(wan.cloud(), &cloud);
    let outside = NatConfig::default().address;
    edge.send_to(b"ask", to).unwrap();
    let (_, seen) = heard(&cloud, PATIENCE).unwrap();
    assert_eq!(seen.ip(), outside);
    assert_ne!(seen.port(), edge.local_addr().unwrap().port());
    cloud.send_to(b"answer", seen).unwrap();
    let (answer, from) = heard(&edge, PATIENCE).unwrap();
    assert_eq!((&*answer, from), (&b"answer"[..], to));

    let stranger = udp(wan.cloud());
    stranger.send_to(b"unasked", seen).unwrap();
    let inside = address(wan.edge(), &edge);
    stranger.send_to(b"unasked", inside).unwrap();
    assert_eq!(heard(&edge, SILENCE), None);
    assert_eq!(wan.counts().down.refused, 2);
    round(&mut tcp(&wan), 1 << 18);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_router_that_forgets_gives_another_port_and_closes_the_old_one() {
    let wan = behind_nat(ms(200));
    let (cloud, edge) = (udp(wan.cloud()), udp(wan.edge()));
    let to = address(wan.cloud(), &cloud);
    let seen = || {
        edge.send_to(b"ask", to).unwrap();
        heard(&cloud, PATIENCE).unwrap().1
    };
    let first = seen();
    assert_eq!(seen(), first);
    wan.rebind();
    cloud.send_to(b"late", first).unwrap();
    assert_eq!(heard(&edge, SILENCE), None);
    let second = seen();
    assert_ne!(second, first);
    // The silence is longer than the timeout.
    assert_eq!(heard(&edge, SILENCE), None);
    cloud.send_to(b"late", second).unwrap();
    assert_eq!(heard(&edge, SILENCE), None);
    let third = seen();
    assert_ne!(third, second);
    cloud.send_to(b"in time", third).unwrap();
    assert!(heard(&edge, PATIENCE).is_some());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn with_another_address_a_socket_goes_on_and_a_connection_does_not() {
    let wan = wan(Shape::default());
    let (cloud, edge) = (udp(wan.cloud()), udp(wan.edge()));
    let to = address(wan.cloud(), &cloud);
    let seen = || {
        edge.send_to(b"ask", to).unwrap();
        heard(&cloud, PATIENCE).unwrap().1
    };
    let before = wan.edge().address();
    let mut stream = tcp(&wan);
    round(&mut stream, 10);
    assert_eq!(seen().ip(), before);
    let other = Ipv4Addr::new(10, 9, 0, 2);
    wan.set_edge_address(other).unwrap();
    assert_eq!(wan.edge().address(), other);
    let from = seen();
    assert_eq!(from.ip(), other);
    cloud.send_to(b"answer", from).unwrap();
    assert!(heard(&edge, PATIENCE).is_some());
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    _ = stream.write_all(b"x");
    stream.read(&mut [0; 16]).unwrap_err();
    round(&mut tcp(&wan), 10);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_packet_that_is_too_large_vanishes_and_nobody_is_told() {
    let wan = wan(Shape {
        mtu: Some(1280),
        ..Shape::default()
    });
    let (cloud, edge) = (udp(wan.cloud()), udp(wan.edge()));
    edge.connect(address(wan.cloud(), &cloud)).unwrap();
    for (payload, passes) in [(1252, true), (1253, false), (1472, false), (1252, true)] {
        edge.send(&vec![0; payload]).unwrap();
        let heard = heard(&cloud, if passes { PATIENCE } else { SILENCE });
        assert_eq!(heard.is_some(), passes, "{payload}");
    }
    assert_eq!(wan.counts().up.oversized, 2);
}

/// Not a test of this machine's speed: a relay that polls, copies or sorts too much is ten times slower.
#[test]
#[ignore = "needs root and network namespaces"]
fn the_relay_itself_is_no_bottleneck() {
    let wan = wan(Shape::default());
    let mut stream = tcp(&wan);
    let length = 32 << 20;
    let start = Instant::now();
    round(&mut stream, length);
    let took = start.elapsed();
    let rate = 8.0 * length as f64 / took.as_secs_f64() / 1e6;
    println!(
        "{rate:.0} Mbit/s in each direction at once, {:?}",
        wan.counts()
    );
    assert!(rate > 50.0, "{rate:.0} Mbit/s");
}

/// Returns who sleeps inside, when it does.
fn sleeper(wan: &Wan) -> u32 {
    let mut sleep = wan.edge().command("sleep");
    let pid = sleep.arg("1000000").spawn().unwrap().id();
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "sleep\n" {
        assert!(Instant::now() < deadline);
        thread::sleep(ms(1));
    }
    pid
}

fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("zombie"))
}

#[test]
#[ignore = "needs root and network namespaces"]
fn what_runs_inside_ends_with_the_network() {
    let wan = wan(Shape::default());
    let pid = sleeper(&wan);
    assert!(is_alive(pid));
    drop(wan);
    assert!(!is_alive(pid));
}

#[tokio::test]
#[ignore = "needs root and network namespaces"]
async fn a_killed_test_leaves_no_namespace() {
    if std::env::var_os(VICTIM).is_some() {
        let wan = wan(Shape::default());
        println!("\nthe sleeper is {}", sleeper(&wan));
        std::future::pending::<()>().await;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "a_killed_test_leaves_no_namespace",
            "--nocapture",
        ])
        .env(VICTIM, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut pids =
        lines.filter_map(|line| Some(line.ok()?.strip_prefix("the sleeper is ")?.to_owned()));
    let pid = pids.next().expect("the victim says who sleeps");
    let namespace = std::fs::read_link(Path::new("/proc").join(&pid).join("ns/net")).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the end of the namespace", PATIENCE, async || {
        let holders = processes_in(&namespace);
        if holders.is_empty() {
            Ok(())
        } else {
            Err(holders.join(" "))
        }
    })
    .await
    .unwrap();
}

/// Which processes keep a namespace.
fn processes_in(namespace: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            std::fs::read_link(process.path().join("ns/net")).is_ok_and(|own| own == namespace)
        })
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}
