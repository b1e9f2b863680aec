//! Reading a file that anybody may have put there: never through a link, never a device or a pipe, never more than a picture has.

use crate::model::PICTURE_BYTES_MAX;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// A picture with its two segments of self-description, each of at most 64 KiB.
const FILE_BYTES_MAX: u64 = PICTURE_BYTES_MAX as u64 + (128 << 10);

/// A whole file.
/// # Errors
/// `InvalidData` with the reason for what cannot be a picture; else what the disk says.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (file, bytes) = open(path)?;
    let mut whole = Vec::with_capacity(bytes as usize);
    file.take(FILE_BYTES_MAX).read_to_end(&mut whole)?;
    Ok(whole)
}

/// The beginning of a file, or all of it if it is shorter.
/// # Errors
/// As [`read`].
pub fn read_head(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let (file, bytes) = open(path)?;
    let mut head = Vec::with_capacity(bytes_max.min(bytes as usize));
    file.take(bytes_max as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    // A pipe without a writer would hold its reader up for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(refused("it is a symbolic link")),
        // A socket.
        Err(rustix::io::Errno::NXIO) => return Err(refused("it is not a regular file")),
        Err(e) => return Err(e.into()),
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(refused("it is larger than any picture"));
    }
    Ok((file, about.len()))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Whether something is a regular file, or a directory, itself: a link to one is not.
pub fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_file())
}
pub fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_dir())
}
/// Whether something that is no directory stands where one should be.
pub fn in_the_way(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| !about.is_dir())
}
