//! What lies where in the store. A table is a prefix, and no prefix begins another; the rest of a key is its table's own
//! affair, and so is how a value is written.
//!
//! Where a key is given, what lies in the `SEALED` places is sealed; `seal` says how a sealed value looks. It tells itself
//! from a clear one, so that a store may hold both.
//!
//! What is said in a table may be read by a later hub: a table that gets another meaning gets another prefix, or for
//! those of mirrors another `LAYOUT_VERSION`.

use yurt_core::store::{Error, ErrorKind, Result, Store};

// === Mirrors: mirror/saved.rs. What another layout wrote is dropped and fetched anew. ===

/// Scopes and how far they are: `s/<id>`.
pub(crate) const SCOPES: &str = "s/";

/// The versions of objects: `o/<group>/<version>/<plural>/<namespace>/<name>`.
pub(crate) const RECORDS: &str = "o/";

/// Which version was read by name, as those of objects.
pub(crate) const REMEMBERED: &str = "r/";

/// What a scope holds of an object: `m/<id>/<namespace>/<name>`.
pub(crate) const MEMBERS: &str = "m/";

/// What a scope remembers of deletions: `t/<id>/<order>`.
pub(crate) const TOMBSTONES: &str = "t/";

/// In which era a resource's revisions are: `k/<group>/<version>/<plural>/`.
pub(crate) const ERAS: &str = "k/";

/// What an earlier layout had of single objects; it is only ever dropped.
const NAMED: &str = "n/";

/// All of these.
pub(crate) const TABLES: [&str; 7] = [
    SCOPES, RECORDS, REMEMBERED, MEMBERS, NAMED, TOMBSTONES, ERAS,
];

/// Where it is said which layout these tables have.
pub(crate) const LAYOUT: &str = "l/layout";

/// The layout that this hub writes.
pub(crate) const LAYOUT_VERSION: &str = "2";

/// Refuses a store that a newer hub wrote. Blocks on the store.
///
/// # Errors
/// If it is one, in words; nothing of it is touched.
pub(crate) fn check(store: &dyn Store) -> Result<()> {
    // What is damaged is dropped with the tables.
    let Ok(Some(layout)) = store.get(LAYOUT.as_bytes()) else {
        return Ok(());
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    match (number(&layout), number(LAYOUT_VERSION.as_bytes())) {
        (Some(stored), Some(own)) if stored > own => Err(Error::new(
            ErrorKind::Other,
            format!(
                "the store has layout {stored}, and this hub knows up to {own}: use the hub that wrote it or another folder"
            ),
        )),
        _ => Ok(()),
    }
}

/// How much damage the store told of when all that it could concern had been listed again.
pub(crate) const HEALED: &str = "l/healed";

// === What the cloud said. What cannot be read is not known. ===

/// Who may read what: `a/<caller>/<access>`. See `authorize`.
pub(crate) const VERDICTS: &str = "a/";

/// For how long the cloud was there in all, in seconds. See `authorize::contact_time`.
pub(crate) const CONTACT_TIME: &str = "i/online";

/// Discovery, OpenAPI and version: `d/<path>`, the digest if one was asked for, and the form that was sent. See `discovery`.
pub(crate) const DOCUMENTS: &str = "d/";

/// Tokens that the cloud recognised or refused, by their digest. See `identity::token_cache`.
pub(crate) const TOKENS: &str = "i/token/";

/// The cloud's answers to requests for tokens, by the digest of what was asked. See `identity::issued_tokens`.
pub(crate) const TOKEN_REQUESTS: &str = "i/request/";

/// The issuer of the cluster's tokens, and its keys. See `identity::authenticator`.
pub(crate) const CLUSTER: &str = "i/cluster";

// === What is sealed, where a key is given. ===

/// How keys of sealed values begin: Secrets, tokens, and all deletions, which hold the last bytes of any object.
pub(crate) const SEALED: [&str; 3] = ["o//v1/secrets/", TOMBSTONES, TOKEN_REQUESTS];

/// Returns whether the value of a key is sealed.
pub(crate) fn is_sealed(key: &[u8]) -> bool {
    SEALED
        .iter()
        .any(|prefix| key.starts_with(prefix.as_bytes()))
}

// === What the node knows by itself. ===

/// When the cloud was there for the last time. See `identity::contact`.
pub(crate) const CONTACT: &str = "i/contact";

/// What time it was at least: seconds, those of the boot-time clock, and the machine's start. See `identity::clock`.
pub(crate) const TIME: &str = "i/time";

/// The machine's start that a hub saw last. See `hub::boot`.
pub(crate) const BOOT: &str = "i/boot";

/// The pods of whom the kubelet has not said anything since that start. See `overlay::unheard`.
pub(crate) const UNHEARD: &str = "i/unheard";

/// Events that wait for the cloud: `e/<number>`. See `outbox`.
pub(crate) const EVENTS: &str = "e/";

/// What filters knew when clients last looked. See `filter::follow`.
pub(crate) const FILTER_CONTEXT: &str = "f/context";

#[cfg(test)]
mod tests {
    use yurt_core::store::StoreExt;

    use super::super::MemoryStore;
    use super::*;

    #[test]
    fn only_a_newer_layout_is_refused() {
        for (layout, is_refused) in [
            ("1", false),
            (LAYOUT_VERSION, false),
            ("99", true),
            ("x", false),
        ] {
            let store = MemoryStore::new();
            assert!(check(&store).is_ok());
            store.put(LAYOUT, layout).unwrap();
            assert_eq!(check(&store).is_err(), is_refused, "{layout}");
        }
    }

    #[test]
    fn no_prefix_begins_another() {
        let others = [
            LAYOUT,
            HEALED,
            VERDICTS,
            CONTACT_TIME,
            DOCUMENTS,
            TOKENS,
            TOKEN_REQUESTS,
            CLUSTER,
            CONTACT,
            TIME,
            BOOT,
            UNHEARD,
            EVENTS,
            FILTER_CONTEXT,
        ];
        let all: Vec<&str> = TABLES.into_iter().chain(others).collect();
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert!(at == other_at || !one.starts_with(other), "{one} {other}");
            }
        }
    }
}
