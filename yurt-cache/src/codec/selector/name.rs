//! What a label's key and value may be, and the API server's words for what they are not.
//!
//! The rules are `IsQualifiedName` and `IsValidLabelValue` of k8s.io/apimachinery.

use std::fmt::Write as _;

const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with a label's key, if anything.
pub(super) fn key_fault(key: &str) -> Option<String> {
    let mut faults: Vec<String> = Vec::new();
    let mut parts = key.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".into());
            } else {
                if prefix.len() > 253 {
                    faults.push("prefix part must be no more than 253 characters".into());
                }
                if !prefix.split('.').all(is_dns_label) {
                    faults.push(SUBDOMAIN.into());
                }
            }
            name
        }
        _ => {
            return Some(format!(
                "a qualified name {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        faults.push("name part must be no more than 63 characters".into());
    }
    if !is_name(name) {
        faults.push(format!("name part {NAME}"));
    }
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// What is wrong with a label's value, if anything.
pub(super) fn value_fault(value: &str) -> Option<String> {
    let mut faults = Vec::new();
    if value.len() > 63 {
        faults.push("must be no more than 63 characters");
    }
    if !value.is_empty() && !is_name(value) {
        faults.push(VALUE);
    }
    (!faults.is_empty()).then(|| faults.join("; "))
}

fn is_name(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner)
}

fn is_dns_label(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
}

/// A text in quotes as Go's `%q` prints it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        // Writing to a String cannot fail.
        let _ = match character {
            '"' | '\\' => write!(quoted, "\\{character}"),
            '\u{7}' => write!(quoted, "\\a"),
            '\u{8}' => write!(quoted, "\\b"),
            '\t' => write!(quoted, "\\t"),
            '\n' => write!(quoted, "\\n"),
            '\u{b}' => write!(quoted, "\\v"),
            '\u{c}' => write!(quoted, "\\f"),
            '\r' => write!(quoted, "\\r"),
            '\0'..='\u{1f}' | '\u{7f}' => write!(quoted, "\\x{:02x}", u32::from(character)),
            '\u{80}'..='\u{9f}' => write!(quoted, "\\u{:04x}", u32::from(character)),
            _ => write!(quoted, "{character}"),
        };
    }
    quoted.push('"');
    quoted
}
