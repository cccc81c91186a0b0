//! Who a caller is: by its certificate, its token, and what the cloud said of both.

mod authenticator;
mod caller;
pub(crate) mod contact;
mod figures;
mod issued;
pub(crate) mod issuer;
mod keys;
mod mint;
mod seen;
mod standing;
pub(crate) mod subject;
pub(crate) mod token;
mod trust;
mod verifier;

pub(crate) use authenticator::Authenticator;
pub(crate) use caller::{Caller, Token};
pub(crate) use figures::Figures;
pub(crate) use issued::Order;
pub(crate) use mint::{Mint, Minted};
pub(crate) use standing::later;
pub(crate) use token::{Account, BoundPod};
pub(crate) use verifier::NodeVerifier;
