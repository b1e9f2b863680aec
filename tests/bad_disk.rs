//! Data directories that cannot be used, from outside: full, read-only, on a filesystem that loses files, taken by another agent.
//!
//! The agent says so in words, stays up where it can, and goes on when the trouble is over.

#[path = "rig/disk.rs"]
mod disk;
#[path = "rig/agent.rs"]
mod rig;

use disk::{Disk, skipped};
use rig::{Node, now_ms, pause, text, wait_for};
use shutterd::model::{Off, Outcome, Skipped};
use std::os::unix::fs::MetadataExt;

const GOOD: &str = "[cameras.good]\nsource = \"pattern:?size=320x240\"\n[schedules.good-1s]\ncamera = \"good\"\nevery = \"1s\"\n";
/// Pictures of about 1.5 MB.
const LARGE: &str = "[cameras.large]\nsource = \"pattern:?size=1920x1080&noise=60\"\nquality = 95\n[schedules.large-2s]\ncamera = \"large\"\nevery = \"2s\"\n";

/// The agent is up, without a store, and says why.
fn assert_fault(node: &Node, why: &str) {
    let fault = node.status().fault.unwrap_or_default();
    assert!(fault.contains(why), "{fault}");
    assert!(text(&node.command(&["status"]).stdout).contains(&format!("FAULT: {fault}")));
    let snap = node.command(&["snap", "good", "-o", "-"]);
    assert_eq!(snap.status.code(), Some(1));
    assert!(text(&snap.stderr).contains("the store cannot be used"), "{}", text(&snap.stderr));
    assert_eq!(node.logged("no pictures until this is mended, trying again"), 1, "told once");
}

fn assert_mended(node: &Node) {
    wait_for("the store", || node.status().fault.is_none());
    node.wait_for_pictures("good", 2);
    assert_eq!(node.logged("the store can be used again"), 1);
}

#[test]
fn a_full_disk_skips_pictures_with_a_reason_and_goes_on_when_there_is_room() {
    let node = Node::new("full");
    let Some(disk) = Disk::ext4(&node.data, 64) else { return };
    node.configure(&(LARGE.to_owned() + "[keep]\nage = \"1h\"\n"));
    let mut agent = node.start();
    node.wait_for_pictures("large", 1);
    let filler = disk.at.join("filler");
    let free = rustix::fs::statvfs(&disk.at).map(|s| s.f_bavail * s.f_frsize).unwrap();
    let file = std::fs::File::create(&filler).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - (2 << 20)).unwrap();
    drop(file);
    wait_for("the disk to be full", || node.error_of("large").as_deref() == Some("full"));
    // Until two more slots have fallen due.
    let failed = |node: &Node| node.status().cameras.values().map(|c| c.failed).sum::<u64>();
    wait_for("more slots", || failed(&node) >= 3);
    assert_eq!(
        node.logged("the store is full: no pictures are taken until there is room; connect the hub, raise keep.bytes or make room"),
        1
    );
    assert_eq!(node.outcome("large-2s", now_ms() - 2_000), Some(Outcome::Skipped { reason: Skipped::Full }));
    let snap = node.command(&["snap", "large", "-o", "-"]);
    assert_eq!((snap.status.code(), text(&snap.stderr).contains("the store is full")), (Some(1), true), "{}", text(&snap.stderr));
    let before = node.pictures().snapshots;
    for row in &before {
        let copied = node.command(&["get", &row.id.to_string(), "-o", "-"]);
        assert_eq!(copied.stdout.len() as u64, row.bytes, "what was stored stays readable");
    }
    let on_disk = walk(&disk.at.join("snapshots"));
    assert_eq!(on_disk.len(), before.len(), "no picture without a row, no row without a picture");

    // Somebody takes the last block too, and the power goes: the index still has what it needs.
    let _ = std::fs::write(disk.at.join("filler2"), vec![0; 32 << 20]);
    agent.child.kill().unwrap();
    agent.ended();
    let agent = node.start();
    wait_for("the verdict", || node.error_of("large").as_deref() == Some("full"));
    std::fs::remove_file(&filler).unwrap();
    std::fs::remove_file(disk.at.join("filler2")).unwrap();
    node.wait_for_pictures("large", 2);
    assert_eq!(node.logged("the store has room again"), 1);
    assert_eq!(node.error_of("large"), None);
    assert!(agent.stop().0.success());
    assert_eq!(node.logged("panicked"), 0);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.into_iter().flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_read_only_disk_is_a_fault_in_words_and_is_over_when_it_is_writable() {
    let node = Node::new("readonly");
    let Some(disk) = Disk::ext4(&node.data, 32) else { return };
    node.configure(GOOD);
    let agent = node.start();
    node.wait_for_pictures("good", 2);
    assert!(agent.stop().0.success());
    assert!(disk.remount("ro"));
    let agent = node.start();
    let faulty_ms = now_ms();
    assert_fault(&node, "it is mounted read-only: the kernel does that when a disk fails; look at dmesg");
    pause(2_500);
    assert!(disk.remount("rw"));
    assert_mended(&node);
    assert_eq!(
        node.outcome("good-1s", faulty_ms + 2_000),
        Some(Outcome::Off { reason: Off::Storage }),
        "the time without a store is on record"
    );
    assert!(agent.stop().0.success());
}

