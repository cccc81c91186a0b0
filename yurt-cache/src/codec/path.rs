//! The simple JSONPaths of custom resources: printer columns and selectable fields.

use serde_json::value::RawValue;

use super::object::field;

/// A path to one value of an object: `.spec.foo`, `.list[0].x`, `.spec['a\.b']`,
/// `.status.conditions[?(@.type=="Ready")].status`. The leading dot may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPath(Vec<Step>);

/// Why a text is not a path that we follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JsonPathError {
    /// It is no JSONPath, or one beyond the simple forms.
    #[error("unsupported JSONPath at byte {at}")]
    Parse {
        /// Where it is not understood.
        at: usize,
    },
    /// It has more steps than we follow.
    #[error("JSONPath of more than {limit} steps")]
    TooLong {
        /// What is allowed.
        limit: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    /// From the end if negative.
    Index(i64),
    /// The first element for which the rest of the path leads to a value.
    Any,
    /// The first such element whose value at the path, as text, is this.
    Where(JsonPath, String),
}

/// No schema nests as deep; bounds the recursion.
const MAX_STEPS: usize = 64;

impl JsonPath {
    /// Reads a path.
    pub(crate) fn parse(text: &str) -> Result<Self, JsonPathError> {
        let mut steps = Vec::new();
        let mut rest = text;
        let fail = |rest: &str| JsonPathError::Parse {
            at: text.len() - rest.len(),
        };
        if !rest.starts_with(['.', '[']) {
            rest = take_fields(rest, &mut steps).ok_or(fail(rest))?;
        }
        while !rest.is_empty() {
            rest = match rest.strip_prefix('.') {
                Some(fields) => take_fields(fields, &mut steps),
                None => take_bracket(rest, &mut steps),
            }
            .ok_or(fail(rest))?;
        }
        if steps.len() > MAX_STEPS {
            return Err(JsonPathError::TooLong { limit: MAX_STEPS });
        }
        Ok(Self(steps))
    }

    /// The value at the path, if there is one.
    pub(crate) fn find<'a>(&self, object: &'a [u8]) -> Option<&'a RawValue> {
        let object: &RawValue = serde_json::from_slice(object).ok()?;
        find(&self.0, object)
    }
}

/// Reads `a.b.c`, where `\.` is a dot within a name; stops before a bracket.
fn take_fields<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            '.' => {
                if name.is_empty() {
                    return None;
                }
                steps.push(Step::Field(std::mem::take(&mut name)));
            }
            '[' => {
                if name.is_empty() {
                    return None;
                }
                steps.push(Step::Field(name));
                return Some(&text[at..]);
            }
            ' ' | '*' | '$' | '@' | ']' | '{' | '}' | '(' | ')' | '\'' | '"' => return None,
            _ => name.push(character),
        }
    }
    if name.is_empty() {
        return None;
    }
    steps.push(Step::Field(name));
    Some("")
}

/// Reads `[0]`, `[*]`, `['a']` or `[?(@.a=="b")]`.
fn take_bracket<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let inner = text.strip_prefix('[')?;
    if let Some(filter) = inner.strip_prefix("?(") {
        let (filter, rest) = split_filter(filter)?;
        steps.push(filter);
        return Some(rest);
    }
    if let Some(quoted) = inner.strip_prefix('\'') {
        // The server reads the quoted text as one more path: a dot in a key is written `\.`.
        let (names, rest) = quoted.split_once("']")?;
        return take_fields(names, steps)?.is_empty().then_some(rest);
    }
    let (index, rest) = inner.split_once(']')?;
    steps.push(if index == "*" {
        Step::Any
    } else {
        Step::Index(index.parse().ok()?)
    });
    Some(rest)
}

/// Reads `@.a.b=="text")]`, `@.a==true)]` or `@.a==1)]`.
fn split_filter(text: &str) -> Option<(Step, &str)> {
    let (path, literal) = text.strip_prefix('@')?.split_once("==")?;
    let literal = literal.trim_ascii_start();
    let (value, rest) = match literal.chars().next()? {
        quote @ ('"' | '\'') => literal[1..].split_once(quote)?,
        _ => {
            let end = literal.find([')', ' '])?;
            let plain = &literal[..end];
            let is_number = plain.parse::<i64>().is_ok();
            (is_number || matches!(plain, "true" | "false")).then_some((plain, &literal[end..]))?
        }
    };
    if value.contains('\\') {
        return None;
    }
    let rest = rest.trim_ascii_start().strip_prefix(")]")?;
    let path = JsonPath::parse(path.trim_ascii_end()).ok()?;
    let is_plain = path.0.iter().all(|step| matches!(step, Step::Field(_)));
    is_plain.then(|| (Step::Where(path, value.to_owned()), rest))
}

