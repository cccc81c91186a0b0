#![doc = include_str!("../README.md")]

mod store;
mod transport;

pub use store::SqliteStore;
pub use transport::{LIMIT, TcpTransport};
