//! Peers that have a certificate and no manners.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use yurt_core::transport::{ErrorKind, Listener, Open, Opener, State, Target};
use yurt_tunnel::identity::Protocol;
use yurt_tunnel::link::Config;
use yurt_tunnel::wire::{Answer, Frame, Hello, PREFIX, Prefix, VERSION};

use crate::site::{Site, Way, loopback};

const PATIENCE: Duration = Duration::from_secs(20);

/// An agent that says on its pipes whatever a test wants.
struct Rude {
    connection: Connection,
    control: (SendStream, RecvStream),
    _endpoint: Endpoint,
}

impl Rude {
    async fn connect(site: &Site, address: SocketAddr) -> Self {
        let tls = site.node("edge-1").client(Protocol::Quic);
        let tls = QuicClientConfig::try_from(tls).unwrap();
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = ClientConfig::new(Arc::new(tls));
        let connecting = endpoint
            .connect_with(config, address, "tunnel.test")
            .unwrap();
        let connection = connecting.await.unwrap();
        let control = connection.accept_bi().await.unwrap();
        Self {
            connection,
            control,
            _endpoint: endpoint,
        }
    }

    async fn say(&mut self, bytes: &[u8]) {
        // The other end may have had enough already.
        let _ = self.control.0.write_all(bytes).await;
    }

    async fn say_frame(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.say(&bytes).await;
    }

    async fn say_hello(&mut self) {
        let hello = Hello {
            version: VERSION,
            streams: 10,
            window: 1 << 16,
            tells_ends: false,
            takes_credit_back: false,
        };
        self.say_frame(&Frame::Hello(hello)).await;
    }

    /// Takes the next stream and says that it stands.
    async fn accept(&self) -> (SendStream, RecvStream) {
        let (mut send, mut receive) = self.connection.accept_bi().await.unwrap();
        let mut prefix = [0; PREFIX];
        receive.read_exact(&mut prefix).await.unwrap();
        let mut body = vec![0; Prefix::decode(prefix).unwrap().len];
        receive.read_exact(&mut body).await.unwrap();
        let mut answer = Vec::new();
        Answer::Accepted.encode(&mut answer);
        send.write_all(&answer).await.unwrap();
        (send, receive)
    }
}

async fn listen(site: &Site) -> Box<dyn Listener> {
    let cloud = Way::Quic.transport(site.server(), Config::default());
    cloud.listen(loopback()).await.unwrap()
}

/// A session with an agent that has said hello, and nothing else so far.
async fn session(site: &Site) -> (Arc<dyn Opener>, Rude, Box<dyn Listener>) {
    let listener = listen(site).await;
    let connect = async {
        let mut rude = Rude::connect(site, listener.address()).await;
        rude.say_hello().await;
        rude
    };
    let (rude, opener) = tokio::join!(connect, listener.accept());
    (opener.unwrap().unwrap(), rude, listener)
}

/// Why the session has ended.
async fn end(opener: &Arc<dyn Opener>) -> (ErrorKind, String) {
    let mut state = opener.state();
    let ended = state.wait_for(|state| matches!(state, State::Closed { .. }));
    let ended = timeout(PATIENCE, ended)
        .await
        .expect("the session ends")
        .unwrap();
    match &*ended {
        State::Closed { kind, reason } => (*kind, reason.clone()),
        State::Open | State::Draining => unreachable!("it was waited for"),
    }
}

