//! Front doors.

mod policy;

pub use self::policy::{Denied, Destination, Mistake, Nodes, Policy, Ports, Rule};
