#![doc = include_str!("../README.md")]

mod admin;
pub mod agent;
mod children;
pub mod dial;
pub mod egress;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod identity;
pub mod link;
mod local;
mod network;
pub mod nodes;
pub mod server;
pub mod servers;
mod shares;
pub mod splice;
pub mod transport;
mod trust;
pub mod wire;
