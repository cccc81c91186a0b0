//! The keys by which values are sealed, and what a sealed value is made of: ChaCha20-Poly1305, fast also on chips without
//! instructions for AES, with the store's key as associated data, so that a value opens in its own place alone.
//!
//! A sealed value is `MAGIC`, the id of its key, a random nonce, the ciphertext and its tag.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use yurt_core::credentials::{CredentialsError, read_file};

use self::crypto::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use self::crypto::rand::{SecureRandom, SystemRandom};

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs as crypto;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use ring as crypto;

/// No clear value begins with it: read as a number, as those begin that are sealed, it is none that is ever reached.
const MAGIC: &[u8; 8] = b"yurtsea1";

const KEY_LEN: usize = 32;
const ID_LEN: usize = 8;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = MAGIC.len() + ID_LEN + NONCE_LEN;

/// Keys in one file at most: the one in use, and those that it followed.
const KEYS: usize = 16;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealKeyError {
    /// The file cannot be read.
    #[error(transparent)]
    ReadFile(#[from] CredentialsError),
    /// A line is no key.
    #[error(
        "line {line} is not a key: 32 bytes in base64, as `openssl rand -base64 32` prints them"
    )]
    NotAKey {
        /// Which line, from 1.
        line: usize,
    },
    /// There is no key in the file.
    #[error("there is no key in the file")]
    NoKey,
    /// There are too many.
    #[error("there are more than {KEYS} keys in the file")]
    TooMany,
}

/// Why a value is not sealed, or not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
    /// None of the keys sealed it.
    #[error("it is sealed with a key that is not here")]
    UnknownKey,
    /// It is not what was sealed, or not where.
    #[error("it is not what was sealed in this place")]
    Broken,
}

/// Keys by which values are sealed: the first seals, all open. There may be none.
#[derive(Default)]
pub(crate) struct SealKeys {
    keys: Vec<SealKey>,
}

struct SealKey {
    id: [u8; ID_LEN],
    key: LessSafeKey,
}

impl SealKeys {
    /// Reads a file with one key in a line; empty lines and those that begin with `#` count for nothing. Blocks on the
    /// disk.
    pub(crate) fn read(path: &Path) -> Result<Self, SealKeyError> {
        Self::parse(&read_file(path)?)
    }

    fn parse(text: &[u8]) -> Result<Self, SealKeyError> {
        let mut keys = Vec::new();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let secret = STANDARD.decode(line).ok();
            let key = secret.and_then(|secret| SealKey::new(&secret));
            keys.push(key.ok_or(SealKeyError::NotAKey { line: at + 1 })?);
        }
        match keys.len() {
            0 => Err(SealKeyError::NoKey),
            count if count > KEYS => Err(SealKeyError::TooMany),
            _ => Ok(Self { keys }),
        }
    }

    /// Returns whether there is a key to seal with.
    pub(crate) fn can_seal(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Seals a value for its place; without a key it stays clear.
    pub(crate) fn seal(&self, place: &[u8], value: &Bytes) -> Result<Bytes, SealError> {
        let Some(SealKey { id, key }) = self.keys.first() else {
            return Ok(value.clone());
        };
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| SealError::NoRandom)?;
        let mut sealed = Vec::with_capacity(HEAD_LEN + value.len() + TAG_LEN);
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(place), &mut sealed[HEAD_LEN..])
            .map_err(|_| SealError::Broken)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed.into())
    }

    /// Opens a value in its place; one that is not sealed is as it is.
    pub(crate) fn open(&self, place: &[u8], value: Bytes) -> Result<Bytes, SealError> {
        let Some(sealed) = value.strip_prefix(MAGIC) else {
            return Ok(value);
        };
        let (id, sealed) = sealed.split_at_checked(ID_LEN).ok_or(SealError::Broken)?;
        let key = self.keys.iter().find(|key| key.id == *id);
        let SealKey { key, .. } = key.ok_or(SealError::UnknownKey)?;
        let (nonce, sealed) = sealed
            .split_at_checked(NONCE_LEN)
            .ok_or(SealError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let mut opened = sealed.to_vec();
        let len = key
            .open_in_place(nonce, Aad::from(place), &mut opened)
            .map_err(|_| SealError::Broken)?
            .len();
        opened.truncate(len);
        Ok(opened.into())
    }

    /// Returns whether a value is as it would be sealed now.
    pub(crate) fn is_current(&self, value: &[u8]) -> bool {
        let id = value
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.get(..ID_LEN));
        match self.keys.first() {
            Some(key) => id == Some(&key.id[..]),
            None => true,
        }
    }
}

