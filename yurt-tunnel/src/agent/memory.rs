//! What the agent keeps on disk, so that a restart works while nothing but a server can be reached.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use yurt_core::files::{WriteError, replace};

use super::winners::Winner;
use crate::dial::Address;

/// The file's name in the agent's folder.
const FILE: &str = "servers.json";

/// No file of ours is longer.
const MAX_BYTES: u64 = 1 << 20;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Remembered {
    pub(super) servers: Vec<Name>,
    pub(super) winners: Vec<Winner>,
}

/// The name of a server, or of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    #[serde(with = "text")]
    pub(super) name: Address,
    /// The addresses that it led to.
    pub(super) addresses: Vec<SocketAddr>,
    /// Whether a server has told of it, and not the configuration.
    #[serde(rename = "told")]
    pub(super) is_told: bool,
}

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct Memory {
    folder: PathBuf,
    bytes: Vec<u8>,
}

/// Why the agent's file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", path.display())]
pub(super) struct MemoryError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Memory {
    /// Reads what is remembered; a file that is damaged is as good as none. Blocks on the disk.
    pub(super) fn open(folder: &Path) -> Result<(Self, Remembered), MemoryError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| MemoryError { step, path, source }
        };
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let path = folder.join(FILE);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                let read = file.take(MAX_BYTES).read_to_end(&mut bytes);
                read.map_err(failed("read", &path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("open", &path)(error)),
        }
        let remembered = if bytes.is_empty() {
            Remembered::default()
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                let path = path.display();
                tracing::warn!(%error, %path, "what was remembered of the servers is not readable");
                Remembered::default()
            })
        };
        let folder = folder.to_owned();
        Ok((Self { folder, bytes }, remembered))
    }

    /// Writes what has changed, wholly or not at all. Blocks on the disk.
    pub(super) fn keep(&mut self, remembered: &Remembered) -> Result<(), WriteError> {
        let bytes = serde_json::to_vec_pretty(remembered).expect("texts and numbers are JSON");
        if bytes == self.bytes {
            return Ok(());
        }
        replace(&self.folder, &[(FILE, &bytes, 0o644)])?;
        self.bytes = bytes;
        Ok(())
    }
}

/// An address as `host:port`.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Address;

    pub(super) fn serialize<S: Serializer>(address: &Address, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(address)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Address, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::agent::winners::{Network, Winners};

    fn remembered() -> Remembered {
        let mut winners = Winners::default();
        let server = SocketAddr::from(([192, 0, 2, 1], 443));
        let local = [10, 0, 0, 1].into();
        winners.won(Network { local, server }, "h2");
        Remembered {
            servers: vec![Name {
                name: "tunnel.example:443".parse().unwrap(),
                addresses: vec![server],
                is_told: true,
            }],
            winners: winners.remember(),
        }
    }

    #[test]
    fn what_was_kept_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let (mut memory, empty) = Memory::open(&path).unwrap();
        assert_eq!(empty, Remembered::default());
        memory.keep(&remembered()).unwrap();
        let (_, found) = Memory::open(&path).unwrap();
        assert_eq!(found, remembered());
    }

    #[test]
    fn what_has_not_changed_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        Memory::open(folder.path())
            .unwrap()
            .0
            .keep(&remembered())
            .unwrap();
        let (mut memory, found) = Memory::open(folder.path()).unwrap();
        fs::remove_file(folder.path().join(FILE)).unwrap();
        memory.keep(&found).unwrap();
        assert!(!folder.path().join(FILE).exists());
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's file need not survive a crash"
    )]
    fn a_damaged_file_is_as_good_as_none_and_is_replaced() {
        for damage in [
            &b"{\"servers\":[{\"na"[..],
            b"\xff\xfe",
            b"[]",
            br#"{"servers":[{"name":"x"}]}"#,
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(FILE), damage).unwrap();
            let (mut memory, found) = Memory::open(folder.path()).unwrap();
            assert_eq!(found, Remembered::default());
            memory.keep(&remembered()).unwrap();
            assert_eq!(Memory::open(folder.path()).unwrap().1, remembered());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        File::create(&file)
            .unwrap()
            .set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
        let error = Memory::open(&file.join("folder")).unwrap_err();
        assert!(error.to_string().starts_with("make "), "{error}");
        assert!(error.to_string().contains("file/folder"), "{error}");
    }
}
