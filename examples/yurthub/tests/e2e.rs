//! The black box: the program between a client and the real API server, judged by what the server says itself.

#![expect(
    clippy::unwrap_used,
    reason = "what a test takes for granted fails the test"
)]
#![expect(clippy::print_stdout, reason = "figures, and every check that differs")]

#[path = "e2e/autonomy.rs"]
mod autonomy;
#[path = "e2e/callers.rs"]
mod callers;
#[path = "e2e/changing.rs"]
mod changing;
#[path = "e2e/checks.rs"]
mod checks;
#[path = "e2e/clients.rs"]
mod clients;
#[path = "e2e/cutting.rs"]
mod cutting;
#[path = "e2e/ending.rs"]
mod ending;
#[path = "e2e/hub.rs"]
mod hub;
#[path = "e2e/joining.rs"]
mod joining;
#[path = "e2e/kubectl.rs"]
mod kubectl;
#[path = "e2e/outliving.rs"]
mod outliving;
#[path = "e2e/reading.rs"]
mod reading;
#[path = "e2e/rows.rs"]
mod rows;
#[path = "e2e/semantics.rs"]
mod semantics;
#[path = "e2e/site.rs"]
mod site;
#[path = "e2e/story.rs"]
mod story;
#[path = "e2e/tricks.rs"]
mod tricks;
#[path = "e2e/watching.rs"]
mod watching;
#[path = "e2e/world.rs"]
mod world;
#[path = "e2e/writing.rs"]
mod writing;