impl SealKey {
    fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() != KEY_LEN {
            return None;
        }
        let mut digest = Sha256::new();
        digest.update(b"yurt seal key");
        digest.update(secret);
        let digest = digest.finalize();
        Some(Self {
            id: digest[..ID_LEN].try_into().ok()?,
            key: LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, secret).ok()?),
        })
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKeys")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns keys that are made of these bytes, the first seals.
    pub(in crate::store) fn keys(bytes: &[u8]) -> SealKeys {
        let lines: Vec<String> = bytes
            .iter()
            .map(|byte| STANDARD.encode([*byte; KEY_LEN]))
            .collect();
        SealKeys::parse(lines.join("\n").as_bytes()).unwrap()
    }

    fn value(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_value_opens_in_its_own_place_with_its_own_key_alone() {
        let (first, other) = (keys(&[1]), keys(&[2]));
        let sealed = first.seal(b"o/a", &value("hunter2")).unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(first.open(b"o/a", sealed.clone()), Ok(value("hunter2")));
        assert_eq!(first.open(b"o/b", sealed.clone()), Err(SealError::Broken));
        let unknown = Err(SealError::UnknownKey);
        assert_eq!(other.open(b"o/a", sealed.clone()), unknown);
        assert_eq!(SealKeys::default().open(b"o/a", sealed), unknown);
    }

    #[test]
    fn no_two_sealed_values_are_alike() {
        let keys = keys(&[1]);
        let seal = || keys.seal(b"o/a", &value("hunter2")).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let sealed = old.seal(b"o/a", &value("x")).unwrap();
        assert!(old.is_current(&sealed) && !both.is_current(&sealed));
        let opened = both.open(b"o/a", sealed).unwrap();
        let resealed = both.seal(b"o/a", &opened).unwrap();
        assert!(both.is_current(&resealed));
        assert_eq!(new.open(b"o/a", resealed), Ok(value("x")));
    }

    #[test]
    fn without_a_key_values_stay_clear() {
        let none = SealKeys::default();
        assert_eq!(none.seal(b"o/a", &value("x")), Ok(value("x")));
        assert_eq!(none.open(b"o/a", value("x")), Ok(value("x")));
        assert!(none.is_current(b"x"));
        assert!(!keys(&[1]).is_current(b"x"));
    }

    #[test]
    fn a_file_that_is_none_of_keys_is_refused_by_its_line() {
        let good = STANDARD.encode([1; KEY_LEN]);
        let many = vec![good.clone(); KEYS + 1].join("\n");
        let short = format!("# ours\n\n{good}\nc2hvcnQ=\n");
        for (text, expected) in [
            ("", "there is no key in the file"),
            ("# nothing", "there is no key in the file"),
            (short.as_str(), "line 4 is not a key"),
            ("hunter2", "line 1 is not a key"),
            (many.as_str(), "there are more than 16 keys in the file"),
        ] {
            let refused = SealKeys::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
            assert!(!refused.contains("hunter2"));
        }
        let read = SealKeys::parse(format!("# ours\r\n\n  {good} \r\n").as_bytes()).unwrap();
        assert_eq!(format!("{read:?}"), "SealKeys { keys: 1, .. }");
    }

    proptest! {
        #[test]
        fn whatever_is_changed_or_cut_off_a_sealed_value_it_opens_as_it_was_or_not_at_all(
            at in 0_usize..60, bit in 0_u8..8, len in 0_usize..60, garbage: Vec<u8>,
        ) {
            let keys = keys(&[1]);
            let sealed = keys.seal(b"o/a", &value("hunter2")).unwrap();
            let mut changed = sealed.to_vec();
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1 << bit;
            }
            // Without the magic it is a clear value, which is nobody's to vouch for.
            for tried in [changed, sealed[..len.min(sealed.len())].to_vec(), [MAGIC, &garbage[..]].concat()] {
                let is_sealed = tried.starts_with(MAGIC) && tried != sealed;
                prop_assert_eq!(keys.open(b"o/a", tried.into()).is_err(), is_sealed);
            }
        }
    }
}
