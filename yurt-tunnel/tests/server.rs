//! The server: agents, other servers, drain and what it shows, on a network in memory; who is let in, on real
//! sockets.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]

#[path = "server/admin.rs"]
mod admin;
#[path = "server/breaking_off.rs"]
mod breaking_off;
#[path = "server/check.rs"]
mod check;
#[path = "server/denied.rs"]
mod denied;
#[path = "server/dialling.rs"]
mod dialling;
#[path = "server/ending.rs"]
mod ending;
#[path = "server/letting_in.rs"]
mod letting_in;
#[path = "server/roads.rs"]
mod roads;
#[path = "server/rolling.rs"]
mod rolling;
#[path = "server/sessions.rs"]
mod sessions;
#[path = "server/several.rs"]
mod several;
#[path = "server/shares.rs"]
mod shares;
#[path = "server/world.rs"]
mod world;
