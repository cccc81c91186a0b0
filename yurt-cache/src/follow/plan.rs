//! What a mirror's follower does next: a pure table of what it did, how that ended, and what is known.

use std::time::Duration;

use crate::api::ListAt;

/// For how long every answer has to say that there is no such resource before a mirror that has been synced
/// believes it: an older server of a rolling upgrade says so, and a balancer in front of none.
const MISSING_FOR: Duration = Duration::from_secs(180);

/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// One request of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    List(ListAt),
    WatchList,
    Watch,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The list is in place, or the server ended the watch.
    Well,
    /// The connection broke, or nothing more came.
    Lost,
    /// The revision is no longer there.
    Expired,
    /// The cloud is at an earlier revision than the mirror.
    WentBack,
    /// What is stored of the mirror may lack something.
    Suspect,
    /// The cloud said something that it cannot mean.
    Malformed,
    /// The watch did not bring what the cloud has.
    Unproven,
    /// No such resource.
    Missing,
    /// The resource knows no such request.
    Unsupported,
    /// Nobody who has asked may fetch it.
    Forbidden,
    /// The server has too much to do.
    Busy(Duration),
    /// The cloud refused for another reason.
    Refused { is_lasting: bool },
    /// Its revisions are no numbers.
    Unnumbered,
    /// There is more of it than the node keeps.
    OverBudget,
    /// The hub itself could not take it.
    Failed,
}

/// What is known of the mirror.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// What was done last, and how it ended; `None` at the beginning.
    pub(super) last: Option<(Step, Ended)>,
    /// The list to begin with.
    pub(super) first: ListAt,
    pub(super) is_synced: bool,
    /// The store was damaged: a list has to come before the next watch.
    pub(super) is_suspect: bool,
    /// Its watch was open at some time, in this process or before.
    pub(super) was_watched: bool,
    /// The last request went well for long enough.
    pub(super) has_lasted: bool,
    /// Nothing has failed since something went well.
    pub(super) is_fresh: bool,
    /// For how long every answer has said that there is no such resource.
    pub(super) missing_for: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At once.
    Now(Step),
    /// After the back-off, and after this at least.
    After(Step, Duration),
    /// After the back-off, or as soon as somebody else asks, with whose identity it may be fetched.
    WhenAsked(Step),
    /// It cannot be mirrored: requests for it are forwarded.
    Give(Up),
}

/// Why a mirror is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Up {
    /// The cloud refuses it; asked again soon, if anybody asks.
    Refused,
    /// It can be read and not followed, whoever asks: not tried again for long.
    Unfollowable,
    OverBudget,
}

/// Returns what to do.
pub(super) fn next(situation: &Situation) -> Next {
    let Some((step, ended)) = situation.last else {
        let can_resume = situation.is_synced && !situation.is_suspect;
        let list = Step::List(situation.first);
        return Next::Now(if can_resume { Step::Watch } else { list });
    };
    let again = Next::After(step, Duration::ZERO);
    let list = Step::List(ListAt::Latest);
    match ended {
        Ended::Well if step != Step::Watch || situation.has_lasted => Next::Now(Step::Watch),
        Ended::Well | Ended::Lost if step == Step::Watch => again,
        Ended::Well | Ended::Lost | Ended::Failed => soon(step, situation),
        Ended::Unproven => again,
        Ended::Expired => expired(step, situation),
        Ended::WentBack if step == Step::Watch => Next::Now(list),
        Ended::Suspect if step == Step::Watch && situation.has_lasted => Next::Now(list),
        // API servers of which one was put back, or mirrors that find that out of each other, make no storm of lists.
        Ended::WentBack | Ended::Suspect => soon(list, situation),
        Ended::Malformed => soon(list, situation),
        Ended::Busy(wait) => Next::After(step, wait.min(LONGEST_WAIT)),
        Ended::Unnumbered => Next::Give(Up::Unfollowable),
        Ended::OverBudget => Next::Give(Up::OverBudget),
        Ended::Missing | Ended::Unsupported if step == Step::WatchList => {
            // A server that does not know it yet has lists in pages.
            Next::After(list, Duration::ZERO)
        }
        Ended::Refused { is_lasting: true } if step == Step::WatchList => {
            Next::After(list, Duration::ZERO)
        }
        Ended::Unsupported if !situation.was_watched => Next::Give(Up::Unfollowable),
        Ended::Missing | Ended::Unsupported => missing(step, situation),
        Ended::Forbidden | Ended::Refused { is_lasting: true } if !situation.is_synced => {
            Next::Give(Up::Refused)
        }
        Ended::Forbidden => Next::WhenAsked(step),
        Ended::Refused { .. } => again,
    }
}

/// The same or another list, at once if nothing has failed before it.
fn soon(step: Step, situation: &Situation) -> Next {
    match step {
        Step::List(_) if situation.is_fresh => Next::Now(step),
        _ => Next::After(step, Duration::ZERO),
    }
}

fn expired(step: Step, situation: &Situation) -> Next {
    match step {
        Step::List(ListAt::Latest) => Next::Now(Step::WatchList),
        Step::Watch | Step::List(ListAt::Exactly(_)) | Step::WatchList => {
            soon(Step::List(ListAt::Latest), situation)
        }
    }
}

fn missing(step: Step, situation: &Situation) -> Next {
    if !situation.is_synced || situation.missing_for >= MISSING_FOR {
        return Next::Give(Up::Refused);
    }
    Next::After(step, Duration::ZERO)
}

#[cfg(test)]
mod tests;
