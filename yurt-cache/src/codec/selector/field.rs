//! Field selectors: `k8s.io/apimachinery/pkg/fields`, its grammar, its errors, its matching.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use super::SelectorError;

/// Which values an object's fields must have. Equal selectors have equal text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FieldSelector(BTreeSet<FieldTerm>);

/// One comparison of a field selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FieldTerm {
    /// The field's label, as `spec.nodeName`.
    pub(crate) field: String,
    /// How it is compared.
    pub(crate) operator: FieldOperator,
    /// What it is compared with, unescaped.
    pub(crate) value: String,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FieldOperator {
    /// `=` and `==`.
    Equals,
    /// `!=`.
    NotEquals,
}

impl FieldSelector {
    /// Selects the objects of which one field has the value, whatever signs are in it.
    pub(crate) fn equal(field: &str, value: &str) -> Self {
        Self(BTreeSet::from([FieldTerm {
            field: field.to_owned(),
            operator: FieldOperator::Equals,
            value: value.to_owned(),
        }]))
    }

    /// Reads the text of a `fieldSelector` parameter; nothing selects everything.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        // The server sorts first, which decides which error it reports.
        parts.sort_unstable();
        let mut terms = BTreeSet::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let Some((field, operator, value)) = split_term(part) else {
                return Err(SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let (field, value) = (field.to_owned(), unescape(value)?);
            // A term that compares nothing with nothing is always true on the server.
            if !(field.is_empty() && value.is_empty()) {
                terms.insert(FieldTerm {
                    field,
                    operator,
                    value,
                });
            }
        }
        Ok(Self(terms))
    }

    /// Whether it selects everything.
    pub(crate) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The comparisons, sorted.
    pub(crate) fn terms(&self) -> impl Iterator<Item = &FieldTerm> {
        self.0.iter()
    }

    /// The value that a field must have.
    pub(crate) fn exact(&self, field: &str) -> Option<&str> {
        let term = self
            .0
            .iter()
            .find(|term| term.field == field && term.operator == FieldOperator::Equals);
        term.map(|term| term.value.as_str())
    }

    /// Returns whether it looks at nothing but names, which an object keeps.
    pub(crate) fn is_by_key(&self) -> bool {
        let is_of_key = |field: &str| matches!(field, "metadata.name" | "metadata.namespace");
        self.0.iter().all(|term| is_of_key(&term.field))
    }

    /// Whether an object with these field values is selected; an unknown field is empty.
    pub(crate) fn matches<'v>(&self, value: &dyn Fn(&str) -> Option<Cow<'v, str>>) -> bool {
        self.0.iter().all(|term| {
            let is_equal = value(&term.field).as_deref().unwrap_or_default() == term.value;
            is_equal == (term.operator == FieldOperator::Equals)
        })
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            at,
            FieldTerm {
                field,
                operator,
                value,
            },
        ) in self.0.iter().enumerate()
        {
            if at > 0 {
                f.write_str(",")?;
            }
            let operator = match operator {
                FieldOperator::Equals => "=",
                FieldOperator::NotEquals => "!=",
            };
            let value = value
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('=', "\\=");
            write!(f, "{field}{operator}{value}")?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut is_escaped = false;
    text.split(|character| {
        let is_comma = character == ',' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        is_comma
    })
    .collect()
}

fn split_term(term: &str) -> Option<(&str, FieldOperator, &str)> {
    const OPERATORS: [(&str, FieldOperator); 3] = [
        ("!=", FieldOperator::NotEquals),
        ("==", FieldOperator::Equals),
        ("=", FieldOperator::Equals),
    ];
    term.char_indices().find_map(|(at, _)| {
        let (field, rest) = term.split_at(at);
        let found = OPERATORS
            .iter()
            .find_map(|(text, operator)| Some((*operator, rest.strip_prefix(text)?)));
        found.map(|(operator, value)| (field, operator, value))
    })
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let fail = |what: String| SelectorError(format!("invalid field selector: {what}"));
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                Some(other) => return Err(fail(format!("invalid escape sequence: \\{other}"))),
                None => return Err(fail("invalid escape sequence: \\".into())),
            },
            // The server prints the character's number.
            ',' | '=' => {
                return Err(fail(format!(
                    "unescaped character in value: {}",
                    u32::from(character)
                )));
            }
            _ => plain.push(character),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;
