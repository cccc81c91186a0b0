//! May this caller see this? The cloud is asked with the caller's own identity; its word is remembered
//! and honoured while the cloud is away.

mod keeping;
mod local_write;
mod permit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use yurt_core::store::{Batch, Result, Store};

pub(crate) use self::keeping::{Count, Retention};
use self::keeping::{Needed, Pressure};
pub(crate) use self::local_write::{LocalWrite, local_write};
pub(crate) use self::permit::Permit;
use crate::api::{Resource, Scope};
use crate::body;
use crate::codec::{Status, Subject};
use crate::identity::{Authenticator, Caller, later};
use crate::tasks::Tasks;
use crate::upstream::{AGENT, SendError, Upstream};

/// How long a verdict is used without asking again while the cloud is there. As kube-apiserver's own webhooks
/// cache an allow for minutes and a deny for half of one, and we serve what can be secrets: shorter.
const ALLOWED_FOR: Duration = Duration::from_secs(60);
const DENIED_FOR: Duration = Duration::from_secs(10);

/// How long an allow is used while it is asked again beside the answer: as kube-apiserver caches a webhook's.
const USED_FOR: Duration = Duration::from_secs(300);

/// How long a verdict that was only learned for later is not asked for again.
const LEARNED_FOR: Duration = Duration::from_secs(600);

/// The longest description of an access that is kept as text; selectors may be of any length.
const KEY_LEN: usize = 512;

/// How often a verdict that stands is written again, so that it does not seem older than it is: it counts for
/// weeks while the cloud is away.
const WRITTEN_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// A read that somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Access {
    pub(crate) verb: &'static str,
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// The selectors, canonical: who may list the pods of one node may not list all.
    pub(crate) labels: String,
    pub(crate) fields: String,
}

/// What the cloud said of who may see what.
#[derive(Debug)]
pub(crate) struct Verdicts {
    store: Arc<dyn Store>,
    tasks: Tasks,
    authenticator: Arc<Authenticator>,
    retention: Retention,
    known: Arc<Mutex<HashMap<String, Verdict>>>,
    /// Those without which a restart would not be answered, as far as is known.
    needed: Mutex<Needed>,
    /// When the store was opened: nothing is known of uses before.
    opened: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    is_allowed: bool,
    /// None: remembered from before this process.
    asked: Option<Instant>,
    /// When it was written, by the clock: at most a day after it was asked, or before.
    written: Timestamp,
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}

