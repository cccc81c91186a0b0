//! Names of objects within a resource, in the order of the server's lists.

use std::ops::Bound;
use std::sync::Arc;

/// `namespace/name`, and `/name` for what has no namespace: in the order of the server's lists.
pub(crate) type ObjectKey = Arc<str>;

/// Returns the key of an object.
pub(crate) fn key(namespace: &str, name: &str) -> ObjectKey {
    format!("{namespace}/{name}").into()
}

/// Returns namespace and name of a key.
pub(crate) fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// Which keys a snapshot looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Within<'a> {
    Everything,
    Namespace(&'a str),
    Object(&'a str, &'a str),
}

impl Within<'_> {
    /// Returns whether a key is one of them.
    pub(crate) fn contains(self, key: &str) -> bool {
        let (namespace, name) = split_key(key);
        match self {
            Self::Everything => true,
            Self::Namespace(wanted) => wanted == namespace,
            Self::Object(within, wanted) => (within, wanted) == (namespace, name),
        }
    }

    /// Returns where the keys begin and end.
    pub(crate) fn bounds(self) -> (Bound<String>, Bound<String>) {
        match self {
            Self::Everything => (Bound::Unbounded, Bound::Unbounded),
            // '0' is the byte after '/'.
            Self::Namespace(namespace) => (
                Bound::Included(format!("{namespace}/")),
                Bound::Excluded(format!("{namespace}0")),
            ),
            Self::Object(namespace, name) => {
                let key = format!("{namespace}/{name}");
                (Bound::Included(key.clone()), Bound::Included(key))
            }
        }
    }
}
