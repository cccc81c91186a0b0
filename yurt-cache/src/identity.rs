//! Who the hub is to its callers, and who they are to it.

mod caller;
pub(crate) mod certificate;

pub(crate) use caller::Caller;
