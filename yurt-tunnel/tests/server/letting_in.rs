//! Who is let in by certificate and manners, on real sockets, by QUIC and by HTTP/2.

use std::error::Error as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::Endpoint;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use testbed::pki::{Pki, Validity};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsConnector;
use yurt_core::transport::{ErrorKind, Transport};
use yurt_tunnel::dial::Dialled;
use yurt_tunnel::identity::{Credentials, Refusal};
use yurt_tunnel::link;
use yurt_tunnel::transport::NamedTransport;
use yurt_tunnel::transport::h2::H2Transport;
use yurt_tunnel::transport::quic::QuicTransport;

use crate::world::{Agent, Manner, Running, World, config, echoes, ended, is_alive};

/// Whatever takes longer has failed.
const SOON: Duration = Duration::from_secs(20);

pub(crate) const NAME: &str = "127.0.0.1";

/// A way to carry sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Quic,
    Http2,
}

pub(crate) const WAYS: [Way; 2] = [Way::Quic, Way::Http2];

/// A certificate and its key, PEM.
pub(crate) type Shown = Option<(String, String)>;

impl Way {
    pub(crate) fn transport(self, credentials: Credentials) -> Arc<dyn Transport> {
        let link = link::Config::default();
        match self {
            Self::Quic => Arc::new(QuicTransport::new(credentials, link)),
            Self::Http2 => Arc::new(H2Transport::new(credentials, link)),
        }
    }

    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Quic => b"yurt-tunnel/1",
            Self::Http2 => b"h2",
        }
    }

    /// Knocks until it is turned away. Returns nothing: what the server thinks of it is in its metrics.
    async fn knock(self, address: SocketAddr, tls: ClientConfig) {
        match self {
            Self::Quic => {
                let tls = QuicClientConfig::try_from(tls).unwrap();
                let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
                let config = quinn::ClientConfig::new(Arc::new(tls));
                let connecting = endpoint.connect_with(config, address, NAME).unwrap();
                if let Ok(connection) = connecting.await {
                    connection.closed().await;
                }
            }
            Self::Http2 => {
                let socket = TcpStream::connect(address).await.unwrap();
                let name = ServerName::try_from(NAME).unwrap();
                let connector = TlsConnector::from(Arc::new(tls));
                if let Ok(mut stream) = connector.connect(name, socket).await {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            }
        }
    }
}

