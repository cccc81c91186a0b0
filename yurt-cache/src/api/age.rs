//! How long ago something was, and how people are told.

use std::time::Duration;

/// Returns how long ago something was; a clock that was set back says nothing.
pub(crate) fn elapsed(since: jiff::Timestamp, now: jiff::Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Writes a time as people say it: `8s`, `3m`, `5h`, `2d`.
pub(crate) fn human(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
