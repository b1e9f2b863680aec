//! What the store asks of a filesystem for its pictures, as few operations as it needs.
//!
//! The data directory is one implementation; the other is the crash tests' own, which knows what a power cut may leave
//! (`files/tests.rs`). Paths are relative to the data directory.

use super::careful;
use super::index::answered;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::{
    fs::{self, File},
    io::{self, IoSlice, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub trait Files {
    type File;
    /// Makes a file where nothing was, not even a link.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Takes the room a file will need, so that a full disk is found out before anything is written.
    fn reserve(&self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Writes both pieces, one after the other, without a copy.
    fn write(&self, file: &mut Self::File, head: &[u8], rest: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Flushes everything on the filesystem.
    fn sync_all(&self) -> io::Result<()>;
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a directory if it is empty.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// What a directory holds; nothing, if it is not there.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// A whole file, if it can be a picture's: see [`careful::read`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Itself, not through a link.
    fn is_dir(&self, path: &Path) -> bool;
    fn is_file(&self, path: &Path) -> bool;
    /// Something that is no directory stands where one should be.
    fn in_the_way(&self, dir: &Path) -> bool;
}

/// The data directory.
pub struct DataDir {
    root: PathBuf,
    /// Open since before anything was written: a flush through it reports every error from then on.
    handle: File,
    /// Whether syncfs flushes us alone, and says so if it could not.
    pub whole: bool,
}

impl DataDir {
    pub fn open(root: &Path) -> io::Result<Self> {
        let whole = own_mount(root) && kernel_reports_syncfs_errors();
        Ok(Self { root: root.to_owned(), handle: File::open(root)?, whole })
    }
}

impl Files for DataDir {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::open(self.root.join(path), flags, Mode::from_raw_mode(0o640))?))
    }

    fn reserve(&self, file: &File, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn write(&self, file: &mut File, head: &[u8], rest: &[u8]) -> io::Result<()> {
        let mut pieces = [IoSlice::new(head), IoSlice::new(rest)];
        let mut left = &mut pieces[..];
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut left, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data().inspect(|()| answered())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(self.root.join(dir))?.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.handle)?)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(self.root.join(dir))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(self.root.join(dir))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.root.join(path)).inspect(|()| answered())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(self.root.join(dir)) {
            Ok(entries) => entries.map(|e| e.map(|e| dir.join(e.file_name()))).collect(),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        careful::read(&self.root.join(path)).inspect(|_| answered())
    }

    fn is_dir(&self, path: &Path) -> bool {
        careful::is_dir(&self.root.join(path))
    }

    fn is_file(&self, path: &Path) -> bool {
        careful::is_file(&self.root.join(path))
    }

    fn in_the_way(&self, dir: &Path) -> bool {
        careful::in_the_way(&self.root.join(dir))
    }
}

fn own_mount(dir: &Path) -> bool {
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).ok();
    dir.canonicalize().ok().and_then(|d| d.parent().map(Path::to_owned)).is_some_and(|parent| device(&parent) != device(dir))
}

/// Before Linux 5.8 syncfs swallowed other files' write errors.
fn kernel_reports_syncfs_errors() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map_while(|p| p.parse::<u32>().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (5, 8)
}

#[cfg(test)]
pub mod tests;
