//! How QUIC is set up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use yurt_core::transport::{Error, ErrorKind, Result};

use super::congestion::SteadyFactory;
use crate::identity::Credentials;
use crate::link::Config;

/// Streams that the end that accepts could open: none, and a few for a later version.
const PEERS_STREAMS: u8 = 4;

/// A thousand agents hear of a restart within a second; each answer is smaller than what it answers.
const RESET_EVERY: Duration = Duration::from_millis(1);

/// What the control pipe has of the connection's window when nothing else is read.
const CONTROL: u64 = 1 << 20;

/// Bytes that wait to be acknowledged, all streams together.
const SEND_WINDOW: u64 = 16 << 20;

pub(super) fn client(tls: &Arc<rustls::ClientConfig>, config: &Config) -> Result<ClientConfig> {
    let tls = QuicClientConfig::try_from(tls.clone()).map_err(unusable)?;
    let mut client = ClientConfig::new(Arc::new(tls));
    // More than the link allows: QUIC tells of places that are free again an eighth of them at a time.
    let pipes = config.streams + config.streams / 4 + 8;
    let pipes = VarInt::from_u64(pipes).unwrap_or(VarInt::MAX);
    client.transport_config(Arc::new(transport(config, pipes)));
    Ok(client)
}

pub(super) fn server(tls: &Arc<rustls::ServerConfig>, config: &Config) -> Result<ServerConfig> {
    let tls = QuicServerConfig::try_from(tls.clone()).map_err(unusable)?;
    let mut server = ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(Arc::new(transport(config, PEERS_STREAMS.into())));
    Ok(server)
}

/// How a listener is set up that tells the peers of its former life, when they next say something, that it knows
/// them no more (stateless reset, RFC 9000, section 10.3): else they would wait for their patience to end.
///
/// What it tells them with is of this machine and this address alone, as all servers may have one key: a packet that
/// strays to another server must not end the session (section 21.11).
pub(super) fn surviving(credentials: &Credentials, address: SocketAddr) -> EndpointConfig {
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    let secret =
        |of: &str| credentials.secret(format!("{of} at {address} of {machine}").as_bytes());
    let resets = secret("yurt-tunnel: resets of QUIC");
    let [a, b, c, d, e, f, g, h, ..] = secret("yurt-tunnel: connections of QUIC");
    let connections = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &resets)));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connections)))
        .min_reset_interval(RESET_EVERY);
    config
}

/// What is read is told to the peer an eighth of the window at a time: without so much beyond what streams may hold,
/// a peer that has used up their credit could not even answer.
fn connection_window(config: &Config) -> u64 {
    let unread = config.most_unread();
    unread.saturating_add(unread / 4).saturating_add(CONTROL)
}

fn transport(config: &Config, pipes: VarInt) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let window = |bytes| VarInt::from_u64(bytes).unwrap_or(VarInt::MAX);
    // The link notices a silence; this is for a link that is not there any more.
    let idle = IdleTimeout::try_from(config.idle.saturating_mul(2).max(config.liveness)).ok();
    transport
        .max_concurrent_bidi_streams(pipes)
        .max_concurrent_uni_streams(0_u8.into())
        .max_idle_timeout(idle)
        // The link gives credit; these bound a peer that does not keep to it.
        .stream_receive_window(window(config.max_window))
        .receive_window(window(connection_window(config)))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(SteadyFactory));
    transport
}

fn unusable(source: quinn::crypto::rustls::NoInitialCipherSuite) -> Error {
    Error::new(ErrorKind::Other, "use TLS for QUIC").with_source(source)
}
