//! Delete: at once, in time, or when nothing holds the object any more; one or many.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{Write, Written};
use crate::api::{
    lifecycle,
    selector::Selector,
    state::{State, meta},
    status::ApiError,
};

impl Write<'_> {
    pub(crate) fn delete(&self, state: &mut State, options: &Value) -> Result<Written, ApiError> {
        let (resource, name) = (&self.resource, self.target.name());
        let key = self.key(state, name);
        let Some(old) = state.store.get(&key).cloned() else {
            return Err(ApiError::not_found(resource, name));
        };
        self.check_preconditions(&old, &options["preconditions"])?;
        let mut new = (*old).clone();
        self.hold(&mut new, options);
        let grace = self.grace(&old, options);
        let is_marked = !meta(&old, "deletionTimestamp").is_empty();
        let is_shorter = old["metadata"]["deletionGracePeriodSeconds"].as_i64() > Some(grace);
        if !is_marked || is_shorter {
            lifecycle::mark_deleted(&mut new, grace, self.now);
        }
        if resource.kind == "Namespace" {
            new["status"]["phase"] = "Terminating".into();
            // Its time is its finalizers', not its own.
            lifecycle::remove(&mut new["metadata"], "deletionGracePeriodSeconds");
        }
        if lifecycle::is_gone(&new) {
            let last = if self.is_dry {
                Some(old)
            } else {
                self.remove(state, &key)
            };
            let last = last.unwrap_or_else(|| Arc::new(new));
            return Ok(Written {
                code: StatusCode::OK,
                object: self.deleted(last),
            });
        }
        if new == *old {
            return Ok(Written {
                code: StatusCode::OK,
                object: old,
            });
        }
        let object = self.store(state, key, new)?;
        Ok(Written {
            code: StatusCode::OK,
            object,
        })
    }

    /// Deletes all that a selector means, and returns them as they were.
    pub(crate) fn delete_collection(
        &self,
        state: &mut State,
        selector: &Selector,
        options: &Value,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let family = state.family(&self.resource.group, &self.resource.plural);
        let listed = state.store.list(&family, self.target.namespace.as_deref());
        let mut deleted = Vec::new();
        for (_, object) in listed
            .into_iter()
            .filter(|(_, object)| selector.matches(object))
        {
            let mut target = self.target.clone();
            target.name = Some(meta(&object, "name").to_owned());
            if self.resource.is_namespaced {
                target.namespace = Some(meta(&object, "namespace").to_owned());
            }
            let one = Write {
                resource: self.resource.clone(),
                target: &target,
                ..*self
            };
            one.delete(state, options)?;
            deleted.push(object);
        }
        Ok(deleted)
    }

    fn check_preconditions(&self, old: &Value, wanted: &Value) -> Result<(), ApiError> {
        let name = meta(old, "name");
        let differs = |field: &str| {
            let wanted = wanted[field].as_str()?;
            let found = meta(old, field);
            (wanted != found).then(|| (wanted.to_owned(), found.to_owned()))
        };
        let why = if let Some((wanted, found)) = differs("uid") {
            format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({found}). \
                 The object might have been deleted and then recreated"
            )
        } else if let Some((wanted, found)) = differs("resourceVersion") {
            format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({found}). \
                 The object might have been modified"
            )
        } else {
            return Ok(());
        };
        Err(ApiError::precondition(&self.resource, name, &why))
    }

    /// Adds the finalizer that a propagation policy asks for.
    fn hold(&self, new: &mut Value, options: &Value) {
        let policy = options["propagationPolicy"]
            .as_str()
            .or_else(|| self.query.get("propagationPolicy"));
        let finalizer = match policy {
            Some("Foreground") => "foregroundDeletion",
            Some("Orphan") => "orphan",
            _ => return,
        };
        let finalizers = &mut new["metadata"]["finalizers"];
        let mut list = finalizers.as_array().cloned().unwrap_or_default();
        // The later policy takes the place of the earlier.
        list.retain(|item| item != "foregroundDeletion" && item != "orphan");
        list.push(finalizer.into());
        *finalizers = Value::Array(list);
    }

    /// Only a pod that a node runs is given time; everything else goes at once.
    fn grace(&self, old: &Value, options: &Value) -> i64 {
        let is_running = self.resource.kind == "Pod"
            && old["spec"]["nodeName"]
                .as_str()
                .is_some_and(|node| !node.is_empty())
            && !matches!(
                old["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            );
        if !is_running {
            return 0;
        }
        let asked = options["gracePeriodSeconds"].as_i64().or_else(|| {
            self.query
                .get("gracePeriodSeconds")
                .and_then(|s| s.parse().ok())
        });
        let own = old["spec"]["terminationGracePeriodSeconds"].as_i64();
        asked.or(own).unwrap_or(30).max(0)
    }

    fn deleted(&self, last: Arc<Value>) -> Arc<Value> {
        if self.resource.returns_deleted {
            return last;
        }
        let mut details = json!({
            "name": meta(&last, "name"),
            "kind": self.resource.plural,
            "uid": meta(&last, "uid"),
        });
        if !self.resource.group.is_empty() {
            details["group"] = self.resource.group.as_str().into();
        }
        Arc::new(json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }))
    }
}
