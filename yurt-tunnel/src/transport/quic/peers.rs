//! Peers on their way to a session, side by side and bounded.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Connection, ConnectionError, Endpoint, Incoming, ServerConfig};
use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use yurt_core::transport::{Error, Opener, Peer, Result};

use super::carrier::QuicCarrier;
use super::config;
use crate::identity::{self, Credentials, Protocol, Refusal};
use crate::link::{Config, Role};
use crate::transport::handshake::{
    Handshakes as Pool, MAX_HANDSHAKES, User, no_session, refusal, refusal_for,
};
use crate::transport::session::Handle;

/// From here on a peer has to show that its address is its own before it costs anything.
const RETRY_FROM: usize = MAX_HANDSHAKES / 4;

/// Errors of QUIC that carry a TLS alert (RFC 9001, section 4.8).
const CRYPTO_ERRORS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

pub(super) struct Handshakes {
    credentials: Credentials,
    config: Config,
    running: Pool<Arc<dyn Opener>>,
    /// The configuration of the credentials of now: connections share it.
    current: Option<(Arc<rustls::ServerConfig>, Arc<ServerConfig>)>,
}

impl Handshakes {
    pub(super) fn new(credentials: Credentials, config: Config) -> Self {
        Self {
            credentials,
            config,
            running: Pool::new(),
            current: None,
        }
    }

    /// Returns the next peer, or why one was refused; `None` when the socket is closed. Cancel safe.
    pub(super) async fn next(&mut self, endpoint: &Endpoint) -> Option<Result<Arc<dyn Opener>>> {
        loop {
            tokio::select! {
                shaken = self.running.next() => return Some(shaken),
                incoming = endpoint.accept() => {
                    if let Err(error) = self.begin(incoming?) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    fn server_config(&mut self) -> Result<Arc<ServerConfig>> {
        let tls = self.credentials.server(Protocol::Quic);
        match &self.current {
            Some((of, config)) if Arc::ptr_eq(of, &tls) => Ok(config.clone()),
            _ => {
                let config = Arc::new(config::server(&tls, &self.config)?);
                self.current = Some((tls, config.clone()));
                Ok(config)
            }
        }
    }

    fn begin(&mut self, incoming: Incoming) -> Result<()> {
        let address = incoming.remote_address();
        if self.running.len() >= RETRY_FROM && incoming.may_retry() {
            // The peer comes again with a token, or it was none.
            let _ = incoming.retry();
            return Ok(());
        }
        let config = self.server_config()?;
        let limits = self.config.clone();
        // One that is dropped is refused.
        self.running.begin(address, |user: User| async move {
            let connecting = incoming.accept_with(config);
            let connecting = connecting.map_err(|error| refused(address, error))?;
            let connection = connecting.await.map_err(|error| refused(address, error))?;
            let peer = peer(&connection)?;
            user.get_or_init(|| peer.user.clone());
            let carrier = QuicCarrier::new(connection);
            let session = Handle::begin(carrier, peer.clone(), Role::Opener, limits).await;
            let session = session.map_err(|error| no_session(address, &peer, &error))?;
            Ok(Arc::new(session) as Arc<dyn Opener>)
        })
    }
}

/// Who is at the other end of a connection whose certificate TLS has verified.
pub(super) fn peer(connection: &Connection) -> Result<Peer> {
    let address = connection.remote_address();
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let peer = identity::shown(chain.as_ref().map(|chain| chain.as_slice()));
    peer.map_err(|why| refusal(address, why))
}

/// Why there is no connection, or no longer one.
pub(super) fn refused(address: SocketAddr, error: ConnectionError) -> Error {
    let known = match &error {
        ConnectionError::TransportError(ours) => of_code(u64::from(ours.code), &ours.reason),
        ConnectionError::ConnectionClosed(theirs) => of_code(
            u64::from(theirs.error_code),
            &String::from_utf8_lossy(&theirs.reason),
        ),
        ConnectionError::VersionMismatch => Some(Refusal::Protocol),
        ConnectionError::TimedOut => Some(Refusal::HandshakeTimeout),
        _ => None,
    };
    match known {
        Some(known) => refusal(address, known),
        None => refusal_for(address, Refusal::HungUp, error),
    }
}

fn of_code(code: u64, reason: &str) -> Option<Refusal> {
    if !CRYPTO_ERRORS.contains(&code) {
        return None;
    }
    let alert = u8::try_from(code & 0xff).unwrap_or_default();
    // TLS has one alert for several faults of a certificate, rustls has words for each.
    Some(match Refusal::of_alert(AlertDescription::from(alert)) {
        Refusal::Expired if reason.contains("not valid yet") => Refusal::NotYetValid,
        Refusal::Other if reason.contains("not valid for name") => Refusal::WrongName,
        // An authority of the same name, as every cluster's is, and another key.
        Refusal::Other if reason.contains("BadSignature") => Refusal::UnknownAuthority,
        refusal => refusal,
    })
}
