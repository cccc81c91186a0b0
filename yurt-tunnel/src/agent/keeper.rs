//! Keeps the link to one server: connects, redials, and goes over to a better session without losing a stream.

mod held;
mod rest;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use yurt_core::backoff::Backoff;
use yurt_core::error::Chain;
use yurt_core::transport::{Acceptor, Error, State};

use self::held::{Held, News};
use super::keep_alive::SHORTEST;
use super::probes::Probes;
use super::pulse::{Beat, Pulse};
use super::quality::Quality;
use super::race::{self, Goal, Race};
use super::session::{self, finish};
use super::want::{Reason, Situation, Want, want};
use super::winners::Network;
use super::{Shared, Standing};

/// How long one way of connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Delays of redialling: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A session that stood for this long is no failure when it ends.
const STOOD: Duration = Duration::from_secs(10);

/// A preferred way that has carried a session for this long is trusted again.
const PROVEN: Duration = Duration::from_secs(5 * 60);

/// How long the others are ahead of a way that is distrusted: three round trips of TCP and TLS, far away.
const DISTRUST: Duration = Duration::from_secs(3);

/// Sessions that finish their streams; beyond, the oldest is closed.
const MAX_LEAVING: usize = 8;

/// How long before the end of the server's certificate a new session is made, and how often that is tried.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
const RENEW_EVERY: Duration = Duration::from_secs(60);

type Attempt = Pin<Box<dyn Future<Output = Result<(usize, Arc<dyn Acceptor>), Error>> + Send>>;

/// The link to one server.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    goal: Goal,
    backoff: Backoff,
    retry_at: Instant,
    /// The address of ours that the server sees, but for a NAT.
    local: Option<IpAddr>,
    probes: Probes,
    current: Option<Held>,
    /// How long the last session had rested when it was lost, and its lane: too long, if the server is there.
    too_long: Option<(usize, Duration)>,
    attempt: Option<(Reason, Attempt)>,
    /// The lane that lets a session die soon after it was made, or starve: not the first of the next race.
    distrusted: Option<usize>,
    /// How often in a row the preferred lane has been left for that.
    disappointments: u32,
    /// The tasks of the sessions: those that serve, and those that let streams finish.
    sessions: JoinSet<()>,
    leaving: VecDeque<CancellationToken>,
}

