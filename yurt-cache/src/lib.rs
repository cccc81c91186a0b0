#![doc = include_str!("../README.md")]

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the hub that calls this comes next")
)]
mod body;
mod codec;
mod identity;
pub mod store;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the hub that calls this comes next")
)]
mod tls;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the hub that calls this comes next")
)]
mod upstream;

pub use upstream::{Order, UpstreamConfig};
