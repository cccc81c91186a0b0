//! Both transports on real sockets: the contract, and what each promises beyond it.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

#[path = "transport/contract.rs"]
mod contract;
#[path = "transport/flood.rs"]
mod flood;
#[path = "transport/halves.rs"]
mod halves;
#[path = "transport/hostile.rs"]
mod hostile;
#[path = "transport/lanes.rs"]
mod lanes;
#[path = "transport/purposes.rs"]
mod purposes;
#[path = "transport/rerouted.rs"]
mod rerouted;
#[path = "transport/site.rs"]
mod site;
#[path = "transport/tails.rs"]
mod tails;
#[path = "transport/unread.rs"]
mod unread;
