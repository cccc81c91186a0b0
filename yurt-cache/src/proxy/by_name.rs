//! What is remembered of single objects: what a read shows, as long as it is the newest that its readers and writers
//! have seen, and until it is gone.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderValue};
use http::{Method, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::Proxy;
use super::exchange::{Exchange, access};
use super::headers::{announced, is_json};
use super::tee::tee;
use crate::api::request::{Path, Shape, Verb};
use crate::api::{ObjectKey, Scope, key};
use crate::body::{self, Body};
use crate::codec::{ObjectMeta, compact, field, inflate, protobuf};
use crate::identity::Caller;
use crate::mirror::kind::Kind;
use crate::mirror::version::Version;
use crate::tasks::{Panicked, blocking};
use crate::upstream::client::JSON;

/// An object, by its name.
#[derive(Clone, Debug)]
struct Named {
    kind: Arc<Kind>,
    path: Path,
    namespace: String,
    name: String,
}

/// What became of a text that was to be remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kept {
    /// Nothing newer is known.
    Newest,
    /// Something newer is known.
    Older,
    /// It is not what the name says.
    #[default]
    Nothing,
}

/// The body of an answer, and how it is encoded.
struct Text {
    bytes: Bytes,
    encoding: Option<HeaderValue>,
}

impl Proxy {
    /// Takes from an answer about one object what it is worth later.
    pub(super) fn remember_object(
        self: &Arc<Self>,
        exchange: &Exchange,
        path: &Path,
        response: Response<Body>,
    ) -> Response<Body> {
        let api = &exchange.api;
        match (api.verb, response.status()) {
            (Verb::Get, StatusCode::OK) => self.remember_read(exchange, path, response),
            (Verb::Get, StatusCode::NOT_FOUND) => {
                if let Some(gone) = self.named(path) {
                    self.tasks.spawn_blocking(move || gone.forget());
                }
                response
            }
            (Verb::Write, StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED)
                if !api.options.is_dry_run && !is_renewed_all_the_time(path) =>
            {
                self.remember_written(exchange, path, response)
            }
            _ => response,
        }
    }

    fn remember_read(
        self: &Arc<Self>,
        exchange: &Exchange,
        path: &Path,
        response: Response<Body>,
    ) -> Response<Body> {
        let Exchange { caller, api, .. } = exchange;
        // Only what the cloud has said yes to: whatever else is asked for must leave no trace.
        self.registry.kind(&path.resource);
        let Some(named) = self.named(path) else {
            return response;
        };
        self.verdicts.grant(caller, &access("get", path));
        self.learn_object(caller, path);
        let is_whole = api.shape == Some(Shape::Object) && is_json(response.headers());
        let (proxy, caller) = (self.clone(), caller.clone());
        self.with_text(response, move |text| async move {
            let is_older = if is_whole {
                let named = named.clone();
                done(move || named.remember(&text)).await == Kept::Older
            } else {
                // Such as a table.
                let shown = text.plain().and_then(|text| revision_of(&text));
                !named.is_known(shown)
            };
            // It was under way for long, or from an older server; or the cloud was put back.
            if is_older {
                proxy.fetch_named(&caller, named).await;
            }
        })
    }

    /// Renews what is remembered of an object that was written, or forgets it with the object.
    fn remember_written(
        self: &Arc<Self>,
        exchange: &Exchange,
        path: &Path,
        response: Response<Body>,
    ) -> Response<Body> {
        let Exchange { caller, api, .. } = exchange;
        let Some(named) = self.named(path).filter(Named::is_remembered) else {
            return response;
        };
        let is_whole = api.shape == Some(Shape::Object) && is_json(response.headers());
        let is_delete = api.method == Method::DELETE;
        let (proxy, caller) = (self.clone(), caller.clone());
        self.with_text(response, move |text| async move {
            let renewed = named.clone();
            let is_renewed = done(move || {
                let is_there = is_whole && (!is_delete || text.is_of_what_stays());
                let is_renewed = is_there && renewed.remember(&text) == Kept::Newest;
                if is_delete && !is_renewed {
                    renewed.forget();
                }
                is_renewed
            })
            .await;
            // A delete that was only tried says the same as one that was done, and a table or protobuf too little.
            if !is_renewed {
                proxy.fetch_named(&caller, named).await;
            }
        })
    }

