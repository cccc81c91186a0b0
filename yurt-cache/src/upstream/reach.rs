//! Whether the cloud is there: as the probes have it, and as a decision needs it.

/// Whether any API server can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The first probes are under way.
    Unknown,
    /// At least one can.
    Online,
    /// None can.
    CutOff {
        /// When the last one went down.
        since: jiff::Timestamp,
    },
}

/// Whether the cloud is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    Cut,
}
