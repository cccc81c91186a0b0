//! A `Store` in a SQLite database.

use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use yurt_core::store::{Batch, Error, ErrorKind, Health, Operation, Result, Store};

const FILE: &str = "store.sqlite";

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS record (
        key BLOB NOT NULL PRIMARY KEY,
        value BLOB NOT NULL,
        checksum INTEGER NOT NULL
    );
";

/// Remembers in a SQLite database, one transaction per batch.
pub struct SqliteStore {
    inner: Mutex<Inner>,
}

struct Inner {
    connection: Connection,
    /// Keys whose values were found damaged.
    damaged: HashSet<Vec<u8>>,
    /// Databases that were found unusable at the opening.
    refused: u64,
}

impl SqliteStore {
    /// Opens the database in the directory `path`; one that SQLite refuses is moved aside.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] if no database can be made there.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(FILE);
        let (connection, refused) = match connect(&file) {
            Ok(connection) => (connection, 0),
            Err(error) if is_corrupt(&error) => {
                let aside = file.with_extension("damaged");
                std::fs::rename(&file, aside).map_err(|error| {
                    Error::new(ErrorKind::Other, "move a damaged database aside").with_source(error)
                })?;
                (connect(&file).map_err(failed("open the database"))?, 1)
            }
            Err(error) => return Err(failed("open the database")(error)),
        };
        let inner = Inner {
            connection,
            damaged: HashSet::new(),
            refused,
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase)
    )
}

/// Returns what turns SQLite's errors into the contract's.
fn failed(step: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |error| {
        let kind = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::Full,
            Some(rusqlite::ErrorCode::ReadOnly) => ErrorKind::ReadOnly,
            _ => ErrorKind::Other,
        };
        Error::new(kind, step).with_source(error)
    }
}

/// Of key and value: a value under another's key is damage, too.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

impl Store for SqliteStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let mut inner = self.inner.lock();
        let Some((value, written)) = inner.find(key).map_err(failed("read a record"))? else {
            return Ok(None);
        };
        if checksum(key, &value) == written {
            return Ok(Some(value.into()));
        }
        inner.damaged.insert(key.to_vec());
        Err(Error::new(
            ErrorKind::Damaged,
            format!("{} is damaged", key.escape_ascii()),
        ))
    }

    fn write(&self, batch: Batch) -> Result<()> {
        batch.check()?;
        let mut inner = self.inner.lock();
        inner.apply(&batch).map_err(failed("write a batch"))
    }

    fn sync(&self) -> Result<()> {
        // A commit was safe when it returned.
        Ok(())
    }

    fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> Result<()> {
        let inner = self.inner.lock();
        inner
            .visit(prefix, after, visit)
            .map_err(failed("list the keys"))
    }

    fn health(&self) -> Health {
        self.inner.lock().health()
    }
}

impl Inner {
    fn find(&self, key: &[u8]) -> rusqlite::Result<Option<(Vec<u8>, u32)>> {
        self.connection
            .prepare_cached("SELECT value, checksum FROM record WHERE key = ?")?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    fn apply(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT OR REPLACE INTO record (key, value, checksum) VALUES (?, ?, ?)",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM record WHERE key = ?")?;
            for operation in batch.operations() {
                match operation {
                    Operation::Put(key, value) => {
                        put.execute(params![&key[..], &value[..], checksum(key, value)])?
                    }
                    Operation::Delete(key) => delete.execute([&key[..]])?,
                };
            }
        }
        transaction.commit()
    }

    fn visit(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], usize) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let mut list = self.connection.prepare_cached(
            "SELECT key, length(value) FROM record
             WHERE key >= ?1 AND (?2 IS NULL OR key > ?2) ORDER BY key",
        )?;
        let mut rows = list.query(params![prefix, after])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_blob()?;
            let len = usize::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
            if !key.starts_with(prefix) || visit(key, len).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn health(&self) -> Health {
        let mut health = Health::default();
        let count = |sql: &str| {
            let count = self
                .connection
                .query_row(sql, [], |row| row.get::<_, i64>(0));
            count
                .ok()
                .and_then(|count| u64::try_from(count).ok())
                .unwrap_or_default()
        };
        health.records = count("SELECT count(*) FROM record");
        health.live_bytes =
            count("SELECT coalesce(sum(length(key) + length(value)), 0) FROM record");
        health.disk_bytes =
            count("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
        health.damaged = self.refused + u64::try_from(self.damaged.len()).unwrap_or(u64::MAX);
        health
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
