//! What was asked of the server, so that a test can say "one list and one watch".

use std::collections::{BTreeMap, VecDeque};

use http::{StatusCode, Uri};
use parking_lot::Mutex;

use super::{auth::User, request::Target};

/// Records of more requests than this push out the oldest; the counters go on.
const KEPT: usize = 100_000;

/// One request that the server got.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// `get`, `list`, `watch`, `create`, …; for other paths the method in lower case.
    pub verb: String,
    /// The path.
    pub path: String,
    /// The query, undecoded.
    pub query: String,
    /// The API group, empty for the core group.
    pub group: String,
    /// The plural and subresource, such as `pods` or `pods/status`; empty for other paths.
    pub resource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The object's name, or empty.
    pub name: String,
    /// Who asked.
    pub user: String,
    /// The answer's status code, once its headers are known.
    pub code: Option<u16>,
}

#[derive(Debug, Default)]
pub(crate) struct Records(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: VecDeque<RequestRecord>,
    dropped: usize,
    counts: BTreeMap<(String, String), u64>,
}

impl Records {
    pub(crate) fn note(&self, verb: &str, uri: &Uri, user: &User, target: &Target) -> usize {
        let mut resource = target.plural.clone();
        if let Some(subresource) = &target.subresource {
            resource = format!("{resource}/{subresource}");
        }
        self.push(RequestRecord {
            verb: verb.to_owned(),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            group: target.group.clone(),
            resource,
            namespace: target.namespace.clone().unwrap_or_default(),
            name: target.name().to_owned(),
            user: user.name.clone(),
            code: None,
        })
    }

    pub(crate) fn note_path(&self, verb: &str, uri: &Uri, user: &User) {
        self.note(verb, uri, user, &Target::default());
    }

    fn push(&self, record: RequestRecord) -> usize {
        let mut inner = self.0.lock();
        let counted = (record.verb.clone(), record.resource.clone());
        *inner.counts.entry(counted).or_default() += 1;
        inner.kept.push_back(record);
        if inner.kept.len() > KEPT {
            inner.kept.pop_front();
            inner.dropped += 1;
        }
        inner.dropped + inner.kept.len() - 1
    }

    pub(crate) fn complete(&self, note: usize, code: StatusCode) {
        let mut inner = self.0.lock();
        let at = note.checked_sub(inner.dropped);
        if let Some(record) = at.and_then(|at| inner.kept.get_mut(at)) {
            record.code = Some(code.as_u16());
        }
    }

    pub(crate) fn all(&self) -> Vec<RequestRecord> {
        self.0.lock().kept.iter().cloned().collect()
    }

    pub(crate) fn count(&self, verb: &str, resource: &str) -> u64 {
        let key = (verb.to_owned(), resource.to_owned());
        self.0.lock().counts.get(&key).copied().unwrap_or_default()
    }

    pub(crate) fn forget(&self) {
        let mut inner = self.0.lock();
        let dropped = inner.dropped + inner.kept.len();
        *inner = Inner {
            dropped,
            ..Inner::default()
        };
    }
}