impl Verdicts {
    /// Opens what the store remembers. Blocks on the store.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        tasks: Tasks,
        authenticator: Arc<Authenticator>,
        retention: Retention,
        now: Instant,
    ) -> Result<Self> {
        let mut keys = Vec::new();
        store.keys(b"a/", None, &mut |key, _| {
            keys.extend(String::from_utf8(key.to_vec()));
            std::ops::ControlFlow::Continue(())
        })?;
        let mut known = HashMap::new();
        for key in keys {
            if let Ok(Some(value)) = store.get(key.as_bytes())
                && let Some(verdict) = Verdict::parse(&value)
            {
                known.insert(key, verdict);
            }
        }
        Ok(Self {
            store,
            tasks,
            authenticator,
            retention,
            known: Arc::new(Mutex::new(known)),
            needed: Mutex::default(),
            opened: now,
        })
    }

    /// Returns if the caller may do it; asks the cloud unless it has said so lately.
    ///
    /// # Errors
    /// 403 if the cloud says no, 401 if it does not know the caller; what the cloud said when asked in vain.
    pub(crate) async fn check(
        &self,
        upstream: &Upstream,
        caller: &Caller,
        access: &Access,
    ) -> std::result::Result<Permit, Status> {
        let known = self.known.lock().get(&access.key(caller.id())).copied();
        let is_current = self.authenticator.is_current(caller);
        if let Some(verdict) = known.filter(|verdict| is_current && verdict.is_fresh()) {
            return verdict.as_result(access);
        }
        match ask(upstream, caller, access).await {
            Ok(is_allowed) => {
                self.authenticator.recognised(caller);
                self.remember(caller, access, is_allowed).as_result(access)
            }
            Err(Refusal::Status(status)) => {
                if status.code == StatusCode::UNAUTHORIZED {
                    self.authenticator.refused(caller);
                }
                Err(status)
            }
            Err(Refusal::Unreachable) => self.check_offline(caller, access),
        }
    }

    /// Returns if the cloud said, when it was last there, that the caller may do it.
    ///
    /// # Errors
    /// 401 for a caller who does not count while the cloud is away, 403 for what it never allowed, or too long ago.
    pub(crate) fn check_offline(
        &self,
        caller: &Caller,
        access: &Access,
    ) -> std::result::Result<Permit, Status> {
        self.authenticator.check_offline(caller)?;
        let said = self.said(caller, access);
        if let Some(verdict) = said.filter(|verdict| verdict.is_allowed) {
            return verdict.as_result(access);
        }
        // Who may do it to all may do it to some.
        let to_all = Access {
            name: None,
            labels: String::new(),
            fields: String::new(),
            ..access.clone()
        };
        let everywhere = Access {
            namespace: None,
            ..to_all.clone()
        };
        // A refusal counts until the cloud has said more.
        let is_later = |verdict: Verdict| said.is_none_or(|said| said.written < verdict.written);
        let allowed = [to_all, everywhere].iter().any(|access| {
            self.said(caller, access)
                .is_some_and(|verdict| verdict.is_allowed && is_later(verdict))
        });
        if allowed {
            return Ok(Permit::new());
        }
        if let Some(refusal) = said {
            return refusal.as_result(access);
        }
        Err(access.forbidden("and the cloud is not reachable to ask"))
    }

    /// Returns the cloud's refusal, if it has said no; for what nobody here could answer anyway.
    ///
    /// # Errors
    /// 403 with it.
    pub(crate) fn check_denied(
        &self,
        caller: &Caller,
        access: &Access,
    ) -> std::result::Result<(), Status> {
        let said = self.said(caller, access);
        said.map_or(Ok(()), |verdict| verdict.as_result(access).map(drop))
    }

    /// Returns what the cloud said, if that counts while it is away.
    fn said(&self, caller: &Caller, access: &Access) -> Option<Verdict> {
        let now = self.authenticator.time();
        let known = self.known.lock();
        let mut said = caller.ids().filter_map(|id| known.get(&access.key(id)));
        // The node's own right is not a matter of time: nobody else could renew it here.
        let counts = |verdict: &&Verdict| {
            *caller == Caller::Node || later(verdict.written, self.retention.limit) >= now
        };
        said.find(counts).copied()
    }

    /// Permits what the cloud has allowed not long ago; what was allowed before this process counts until the
    /// cloud is there.
    pub(crate) fn allowed_lately(
        &self,
        caller: &Caller,
        access: &Access,
        is_online: bool,
    ) -> Option<Permit> {
        if !is_online {
            return self.check_offline(caller, access).ok();
        }
        let known = self.known.lock().get(&access.key(caller.id())).copied();
        let is_recent = |verdict: Verdict| {
            verdict
                .asked
                .is_some_and(|asked| asked.elapsed() < USED_FOR)
        };
        let is_allowed = self.authenticator.is_current(caller)
            && known.is_some_and(|verdict| verdict.is_allowed && is_recent(verdict));
        is_allowed.then(Permit::new)
    }

    /// Returns whether the cloud has said anything of just this.
    pub(crate) fn is_judged(&self, caller: &Caller, access: &Access) -> bool {
        self.known.lock().contains_key(&access.key(caller.id()))
    }

    /// Returns whether the cloud need not be asked again yet.
    pub(crate) fn is_fresh(&self, caller: &Caller, access: &Access) -> bool {
        self.known
            .lock()
            .get(&access.key(caller.id()))
            .is_some_and(Verdict::is_fresh)
    }

    /// Notes that the cloud has just let the caller do it.
    pub(crate) fn grant(&self, caller: &Caller, access: &Access) -> Permit {
        self.authenticator.recognised(caller);
        self.remember(caller, access, true);
        Permit::new()
    }

    /// Notes that the cloud, which knows the caller, has just not let it do it.
    pub(crate) fn deny(&self, caller: &Caller, access: &Access) {
        self.authenticator.recognised(caller);
        self.remember(caller, access, false);
    }

    /// Returns whether the cloud has said something not too long ago, good enough for when it is away.
    pub(crate) fn is_asked(&self, caller: &Caller, access: &Access) -> bool {
        let asked = self
            .known
            .lock()
            .get(&access.key(caller.id()))
            .and_then(|verdict| verdict.asked);
        asked.is_some_and(|asked| asked.elapsed() < LEARNED_FOR)
    }

    fn remember(&self, caller: &Caller, access: &Access, is_allowed: bool) -> Verdict {
        let key = access.key(caller.id());
        let now = self.authenticator.time();
        let mut changed = Vec::new();
        let mut known = self.known.lock();
        if known.len() >= self.retention.count {
            changed = self.forget(&mut known, Instant::now(), Pressure::Room);
        }
        let before = known.get(&key).copied();
        let stands = before.filter(|before| {
            before.is_allowed == is_allowed && later(before.written, WRITTEN_EVERY) > now
        });
        let verdict = Verdict {
            is_allowed,
            asked: Some(Instant::now()),
            written: stands.map_or(now, |before| before.written),
        };
        known.insert(key.clone(), verdict);
        drop(known);
        if stands.is_none() {
            changed.push(key);
        }
        if !changed.is_empty() {
            self.save(changed);
        }
        verdict
    }

    /// Writes these verdicts as they are when the store comes to it: no caller waits for a disk.
    fn save(&self, keys: Vec<String>) {
        let (store, known) = (self.store.clone(), self.known.clone());
        self.tasks.spawn_blocking(move || {
            let mut batch = Batch::new();
            for key in keys {
                let verdict = known.lock().get(&key).copied();
                match verdict {
                    Some(verdict) => batch.put(key, verdict.text()),
                    None => batch.delete(key),
                };
            }
            if let Err(error) = store.write(batch) {
                tracing::warn!(%error, "a verdict is not remembered");
            }
        });
    }
}

