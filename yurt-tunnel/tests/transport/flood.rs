//! Who begins handshakes and never goes on: from addresses that are invented, and from one that is not.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use yurt_tunnel::identity::Protocol;
use yurt_tunnel::link::Config;

use crate::site::{Site, Way, loopback};

/// From so many handshakes on the server asks whether an address is true.
const BELIEVED: usize = 128;

const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the first datagrams of so many handshakes.
async fn beginnings(site: &Site, count: usize) -> Vec<Vec<u8>> {
    let tls = QuicClientConfig::try_from(site.node("edge-1").client(Protocol::Quic)).unwrap();
    let config = ClientConfig::new(Arc::new(tls));
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let trap = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = trap.local_addr().unwrap();
    let connect = || endpoint.connect_with(config.clone(), address, "tunnel.test");
    let (mut connecting, mut datagrams) = (Vec::new(), HashMap::new());
    let mut bytes = [0; 2048];
    for _ in 0..count {
        connecting.push(connect().unwrap());
        let before = datagrams.len();
        while datagrams.len() == before {
            let received = trap.recv(&mut bytes).await.unwrap();
            // RFC 9000, section 17.2: one byte, four of the version, then the connection's ID with its length.
            let id = bytes[6..6 + usize::from(bytes[5])].to_vec();
            let first = datagrams.entry(id);
            first.or_insert_with(|| bytes[..received].to_vec());
        }
    }
    datagrams.into_values().collect()
}

/// Whether it is a Retry packet (RFC 9000, section 17.2.5).
fn is_retry(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xf0 == 0xf0)
}

#[tokio::test]
async fn whoever_begins_while_many_have_begun_has_to_prove_its_address_before_it_costs_anything() {
    let site = Site::new();
    let transport = Way::Quic.transport(site.server(), Config::default());
    let listener = transport.listen(loopback()).await.unwrap();
    let server: SocketAddr = listener.address();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move { while let Some(Err(_)) = listener.accept().await {} });
    let mut answers = Vec::new();
    for beginning in beginnings(&site, BELIEVED + 32).await {
        // Another address each time.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&beginning, server).await.unwrap();
        let mut answer = vec![0; 2048];
        let received = timeout(PATIENCE, socket.recv(&mut answer)).await;
        answer.truncate(received.expect("it is answered").unwrap());
        assert!(answer.len() <= beginning.len());
        answers.push(answer);
    }
    let (believed, asked) = answers.split_at(BELIEVED);
    assert!(!believed.iter().any(|answer| is_retry(answer)));
    assert!(asked.iter().all(|answer| is_retry(answer)));
}

/// More connections than there are places.
const CROWD: usize = 600;

/// Where the crowd comes from.
const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Connections of one address that say nothing, as long as this lives.
enum Crowd {
    Tcp(#[expect(dead_code, reason = "open while it lives")] Vec<TcpStream>),
    Quic(
        #[expect(dead_code, reason = "open while it lives")] Vec<Connection>,
        #[expect(dead_code, reason = "open while it lives")] Endpoint,
    ),
}

impl Crowd {
    async fn gather(way: Way, site: &Site, server: SocketAddr) -> Self {
        match way {
            Way::H2 => {
                let mut silent = Vec::new();
                for _ in 0..CROWD {
                    let socket = TcpSocket::new_v4().unwrap();
                    socket.bind((GREEDY, 0).into()).unwrap();
                    silent.push(socket.connect(server).await.unwrap());
                }
                Self::Tcp(silent)
            }
            Way::Quic => {
                let tls = site.node("edge-1").client(Protocol::Quic);
                let tls = QuicClientConfig::try_from(tls).unwrap();
                let config = ClientConfig::new(Arc::new(tls));
                let endpoint = Endpoint::client((GREEDY, 0).into()).unwrap();
                let mut connecting = JoinSet::new();
                for _ in 0..CROWD {
                    let connect = endpoint.connect_with(config.clone(), server, "tunnel.test");
                    connecting.spawn(connect.unwrap());
                }
                // Those that are refused are the ones too many.
                let connected = connecting.join_all().await;
                let silent = connected.into_iter().filter_map(Result::ok).collect();
                Self::Quic(silent, endpoint)
            }
        }
    }
}

#[tokio::test]
async fn a_crowd_of_one_address_that_says_nothing_keeps_no_other_out() {
    for way in [Way::H2, Way::Quic] {
        let site = Site::new();
        let transport = way.transport(site.server(), Config::default());
        let listener = transport.listen(loopback()).await.unwrap();
        let server = listener.address();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut sessions = Vec::new();
            while let Some(accepted) = listener.accept().await {
                sessions.extend(accepted);
            }
        });
        let crowd = Crowd::gather(way, &site, server).await;
        let edge = way.transport(site.node("edge-1"), Config::default());
        let connect = edge.connect(server, "tunnel.test");
        let connected = timeout(Duration::from_secs(1), connect).await;
        let connected = connected.unwrap_or_else(|_| panic!("{way:?}: it is kept out"));
        connected.unwrap_or_else(|error| panic!("{way:?}: it is refused: {error}"));
        drop(crowd);
    }
}
