//! What goes and what stays, from outside: floors, foreign files, pins, erasures, disks that are not mounted, disks that fill up.

#[path = "rig/disk.rs"]
mod disk;
#[path = "rig/agent.rs"]
mod rig;

use disk::{Disk, skipped};
use rig::{Node, now_ms, text, wait_for};
use rustix::fs::{FallocateFlags, fallocate};
use shutterd::api::{EraseAnswer, ListAnswer};
use shutterd::model::{Outcome, Skipped};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Pictures of about 1.5 MB.
const LARGE: &str = "[cameras.large]\nsource = \"pattern:?size=1920x1080&noise=60\"\nquality = 95\n[schedules.large-1s]\ncamera = \"large\"\nevery = \"1s\"\n";
const SMALL: &str = "[cameras.small]\nsource = \"pattern:?size=160x120\"\n[schedules.small-1s]\ncamera = \"small\"\nevery = \"1s\"\n";
const MIB: u64 = 1 << 20;

/// Somebody else's file takes all but so much of the free space.
fn fill(disk: &Path, name: &str, leave: u64) -> std::path::PathBuf {
    let (file, free) = (disk.join(name), free(disk));
    fallocate(File::create(&file).unwrap(), FallocateFlags::empty(), 0, free.saturating_sub(leave).max(1)).unwrap();
    file
}

fn free(disk: &Path) -> u64 {
    rustix::fs::statvfs(disk).map(|s| s.f_bavail * s.f_frsize).unwrap()
}

fn run(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().is_ok_and(|o| o.status.success())
}

#[test]
fn a_floor_is_kept_by_old_pictures_and_somebody_elses_file_is_named_and_does_not_take_them_all() {
    let node = Node::new("floor");
    let Some(disk) = Disk::ext4(&node.data, 64) else { return };
    node.configure(&(LARGE.to_owned() + "[keep]\nfree = \"20 MiB\"\n"));
    let agent = node.start();
    let first = || node.pictures().snapshots.last().map(|row| row.id);
    node.wait_for_pictures("large", 8);
    let oldest = first();
    fill(&disk.at, "half", 24 * MIB);
    wait_for("old pictures to go", || first() != oldest);
    node.wait_for_pictures("large", 3);
    assert!(free(&disk.at) >= 17 * MIB, "{} are free", free(&disk.at));
    assert_eq!(node.status().alarms, [""; 0]);
    let before = node.pictures().snapshots.len();

    // Far more than pictures could give.
    let foreign = fill(&disk.at, "foreign", 4 * MIB);
    wait_for("the alarm", || node.status().alarms.iter().any(|a| a.contains("something other than pictures fills the disk")));
    node.wait_for_pictures("large", 3);
    let after = node.pictures().snapshots.len();
    assert!(after * 2 >= before, "{before} pictures before, {after} after");
    assert!(text(&node.command(&["status"]).stdout).contains("ALARM: something other than pictures"));
    assert_eq!(node.logged("something other than pictures"), 1, "told once");
    std::fs::remove_file(foreign).unwrap();
    wait_for("the alarm to end", || node.status().alarms.is_empty());
    assert_eq!(node.logged("that is over"), 1);
    assert!(agent.stop().0.success());
}

