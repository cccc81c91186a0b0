//! Tells who a bearer token's holder is: by the cluster's keys, by the hub's own, and by what the cloud said of
//! the token while it was there. Online the cloud has the last word; cut off, this has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;
use yurt_core::store::{Batch, Result, Store};

use super::caller::{Caller, Identified, Issuer, Refused, Stranger, Subject, Token};
use super::clock::Clock;
use super::contact::Contact;
use super::issued_tokens::IssuedTokens;
use super::judge::{Denied, JudgedAt, TokenStatus, judge};
use super::local_issuer::{self, LocalIssuer, Purpose};
use super::refusals::Refusals;
use super::token::Jwt;
use super::token_cache::TokenCache;
use super::trust::{SavedTrust, Trust, Vouch};
use crate::codec::Status;
use crate::store::layout::CLUSTER;
use crate::tasks::Tasks;

/// How long the cloud's word on a token is used for answers from mirrors: as the kubelet caches a TokenReview.
const RECOGNISED_FOR: Duration = Duration::from_secs(120);

/// How old keys may be that say that a token which names one of them is forged.
const KEYS_COUNT_FOR: Duration = Duration::from_secs(2 * 3_600);

/// Tokens whose signature is not verified again at each request.
const VERIFIED: usize = 1_024;

/// Who stands behind tokens.
#[derive(Debug)]
pub(crate) struct Authenticator {
    pub(crate) contact: Arc<Contact>,
    pub(super) token_cache: TokenCache,
    /// Tokens that the cloud made for this node's pods.
    pub(crate) issued: IssuedTokens,
    /// Makes tokens for them while it is away.
    pub(crate) local_issuer: Arc<LocalIssuer>,
    pub(super) minted: AtomicU64,
    /// Handshakes of the node with a certificate that is not valid now.
    pub(super) forgiven: AtomicU64,
    store: Arc<dyn Store>,
    tasks: Tasks,
    pub(crate) clock: Arc<Clock>,
    limit: Duration,
    cluster: RwLock<Option<Arc<Trust>>>,
    verified: Mutex<HashMap<Arc<str>, Arc<Identified>>>,
    /// When the cluster's keys were asked for that are in use.
    keys_fetched: Mutex<Option<Instant>>,
    refusals: Mutex<Refusals>,
    /// A token came by a key that is not known.
    pub(super) wanted: Notify,
    /// Whom the cloud has recognised lately: it may ask for the keys where the node may not.
    pub(super) guide: Mutex<Option<Caller>>,
}

