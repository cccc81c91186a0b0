//! What only this node knows of objects, for now: put in front of the cloud's versions as steps of the
//! mirrors' own histories, so that every list, watch and get sees it, and taken away again the same way.

use std::collections::HashSet;

use bytes::Bytes;
use yurt_core::store::Result;

use super::registry::Registry;
use crate::api::{ObjectKey, Resource, split_key};
use crate::codec::{self, ObjectError, with_type_meta};
use crate::tasks::Panicked;

impl Registry {
    /// Changes an object for the node's own clients, wherever it is held. `change` gets it as a GET has it;
    /// `None` says that there is nothing to change. Returns what clients see now, `None` if no mirror holds
    /// such an object. Blocks on the store.
    ///
    /// # Errors
    /// What `change` says, and if the store takes no write.
    pub(crate) fn cover<E: From<LocalError>>(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        change: impl FnOnce(&Bytes) -> std::result::Result<Option<Bytes>, E>,
    ) -> std::result::Result<Option<Bytes>, E> {
        let _one_at_a_time = self.covering.lock();
        self.put_in_front(resource, key, change)
    }

    /// Does what [`Self::cover`] says for who holds the lock.
    fn put_in_front<E: From<LocalError>>(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        change: impl FnOnce(&Bytes) -> std::result::Result<Option<Bytes>, E>,
    ) -> std::result::Result<Option<Bytes>, E> {
        let mirrors = self.holding(resource, key);
        let Some(kind) = self.known_kind(resource).filter(|_| !mirrors.is_empty()) else {
            return Ok(None);
        };
        let (namespace, name) = split_key(key);
        let Some((_, body)) = kind.newest(namespace, name).map_err(LocalError::Store)? else {
            return Ok(None);
        };
        let object = kind
            .form()
            .map_or(body.clone(), |form| with_type_meta(&body, &form));
        let Some(changed) = change(&object)? else {
            return Ok(Some(object));
        };
        let told = mirrors.iter().map(|mirror| mirror.revision()).max();
        let revision = told.unwrap_or(0) + 1;
        let changed =
            codec::with_resource_version(&changed, revision).map_err(LocalError::Object)?;
        for mirror in mirrors {
            mirror.cover(&changed).map_err(LocalError::Store)?;
        }
        Ok(Some(changed))
    }

    /// Takes away what is local of a resource; returns how many objects of mirrors that were. Blocks on the store.
    pub(crate) fn uncover(
        &self,
        resource: &Resource,
        is_meant: &dyn Fn(&ObjectKey) -> bool,
    ) -> Result<usize> {
        let _one_at_a_time = self.covering.lock();
        self.take_away(resource, is_meant)
    }

    /// Does what [`Self::uncover`] says for who holds the lock.
    fn take_away(
        &self,
        resource: &Resource,
        is_meant: &dyn Fn(&ObjectKey) -> bool,
    ) -> Result<usize> {
        let mut count = 0;
        for mirror in self.all() {
            if mirror.scope.resource == *resource {
                count += mirror.uncover(is_meant)?;
            }
        }
        Ok(count)
    }

    /// Lets clients see these objects once more: something beside them has changed what they mean. Clients
    /// ignore what has no new revision, so each gets one of its own, and the cloud's again at once: whoever
    /// writes needs that. Blocks on the store.
    ///
    /// # Errors
    /// If the store takes no write.
    pub(crate) fn touch(
        &self,
        resource: &Resource,
        keys: &[ObjectKey],
    ) -> std::result::Result<(), LocalError> {
        let _one_at_a_time = self.covering.lock();
        let kind = self.known_kind(resource);
        let local: HashSet<ObjectKey> = kind.iter().flat_map(|kind| kind.all_covered()).collect();
        for key in keys {
            self.put_in_front(resource, key, |object| {
                Ok::<_, LocalError>(Some(object.clone()))
            })?;
        }
        let touched: HashSet<&ObjectKey> =
            keys.iter().filter(|key| !local.contains(*key)).collect();
        self.take_away(resource, &|key| touched.contains(key))
            .map_err(LocalError::Store)?;
        Ok(())
    }

    fn holding(
        &self,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Vec<std::sync::Arc<crate::mirror::Mirror>> {
        let mut mirrors = self.all();
        mirrors.retain(|mirror| {
            mirror.scope.resource == *resource
                && mirror.is_synced()
                && mirror.cloud_version(key).is_some()
        });
        mirrors
    }
}

/// Why something local cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LocalError {
    #[error("write what is local to the store")]
    Store(#[source] yurt_core::store::Error),
    #[error("number what is local")]
    Object(#[source] ObjectError),
}

impl From<Panicked> for LocalError {
    fn from(panicked: Panicked) -> Self {
        Self::Store(panicked.into())
    }
}
