//! Label selectors: `k8s.io/apimachinery/pkg/labels`, its grammar, its errors, its matching.

use std::collections::BTreeSet;
use std::fmt;

use super::SelectorError;
use super::name::{key_fault, quoted, value_fault};

/// Which labels an object must have. Equal selectors have equal text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LabelSelector(BTreeSet<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Test {
    Exists,
    Absent,
    /// `=`, `==` and `in`.
    In(BTreeSet<String>),
    /// `!=` and `notin`; an object without the label passes.
    NotIn(BTreeSet<String>),
    GreaterThan(i64),
    LessThan(i64),
}

impl LabelSelector {
    /// Reads the text of a `labelSelector` parameter; nothing selects everything.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = BTreeSet::new();
        let mut parser = Parser { rest: text };
        let mut is_first = true;
        loop {
            match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    let requirement = parser.requirement().map_err(|fault| {
                        SelectorError(format!("unable to parse requirement: {fault}"))
                    })?;
                    requirements.insert(requirement);
                }
                Token::End if is_first => return Ok(Self::default()),
                token if is_first => {
                    return expected(token, ", expected: !, identifier, or 'end of string'");
                }
                token => return expected(token, ", expected: identifier after ','"),
            }
            match parser.next() {
                Token::End => return Ok(Self(requirements)),
                Token::Symbol(",") => is_first = false,
                token => return expected(token, ", expected: ',' or 'end of string'"),
            }
        }
    }

    /// Whether it selects everything.
    pub(crate) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels, sorted by key, is selected.
    pub(crate) fn matches(&self, labels: &[(String, String)]) -> bool {
        self.0.iter().all(|requirement| {
            let found = labels.binary_search_by(|(key, _)| key.cmp(&requirement.key));
            requirement
                .test
                .passes(found.ok().map(|at| labels[at].1.as_str()))
        })
    }
}

impl Test {
    fn passes(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Self::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// Prints the shortest form that the API server reads as the same selector.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Requirement { key, test }) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::Exists => write!(f, "{key}")?,
                Test::Absent => write!(f, "!{key}")?,
                Test::In(values) => write_set(f, key, ["=", " in "], values)?,
                Test::NotIn(values) => write_set(f, key, ["!=", " notin "], values)?,
                Test::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                Test::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

fn write_set(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    [one, many]: [&str; 2],
    values: &BTreeSet<String>,
) -> fmt::Result {
    let list: Vec<&str> = values.iter().map(String::as_str).collect();
    match list.as_slice() {
        [value] => write!(f, "{key}{one}{value}"),
        _ => write!(f, "{key}{many}({})", list.join(",")),
    }
}

// === Parser ===

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    /// An identifier, or a keyword where the grammar expects an operator.
    Word(&'t str),
    Symbol(&'t str),
    End,
}

impl<'t> Token<'t> {
    fn text(self) -> &'t str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

fn expected<T>(found: Token<'_>, rest: &str) -> Result<T, SelectorError> {
    Err(SelectorError(fault(found, rest)))
}

fn fault(found: Token<'_>, rest: &str) -> String {
    format!("found '{}'{rest}", found.text())
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Token<'t> {
        self.scan().0
    }

    fn next(&mut self) -> Token<'t> {
        let (token, rest) = self.scan();
        self.rest = rest;
        token
    }

    fn scan(&self) -> (Token<'t>, &'t str) {
        const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
        let text = self.rest.trim_start_matches(is_space);
        // A NUL ends the text, as it does for the server's scanner.
        if text.is_empty() || text.starts_with('\0') {
            return (Token::End, "");
        }
        for symbol in SYMBOLS {
            if let Some(rest) = text.strip_prefix(symbol) {
                return (Token::Symbol(symbol), rest);
            }
        }
        let end = text
            .find(|c| is_space(c) || "=!(),><\0".contains(c))
            .unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        (Token::Word(word), rest)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let is_absent = token == Token::Symbol("!");
        if is_absent {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(fault(token, ", expected: identifier"));
        };
        if let Some(fault) = key_fault(key) {
            return Err(format!("<nil>: Invalid value: {}: {fault}", quoted(key)));
        }
        let test = if is_absent {
            Test::Absent
        } else if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            Test::Exists
        } else {
            self.test(key)?
        };
        Ok(Requirement {
            key: key.to_owned(),
            test,
        })
    }

    fn test(&mut self, key: &str) -> Result<Test, String> {
        match self.next() {
            Token::Word("in") => Ok(Test::In(checked(key, self.values()?)?)),
            Token::Word("notin") => Ok(Test::NotIn(checked(key, self.values()?)?)),
            Token::Symbol("=" | "==") => Ok(Test::In(checked(key, [self.value()?].into())?)),
            Token::Symbol("!=") => Ok(Test::NotIn(checked(key, [self.value()?].into())?)),
            Token::Symbol(">") => Ok(Test::GreaterThan(bound(key, self.value()?)?)),
            Token::Symbol("<") => Ok(Test::LessThan(bound(key, self.value()?)?)),
            token => Err(fault(token, ", expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value.to_owned()),
            token => Err(fault(token, ", expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(fault(open, " expected: '('"));
        }
        match self.peek() {
            Token::Word(_) | Token::Symbol("," | ")") => {}
            token => return Err(fault(token, ", expected: ',', ')' or identifier")),
        }
        let mut values = BTreeSet::new();
        loop {
            // Where a value is left out, an empty one is meant: `()`, `(,a)`, `(a,,b)`, `(a,)`.
            match self.peek() {
                Token::Word(value) => {
                    self.next();
                    values.insert(value.to_owned());
                }
                Token::Symbol("," | ")") => {
                    values.insert(String::new());
                }
                token => return Err(fault(token, ", expected: ',', or identifier")),
            }
            match self.next() {
                Token::Symbol(")") => return Ok(values),
                Token::Symbol(",") => {}
                token => return Err(fault(token, ", expected: ',' or ')'")),
            }
        }
    }
}

fn checked(key: &str, values: BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    let faults = values
        .iter()
        .enumerate()
        .filter_map(|(at, value)| value_error(key, at, value));
    joined(faults.collect())?;
    Ok(values)
}

fn bound(key: &str, value: String) -> Result<i64, String> {
    let number: Option<i64> = value.parse().ok();
    let mut faults = Vec::new();
    if number.is_none() {
        faults.push(format!(
            "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
            quoted(&value)
        ));
    }
    faults.extend(value_error(key, 0, &value));
    joined(faults)?;
    Ok(number.unwrap_or_default())
}

fn value_error(key: &str, at: usize, value: &str) -> Option<String> {
    let fault = value_fault(value)?;
    Some(format!(
        "values[{at}][{key}]: Invalid value: {}: {fault}",
        quoted(value)
    ))
}

/// Several errors as Go's aggregate prints them.
fn joined(faults: Vec<String>) -> Result<(), String> {
    match faults.as_slice() {
        [] => Ok(()),
        [fault] => Err(fault.clone()),
        _ => Err(format!("[{}]", faults.join(", "))),
    }
}

#[cfg(test)]
mod tests;
