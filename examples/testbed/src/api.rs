//! An API server inside the process: HTTPS on a free port, the real server's semantics, no disk.
//!
//! It starts in milliseconds and is deterministic: uids, generated names and revisions are the
//! same in every run. What it leaves out: admission, schemas and validation beyond names,
//! conversion between versions of a CRD, protobuf, garbage collection and every controller
//! (so a deleted namespace stays `Terminating`, as on a bare real server).

mod auth;
mod body;
mod builtin;
mod call;
mod connect;
mod crd;
mod defaults;
mod discovery;
mod lifecycle;
mod list;
mod listener;
mod patch;
mod present;
mod record;
mod reply;
mod request;
mod resource;
mod review;
mod selector;
mod serve;
mod state;
mod status;
mod store;
mod table;
pub(crate) mod tasks;
mod watch;
mod write;

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use self::serve::Server;
pub use self::{
    auth::{Attributes, Authorizer, User},
    record::RequestRecord,
};
use crate::{endpoint::Endpoint, pki::Pki, tokens::TokenIssuer};

/// The token of the administrator when the configuration names no other.
pub const ADMIN_TOKEN: &str = "admin-token";

/// How a server behaves.
#[derive(Clone)]
pub struct ApiConfig {
    /// Its authority; a new one when absent.
    pub pki: Option<Arc<Pki>>,
    /// The bearer token that may do everything.
    pub admin_token: String,
    /// More bearer tokens, and whose they are.
    pub tokens: BTreeMap<String, User>,
    /// Signs the tokens of service accounts.
    pub issuer: Arc<TokenIssuer>,
    /// Decides what anybody but `system:masters` may do; also answers access reviews.
    pub authorizer: Authorizer,
    /// How many changes can be watched or listed again.
    pub history: usize,
    /// How long a reader waits for a revision of the future before 504.
    pub too_large_wait: Duration,
    /// How often a watch gets a bookmark, beside the one before its end.
    pub bookmark_interval: Duration,
    /// HTTP/2 streams per connection.
    pub max_streams: u32,
    /// What time it is.
    pub clock: fn() -> Timestamp,
}

/// A running API server; dropping it ends it.
#[derive(Debug)]
pub struct ApiServer {
    server: Arc<Server>,
    pki: Arc<Pki>,
    addr: SocketAddr,
}

impl ApiServer {
    /// Binds a free port of 127.0.0.1 and serves.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(mut config: ApiConfig) -> io::Result<Self> {
        let pki = config
            .pki
            .get_or_insert_with(|| Arc::new(Pki::new()))
            .clone();
        let admin = User::new("admin", &["system:masters"]);
        config.tokens.insert(config.admin_token.clone(), admin);
        let tls = listener::tls(&pki);
        let server = Arc::new(Server::new(config, pki.ca_pem().to_owned()));
        let addr = listener::listen(&server, tls).await?;
        Ok(Self { server, pki, addr })
    }

    /// Tells how to reach it as the administrator.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("https://{}", self.addr),
            ca_pem: self.pki.ca_pem().to_owned(),
            admin_token: self.server.config.admin_token.clone(),
        }
    }

    /// Returns its authority, for more certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Returns who signs the tokens of service accounts.
    pub fn issuer(&self) -> Arc<TokenIssuer> {
        self.server.config.issuer.clone()
    }

    /// Returns the address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns what was asked so far, in order.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.server.records.all()
    }

    /// Counts the requests of a verb for a resource (`pods`, `pods/status`).
    pub fn count(&self, verb: &str, resource: &str) -> u64 {
        self.server.records.count(verb, resource)
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.server.records.forget();
    }

    /// Returns the current revision.
    pub fn revision(&self) -> u64 {
        self.server.state.lock().store.revision()
    }

    /// Forgets the history up to now: older watches, pages and exact lists get 410.
    pub fn compact(&self) {
        let mut state = self.server.state.lock();
        let revision = state.store.revision();
        state.store.compact(revision);
    }

    /// Ends it and waits until nothing of it is left.
    pub async fn stop(self) {
        self.server.tasks.cancel();
        self.server.tasks.ended().await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.server.tasks.cancel();
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            pki: None,
            admin_token: ADMIN_TOKEN.to_owned(),
            tokens: BTreeMap::new(),
            issuer: Arc::new(TokenIssuer::new(crate::tokens::ISSUER)),
            authorizer: Authorizer::default(),
            history: 10_000,
            too_large_wait: Duration::from_secs(3),
            bookmark_interval: Duration::from_secs(60),
            max_streams: 100,
            clock: Timestamp::now,
        }
    }
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiConfig")
            .field("tokens", &"…")
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}
