//! The proof that somebody has decided.

/// One answer that a caller may have. Only what decides makes one (the field is this room's own), it cannot be copied,
/// and whatever answers takes it: nothing of a mirror is answered that nobody has decided on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Permit(());

impl Permit {
    /// Only where it has just been decided.
    pub(super) fn new() -> Self {
        Self(())
    }
}
