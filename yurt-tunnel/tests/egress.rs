//! The front doors from their public API: real sockets, and a dialler that connects to servers of this process.
#![expect(clippy::unwrap_used, reason = "what cannot be had here fails the test")]

#[path = "egress/aborts.rs"]
mod aborts;
#[path = "egress/answers.rs"]
mod answers;
#[path = "egress/bed.rs"]
mod bed;
#[path = "egress/bounds.rs"]
mod bounds;
#[path = "egress/curl.rs"]
mod curl;
#[path = "egress/ending.rs"]
mod ending;
#[path = "egress/giving_up.rs"]
mod giving_up;
#[path = "egress/go.rs"]
mod go;
#[path = "egress/heads.rs"]
mod heads;
#[path = "egress/identities.rs"]
mod identities;
#[path = "egress/plain.rs"]
mod plain;
#[path = "egress/sniffed.rs"]
mod sniffed;
#[path = "egress/sockets.rs"]
mod sockets;
#[path = "egress/targets.rs"]
mod targets;
#[path = "egress/tunnels.rs"]
mod tunnels;
