//! The hub from its public API: real sockets, an API server in this process, and clouds that lie.
#![expect(clippy::unwrap_used, reason = "what cannot be had here fails the test")]

#[path = "hub/admin.rs"]
mod admin;
#[path = "hub/aggregated.rs"]
mod aggregated;
#[path = "hub/alone.rs"]
mod alone;
#[path = "hub/anything.rs"]
mod anything;
#[path = "hub/at_rest.rs"]
mod at_rest;
#[path = "hub/autonomy.rs"]
mod autonomy;
#[path = "hub/cloud.rs"]
mod cloud;
#[path = "hub/damage_served.rs"]
mod damage_served;
#[path = "hub/ending.rs"]
mod ending;
#[path = "hub/enrolling.rs"]
mod enrolling;
#[path = "hub/expired.rs"]
mod expired;
#[path = "hub/faults.rs"]
mod faults;
#[path = "hub/filters.rs"]
mod filters;
#[path = "hub/flooding.rs"]
mod flooding;
#[path = "hub/following.rs"]
mod following;
#[path = "hub/forwarding.rs"]
mod forwarding;
#[path = "hub/garbage.rs"]
mod garbage;
#[path = "hub/habits.rs"]
mod habits;
#[path = "hub/history.rs"]
mod history;
#[path = "hub/hostile.rs"]
mod hostile;
#[path = "hub/identity.rs"]
mod identity;
#[path = "hub/mirrors.rs"]
mod mirrors;
#[path = "hub/never_silent.rs"]
mod never_silent;
#[path = "hub/odd.rs"]
mod odd;
#[path = "hub/reboot.rs"]
mod reboot;
#[path = "hub/remembering.rs"]
mod remembering;
#[path = "hub/rights.rs"]
mod rights;
#[path = "hub/servers.rs"]
mod servers;
#[path = "hub/shares.rs"]
mod shares;
#[path = "hub/site.rs"]
mod site;
#[path = "hub/slow_disk.rs"]
mod slow_disk;
#[path = "hub/strangers.rs"]
mod strangers;
#[path = "hub/telling.rs"]
mod telling;
#[path = "hub/token_requests.rs"]
mod token_requests;
#[path = "hub/tokens.rs"]
mod tokens;
#[path = "hub/watches.rs"]
mod watches;
