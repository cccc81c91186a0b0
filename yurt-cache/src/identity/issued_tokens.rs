//! The cloud's answers to the node's requests for tokens, kept while the tokens live: a pod that restarts while
//! the cloud is away gets the one that it had. They are live tokens: on the disk they are sealed, and where there is no
//! key for that they are in memory alone. A pod that restarts while cut off, after the hub did, then gets one of the hub's
//! own, which the hub takes and nobody else.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use yurt_core::store::{Batch, Result, Store};

use crate::store::table::{Place, Rows, Table};
use crate::store::{MemoryStore, layout};
use crate::tasks::Tasks;

/// Answers that are kept at most: a node's pods have some hundred tokens at a time.
const ANSWERS: usize = 2_048;

/// Bytes of answers that are kept at most: each has some two thousand.
const BYTES: usize = 4 << 20;

const PLACE: Place = Place {
    prefix: layout::TOKEN_REQUESTS,
    row: "a token for a pod",
};

/// The answers. Their text is in the store alone.
#[derive(Debug)]
pub(crate) struct IssuedTokens(Table<Issued>);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Issued {
    /// When the token ends.
    expires: Timestamp,
    len: usize,
}

/// Where live tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokensIn {
    /// In a store that seals them.
    Store,
    Memory,
}

/// What a token was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenKey<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    /// Of the pod that it is bound to.
    pub(crate) uid: &'a str,
    pub(crate) audiences: &'a [String],
}

impl IssuedTokens {
    /// Opens what the store remembers, or removes it if tokens are not to be there. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>, tasks: Tasks, place: TokensIn) -> Result<Self> {
        let store = match place {
            TokensIn::Store => store,
            TokensIn::Memory => {
                remove_all(&*store)?;
                Arc::new(MemoryStore::new())
            }
        };
        // What is damaged is asked for again.
        let read = |value: &Bytes| {
            split(value).map(|(expires, answer)| Issued {
                expires,
                len: answer.len(),
            })
        };
        Table::open(PLACE, store, tasks, ANSWERS, read).map(Self)
    }

    /// Keeps an answer; what has expired goes.
    pub(crate) fn keep(
        &self,
        order: &TokenKey<'_>,
        expires: Timestamp,
        answer: &[u8],
        now: Timestamp,
    ) {
        let key: Arc<str> = order.key().into();
        let issued = Issued {
            expires,
            len: answer.len(),
        };
        let evict = |known: &Rows<Issued>| over(known, (&key, issued.len), now);
        let mut changed = self.0.insert(key.clone(), issued, evict);
        changed.push(key.clone());
        let mut value = BytesMut::from(expires.as_second().to_string().as_bytes());
        value.extend_from_slice(b"\n");
        value.extend_from_slice(answer);
        let value = value.freeze();
        // As it is then: what comes late brings nothing back that has left since.
        self.0.save(changed, move |of, kept| {
            (*of == *key && *kept == issued).then(|| value.clone())
        });
    }

    /// Returns the last answer to the same request whose token lives until `then`. Blocks on the store.
    pub(crate) fn find(&self, order: &TokenKey<'_>, then: Timestamp) -> Result<Option<Bytes>> {
        let key = order.key();
        let issued = self.0.rows().get(&*key).copied();
        if issued.is_none_or(|issued| issued.expires <= then) {
            return Ok(None);
        }
        let value = self.0.stored(&key)?;
        Ok(value
            .as_ref()
            .and_then(split)
            .filter(|(expires, _)| *expires > then)
            .map(|(_, answer)| answer))
    }
}

