//! The four kinds of patches, on JSON.

pub(crate) mod apply;
mod json;
mod strategic;

use serde_json::Value;

use super::{resource::Resource, status::ApiError};

/// How a patch body is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// Reads the content type; custom resources know no strategic merge.
    pub(crate) fn parse(content_type: &str, resource: &Resource) -> Result<Self, ApiError> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if !resource.is_custom => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(ApiError::unsupported_media_type(if resource.is_custom {
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            } else {
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
            })),
        }
    }

    /// Applies anything but server-side apply.
    pub(crate) fn patch(self, object: &Value, patch: &Value) -> Result<Value, ApiError> {
        let mut patched = object.clone();
        match self {
            Self::Json => json::apply(&mut patched, patch)?,
            Self::Merge => merge(&mut patched, patch),
            Self::Strategic | Self::Apply => strategic::merge(&mut patched, patch),
        }
        Ok(patched)
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(into) = target.as_object_mut() else {
        return;
    };
    for (key, value) in fields {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_follows_the_rfc() {
        let table = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": ["b"]}),
                json!({"a": ["c"]}),
                json!({"a": ["c"]}),
            ),
            (
                json!({"a": {"b": 1}}),
                json!({"a": {"c": null}}),
                json!({"a": {"b": 1}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"b": {"c": null}}}),
                json!({"a": {"b": {}}}),
            ),
        ];
        for (target, patch, expected) in table {
            assert_eq!(
                PatchKind::Merge.patch(&target, &patch).unwrap(),
                expected,
                "{patch}"
            );
        }
    }
}
