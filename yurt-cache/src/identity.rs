//! Who a caller is: by its certificate, its token, and what the cloud said of both.

mod authenticator;
mod caller;
pub(crate) mod clock;
mod collector;
pub(crate) mod contact;
mod issued_tokens;
pub(crate) mod issuer;
mod judge;
mod keys;
mod local_issuer;
mod refusals;
pub(crate) mod subject;
mod time_floor;
pub(crate) mod token;
mod token_cache;
mod trust;
mod verifier;
pub(crate) mod websocket;

pub(crate) use authenticator::Authenticator;
pub(crate) use caller::{Caller, Token};
pub(crate) use collector::IdentityCollector;
pub(crate) use issued_tokens::{IssuedTokens, TokenKey, TokensIn};
pub(crate) use judge::later;
pub(crate) use local_issuer::{LocalIssuer, LocalToken};
pub(crate) use token::{Account, BoundPod};
pub(crate) use verifier::{ClientCa, NodeVerifier};
