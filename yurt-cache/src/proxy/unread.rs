//! Answers whose clients do not read on. They end after a while, so that nothing is kept for them for ever; and where
//! the answers under way hold too much, those of who holds most end first.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::weight::Weight;
use crate::body::{Body, BoxError};
use crate::limits::Tenant;
use crate::metrics::ServedFrom;

/// Bytes that all answers under way may hold: what of a list or an initial state is still to be read. The objects
/// themselves are read as they are sent.
pub(crate) const HELD: usize = 64 << 20;

/// An answer that holds less is not worth a look at all of them.
const LIGHT: usize = 64 << 10;

/// All answers that may have to wait for their clients.
#[derive(Debug)]
pub(crate) struct Unread {
    limit: Duration,
    held: usize,
    answers: Mutex<Vec<Weak<Answer>>>,
}

#[derive(Debug)]
struct Answer {
    tenant: Tenant,
    weight: Weight,
    /// It is a watch: what it has not told yet is in the window, for everybody.
    lasts: bool,
    reading: Mutex<Reading>,
}

#[derive(Debug)]
struct Reading {
    /// `None` when it has ended.
    body: Option<Body>,
    /// Since when its client has something to read; `None` while the client waits.
    waits_since: Option<Instant>,
    is_given_up: bool,
    /// Who waits for the body.
    reader: Option<Waker>,
}

/// A body that tells whether it is read.
struct Attended(Arc<Answer>);

impl Unread {
    /// Gives answers up that wait for so long, or if all hold more than `held` bytes.
    pub(crate) fn new(limit: Duration, held: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held,
            answers: Mutex::default(),
        })
    }

    /// Looks after an answer to a tenant. What lasts and comes from the cloud may wait as long as the cloud lets it.
    pub(super) fn attend(
        &self,
        response: Response<Body>,
        tenant: &Tenant,
        (from, lasts): (ServedFrom, bool),
    ) -> Response<Body> {
        let is_whole = from != ServedFrom::Cloud
            && http_body::Body::size_hint(response.body())
                .exact()
                .is_some();
        if is_whole || (from == ServedFrom::Cloud && lasts) {
            return response;
        }
        let weight = response.extensions().get::<Weight>();
        let weight = weight.cloned().unwrap_or_default();
        response.map(|body| {
            let answer = Arc::new(Answer {
                tenant: tenant.clone(),
                weight,
                lasts,
                reading: Mutex::new(Reading {
                    body: Some(body),
                    waits_since: Some(Instant::now()),
                    is_given_up: false,
                    reader: None,
                }),
            });
            let is_heavy = answer.weight.bytes() > LIGHT;
            self.answers.lock().push(Arc::downgrade(&answer));
            if is_heavy {
                self.make_room();
            }
            Attended(answer).boxed_unsync()
        })
    }

    /// Returns how many bytes answers under way hold, and may.
    pub(crate) fn held(&self) -> (usize, usize) {
        let answers = self.answers();
        let held = answers.iter().map(|answer| answer.weight.bytes());
        (held.sum(), self.held)
    }

    /// Gives up what waits too long, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval((self.limit / 4).max(Duration::from_millis(10)));
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = Instant::now();
            for answer in self.answers() {
                let since = answer.reading.lock().waits_since;
                let since = since.filter(|_| answer.is_held());
                if since.is_some_and(|since| now.duration_since(since) >= self.limit) {
                    tracing::debug!(tenant = ?answer.tenant, "an answer ends that its client does not read");
                    answer.give_up();
                }
            }
        }
    }

    /// Ends answers of who holds most, those first that have waited longest, until all hold what they may. The node's
    /// never.
    fn make_room(&self) {
        let answers = self.answers();
        let mut held: usize = answers.iter().map(|answer| answer.weight.bytes()).sum();
        while held > self.held {
            let Some(goes) = greediest(&answers) else {
                return;
            };
            held = held.saturating_sub(goes.weight.bytes());
            tracing::info!(tenant = ?goes.tenant, "an answer ends: its caller holds more than others");
            goes.give_up();
        }
    }

    fn answers(&self) -> Vec<Arc<Answer>> {
        let mut alive = Vec::new();
        self.answers.lock().retain(|answer| {
            alive.extend(answer.upgrade());
            answer.strong_count() > 0
        });
        alive
    }
}

/// Returns the heaviest tenant's answer that has waited longest for its client, or else for us.
fn greediest(answers: &[Arc<Answer>]) -> Option<&Arc<Answer>> {
    let spare = || {
        let of_callers = answers.iter().filter(|one| one.tenant != Tenant::Node);
        of_callers.filter(|one| one.weight.bytes() > 0)
    };
    let mut sums: HashMap<&Tenant, usize> = HashMap::new();
    for answer in spare() {
        *sums.entry(&answer.tenant).or_default() += answer.weight.bytes();
    }
    let (greedy, _) = sums.into_iter().max_by_key(|(_, bytes)| *bytes)?;
    let own = spare().filter(|one| one.tenant == *greedy);
    own.min_by_key(|one| {
        let since = one.reading.lock().waits_since;
        (since.is_none(), since)
    })
}