impl Authenticator {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        tasks: Tasks,
        (clock, contact): (Arc<Clock>, Arc<Contact>),
        limit: Duration,
        (issued, local_issuer): (IssuedTokens, Arc<LocalIssuer>),
    ) -> Result<Self> {
        // What is damaged is fetched again.
        let saved = store.get(CLUSTER.as_bytes()).ok().flatten();
        let saved: Option<SavedTrust> = saved.and_then(|saved| serde_json::from_slice(&saved).ok());
        let cluster = saved.and_then(Trust::from_saved).map(Arc::new);
        Ok(Self {
            contact,
            token_cache: TokenCache::open(store.clone(), tasks.clone())?,
            issued,
            local_issuer,
            minted: AtomicU64::new(0),
            forgiven: AtomicU64::new(0),
            store,
            tasks,
            clock,
            limit,
            cluster: RwLock::new(cluster),
            verified: Mutex::default(),
            keys_fetched: Mutex::default(),
            refusals: Mutex::default(),
            wanted: Notify::new(),
            guide: Mutex::default(),
        })
    }

    /// Reads the caller of a request without a client certificate, which came from `source`; `None` if it names nobody.
    /// Whether it may come in is not said yet.
    pub(crate) fn identify(&self, headers: &HeaderMap, source: IpAddr) -> Option<Caller> {
        let token = Token::from_headers(headers)?;
        let known = self.verified.lock().get(token.digest()).cloned();
        if known.is_none() && self.refusals.lock().has(token.digest(), Instant::now()) {
            let refused = Some(Refused::Lately);
            return Some(Caller::Token(token.of(Some(Stranger { source, refused }))));
        }
        let (identified, refused) = match known {
            Some(known) => (Some(known), None),
            None => self.verify(&token),
        };
        let is_stranger = match self.token_cache.standing(token.digest()) {
            TokenStatus::Seen => false,
            TokenStatus::Refused => true,
            TokenStatus::Unknown => identified.as_ref().is_none_or(|one| one.subject.is_none()),
        };
        let stranger = is_stranger.then_some(Stranger { source, refused });
        Some(Caller::Token(token.identified(identified).of(stranger)))
    }

    /// Returns if the cloud may be asked in the caller's name: not with a token that it cannot take, or refused just now.
    ///
    /// # Errors
    /// 401 with the reason.
    pub(crate) fn check_stranger(&self, caller: &Caller) -> std::result::Result<(), Status> {
        let Caller::Token(token) = caller else {
            return Ok(());
        };
        match token.stranger().and_then(|stranger| stranger.refused) {
            Some(refused) => {
                tracing::debug!(%refused, "a token is refused without the cloud");
                Err(Status::unauthorized())
            }
            None => Ok(()),
        }
    }

    /// Returns what a token says and who vouches for it, and why it is refused if that is sure.
    fn verify(&self, token: &Token) -> (Option<Arc<Identified>>, Option<Refused>) {
        let Ok(jwt) = Jwt::parse(token.secret()) else {
            return (None, None);
        };
        let validity = jwt.claims.validity;
        let (vouch, issuer) = self.vouch(&jwt);
        let fetched = *self.keys_fetched.lock();
        let are_keys_of = |age| fetched.is_some_and(|fetched| fetched.elapsed() < age);
        let account = match vouch {
            Vouch::For(account) => account,
            Vouch::Forged if issuer == Issuer::Hub || are_keys_of(KEYS_COUNT_FOR) => {
                return (Some(unknown(validity)), Some(Refused::Forged));
            }
            Vouch::UnknownKey => {
                self.wanted.notify_one();
                return (Some(unknown(validity)), None);
            }
            Vouch::Forged | Vouch::OtherAudience | Vouch::No => {
                return (Some(unknown(validity)), None);
            }
        };
        let identified = Arc::new(Identified {
            validity,
            subject: Some(Subject {
                user_name: account.user_name(),
                account,
                issuer,
            }),
        });
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED {
            verified.clear();
        }
        verified.insert(token.digest().clone(), identified.clone());
        (Some(identified), None)
    }

    fn vouch(&self, jwt: &Jwt<'_>) -> (Vouch, Issuer) {
        let own = self.local_issuer.trust();
        if jwt.claims.issuer == own.issuer() {
            // A key of an earlier life of the node is nobody's.
            let vouch = match own.vouch(jwt) {
                Vouch::UnknownKey => Vouch::Forged,
                vouch => vouch,
            };
            return (vouch, Issuer::Hub);
        }
        let cluster = self.cluster();
        let vouch = cluster.map_or(Vouch::No, |cluster| cluster.vouch(jwt));
        (vouch, Issuer::Cluster)
    }

    /// Returns if tokens of the hub's own count: while the cloud is away, and until their pods have had time
    /// to get others.
    ///
    /// # Errors
    /// 401 afterwards.
    pub(crate) fn check_own(&self, is_online: bool) -> std::result::Result<(), Status> {
        let back_for = self.back_for(Instant::now());
        if is_online && back_for.is_some_and(|back_for| back_for > local_issuer::LIFETIME) {
            return Err(Self::asks_for_renewal());
        }
        Ok(())
    }

    /// What the holder of a token of the hub's own is told of all that the hub cannot answer by itself.
    pub(crate) fn asks_for_renewal() -> Status {
        Status::unauthorized().saying(
            "this node made the token while the cloud was away, and the cloud does not take it: ask for another",
        )
    }

    /// Returns if the caller counts while the cloud is away.
    ///
    /// # Errors
    /// 401 with the reason.
    pub(crate) fn check_offline(&self, caller: &Caller) -> std::result::Result<(), Status> {
        let Caller::Token(token) = caller else {
            return Ok(());
        };
        let moment = self.moment();
        if token.is_of_hub() {
            // Another is to be had at any time: no leeway.
            let is_alive = token
                .expires()
                .is_some_and(|expires| expires >= moment.time());
            return if is_alive {
                Ok(())
            } else {
                Err(refusal(Denied::ExpiredSince))
            };
        }
        let standing = self.token_cache.standing(token.digest());
        let is_vouched = token.subject().is_some();
        match judge(token.validity(), is_vouched, standing, moment) {
            Ok(()) => {
                if is_vouched {
                    self.accept_alive(token, moment.time());
                }
                Ok(())
            }
            Err(denied) => Err(refusal(denied)),
        }
    }

    /// Returns whether keys or the cloud have vouched for the caller.
    pub(crate) fn is_known(&self, caller: &Caller) -> bool {
        self.check_offline(caller).is_ok()
    }

    /// What was good by the cluster's keys while it was alive stays good until the limit, like what the cloud
    /// recognised: its pod cannot get another one.
    fn accept_alive(&self, token: &Token, now: Timestamp) {
        if token.expires().is_some_and(|expires| expires >= now) {
            self.token_cache
                .accept(token.digest(), token.expires(), now, None);
        }
    }

    /// Returns whether the cloud has recognised the caller so lately that its word need not be asked for.
    pub(crate) fn is_current(&self, caller: &Caller) -> bool {
        let Caller::Token(token) = caller else {
            return true;
        };
        let now = self.clock.now();
        let is_alive = token.expires().is_none_or(|expires| expires >= now);
        let recognised = self.token_cache.recognised(token.digest());
        is_alive && recognised.is_some_and(|recognised| recognised.elapsed() < RECOGNISED_FOR)
    }

    /// Notes that the cloud has just recognised the caller.
    pub(crate) fn recognised(&self, caller: &Caller) {
        let Caller::Token(token) = caller else {
            return;
        };
        self.accept_recognised(token);
        match self.cluster() {
            None => {
                let had_none = self.guide.lock().replace(caller.clone()).is_none();
                if had_none {
                    self.wanted.notify_one();
                }
            }
            Some(cluster) => {
                *self.guide.lock() = Some(caller.clone());
                self.learn_audience(&cluster, token);
            }
        }
    }

    /// Notes that the cloud has just recognised the caller and refused what it asked for: that says nothing of what its
    /// tokens are for.
    pub(crate) fn recognised_in_refusal(&self, caller: &Caller) {
        if let Caller::Token(token) = caller {
            self.accept_recognised(token);
        }
    }

    fn accept_recognised(&self, token: &Token) {
        let now = self.clock.now();
        self.token_cache
            .accept(token.digest(), token.expires(), now, Some(Instant::now()));
    }

    /// Notes that the cloud has just made a token for a pod of this node.
    pub(crate) fn received(&self, secret: &str) {
        let token = Token::new(secret);
        let (identified, _) = self.verify(&token);
        let token = token.identified(identified);
        // One for somebody else does not become one for us.
        if token.subject().is_some() {
            let now = self.clock.now();
            self.token_cache
                .accept(token.digest(), token.expires(), now, None);
        }
    }

    /// Learns which audience the cloud gives to a token that names none.
    pub(crate) fn learn_audiences(&self, audiences: &[String]) {
        let Some(cluster) = self.cluster() else {
            return;
        };
        let is_news = |audience: &&String| !cluster.takes(audience);
        if let Some(audience) = audiences.iter().find(is_news) {
            tracing::info!(audience, "the cloud takes tokens for this audience");
            self.trust(cluster.saved_with(audience));
        }
    }

    /// Returns what a token for these audiences is for.
    pub(crate) fn purpose(&self, audiences: &[String]) -> Purpose {
        let cluster = self.cluster();
        let is_api = |audience: &String| {
            cluster
                .as_ref()
                .is_some_and(|cluster| cluster.takes(audience))
        };
        if audiences.is_empty() || audiences.iter().any(is_api) {
            Purpose::Api
        } else {
            Purpose::Elsewhere
        }
    }

    /// Counts a token of the hub's own.
    pub(crate) fn count_minted(&self) {
        self.minted.fetch_add(1, Ordering::Relaxed);
    }

    /// Learns from a genuine token that the cloud took which audience means the cloud: it need not be the issuer.
    fn learn_audience(&self, cluster: &Trust, token: &Token) {
        if token.subject().is_some() || token.validity().is_none() {
            return;
        }
        let Ok(jwt) = Jwt::parse(token.secret()) else {
            return;
        };
        if cluster.vouch(&jwt) != Vouch::OtherAudience {
            return;
        }
        // Of several only the cloud knows which.
        if let [audience] = jwt.claims.audiences.as_slice() {
            tracing::info!(audience, "the cloud takes tokens for this audience");
            self.trust(cluster.saved_with(audience));
        }
    }

    /// Notes that the cloud has just refused the caller with 401.
    pub(crate) fn refused(&self, caller: &Caller) {
        let Caller::Token(token) = caller else {
            return;
        };
        let now = self.clock.now();
        let is_vouched = token.subject().is_some();
        // What keys vouch for may be refused too early, as of a new account: it is asked each time.
        if let Some(stranger) = token.stranger().filter(|_| !is_vouched) {
            let mut refusals = self.refusals.lock();
            refusals.note(token.digest(), stranger.source, Instant::now());
        }
        self.token_cache
            .refuse(token.digest(), token.expires(), now, is_vouched);
        let mut guide = self.guide.lock();
        if guide.as_ref() == Some(caller) {
            *guide = None;
        }
    }

    /// Takes over what the cluster says of its tokens.
    pub(crate) fn trust(&self, mut saved: SavedTrust) {
        let before = self.cluster();
        if let Some(before) = before.filter(|before| before.issuer() == saved.issuer) {
            saved.add_audiences(before.audiences());
        }
        let text = serde_json::to_vec(&saved).expect("a struct of plain fields is JSON");
        let Some(trust) = Trust::from_saved(saved) else {
            return;
        };
        *self.cluster.write() = Some(Arc::new(trust));
        self.verified.lock().clear();
        let store = self.store.clone();
        self.tasks.spawn_blocking(move || {
            let before = store.get(CLUSTER.as_bytes());
            if before.is_ok_and(|before| before.is_some_and(|before| before[..] == text[..])) {
                return;
            }
            let mut batch = Batch::new();
            batch.put(CLUSTER, text);
            if let Err(error) = store.write(batch) {
                tracing::warn!(%error, "the keys of the cluster's tokens are not remembered");
            }
        });
    }

    /// Notes that the cluster's keys are those of now.
    pub(crate) fn note_keys(&self, asked: Instant) {
        *self.keys_fetched.lock() = Some(asked);
    }

    /// Returns the issuer of the cluster's tokens, where it is known.
    pub(crate) fn cluster(&self) -> Option<Arc<Trust>> {
        self.cluster.read().clone()
    }

    /// Returns what time it is, whatever the node's clock says.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns for how long the cloud has been there, `None` while it is not.
    pub(crate) fn back_for(&self, now: Instant) -> Option<Duration> {
        self.contact.back_for(now)
    }

    pub(super) fn moment(&self) -> JudgedAt {
        JudgedAt {
            now: self.clock.now(),
            contact: self.contact.last(),
            limit: self.limit,
        }
    }

    /// Returns what time it is at least.
    pub(crate) fn time(&self) -> Timestamp {
        self.moment().time()
    }
}

fn unknown(validity: super::token::Validity) -> Arc<Identified> {
    Arc::new(Identified {
        validity,
        subject: None,
    })
}

fn refusal(denied: Denied) -> Status {
    Status::unauthorized().saying(denied.to_string())
}
