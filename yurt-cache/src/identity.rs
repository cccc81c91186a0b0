//! Who the hub is to its callers, and who they are to it.

pub(crate) mod certificate;
