#![doc = include_str!("../README.md")]

mod admin;
pub mod agent;
pub mod egress;
pub mod identity;
pub mod link;
pub mod server;
pub mod servers;
pub mod splice;
pub mod transport;
pub mod wire;
