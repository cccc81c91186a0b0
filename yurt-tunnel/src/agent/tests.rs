//! The agent on networks in memory.

mod dials;
#[cfg(any(feature = "h2", feature = "quic"))]
mod fleet;
mod idle;
mod links;
mod lists;
mod starving;
mod storm;
mod transports;
mod world;