    /// Passes an answer on; `then` gets its text when all of it has come.
    fn with_text<F: Future<Output = ()> + Send + 'static>(
        &self,
        response: Response<Body>,
        then: impl FnOnce(Text) -> F + Send + 'static,
    ) -> Response<Body> {
        let (head, body) = response.into_parts();
        let encoding = head.headers.get(CONTENT_ENCODING).cloned();
        let tasks = self.tasks.clone();
        let length = announced(&head.headers);
        let body = tee(body, length, self.object_limit, move |bytes| {
            tasks.spawn(then(Text { bytes, encoding }));
        });
        Response::from_parts(head, body)
    }

    /// Returns what a path names, if anything of its kind is known.
    fn named(&self, path: &Path) -> Option<Named> {
        Some(Named {
            kind: self.registry.known_kind(&path.resource)?,
            path: path.clone(),
            namespace: path.namespace.clone().unwrap_or_default(),
            name: path.name.clone()?,
        })
    }

    /// Learns beside the answer whether the caller may also read its neighbours, for when the cloud is away.
    fn learn_object(self: &Arc<Self>, caller: &Caller, path: &Path) {
        let scope = Scope::all(path.resource.clone()).in_namespace(path.namespace.clone());
        self.learn(caller, &scope);
    }

    /// Fetches what a node has just made of itself, beside the answer.
    pub(super) fn fetch_object(self: &Arc<Self>, caller: &Caller, path: &Path) {
        self.registry.kind(&path.resource);
        let Some(named) = self.named(path).filter(|named| !named.is_known(None)) else {
            return;
        };
        let (proxy, caller) = (self.clone(), caller.clone());
        self.tasks
            .spawn(async move { proxy.fetch_named(&caller, named).await });
    }

    /// Fetches an object as it is now.
    async fn fetch_named(&self, caller: &Caller, named: Named) {
        let collection = named.path.resource.path(named.path.namespace.as_deref());
        let name = utf8_percent_encode(&named.name, NON_ALPHANUMERIC);
        let path = format!("{collection}/{name}");
        let before = named.kind.seen(&named.key());
        let fetched = caller.client(&self.upstream).fetch(&path, JSON).await;
        let Ok(response) = fetched else {
            return;
        };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return done(move || named.forget()).await,
            _ => return,
        }
        self.verdicts.grant(caller, &access("get", &named.path));
        let encoding = response.headers().get(CONTENT_ENCODING).cloned();
        let Ok(bytes) = body::read(response.into_body(), self.object_limit).await else {
            return;
        };
        done(move || named.renew(before, &Text { bytes, encoding })).await;
    }
}

impl Named {
    fn key(&self) -> ObjectKey {
        key(&self.namespace, &self.name)
    }

    /// Returns whether what an answer shows is known: the revision, or anything if it does not say of which it is.
    fn is_known(&self, shown: Option<u64>) -> bool {
        let key = self.key();
        shown.map_or_else(
            || self.kind.cloud_version(&key).is_some(),
            |revision| self.kind.is_at(&key, revision),
        )
    }

    fn is_remembered(&self) -> bool {
        self.kind.version_by_name(&self.key()).is_some()
    }

    /// Remembers the text, if it is what the name says. Blocks on the store.
    fn remember(&self, text: &Text) -> Kept {
        // Only a read that began later than what is known was seen says that the cloud was put back.
        self.renew(None, text)
    }

    /// Remembers the text of a read that began when `before` was known. Blocks on the store.
    fn renew(&self, before: Option<Version>, text: &Text) -> Kept {
        let Some((revision, object)) = self.read(text) else {
            return Kept::Nothing;
        };
        let kept = self.kind.note_read(before, revision).and_then(|()| {
            let (key, now) = (self.key(), Instant::now());
            self.kind.remember(&key, revision, object, now)
        });
        match kept {
            Ok(true) => Kept::Newest,
            Ok(false) => Kept::Older,
            Err(error) => {
                tracing::warn!(resource = %self.kind.resource, name = self.name, %error, "an object is not remembered");
                Kept::Newest
            }
        }
    }

