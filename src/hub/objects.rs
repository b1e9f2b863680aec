//! Everything the hub keeps, as objects on the local disk; what a `put` returned from survives a power cut.
//!
//! The store flushes each file before it takes its final name, and the directory after. An object that is found
//! already there may stem from a process that died between those two steps, so its file and directory are flushed
//! again before anybody may be told that it is safe.

use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, local::LocalFileSystem, path::Path as Key};
use std::path::{Path, PathBuf};

/// The disk did not do its duty; nothing may be acknowledged after it.
#[derive(Debug, thiserror::Error)]
pub enum StorageFault {
    #[error("cannot keep {key}")]
    Object { key: String, source: object_store::Error },
    #[error("cannot flush {path}")]
    Flush { path: PathBuf, source: std::io::Error },
    #[error("cannot use the data directory {path}")]
    Directory { path: PathBuf, source: std::io::Error },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    New,
    Present,
}

pub struct Objects {
    files: LocalFileSystem,
    root: PathBuf,
    fsync: bool,
}

impl Objects {
    /// # Errors
    /// The directory can be neither found nor made.
    pub fn open(root: &Path, fsync: bool) -> Result<Self, StorageFault> {
        std::fs::create_dir_all(root).map_err(|source| StorageFault::Directory { path: root.into(), source })?;
        let files = LocalFileSystem::new_with_prefix(root).map_err(|e| fault("objects", e))?.with_fsync(fsync);
        Ok(Self { files, root: root.to_owned(), fsync })
    }

    /// Keeps an object unless its key is taken. Durable in either case.
    pub async fn put_new(&self, key: &str, bytes: impl Into<PutPayload>) -> Result<Put, StorageFault> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.files.put_opts(&Key::from(key), bytes.into(), options).await {
            Ok(_) => Ok(Put::New),
            Err(object_store::Error::AlreadyExists { .. }) => {
                self.flush(key)?;
                Ok(Put::Present)
            }
            Err(e) => Err(fault(key, e)),
        }
    }

    /// Keeps an object in place of an older one.
    pub async fn put(&self, key: &str, bytes: impl Into<PutPayload>) -> Result<(), StorageFault> {
        self.files.put(&Key::from(key), bytes.into()).await.map(drop).map_err(|e| fault(key, e))
    }

    pub async fn get(&self, key: &str) -> Result<Option<axum::body::Bytes>, StorageFault> {
        match self.files.get(&Key::from(key)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| fault(key, e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(fault(key, e)),
        }
    }

    /// Last parts of the keys directly below `prefix`: objects, then further levels.
    pub async fn list(&self, prefix: &str) -> Result<(Vec<String>, Vec<String>), StorageFault> {
        let found = self.files.list_with_delimiter(Some(&Key::from(prefix))).await.map_err(|e| fault(prefix, e))?;
        let last = |key: &Key| key.filename().unwrap_or_default().to_owned();
        let objects = found.objects.iter().map(|o| last(&o.location)).collect();
        Ok((objects, found.common_prefixes.iter().map(last).collect()))
    }

    /// Makes the names that [`list`](Self::list) has shown below `prefix` durable, whoever wrote them.
    pub fn flush_listed(&self, prefix: &str) -> Result<(), StorageFault> {
        if self.root.join(prefix).is_dir() { self.flush(prefix) } else { Ok(()) }
    }

    fn flush(&self, key: &str) -> Result<(), StorageFault> {
        if !self.fsync {
            return Ok(());
        }
        let file = self.root.join(key);
        // Up to the root: the directories themselves may be as new as the file.
        for path in file.ancestors().take_while(|p| p.starts_with(&self.root)) {
            let flushed = std::fs::File::open(path).and_then(|f| f.sync_all());
            flushed.map_err(|source| StorageFault::Flush { path: path.into(), source })?;
        }
        Ok(())
    }
}

fn fault(key: &str, source: object_store::Error) -> StorageFault {
    StorageFault::Object { key: key.into(), source }
}
