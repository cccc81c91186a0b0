//! The cloud's answers to the node's requests for tokens, kept while the tokens live: a pod that restarts while
//! the cloud is away gets the one that it had.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use yurt_core::store::{Result, Store};

use crate::store::layout;
use crate::store::table::{Place, Rows, Table};
use crate::tasks::Tasks;

/// Answers that are kept at most: a node's pods have some hundred tokens at a time.
const ANSWERS: usize = 2_048;

const PLACE: Place = Place {
    prefix: layout::TOKEN_REQUESTS,
    row: "a token for a pod",
};

/// The answers: when the token of each ends. The answers themselves are in the store alone.
#[derive(Debug)]
pub(crate) struct IssuedTokens(Table<Timestamp>);

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
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(store: Arc<dyn Store>, tasks: Tasks) -> Result<Self> {
        // What is damaged is asked for again.
        let read = |value: &Bytes| split(value).map(|(expires, _)| expires);
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
        let evict = |known: &Rows<Timestamp>| over(known, &key, now);
        let mut changed = self.0.insert(key.clone(), expires, evict);
        changed.push(key.clone());
        let mut value = BytesMut::from(expires.as_second().to_string().as_bytes());
        value.extend_from_slice(b"\n");
        value.extend_from_slice(answer);
        let value = value.freeze();
        // As it is then: what comes late brings nothing back that has left since.
        self.0.save(changed, move |of, until| {
            (*of == *key && *until == expires).then(|| value.clone())
        });
    }

    /// Returns the last answer to the same request whose token lives until `then`. Blocks on the store.
    pub(crate) fn find(&self, order: &TokenKey<'_>, then: Timestamp) -> Result<Option<Bytes>> {
        let key = order.key();
        let expires = self.0.rows().get(&*key).copied();
        if expires.is_none_or(|expires| expires <= then) {
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

/// Returns what leaves before `key` comes: what has expired, and of too many the first to expire.
fn over(known: &Rows<Timestamp>, key: &str, now: Timestamp) -> Vec<Arc<str>> {
    let others = known.iter().filter(|(other, _)| ***other != *key);
    let (alive, mut gone): (Vec<_>, Vec<_>) = others.partition(|(_, expires)| **expires > now);
    if alive.len() >= ANSWERS {
        gone.extend(alive.into_iter().min_by_key(|(_, expires)| **expires));
    }
    gone.into_iter().map(|(key, _)| key.clone()).collect()
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
        IssuedTokens::open(store.clone(), Tasks::default()).unwrap()
    }

    #[tokio::test]
    async fn the_last_answer_for_the_same_pod_and_audience_is_found_while_its_token_lives() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let issued = IssuedTokens::open(store.clone(), Tasks::default()).unwrap();
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
        let issued = IssuedTokens::open(store.clone(), Tasks::default()).unwrap();
        issued.keep(&order("old", &[]), at(10), b"old", at(1));
        for number in 0..ANSWERS + 10 {
            issued.keep(&order(&number.to_string(), &[]), at(500), b"x", at(20));
        }
        let issued = written(issued, &store).await;
        assert_eq!(issued.0.rows().len(), ANSWERS);
        assert_eq!(issued.find(&order("old", &[]), at(1)).unwrap(), None);
    }

    #[test]
    fn a_damaged_answer_is_none() {
        for bad in [&b""[..], b"x\n", b"12", b"\xff\n"] {
            assert!(split(&Bytes::copy_from_slice(bad)).is_none());
        }
    }
}
