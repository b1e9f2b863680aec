//! The index's file, with every byte and every flush counted on its way to the disk.
//!
//! Everything is redb's own file backend's doing, its locks too; only what passes is counted. One call of the library is one
//! system call: `write` is one `pwrite64`, `sync_data` one `fdatasync`.

use crate::protocol::Written;
use redb::StorageBackend;
use redb::backends::FileBackend;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
#[cfg(not(redb_4_1))]
use {redb::BackendError, std::ops::Bound};

/// What was asked of the disk since the start. Nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: AtomicU64,
    flushes: AtomicU64,
}

impl Tally {
    pub fn written(&self) -> Written {
        Written { bytes: self.bytes.load(Relaxed), flushes: self.flushes.load(Relaxed) }
    }
    pub fn count_flush(&self) {
        self.flushes.fetch_add(1, Relaxed);
    }
}

#[derive(Debug)]
pub struct Counted {
    pub file: FileBackend,
    pub tally: Arc<Tally>,
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.tally.count_flush();
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        self.tally.bytes.fetch_add(data.len() as u64, Relaxed);
        Ok(())
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // Without these nobody would keep a second process out of the file. The control of the crash tests runs on a version that
    // locks the file when the backend is made.
    #[cfg(not(redb_4_1))]
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    #[cfg(not(redb_4_1))]
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }
    #[cfg(not(redb_4_1))]
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }
    #[cfg(not(redb_4_1))]
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }
    #[cfg(not(redb_4_1))]
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
    #[cfg(not(redb_4_1))]
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