#[test]
fn pins_and_erasures_by_command() {
    let node = Node::new("pins");
    node.configure(&(SMALL.to_owned() + &SMALL.replace("small", "other") + "[keep]\ncount = 10\n"));
    let agent = node.start();
    node.wait_for_pictures("small", 2);
    let ids = |camera: &str| -> Vec<_> {
        node.pictures().snapshots.into_iter().filter(|r| r.camera.as_str() == camera).map(|r| r.id.to_string()).collect()
    };
    let pinned = ids("small").pop().unwrap();
    let said = node.command(&["pin", &pinned]);
    assert_eq!(text(&said.stdout).trim(), format!("{pinned} is pinned"));
    node.wait_for_pictures("small", 10);
    assert!(ids("small").contains(&pinned) && node.pictures().snapshots.len() <= 10);
    let listed = text(&node.command(&["ls"]).stdout);
    assert_eq!(listed.lines().filter(|line| line.ends_with("pinned")).count(), 1, "{listed}");
    assert!(text(&node.command(&["status"]).stdout).contains("1 of them pinned"));
    let unknown = node.command(&["pin", "00c0ffee00c0ffee-42"]);
    assert_eq!((unknown.status.code(), text(&unknown.stderr).contains("no such picture")), (Some(1), true));

    let slot_ms = now_ms() - 1_000;
    let asked = node.command(&["erase", "small"]);
    assert_eq!(asked.status.code(), Some(2), "not without a yes");
    assert!(text(&asked.stderr).contains("say --yes to do it"), "{}", text(&asked.stderr));
    assert!(ids("small").contains(&pinned));
    let before = ids("small");
    let done = node.command(&["erase", "small", "--yes", "--json"]);
    let answer: EraseAnswer = serde_json::from_slice(&done.stdout).unwrap();
    assert!(answer.erasure.unwrap().done && answer.erasure.unwrap().removed >= before.len() as u64);
    assert!(ids("small").iter().all(|id| !before.contains(id)), "the pinned one too");
    assert!(!ids("other").is_empty());
    let explained = text(&node.command(&["explain", "small-1s", &at(slot_ms)]).stdout);
    assert!(explained.contains("captured as") && explained.contains("erased on request of"), "{explained}");
    node.wait_for_pictures("small", 1);
    assert!(agent.stop().0.success());
}

fn at(wall_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(wall_ms).unwrap().to_rfc3339()
}

#[test]
fn a_disk_that_is_not_mounted_is_waited_for_and_nothing_is_written_below_it() {
    let node = Node::new("unmounted");
    let rule = format!("require_mount = \"{}\"\n", node.data.display());
    node.configure(&(rule + SMALL));
    std::fs::create_dir_all(&node.data).unwrap();
    let mut agent = node.start();
    let says = format!("the disk at {} is not mounted", node.data.display());
    assert!(node.status().fault.unwrap_or_default().starts_with(&says), "{:?}", node.status().fault);
    assert_eq!(std::fs::read_dir(&node.data).unwrap().count(), 0, "nothing is made on the disk below");
    let Some(disk) = Disk::ext4(&node.data, 32) else { return };
    wait_for("the disk", || node.status().fault.is_none());
    node.wait_for_pictures("small", 2);

    // Somebody pulls it while it is in use.
    assert!(run("umount", &["-l", &disk.at.display().to_string()]));
    assert_eq!(agent.ended().code(), Some(75));
    assert!(node.log().contains(&format!("the disk at {} is not mounted any more", node.data.display())));
    assert_eq!(std::fs::read_dir(&node.data).unwrap().count(), 0, "no picture went to the disk below");
    let agent = node.start();
    assert!(node.status().fault.unwrap_or_default().starts_with(&says));
    assert!(agent.stop().0.success());
}

#[test]
fn the_root_filesystem_is_no_disk_of_its_own() {
    let node = Node::new("onroot");
    node.configure(&("require_mount = true\n".to_owned() + SMALL));
    let agent = node.start();
    let other = rustix::fs::stat(&node.root).unwrap().st_dev != rustix::fs::stat("/").unwrap().st_dev;
    assert_eq!(node.status().fault.is_none(), other);
    assert!(agent.stop().0.success());
}

#[test]
fn a_disk_that_turns_read_only_ends_the_agent_and_gives_all_back_when_it_is_mounted_again() {
    let node = Node::new("turned");
    let Some(disk) = Disk::ext4(&node.data, 32) else { return };
    // While it is not mounted, nothing is written below it.
    node.configure(&format!("require_mount = true\n{SMALL}"));
    let mut agent = node.start();
    node.wait_for_pictures("small", 2);
    let before = node.pictures().snapshots;
    let source = Command::new("findmnt").args(["-no", "SOURCE", &disk.at.display().to_string()]).output().map(|o| text(&o.stdout));
    let device = source.unwrap_or_default().trim().trim_start_matches("/dev/").to_owned();
    let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
    // As the kernel does it when a disk fails.
    if !disk.remount("errors=remount-ro") || std::fs::write(&trigger, "broken").is_err() {
        return skipped("an ext4 cannot be told here to find an error");
    }
    assert_eq!(agent.ended().code(), Some(75));
    let agent = node.start();
    assert!(node.status().fault.unwrap_or_default().contains("mounted read-only"), "{:?}", node.status().fault);
    wait_for("the disk to be mounted again", || disk.mount_again());
    wait_for("the store", || node.status().fault.is_none());
    node.wait_for_pictures("small", 1);
    let after: Vec<_> = node.pictures().snapshots.into_iter().map(|row| row.id).collect();
    assert!(before.iter().all(|row| after.contains(&row.id)), "every picture of before");
    assert!(agent.stop().0.success());
    let looked = node.command(&["fsck"]);
    assert!(looked.status.success(), "{}", text(&looked.stdout));
}

