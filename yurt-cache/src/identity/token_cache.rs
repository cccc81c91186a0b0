//! The tokens that were seen here, by digest: which the cloud recognised, which it refused. Bounded, and
//! remembered over restarts.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;
use yurt_core::store::{Result, Store};

use super::judge::TokenStatus;
use crate::store::layout;
use crate::store::table::{Place, Rows, Table};
use crate::tasks::Tasks;

/// Tokens that are remembered at most: a node's pods have some hundred at a time.
const TOKENS: usize = 4_096;

const PLACE: Place = Place {
    prefix: layout::TOKENS,
    row: "a token",
};

/// The tokens, by digest.
#[derive(Debug)]
pub(crate) struct TokenCache(Table<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    is_refused: bool,
    expires: Option<Timestamp>,
    since: Timestamp,
    /// When the cloud recognised it for the last time, in this process.
    recognised: Option<Instant>,
}

impl TokenCache {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>, tasks: Tasks) -> Result<Self> {
        let read = |value: &Bytes| Entry::parse(value);
        Table::open(PLACE, store, tasks, TOKENS, read).map(Self)
    }

    /// Counts them.
    pub(crate) fn len(&self) -> usize {
        self.0.rows().len()
    }

    /// Returns what is remembered of a token.
    pub(crate) fn standing(&self, digest: &str) -> TokenStatus {
        match self.0.rows().get(digest) {
            None => TokenStatus::Unknown,
            Some(entry) if entry.is_refused => TokenStatus::Refused,
            Some(_) => TokenStatus::Seen,
        }
    }

    /// Returns when the cloud recognised it for the last time.
    pub(crate) fn recognised(&self, digest: &str) -> Option<Instant> {
        self.0.rows().get(digest)?.recognised
    }

    /// Notes that a token is good: by the cloud's word at that time, or by the cluster's keys.
    pub(crate) fn accept(
        &self,
        digest: &Arc<str>,
        expires: Option<Timestamp>,
        now: Timestamp,
        recognised: Option<Instant>,
    ) {
        let is_news = {
            let mut known = self.0.rows();
            match known.get_mut(digest) {
                // The cloud's word counts, not that of the keys, which know nothing of what it has revoked.
                Some(entry) if entry.is_refused && recognised.is_none() => return,
                Some(entry) => {
                    entry.recognised = recognised.or(entry.recognised);
                    std::mem::take(&mut entry.is_refused)
                }
                None => true,
            }
        };
        if is_news {
            self.remember(
                digest,
                Entry {
                    is_refused: false,
                    expires,
                    since: now,
                    recognised,
                },
                now,
            );
        }
    }

    /// Notes that the cloud refused a token. What cannot have been good leaves no trace.
    pub(crate) fn refuse(
        &self,
        digest: &Arc<str>,
        expires: Option<Timestamp>,
        now: Timestamp,
        is_vouched: bool,
    ) {
        match self.standing(digest) {
            TokenStatus::Refused => return,
            TokenStatus::Unknown if !is_vouched => return,
            TokenStatus::Unknown | TokenStatus::Seen => {}
        }
        let entry = Entry {
            is_refused: true,
            expires,
            since: now,
            recognised: None,
        };
        self.remember(digest, entry, now);
    }

    fn remember(&self, digest: &Arc<str>, entry: Entry, now: Timestamp) {
        let evict = |known: &Rows<Entry>| {
            if known.len() < TOKENS {
                Vec::new()
            } else {
                least_worth(known, now)
            }
        };
        let mut changed = self.0.insert(digest.clone(), entry, evict);
        changed.push(digest.clone());
        self.0.save(changed, |_, entry| Some(entry.text().into()));
    }
}