impl TokenKey<'_> {
    fn key(&self) -> String {
        let mut digest = Sha256::new();
        let mut audiences: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        audiences.sort_unstable();
        for part in [self.namespace, self.account, self.uid]
            .into_iter()
            .chain(audiences)
        {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let digest = digest.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns what leaves before `key` comes: what has expired, and of too many or too long ones the first to expire.
fn over(known: &Rows<Issued>, (key, len): (&str, usize), now: Timestamp) -> Vec<Arc<str>> {
    let others = known.iter().filter(|(other, _)| ***other != *key);
    let (mut alive, mut gone): (Vec<_>, Vec<_>) =
        others.partition(|(_, issued)| issued.expires > now);
    let mut bytes = alive.iter().map(|(_, issued)| issued.len).sum::<usize>() + len;
    if alive.len() >= ANSWERS || bytes > BYTES {
        alive.sort_unstable_by_key(|(_, issued)| std::cmp::Reverse(issued.expires));
        while alive.len() >= ANSWERS || bytes > BYTES {
            let Some(first) = alive.pop() else { break };
            bytes -= first.1.len;
            gone.push(first);
        }
    }
    gone.into_iter().map(|(key, _)| key.clone()).collect()
}

/// Removes the answers that an earlier hub left.
fn remove_all(store: &dyn Store) -> Result<()> {
    let mut batch = Batch::new();
    store.keys(PLACE.prefix.as_bytes(), None, &mut |key, _| {
        batch.delete(Bytes::copy_from_slice(key));
        ControlFlow::Continue(())
    })?;
    if batch.is_empty() {
        return Ok(());
    }
    // A disk that takes no writes keeps them.
    if let Err(error) = store.write(batch) {
        tracing::warn!(%error, "tokens of an earlier start stay in the store");
    }
    Ok(())
}

fn split(value: &Bytes) -> Option<(Timestamp, Bytes)> {
    let end = value.iter().position(|byte| *byte == b'\n')?;
    let seconds = std::str::from_utf8(&value[..end]).ok()?.parse().ok()?;
    Some((
        Timestamp::from_second(seconds).ok()?,
        value.slice(end + 1..),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn order<'a>(uid: &'a str, audiences: &'a [String]) -> TokenKey<'a> {
        TokenKey {
            namespace: "shop",
            account: "till",
            uid,
            audiences,
        }
    }

    async fn written(issued: IssuedTokens, store: &Arc<dyn Store>) -> IssuedTokens {
        issued.0.written().await;
        open(store)
    }

    fn open(store: &Arc<dyn Store>) -> IssuedTokens {
        IssuedTokens::open(store.clone(), Tasks::default(), TokensIn::Store).unwrap()
    }

    #[tokio::test]
    async fn the_last_answer_for_the_same_pod_and_audience_is_found_while_its_token_lives() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let issued = open(&store);
        let (vault, both) = (
            ["vault".to_owned()],
            ["vault".to_owned(), "bank".to_owned()],
        );
        let swapped = ["bank".to_owned(), "vault".to_owned()];
        issued.keep(&order("u1", &[]), at(100), b"one", at(1));
        issued.keep(&order("u1", &vault), at(100), b"two", at(1));
        issued.keep(&order("u1", &both), at(100), b"three", at(1));
        let issued = written(issued, &store).await;
        let find = |order: TokenKey<'_>, then| issued.find(&order, at(then)).unwrap();
        assert_eq!(find(order("u1", &[]), 50).as_deref(), Some(&b"one"[..]));
        assert_eq!(find(order("u1", &vault), 50).as_deref(), Some(&b"two"[..]));
        assert_eq!(
            find(order("u1", &swapped), 99).as_deref(),
            Some(&b"three"[..])
        );
        assert_eq!(find(order("u1", &[]), 100), None);
        assert_eq!(find(order("u2", &[]), 50), None);
    }

    #[tokio::test]
    async fn what_has_expired_leaves_and_the_number_is_bounded() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let issued = open(&store);
        issued.keep(&order("old", &[]), at(10), b"old", at(1));
        for number in 0..ANSWERS + 10 {
            issued.keep(&order(&number.to_string(), &[]), at(500), b"x", at(20));
        }
        let issued = written(issued, &store).await;
        assert_eq!(issued.0.rows().len(), ANSWERS);
        assert_eq!(issued.find(&order("old", &[]), at(1)).unwrap(), None);
    }

    #[tokio::test]
    async fn long_answers_are_few_and_the_first_to_expire_makes_room() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let issued = open(&store);
        let long = vec![b'x'; BYTES / 4];
        for (uid, expires) in [("b", 200), ("a", 100), ("c", 300), ("d", 400), ("e", 500)] {
            issued.keep(&order(uid, &[]), at(expires), &long, at(1));
        }
        let issued = written(issued, &store).await;
        let has = |uid| issued.find(&order(uid, &[]), at(50)).unwrap().is_some();
        assert_eq!(
            ["a", "b", "c", "d", "e"].map(has),
            [false, true, true, true, true]
        );
    }

    #[tokio::test]
    async fn without_a_seal_tokens_are_in_memory_alone_and_those_of_before_leave() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let issued = open(&store);
        issued.keep(&order("u1", &[]), at(100), b"one", at(1));
        issued.0.written().await;
        assert_eq!(store.health().records, 1);
        let issued = IssuedTokens::open(store.clone(), Tasks::default(), TokensIn::Memory).unwrap();
        assert_eq!(issued.find(&order("u1", &[]), at(50)).unwrap(), None);
        issued.keep(&order("u1", &[]), at(100), b"two", at(1));
        issued.0.written().await;
        let found = issued.find(&order("u1", &[]), at(50)).unwrap();
        assert_eq!(found.as_deref(), Some(&b"two"[..]));
        assert_eq!(store.health().records, 0);
    }

    #[test]
    fn a_damaged_answer_is_none() {
        for bad in [&b""[..], b"x\n", b"12", b"\xff\n"] {
            assert!(split(&Bytes::copy_from_slice(bad)).is_none());
        }
    }
}
