//! Takes the white space out of JSON that was written for people: the server does that for browsers and
//! curl, and what is kept has to fit on a line of a watch.

use bytes::Bytes;

/// Returns the text without white space between its parts, every part byte for byte.
pub(crate) fn compact(text: &Bytes) -> Bytes {
    if !text.contains(&b'\n') {
        return text.clone();
    }
    let mut compact = Vec::with_capacity(text.len());
    let (mut is_in_string, mut is_escaped) = (false, false);
    for &byte in text {
        if is_in_string {
            is_in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            is_in_string = byte == b'"';
        }
        compact.push(byte);
    }
    compact.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_between_parts_and_stays_within_strings() {
        for (pretty, expected) in [
            (
                "{\n  \"a\": [1, 2.50e3],\n  \"b c\": \" \\\" x \\\\\"\n}\n",
                "{\"a\":[1,2.50e3],\"b c\":\" \\\" x \\\\\"}",
            ),
            ("{\"a\":\"b c\"}", "{\"a\":\"b c\"}"),
            ("\n", ""),
        ] {
            assert_eq!(compact(&Bytes::from(pretty)), expected);
        }
    }
}
