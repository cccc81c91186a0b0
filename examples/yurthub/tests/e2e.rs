//! The black box: the program between a client and the real API server, judged by what the server says itself.

#[path = "e2e/callers.rs"]
mod callers;
#[path = "e2e/checks.rs"]
mod checks;
#[path = "e2e/cutting.rs"]
mod cutting;
#[path = "e2e/reading.rs"]
mod reading;
#[path = "e2e/rows.rs"]
mod rows;
#[path = "e2e/site.rs"]
mod site;
#[path = "e2e/watching.rs"]
mod watching;
#[path = "e2e/world.rs"]
mod world;
#[path = "e2e/writing.rs"]
mod writing;
#[path = "e2e/scratch.rs"]
mod scratch;