impl Answer {
    /// Returns whether anything is held for its client alone.
    fn is_held(&self) -> bool {
        !self.lasts || self.weight.bytes() > 0
    }

    /// Lets go of all that the answer holds; whoever reads on sees it break off.
    fn give_up(&self) {
        let body = {
            let mut reading = self.reading.lock();
            reading.is_given_up = reading.body.is_some();
            reading.waits_since = None;
            if let Some(reader) = reading.reader.take() {
                reader.wake();
            }
            reading.body.take()
        };
        drop(body);
    }
}

impl http_body::Body for Attended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut reading = self.0.reading.lock();
        reading.waits_since = None;
        let Some(body) = &mut reading.body else {
            let unread = || Err("its client did not read this answer".into());
            return Poll::Ready(reading.is_given_up.then(unread));
        };
        let polled = Pin::new(body).poll_frame(cx);
        // What the body waits for goes with it when it is given up.
        reading.reader = polled.is_pending().then(|| cx.waker().clone());
        let frame = ready!(polled);
        match &frame {
            Some(Ok(_)) => reading.waits_since = Some(Instant::now()),
            Some(Err(_)) | None => reading.body = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let reading = self.0.reading.lock();
        match &reading.body {
            Some(body) => body.is_end_stream(),
            None => !reading.is_given_up,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let reading = self.0.reading.lock();
        let body = reading.body.as_ref();
        body.map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;
    use crate::answer::weight::Load;
    use crate::body;

    const LIMIT: Duration = Duration::from_secs(60);

    /// An answer without an end that holds so many bytes.
    fn answer(unread: &Unread, name: &str, bytes: usize) -> (Body, Weight) {
        let load = Load::of::<u8>(bytes);
        let weight = load.weight();
        let chunks = stream::repeat_with(move || {
            let _held = &load;
            Ok(Frame::data(Bytes::from_static(b"x")))
        });
        let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
        response.extensions_mut().insert(weight.clone());
        let tenant = Tenant::of(name);
        let attended = unread.attend(response, &tenant, (ServedFrom::Mirror, true));
        (attended.into_body(), weight)
    }

    async fn is_read(body: &mut Body) -> bool {
        matches!(body.frame().await, Some(Ok(_)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_and_one_that_is_read_goes_on() {
        let unread = Unread::new(LIMIT, HELD);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(unread.clone().run(stop.clone()));
        let (mut never, weight) = answer(&unread, "a", 7);
        let (mut read, _) = answer(&unread, "a", 7);
        let (mut live, _) = answer(&unread, "a", 0);
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>());
        let silent = Response::new(silent.boxed_unsync());
        let tenant = Tenant::of("a");
        let silent = unread.attend(silent, &tenant, (ServedFrom::Mirror, true));
        let mut silent = silent.into_body();
        assert!(futures_util::poll!(silent.frame()).is_pending());
        for _ in 0..4 {
            assert!(is_read(&mut read).await);
            tokio::time::sleep(LIMIT / 2).await;
        }
        assert_eq!(weight.bytes(), 0, "nothing is held for it");
        assert!(matches!(never.frame().await, Some(Err(_))));
        assert!(never.frame().await.is_some_and(|frame| frame.is_err()));
        assert!(is_read(&mut read).await);
        assert!(
            is_read(&mut live).await,
            "a watch that holds nothing may wait"
        );
        assert!(
            futures_util::poll!(silent.frame()).is_pending(),
            "its client waits"
        );
        stop.cancel();
        tasks.join_all().await;
    }

    #[tokio::test]
    async fn where_answers_hold_too_much_the_greediest_loses_its_oldest_and_the_node_never() {
        let unread = Unread::new(LIMIT, 4 * LIGHT);
        let (mut node, _) = answer(&unread, "node", 5 * LIGHT);
        let (mut one, _) = answer(&unread, "a", LIGHT + 1);
        assert!(!is_read(&mut one).await, "there is no room beside the node");
        drop(node);
        let (mut first, _) = answer(&unread, "a", LIGHT + 1);
        let (mut second, _) = answer(&unread, "a", LIGHT + 1);
        let (mut other, _) = answer(&unread, "b", LIGHT + 1);
        (node, _) = answer(&unread, "node", LIGHT + 1);
        assert!(!is_read(&mut first).await);
        for body in [&mut second, &mut other, &mut node] {
            assert!(is_read(body).await);
        }
        drop((second, other, node));
        assert_eq!(unread.held().0, 0);
    }

    #[tokio::test]
    async fn what_is_whole_and_what_a_pod_streams_is_left_alone() {
        let unread = Unread::new(LIMIT, HELD);
        let tenant = Tenant::of("a");
        let whole = Response::new(body::full("x"));
        unread.attend(whole, &tenant, (ServedFrom::Mirror, false));
        let log = Response::new(body::full("x"));
        unread.attend(log, &tenant, (ServedFrom::Cloud, true));
        assert!(unread.answers.lock().is_empty());
    }
}