#[test]
fn a_data_directory_that_is_no_directory_is_a_fault_in_words() {
    let node = Node::new("file");
    std::fs::write(&node.data, "a file").unwrap();
    node.configure(GOOD);
    let agent = node.start();
    assert_fault(&node, "store.dir must name a directory");
    std::fs::remove_file(&node.data).unwrap();
    assert_mended(&node);
    assert!(agent.stop().0.success());
    assert!(node.data.join("config.accepted.toml").exists(), "the configuration is kept although the directory came late");
}

#[test]
fn a_directory_of_somebody_else_is_a_fault_in_words() {
    let node = Node::new("other");
    if std::fs::metadata("/proc/self").map(|m| m.uid()).ok() != Some(0) || !immutable(&node.root.join("try"), true) {
        return skipped("only root can make a directory that root cannot write to (chattr +i)");
    }
    immutable(&node.root.join("try"), false);
    immutable(&node.data, true);
    node.configure(GOOD);
    let agent = node.start();
    assert_fault(&node, "give it to the user that runs shutterd (chown), or choose another store.dir");
    immutable(&node.data, false);
    assert_mended(&node);
    assert!(agent.stop().0.success());
}

fn immutable(dir: &std::path::Path, on: bool) -> bool {
    let _ = std::fs::create_dir_all(dir);
    let flag = if on { "+i" } else { "-i" };
    std::process::Command::new("chattr").arg(flag).arg(dir).output().is_ok_and(|o| o.status.success())
}

#[test]
fn vfat_is_refused_in_words() {
    let node = Node::new("vfat");
    node.configure(GOOD);
    let stick = Disk::mount(&node.data, "vfat", 32);
    let agent = if stick.is_some() {
        node.start()
    } else if std::process::Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success()) {
        // A kernel without vfat: its first answer about the filesystem is made to name MSDOS_SUPER_MAGIC.
        node.start_with_fault("statfs:poke_exit=@arg2=444d000000000000:when=1")
    } else {
        return skipped("vfat needs root, mkfs.vfat and a kernel that knows it, or strace");
    };
    assert_fault(&node, "is on vfat, which cannot keep pictures safe over a power cut; use ext4 or f2fs");
    drop(stick);
    assert_mended(&node);
    assert!(agent.stop().0.success());
}

#[test]
fn a_second_agent_on_a_directory_says_who_has_it_and_disturbs_nobody() {
    let node = Node::new("two");
    node.configure(GOOD);
    let mut agent = node.start();
    node.wait_for_pictures("good", 1);
    let second = node.command(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    let line = format!(
        "the data directory {} is in use by another shutterd (process {}); stop that one, or give this one a store.dir of its own",
        node.data.display(),
        agent.child.id()
    );
    assert!(text(&second.stderr).contains(&line), "{}", text(&second.stderr));
    assert!(!text(&second.stderr).contains("trying again"), "it does not");
    assert!(node.command(&["status"]).status.success(), "the first one's socket is still its own");
    node.wait_for_pictures("good", 2);
    assert!(agent.runs());
    assert!(agent.stop().0.success());
}

#[test]
fn commands_without_an_agent_say_how_to_start_one() {
    let node = Node::new("none");
    node.configure(GOOD);
    for words in [&["status"][..], &["ls"], &["explain", "good-1s", "12:00"]] {
        let asked = node.command(words);
        assert_eq!(asked.status.code(), Some(1));
        assert!(text(&asked.stderr).contains("no agent can be reached") && text(&asked.stderr).contains("start it with `shutterd run`"));
    }
}