#[tokio::test]
async fn a_hello_that_is_none_or_of_another_version_makes_no_session() {
    let other = Frame::Hello(Hello {
        version: VERSION + 1,
        streams: 1,
        window: 1,
        tells_ends: false,
        takes_credit_back: false,
    });
    let mut other_version = Vec::new();
    other.encode(&mut other_version);
    for said in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0xff; 64],
        &[3, 0, 1, 0],
        &[1, 0, 1, 1],
        &other_version,
    ] {
        let site = Site::new();
        let listener = listen(&site).await;
        let connect = async {
            let mut rude = Rude::connect(&site, listener.address()).await;
            rude.say(said).await;
            rude.connection.closed().await
        };
        let both = async { tokio::join!(connect, listener.accept()) };
        let (_, refused) = timeout(PATIENCE, both)
            .await
            .expect("it is refused at once");
        assert_eq!(
            refused.unwrap().unwrap_err().kind(),
            ErrorKind::Protocol,
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn a_message_that_would_be_too_long_or_is_broken_ends_the_session() {
    for said in [
        [2, 0xff, 0xff].as_slice(),
        &[2, 0, 1, 0x80],
        &[6, 0, 2, 1, 0xff],
        &[1, 0, 3, 1, 1, 1],
    ] {
        let site = Site::new();
        let (opener, mut rude, _listener) = session(&site).await;
        rude.say(said).await;
        let (kind, reason) = end(&opener).await;
        assert_eq!(kind, ErrorKind::Protocol, "{said:?}: {reason}");
    }
}

#[tokio::test]
async fn frames_of_a_later_version_and_credit_for_no_stream_are_nothing_to_us() {
    let site = Site::new();
    let (opener, mut rude, _listener) = session(&site).await;
    rude.say(&[200, 0, 3, 1, 2, 3]).await;
    rude.say_frame(&Frame::Credit {
        stream: 999,
        limit: 1,
    })
    .await;
    rude.say_frame(&Frame::Pong(12345)).await;
    let open = opener.open(Open::new(Target::Echo, PATIENCE));
    let (opened, _) = tokio::join!(open, rude.accept());
    opened.unwrap();
    assert_eq!(*opener.state().borrow(), State::Open);
}

#[tokio::test]
async fn bytes_without_credit_end_their_stream_and_no_other() {
    let site = Site::new();
    let (opener, rude, _listener) = session(&site).await;
    let open = || opener.open(Open::new(Target::Echo, PATIENCE));
    let (first, (mut send, _receive)) = tokio::join!(open(), rude.accept());
    let (second, (mut other, _other_receive)) = tokio::join!(open(), rude.accept());
    let (mut first, mut second) = (first.unwrap(), second.unwrap());
    // QUIC's own window, which is far beyond the credit, holds it up.
    let piece = vec![1; 1 << 20];
    let flood = async { while send.write_all(&piece).await.is_ok() {} };
    timeout(Duration::from_secs(2), flood)
        .await
        .expect_err("it is held up");
    let mut buffer = vec![0; 16 << 20];
    let read = timeout(PATIENCE, first.read(&mut buffer));
    let error = read.await.expect("the stream fails").unwrap_err();
    let kind = yurt_core::transport::Error::of(&error).unwrap().kind();
    assert_eq!(kind, ErrorKind::Protocol);
    other.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    timeout(PATIENCE, second.read_exact(&mut heard))
        .await
        .expect("another goes on")
        .unwrap();
    assert_eq!(*opener.state().borrow(), State::Open);
}

#[tokio::test]
async fn a_peer_that_asks_without_listening_is_ended_before_it_costs_much() {
    let site = Site::new();
    let (opener, mut rude, _listener) = session(&site).await;
    let mut pings = Vec::new();
    for number in 0..10_000 {
        Frame::Ping(number).encode(&mut pings);
    }
    // It never reads the answers: they wait, and at some point its questions do.
    let ask = async {
        for _ in 0..2_000 {
            if rude.control.0.write_all(&pings).await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), ask).await;
    drop(rude);
    end(&opener).await;
}

#[tokio::test]
async fn an_answer_that_is_none_fails_the_open_and_not_the_session() {
    let site = Site::new();
    let (opener, rude, _listener) = session(&site).await;
    let answer = async {
        let (mut send, _receive) = rude.connection.accept_bi().await.unwrap();
        send.write_all(&[0xee; 600]).await.unwrap();
        send
    };
    let (opened, _send) = tokio::join!(opener.open(Open::new(Target::Echo, PATIENCE)), answer);
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(*opener.state().borrow(), State::Open);
}
