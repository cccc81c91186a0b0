//! The doors' metrics. Labels are bounded: a door, a code, a reason.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Door;
use crate::identity::Refusal;

/// The doors' metrics; clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    answers: Family<Answered, Counter>,
    gave_up: Family<At, Counter>,
    refusals: Family<Rejected, Counter>,
    waiting: Family<At, Gauge>,
    tunnels: Family<At, Gauge>,
    aborted: Family<At, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    door: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Rejected {
    door: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct At {
    door: &'static str,
}

/// Adds one to a gauge as long as this lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Metrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "door_answers",
            "Requests for a tunnel, by door and status code",
            self.answers.clone(),
        );
        registry.register(
            "door_gave_up",
            "Clients that hung up before their answer",
            self.gave_up.clone(),
        );
        registry.register(
            "door_refusals",
            "Connections that ended before their request, by reason",
            self.refusals.clone(),
        );
        registry.register(
            "door_waiting",
            "Connections that have not sent their request yet",
            self.waiting.clone(),
        );
        registry.register(
            "door_tunnels",
            "Tunnels that are open or being dialled",
            self.tunnels.clone(),
        );
        registry.register(
            "door_aborted",
            "Tunnels that were aborted because one end failed",
            self.aborted.clone(),
        );
    }

    pub(super) fn answered(&self, door: Door, code: u16) {
        let door = door.label();
        self.answers.get_or_create(&Answered { door, code }).inc();
    }

    pub(super) fn hung_up(&self, door: Door) {
        self.gave_up.get_or_create(&door.into()).inc();
    }

    pub(super) fn rejected(&self, door: Door, reason: Refusal) {
        let (door, reason) = (door.label(), reason.label());
        self.refusals
            .get_or_create(&Rejected { door, reason })
            .inc();
    }

    pub(super) fn aborted(&self, door: Door) {
        self.aborted.get_or_create(&door.into()).inc();
    }

    pub(super) fn waiting(&self, door: Door) -> Counted {
        Counted::new(&self.waiting.get_or_create(&door.into()))
    }

    pub(super) fn tunnel(&self, door: Door) -> Counted {
        Counted::new(&self.tunnels.get_or_create(&door.into()))
    }
}

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl From<Door> for At {
    fn from(door: Door) -> Self {
        Self { door: door.label() }
    }
}
