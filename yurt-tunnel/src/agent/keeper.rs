//! Keeps the link to one server: connects, redials, and goes over to a better session without losing a stream.

mod held;
mod rest;
mod standing;
mod way;

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
use yurt_core::transport::{Acceptor, Error, State};

use self::held::{Held, News};
use super::probes::Probes;
use super::pulse::Pulse;
use super::quality::Quality;
use super::race::Goal;
use super::session::{self, finish};
use super::want::{Reason, Situation, Want, want};
use super::{Shared, Standing};

/// Delays of redialling: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

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

    /// Returns when the server's certificate is too near to its end, if it is not at its end already.
    fn renew_at(&self, session: &dyn Acceptor, now: Instant) -> Option<Instant> {
        let wall = (self.shared.config.clock)();
        let left = session.peer().expires.duration_since(wall).ok()?;
        now.checked_add(left.saturating_sub(RENEW_BEFORE).max(RENEW_EVERY))
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
