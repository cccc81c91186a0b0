//! What the streams of a process may hold for slow readers beyond their first windows: one budget for all sessions.
//!
//! A session may hold as much as is left for the others: one alone half of the budget, two a third each. Whoever holds
//! most waits first, there is always something left for who comes next, and nobody has to be told of the others.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A budget of bytes; clones share it.
#[derive(Clone, Debug)]
pub struct Buffers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: u64,
    used: AtomicU64,
}

/// What one session holds of a budget; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Held {
    buffers: Buffers,
    bytes: u64,
}

impl Buffers {
    /// Returns a budget of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Pool {
            limit,
            used: AtomicU64::new(0),
        }))
    }

    /// Returns how many bytes it has.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Returns how many of them are held.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    pub(super) fn hold(&self) -> Held {
        Held {
            buffers: self.clone(),
            bytes: 0,
        }
    }

    fn left(&self) -> u64 {
        self.0.limit.saturating_sub(self.used())
    }
}

impl Default for Buffers {
    /// 64 MiB: eight streams that are read at 1 Gbit/s from 60 ms away.
    fn default() -> Self {
        Self::new(64 << 20)
    }
}

/// Why a text is no budget.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a number of bytes such as 64Mi")]
pub struct InvalidBuffers(String);

impl FromStr for Buffers {
    type Err = InvalidBuffers;

    /// Reads a number of bytes as Kubernetes writes it: `64Mi`, `1Gi`, `65536`.
    fn from_str(text: &str) -> Result<Self, InvalidBuffers> {
        let invalid = || InvalidBuffers(text.to_owned());
        let digits = text.trim_end_matches(|byte: char| !byte.is_ascii_digit());
        let factor: u64 = match &text[digits.len()..] {
            "" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(invalid()),
        };
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        let bytes = number.checked_mul(factor).ok_or_else(invalid)?;
        Ok(Self::new(bytes))
    }
}

impl PartialEq for Buffers {
    /// Two are equal if they are one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Buffers {}

impl Held {
    /// Takes what is wanted, or what the session may have.
    pub(super) fn take(&mut self, wanted: u64) -> u64 {
        let allowed = |used| {
            let left = self.buffers.limit().saturating_sub(used);
            wanted.min(left.saturating_sub(self.bytes) / 2)
        };
        let pool = &self.buffers.0;
        let add = |used| used + allowed(used);
        let before = pool.used.update(Ordering::Relaxed, Ordering::Relaxed, add);
        let taken = allowed(before);
        self.bytes += taken;
        taken
    }

    pub(super) fn give_back(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.buffers.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns whether the session holds more than what is left for others.
    pub(super) fn is_too_much(&self) -> bool {
        self.bytes > self.buffers.left()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests;
