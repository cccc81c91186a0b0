//! Which objects a client asked for: label and field selectors, parsed and printed as the
//! API server does, with its own words for what is wrong.

mod field;
mod label;
mod name;

pub(crate) use field::FieldSelector;
pub(crate) use label::LabelSelector;

/// Why a text is not a selector; prints the API server's own message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SelectorError(pub(crate) String);
