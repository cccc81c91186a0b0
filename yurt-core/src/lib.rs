#![doc = include_str!("../README.md")]

pub mod admission;
pub mod backoff;
pub mod credentials;
pub mod error;
pub mod files;
pub mod name;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
