//! The few things about JSON text that serde does not do: where a value ends while its
//! bytes are still arriving, where a part lies in the whole, and strings as Go writes them.

use bytes::{BufMut, BytesMut};

/// How deep one Kubernetes object may nest: kube-apiserver reads none that is deeper (`maxNestingDepth` in
/// `sigs.k8s.io/json`). A level costs us nothing: brackets are counted, and serde_json skips a value without recursion.
pub(crate) const MAX_DEPTH: usize = 10_000;

/// The capacity that a buffer keeps for the next value.
const SPARE: usize = 64 << 10;

/// A value nests deeper than we follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooDeep;

/// Finds the end of one object or array whose bytes arrive in pieces.
///
/// It balances brackets and skips strings; whether the text is JSON is for a parser to say.
#[derive(Clone, Debug)]
pub(crate) struct Balance {
    depth: usize,
    max_depth: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Structure,
    String,
    Escape,
}

impl Balance {
    /// Starts before the opening bracket of a value.
    pub(crate) fn new(max_depth: usize) -> Self {
        Self {
            depth: 0,
            max_depth,
            place: Place::Structure,
        }
    }

    /// Reads on; `Some(n)` says that the value ends with the first `n` of these bytes.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, TooDeep> {
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Structure => {
                    at += structure_len(&bytes[at..]);
                    let Some(&byte) = bytes.get(at) else { break };
                    at += 1;
                    match byte {
                        b'"' => self.place = Place::String,
                        b'{' | b'[' => {
                            self.depth += 1;
                            if self.depth > self.max_depth {
                                return Err(TooDeep);
                            }
                        }
                        // The callers start us at an opening bracket; a stray closing one ends the value.
                        _ => {
                            self.depth = self.depth.saturating_sub(1);
                            if self.depth == 0 {
                                return Ok(Some(at));
                            }
                        }
                    }
                }
                Place::String => {
                    at += string_len(&bytes[at..]);
                    let Some(&byte) = bytes.get(at) else { break };
                    at += 1;
                    self.place = if byte == b'"' {
                        Place::Structure
                    } else {
                        Place::Escape
                    };
                }
                Place::Escape => {
                    at += 1;
                    self.place = Place::String;
                }
            }
        }
        Ok(None)
    }
}

/// The bytes before the next quote or bracket.
fn structure_len(bytes: &[u8]) -> usize {
    let hit = |byte: &u8| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
    bytes.iter().position(hit).unwrap_or(bytes.len())
}

/// The bytes before the next quote or backslash, eight at a time.
fn string_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte of `word` is zero where the text holds the wanted byte; borrow raises its high bit.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, _) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let text = u64::from_ne_bytes(*word);
        let quotes = text ^ u64::from_ne_bytes([b'"'; 8]);
        let escapes = text ^ u64::from_ne_bytes([b'\\'; 8]);
        if zeros(quotes) | zeros(escapes) != 0 {
            break;
        }
        at += 8;
    }
    let hit = |byte: &u8| matches!(byte, b'"' | b'\\');
    at + bytes[at..].iter().position(hit).unwrap_or(bytes.len() - at)
}

/// Empties a buffer for the next value; what one odd value needed is given back.
pub(crate) fn rewind(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(SPARE);
}

/// Where `part`, a slice of `whole`, begins in it.
pub(crate) fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (at.checked_add(part.len())? <= whole.len()).then_some(at)
}

/// Writes a JSON string with the escapes that Go's encoder uses, HTML's included.
pub(crate) fn write_string(text: &str, into: &mut BytesMut) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    into.put_u8(b'"');
    for character in text.chars() {
        match character {
            '"' => into.put_slice(b"\\\""),
            '\\' => into.put_slice(b"\\\\"),
            '\n' => into.put_slice(b"\\n"),
            '\r' => into.put_slice(b"\\r"),
            '\t' => into.put_slice(b"\\t"),
            '\u{8}' => into.put_slice(b"\\b"),
            '\u{c}' => into.put_slice(b"\\f"),
            '\u{2028}' => into.put_slice(b"\\u2028"),
            '\u{2029}' => into.put_slice(b"\\u2029"),
            '\0'..='\u{1f}' | '<' | '>' | '&' => {
                let code = u32::from(character) as usize;
                into.put_slice(b"\\u00");
                into.put_slice(&[HEX[code >> 4], HEX[code & 15]]);
            }
            _ => into.put_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    into.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_at_its_own_bracket() {
        let table: &[(&str, Option<usize>)] = &[
            ("{}", Some(2)),
            ("{} {}", Some(2)),
            (r#"{"a":[1,{"b":"]}"}]},"#, Some(20)),
            (r#"{"a\"}":"\\"}"#, Some(13)),
            (r#"["0123456789abcdef\"}",{}]"#, Some(26)),
            ("{", None),
            (r#"{"}"#, None),
        ];
        for (text, end) in table {
            assert_eq!(Balance::new(8).advance(text.as_bytes()), Ok(*end), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(Balance::new(4).advance(b"[[[[]]]]"), Ok(Some(8)));
        assert_eq!(Balance::new(4).advance(b"[[[[["), Err(TooDeep));
    }

    #[test]
    fn strings_are_written_as_go_writes_them() {
        let mut into = BytesMut::new();
        write_string("a\"b\\\n\t\u{1}<&>\u{2028}é\u{7f}", &mut into);
        let expected = "\"a\\\"b\\\\\\n\\t\\u0001\\u003c\\u0026\\u003e\\u2028é\u{7f}\"";
        assert_eq!(into, expected.as_bytes());
    }

    #[test]
    fn a_part_is_found_in_its_whole_only() {
        let whole = b"abcdef";
        assert_eq!(offset(whole, &whole[2..4]), Some(2));
        assert_eq!(offset(&whole[2..4], whole), None);
        assert_eq!(offset(&whole[..3], &whole[2..5]), None);
    }
}