enum Refusal {
    Status(Status),
    Unreachable,
}

/// Asks the cloud by a SelfSubjectAccessReview, with the caller's own identity.
async fn ask(
    upstream: &Upstream,
    caller: &Caller,
    access: &Access,
) -> std::result::Result<bool, Refusal> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "verb": access.verb,
            "group": access.resource.group,
            "version": access.resource.version,
            "resource": access.resource.plural,
            "namespace": access.namespace.as_deref().unwrap_or_default(),
            "name": access.name.as_deref().unwrap_or_default(),
            "subresource": access.subresource.as_deref().unwrap_or_default(),
            "labelSelector": selector(&access.labels),
            "fieldSelector": selector(&access.fields),
        }},
    });
    let mut request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, AGENT)
        .body(body::full(review.to_string()))
        .expect("the parts of the request are constant");
    caller.sign(request.headers_mut());
    let response =
        upstream
            .send(caller.credential(), request)
            .await
            .map_err(|error| match error {
                SendError::CutOff | SendError::Connection { .. } | SendError::Closed { .. } => {
                    Refusal::Unreachable
                }
                error => Refusal::Status(Status::internal(&format!(
                    "ask the cloud who may see it: {error}"
                ))),
            })?;
    let code = response.status();
    let text = body::read(response.into_body(), 64 << 10)
        .await
        .map_err(|_| Refusal::Unreachable)?;
    if code != StatusCode::CREATED && code != StatusCode::OK {
        return Err(Refusal::Status(Status::received(code, &text)));
    }
    let review: Review = serde_json::from_slice(&text).map_err(|error| {
        Refusal::Status(Status::internal(&format!(
            "read the access review: {error}"
        )))
    })?;
    Ok(review.status.allowed)
}

/// The server reads the raw text itself, as it does that of a request.
fn selector(text: &str) -> serde_json::Value {
    if text.is_empty() {
        serde_json::Value::Null
    } else {
        json!({ "rawSelector": text })
    }
}

impl Verdict {
    fn is_fresh(&self) -> bool {
        let lasts = if self.is_allowed {
            ALLOWED_FOR
        } else {
            DENIED_FOR
        };
        self.asked.is_some_and(|asked| asked.elapsed() < lasts)
    }

    fn text(self) -> String {
        let word = if self.is_allowed { "1" } else { "0" };
        format!("{word} {}", self.written.as_second())
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (word, written) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self {
            is_allowed: word == "1",
            asked: None,
            written: Timestamp::from_second(written.parse().ok()?).ok()?,
        })
    }

    fn as_result(self, access: &Access) -> std::result::Result<Permit, Status> {
        if self.is_allowed {
            Ok(Permit::new())
        } else {
            Err(access.forbidden(""))
        }
    }
}

impl Access {
    /// The read of a whole scope.
    pub(crate) fn to_scope(verb: &'static str, scope: &Scope) -> Self {
        let is_selected = verb != "get";
        Self {
            verb,
            resource: scope.resource.clone(),
            namespace: scope.namespace.clone(),
            name: scope.name().map(str::to_owned),
            subresource: None,
            labels: if is_selected {
                scope.labels.to_string()
            } else {
                String::new()
            },
            fields: if is_selected {
                scope.fields.to_string()
            } else {
                String::new()
            },
        }
    }

    fn key(&self, id: &str) -> String {
        let parts = [
            self.verb,
            &self.resource.group,
            &self.resource.plural,
            self.subresource.as_deref().unwrap_or_default(),
            self.namespace.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default(),
            &self.labels,
            &self.fields,
        ];
        let text = parts.join("/");
        if text.len() <= KEY_LEN {
            return format!("a/{id}/{text}");
        }
        let digest = Sha256::digest(text.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("a/{id}/{digest}")
    }

    fn forbidden(&self, addition: &str) -> Status {
        let place = self.namespace.as_ref().map_or_else(
            || "at the cluster scope".to_owned(),
            |namespace| format!("in the namespace {namespace:?}"),
        );
        let name = self.name.as_deref().unwrap_or_default();
        let why = format!(
            "the caller cannot {} resource {:?} in API group {:?} {place}",
            self.verb, self.resource.plural, self.resource.group
        );
        let why = if addition.is_empty() {
            why
        } else {
            format!("{why}, {addition}")
        };
        Status::forbidden(
            Subject {
                group: &self.resource.group,
                resource: &self.resource.plural,
                name,
            },
            &why,
        )
    }
}
