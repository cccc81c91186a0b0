//! yurthub

fn main() {}
