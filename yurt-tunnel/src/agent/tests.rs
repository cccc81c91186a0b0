//! The agent on networks in memory.

mod dials;
mod links;
mod lists;
mod transports;
mod world;
