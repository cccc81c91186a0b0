//! A request and what the hub knows of it beside its words.

use crate::api::request::ApiRequest;
use crate::filter::sieve::Sieve;

/// One request on its way through the hub.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) api: ApiRequest,
    /// The filters that the answer has to pass.
    pub(crate) sieve: Option<Sieve>,
}
