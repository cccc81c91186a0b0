//! Who the hub is to its callers, and who they are to it.

mod authenticator;
mod caller;
pub(crate) mod certificate;
pub(crate) mod contact;

pub(crate) mod enroll;
mod figures;
mod issued;
pub(crate) mod issuer;
mod keys;
mod mint;
mod renewal;
mod seen;
pub(crate) mod signing;
mod standing;
pub(crate) mod token;
mod trust;
mod verifier;

pub(crate) use authenticator::Authenticator;
pub(crate) use caller::Caller;
#[cfg(test)]
pub(crate) use caller::Token;
pub(crate) use figures::Figures;
pub(crate) use issued::Order;
pub(crate) use mint::Mint;
pub(crate) use standing::later;
pub(crate) use token::{Account, BoundPod};
pub(crate) use verifier::NodeVerifier;
