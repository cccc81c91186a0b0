#![doc = include_str!("../README.md")]

mod answer;
mod authorize;
mod backoff;
mod body;
mod codec;
mod documents;
pub mod hub;
mod identity;
mod metrics;
mod mirror;
mod overlay;
mod proxy;
pub mod store;
mod tasks;
mod tls;
mod upstream;
