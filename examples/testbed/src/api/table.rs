//! Tables, as `kubectl get` asks for them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    present,
    request::Query,
    resource::{Column, Resource},
    status::ApiError,
};

/// How rows are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    include: Include,
    now: Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Rows {
    pub(crate) fn parse(query: &Query, now: Timestamp) -> Result<Self, ApiError> {
        let include = match query.get("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "unrecognized includeObject value: {other:?}"
                )));
            }
        };
        Ok(Self { include, now })
    }

    pub(crate) fn table(self, resource: &Resource, objects: &[&Value], meta: Value) -> Value {
        let rows: Vec<Value> = objects
            .iter()
            .map(|object| self.row(resource, object))
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "columnDefinitions": definitions(resource),
            "rows": rows,
        })
    }

    fn row(self, resource: &Resource, object: &Value) -> Value {
        let mut cells = vec![object["metadata"]["name"].clone()];
        cells.extend(
            resource
                .columns
                .iter()
                .map(|column| self.cell(column, object)),
        );
        let mut row = json!({"cells": cells});
        match self.include {
            Include::Nothing => {}
            Include::Metadata => row["object"] = present::metadata(object),
            Include::Object => row["object"] = object.clone(),
        }
        row
    }

    fn cell(self, column: &Column, object: &Value) -> Value {
        let value = at(object, &column.path);
        let is_time = column.kind == "date" || column.path == ".metadata.creationTimestamp";
        match value {
            Value::Null if is_time => "<unknown>".into(),
            Value::String(text) if is_time => self.age(text).into(),
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => value.clone(),
            structure => structure.to_string().into(),
        }
    }

    fn age(self, since: &str) -> String {
        let Ok(since) = since.parse::<Timestamp>() else {
            return "<invalid>".into();
        };
        let seconds = self.now.as_second().saturating_sub(since.as_second());
        match seconds {
            ..0 => "<invalid>".into(),
            0..120 => format!("{seconds}s"),
            120..7_200 => format!("{}m", seconds / 60),
            7_200..172_800 => format!("{}h", seconds / 3_600),
            _ => format!("{}d", seconds / 86_400),
        }
    }
}

fn definitions(resource: &Resource) -> Vec<Value> {
    let name = json!({
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name must be unique within a namespace.",
        "priority": 0,
    });
    let mut definitions = vec![name];
    definitions.extend(resource.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": "",
            "description": format!("column (in JSONPath format): {}", column.path),
            "priority": column.priority,
        })
    }));
    definitions
}

/// Follows a simple JSON path: `.a.b[0].c`, `.a['b.c']`, and the first match of `[?(@.k=="v")]`.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    let mut found = object;
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let Some(end) = inside.find(']') else {
                return &Value::Null;
            };
            found = index(found, &inside[..end]);
            rest = &inside[end + 1..];
        } else {
            let word = rest.trim_start_matches('.');
            let end = word.find(['.', '[']).unwrap_or(word.len());
            found = &found[&word[..end]];
            rest = &word[end..];
        }
    }
    found
}

fn index<'a>(value: &'a Value, inside: &str) -> &'a Value {
    if let Ok(at) = inside.parse::<usize>() {
        return &value[at];
    }
    let quotes = ['\'', '"'];
    let Some(filter) = inside
        .strip_prefix("?(@.")
        .and_then(|text| text.strip_suffix(')'))
    else {
        return &value[inside.trim_matches(quotes)];
    };
    let Some((key, wanted)) = filter.split_once("==") else {
        return &Value::Null;
    };
    let wanted = wanted.trim().trim_matches(quotes);
    let items = value.as_array().into_iter().flatten();
    let mut matching = items.filter(|item| item[key.trim()] == wanted);
    matching.next().unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_json_paths_are_followed() {
        let object = json!({"a": {"b": [{"t": "x", "v": 1}, {"t": "y", "v": 2}], "c.d": 3}});
        for (path, expected) in [
            (".a.b[1].v", json!(2)),
            (".a['c.d']", json!(3)),
            (".a.b[?(@.t==\"y\")].v", json!(2)),
            (".a.none", Value::Null),
            (".a.b[", Value::Null),
        ] {
            assert_eq!(*at(&object, path), expected, "{path}");
        }
    }

    #[test]
    fn an_age_is_told_like_kubectl_tells_it() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let rows = Rows {
            include: Include::Nothing,
            now,
        };
        for (since, expected) in [
            ("2026-01-02T00:00:00Z", "0s"),
            ("2026-01-01T23:55:00Z", "5m"),
            ("2026-01-01T20:00:00Z", "4h"),
            ("2025-12-01T00:00:00Z", "32d"),
            ("2026-01-03T00:00:00Z", "<invalid>"),
        ] {
            assert_eq!(rows.age(since), expected);
        }
    }
}
