//! Disks for tests: small filesystems in loop files. They need root and loop devices; without, a test says so and passes,
//! except where `CI` is set.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A filesystem of its own, mounted; it goes with this value.
pub struct Disk {
    image: PathBuf,
    pub at: PathBuf,
}

impl Disk {
    /// An ext4, or `None` after saying so.
    pub fn ext4(at: &Path, mib: u64) -> Option<Self> {
        let disk = Self::mount(at, "ext4", mib);
        if disk.is_none() {
            skipped("a filesystem cannot be made and mounted here (that needs root, loop devices and mkfs.ext4)");
        }
        disk
    }

    /// Makes a filesystem of `mib` MiB with `mkfs.<kind>` and mounts it at `at`.
    pub fn mount(at: &Path, kind: &str, mib: u64) -> Option<Self> {
        let image = at.with_extension("img");
        let made = std::fs::File::create(&image).and_then(|file| file.set_len(mib << 20));
        std::fs::create_dir_all(at).unwrap();
        let (image_text, at_text) = (image.display().to_string(), at.display().to_string());
        let quiet = if kind == "ext4" { "-q" } else { "-v" };
        let ready = made.is_ok()
            && run(&format!("mkfs.{kind}"), &[quiet, &image_text])
            && run("mount", &["-o", "loop", "-t", kind, &image_text, &at_text]);
        if !ready {
            let _ = std::fs::remove_file(&image);
            return None;
        }
        Some(Self { image, at: at.to_owned() })
    }
    pub fn remount(&self, options: &str) -> bool {
        run("mount", &["-o", &format!("remount,{options}"), &self.at.display().to_string()])
    }
    /// Mounts it anew, as a start of the machine does.
    pub fn mount_again(&self) -> bool {
        let (image, at) = (self.image.display().to_string(), self.at.display().to_string());
        run("umount", &[&at]) && run("mount", &["-o", "loop", &image, &at])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.at.display().to_string()]);
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

pub fn skipped(why: &str) {
    eprintln!("\n*** SKIPPED: {why}\n");
    assert!(std::env::var_os("CI").is_none(), "{why}");
}
