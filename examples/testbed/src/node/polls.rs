//! Asks an address from the node again and again, and remembers which polls had an answer.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Error, LOOK, Node};

/// How often a poll is begun; one that waits for its answer holds up no other.
const EVERY: Duration = Duration::from_millis(50);
/// How long a poll waits for its answer.
const LIMIT: Duration = Duration::from_secs(1);
/// So many polls in a row last as long as one may wait: none of before is under way any more.
const STEADY: usize = 20;

/// Polls of an HTTP server from a node, each on a connection of its own; they end when this value is dropped.
///
/// They are to be dropped before the node is switched off.
#[derive(Debug)]
pub struct Polls {
    all: Arc<Mutex<Vec<Poll>>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// One poll.
#[derive(Clone, Debug)]
pub struct Poll {
    /// When it was begun.
    pub at: Instant,
    /// Whether 200 came, or why not; `None` while it is under way.
    pub outcome: Option<Result<(), String>>,
}

impl Node {
    /// Polls an address from the node, twenty times in a second.
    ///
    /// # Errors
    ///
    /// When the node is off, or the system refuses.
    pub fn poll(&self, address: SocketAddr) -> Result<Polls, Error> {
        let path = format!("/proc/{}/ns/net", self.machine()?.pid());
        let started = File::open(&path).and_then(|namespace| Polls::start(namespace, address));
        started.map_err(|source| Error::File {
            step: "enter",
            path: path.into(),
            source,
        })
    }
}

impl Polls {
    fn start(namespace: File, address: SocketAddr) -> io::Result<Self> {
        let all = Arc::default();
        let stop = CancellationToken::new();
        let (tell, told) = mpsc::channel();
        let (log, stopped) = (Arc::clone(&all), stop.clone());
        let thread = thread::spawn(move || match enter(&namespace) {
            Ok(runtime) => {
                _ = tell.send(Ok(()));
                runtime.block_on(stopped.run_until_cancelled(poll(address, log)));
            }
            Err(error) => _ = tell.send(Err(error)),
        });
        let polls = Self {
            all,
            stop,
            thread: Some(thread),
        };
        let entered = told.recv();
        entered.unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
        Ok(polls)
    }

    /// Waits until each poll is answered, and has been for as long as one may wait; returns since when.
    ///
    /// # Errors
    ///
    /// With what the last polls met when that is not so in time.
    ///
    /// # Cancel safety
    ///
    /// Only waits.
    pub async fn steady(&self, limit: Duration) -> Result<Instant, String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(since) = steady_since(&self.all.lock()) {
                return Ok(since);
            }
            if Instant::now() > deadline {
                return Err(last_failure(&self.all.lock()));
            }
            sleep(LOOK).await;
        }
    }

    /// Returns the polls that were begun in this time, when all of them have ended.
    ///
    /// # Cancel safety
    ///
    /// Only waits.
    pub async fn between(&self, from: Instant, to: Instant) -> Vec<Poll> {
        // Twice: a loaded machine is late for its own deadlines.
        sleep_until(to + 2 * LIMIT).await;
        let all = self.all.lock();
        all.iter()
            .filter(|poll| (from..to).contains(&poll.at))
            .cloned()
            .collect()
    }
}

impl Poll {
    /// Why it was not answered.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.outcome {
            Some(Ok(())) => None,
            Some(Err(why)) => Some(why),
            None => Some("no end"),
        }
    }
}

impl Drop for Polls {
    fn drop(&mut self) {
        self.stop.cancel();
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Moves this thread into a network namespace: the sockets of its runtime are made there.
fn enter(namespace: &File) -> io::Result<Runtime> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Builder::new_current_thread().enable_all().build()
}

async fn poll(address: SocketAddr, all: Arc<Mutex<Vec<Poll>>>) {
    let mut under_way = JoinSet::new();
    let mut ticks = interval(EVERY);
    // A machine that was busy is not asked for what it has missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let number = {
            let mut all = all.lock();
            all.push(Poll {
                at: Instant::now(),
                outcome: None,
            });
            all.len() - 1
        };
        let all = all.clone();
        under_way.spawn(async move {
            let asked = timeout(LIMIT, ask(address)).await;
            let asked = asked.unwrap_or_else(|_| Err("no answer in a second".to_owned()));
            all.lock()[number].outcome = Some(asked);
        });
        while under_way.try_join_next().is_some() {}
    }
}

async fn ask(address: SocketAddr) -> Result<(), String> {
    let answer = fetch(address).await.map_err(|error| error.to_string())?;
    let head = answer.split(|byte| *byte == b'\r').next();
    let status = String::from_utf8_lossy(head.unwrap_or_default());
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(format!("{status:?}"))
}

async fn fetch(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Since when every poll was answered, if those that have ended are enough.
fn steady_since(all: &[Poll]) -> Option<Instant> {
    let ended = all.iter().rposition(|poll| poll.outcome.is_some())?;
    let answered = all[..=ended]
        .iter()
        .rev()
        .take_while(|poll| matches!(poll.outcome, Some(Ok(()))));
    let answered: Vec<&Poll> = answered.collect();
    let first = answered.last()?;
    (answered.len() >= STEADY).then_some(first.at)
}

fn last_failure(all: &[Poll]) -> String {
    let failure = all.iter().rev().find_map(|poll| match &poll.outcome {
        Some(Err(why)) => Some(why.clone()),
        _ => None,
    });
    failure.unwrap_or_else(|| "no poll has ended".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polls(outcomes: &[Option<bool>]) -> Vec<Poll> {
        let began = Instant::now();
        let outcome = |ok: bool| {
            if ok {
                Ok(())
            } else {
                Err("refused".to_owned())
            }
        };
        let polls = outcomes.iter().zip(0..).map(|(ended, number)| Poll {
            at: began + EVERY * number,
            outcome: ended.map(outcome),
        });
        polls.collect()
    }

    #[test]
    fn a_server_is_steady_since_the_first_answer_after_the_last_failure() {
        let mut outcomes = vec![Some(true), Some(false)];
        outcomes.extend([Some(true); STEADY]);
        outcomes.push(None);
        let all = polls(&outcomes);
        assert_eq!(steady_since(&all), Some(all[2].at));
    }

    #[test]
    fn a_poll_under_way_before_answered_ones_may_still_fail() {
        let mut outcomes = vec![Some(true); STEADY];
        outcomes.extend([None, Some(true)]);
        assert_eq!(steady_since(&polls(&outcomes)), None);
    }
}
