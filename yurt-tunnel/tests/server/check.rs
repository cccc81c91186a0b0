//! The check of a node says where the way to it breaks.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use yurt_tunnel::identity::Protocol;

use crate::world::{Manner, Running, World, at};

const KNOWN: &str = "[+] node edge-1 is known, at the edge, at 10.1.0.1, kubelet port 10250\n";

/// The report with times and ports left out.
async fn report(server: &Running, node: &str) -> (u16, String) {
    let (code, text) = server.page(&format!("/check?node={node}")).await;
    let mut parts = text.split(" in ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_time = part.starts_with(|c: char| c.is_ascii_digit());
        let rest = part.split_once(" ms").filter(|_| is_time);
        text += &rest.map_or(format!(" in {part}"), |(_, rest)| format!(" in N ms{rest}"));
    }
    let from = text
        .find("198.51.100.1:")
        .map(|at| at + "198.51.100.1:".len());
    let text = match from {
        None => text,
        Some(from) => {
            let digits = text[from..].bytes().take_while(u8::is_ascii_digit).count();
            format!("{}N{}", &text[..from], &text[from + digits..])
        }
    };
    (code, text)
}

/// What a kubelet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    OurCertificate,
    AnotherCertificate,
    NoTls,
}

/// A kubelet of sorts.
async fn kubelet(world: &World, shows: Shows) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = World::new();
    let credentials = match shows {
        Shows::OurCertificate | Shows::NoTls => world.credentials("10.1.0.1"),
        Shows::AnotherCertificate => other.credentials("10.1.0.1"),
    };
    let acceptor = TlsAcceptor::from(credentials.server(Protocol::Door));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if shows == Shows::NoTls {
                let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n").await;
            } else {
                let _ = acceptor.accept(stream).await;
            }
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn a_way_to_the_kubelet_is_told_step_by_step_up_to_its_certificate() {
    let world = World::new();
    let server = world.alone().await;
    for (shows, code, last) in [
        (
            Shows::OurCertificate,
            200,
            "[+] TLS works, with a certificate of our authority",
        ),
        (
            Shows::AnotherCertificate,
            200,
            "[+] TLS works; the certificate is not of our authority",
        ),
        (Shows::NoTls, 503, "[-] the TLS handshake failed"),
    ] {
        let (address, _kubelet) = kubelet(&world, shows).await;
        let agent = world.agent("edge-1", &server, Manner::Dials(address)).await;
        let report = report(&server, "edge-1").await;
        let steps = format!(
            "{KNOWN}\
             [+] the agent is connected from 198.51.100.1:N; bytes come back in N ms\n\
             [+] the agent has dialled 10.1.0.1:10250 in N ms\n\
             {last}"
        );
        assert!(
            report.0 == code && report.1.starts_with(&steps),
            "{report:?}"
        );
        agent.session.close("the next one").await;
        while server.metric("yurt_tunnel_server_agents").await > 0.0 {}
    }
}

#[tokio::test]
async fn a_way_that_breaks_is_told_up_to_where_it_does() {
    let world = World::new();
    let server = world.alone().await;
    let unknown =
        "[-] node edge-9 is unknown: it is neither a Node object nor in the file of nodes\n";
    assert_eq!(report(&server, "edge-9").await, (503, unknown.to_owned()));
    let nowhere = "[-] the agent of edge-1 is not connected, and there is no other server\n";
    let nowhere = format!("{KNOWN}{nowhere}");
    assert_eq!(report(&server, "edge-1").await, (503, nowhere));
    let agent = world.agent("edge-1", &server, Manner::Refuses).await;
    let refused = format!(
        "{KNOWN}\
         [+] the agent is connected from 198.51.100.1:N; bytes come back in N ms\n\
         [-] dial 10.1.0.1:10250: the connection is refused\n"
    );
    assert_eq!(report(&server, "edge-1").await, (503, refused));
    drop(agent);
    let direct = "[+] node cloud-1 is known, not at the edge, at 127.0.0.1, kubelet port 1\n\
                  [-] 127.0.0.1:1 refuses the connection\n";
    assert_eq!(report(&server, "cloud-1").await, (503, direct.to_owned()));
}

#[tokio::test]
async fn a_node_whose_agent_is_elsewhere_is_checked_through_the_other_server() {
    let world = World::new();
    let first = world
        .server(at(1), |config| config.peers = vec![at(2).into()])
        .await;
    let second = world
        .server(at(2), |config| config.peers = vec![at(1).into()])
        .await;
    let _agent = world.agent("edge-1", &second, Manner::Refuses).await;
    while first.metric("yurt_tunnel_server_peers").await < 1.0 {}
    let expected = format!(
        "{KNOWN}\
         [+] the agent of edge-1 is not connected here; the other server is asked\n\
         [-] dial 10.1.0.1:10250: the connection is refused\n"
    );
    assert_eq!(report(&first, "edge-1").await, (503, expected));
}
