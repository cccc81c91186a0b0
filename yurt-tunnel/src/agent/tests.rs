//! The agent on networks in memory.

mod dials;
mod links;
mod lists;
mod storm;
mod transports;
mod world;
