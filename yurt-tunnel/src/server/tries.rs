//! Opens by the first of several sessions that does: one may be dead without knowing, or not have the node.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use yurt_core::transport::{Error, ErrorKind, Open, Opener, Stream, Target};

/// A session that has not answered for so long may be dead without knowing: the next is tried beside it.
const HEDGE: Duration = Duration::from_millis(500);

/// Which session was tried, and what came of it.
type Tried = (usize, Result<Box<dyn Stream>, Error>);

/// Returns the first stream that stands, the sessions being tried in their order.
///
/// # Errors
/// What decides for all; else what the first of them said; nothing if none has the node.
pub(super) async fn first(
    sessions: Vec<Arc<dyn Opener>>,
    target: &Target,
    end: Instant,
) -> Result<Box<dyn Stream>, Option<Error>> {
    let mut untried = sessions.into_iter().enumerate();
    let mut tries = JoinSet::new();
    let mut failed: Option<(usize, Error)> = None;
    begin(&mut tries, &mut untried, target, end);
    while !tries.is_empty() {
        let tried = tokio::select! {
            Some(tried) = tries.join_next() => tried,
            () = sleep(HEDGE), if untried.len() > 0 => {
                begin(&mut tries, &mut untried, target, end);
                continue;
            }
        };
        let aborted = |_| (0, Err(Error::new(ErrorKind::Other, "an open was aborted")));
        match tried.unwrap_or_else(aborted) {
            (_, Ok(stream)) => return Ok(stream),
            (_, Err(error)) if error.kind() == ErrorKind::NoPeer => {}
            (number, Err(error)) if leaves_it_open(error.kind()) => {
                if failed.as_ref().is_none_or(|(first, _)| number < *first) {
                    failed = Some((number, error));
                }
            }
            (_, Err(error)) => return Err(Some(error)),
        }
        // A silent one is waited for beside it, and not before it.
        begin(&mut tries, &mut untried, target, end);
    }
    Err(failed.map(|(_, error)| error))
}

/// Opens by the next session, if there is one, beside those that have not answered.
fn begin(
    tries: &mut JoinSet<Tried>,
    untried: &mut impl Iterator<Item = (usize, Arc<dyn Opener>)>,
    target: &Target,
    end: Instant,
) {
    if let Some((number, session)) = untried.next() {
        let target = target.clone();
        tries.spawn(async move { (number, open(&session, &target, end).await) });
    }
}

/// Opens by one session.
pub(super) async fn open(
    session: &Arc<dyn Opener>,
    target: &Target,
    end: Instant,
) -> Result<Box<dyn Stream>, Error> {
    let left = end.saturating_duration_since(Instant::now());
    session.open(Open::new(target.clone(), left)).await
}

/// Whether another session may do what has failed so: it says nothing of the target.
fn leaves_it_open(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NoPeer
            | ErrorKind::Draining
            | ErrorKind::Overloaded
            | ErrorKind::Closed
            | ErrorKind::Timeout
    )
}
