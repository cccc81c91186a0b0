//! The API's words: what a request asks for, of which objects. All rooms speak them; they know the codec alone.

mod age;
mod freshness;
mod key;
pub(crate) mod request;
mod resource;
mod scope;
mod selection;
pub(crate) mod well_known;

pub(crate) use self::age::{elapsed, human};
pub(crate) use self::freshness::{Freshness, ListAt};
pub(crate) use self::key::{ObjectKey, Within, key, split_key};
pub(crate) use self::resource::Resource;
pub(crate) use self::scope::Scope;
pub(crate) use self::selection::Selection;