/// What has happened to a link.
enum Happened {
    Attempted(Result<(usize, Arc<dyn Acceptor>), Error>),
    Heard(News),
    NetworkChanged,
    /// Something may be due.
    Other,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, address: SocketAddr, name: String) -> Self {
        Self {
            local: (shared.config.address_towards)(address).ok(),
            shared,
            goal: Goal { address, name },
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            retry_at: Instant::now(),
            probes: Probes::default(),
            current: None,
            too_long: None,
            attempt: None,
            distrusted: None,
            disappointments: 0,
            sessions: JoinSet::new(),
            leaving: VecDeque::new(),
        }
    }

    /// Keeps the link until `stop`, then lets its streams finish; dropped, the link is cut.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut network = self.shared.network.subscribe();
        let mut certificate = self.shared.certificate.subscribe();
        while !stop.is_cancelled() {
            let wake = self.begin_what_is_due();
            let happened = tokio::select! {
                // First, so that who ends leaves no standing behind.
                biased;
                () = stop.cancelled() => break,
                result = attempted(&mut self.attempt) => Happened::Attempted(result),
                news = Held::next(&mut self.current) => Happened::Heard(news),
                _ = network.changed() => Happened::NetworkChanged,
                _ = certificate.changed() => Happened::Other,
                Some(_) = self.sessions.join_next() => Happened::Other,
                () = sleep_until(wake.unwrap_or_else(far)), if wake.is_some() => Happened::Other,
            };
            match happened {
                Happened::Attempted(result) => self.attempted(result),
                Happened::Heard(News::Changed(state)) => self.changed(&state),
                Happened::Heard(News::Beat(beat)) => self.heard(beat),
                Happened::Heard(News::Used(is_used)) => self.used(is_used),
                Happened::NetworkChanged => self.network_changed(),
                Happened::Other => {}
            }
        }
        self.attempt = None;
        self.shared.is_away(self.goal.address);
        self.leave();
        while self.sessions.join_next().await.is_some() {}
    }

    /// Begins an attempt if one is due; else returns when one will be.
    fn begin_what_is_due(&mut self) -> Option<Instant> {
        if self.attempt.is_some() {
            return None;
        }
        let situation = Situation {
            current: self.current.as_ref().map(Held::situation),
            retry_at: self.retry_at,
            certificate: *self.shared.certificate.borrow(),
        };
        match want(&situation, Instant::now()) {
            Want::Wait(until) => until,
            Want::Connect(reason) => {
                self.connect(reason);
                None
            }
        }
    }

    fn connect(&mut self, reason: Reason) {
        let lanes = match reason {
            Reason::Preferred => vec![0],
            Reason::Poor => self.others(),
            Reason::Missing | Reason::Silent | Reason::Renewal => self.lanes(),
        };
        let head_start = match self.distrusted {
            Some(_) => self.shared.config.head_start.max(DISTRUST),
            None => self.shared.config.head_start,
        };
        let race = Race::new(lanes, head_start, Instant::now());
        let shared = self.shared.clone();
        let transport = move |lane: usize| shared.transports[lane].transport.clone();
        let attempt = race::run(race, self.goal.clone(), CONNECT_LIMIT, transport);
        self.attempt = Some((reason, Box::pin(attempt)));
    }

    /// Returns the lanes in the order in which they start: the winner of this network first.
    fn lanes(&self) -> Vec<usize> {
        let transports = &self.shared.transports;
        let mut lanes: Vec<usize> = (0..transports.len()).collect();
        if let Some(network) = self.network() {
            let winners = self.shared.winners.lock();
            let winner = winners.of(&network);
            lanes.sort_by_key(|&lane| winner != Some(transports[lane].name));
        }
        lanes.sort_by_key(|lane| self.distrusted == Some(*lane));
        lanes
    }

    /// Returns the lanes without that of the current session.
    fn others(&self) -> Vec<usize> {
        let current = self.current.as_ref().map(|held| held.lane);
        let mut lanes = self.lanes();
        lanes.retain(|lane| current != Some(*lane));
        lanes
    }

    /// A lane carries handshakes, and not what comes after.
    fn distrust(&mut self, lane: usize) {
        if self.shared.transports.len() > 1 {
            self.distrusted = Some(lane);
            if lane == 0 {
                self.disappointments += 1;
            }
        }
    }

    /// It was not the lane: it carries again, or the others carry nothing either.
    fn forgive(&mut self) {
        if self.distrusted.take() == Some(0) {
            self.disappointments = self.disappointments.saturating_sub(1);
        }
    }

    /// Returns when to try the preferred way again: later and later, while it is closed or has disappointed each time.
    fn probe_at(&mut self, now: Instant) -> Instant {
        let factor = 1_u32.checked_shl(self.disappointments).unwrap_or(u32::MAX);
        let first = self.shared.config.probe_every.saturating_mul(factor);
        now + self.probes.next_pause(first, fastrand::f64())
    }

    fn network(&self) -> Option<Network> {
        let server = self.goal.address;
        let local = (self.shared.config.address_towards)(server).ok()?;
        Some(Network { local, server })
    }

    fn attempted(&mut self, result: Result<(usize, Arc<dyn Acceptor>), Error>) {
        let Some((reason, _)) = self.attempt.take() else {
            return;
        };
        self.shared.metrics.connected(reason, result.is_ok());
        match result {
            Ok((lane, session)) => self.take_up(lane, session, reason),
            Err(error) => self.failed(reason, &error),
        }
    }

    fn take_up(&mut self, lane: usize, session: Arc<dyn Acceptor>, reason: Reason) {
        let now = Instant::now();
        let shared = self.shared.clone();
        let server = self.goal.address;
        let transport = shared.transports[lane].name;
        let (count, streams) = watch::channel(0);
        self.sessions.spawn(session::serve(
            shared.clone(),
            session.clone(),
            server,
            count,
        ));
        let config = &shared.config;
        let probe_at = match lane {
            0 => {
                self.probes.reset();
                None
            }
            _ => Some(self.probe_at(now)),
        };
        self.local = (config.address_towards)(server).ok();
        let held = Held {
            state: session.state(),
            seen: State::Open,
            streams,
            is_used: false,
            pulse: Pulse::new(session.clone(), config.patience, now),
            quality: Quality::new(now),
            is_poor: false,
            has_moved: false,
            place: shared.board.enter((server, transport), session.clone()),
            lane,
            certificate: *shared.certificate.borrow(),
            since: now,
            renew_at: self.renew_at(&*session, now),
            probe_at,
            session,
        };
        tracing::info!(%server, transport, ?reason, "the server is connected");
        self.won(lane);
        self.distrusted = self.distrusted.filter(|distrusted| *distrusted != lane);
        // The new one takes streams before the old one takes none.
        self.leave();
        self.current = Some(held);
        self.retry_at = now;
        self.stand(Standing::Up);
    }

    /// Notes which lane works in this network, and that it did not allow the rest of the session before, if that was of
    /// the same lane.
    fn won(&mut self, lane: usize) {
        let Some(network) = self.network() else {
            return;
        };
        let mut winners = self.shared.winners.lock();
        winners.won(network, self.shared.transports[lane].name);
        let too_long = self.too_long.take().filter(|(of, _)| *of == lane);
        if let (Some((_, rested)), Some(patience)) = (too_long, winners.patience(&network)) {
            tracing::debug!(server = %self.goal.address, ?rested, "the network has forgotten a link that rested");
            patience.lost(rested);
        }
        drop(winners);
        self.shared.worth_keeping.notify_one();
    }

    /// Returns when the server's certificate is too near to its end, if it is not at its end already.
    fn renew_at(&self, session: &dyn Acceptor, now: Instant) -> Option<Instant> {
        let wall = (self.shared.config.clock)();
        let left = session.peer().expires.duration_since(wall).ok()?;
        now.checked_add(left.saturating_sub(RENEW_BEFORE).max(RENEW_EVERY))
    }

    fn failed(&mut self, reason: Reason, error: &Error) {
        let now = Instant::now();
        let server = self.goal.address;
        let probe_at = (reason == Reason::Preferred).then(|| self.probe_at(now));
        if !matches!(reason, Reason::Preferred | Reason::Poor) {
            // It is the server that is away.
            self.too_long = None;
        }
        match (reason, &mut self.current) {
            (Reason::Poor, Some(held)) => {
                held.is_poor = false;
                held.quality
                    .rest_until(now + self.shared.config.probe_every);
                tracing::debug!(%server, error = Chain(error).to_string(), "no other way is open");
            }
            (Reason::Preferred, Some(held)) => {
                held.probe_at = probe_at;
                tracing::debug!(%server, error = Chain(error).to_string(), "the preferred way is still closed");
            }
            (
                Reason::Preferred
                | Reason::Missing
                | Reason::Silent
                | Reason::Poor
                | Reason::Renewal,
                _,
            ) => {
                self.pause(now);
                self.forgive();
                tracing::warn!(%server, ?reason, error = Chain(error).to_string(), "the server cannot be reached");
            }
        }
        // One that is silent and cannot be reached anew is as good as none.
        if self.current.is_none() || reason == Reason::Silent {
            self.stand(Standing::Away);
            self.shared.resolve_now.notify_one();
        }
    }

    fn changed(&mut self, state: &State) {
        let now = Instant::now();
        let server = self.goal.address;
        let Some(held) = &self.current else { return };
        if now - held.since >= STOOD {
            self.backoff.reset();
            self.distrusted = None;
        }
        match state {
            State::Open => return,
            State::Draining => {
                tracing::info!(%server, "the server takes no new streams");
                self.leave();
            }
            State::Closed { kind, reason } => {
                tracing::warn!(%server, ?kind, reason, "the session has ended");
                let (lane, is_soon) = (held.lane, now - held.since < STOOD);
                self.too_long = held.pulse.doubted().map(|rested| (lane, rested));
                self.current = None;
                if is_soon {
                    match self.distrusted {
                        // Neither lane carries: it is the server that ends sessions.
                        Some(other) if other != lane => self.forgive(),
                        _ => self.distrust(lane),
                    }
                }
            }
        }
        if matches!(self.attempt, Some((Reason::Preferred | Reason::Poor, _))) {
            self.attempt = None;
        }
        self.pause(now);
        self.stand(Standing::Away);
    }

    fn heard(&mut self, beat: Beat) {
        let now = Instant::now();
        let server = self.goal.address;
        let Some(held) = &mut self.current else {
            return;
        };
        let lane = held.lane;
        match beat {
            Beat::Answered(rested) => {
                let has_moved = std::mem::take(&mut held.has_moved);
                let was_poor = held.is_poor;
                held.is_poor |= held.quality.is_poor(&held.session.stats(), now);
                let is_poor = held.is_poor;
                if now - held.since >= PROVEN && lane == 0 {
                    self.disappointments = 0;
                }
                self.too_long = None;
                // A session that has moved along belongs to another network now.
                if has_moved && self.shared.transports[lane].is_udp {
                    self.won(lane);
                }
                self.rest(rested);
                self.stand(Standing::Up);
                // It lives: nothing else is needed.
                if matches!(self.attempt, Some((Reason::Silent, _))) {
                    self.attempt = None;
                }
                if !is_poor && self.distrusted == Some(lane) {
                    self.forgive();
                }
                if is_poor && !was_poor {
                    tracing::info!(%server, "the path loses most of what is sent");
                    self.distrust(lane);
                }
            }
            Beat::Silent => {
                held.place.silent();
                let rested = held.pulse.doubted();
                self.too_long = rested.map(|rested| (lane, rested));
                tracing::info!(%server, "the server does not answer");
                // A session that is needed goes before one that is preferred.
                if matches!(self.attempt, Some((Reason::Preferred, _))) {
                    self.attempt = None;
                }
                // Who has moved may only have to be found again, and who rested may only be forgotten by a NAT.
                let is_forgotten = rested.is_some_and(|rested| rested > SHORTEST);
                if !held.has_moved && !is_forgotten {
                    self.distrust(lane);
                }
            }
        }
    }

    /// A session on another address than before may be dead, or may have moved along: that is asked at once.
    fn network_changed(&mut self) {
        let now = Instant::now();
        let local = (self.shared.config.address_towards)(self.goal.address).ok();
        // The kernel tells of each pod and each scan of the air, too.
        if std::mem::replace(&mut self.local, local) == local {
            return;
        }
        self.probes.reset();
        self.disappointments = 0;
        self.distrusted = None;
        self.too_long = None;
        let Some(held) = &mut self.current else {
            // A link that came back ends the pause.
            self.backoff.reset();
            let soon = now + self.backoff.next_delay(fastrand::f64());
            self.retry_at = self.retry_at.min(soon);
            return;
        };
        held.has_moved = true;
        held.pulse.urge(self.shared.config.moved_patience, now);
        held.probe_at = held.probe_at.map(|_| now);
        self.retry_at = now;
    }

    /// Lets the current session finish its streams.
    fn leave(&mut self) {
        let Some(held) = self.current.take() else {
            return;
        };
        let stop = CancellationToken::new();
        self.leaving.retain(|leaving| !leaving.is_cancelled());
        self.leaving.push_back(stop.clone());
        if self.leaving.len() > MAX_LEAVING
            && let Some(oldest) = self.leaving.pop_front()
        {
            oldest.cancel();
        }
        self.sessions
            .spawn(finish(held.session, held.place, held.streams, stop));
    }

    /// Waits before the next attempt, at least a quarter of what it may be: with many small draws in a row the
    /// delays would grow while hardly any time has passed.
    fn pause(&mut self, now: Instant) {
        let random = 0.25 + fastrand::f64() * 0.75;
        self.retry_at = now + self.backoff.next_delay(random);
    }

    fn stand(&self, standing: Standing) {
        if standing == Standing::Away {
            self.shared.is_away(self.goal.address);
        }
        self.shared.stand(self.goal.address, standing);
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("goal", &self.goal)
            .finish_non_exhaustive()
    }
}

async fn attempted(
    attempt: &mut Option<(Reason, Attempt)>,
) -> Result<(usize, Arc<dyn Acceptor>), Error> {
    match attempt {
        Some((_, attempt)) => attempt.await,
        None => std::future::pending().await,
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
