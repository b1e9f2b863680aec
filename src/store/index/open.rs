//! The file itself: opened checked, read and written through here only.

use super::counted::{Counted, Tally};
use super::migrate;
use super::rows::row;
use super::tables::{META, STATE, create_tables, value_key};
use crate::protocol::Written;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use serde::de::DeserializeOwned;
use std::{fs::File, path::Path, sync::Arc};

const CACHE_BYTES: usize = 8 << 20;

pub struct Index {
    db: Database,
    tally: Arc<Tally>,
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // The control of the crash tests runs on a version that knows no such setting.
    #[cfg(not(redb_4_1))]
    builder.set_check_integrity_on_open(true);
    builder
}

impl Index {
    /// Opens or creates the file, checking all of it. Nothing is written before its format is known to be one of ours:
    /// [`Self::prepare`] comes next.
    pub fn open(path: &Path) -> Result<Self, redb::Error> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let tally = Arc::new(Tally::default());
        let storage = Counted::new(FileBackend::new(file)?, tally.clone());
        Ok(Self { db: builder().create_with_backend(storage)?, tally })
    }

    /// What the disk was asked to write for the index since it was opened.
    pub fn written(&self) -> Written {
        self.tally.written()
    }
    /// A flush that made the file's name durable.
    pub fn count_flush(&self) {
        self.tally.count_flush();
    }

    /// Opens what is on a storage, checking all of it.
    pub fn look(storage: impl redb::StorageBackend) -> Result<Self, redb::Error> {
        Ok(Self { db: builder().create_with_backend(storage)?, tally: Arc::default() })
    }

    /// Opens or creates an index on any storage.
    #[cfg(test)]
    pub fn on(storage: impl redb::StorageBackend) -> Result<Self, redb::Error> {
        let index = Self::look(storage)?;
        index.prepare()?;
        Ok(index)
    }

    /// The format the file is written in; `None` if its first start, or a rebuild, was cut short.
    pub fn format(&self) -> Result<Option<u32>, redb::Error> {
        match self.meta("format") {
            Err(redb::Error::TableDoesNotExist(_)) => Ok(None),
            found => found,
        }
    }

    /// Makes the tables that are missing.
    pub fn prepare(&self) -> Result<(), redb::Error> {
        let txn = self.begin()?;
        create_tables(&txn)?;
        Ok(txn.commit()?)
    }

    /// For tests of rules, which need no disk.
    #[cfg(test)]
    pub fn in_memory() -> Result<Self, redb::Error> {
        let db = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new())?;
        let index = Self { db, tally: Arc::default() };
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

    /// One of the values that change with every commit.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, redb::Error> {
        self.read()?.open_table(STATE)?.get(value_key(name))?.map(|v| row(v.value())).transpose()
    }
}
