//! Which way of connecting is tried when, and which one wins.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use yurt_core::transport::{Acceptor, Error, ErrorKind, Transport};

use crate::identity::{Refusal, SERVERS_GROUP, is_server};

/// The lanes of a race, each a way of connecting, in the order in which they start.
#[derive(Debug)]
pub(super) struct Race {
    waiting: std::vec::IntoIter<usize>,
    running: usize,
    head_start: Duration,
    next_start: Instant,
}

/// What a race does now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This lane starts.
    Start(usize),
    /// Nothing, until one connects or fails, or until then.
    Wait(Option<Instant>),
    /// Every lane has failed.
    Lost,
}

impl Race {
    pub(super) fn new(lanes: Vec<usize>, head_start: Duration, now: Instant) -> Self {
        Self {
            waiting: lanes.into_iter(),
            running: 0,
            head_start,
            next_start: now,
        }
    }

    /// Returns what to do; to be asked again until it is not a start.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if now >= self.next_start
            && let Some(lane) = self.waiting.next()
        {
            self.running += 1;
            self.next_start = now + self.head_start;
            return Step::Start(lane);
        }
        match (self.running, self.waiting.len()) {
            (0, 0) => Step::Lost,
            (_, 0) => Step::Wait(None),
            (_, _) => Step::Wait(Some(self.next_start)),
        }
    }

    /// Notes that a lane has failed: the next need not wait any longer.
    pub(super) fn failed(&mut self, now: Instant) {
        self.running -= 1;
        self.next_start = now;
    }
}

/// Where a race goes.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) address: std::net::SocketAddr,
    pub(super) name: String,
}

/// Connects by the first lane that can; the others are dropped.
///
/// The error is that which tells most: a refusal rather than a silence.
pub(super) async fn run(
    mut race: Race,
    goal: Goal,
    limit: Duration,
    transport: impl Fn(usize) -> Arc<dyn Transport>,
) -> Result<(usize, Arc<dyn Acceptor>), Error> {
    let mut lanes = JoinSet::new();
    let mut worst: Option<Error> = None;
    loop {
        let wake = match race.step(Instant::now()) {
            Step::Start(lane) => {
                let (transport, goal) = (transport(lane), goal.clone());
                lanes.spawn(async move {
                    let connecting = connect(&*transport, &goal);
                    let slow = |_| {
                        let message = format!("no answer from {} in time", goal.address);
                        Err(Error::new(ErrorKind::Timeout, message))
                    };
                    let connected = tokio::time::timeout(limit, connecting).await;
                    (lane, connected.unwrap_or_else(slow))
                });
                continue;
            }
            Step::Wait(wake) => wake,
            Step::Lost => {
                let none = || Error::new(ErrorKind::Other, "there is no way to connect");
                return Err(worst.unwrap_or_else(none));
            }
        };
        let ended = tokio::select! {
            ended = lanes.join_next() => ended,
            () = wake_at(wake) => continue,
        };
        match ended.expect("a lane runs while the race waits") {
            Ok((lane, Ok(session))) => return Ok((lane, session)),
            Ok((_, Err(error))) => {
                race.failed(Instant::now());
                if worst
                    .as_ref()
                    .is_none_or(|worst| weight(worst) <= weight(&error))
                {
                    worst = Some(error);
                }
            }
            // A lane that panicked has lost.
            Err(_) => race.failed(Instant::now()),
        }
    }
}

/// Connects, to a server of the tunnel alone: an authority may vouch for others under the same name.
async fn connect(transport: &dyn Transport, goal: &Goal) -> Result<Arc<dyn Acceptor>, Error> {
    let session = transport.connect(goal.address, &goal.name).await?;
    if is_server(session.peer()) {
        return Ok(session);
    }
    let (user, address) = (&session.peer().user, goal.address);
    let message = format!(
        "{user} at {address} is no server of the tunnel: its certificate is not of the organization {SERVERS_GROUP}"
    );
    Err(Error::new(ErrorKind::Forbidden, message).with_source(Refusal::Unauthorized))
}

fn wake_at(wake: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match wake {
        Some(wake) => Box::pin(sleep_until(wake)),
        None => Box::pin(std::future::pending()),
    }
}

/// How much an error tells an operator.
fn weight(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Forbidden => 3,
        ErrorKind::Protocol | ErrorKind::Overloaded | ErrorKind::Draining => 2,
        ErrorKind::Timeout => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_START: Duration = Duration::from_millis(250);

    #[test]
    fn the_second_starts_when_the_first_has_not_connected_after_its_head_start() {
        let now = Instant::now();
        let mut race = Race::new(vec![0, 1], HEAD_START, now);
        let later = now + HEAD_START;
        assert_eq!(race.step(now), Step::Start(0));
        assert_eq!(race.step(now), Step::Wait(Some(later)));
        assert_eq!(race.step(later), Step::Start(1));
        assert_eq!(race.step(later), Step::Wait(None));
    }

    #[test]
    fn the_second_starts_at_once_when_the_first_has_failed() {
        let now = Instant::now();
        let mut race = Race::new(vec![1, 0], HEAD_START, now);
        assert_eq!(race.step(now), Step::Start(1));
        let soon = now + HEAD_START / 10;
        race.failed(soon);
        assert_eq!(race.step(soon), Step::Start(0));
    }

    #[test]
    fn a_race_is_lost_when_every_lane_has_failed() {
        let now = Instant::now();
        let mut race = Race::new(vec![0, 1], HEAD_START, now);
        assert_eq!(race.step(now), Step::Start(0));
        assert_eq!(race.step(now + HEAD_START), Step::Start(1));
        race.failed(now + HEAD_START);
        assert_eq!(race.step(now + HEAD_START), Step::Wait(None));
        race.failed(now + HEAD_START);
        assert_eq!(race.step(now + HEAD_START), Step::Lost);
        assert_eq!(Race::new(Vec::new(), HEAD_START, now).step(now), Step::Lost);
    }
}
