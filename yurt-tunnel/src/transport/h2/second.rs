//! The second connection, as the end that listened sees it: asked for when there is bulk, kept alive while there are
//! pipes on it, closed when there have been none for a while, and asked for again.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::h2::client::{Connection, ResponseFuture, SendRequest};
use ::h2::{Ping, SendStream};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::debug;

use super::carrier::{LANE_PATH, MOVE_PATH, request};
use super::lane::ListenedTls;
use super::opening::Opening;
use super::pipe::{Leg, Shared};
use crate::link::Config;
use crate::transport::handshake::HANDSHAKE_LIMIT;

/// What was asked for and has not come by then will not come.
const ASKED_LIMIT: Duration = HANDSHAKE_LIMIT.saturating_mul(3);

/// Pulses without a pipe before the connection is closed.
const IDLE_PULSES: u32 = 3;

/// A second connection that may be there.
pub(super) struct Second {
    /// The peer is asked for a sign of life this often.
    keep_alive: Duration,
    /// A connection that is silent for this long is dead.
    liveness: Duration,
    /// How many there were.
    taken: AtomicU64,
    state: Mutex<State>,
}

enum State {
    Away {
        is_asked: bool,
        /// It is not asked for before.
        wait: Instant,
    },
    Open(Lane),
}

struct Lane {
    requests: SendRequest<Bytes>,
    /// What ends with it.
    pipes: Vec<Weak<Shared>>,
    idle_pulses: u32,
    number: u64,
}

/// Moves one pipe to the second connection.
pub(super) struct Mover {
    pub(super) opening: Weak<Opening>,
    /// The number of the pipe's first stream.
    pub(super) stream: u32,
}

// === Second ===

impl Second {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            keep_alive: config.keep_alive,
            liveness: config.liveness,
            taken: AtomicU64::new(0),
            state: Mutex::new(State::away()),
        }
    }

    /// Returns where a pipe begins that is bulk from its first byte.
    pub(super) fn requests(&self) -> Option<SendRequest<Bytes>> {
        match &*self.state.lock() {
            State::Open(lane) => Some(lane.requests.clone()),
            State::Away { .. } => None,
        }
    }

    /// Asks the peer for the connection, unless that was done a short time ago.
    pub(super) fn ask(opening: &Arc<Opening>) {
        let mut state = opening.second.state.lock();
        let now = Instant::now();
        if !matches!(*state, State::Away { wait, .. } if wait <= now) {
            return;
        }
        let asked = opening.interactive().send_request(request(LANE_PATH), true);
        if let Ok((response, _)) = asked {
            *state = State::Away {
                is_asked: true,
                wait: now + ASKED_LIMIT,
            };
            let opening_is = Arc::downgrade(opening);
            opening.tasks().spawn(refused(opening_is, response));
        }
    }

    /// Takes the connection, if it was asked for.
    pub(super) fn attach(
        opening: &Arc<Opening>,
        requests: SendRequest<Bytes>,
        connection: Connection<ListenedTls, Bytes>,
    ) {
        let mut state = opening.second.state.lock();
        if !matches!(*state, State::Away { is_asked: true, .. }) {
            return;
        }
        let number = opening.second.taken.fetch_add(1, Ordering::Relaxed);
        *state = State::Open(Lane {
            requests,
            pipes: Vec::new(),
            idle_pulses: 0,
            number,
        });
        opening
            .tasks()
            .spawn(keep(Arc::downgrade(opening), number, connection));
    }

    /// Begins a second stream for a pipe, if there is a connection with room for it.
    fn begin(
        &self,
        path: &str,
        pipe: &Arc<Shared>,
        is_over: bool,
    ) -> Option<(SendStream<Bytes>, ResponseFuture)> {
        let mut state = self.state.lock();
        let State::Open(lane) = &mut *state else {
            return None;
        };
        let begun = lane.requests.clone().send_request(request(path), is_over);
        let (response, send) = begun.ok()?;
        if lane.pipes.len() == lane.pipes.capacity() {
            lane.pipes.retain(|pipe| pipe.strong_count() > 0);
        }
        lane.pipes.push(Arc::downgrade(pipe));
        Some((send, response))
    }

    /// Lets a connection go that has had no pipe for a while: it ends when nothing is left on it.
    fn pulse(&self, number: u64) {
        let mut state = self.state.lock();
        let Some(lane) = state.lane(number) else {
            return;
        };
        lane.pipes.retain(|pipe| pipe.strong_count() > 0);
        if !lane.pipes.is_empty() {
            lane.idle_pulses = 0;
            return;
        }
        lane.idle_pulses += 1;
        if lane.idle_pulses > IDLE_PULSES {
            *state = State::away();
        }
    }

    /// Fails the pipes of a connection that has ended.
    fn ended(&self, number: u64) {
        let pipes = {
            let mut state = self.state.lock();
            let Some(lane) = state.lane(number) else {
                return;
            };
            let pipes = std::mem::take(&mut lane.pipes);
            *state = State::away();
            pipes
        };
        for pipe in pipes.iter().filter_map(Weak::upgrade) {
            pipe.lose();
        }
    }
}

