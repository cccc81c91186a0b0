//! Fetches a whole scope: in pages, or as the initial events of a watch.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_ENCODING;
use tokio::time::Instant;

use super::run::Follower;
use super::source::{Events, FetchError, SILENCE, next_chunk, selectors, stored};
use super::watching::refusal;
use crate::api::well_known::may_be_custom;
use crate::api::{ListAt, ObjectKey, key, split_key};
use crate::body::Body;
use crate::codec::{self, EventType, Inflate, ListHead, ListSplitter, ObjectMeta, TypeMeta};
use crate::identity::Caller;
use crate::mirror::relist::{Finished, Item};

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Bytes of a list that are given to the store at a time.
const PORTION: usize = 256 << 10;

/// The longest namespace and name together: Kubernetes' names have 253 bytes at most, with few exceptions.
const KEY_LIMIT: usize = 1_024;

impl Follower {
    /// Fetches the whole scope and makes it visible.
    pub(super) async fn list(&self, caller: &Caller, at: ListAt) -> Result<(), FetchError> {
        let began = Instant::now();
        self.mirror.counters.lists.fetch_add(1, Ordering::Relaxed);
        let mirror = self.mirror.clone();
        stored(move || mirror.begin_list(at)).await?;
        let mut seen = HashSet::new();
        let mut next = None;
        loop {
            let mut query = selectors(&self.mirror);
            query.push(("limit", PAGE.to_string()));
            match (&next, at) {
                (Some(token), _) => query.push(("continue", String::clone(token))),
                (None, ListAt::Exactly(revision)) => {
                    query.push(("resourceVersion", revision.to_string()));
                    query.push(("resourceVersionMatch", "Exact".to_owned()));
                }
                (None, ListAt::Latest) => {}
            }
            let response = self.ask(caller, &query).await?;
            self.mirror.note_listed_as(caller, Instant::now());
            let head = self.take_page(response, &mut seen).await?;
            match head.continue_token {
                Some(token) if next.as_ref() == Some(&token) => {
                    return Err(FetchError::EndlessPages);
                }
                Some(token) => next = Some(token),
                None => {
                    self.finish(head, seen).await?;
                    if at == ListAt::Latest {
                        self.following.barrier.note(began);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Fetches the whole scope as the initial events of a watch, for when pages expire faster than they come.
    pub(super) async fn watch_list(&self, caller: &Caller) -> Result<(), FetchError> {
        self.mirror.counters.lists.fetch_add(1, Ordering::Relaxed);
        let mirror = self.mirror.clone();
        stored(move || mirror.begin_list(ListAt::Latest)).await?;
        let mut query = selectors(&self.mirror);
        query.extend([
            ("watch", "1".to_owned()),
            ("sendInitialEvents", "true".to_owned()),
            ("resourceVersionMatch", "NotOlderThan".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
        ]);
        let response = self.ask(caller, &query).await?;
        let mut events = Events::of(response, self.config.object_limit);
        let mut seen = HashSet::new();
        let mut end = None;
        while let Some(chunk) = next_chunk(&self.mirror, &mut events.body, SILENCE).await? {
            let mut items = Vec::new();
            events.push(&chunk, &mut |event_type, object| {
                match event_type {
                    EventType::Error => return Err(refusal(object)),
                    EventType::Bookmark if codec::is_initial_events_end(object) => {
                        end = Some(ObjectMeta::parse(object)?)
                    }
                    EventType::Bookmark => {}
                    _ => items.push(self.listed_event(object)?),
                }
                Ok(())
            })?;
            self.take_items(items, &mut seen).await?;
            if let Some(meta) = end {
                let kind = meta.kind.unwrap_or_default();
                let head = ListHead {
                    api_version: meta.api_version.unwrap_or_default(),
                    kind: format!("{kind}List"),
                    resource_version: meta.resource_version,
                    continue_token: None,
                };
                return self.finish(head, seen).await;
            }
        }
        Err(FetchError::Unended)
    }

    /// Refuses names that no server accepts, and places outside of the scope.
    pub(super) fn check_key(&self, key: &str) -> Result<(), FetchError> {
        let (namespace, name) = split_key(key);
        let inside = self.mirror.scope.namespace.as_ref();
        let is_inside = inside.is_none_or(|inside| inside == namespace);
        let is_plain = !name.is_empty() && !name.contains(['/', '\n']) && !namespace.contains('\n');
        if is_inside && is_plain && key.len() <= KEY_LIMIT {
            Ok(())
        } else {
            Err(FetchError::Nameless)
        }
    }

    fn listed(&self, item: &[u8]) -> Result<Item, FetchError> {
        let meta = ObjectMeta::parse(item)?;
        self.listed_as(&meta, Bytes::copy_from_slice(item))
    }

    fn listed_event(&self, object: &[u8]) -> Result<Item, FetchError> {
        let meta = ObjectMeta::parse(object)?;
        let form = TypeMeta {
            api_version: meta.api_version.clone().unwrap_or_default(),
            kind: meta.kind.clone().unwrap_or_default(),
            list_kind: String::new(),
        };
        self.listed_as(&meta, codec::without_type_meta(object, &form))
    }

    fn listed_as(&self, meta: &ObjectMeta, body: Bytes) -> Result<Item, FetchError> {
        let key = key(&meta.namespace, &meta.name);
        self.check_key(&key)?;
        if meta.resource_version == 0 {
            return Err(FetchError::Unnumbered);
        }
        Ok(Item {
            key,
            revision: meta.resource_version,
            body,
        })
    }

    async fn take_page(
        &self,
        response: Response<Body>,
        seen: &mut HashSet<ObjectKey>,
    ) -> Result<ListHead, FetchError> {
        let mut inflate = Inflate::for_encoding(response.headers().get(CONTENT_ENCODING));
        let mut body = response.into_body();
        let mut splitter = ListSplitter::new(self.config.object_limit);
        let mut items = Vec::new();
        let mut size = 0;
        while let Some(chunk) = next_chunk(&self.mirror, &mut body, SILENCE).await? {
            inflate
                .push(&chunk, &mut |plain: &[u8]| {
                    splitter.push(plain, &mut |item| {
                        size += item.len();
                        items.push(self.listed(item)?);
                        Ok::<(), FetchError>(())
                    })
                })
                .map_err(|error| error.either(FetchError::Inflate))?;
            if size >= PORTION {
                size = 0;
                self.take_items(std::mem::take(&mut items), seen).await?;
            }
        }
        inflate.finish().map_err(FetchError::Inflate)?;
        self.take_items(items, seen).await?;
        Ok(splitter.finish()?)
    }

    async fn take_items(
        &self,
        items: Vec<Item>,
        seen: &mut HashSet<ObjectKey>,
    ) -> Result<(), FetchError> {
        if items.is_empty() {
            return Ok(());
        }
        seen.extend(items.iter().map(|item| item.key.clone()));
        let mirror = self.mirror.clone();
        stored(move || mirror.take_listed(items)).await?;
        if self.mirror.is_over_budget() {
            return Err(FetchError::OverBudget);
        }
        Ok(())
    }

    async fn finish(&self, head: ListHead, seen: HashSet<ObjectKey>) -> Result<(), FetchError> {
        if head.resource_version == 0 {
            return Err(FetchError::Unnumbered);
        }
        let kind = head
            .kind
            .strip_suffix("List")
            .unwrap_or(&head.kind)
            .to_owned();
        let form = TypeMeta {
            api_version: head.api_version,
            kind,
            list_kind: head.kind,
        };
        let known = self.mirror.kind.form();
        if known.is_some_and(|known| known.kind != form.kind)
            && !may_be_custom(&self.mirror.scope.resource)
        {
            return Err(FetchError::OtherKind(form.list_kind));
        }
        let (mirror, now) = (self.mirror.clone(), head.resource_version);
        match stored(move || mirror.finish_list(now, form, &seen)).await? {
            Finished::InPlace => Ok(()),
            Finished::WentBack { before } => Err(FetchError::WentBack { before, now }),
        }
    }
}
