//! Names that look like pictures and are none, on a real directory.

use super::*;
use crate::model::{Quality, SnapshotId, Stamp};
use crate::store::blobs::{Blob, QUARANTINE};
use std::{fs, os::unix::fs::symlink};

/// A picture of a few small blocks: its row, its two pieces and its number. Different lives give one number different pictures.
pub fn picture(seq: u64, life: BootNo) -> (SnapRow, Vec<u8>, Vec<u8>, Seq) {
    let taken = Stamp { boot: life, boottime_ms: seq * 1_000, wall_ms: 0, quality: Quality::Saved, uncertainty_ms: None };
    let record = Record {
        v: crate::protocol::VERSION,
        node: "n".parse().unwrap(),
        id: SnapshotId { store: StoreId(7), seq: Seq(seq) },
        camera: "gate".parse().unwrap(),
        slots: vec![],
        taken,
        width: 8,
        height: 8,
        source: "s".into(),
        flags: vec![],
        mask: 0,
        config: "0".into(),
        sha256: String::new(),
        rev: 0,
        hash8: None,
    };
    let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &[seq as u8; 200], &[0xFF, 0xD9]].concat();
    let made = meta::compose(record, &jpeg).unwrap();
    let rest = jpeg[2..].to_vec();
    let row = row(&made.record, (made.head.len() + rest.len()) as u64, made.hash8, SnapState::Pending);
    (row, made.head, rest, Seq(seq))
}

struct Dir(PathBuf);
impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("shutterd-adopt-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("data")).unwrap();
        Self(dir)
    }
    fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(blobs: &mut Blobs, seq: u64) -> PathBuf {
    let (row, head, rest, seq) = picture(seq, 1);
    let path = path_of(&row.camera, seq, &row.taken);
    blobs.write(&[Blob { path: path.clone(), head: &head, rest: &rest }]).map_err(|e| format!("{e:?}")).unwrap();
    path
}

fn found(index: &Index, blobs: &mut Blobs) -> Vec<u64> {
    let mut change = Change::default();
    let adopted = adopt_newest(index, blobs, Seq(1), true, &mut change);
    assert!(adopted.is_ok(), "what lies there must not keep the agent from starting");
    change.snaps.into_iter().map(|((_, seq), _)| seq).collect()
}

#[test]
fn a_link_a_directory_or_a_pipe_with_a_pictures_name_is_left_alone_and_its_number_is_not_given() {
    let dir = Dir::new("names");
    let (index, mut blobs) = (Index::in_memory().unwrap(), Blobs::open(&dir.data()).unwrap());
    let paths: Vec<PathBuf> = (1..=5).map(|seq| write(&mut blobs, seq)).collect();
    assert_eq!(found(&index, &mut blobs), [1, 2, 3, 4, 5], "whole pictures without rows are adopted");
    let at = |n: usize| dir.data().join(&paths[n - 1]);
    // The second lies outside now, and a link leads there: whole, and with the right name.
    let outside = dir.0.join("outside.jpg");
    fs::rename(at(2), &outside).unwrap();
    symlink(&outside, at(2)).unwrap();
    fs::remove_file(at(3)).unwrap();
    fs::create_dir(at(3)).unwrap();
    fs::write(at(3).join("kept"), b"somebody's").unwrap();
    // Reading a pipe that nobody writes to would wait for ever.
    fs::remove_file(at(5)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at(5), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(found(&index, &mut blobs), [1, 4]);
    assert!(outside.exists() && at(2).is_symlink() && at(3).join("kept").exists() && at(5).exists());
    assert_eq!(fs::read_dir(dir.data().join(QUARANTINE)).unwrap().count(), 0);
    fs::create_dir_all(dir.data().join("snapshots/lost+found/0")).unwrap();
    fs::write(dir.data().join("snapshots/lost+found/0/9-boot1+1.jpg"), b"somebody's").unwrap();
    assert_eq!(blobs.highest().unwrap(), Some(Seq(5)), "a new picture never meets one of these names, and others are not looked into");
    // An erasure takes the link, not what it leads to, and stops at no directory.
    let strays = blobs.strays(&"gate".parse().unwrap(), 5, 99).unwrap();
    blobs.remove(&strays).unwrap();
    assert!(outside.exists() && !at(2).is_symlink() && at(3).join("kept").exists() && !at(1).exists());
}

#[test]
fn a_file_that_is_deleted_while_it_is_looked_at_is_no_fault() {
    let dir = Dir::new("gone");
    let (index, mut blobs) = (Index::in_memory().unwrap(), Blobs::open(&dir.data()).unwrap());
    let path = write(&mut blobs, 1);
    let listed = blobs.scan(Seq(1)).unwrap();
    assert_eq!(listed, [(Seq(1), path.clone())]);
    fs::remove_file(dir.data().join(&path)).unwrap();
    let (mut names, mut change) = (Names::of(&index).ok().unwrap(), Change::default());
    let looked = adopt_one(&index, &mut blobs, &mut names, (Seq(1), &path), SnapState::Pending, &mut change);
    assert!(matches!(looked, Ok(None)) && change.is_empty());
    // The same between reading it and moving it.
    blobs.quarantine(&path, 1).unwrap();
}

#[test]
fn a_full_quarantine_that_holds_a_directory_still_takes_the_next() {
    let dir = Dir::new("full");
    let (index, mut blobs) = (Index::in_memory().unwrap(), Blobs::open(&dir.data()).unwrap());
    fs::create_dir(dir.data().join(QUARANTINE).join("1-boot1+1.jpg")).unwrap();
    for seq in 2..=QUARANTINE_FILES_MAX as u64 + 3 {
        let path = dir.data().join(write(&mut blobs, seq));
        fs::write(path, b"torn").unwrap();
    }
    assert!(found(&index, &mut blobs).is_empty());
    let kept = fs::read_dir(dir.data().join(QUARANTINE)).unwrap().count();
    assert!(kept <= QUARANTINE_FILES_MAX + 1, "{kept}");
}
