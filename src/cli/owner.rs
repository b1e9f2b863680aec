//! Commands that work without an agent, run by root: they give up root's rights for those of the data directory's owner, so that no
//! file of root's is left behind that the agent could not touch, and no camera's bytes are decoded with root's rights.

use super::trouble::Trouble;
use std::{ffi::CString, os::unix::fs::MetadataExt, path::Path};

/// Root becomes the owner of the data directory, for good, with the groups that the owner has (cameras belong to `video`). Others stay
/// who they are, and so does root where the directory is root's.
pub fn become_owner(dir: &Path) -> Result<(), Trouble> {
    let about = std::fs::metadata(dir).map_err(|e| Trouble::failed(format!("there is no data directory {}: {e}", dir.display())))?;
    let (user, group) = (about.uid(), about.gid());
    if !rustix::process::geteuid().is_root() || user == 0 {
        return Ok(());
    }
    eprintln!("going on as user {user} and group {group}, whom {} belongs to", dir.display());
    let name = name_of(user);
    #[expect(unsafe_code, reason = "the C library's calls change all threads at once, which no safe function does")]
    // SAFETY: system calls on numbers and on a string that lives across its call; an empty list of groups is never read.
    let done = unsafe {
        let groups = match &name {
            Some(name) => libc::initgroups(name.as_ptr(), group),
            None => libc::setgroups(0, std::ptr::null()),
        };
        groups == 0 && libc::setgid(group) == 0 && libc::setuid(user) == 0
    };
    if done {
        return Ok(());
    }
    let why = std::io::Error::last_os_error();
    Err(Trouble::failed(format!("cannot become user {user}: {why}; run this as that user (sudo -u)")))
}

/// What the system's list of users calls a number.
fn name_of(user: u32) -> Option<CString> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&user.to_string()))?;
    CString::new(line.split(':').next()?).ok()
}
