//! Implementations of the `Store` contract.
