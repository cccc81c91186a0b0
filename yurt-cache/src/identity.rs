//! Who the hub is to its callers, and who they are to it.

mod authenticator;
mod caller;
pub(crate) mod certificate;
pub(crate) mod contact;
mod figures;
pub(crate) mod issuer;
mod keys;
mod seen;
mod standing;
mod token;
mod trust;

pub(crate) use authenticator::Authenticator;
pub(crate) use caller::{Caller, Token};
pub(crate) use figures::Figures;
pub(crate) use standing::later;
