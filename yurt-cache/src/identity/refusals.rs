//! Tokens of strangers that were refused a moment ago: asked again and again, they cost the cloud one request in a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How long a refusal is remembered: one that was too early, as of a new account, is asked again soon.
const FOR: Duration = Duration::from_secs(10);

/// Refusals that are remembered at most.
const ALL: usize = 1_024;

/// Those of one address.
const OF_ONE: usize = 64;

/// The refused, by the digest of their tokens.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<Arc<str>, Refusal>);

#[derive(Clone, Copy, Debug)]
struct Refusal {
    source: IpAddr,
    at: Instant,
}

impl Refusals {
    /// Returns whether a token was refused a moment ago.
    pub(super) fn has(&self, digest: &str, now: Instant) -> bool {
        self.0
            .get(digest)
            .is_some_and(|refusal| refusal.is_recent(now))
    }

    /// Remembers one. The oldest of the same address makes room for it, or of the address with the most.
    pub(super) fn note(&mut self, digest: &Arc<str>, source: IpAddr, now: Instant) {
        self.0.retain(|_, refusal| refusal.is_recent(now));
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for refusal in self.0.values() {
            *counts.entry(refusal.source).or_default() += 1;
        }
        let payer = if counts.get(&source).is_some_and(|count| *count >= OF_ONE) {
            Some(source)
        } else if self.0.len() >= ALL {
            let most = counts.into_iter().max_by_key(|(_, count)| *count);
            most.map(|(source, _)| source)
        } else {
            None
        };
        if let Some(oldest) = payer.and_then(|payer| self.oldest_of(payer)) {
            self.0.remove(&oldest);
        }
        self.0.insert(digest.clone(), Refusal { source, at: now });
    }

    fn oldest_of(&self, source: IpAddr) -> Option<Arc<str>> {
        let own = self.0.iter().filter(|(_, one)| one.source == source);
        let oldest = own.min_by_key(|(_, one)| one.at);
        oldest.map(|(digest, _)| digest.clone())
    }
}

impl Refusal {
    fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.at) < FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    fn note(refusals: &mut Refusals, digest: &str, source: u32, now: Instant) {
        refusals.note(&digest.into(), address(source), now);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_ten_seconds() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        note(&mut refusals, "a", 1, now);
        assert!(refusals.has("a", now + Duration::from_secs(9)));
        assert!(!refusals.has("a", now + FOR));
        assert!(!refusals.has("b", now));
        note(&mut refusals, "b", 1, now + FOR);
        assert_eq!(refusals.0.len(), 1, "what is over leaves");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_many_pays_with_its_own() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        note(&mut refusals, "quiet", 1, now);
        for number in 0..5_000 {
            let later = now + Duration::from_millis(number);
            note(&mut refusals, &number.to_string(), 2, later);
        }
        assert_eq!(refusals.0.len(), OF_ONE + 1);
        let then = now + Duration::from_secs(5);
        assert!(refusals.has("quiet", then) && refusals.has("4999", then));
        assert!(!refusals.has("0", then));
    }

    #[tokio::test(start_paused = true)]
    async fn of_all_the_address_with_the_most_pays() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for source in 0..64 {
            for number in 0..OF_ONE {
                let digest = format!("{source}/{number}");
                note(&mut refusals, &digest, source, now);
            }
        }
        note(&mut refusals, "quiet", 100, now);
        assert_eq!(refusals.0.len(), ALL);
        assert!(refusals.has("quiet", now));
    }
}
