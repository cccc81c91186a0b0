//! How much may be on its way: what the path delivers in a round trip and a little more, and a fair share where
//! others send too.
//!
//! CUBIC takes each lost packet for a full queue: one in a hundred on a way of 40 ms leaves it 3 Mbit/s. BBR as
//! quinn has it fills a slow bottleneck's queue with a second of bulk, behind which `kubectl exec` waits; and any
//! BBR takes nearly all of a short queue from CUBIC, and gets next to nothing of a long one. Three rules do better:
//!
//! * **The model** (draft-ietf-ccwg-bbr). What is delivered and the shortest round trip are measured; what is on its
//!   way is held to the product of the two, a quarter of it, and two milliseconds. Once in eight rounds it asks for
//!   more, and then holds less for one, so that a queue of its own goes.
//! * **The ceiling** (RFC 9438). A packet lost while the queue is about as long as it ever was, was lost by that queue:
//!   the window is cut and grows as CUBIC's does. A packet lost while the queue is shorter was lost by the path and
//!   changes nothing (TCP Veno, IEEE JSAC 2003, tells the two apart like this), unless a tenth of a round is lost. In a
//!   short queue, which the model alone would overflow for ever, the ceiling decides.
//! * **Competition** (Copa, NSDI 2018). A queue that is still there after the round that holds less is not ours: somebody
//!   keeps it full, and a flow that holds to the model would starve. From then on only the ceiling counts. At the first
//!   cut after some seconds the flow holds less again, to see whether the queue goes.
//!
//! The tests simulate it beside CUBIC, Reno and itself, packet by packet.

mod ceiling;
mod model;
mod rate;
#[cfg(test)]
mod simulation;

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use self::model::Model;

/// The model, as quinn wants it.
#[derive(Clone, Debug)]
struct Steady {
    began: Instant,
    model: Model,
}

/// Makes a controller for each path.
#[derive(Debug)]
pub(super) struct SteadyFactory;

impl ControllerFactory for SteadyFactory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Steady {
            began: now,
            model: Model::new(mtu.into()),
        })
    }
}

impl Controller for Steady {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, limited: bool, _: &RttEstimator) {
        let since = |at: Instant| at.saturating_duration_since(self.began);
        self.model.acked(since(now), since(sent), bytes, limited);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        let since = |at: Instant| at.saturating_duration_since(self.began);
        self.model.lost(since(now), since(sent), lost, persistent);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.model.set_packet(mtu.into());
    }

    fn window(&self) -> u64 {
        self.model.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.model.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
