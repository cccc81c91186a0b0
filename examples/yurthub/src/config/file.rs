//! The configuration file: a flat YAML map of texts and lists of texts.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What stands behind a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing, as if the key was not there.
    Empty,
    /// A text, or a number or a boolean as it would be written.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
    /// Something that no key takes.
    Nested,
}

/// Reads the file's text; the error is one line with the place in the file.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Entry>, String> {
    // Nothing but comments is a file without keys.
    let keys: Option<_> = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        message.lines().next().unwrap_or_default().to_owned()
    })?;
    Ok(keys.unwrap_or_default())
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

/// Takes whatever comes, so that one wrong entry does not hide the mistakes of the others.
struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_unit<E>(self) -> Result<Entry, E> {
        Ok(Entry::Empty)
    }

    fn visit_none<E>(self) -> Result<Entry, E> {
        Ok(Entry::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Entry, E> {
        Ok(Entry::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Entry, E> {
        Ok(Entry::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Entry, E> {
        Ok(Entry::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Entry, E> {
        Ok(Entry::Text(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Entry, E> {
        Ok(Entry::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Entry, A::Error> {
        let mut list = Some(Vec::new());
        while let Some(item) = items.next_element()? {
            match (item, &mut list) {
                (Self::Value::Text(text), Some(list)) => list.push(text),
                _ => list = None,
            }
        }
        Ok(list.map_or(Entry::Nested, Entry::List))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Entry, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Entry::Nested)
    }
}