    /// Returns the object and its revision, if it is what the name says.
    fn read(&self, text: &Text) -> Option<(u64, Bytes)> {
        let object = text.plain()?;
        let meta = ObjectMeta::parse(object.trim_ascii_end()).ok()?;
        let is_named = meta.name == self.name && meta.namespace == self.namespace;
        is_named.then(|| (meta.resource_version, compact(&object)))
    }

    /// Forgets what is gone. Blocks on the store.
    fn forget(&self) {
        if let Err(error) = self.kind.forget(&self.namespace, &self.name) {
            tracing::warn!(resource = %self.kind.resource, name = self.name, %error, "an object that is gone stays remembered");
        }
    }
}

impl Text {
    fn plain(&self) -> Option<Bytes> {
        inflate(self.encoding.as_ref(), &self.bytes)
    }

    /// Returns whether the answer to a DELETE is of an object that is still there: held by a finalizer, or given time.
    fn is_of_what_stays(&self) -> bool {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Deleting {
            deletion_timestamp: Option<String>,
            deletion_grace_period_seconds: Option<i64>,
            #[serde(default)]
            finalizers: Vec<String>,
        }
        let Some(object) = self.plain() else {
            return false;
        };
        let metadata = str::from_utf8(&object)
            .ok()
            .and_then(|object| field(object, "metadata"))
            .and_then(|raw| serde_json::from_str::<Deleting>(raw.get()).ok());
        metadata.is_some_and(|metadata| {
            let has_time = metadata
                .deletion_grace_period_seconds
                .is_some_and(|seconds| seconds > 0);
            metadata.deletion_timestamp.is_some() && (has_time || !metadata.finalizers.is_empty())
        })
    }
}

/// Returns the revision of what an answer shows, whatever it shows of it: a table has it too.
fn revision_of(text: &Bytes) -> Option<u64> {
    let meta = protobuf::metadata(text)
        .ok()
        .or_else(|| ObjectMeta::parse(text.trim_ascii_end()).ok())?;
    Some(meta.resource_version).filter(|revision| *revision > 0)
}

/// Leases are renewed every few seconds, online alone: whoever holds one asks for it again before it counts on it.
fn is_renewed_all_the_time(path: &Path) -> bool {
    path.resource.group == "coordination.k8s.io" && path.resource.plural == "leases"
}

/// Does work on the store beside an answer; of what panicked nothing is remembered.
async fn done<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = blocking(move || Ok::<T, Panicked>(work())).await;
    done.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_waits_for_somebody_is_still_there() {
        for (metadata, stays) in [
            (r#"{"deletionTimestamp":"t","finalizers":["a"]}"#, true),
            (
                r#"{"deletionTimestamp":"t","deletionGracePeriodSeconds":30}"#,
                true,
            ),
            (
                r#"{"deletionTimestamp":"t","deletionGracePeriodSeconds":0}"#,
                false,
            ),
            (
                r#"{"deletionTimestamp":"t","deletionGracePeriodSeconds":0,"finalizers":["a"]}"#,
                true,
            ),
            (r#"{"finalizers":["a"]}"#, false),
            ("{}", false),
            ("7", false),
        ] {
            let text = Text {
                bytes: format!(r#"{{"kind":"Pod","metadata":{metadata}}}"#).into(),
                encoding: None,
            };
            assert_eq!(text.is_of_what_stays(), stays, "{metadata}");
        }
    }

    #[test]
    fn an_answer_of_any_shape_says_of_which_revision_it_is() {
        for (text, revision) in [
            (
                r#"{"kind":"Table","metadata":{"resourceVersion":"7"},"rows":[]}"#,
                Some(7),
            ),
            (
                r#"{"kind":"PartialObjectMetadata","metadata":{"resourceVersion":"8"}}"#,
                Some(8),
            ),
            (r#"{"kind":"Table","metadata":{}}"#, None),
            ("garbage", None),
        ] {
            assert_eq!(revision_of(&Bytes::from_static(text.as_bytes())), revision);
        }
    }
}
