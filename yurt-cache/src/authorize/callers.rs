//! Whom the cloud has recognised in this process, with the token that each came with last: who is known can be asked
//! about. Held in memory only.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::identity::Caller;

/// So many at most: a node's pods have some hundred accounts.
const MOST: usize = 1_024;

/// Callers by the text under which they are remembered.
#[derive(Debug, Default)]
pub(super) struct Callers(Mutex<HashMap<Arc<str>, Caller>>);

impl Callers {
    /// Notes that the cloud has recognised a caller.
    pub(super) fn note(&self, caller: &Caller) {
        if caller.is_of_hub() || *caller == Caller::Node {
            return;
        }
        let mut known = self.0.lock();
        match known.get_mut(caller.id()) {
            Some(before) => *before = caller.clone(),
            None => {
                if known.len() >= MOST {
                    // Whoever is still there comes again.
                    known.clear();
                }
                known.insert(caller.id().into(), caller.clone());
            }
        }
    }

    /// Forgets a caller whose token the cloud does not take.
    pub(super) fn forget(&self, caller: &Caller) {
        let mut known = self.0.lock();
        if known.get(caller.id()) == Some(caller) {
            known.remove(caller.id());
        }
    }

    /// Returns who can be asked about under this text at this time.
    pub(super) fn find(&self, id: &str, now: Timestamp) -> Option<Caller> {
        if id == Caller::Node.id() {
            return Some(Caller::Node);
        }
        let known = self.0.lock();
        known
            .get(id)
            .filter(|caller| !caller.has_expired(now))
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Token;

    #[test]
    fn who_was_recognised_is_found_until_the_cloud_refuses_it() {
        let callers = Callers::default();
        let caller = |token: &str| Caller::Token(Token::new(token));
        let (a, b) = (caller("a"), caller("b"));
        let now = Timestamp::UNIX_EPOCH;
        callers.note(&a);
        assert_eq!(callers.find(a.id(), now), Some(a.clone()));
        assert_eq!(callers.find(b.id(), now), None);
        assert_eq!(callers.find("node", now), Some(Caller::Node));
        callers.forget(&b);
        callers.forget(&a);
        assert_eq!(callers.find(a.id(), now), None);
        for number in 0..2 * MOST {
            callers.note(&caller(&number.to_string()));
        }
        assert!(callers.0.lock().len() <= MOST);
    }
}
