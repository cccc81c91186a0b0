//! How objects become bytes: whole, as a Table, or as metadata; alone, in a list, or in an event.
//!
//! Built-in kinds begin with `kind` and `apiVersion` and lose both inside a list; custom
//! resources are sorted and keep them. So does the real server, and parsers must bear both.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{list::Page, request::Form, resource::Resource, table};

/// Shows objects of one resource in one form.
#[derive(Clone, Debug)]
pub(crate) struct Presenter {
    pub(crate) resource: Arc<Resource>,
    pub(crate) form: Form,
    pub(crate) rows: table::Rows,
}

impl Presenter {
    /// Shows one object; a Status stays a Status.
    pub(crate) fn object(&self, object: &Value) -> Vec<u8> {
        if object["kind"] == "Status" {
            return status(object);
        }
        match self.form {
            Form::Object => {
                let mut out = Vec::new();
                self.write(&mut out, object, true);
                out
            }
            Form::Metadata | Form::MetadataList => metadata(object).to_string().into_bytes(),
            Form::Table => {
                let version = &object["metadata"]["resourceVersion"];
                let table = self.rows.table(
                    &self.resource,
                    &[object],
                    json!({"resourceVersion": version}),
                );
                table.to_string().into_bytes()
            }
        }
    }

    /// Shows a page.
    pub(crate) fn list(&self, page: &Page) -> Vec<u8> {
        let mut meta = json!({"resourceVersion": page.revision.to_string()});
        if let Some(next) = &page.next {
            meta["continue"] = next.as_str().into();
        }
        if let Some(remaining) = page.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        match self.form {
            Form::Object => self.objects(page, meta),
            Form::Metadata | Form::MetadataList => {
                let items: Vec<Value> = page.items.iter().map(|item| metadata(item)).collect();
                // The real server's converter leaves an empty list null, here alone.
                let items = if items.is_empty() {
                    Value::Null
                } else {
                    items.into()
                };
                json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": meta,
                    "items": items,
                })
                .to_string()
                .into_bytes()
            }
            Form::Table => {
                let items: Vec<&Value> = page.items.iter().map(AsRef::as_ref).collect();
                let table = self.rows.table(&self.resource, &items, meta);
                table.to_string().into_bytes()
            }
        }
    }

    fn objects(&self, page: &Page, mut meta: Value) -> Vec<u8> {
        let (version, kind) = (
            json!(self.resource.api_version()),
            json!(self.resource.list_kind),
        );
        if !self.resource.is_custom {
            let head = format!(
                "{{\"kind\":{kind},\"apiVersion\":{version},\"metadata\":{meta},\"items\":["
            );
            return self.items(head, page, "]}\n");
        }
        if meta["continue"].is_null() {
            meta["continue"] = "".into();
        }
        let head = format!("{{\"apiVersion\":{version},\"items\":[");
        self.items(
            head,
            page,
            &format!("],\"kind\":{kind},\"metadata\":{meta}}}\n"),
        )
    }

    fn items(&self, head: String, page: &Page, tail: &str) -> Vec<u8> {
        let mut out = head.into_bytes();
        for (at, item) in page.items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.write(&mut out, item, self.resource.is_custom);
        }
        out.extend_from_slice(tail.as_bytes());
        out
    }

    /// Shows one event of a watch, as a line.
    pub(crate) fn event(&self, kind: &str, object: &Value) -> Vec<u8> {
        let mut out = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
        out.extend_from_slice(&self.object(object));
        while out.last() == Some(&b'\n') {
            out.pop();
        }
        out.extend_from_slice(b"}\n");
        out
    }

    fn write(&self, out: &mut Vec<u8>, object: &Value, with_type: bool) {
        let version = self.resource.api_version();
        let Some(fields) = object.as_object() else {
            return out.extend_from_slice(object.to_string().as_bytes());
        };
        if self.resource.is_custom {
            let mut shown = fields.clone();
            shown.insert("apiVersion".into(), version.into());
            return out.extend_from_slice(Value::Object(shown).to_string().as_bytes());
        }
        let mut parts = Vec::new();
        if with_type {
            parts.push(format!("\"kind\":{}", json!(self.resource.kind)));
            parts.push(format!("\"apiVersion\":{}", json!(version)));
        }
        parts.push(format!("\"metadata\":{}", object["metadata"]));
        let rest = fields
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata"));
        parts.extend(rest.map(|(key, value)| format!("{}:{value}", json!(key))));
        out.extend_from_slice(format!("{{{}}}", parts.join(",")).as_bytes());
    }
}

/// Shows a Status.
pub(crate) fn status(status: &Value) -> Vec<u8> {
    let mut out = status.to_string().into_bytes();
    out.push(b'\n');
    out
}

pub(crate) fn metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}
