//! What a watching client has seen of what a filter may hide: it is told of an end only where it knows of a
//! beginning.

use std::collections::HashSet;

use crate::api::ObjectKey;
use crate::codec::EventType;

/// What one client knows: what is there and not hidden it has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// There, and hidden from it.
    hidden: HashSet<ObjectKey>,
    /// Up to this revision the client was away: of what changed meanwhile nobody knows what it saw before.
    away_until: u64,
    /// What it was told of in the time that it was away.
    told: HashSet<ObjectKey>,
}

/// What an event is to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    As(EventType),
    /// Nobody knows whether the client has seen the object: it has to look again.
    Expired,
}

impl Seen {
    /// Returns what a client knows that was away until a revision.
    pub(crate) fn away_until(revision: u64) -> Self {
        Self {
            away_until: revision,
            ..Self::default()
        }
    }

    /// Notes an object that is hidden from the client.
    pub(crate) fn hide(&mut self, key: ObjectKey) {
        self.hidden.insert(key);
    }

    /// Returns what an event at a revision is to the client, to whom its object is hidden or not.
    pub(crate) fn tell(
        &mut self,
        event_type: EventType,
        key: &ObjectKey,
        revision: u64,
        is_hidden: bool,
    ) -> Told {
        let is_unknown = revision <= self.away_until && self.told.insert(key.clone());
        let was_hidden = self.hidden.remove(key);
        if is_hidden && event_type != EventType::Deleted {
            self.hidden.insert(key.clone());
        }
        match event_type {
            EventType::Bookmark | EventType::Error => Told::As(event_type),
            EventType::Added if is_hidden => Told::Nothing,
            // The last state of what is deleted says whether it was hidden.
            EventType::Deleted if is_unknown && is_hidden => Told::Nothing,
            EventType::Modified if is_unknown && is_hidden => Told::Expired,
            EventType::Added | EventType::Deleted | EventType::Modified if is_unknown => {
                Told::As(event_type)
            }
            EventType::Added => Told::As(EventType::Added),
            EventType::Deleted if was_hidden => Told::Nothing,
            EventType::Deleted => Told::As(EventType::Deleted),
            EventType::Modified => match (was_hidden, is_hidden) {
                (true, true) => Told::Nothing,
                (true, false) => Told::As(EventType::Added),
                (false, true) => Told::As(EventType::Deleted),
                (false, false) => Told::As(EventType::Modified),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EventType::{Added, Deleted, Modified};
    use super::*;

    #[test]
    fn a_client_hears_of_ends_whose_beginnings_it_knows() {
        let mut seen = Seen::default();
        let key: ObjectKey = "a/b".into();
        for (event_type, is_hidden, expected) in [
            (Added, false, Told::As(Added)),
            (Modified, false, Told::As(Modified)),
            (Modified, true, Told::As(Deleted)),
            (Modified, true, Told::Nothing),
            (Modified, false, Told::As(Added)),
            (Deleted, false, Told::As(Deleted)),
            (Added, true, Told::Nothing),
            (Modified, true, Told::Nothing),
            (Deleted, true, Told::Nothing),
            (Added, false, Told::As(Added)),
            (Deleted, true, Told::As(Deleted)),
        ] {
            let told = seen.tell(event_type, &key, 7, is_hidden);
            assert_eq!(told, expected, "{event_type:?} {is_hidden}");
        }
    }

    #[test]
    fn what_changed_while_the_client_was_away_is_not_guessed() {
        let key: ObjectKey = "a/b".into();
        for (event_type, is_hidden, expected) in [
            (Modified, true, Told::Expired),
            (Modified, false, Told::As(Modified)),
            (Deleted, true, Told::Nothing),
            (Deleted, false, Told::As(Deleted)),
            (Added, true, Told::Nothing),
            (Added, false, Told::As(Added)),
        ] {
            let mut seen = Seen::away_until(7);
            let told = seen.tell(event_type, &key, 7, is_hidden);
            assert_eq!(told, expected, "{event_type:?} {is_hidden}");
        }
        let mut seen = Seen::away_until(7);
        assert_eq!(seen.tell(Added, &key, 6, false), Told::As(Added));
        assert_eq!(
            seen.tell(Modified, &key, 7, true),
            Told::As(Deleted),
            "it was told"
        );
        assert_eq!(seen.tell(Modified, &key, 7, true), Told::Nothing);
    }

    #[test]
    fn what_did_not_change_meanwhile_is_known() {
        let (hidden, shown): (ObjectKey, ObjectKey) = ("a/b".into(), "a/c".into());
        let mut seen = Seen::away_until(7);
        seen.hide(hidden.clone());
        assert_eq!(seen.tell(Modified, &hidden, 8, true), Told::Nothing);
        assert_eq!(seen.tell(Deleted, &hidden, 8, true), Told::Nothing);
        assert_eq!(seen.tell(Modified, &shown, 8, true), Told::As(Deleted));
    }
}
