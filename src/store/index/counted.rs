//! The index's file, with every byte and every flush counted on its way to the disk.
//!
//! Everything is redb's own file backend's doing, its locks too; what passes is counted, and a file that grew is filled a little
//! ahead. `write` is one `pwrite64`, with the zeros ahead two, and `sync_data` one `fdatasync`.

use crate::protocol::Written;
use redb::StorageBackend;
use redb::backends::FileBackend;
use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
#[cfg(not(redb_4_1))]
use {redb::BackendError, std::ops::Bound};

/// So many zeros follow a first write into what the file grew by, where the disk holds nothing yet: each such write makes the file
/// system's journal commit, with flushes of its own (0.05 a picture in groups of 8, measured), and the next ones find their place made.
const AHEAD_BYTES: u64 = 64 << 10;

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

/// How often the disk has answered in this process: what tells slow work from none. For all stores together, because one that is being
/// opened is nobody's yet.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

pub fn answered() {
    ANSWERS.fetch_add(1, Relaxed);
}
pub fn answers() -> u64 {
    ANSWERS.load(Relaxed)
}

#[derive(Debug)]
pub struct Counted {
    file: FileBackend,
    tally: Arc<Tally>,
    /// What the file grew by and nobody has written to yet: it reads as zeros, so more of them change nothing.
    untouched: Mutex<Range<u64>>,
}

impl Counted {
    pub fn new(file: FileBackend, tally: Arc<Tally>) -> Self {
        Self { file, tally, untouched: Mutex::default() }
    }

    fn write_counted(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        answered();
        self.tally.bytes.fetch_add(data.len() as u64, Relaxed);
        Ok(())
    }

    fn untouched(&self) -> MutexGuard<'_, Range<u64>> {
        self.untouched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out).inspect(|()| answered())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut untouched = self.untouched();
        let was = self.file.len()?;
        self.file.set_len(len)?;
        let from = if untouched.is_empty() { was } else { untouched.start };
        *untouched = from.min(len)..len;
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.tally.count_flush();
        self.file.sync_data().inspect(|()| answered())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // Held until all is written: somebody else's write must not come between the look and the zeros.
        let mut untouched = self.untouched();
        self.write_counted(offset, data)?;
        let end = offset + data.len() as u64;
        if end > untouched.start && !untouched.is_empty() {
            let ahead = end.next_multiple_of(AHEAD_BYTES).min(untouched.end).max(end);
            untouched.start = ahead;
            // Without room for them nothing is lost: what was asked for is written.
            let _ = self.write_counted(end, &vec![0; (ahead - end) as usize]);
        }
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

#[cfg(test)]
mod tests;
