//! What a CustomResourceDefinition says that answers need: the columns of its tables and the fields that
//! selectors may name. It is fetched beside a mirror and remembered like any object.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_ENCODING;
use serde::Deserialize;
use tokio::time::Instant;

use super::registry::Registry;
use crate::api::well_known::{definitions, may_be_custom};
use crate::api::{Resource, key};
use crate::body;
use crate::codec::{Column, JsonPath, ObjectMeta, PrinterColumn, inflate};

use crate::identity::Caller;
use crate::mirror::kind::{Custom, Kind};
use crate::tasks::blocking;
use crate::upstream::Upstream;
use crate::upstream::client::JSON;

#[derive(Deserialize)]
struct Definition {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    name: String,
    served: Option<bool>,
    #[serde(default)]
    additional_printer_columns: Vec<PrinterColumn>,
    #[serde(default)]
    selectable_fields: Vec<SelectableField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableField {
    json_path: String,
}

/// The longest definition: etcd takes no object beyond a megabyte and a half.
const LIMIT: usize = 4 << 20;

/// Fetches the definition of a mirrored resource, as somebody who may see the resource, and takes it over.
pub(crate) async fn learn(registry: &Registry, upstream: &Upstream, kind: &Kind, caller: &Caller) {
    let now = Instant::now();
    if !may_be_custom(&kind.resource) || !kind.is_definition_due(now) {
        return;
    }
    let name = name(&kind.resource);
    let key = key("", &name);
    let known = registry.known_kind(&definitions());
    let before = known.and_then(|definitions| definitions.seen(&key));
    let Ok(text) = fetch(upstream, caller, &kind.resource).await else {
        return;
    };
    take(kind, &text);
    kind.note_definition(now);
    let Ok(meta) = ObjectMeta::parse(text.trim_ascii_end()) else {
        return;
    };
    let definitions = registry.kind(&definitions());
    let kept = Bytes::copy_from_slice(text.trim_ascii_end());
    let revision = meta.resource_version;
    let remember = move || {
        definitions.note_read(before, revision)?;
        definitions.remember(&key, revision, kept, now)
    };
    if let Err(error) = blocking(remember).await {
        tracing::warn!(%name, %error, "a definition is not remembered");
    }
}

/// Fetches the definition of a resource.
///
/// # Errors
/// With the cloud's answer, if there was one that was no definition.
pub(super) async fn fetch(
    upstream: &Upstream,
    caller: &Caller,
    resource: &Resource,
) -> Result<Bytes, Option<StatusCode>> {
    let path = format!("{}/{}", definitions().path(None), name(resource));
    text(upstream, caller, &path, LIMIT).await
}

/// Fetches a text, plain.
///
/// # Errors
/// With the cloud's answer, if there was one that was no such text.
pub(super) async fn text(
    upstream: &Upstream,
    caller: &Caller,
    path: &str,
    limit: usize,
) -> Result<Bytes, Option<StatusCode>> {
    let response = caller.client(upstream).fetch(path, JSON).await;
    let response = response.map_err(|_| None)?;
    if response.status() != StatusCode::OK {
        return Err(Some(response.status()));
    }
    let encoding = response.headers().get(CONTENT_ENCODING).cloned();
    let text = body::read(response.into_body(), limit).await;
    inflate(encoding.as_ref(), &text.map_err(|_| None)?).ok_or(None)
}

fn name(resource: &Resource) -> String {
    format!("{}.{}", resource.plural, resource.group)
}

/// Returns whether a definition has this version, and it is served: another server may serve one that is not.
pub(super) fn serves(text: &[u8], version: &str) -> bool {
    let definition = serde_json::from_slice::<Definition>(text);
    let is_served = |one: &Version| one.name == version && one.served != Some(false);
    definition.is_ok_and(|read| read.spec.versions.iter().any(is_served))
}

/// Takes over what the store remembers of a resource's definition. Blocks on the store.
pub(crate) fn recall(registry: &Registry, kind: &Kind) {
    let name = name(&kind.resource);
    if let Some(definitions) = registry.known_kind(&definitions())
        && let Ok(Some((_, text))) = definitions.newest("", &name)
    {
        take(kind, &text);
    }
}

fn take(kind: &Kind, text: &[u8]) {
    let Ok(definition) = serde_json::from_slice::<Definition>(text) else {
        return;
    };
    let version = definition
        .spec
        .versions
        .into_iter()
        .find(|version| version.name == kind.resource.version);
    if let Some(version) = version {
        kind.learn_custom(version.into_custom());
    }
}

impl Version {
    fn into_custom(self) -> Custom {
        let selectable = self.selectable_fields.into_iter().filter_map(|field| {
            let label = field
                .json_path
                .strip_prefix('.')
                .unwrap_or(&field.json_path)
                .to_owned();
            Some((label, JsonPath::parse(&field.json_path).ok()?))
        });
        Custom {
            is_defined: true,
            columns: Column::custom(self.additional_printer_columns),
            selectable: selectable.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_a_definition_does_not_serve_is_none_of_its() {
        let text =
            br#"{"spec":{"versions":[{"name":"v1","served":true},{"name":"v2","served":false}]}}"#;
        for (version, expected) in [("v1", true), ("v2", false), ("v3", false)] {
            assert_eq!(serves(text, version), expected, "{version}");
        }
        assert!(!serves(b"garbage", "v1"));
    }

    #[test]
    fn a_definition_says_columns_and_selectable_fields_of_the_version() {
        let text = br#"{"spec":{"versions":[
            {"name":"v1","additionalPrinterColumns":[{"name":"Size","type":"integer","jsonPath":".spec.size"},{"name":"Bad","type":"string","jsonPath":"..*"}],
             "selectableFields":[{"jsonPath":".spec.color"}]},
            {"name":"v2"}]}}"#;
        let definition: Definition = serde_json::from_slice(text).unwrap();
        let custom = definition
            .spec
            .versions
            .into_iter()
            .next()
            .unwrap()
            .into_custom();
        assert_eq!(
            custom.columns.len(),
            3,
            "the name, and one for each column, readable or not"
        );
        assert_eq!(custom.selectable[0].0, "spec.color");
    }
}
