//! What a watching client has seen of what a filter may hide: it is told of an end only where it knows of a
//! beginning.

use std::collections::HashSet;

use crate::codec::EventType;
use crate::mirror::kind::Key;

/// What one client knows. Whatever is in neither set it has seen, or it is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// There, and hidden from it.
    hidden: HashSet<Key>,
    /// Changed since the client looked: whether it was hidden then nobody knows.
    unknown: HashSet<Key>,
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
    /// Notes an object that is hidden from the client.
    pub(crate) fn hide(&mut self, key: Key) {
        self.hidden.insert(key);
    }

    /// Notes an object that has changed since the client looked.
    pub(crate) fn doubt(&mut self, key: Key) {
        self.unknown.insert(key);
    }

    /// Returns what an event is to the client, to whom its object is hidden or not.
    pub(crate) fn tell(&mut self, event_type: EventType, key: &Key, is_hidden: bool) -> Told {
        let is_unknown = self.unknown.remove(key);
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
        let key: Key = "a/b".into();
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
            assert_eq!(
                seen.tell(event_type, &key, is_hidden),
                expected,
                "{event_type:?} {is_hidden}"
            );
        }
    }

    #[test]
    fn what_was_hidden_or_changed_before_the_client_came_is_not_guessed() {
        let key: Key = "a/b".into();
        let cases = [
            (Modified, true, Told::Expired),
            (Modified, false, Told::As(Modified)),
            (Deleted, true, Told::Nothing),
            (Deleted, false, Told::As(Deleted)),
            (Added, true, Told::Nothing),
            (Added, false, Told::As(Added)),
        ];
        for (event_type, is_hidden, expected) in cases {
            let mut seen = Seen::default();
            seen.doubt(key.clone());
            assert_eq!(
                seen.tell(event_type, &key, is_hidden),
                expected,
                "{event_type:?} {is_hidden}"
            );
        }
        let mut seen = Seen::default();
        seen.hide(key.clone());
        assert_eq!(seen.tell(Deleted, &key, false), Told::Nothing);
    }
}
