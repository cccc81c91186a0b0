//! A limit that clients share: a client gets a place as long as it has fewer than are free.
//!
//! So one client alone gets half of the places, two get a third each, and there is always one for the next client.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Pools of places, each shared by clients. An unused pool costs nothing.
pub(crate) struct Shares<P> {
    limit: usize,
    taken: Mutex<HashMap<P, Pool>>,
}

/// How many places each client has.
type Pool = HashMap<String, usize>;

/// A client's place; freed when this is dropped.
pub(crate) struct Place<P: Eq + Hash> {
    shares: Arc<Shares<P>>,
    pool: P,
    client: String,
}

impl<P: Clone + Eq + Hash> Shares<P> {
    /// Returns pools of `limit` places each.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: Mutex::default(),
        })
    }

    /// Gives a client a place in a pool.
    ///
    /// # Errors
    /// How many it has, when that is its share.
    pub(crate) fn enter(self: &Arc<Self>, pool: P, client: &str) -> Result<Place<P>, usize> {
        let mut taken = self.taken.lock();
        let clients = taken.get(&pool);
        let all: usize = clients.map_or(0, |clients| clients.values().sum());
        let own = clients.and_then(|clients| clients.get(client));
        let own = own.copied().unwrap_or(0);
        if own >= self.limit.saturating_sub(all) {
            return Err(own);
        }
        let clients = taken.entry(pool.clone()).or_default();
        *clients.entry(client.to_owned()).or_default() += 1;
        Ok(Place {
            shares: self.clone(),
            pool,
            client: client.to_owned(),
        })
    }
}

impl<P: Eq + Hash> Drop for Place<P> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        let Some(clients) = taken.get_mut(&self.pool) else {
            return;
        };
        if let Some(own) = clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                clients.remove(&self.client);
            }
        }
        if clients.is_empty() {
            taken.remove(&self.pool);
        }
    }
}

impl<P> fmt::Debug for Shares<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<P: Eq + Hash> fmt::Debug for Place<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shares: &Arc<Shares<u8>>, client: &str) -> Vec<Place<u8>> {
        std::iter::from_fn(|| shares.enter(1, client).ok()).collect()
    }

    #[test]
    fn one_has_half_and_whoever_comes_next_finds_a_place() {
        let shares = Shares::new(12);
        let mut one = fill(&shares, "one");
        assert_eq!(one.len(), 6);
        assert_eq!(shares.enter(1, "one").unwrap_err(), 6);
        let two = fill(&shares, "two");
        let three = fill(&shares, "three");
        assert_eq!((two.len(), three.len()), (3, 2));
        assert_eq!(fill(&shares, "four").len(), 1);
        assert_eq!(fill(&shares, "five").len(), 1, "the fourth has gone");
        one.truncate(1);
        assert_eq!(fill(&shares, "three").len() + three.len(), 4);
        // Another pool is another matter.
        assert!(shares.enter(2, "one").is_ok());
    }

    #[test]
    fn nothing_is_left_of_those_who_have_gone() {
        let shares = Shares::new(4);
        drop([fill(&shares, "one"), fill(&shares, "two")]);
        assert!(shares.taken.lock().is_empty());
        assert!(Shares::new(1).enter(1, "one").is_ok());
        assert_eq!(Shares::new(0).enter(1, "one").unwrap_err(), 0);
    }
}
