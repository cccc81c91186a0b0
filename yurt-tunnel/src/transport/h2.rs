//! HTTP/2 over TLS 1.3 on TCP, for networks that let nothing else through.
//!
//! The end that connects is the *server* of HTTP/2, so that the end that listened can open streams. A session
//! begins with one connection. When the first of its streams turns out to be bulk, the peer is asked for a second
//! connection, and bulk moves there: what waits in one TCP connection's queue delays everything behind it. Its end
//! takes no more than what is on it, and it is closed when nothing is.

mod accepting;
mod carrier;
mod lane;
mod listener;
mod opening;
mod pipe;
mod second;
mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::timeout;
use yurt_core::transport::{Acceptor, Listener, Result, Transport};

use self::accepting::AcceptingCarrier;
use self::lane::Place;
use self::listener::H2Listener;
use super::handshake::{HANDSHAKE_LIMIT, slow};
use super::session::Handle;
use crate::identity::Credentials;
use crate::link::{Config, Role};

/// The tunnel over HTTP/2.
#[derive(Clone)]
pub struct H2Transport {
    credentials: Credentials,
    config: Config,
}

impl H2Transport {
    /// Returns the transport of who has these credentials.
    #[must_use]
    pub fn new(credentials: Credentials, config: Config) -> Self {
        Self {
            credentials,
            config,
        }
    }
}

impl fmt::Debug for H2Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("H2Transport")
    }
}

#[async_trait]
impl Transport for H2Transport {
    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Arc<dyn Acceptor>> {
        let place = Place {
            address,
            name: name.to_owned(),
            credentials: self.credentials.clone(),
            config: self.config.clone(),
            wire: Arc::default(),
        };
        let shake = async {
            let (carrier, peer) = AcceptingCarrier::connect(place).await?;
            Handle::begin(carrier, peer, Role::Acceptor, self.config.clone()).await
        };
        let session = timeout(HANDSHAKE_LIMIT, shake)
            .await
            .map_err(|_| slow(address))??;
        Ok(Arc::new(session))
    }

    async fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>> {
        let listener = H2Listener::bind(address, self.credentials.clone(), self.config.clone())?;
        Ok(Box::new(listener))
    }
}
