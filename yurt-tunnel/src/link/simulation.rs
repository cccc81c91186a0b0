//! Two links in virtual time, over a network that loses, reorders, duplicates and cuts.
//!
//! Each seed is another life: other streams, other readers, another network. A seed that fails is in the panic's
//! message; `YURT_SEED=<seed>` replays it alone, `YURT_SEEDS=<count>` tries more of them.

mod network;
mod world;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use self::world::{Fate, World};

/// Lives per run.
const SEEDS: u64 = 1000;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Lives through the seeds and names the one that fails.
fn for_each_seed(fate: Fate) {
    let (first, count) = match number("YURT_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("YURT_SEEDS").unwrap_or(SEEDS)),
    };
    for seed in first..first + count {
        let life = AssertUnwindSafe(|| World::new(seed, fate).live());
        if let Err(panic) = catch_unwind(life) {
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            match why {
                Some(why) => panic!("YURT_SEED={seed} of {fate:?}: {why}"),
                None => resume_unwind(panic),
            }
        }
    }
}

#[test]
fn over_a_bad_network_every_stream_ends_as_its_owners_did() {
    for_each_seed(Fate::Bad);
}

#[test]
fn a_cut_shorter_than_the_liveness_costs_no_stream() {
    for_each_seed(Fate::ShortCut);
}

#[test]
fn a_cut_without_end_is_noticed_by_both_ends_and_fails_every_stream() {
    for_each_seed(Fate::LongCut);
}

#[test]
fn a_drain_at_any_moment_lets_open_streams_finish_and_no_new_one_begin() {
    for_each_seed(Fate::Drain);
}

#[test]
fn a_close_at_any_moment_is_seen_by_both_ends() {
    for_each_seed(Fate::Close);
}

#[test]
fn a_seed_replays_the_same_life() {
    for seed in 0..20 {
        let lives = [(); 2].map(|()| World::new(seed, Fate::Bad).live());
        assert_eq!(lives[0], lives[1], "seed {seed}");
    }
}
