//! Rights that a refusal casts doubt on: who may not see one object may not see all. They are forgotten at once, and the
//! cloud is asked soon whether they stand.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::verdict::DENIED_FOR;
use super::{Access, Verdicts};
use crate::identity::Caller;

/// So many are asked about at most: of what is beyond, the next that wants to know asks.
const MOST: usize = 1_024;

/// What is to be asked about, and not before when.
#[derive(Debug, Default)]
pub(super) struct Doubted {
    of: Mutex<Vec<(Instant, Caller, Access)>>,
    pub(super) is_there: Notify,
}

impl Doubted {
    /// Takes out those whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<(Caller, Access)> {
        let due = self
            .of
            .lock()
            .extract_if(.., |(at, ..)| *at <= now)
            .collect::<Vec<_>>();
        due.into_iter()
            .map(|(_, caller, access)| (caller, access))
            .collect()
    }
}

impl Verdicts {
    /// Forgets the rights to more than what the cloud has just refused.
    pub(super) fn doubt(&self, caller: &Caller, refused: &Access) {
        let mut forgotten: Vec<Arc<str>> = Vec::new();
        for wider in refused.wider() {
            let key = wider.key(caller.id());
            let doubted = {
                let mut known = self.known.rows();
                let is_doubted = known.get(&*key).is_some_and(|verdict| verdict.is_allowed);
                if is_doubted {
                    known.remove(&*key)
                } else {
                    None
                }
            };
            let Some(verdict) = doubted else { continue };
            forgotten.push(key.into());
            let mut of = self.doubted.of.lock();
            if of.len() < MOST {
                // One who lists and may not get is not asked about at each of its refusals.
                let at = verdict.said.map_or(self.opened, |said| said + DENIED_FOR);
                of.push((at, caller.clone(), wider));
            }
        }
        if !forgotten.is_empty() {
            self.save(forgotten);
            self.doubted.is_there.notify_one();
        }
    }
}
