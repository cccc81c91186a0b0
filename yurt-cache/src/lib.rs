#![doc = include_str!("../README.md")]

mod codec;
mod identity;
pub mod store;
mod upstream;
