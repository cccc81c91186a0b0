//! The conformance suite of [`Transport`](crate::transport::Transport): run it by
//! [`transport_conformance!`](crate::transport_conformance). And a network in memory that passes it.
//!
//! Each function is a clause of the contract and panics where it is not kept.

mod ends;
mod memory;
mod opening;
mod session;
mod stream;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::memory::{MemoryNetwork, MemoryTransport, memory_pair};
pub use self::opening::*;
pub use self::session::*;
pub use self::stream::*;
use crate::transport::{Acceptor, Chain, Opener, Peer};

/// Streams that the suite has open at once, beside a few more: a [`Pair`] has to allow them.
pub const UNREAD: usize = 256;

/// Both ends of a session that no stream was opened in yet.
#[derive(Debug)]
pub struct Pair {
    /// The end that opens streams.
    pub opener: Arc<dyn Opener>,
    /// The end that accepts them.
    pub acceptor: Arc<dyn Acceptor>,
    /// Who the opening end is, as its certificate was made.
    pub server: Peer,
    /// Who the accepting end is, as its certificate was made.
    pub node: Peer,
    /// How many streams may be open at once; more than [`UNREAD`], and than may wait to be accepted.
    pub limit: usize,
    /// What has to live as long as the session: a listener, a directory, a server.
    pub keep: Box<dyn Any + Send>,
}

/// Makes a test of each clause that every transport keeps; `pair` is an async function that connects two ends.
///
/// ```
/// use yurt_core::testing::transport::Pair;
///
/// # async fn pair() -> Pair { unimplemented!() }
/// yurt_core::transport_conformance!(pair);
/// ```
#[macro_export]
macro_rules! transport_conformance {
    ($pair:expr) => {
        $crate::transport_clauses! { $pair;
            an_open_arrives_as_it_was_requested,
            a_rejected_open_fails_with_the_kind_and_the_message,
            an_unanswered_open_fails_at_its_deadline,
            a_dropped_open_is_cancelled_at_the_peer,
            an_open_beyond_the_limit_waits,
            opens_that_nobody_takes_are_refused_as_overload,
            bytes_arrive_as_they_were_written,
            a_shutdown_ends_one_direction,
            a_flush_sends_what_was_written,
            a_reset_fails_the_peer_with_its_code,
            a_dropped_stream_is_reset,
            an_unread_stream_holds_up_no_other,
            a_stream_read_late_delivers_every_byte,
            a_change_of_priority_changes_no_byte,
            a_ping_returns_when_the_peer_has_answered,
            after_a_drain_new_opens_fail_and_open_streams_finish,
            a_close_is_seen_by_both_ends,
            a_session_is_closed_when_its_last_owner_drops_it,
            a_thousand_ended_streams_leave_nothing,
            each_end_knows_who_the_other_is,
            what_was_written_arrives_though_its_writer_is_gone,
            a_reset_is_told_to_an_end_that_only_waits,
            a_dropped_accept_ends_the_stream,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! transport_clauses {
    ($pair:expr; $($clause:ident,)*) => {
        $(
            #[test]
            fn $clause() {
                $crate::testing::transport::in_a_runtime($crate::testing::transport::$clause($pair));
            }
        )*
    };
}

/// Runs a clause as a program would: on a runtime with several threads, which ends with it.
pub fn in_a_runtime(clause: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a test has a runtime")
        .block_on(clause);
}

/// Returns the identity of a node, as its kubelet's certificate has it.
#[must_use]
pub fn node(name: &str) -> Peer {
    peer(&format!("system:node:{name}"), "system:nodes", name)
}

/// Returns the identity of a server that is known by `name`.
#[must_use]
pub fn server(name: &str) -> Peer {
    peer(name, "yurt:tunnel-servers", name)
}

fn peer(user: &str, group: &str, name: &str) -> Peer {
    Peer {
        user: user.to_owned(),
        groups: vec![group.to_owned()],
        names: vec![name.to_owned()],
        // Far enough, and the same in every run.
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800),
        chain: Chain::default(),
    }
}
