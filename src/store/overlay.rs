//! The index file, read and never written: what the library writes to it stays in memory.
//!
//! Opening recovers what a crash left and counts its pages anew, and both are commits; a look at a store must not change it. Few pages
//! change in that, so little memory is used.

use rustix::fs::{Mode, OFlags};
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

const PAGE: u64 = 4_096;

#[derive(Debug)]
pub struct Overlay {
    file: File,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    len: u64,
    /// Bytes of the file that still count: what was cut off once comes back as zeros.
    from_file: u64,
    pages: HashMap<u64, Vec<u8>>,
}

impl Overlay {
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        Ok(Self { file, changed: Mutex::new(Changed { len: about.len(), from_file: about.len(), pages: HashMap::new() }) })
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as it is now.
    fn page(&self, changed: &Changed, no: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = changed.pages.get(&no) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE as usize];
        let there = changed.from_file.saturating_sub(no * PAGE).min(PAGE) as usize;
        self.file.read_exact_at(&mut page[..there], no * PAGE)?;
        Ok(page)
    }
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= changed.len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut at = offset;
        while at < end {
            let (no, within) = (at / PAGE, (at % PAGE) as usize);
            let count = (PAGE as usize - within).min((end - at) as usize);
            let to = (at - offset) as usize;
            out[to..to + count].copy_from_slice(&self.page(&changed, no)?[within..within + count]);
            at += count as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = self.changed();
        if len < changed.len {
            changed.from_file = changed.from_file.min(len);
            changed.pages.retain(|no, _| no * PAGE < len);
            if let Some(last) = changed.pages.get_mut(&(len / PAGE)) {
                last[(len % PAGE) as usize..].fill(0);
            }
        }
        changed.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let (no, within) = (at / PAGE, (at % PAGE) as usize);
            let count = (PAGE as usize - within).min((end - at) as usize);
            let from = (at - offset) as usize;
            let mut page = self.page(&changed, no)?;
            page[within..within + count].copy_from_slice(&data[from..from + count]);
            changed.pages.insert(no, page);
            at += count as u64;
        }
        changed.len = changed.len.max(end);
        Ok(())
    }
}