fn find<'a>(steps: &[Step], value: &'a RawValue) -> Option<&'a RawValue> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    match step {
        Step::Field(name) => find(rest, field(value.get(), name)?),
        Step::Index(index) => {
            let elements = elements(value)?;
            let behind = i64::try_from(elements.len()).ok()?;
            let index = if *index < 0 {
                index.checked_add(behind)?
            } else {
                *index
            };
            find(rest, elements.get(usize::try_from(index).ok()?)?)
        }
        Step::Any => elements(value)?
            .into_iter()
            .find_map(|element| find(rest, element)),
        Step::Where(path, wanted) => elements(value)?
            .into_iter()
            .filter(|element| find(&path.0, element).and_then(scalar).as_ref() == Some(wanted))
            .find_map(|element| find(rest, element)),
    }
}

fn elements(array: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(array.get()).ok()
}

/// A string, number or boolean as plain text; none for null, lists and objects.
pub(crate) fn scalar(value: &RawValue) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(value.get().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"metadata":{"name":"a"},"spec":{"list":[{"y":0},{"x":"b","n":7},{"x":"c"}],"a.b":"dotted","é":1,"nothing":null},
        "status":{"conditions":[{"type":"Ready"},{"type":"Ready","status":"True","ok":true,"n":3},{"type":"Other","status":"False"}]}}"#;

    #[test]
    fn simple_paths_find_what_the_server_finds() {
        let table = [
            (".metadata.name", Some("\"a\"")),
            ("metadata.name", Some("\"a\"")),
            ("['metadata'].name", Some("\"a\"")),
            (".spec.list[1].x", Some("\"b\"")),
            (".spec.list[-1].x", Some("\"c\"")),
            (".spec.list[3].x", None),
            (".spec.list[-9].x", None),
            (".spec.list[*].x", Some("\"b\"")),
            (".spec.list[1]", Some(r#"{"x":"b","n":7}"#)),
            (r".spec['a\.b']", Some("\"dotted\"")),
            (r".spec.a\.b", Some("\"dotted\"")),
            (".spec['a.b']", None),
            (".spec.é", Some("1")),
            (".spec.nothing", Some("null")),
            (".spec.nothing.more", None),
            (".spec.list.x", None),
            (".metadata[0]", None),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                Some("\"True\""),
            ),
            (
                r#".status.conditions[?(@.type == 'Other')].status"#,
                Some("\"False\""),
            ),
            (".status.conditions[?(@.ok==true)].type", Some("\"Ready\"")),
            (".status.conditions[?(@.n==3)].type", Some("\"Ready\"")),
            (r#".status.conditions[?(@.type=="None")].status"#, None),
        ];
        for (path, expected) in table {
            let path = JsonPath::parse(path).expect(path);
            assert_eq!(
                path.find(OBJECT.as_bytes()).map(RawValue::get),
                expected,
                "{path:?}"
            );
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let long = ".a".repeat(65);
        let refused = [
            ".",
            "..a",
            ".a..b",
            ".a.",
            ".a[",
            ".a[]",
            ".a[x]",
            ".a[0:2]",
            ".a[0,1]",
            ".a['b",
            ".a['']",
            "$.a",
            ".*",
            ".a b",
            "{.a}",
            ".a[?(@.b)]",
            ".a[?(@.b>1)]",
            ".a[?(@.b==c)]",
            ".a[?(@.b==\"c\"]",
            ".a[?(@.b[0]==1)]",
            ".a[0]b",
            ".a\\",
            &long,
        ];
        for path in refused {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn hostile_objects_have_nothing_at_a_path() {
        let path = JsonPath::parse(".a[?(@.b==1)].c").expect("a path");
        let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
        for object in [
            &b""[..],
            b"{",
            b"[]",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":[{\"b\":1}",
            deep.as_bytes(),
        ] {
            assert!(path.find(object).is_none());
        }
    }

    #[test]
    fn an_escaped_key_is_the_same_key_and_the_last_counts() {
        let path = JsonPath::parse(".a").expect("a path");
        assert_eq!(
            path.find(br#"{"a":1,"\u0061":1e400}"#).map(RawValue::get),
            Some("1e400")
        );
    }
}
