//! Tells when devices come, by inotify on `/dev`: nothing ticks, and no udev library is needed.
//!
//! udev makes the directories of its links when the first camera comes, so they are watched as soon as they are there.

use crate::clock::Deadline;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use std::{io, os::fd::OwnedFd};

const WATCHED: [&str; 4] = ["/dev", "/dev/v4l", "/dev/v4l/by-id", "/dev/v4l/by-path"];

pub struct Plugs {
    fd: OwnedFd,
}

impl Plugs {
    /// Tells of what comes from now on.
    /// # Errors
    /// The kernel has no watch left (fs.inotify.max_user_instances).
    pub fn watch() -> io::Result<Self> {
        let plugs = Self { fd: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)? };
        plugs.refresh();
        Ok(plugs)
    }

    /// True if something came, or changed its permissions, since this was last asked.
    pub fn news(&self) -> bool {
        let (mut buffer, mut any) = ([0; 4096], false);
        while matches!(rustix::io::read(&self.fd, &mut buffer), Ok(1..)) {
            any = true;
        }
        if any {
            self.refresh();
        }
        any
    }

    /// Waits for news, not past `until`; true if there are some.
    /// # Errors
    /// The kernel's.
    pub fn wait(&self, until: Deadline) -> io::Result<bool> {
        loop {
            if self.news() {
                return Ok(true);
            }
            let left = until.left();
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos() as _ };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Watching what is watched already changes nothing.
    fn refresh(&self) {
        for dir in WATCHED {
            // A directory that is not there yet is seen to come in the one above.
            let _ = inotify::add_watch(&self.fd, dir, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_node_that_comes_is_told_at_once_and_silence_ends_in_time() {
        let plugs = Plugs::watch().unwrap();
        // Others may change something in /dev as well, but not all the time.
        assert!((0..50).any(|_| !plugs.wait(Deadline::after(Duration::from_millis(20))).unwrap()), "no silence");
        let node = std::path::PathBuf::from(format!("/dev/shutterd-test-{}", std::process::id()));
        let made = std::thread::spawn({
            let node = node.clone();
            move || std::os::unix::fs::symlink("null", node)
        });
        let told = plugs.wait(Deadline::after(Duration::from_secs(5)));
        let made = made.join().unwrap();
        let _ = std::fs::remove_file(&node);
        if made.is_ok() {
            assert!(told.unwrap());
        } else {
            // Only root may make links in /dev.
            assert!(std::env::var_os("CI").is_none(), "skipped: /dev cannot be written");
            eprintln!("skipped: /dev cannot be written");
        }
    }
}
