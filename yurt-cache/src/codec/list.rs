//! Splits a Kubernetes List that arrives in chunks into its items, byte for byte.
//!
//! What is not an item is kept and parsed at the end, with `items` emptied; so the memory
//! taken is one item and the list's own few fields, whatever the length of the list.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::{Balance, MAX_DEPTH, TooDeep, rewind};
use super::object::revision;

/// A push parser for the body of a list.
///
/// After an error the rest of the body means nothing: every later call fails too.
#[derive(Debug)]
pub(crate) struct ListSplitter {
    limit: usize,
    state: State,
    /// The body without its items.
    head: Vec<u8>,
    /// The begun item, if a chunk ended within it.
    item: Vec<u8>,
}

/// What a list says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListHead {
    /// Group and version, as `apps/v1`.
    pub(crate) api_version: String,
    /// The list's kind, as `PodList`.
    pub(crate) kind: String,
    /// The revision of the whole list; 0 if it names none or one that is no number.
    pub(crate) resource_version: u64,
    /// How to ask for the next page.
    pub(crate) continue_token: Option<String>,
}

/// Why a body is not a list that we accept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ListError {
    /// One item, or the part of the list that is not an item, is too large.
    #[error("list has an item or a head of more than {limit} bytes")]
    TooLarge {
        /// What was allowed.
        limit: usize,
    },
    /// The bytes cannot be a list.
    #[error("malformed list: {0}")]
    Malformed(&'static str),
    /// What surrounds the items is not a list's.
    #[error("malformed list around its items")]
    ParseHead(#[source] serde_json::Error),
    /// The body ended within the list.
    #[error("list ends before its end")]
    Truncated,
}

#[derive(Debug)]
enum State {
    /// Before the opening brace.
    Start,
    /// Within the list, outside of `items`.
    Head(Head),
    /// Within `items`, before an item.
    BeforeItem { first: bool },
    /// Within an item.
    Item(Balance),
    /// Within `items`, behind an item.
    AfterItem,
    /// Behind the closing brace.
    End,
    /// An error was reported.
    Failed,
}

/// The place within the list's own fields.
#[derive(Debug)]
struct Head {
    /// Open brackets; 1 is the list itself.
    depth: usize,
    text: Text,
    key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    No,
    Yes,
    Escape,
}

/// What is known of the list's field that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Expected,
    /// It began at this offset of the kept bytes.
    Begun(usize),
    Items,
    Other,
}

impl Head {
    /// Where the list's fields are read on: at the opening brace, or behind the items.
    fn new(key: Key) -> Self {
        Self {
            depth: 1,
            text: Text::No,
            key,
        }
    }
}

