//! The cloud end: who is connected, and who serves what is dialled.

mod dial;

pub use self::dial::{Address, Caller, Dial, Dialled, InvalidAddress};
