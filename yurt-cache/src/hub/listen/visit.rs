//! One connection while it is open: whose it is, and whether anything goes on over it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::head::Meter;
use super::valve::Valve;
use super::{IDLE, PATIENCE};
use crate::limits::ConnectionGuard;

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) entry: ConnectionGuard,
    /// Requests whose answers have not ended.
    running: watch::Sender<usize>,
    leave: CancellationToken,
    pub(super) meter: Arc<Meter>,
    pub(super) valve: Arc<Valve>,
}

/// A request whose answer has not ended.
#[derive(Debug)]
pub(super) struct Running(watch::Sender<usize>, Arc<Meter>);

impl Visit {
    pub(super) fn new(entry: ConnectionGuard, meter: Arc<Meter>) -> Self {
        Self {
            entry,
            running: watch::Sender::new(0),
            leave: CancellationToken::new(),
            meter,
            valve: Arc::default(),
        }
    }

    /// Counts a request until its answer has ended.
    pub(super) fn begin(&self) -> Running {
        self.meter.begin();
        self.running.send_modify(|count| *count += 1);
        Running(self.running.clone(), self.meter.clone())
    }

    /// Ends the connection after the requests that are under way.
    pub(super) fn leave(&self) {
        self.leave.cancel();
    }

    /// Resolves when nothing has gone on for too long; an anonymous connection has less time, the node all of it.
    pub(super) async fn is_over(&self) {
        let mut running = self.running.subscribe();
        loop {
            tokio::select! {
                () = self.leave.cancelled() => return,
                _idle = running.wait_for(|count| *count == 0) => {}
            }
            let patience = if self.entry.is_anonymous() {
                PATIENCE
            } else {
                IDLE
            };
            tokio::select! {
                () = self.leave.cancelled() => return,
                _began = running.wait_for(|count| *count > 0) => {}
                () = tokio::time::sleep(patience), if !self.entry.is_node() => return,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.1.end();
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::head::LargeHeads;
    use super::*;
    use crate::limits::{Connections, Limits, Tenant};
    use crate::tls::Protocol;

    fn visit(tenant: Option<Tenant>) -> Visit {
        let connections = Connections::new(Limits::default());
        let (entry, _) = connections.enter([127, 0, 0, 1].into(), CancellationToken::new());
        if let Some(tenant) = tenant {
            entry.belongs_to(&tenant).unwrap();
        }
        let meter = Meter::new(Protocol::Http1, LargeHeads::new());
        Visit::new(entry, Arc::new(meter))
    }

    async fn lasts(visit: &Visit) -> Option<Duration> {
        let began = Instant::now();
        let day = Duration::from_secs(86_400);
        let over = tokio::time::timeout(day, visit.is_over()).await;
        over.ok().map(|()| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_the_sooner_the_less_is_known_of_it() {
        let about = |limit: Duration| limit..limit + Duration::from_millis(10);
        assert!(about(PATIENCE).contains(&lasts(&visit(None)).await.unwrap()));
        let caller = visit(Some(Tenant::Caller("a".into())));
        assert!(about(IDLE).contains(&lasts(&caller).await.unwrap()));
        assert_eq!(lasts(&visit(Some(Tenant::Node))).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_keeps_its_connection_and_its_end_starts_the_wait_again() {
        let visit = visit(None);
        let running = visit.begin();
        let (lasted, ()) = tokio::join!(lasts(&visit), async {
            tokio::time::sleep(PATIENCE * 3).await;
            drop(running);
        });
        let lasted = lasted.unwrap();
        assert!(
            lasted >= PATIENCE * 4 && lasted < PATIENCE * 5,
            "{lasted:?}"
        );
    }
}
