#![doc = include_str!("../README.md")]

mod answer;
mod api;
mod authorize;
mod autonomy;
mod body;
mod certificate;
mod codec;
mod discovery;
mod filter;
mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hub;
mod identity;
mod limits;
mod metrics;
mod mirror;
mod outbox;
mod overlay;
mod private;
mod proxy;
mod retention;
pub mod store;
mod tasks;
mod tls;
mod upstream;