/// Returns what makes room: what has expired, then what was refused, then the older half.
fn least_worth(known: &Rows<Entry>, now: Timestamp) -> Vec<Arc<str>> {
    let worth = |entry: &Entry| {
        let is_over = entry.expires.is_some_and(|expires| expires < now);
        (!is_over, !entry.is_refused, entry.since)
    };
    let mut order: Vec<_> = known
        .iter()
        .map(|(digest, entry)| (worth(entry), digest.clone()))
        .collect();
    order.sort_unstable();
    order.truncate(TOKENS / 2);
    order.into_iter().map(|(_, digest)| digest).collect()
}

impl Entry {
    fn text(self) -> String {
        let word = if self.is_refused { "refused" } else { "seen" };
        let expires = self
            .expires
            .map_or_else(|| "-".to_owned(), |at| at.as_second().to_string());
        format!("{word} {expires} {}", self.since.as_second())
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let time = |text: &str| Timestamp::from_second(text.parse().ok()?).ok();
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let is_refused = match words.next()? {
            "seen" => false,
            "refused" => true,
            _ => return None,
        };
        let expires = match words.next()? {
            "-" => None,
            text => Some(time(text)?),
        };
        Some(Self {
            is_refused,
            expires,
            since: time(words.next()?)?,
            recognised: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn digest(text: &str) -> Arc<str> {
        text.into()
    }

    async fn written(seen: TokenCache, store: &Arc<dyn Store>) -> TokenCache {
        seen.0.written().await;
        TokenCache::open(store.clone(), Tasks::default()).unwrap()
    }

    #[tokio::test]
    async fn the_clouds_word_is_remembered_over_a_restart() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let seen = TokenCache::open(store.clone(), Tasks::default()).unwrap();
        let now = Some(Instant::now());
        seen.accept(&digest("good"), Some(at(9)), at(1), now);
        seen.accept(&digest("revoked"), None, at(1), now);
        seen.refuse(&digest("revoked"), None, at(2), false);
        seen.refuse(&digest("garbage"), None, at(2), false);
        seen.refuse(&digest("genuine"), None, at(2), true);
        let seen = written(seen, &store).await;
        for (text, standing) in [
            ("good", TokenStatus::Seen),
            ("revoked", TokenStatus::Refused),
            ("garbage", TokenStatus::Unknown),
            ("genuine", TokenStatus::Refused),
        ] {
            assert_eq!(seen.standing(text), standing, "{text}");
        }
        assert_eq!(seen.recognised("good"), None);
    }

    #[tokio::test]
    async fn only_the_cloud_takes_back_what_it_refused() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let seen = TokenCache::open(store, Tasks::default()).unwrap();
        seen.refuse(&digest("t"), None, at(1), true);
        seen.accept(&digest("t"), None, at(2), None);
        assert_eq!(seen.standing("t"), TokenStatus::Refused);
        seen.accept(&digest("t"), None, at(2), Some(Instant::now()));
        assert_eq!(seen.standing("t"), TokenStatus::Seen);
    }

    #[tokio::test]
    async fn what_is_over_makes_room_for_what_is_not() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let seen = TokenCache::open(store.clone(), Tasks::default()).unwrap();
        for number in 0..TOKENS {
            let number = i64::try_from(number).unwrap();
            let expires = if number % 2 == 0 { at(5) } else { at(500) };
            seen.accept(&digest(&number.to_string()), Some(expires), at(1), None);
        }
        seen.accept(&digest("new"), Some(at(500)), at(100), None);
        let seen = written(seen, &store).await;
        assert_eq!(seen.len(), TOKENS / 2 + 1);
        assert_eq!(seen.standing("0"), TokenStatus::Unknown);
        assert_eq!(seen.standing("1"), TokenStatus::Seen);
        assert_eq!(seen.standing("new"), TokenStatus::Seen);
    }

    #[test]
    fn a_damaged_entry_is_none() {
        for bad in [
            &b""[..],
            b"seen",
            b"seen x 1",
            b"seen 1",
            b"what 1 1",
            b"\xff",
        ] {
            assert_eq!(Entry::parse(bad), None);
        }
    }
}