impl State {
    fn away() -> Self {
        Self::Away {
            is_asked: false,
            wait: Instant::now(),
        }
    }

    fn lane(&mut self, number: u64) -> Option<&mut Lane> {
        match self {
            Self::Open(lane) if lane.number == number => Some(lane),
            Self::Open(_) | Self::Away { .. } => None,
        }
    }
}

/// Waits for the answer of a peer that could not connect; one that could has done so already.
async fn refused(opening: Weak<Opening>, response: ResponseFuture) {
    if response.await.is_ok() {
        return;
    }
    let Some(opening) = opening.upgrade() else {
        return;
    };
    let second = &opening.second;
    let mut state = second.state.lock();
    if matches!(*state, State::Away { is_asked: true, .. }) {
        *state = State::Away {
            is_asked: false,
            wait: Instant::now() + second.keep_alive,
        };
    }
}

/// Runs a connection until it ends, or is silent.
async fn keep(opening: Weak<Opening>, number: u64, mut connection: Connection<ListenedTls, Bytes>) {
    let second = || opening.upgrade();
    let Some((keep_alive, liveness)) =
        second().map(|opening| (opening.second.keep_alive, opening.second.liveness))
    else {
        return;
    };
    let mut pings = connection
        .ping_pong()
        .expect("a connection's pings are taken once");
    let mut pulse = interval(keep_alive);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    let why = loop {
        tokio::select! {
            ended = &mut connection => break match ended {
                Ok(()) => "closed".to_owned(),
                Err(error) => error.to_string(),
            },
            pong = poll_fn(|cx| pings.poll_pong(cx)) => match pong {
                Ok(_) => unanswered = 0,
                Err(error) => break error.to_string(),
            },
            _ = pulse.tick() => {
                if keep_alive.saturating_mul(unanswered) >= liveness {
                    break "the peer is silent".to_owned();
                }
                unanswered += 1;
                let _ = pings.send_ping(Ping::opaque()); // the last one may be under way
                if let Some(opening) = second() {
                    opening.second.pulse(number);
                }
            }
        }
    };
    debug!(why, "the second connection has ended");
    drop(connection);
    if let Some(opening) = second() {
        opening.second.ended(number);
    }
}

// === Mover ===

impl Mover {
    /// Begins the pipe's second stream, or asks for the connection; nothing follows in a stream that is over.
    pub(super) fn second(
        &self,
        pipe: &Arc<Shared>,
        is_over: bool,
    ) -> Option<(SendStream<Bytes>, ResponseFuture)> {
        let opening = self.opening.upgrade()?;
        let path = format!("{MOVE_PATH}{}", self.stream);
        let begun = opening.second.begin(&path, pipe, is_over);
        if begun.is_none() {
            Second::ask(&opening);
        }
        begun
    }

    /// Reads what nobody will read any more, as long as the session lives.
    pub(super) fn read_out(&self, leg: Leg) {
        if let Some(opening) = self.opening.upgrade() {
            opening.tasks().spawn(leg.read_out());
        }
    }
}
