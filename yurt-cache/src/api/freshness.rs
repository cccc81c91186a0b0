//! How new what is answered has to be, and what is fetched for it.

/// What a mirror must show before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Whatever it has.
    Any,
    /// At least this revision.
    AtLeast(u64),
    /// This revision and no other.
    Exactly(u64),
    /// Everything that the cloud has committed by now.
    Latest,
}

/// Which list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListAt {
    /// What the cloud has now.
    Latest,
    /// What the cloud had at a revision.
    Exactly(u64),
}