/// What a client shows, and how it speaks.
pub(crate) fn tls(
    world: &World,
    shown: Shown,
    alpn: &[u8],
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(world.pki.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

pub(crate) async fn server(world: &World) -> Running {
    server_as(world.credentials(NAME)).await
}

async fn server_as(credentials: Credentials) -> Running {
    let named = |name, way: Way| NamedTransport {
        name,
        transport: way.transport(credentials.clone()),
        is_udp: false,
    };
    let transports = vec![named("quic", Way::Quic), named("h2", Way::Http2)];
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Running::open(config(any), credentials, transports).await
}

fn refused(reason: Refusal) -> String {
    format!(
        "yurt_tunnel_server_refusals_total{{reason=\"{}\"}}",
        reason.label()
    )
}

/// Waits until so many peers were refused for this reason.
pub(crate) async fn is_refused(server: &Running, reason: Refusal, times: f64) {
    let metric = refused(reason);
    let counted = async { while server.metric(&metric).await < times {} };
    if timeout(SOON, counted).await.is_err() {
        panic!(
            "{reason:?} is not counted: {}",
            server.page("/metrics").await.1
        );
    }
}

pub(crate) fn node_certificate(pki: &Pki, validity: Validity) -> Shown {
    Some(pki.client_for("system:node:edge-1", &["system:nodes"], validity))
}

#[tokio::test]
async fn a_certificate_that_does_not_prove_a_node_opens_nothing_and_is_counted_by_its_fault() {
    let world = World::new();
    let (from, until) = ("2020-01-01T00:00:00Z", "2049-01-01T00:00:00Z");
    let validity = |from: &str, until: &str| Validity {
        not_before: from.parse().unwrap(),
        not_after: until.parse().unwrap(),
    };
    for way in WAYS {
        let server = server(&world).await;
        for (reason, shown) in [
            (Refusal::NoCertificate, None),
            (
                Refusal::UnknownAuthority,
                node_certificate(&Pki::new(), Validity::default()),
            ),
            (
                Refusal::Expired,
                node_certificate(&world.pki, validity(from, "2021-01-01T00:00:00Z")),
            ),
            (
                Refusal::NotYetValid,
                node_certificate(&world.pki, validity("2048-01-01T00:00:00Z", until)),
            ),
            (Refusal::WrongUsage, Some(world.pki.server(&["edge-1"]))),
        ] {
            let knock = way.knock(server.address, tls(&world, shown, way.alpn(), &TLS13));
            timeout(SOON, knock).await.expect("it is turned away");
            is_refused(&server, reason, 1.0).await;
        }
        assert!(
            server.metric("yurt_tunnel_server_agents").await < 1.0,
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn who_speaks_something_else_is_turned_away_and_counted() {
    let world = World::new();
    let shown = || node_certificate(&world.pki, Validity::default());
    let server = server(&world).await;
    let mut times = 0.0;
    for (way, alpn, version) in [
        (Way::Quic, &b"h3"[..], &TLS13),
        (Way::Http2, b"http/1.1", &TLS13),
        (Way::Http2, b"h2", &TLS12),
    ] {
        let knock = way.knock(server.address, tls(&world, shown(), alpn, version));
        timeout(SOON, knock).await.expect("it is turned away");
        times += 1.0;
        is_refused(&server, Refusal::Protocol, times).await;
    }
}

#[tokio::test]
async fn an_agent_refuses_a_server_that_does_not_prove_to_be_the_one_it_called() {
    let world = World::new();
    let (certificate, key) = node_certificate(&world.pki, Validity::default()).unwrap();
    let agent = world.write("agent", &certificate, &key);
    let expired = Validity {
        not_before: "2020-01-01T00:00:00Z".parse().unwrap(),
        not_after: "2021-01-01T00:00:00Z".parse().unwrap(),
    };
    for way in WAYS {
        for (reason, (certificate, key)) in [
            (
                Refusal::WrongName,
                world.pki.both(&["tunnel.example"], "yurt:tunnel-servers"),
            ),
            (
                Refusal::WrongUsage,
                world.pki.client("127.0.0.1", &["yurt:tunnel-servers"]),
            ),
            (Refusal::Expired, world.pki.server_for(&[NAME], expired)),
            (Refusal::UnknownAuthority, Pki::new().server(&[NAME])),
        ] {
            let credentials = world.write("impostor", &certificate, &key);
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = way.transport(credentials).listen(any).await.unwrap();
            let transport = way.transport(agent.clone());
            let connect = transport.connect(listener.address(), NAME);
            let both = async { tokio::join!(connect, listener.accept()).0 };
            let error = timeout(SOON, both)
                .await
                .expect("it is refused")
                .unwrap_err();
            let why = error.source().and_then(|why| why.downcast_ref::<Refusal>());
            assert_eq!(why, Some(&reason), "{way:?}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Forbidden);
        }
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_bounded_and_let_go_and_agents_come_in_meanwhile() {
    let world = World::new();
    let server = server(&world).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    is_refused(&server, Refusal::TooManyHandshakes, 80.0).await;
    let (certificate, key) = node_certificate(&world.pki, Validity::default()).unwrap();
    let credentials = world.write("agent", &certificate, &key);
    let quic = Way::Quic.transport(credentials.clone());
    let session = timeout(Duration::from_secs(5), quic.connect(server.address, NAME)).await;
    let _agent = Agent::serve(
        session.expect("QUIC is not held up").unwrap(),
        Manner::Echoes,
    );
    let mut dialled: Dialled = server.reaches("edge-1:10250").await;
    echoes(&mut dialled).await;
    // The idle ones are let go in the time of a handshake, and others have their places.
    is_refused(&server, Refusal::HandshakeTimeout, 500.0).await;
    let http2 = Way::Http2.transport(credentials);
    http2.connect(server.address, NAME).await.unwrap();
}

#[tokio::test]
async fn who_has_a_certificate_and_never_says_hello_is_let_go() {
    let world = World::new();
    let server = server(&world).await;
    let silent = |way: Way| {
        let shown = node_certificate(&world.pki, Validity::default());
        way.knock(server.address, tls(&world, shown, way.alpn(), &TLS13))
    };
    let both = async { tokio::join!(silent(Way::Quic), silent(Way::Http2)) };
    timeout(SOON, both).await.expect("both are let go");
    is_refused(&server, Refusal::HandshakeTimeout, 2.0).await;
    assert!(server.metric("yurt_tunnel_server_agents").await < 1.0);
}

/// An agent of a node, with a certificate of this authority.
pub(crate) async fn agent(
    world: &World,
    way: Way,
    node: &str,
    pki: &Pki,
    server: &Running,
) -> Agent {
    let user = format!("system:node:{node}");
    let (certificate, key) = pki.client(&user, &["system:nodes"]);
    let transport = way.transport(world.write(node, &certificate, &key));
    let session = transport.connect(server.address, NAME).await.unwrap();
    Agent::serve(session, Manner::Echoes)
}

#[tokio::test]
async fn whose_authority_is_believed_no_more_is_sent_away_at_once_and_the_others_stay() {
    let world = World::new();
    let other = Pki::new();
    for way in WAYS {
        let credentials = world.credentials(NAME);
        world.believe(NAME, &[&world.pki, &other]);
        credentials.reload().unwrap();
        let server = server_as(credentials.clone()).await;
        let gone = agent(&world, way, "edge-1", &world.pki, &server).await;
        let _stays = agent(&world, way, "edge-2", &other, &server).await;
        let mut dialled = server.reaches("edge-2:10250").await;
        echoes(&mut server.reaches("edge-1:10250").await).await;
        world.believe(NAME, &[&other]);
        credentials.reload().unwrap();
        let reason = ended(&*gone.session).await;
        assert_eq!(
            reason, "it has a certificate of an unknown authority",
            "{way:?}"
        );
        assert!(is_alive(&mut dialled).await, "{way:?}");
        is_refused(&server, Refusal::UnknownAuthority, 1.0).await;
    }
}
