//! What the disk has, and whether it is still the one that was opened.

use crate::config::settings::Mount;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Room on the filesystem of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub total_bytes: u64,
    /// For users other than root.
    pub free_bytes: u64,
    /// `None` where the filesystem makes them as needed.
    pub free_inodes: Option<u64>,
}

impl Disk {
    pub fn of(dir: &Path) -> io::Result<Self> {
        let disk = rustix::fs::statvfs(dir)?;
        let inodes = disk.f_favail.min(disk.f_ffree);
        Ok(Self {
            total_bytes: disk.f_blocks * disk.f_frsize,
            free_bytes: disk.f_bavail * disk.f_frsize,
            free_inodes: (disk.f_files > 0).then_some(inodes),
        })
    }
}

/// Whether what must be mounted is. Looks at no more than that: on the disk below, nothing is made.
/// # Errors
/// Where the disk is missing.
pub fn mounted(dir: &Path, wanted: &Mount) -> Result<(), PathBuf> {
    let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    // A data directory that does not exist yet will be made on the disk of the nearest one above it.
    let nearest = |path: &Path| path.ancestors().find_map(device);
    let (place, apart) = match wanted {
        Mount::NotRoot => (dir, nearest(dir) != device(Path::new("/"))),
        Mount::At(at) => (at.as_path(), device(at).is_some() && device(at) != at.parent().and_then(nearest)),
    };
    if apart { Ok(()) } else { Err(place.to_owned()) }
}

/// Whether the path still leads to the filesystem that an open file of ours lies on. After a lazy unmount the index goes on writing
/// to the old disk while new files would land on the one below: neither could be believed.
/// # Errors
/// What to say of it.
pub fn same_filesystem(dir: &Path, open: &File) -> Result<(), String> {
    let (ours, now) = (open.metadata(), fs::metadata(dir));
    match (ours, now) {
        (Ok(ours), Ok(now)) if ours.dev() == now.dev() => Ok(()),
        (Ok(_), Ok(_)) => Err(format!("the disk at {} is not mounted any more", dir.display())),
        (Err(e), _) | (_, Err(e)) => Err(format!("the disk at {} cannot be reached any more: {e}", dir.display())),
    }
}