impl ListSplitter {
    /// Expects a list in which one item, and all that is not an item, has at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: State::Start,
            head: Vec::new(),
            item: Vec::new(),
        }
    }

    /// Feeds the next bytes; calls `item` with each complete item, byte for byte.
    pub(crate) fn push<E: From<ListError>>(
        &mut self,
        chunk: &[u8],
        item: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = std::mem::replace(&mut self.state, State::Failed);
        let mut rest = chunk;
        while !rest.is_empty() {
            (state, rest) = match state {
                State::Item(balance) => self.read_item(balance, rest, item)?,
                other => self.read_around(other, rest)?,
            };
        }
        self.state = state;
        Ok(())
    }

    /// Ends the body: what the list said of itself.
    pub(crate) fn finish(self) -> Result<ListHead, ListError> {
        match self.state {
            State::End => ListHead::parse(&self.head),
            State::Failed => Err(ListError::Malformed("it was given up before")),
            _ => Err(ListError::Truncated),
        }
    }

    /// Reads within one item and hands it on when it is whole.
    fn read_item<'c, E: From<ListError>>(
        &mut self,
        mut balance: Balance,
        rest: &'c [u8],
        item: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(State, &'c [u8]), E> {
        let end = balance
            .advance(rest)
            .map_err(|TooDeep| ListError::Malformed("an item nests too deep"))?;
        let (part, rest) = rest.split_at(end.unwrap_or(rest.len()));
        if self.item.len() + part.len() > self.limit {
            return Err(ListError::TooLarge { limit: self.limit }.into());
        }
        if end.is_some() && self.item.is_empty() {
            item(as_text(part)?)?;
        } else {
            self.item.extend_from_slice(part);
            if end.is_none() {
                return Ok((State::Item(balance), rest));
            }
            item(as_text(&self.item)?)?;
            rewind(&mut self.item);
        }
        Ok((State::AfterItem, rest))
    }

    /// Reads what is not an item, up to the next item at most.
    fn read_around<'c>(
        &mut self,
        state: State,
        rest: &'c [u8],
    ) -> Result<(State, &'c [u8]), ListError> {
        if let State::Head(head) = state {
            return self.read_head(head, rest);
        }
        if matches!(state, State::Failed) {
            return Err(ListError::Malformed("it was given up before"));
        }
        let rest = rest.trim_ascii_start();
        let Some((&byte, behind)) = rest.split_first() else {
            return Ok((state, rest));
        };
        let next = match (state, byte) {
            (State::Start, b'{') => {
                self.head.push(byte);
                State::Head(Head::new(Key::Expected))
            }
            // The item's own brace belongs to the item.
            (State::BeforeItem { .. }, b'{') => {
                return Ok((State::Item(Balance::new(MAX_DEPTH)), rest));
            }
            (State::AfterItem, b',') => State::BeforeItem { first: false },
            (State::BeforeItem { first: true } | State::AfterItem, b']') => {
                self.head.push(byte);
                State::Head(Head::new(Key::Other))
            }
            (State::Start, _) => return Err(ListError::Malformed("it is not an object")),
            (State::BeforeItem { .. }, _) => {
                return Err(ListError::Malformed("an item is not an object"));
            }
            (State::AfterItem, _) => {
                return Err(ListError::Malformed("items are not separated by commas"));
            }
            (State::End, _) => return Err(ListError::Malformed("something follows it")),
            (State::Head(_) | State::Item(_) | State::Failed, _) => {
                return Err(ListError::Malformed("it was given up before"));
            }
        };
        Ok((next, behind))
    }

    /// Reads and keeps the list's own fields, up to the opening bracket of `items`.
    fn read_head<'c>(
        &mut self,
        mut head: Head,
        rest: &'c [u8],
    ) -> Result<(State, &'c [u8]), ListError> {
        for (at, &byte) in rest.iter().enumerate() {
            if self.head.len() >= self.limit {
                return Err(ListError::TooLarge { limit: self.limit });
            }
            self.head.push(byte);
            let behind = &rest[at + 1..];
            match (head.text, byte) {
                (Text::Escape, _) => head.text = Text::Yes,
                (Text::Yes, b'\\') => head.text = Text::Escape,
                (Text::Yes, b'"') => {
                    head.text = Text::No;
                    if let Key::Begun(start) = head.key {
                        head.key = self.key_from(start);
                    }
                }
                (Text::Yes, _) => {}
                (Text::No, b'"') => {
                    head.text = Text::Yes;
                    if head.depth == 1 && head.key == Key::Expected {
                        head.key = Key::Begun(self.head.len() - 1);
                    }
                }
                (Text::No, b'[') if head.depth == 1 && head.key == Key::Items => {
                    return Ok((State::BeforeItem { first: true }, behind));
                }
                (Text::No, b'{' | b'[') => {
                    head.depth += 1;
                    if head.depth > MAX_DEPTH {
                        return Err(ListError::Malformed("it nests too deep"));
                    }
                }
                (Text::No, b'}' | b']') => {
                    head.depth -= 1;
                    if head.depth == 0 {
                        return Ok((State::End, behind));
                    }
                }
                (Text::No, b',') if head.depth == 1 => head.key = Key::Expected,
                (Text::No, _) => {}
            }
        }
        Ok((State::Head(head), &[]))
    }

    /// Reads the key that begins at `start` and ends with the kept bytes.
    fn key_from(&self, start: usize) -> Key {
        let key = &self.head[start..];
        // A key may be written with escapes; serde reads it as the end will.
        let is_items = if key.contains(&b'\\') {
            serde_json::from_slice::<String>(key).is_ok_and(|key| key == "items")
        } else {
            key == b"\"items\""
        };
        if is_items { Key::Items } else { Key::Other }
    }
}

/// Refuses what is not UTF-8; serde's raw skipping does not look.
fn as_text(item: &[u8]) -> Result<&[u8], ListError> {
    match std::str::from_utf8(item) {
        Ok(text) => Ok(text.as_bytes()),
        Err(_) => Err(ListError::Malformed("an item is not UTF-8")),
    }
}

impl ListHead {
    fn parse(head: &[u8]) -> Result<Self, ListError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct List {
            #[serde(default)]
            api_version: String,
            #[serde(default)]
            kind: String,
            metadata: Option<Metadata>,
            // A list has items, if only null: `{}` from some proxy must not empty a mirror.
            #[serde(deserialize_with = "Option::deserialize")]
            items: Option<Vec<IgnoredAny>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            resource_version: Option<String>,
            #[serde(rename = "continue")]
            continue_token: Option<String>,
        }
        let head =
            std::str::from_utf8(head).map_err(|_| ListError::Malformed("it is not UTF-8"))?;
        let List {
            api_version,
            kind,
            metadata,
            items,
        } = serde_json::from_str(head).map_err(ListError::ParseHead)?;
        if items.is_some_and(|items| !items.is_empty()) {
            return Err(ListError::Malformed("its items are misplaced"));
        }
        let metadata = metadata.unwrap_or_default();
        let resource_version = metadata
            .resource_version
            .as_deref()
            .and_then(revision)
            .unwrap_or(0);
        let continue_token = metadata.continue_token.filter(|token| !token.is_empty());
        Ok(Self {
            api_version,
            kind,
            resource_version,
            continue_token,
        })
    }
}

#[cfg(test)]
mod tests;
