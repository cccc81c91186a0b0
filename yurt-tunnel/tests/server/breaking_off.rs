//! Handshakes that end in the middle, as those of agents whose other transport was faster do: nobody else notices.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, VarInt};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use socket2::SockRef;
use testbed::pki::Validity;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use yurt_tunnel::identity::Refusal;

use crate::letting_in::{NAME, Shown, WAYS, Way, is_refused, node_certificate, server, tls};
use crate::world::{Agent, Manner, World, echoes};

/// How long the server may take to react to what a peer does.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a handshake ends before its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The connection closes before the control stream is there.
    Early,
    /// The connection closes.
    Close,
    /// The connection is reset.
    Reset,
    /// The control stream ends.
    EndOfStream,
    /// The control stream is reset.
    ResetOfStream,
    /// The control stream ends within a message.
    HalfMessage,
    /// The control stream carries something else.
    Garbage,
}

const ENDINGS: [Ending; 7] = [
    Ending::Early,
    Ending::Close,
    Ending::Reset,
    Ending::EndOfStream,
    Ending::ResetOfStream,
    Ending::HalfMessage,
    Ending::Garbage,
];

impl Ending {
    /// What the server counts.
    fn refusal(self) -> Refusal {
        match self {
            Self::Garbage => Refusal::Protocol,
            _ => Refusal::HungUp,
        }
    }

    /// What the control stream carries.
    fn said(self) -> &'static [u8] {
        match self {
            Self::HalfMessage => &[1, 0],
            Self::Garbage => &[0xff; 64],
            _ => &[],
        }
    }
}

/// A certificate of the authority that is neither a node's nor a server's: it is looked at after the handshake.
fn stranger(world: &World) -> Shown {
    Some(world.pki.client("stranger", &[]))
}

async fn break_off(way: Way, world: &World, address: SocketAddr, ending: Ending) {
    let tls = tls(world, stranger(world), way.alpn(), &TLS13);
    match way {
        Way::Quic => break_off_quic(address, tls, ending).await,
        Way::Http2 => break_off_http2(address, tls, ending).await,
    }
}

async fn break_off_quic(address: SocketAddr, tls: rustls::ClientConfig, ending: Ending) {
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = ClientConfig::new(Arc::new(tls));
    let connecting = endpoint.connect_with(config, address, NAME).unwrap();
    let connection = connecting.await.unwrap();
    if ending == Ending::Early {
        connection.close(VarInt::from_u32(0), b"");
        return endpoint.wait_idle().await;
    }
    let (mut send, _receive) = connection.accept_bi().await.unwrap();
    send.write_all(ending.said()).await.unwrap();
    match ending {
        Ending::Early | Ending::Close => connection.close(VarInt::from_u32(0), b"another won"),
        // What QUIC knows of a crash: nothing comes any more, and others are told so.
        Ending::Reset => connection.close(VarInt::from_u32(7), b""),
        Ending::EndOfStream | Ending::HalfMessage => send.finish().unwrap(),
        Ending::ResetOfStream => send.reset(VarInt::from_u32(1)).unwrap(),
        Ending::Garbage => {}
    }
    let closed = timeout(PATIENCE, connection.closed()).await;
    closed.expect("the server gives it up");
}

async fn break_off_http2(address: SocketAddr, tls: rustls::ClientConfig, ending: Ending) {
    let socket = TcpStream::connect(address).await.unwrap();
    if ending == Ending::Reset {
        let now = Some(Duration::ZERO);
        SockRef::from(&socket).set_linger(now).unwrap();
    }
    let name = ServerName::try_from(NAME).unwrap();
    let connector = TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(name, socket).await.unwrap();
    let mut connection: h2::server::Connection<TlsStream<TcpStream>, Bytes> =
        h2::server::handshake(stream).await.unwrap();
    let mut hello = next(&mut connection).await;
    let response = Response::builder()
        .header("yurt-session", "a".repeat(32))
        .header("yurt-lane", "interactive");
    hello
        .send_response(response.body(()).unwrap(), true)
        .unwrap();
    if ending == Ending::Early {
        let _flushed = timeout(Duration::from_millis(50), connection.accept()).await;
        return;
    }
    let mut pipe = next(&mut connection).await;
    let mut send = pipe.send_response(Response::new(()), false).unwrap();
    end_http2(&mut send, ending);
    if matches!(ending, Ending::Close | Ending::Reset) {
        return;
    }
    let closed = async { while let Some(Ok(_)) = connection.accept().await {} };
    timeout(PATIENCE, closed)
        .await
        .expect("the server gives it up");
}

fn end_http2(send: &mut SendStream<Bytes>, ending: Ending) {
    let said = Bytes::from_static(ending.said());
    match ending {
        Ending::Early | Ending::Close | Ending::Reset => {}
        Ending::EndOfStream | Ending::HalfMessage => send.send_data(said, true).unwrap(),
        Ending::ResetOfStream => send.send_reset(Reason::CANCEL),
        Ending::Garbage => send.send_data(said, false).unwrap(),
    }
}

async fn next(
    connection: &mut h2::server::Connection<TlsStream<TcpStream>, Bytes>,
) -> SendResponse<Bytes> {
    let next = timeout(PATIENCE, connection.accept()).await;
    next.expect("the server goes on").unwrap().unwrap().1
}

#[tokio::test]
async fn a_handshake_that_ends_in_the_middle_keeps_no_agent_out() {
    let world = World::new();
    let mut kept_out = Vec::new();
    for way in WAYS {
        for ending in ENDINGS {
            let server = server(&world).await;
            break_off(way, &world, server.address, ending).await;
            is_refused(&server, ending.refusal(), 1.0).await;
            let honest = async {
                let (certificate, key) = node_certificate(&world.pki, Validity::default()).unwrap();
                let transport = way.transport(world.write("edge-1", &certificate, &key));
                let session = transport.connect(server.address, NAME).await.ok()?;
                Some(Agent::serve(session, Manner::Echoes))
            };
            match timeout(PATIENCE, honest).await {
                Ok(Some(_agent)) => echoes(&mut server.reaches("edge-1:10250").await).await,
                _ => kept_out.push((way, ending)),
            }
        }
    }
    assert_eq!(kept_out, []);
}
