#![doc = include_str!("../README.md")]

mod answer;
mod api;
mod authorize;
mod autonomy;
mod body;
mod codec;
mod documents;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod garbage;
pub mod hub;
mod identity;
mod limits;
mod metrics;
mod mirror;
mod needs;
mod outbox;
mod overlay;
mod proxy;
pub mod store;
mod tasks;
mod tls;
mod upstream;