/// The short form of an hour: every slot of it has its reason, although not a block was free.
#[test]
fn a_disk_that_is_full_to_the_last_block_for_long_still_records_why_and_is_over_when_there_is_room() {
    let node = Node::new("hour");
    let Some(disk) = Disk::ext4(&node.data, 48) else { return };
    node.configure(SMALL);
    let mut agent = node.start();
    node.wait_for_pictures("small", 2);
    fill(&disk.at, "most", 0);
    // What fallocate rounds away, and what is for root.
    let _ = std::fs::write(disk.at.join("rest"), vec![0; 32 << 20]);
    wait_for("the verdict", || node.error_of("small").as_deref() == Some("full"));
    let begun_ms = now_ms();
    let failed = || node.status().cameras.values().map(|c| c.failed).sum::<u64>();
    let more = failed() + 12;
    wait_for("a dozen slots", || failed() >= more);
    // Longer than reasons wait for a picture's commit: they are in the index before the power goes.
    assert!(node.command(&["explain", "small-1s", &at(begun_ms)]).status.success());
    let full_until_ms = now_ms() - 2_000;
    agent.child.kill().unwrap();
    agent.ended();
    let agent = node.start();
    assert_eq!(node.status().fault, None);
    for slot_ms in (begun_ms..full_until_ms).step_by(1_000) {
        assert_eq!(node.outcome("small-1s", slot_ms), Some(Outcome::Skipped { reason: Skipped::Full }), "at {}", at(slot_ms));
    }
    for file in ["most", "rest"] {
        std::fs::remove_file(disk.at.join(file)).unwrap();
    }
    node.wait_for_pictures("small", 2);
    assert_eq!(node.status().alarms, [""; 0]);
    assert!(agent.stop().0.success());
    assert_eq!(node.logged("panicked"), 0);
}

#[test]
fn a_disk_without_inodes_is_full_and_a_floor_of_inodes_is_kept() {
    let node = Node::new("inodes");
    let Some(disk) = Disk::ext4(&node.data, 32) else { return };
    node.configure(&(SMALL.to_owned() + "[keep]\nfree_inodes = 40\n"));
    let agent = node.start();
    node.wait_for_pictures("small", 6);
    let inodes = || rustix::fs::statvfs(&disk.at).map(|s| s.f_favail).unwrap();
    let others = disk.at.join("others");
    std::fs::create_dir(&others).unwrap();
    let mut files = 0;
    let mut take = |leave: u64| {
        while inodes() > leave && File::create(others.join(files.to_string())).is_ok() {
            files += 1;
        }
    };
    take(44);
    let oldest = node.pictures().snapshots.last().unwrap().id;
    wait_for("old pictures to go", || node.pictures().snapshots.last().unwrap().id != oldest);
    node.wait_for_pictures("small", 3);
    assert!(inodes() >= 38, "{} inodes are free", inodes());
    take(0);
    wait_for("the verdict", || node.error_of("small").as_deref() == Some("full"));
    std::fs::remove_dir_all(&others).unwrap();
    node.wait_for_pictures("small", 2);
    assert_eq!(node.status().alarms, [""; 0]);
    assert!(agent.stop().0.success());
    assert_eq!(node.logged("panicked"), 0);
}

#[test]
fn a_disk_of_16_mib_is_used_as_far_as_it_goes() {
    let node = Node::new("tiny");
    let Some(_disk) = Disk::ext4(&node.data, 16) else { return };
    node.configure(&(LARGE.to_owned() + "[keep]\nfree = \"1 MiB\"\n"));
    let agent = node.start();
    wait_for("a picture or a reason", || node.taken("large") > 3 || !node.status().alarms.is_empty());
    let (status, list): (_, ListAnswer) = (node.status(), node.pictures());
    println!("16 MiB: {} pictures, {:?}", list.snapshots.len(), status.alarms);
    assert!(node.taken("large") > 3, "{:?}", status.alarms);
    assert!(agent.stop().0.success());
}
