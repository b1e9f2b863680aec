//! The file itself: opened checked, read and written through here only.

use super::migrate;
use super::rows::row;
use super::tables::{META, create_tables};
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use serde::de::DeserializeOwned;
use std::path::Path;

const CACHE_BYTES: usize = 8 << 20;

pub struct Index {
    db: Database,
}

impl Index {
    /// Opens or creates the file, checking all of it.
    pub fn open(path: &Path) -> Result<Self, redb::Error> {
        let db = Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path)?;
        let index = Self { db };
        let txn = index.begin()?;
        create_tables(&txn)?;
        txn.commit()?;
        Ok(index)
    }

    /// For tests of rules, which need no disk.
    #[cfg(test)]
    pub fn in_memory() -> Result<Self, redb::Error> {
        let db = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new())?;
        let index = Self { db };
        index.migrate()?;
        Ok(index)
    }

    pub fn begin(&self) -> Result<WriteTransaction, redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(false);
        Ok(txn)
    }

    /// Brings an index of an older format up to date, in one commit.
    pub fn migrate(&self) -> Result<(), redb::Error> {
        let txn = self.begin()?;
        migrate::migrate(&txn)?;
        Ok(txn.commit()?)
    }

    pub fn read(&self) -> Result<ReadTransaction, redb::Error> {
        Ok(self.db.begin_read()?)
    }

    pub fn meta<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, redb::Error> {
        self.read()?.open_table(META)?.get(key)?.map(|v| row(v.value())).transpose()
    }
}
