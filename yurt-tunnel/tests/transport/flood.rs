//! Addresses that begin handshakes of QUIC and never go on, as who invents them does.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use tokio::net::UdpSocket;
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
