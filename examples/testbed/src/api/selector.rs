//! Label and field selectors: parsed once per request, evaluated on JSON.

use serde_json::Value;

use super::{resource::Resource, status::ApiError};

/// Which objects a list, a watch or a deletion means.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

/// How a resource refuses a field it does not know: the server has three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldStyle {
    /// `"x" is not a known field selector: only "metadata.name", "metadata.namespace"`.
    OnlyMetadata,
    /// `field label not supported: x`.
    Unsupported,
    /// `field label "x" not supported for Job`.
    UnsupportedFor,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Selector {
    pub(crate) fn parse(
        resource: &Resource,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            labels: parse_labels(labels.unwrap_or_default()).map_err(|why| {
                ApiError::bad_request(format!("unable to parse requirement: {why}"))
            })?,
            fields: parse_fields(fields.unwrap_or_default(), resource)?,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let by_label =
            |requirement: &Requirement| requirement.holds(labels[&requirement.key].as_str());
        let by_field = |(path, is_equal, value): &(String, bool, String)| {
            (field(object, path) == *value) == *is_equal
        };
        self.labels.iter().all(by_label) && self.fields.iter().all(by_field)
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Test::Greater(bound) => number().is_some_and(|number| number > *bound),
            Test::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// Reads a field as the server's selectors see it: absent booleans are false, counts are zero, the rest is empty.
fn field(object: &Value, path: &str) -> String {
    let found = path.split('.').fold(object, |at, key| &at[key]);
    match (found, path) {
        (Value::String(text), _) => text.clone(),
        (Value::Null, "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
        (Value::Null, "status.replicas" | "status.successful") => "0".into(),
        (Value::Null, _) => String::new(),
        (Value::Object(source), "source") => source
            .get("component")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .into(),
        (other, _) => other.to_string(),
    }
}

fn parse_fields(text: &str, resource: &Resource) -> Result<Vec<(String, bool, String)>, ApiError> {
    split_escaped(text)
        .into_iter()
        .filter(|term| !term.is_empty())
        .map(|term| {
            let (path, is_equal, value) = if let Some((path, value)) = term.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) = term.split_once("==") {
                (path, true, value)
            } else if let Some((path, value)) = term.split_once('=') {
                (path, true, value)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{term}'; can't understand '{term}'"
                )));
            };
            check_field(path, resource)?;
            Ok((path.to_owned(), is_equal, unescape(value)))
        })
        .collect()
}

fn check_field(path: &str, resource: &Resource) -> Result<(), ApiError> {
    let is_known = path == "metadata.name"
        || (path == "metadata.namespace" && (resource.is_namespaced || !resource.is_custom))
        || resource.selectable.iter().any(|known| known == path);
    if is_known {
        return Ok(());
    }
    Err(ApiError::bad_request(match resource.field_style {
        FieldStyle::OnlyMetadata => format!(
            "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ),
        FieldStyle::Unsupported => format!("field label not supported: {path}"),
        FieldStyle::UnsupportedFor => {
            format!("field label {path:?} not supported for {}", resource.kind)
        }
    }))
}

fn split_escaped(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut is_escaped) = (0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(text: &str) -> String {
    let mut letters = text.chars();
    let mut plain = String::new();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => letters.next().unwrap_or('\\'),
            other => other,
        });
    }
    plain
}

// === The grammar of label selectors ===

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = tokens(text);
    tokens.reverse();
    let mut requirements = Vec::new();
    while !tokens.is_empty() {
        requirements.push(requirement(&mut tokens)?);
        match tokens.pop().as_deref() {
            None | Some(",") => {}
            Some(other) => {
                return Err(format!("found '{other}', expected: ',' or 'end of string'"));
            }
        }
    }
    Ok(requirements)
}

fn requirement(tokens: &mut Vec<String>) -> Result<Requirement, String> {
    let first = tokens.pop().unwrap_or_default();
    if first == "!" {
        let key = word(tokens.pop())?;
        return Ok(Requirement {
            key,
            test: Test::Absent,
        });
    }
    let key = word(Some(first))?;
    let operator = match tokens.last().map(String::as_str) {
        None | Some(",") => {
            return Ok(Requirement {
                key,
                test: Test::Exists,
            });
        }
        Some(_) => tokens.pop().unwrap_or_default(),
    };
    let test = match operator.as_str() {
        "=" | "==" => Test::In(vec![value(tokens)]),
        "!=" => Test::NotIn(vec![value(tokens)]),
        "in" => Test::In(values(tokens)?),
        "notin" => Test::NotIn(values(tokens)?),
        ">" | "gt" => Test::Greater(number(&value(tokens))?),
        "<" | "lt" => Test::Less(number(&value(tokens))?),
        other => {
            return Err(format!(
                "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
            ));
        }
    };
    Ok(Requirement { key, test })
}

fn number(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_owned())
}

fn word(token: Option<String>) -> Result<String, String> {
    match token {
        Some(token) if !token.starts_with(['(', ')', ',', '!', '=', '<', '>']) => Ok(token),
        other => Err(format!(
            "found '{}', expected: identifier",
            other.unwrap_or_default()
        )),
    }
}

/// An empty value is allowed: `a=,b=c`.
fn value(tokens: &mut Vec<String>) -> String {
    match tokens.last().map(String::as_str) {
        None | Some(",") => String::new(),
        Some(_) => tokens.pop().unwrap_or_default(),
    }
}

fn values(tokens: &mut Vec<String>) -> Result<Vec<String>, String> {
    if tokens.pop().as_deref() != Some("(") {
        return Err("found '', expected: '('".into());
    }
    let mut values = Vec::new();
    loop {
        match tokens.pop().as_deref() {
            Some(")") => return Ok(values),
            Some(",") => {}
            Some(word) => values.push(word.to_owned()),
            None => return Err("found '', expected: ',', or ')'".into()),
        }
    }
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let operators = ["==", "!=", "=", "!", "<", ">", "(", ")", ","];
        let length = match operators
            .iter()
            .find(|operator| rest.starts_with(**operator))
        {
            Some(operator) => operator.len(),
            None => rest
                .find(|c: char| c.is_whitespace() || "=!<>(),".contains(c))
                .unwrap_or(rest.len())
                .max(first.len_utf8()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_operator_selects_as_documented() {
        let labels = serde_json::json!({"app": "web", "n": "5", "empty": ""});
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db)", true),
            ("other notin (db)", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("empty=,app=web", true),
            ("app=web,!n", false),
        ] {
            let object = serde_json::json!({"metadata": {"labels": labels}});
            let selector = Selector {
                labels: parse_labels(text).unwrap(),
                fields: Vec::new(),
            };
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
    }

    #[test]
    fn a_malformed_label_selector_is_refused() {
        for text in ["a b c", "a in b", "a in (b", "=x", "a>x", "a,)"] {
            assert!(parse_labels(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_terms_are_split_at_bare_commas_only() {
        assert_eq!(split_escaped(r"a=b\,c,d=e"), [r"a=b\,c", "d=e"]);
        assert_eq!(unescape(r"b\,c\\"), r"b,c\");
    }
}
