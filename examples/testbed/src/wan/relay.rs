//! The wire: a thread that carries packets between the two interfaces when the path says so.
//!
//! It has a thread of its own so that neither a busy test nor a paused clock changes when a packet arrives.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::time::Instant;
use tun_rs::SyncDevice;

use super::path::{Path, Way};

/// The largest packet that an interface could be made to send.
const LARGEST: usize = 65_535;
/// Packets of one side that are taken before others are delivered.
const BATCH: usize = 64;

/// The running relay; dropping it ends it.
#[derive(Debug)]
pub(super) struct Relay {
    /// Wakes the thread for the last time.
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

struct Wire {
    path: Arc<Mutex<Path>>,
    cloud: SyncDevice,
    edge: SyncDevice,
    stop: OwnedFd,
    start: Instant,
    buffer: Vec<u8>,
}

impl Relay {
    pub(super) fn start(
        path: Arc<Mutex<Path>>,
        cloud: SyncDevice,
        edge: SyncDevice,
    ) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let mut wire = Wire {
            path,
            cloud,
            edge,
            stop: stop.try_clone()?,
            start: Instant::now(),
            buffer: vec![0; LARGEST],
        };
        let thread = thread::Builder::new().name("wan".to_owned());
        let thread = thread.spawn(move || wire.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        // Its panic has been printed, and a drop must not add another.
        _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Wire {
    fn run(&mut self) {
        while self.wait() {
            for way in Way::BOTH {
                self.take(way);
            }
            for way in Way::BOTH {
                self.deliver(way);
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn take(&mut self, way: Way) {
        let from = match way {
            Way::Up => &self.edge,
            Way::Down => &self.cloud,
        };
        let mut path = self.path.lock();
        for _ in 0..BATCH {
            // No packet, or no interface any more, which the end of the relay follows.
            let Ok(length) = from.recv(&mut self.buffer) else {
                return;
            };
            // IPv6 is what a kernel says to itself on a new interface.
            if let Some(packet) = self.buffer.get(..length)
                && packet.first().is_some_and(|first| first >> 4 == 4)
            {
                path.send(self.start.elapsed(), way, packet.to_vec());
            }
        }
    }

    fn deliver(&mut self, way: Way) {
        let to = match way {
            Way::Up => &self.cloud,
            Way::Down => &self.edge,
        };
        let now = self.now();
        loop {
            let Some(packet) = self.path.lock().arrived(now, way) else {
                return;
            };
            // An interface that is down takes nothing: so does a real one.
            _ = to.send(&packet);
        }
    }

    /// Waits for a packet from either side or for the next arrival; returns false when it is to end.
    fn wait(&self) -> bool {
        let next = self.path.lock().next_arrival();
        let timeout = next.map(|next| next.saturating_sub(self.now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut watched = [
            watch(self.stop.as_fd()),
            watch(self.cloud.as_fd()),
            watch(self.edge.as_fd()),
        ];
        // One that was interrupted looks again.
        _ = poll(&mut watched, timeout.as_ref());
        watched[0].revents().is_empty()
    }
}
