//! A mirror's whole life in virtual time, against a model of the API server: random writes, chunk boundaries,
//! reconnects, proofs, local versions, re-lists, a restored etcd, a full disk, crashes at every store write, restarts,
//! and clients that come and go and read slowly.
//!
//! Each seed is another life. A seed that fails is in the panic's message, with the story of its life;
//! `YURT_SEED=<seed>` replays it alone, `YURT_SEEDS=<count>` tries more of them.

mod by_name;
mod client;
mod cloud;
mod disk;
mod eras;
mod node;
mod pair;
mod process;
mod stories;
mod world;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::pair::Pair;
use self::world::World;

/// Lives per run, of one mirror and of two.
const SEEDS: u64 = 1_000;
const PAIRS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_client_sees_the_mirrors_history_once_and_in_order_and_at_rest_the_clouds_state() {
    replay(SEEDS, World::new, World::live, World::story);
}

#[test]
fn two_mirrors_of_one_kind_and_what_is_known_by_name_beside_them_never_mix_up_their_bytes() {
    replay(PAIRS, Pair::new, Pair::live, Pair::story);
}

fn replay<T>(seeds: u64, new: fn(u64) -> T, live: fn(&mut T), story: fn(&T) -> String) {
    let (first, count) = match number("YURT_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("YURT_SEEDS").unwrap_or(seeds)),
    };
    for seed in first..first + count {
        let mut life = new(seed);
        let lived = catch_unwind(AssertUnwindSafe(|| live(&mut life)));
        if let Err(panic) = lived {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let story = story(&life);
            panic!("{story}\nYURT_SEED={seed}: {}", why.unwrap_or_default());
        }
    }
}
