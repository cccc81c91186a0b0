#![doc = include_str!("../README.md")]

pub mod agent;
pub mod egress;
pub mod identity;
pub mod link;
pub mod server;
pub mod servers;
pub mod transport;
pub mod wire;
