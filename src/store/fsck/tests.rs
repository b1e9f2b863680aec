//! Damage made on purpose to a good store: each kind is named, and looking changes nothing.
use super::*;
use crate::clock::TestClock;
use crate::model::{Failure, Outcome, Quality, Seq, Slot, SnapshotId};
use crate::store::index::tables::*;
use crate::store::index::{BUILT, Built, Erasure, RETIMED, SYNCED, SnapRow, SnapState, Synced, Totals, row};
use crate::store::{Configure, Put, Rules, Store};
use redb::{ReadableTable, WriteTransaction};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;

struct Scratch(PathBuf);
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn slot(due_ms: u64) -> Slot {
    Slot { schedule: "s".parse().unwrap(), boot: 1, due_ms, plan_ms: None }
}

/// Pictures 1 to 3 are at the hub, 2 is pinned, 4 to 6 wait; a slot failed alone and two together. Returns the index as it was before
/// the last picture.
fn good(dir: &Path) -> Vec<u8> {
    let now = Reading { boottime_ms: 60_000, wall_ms: 1_790_000_000_000, quality: Quality::Ntp, uncertainty_ms: Some(0) };
    let place = Place { dir: dir.to_owned(), board: "board-1".into(), hub: true };
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let (store, _) = Store::open(&place, config, Arc::new(TestClock::new(now)), "boot-a").unwrap();
    let put = |n: u8| {
        let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &vec![n; 2_000], &[0xFF, 0xD9]].concat();
        let slots = if n == 5 { vec![] } else { vec![slot(1_000 * u64::from(n))] };
        let camera = "gate".parse().unwrap();
        store
            .put(Put {
                camera,
                slots,
                jpeg,
                width: 8,
                height: 8,
                taken_ms: 1_000 * u64::from(n),
                source: "pattern",
                flags: vec![],
                priority: Default::default(),
                window_ms: None,
            })
            .unwrap()
    };
    let stored: Vec<_> = (1..=5).map(put).collect();
    let have = stored[..3].iter().map(|s| (s.id.seq, s.hash8)).collect();
    assert_eq!(block(store.acknowledge(store.id(), have, 0)).unwrap(), (3, 0));
    block(store.pin(stored[1].id, true)).unwrap().unwrap();
    for due_ms in [20_000, 30_000, 31_000] {
        store.outcome(slot(due_ms), Outcome::Failed { reason: Failure::new(if due_ms < 30_000 { "a" } else { "b" }, "no") });
        block(store.flush()).unwrap();
        // Somebody has seen it: the next reason goes into a message of its own.
        store.gaps_after(0, 9).unwrap();
    }
    let before = fs::read(dir.join(INDEX)).unwrap();
    put(6);
    block(store.stop()).unwrap();
    drop(store);
    let lock = fs::File::open(dir.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    before
}

fn look_at(dir: &Path) -> Findings {
    loop {
        match fsck(dir, &mut Progress { show: &mut |_, _, _| {} }) {
            // A process that another test is just starting has a copy of the lock for a moment.
            Err(Trouble::Locked { .. }) => std::thread::yield_now(),
            found => return found.unwrap(),
        }
    }
}

/// Names, kinds, modes and contents of all that is there.
fn photograph(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt;
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        let about = entry.symlink_metadata().unwrap();
        let content = if about.is_file() { fs::read(&entry).unwrap() } else { Vec::new() };
        if about.is_dir() {
            all.extend(photograph(&entry));
        }
        all.insert(entry, (about.mode(), content));
    }
    all
}

fn file_of(dir: &Path, seq: u64) -> PathBuf {
    let bucket = dir.join("snapshots/gate/0");
    let mut all = fs::read_dir(bucket).unwrap().map(|e| e.unwrap().path());
    all.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{seq}-"))).unwrap()
}

fn edit(dir: &Path, change: impl FnOnce(&WriteTransaction)) {
    let index = Index::open(&dir.join(INDEX)).unwrap();
    let txn = index.begin().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

fn edit_row(dir: &Path, key: Key, change: impl FnOnce(&mut SnapRow)) {
    edit(dir, |txn| {
        let mut snaps = txn.open_table(SNAPS).unwrap();
        let mut snap: SnapRow = row(snaps.get(key).unwrap().unwrap().value()).unwrap();
        change(&mut snap);
        snaps.insert(key, postcard::to_stdvec(&snap).unwrap().as_slice()).unwrap();
    });
}

const ORD: u32 = 1 << 16;

type Damage = (&'static str, &'static str, fn(&Path));

macro_rules! insert {
    ($table:ident, $key:expr, $value:expr) => {
        |dir| edit(dir, |txn| drop(txn.open_table($table).unwrap().insert($key, $value).unwrap()))
    };
}
macro_rules! remove {
    ($table:ident, $key:expr) => {
        |dir| edit(dir, |txn| assert!(txn.open_table($table).unwrap().remove($key).unwrap().is_some()))
    };
}
macro_rules! meta {
    ($key:literal, $value:expr) => {
        |dir| edit(dir, |txn| put_meta(txn, $key, &$value).unwrap())
    };
}

macro_rules! value {
    ($name:literal, $value:expr) => {
        |dir| edit(dir, |txn| put_value(txn, $name, &$value).unwrap())
    };
}

/// What is done; which check must say what.
const DAMAGES: &[Damage] = &[
    ("index", "cannot be used", |dir| fs::OpenOptions::new().write(true).open(dir.join(INDEX)).unwrap().set_len(20_000).unwrap()),
    ("index", "it is empty", |dir| drop(fs::File::create(dir.join(INDEX)).unwrap())),
    ("index", "cannot be used", |dir| fs::write(dir.join(INDEX), vec![0x55; 100_000]).unwrap()),
    ("index", "cannot be used", |dir| {
        let mut bytes = fs::read(dir.join(INDEX)).unwrap();
        // All of its pages but the head.
        bytes[4_096..].iter_mut().step_by(512).for_each(|byte| *byte ^= 1);
        fs::write(dir.join(INDEX), bytes).unwrap();
    }),
    ("index", "there is none, but there are pictures", |dir| fs::remove_file(dir.join(INDEX)).unwrap()),
    ("index", "its format is 99", meta!("format", 99_u32)),
    ("store ids", "has no store id", remove!(STORES, ORD)),
    ("store ids", "stands for two incarnations", |dir| {
        edit(dir, |txn| {
            let mut stores = txn.open_table(STORES).unwrap();
            let own = stores.get(ORD).unwrap().unwrap().value();
            stores.insert(ORD - 1, own).unwrap();
        });
    }),
    ("store ids", "`next_seq` is missing", remove!(STATE, value_key("next_seq"))),
    ("store ids", "`next_gap` is missing", remove!(STATE, value_key("next_gap"))),
    ("store ids", "board", remove!(META, "board")),
    ("store ids", "boot 1 cannot be read", insert!(BOOTS, 1, &[0xFF_u8][..])),
    ("store ids", "is no schedule", insert!(STATE, cursor_key("../x"), &[0_u8][..])),
    ("times of boots", "`synced` of boot 1 cannot be read", insert!(STATE, boot_key(1, SYNCED), &[0xFF_u8][..])),
    ("times of boots", "`retimed` of boot 0 cannot be read", insert!(STATE, value_key(RETIMED), &[0xFF_u8][..])),
    ("times of boots", "belongs to boot 9, which has no row", |dir| {
        let built = postcard::to_stdvec(&Built { at_ms: 0, built_ms: 0 }).unwrap();
        edit(dir, |txn| drop(txn.open_table(STATE).unwrap().insert(boot_key(9, BUILT), built.as_slice()).unwrap()));
    }),
    ("times of boots", "by a clock that was not trusted", |dir| {
        let said = Synced { at_ms: 0, offset_ms: 0, quality: Quality::Saved, uncertainty_ms: None };
        let said = postcard::to_stdvec(&said).unwrap();
        edit(dir, |txn| drop(txn.open_table(STATE).unwrap().insert(boot_key(1, SYNCED), said.as_slice()).unwrap()));
    }),
    ("rows", "row cannot be read", insert!(SNAPS, (ORD, 4), &[0xFF_u8][..])),
    ("rows", "its store has no id", remove!(STORES, ORD)),
    ("rows", "its number will be given again", value!("next_seq", 6_u64)),
    ("rows", "missing among the pictures of camera gate", remove!(BY_CAMERA, ("gate", ORD, 4))),
    ("rows", "not among those to be sent", remove!(STATE, pending_key((1, ORD, 4)))),
    ("rows", "not among those to be sent", remove!(STATE, pending_key((0, ORD, 5)))),
    ("rows", "not among those the hub is to be asked about", |dir| edit_row(dir, (ORD, 4), |snap| snap.state = SnapState::Ask)),
    ("rows", "may be deleted but is not among those", remove!(FREE, ("gate", ORD, 1))),
    ("slots with a picture", "not on record as captured", remove!(OUTCOMES, ("s", 1, 4_000))),
    ("totals", "quotas go wrong", value!("totals", BTreeMap::<crate::model::CameraId, Totals>::new())),
    ("entries of lists", "among the pictures of camera gate", insert!(BY_CAMERA, ("gate", ORD, 77), ())),
    ("entries of lists", "among the pictures of camera door", insert!(BY_CAMERA, ("door", ORD, 4), ())),
    ("entries of lists", "among those to be sent", insert!(STATE, pending_key((1, ORD, 1)), &[][..])),
    ("entries of lists", "among those to be sent", insert!(STATE, pending_key((0, ORD, 4)), &[][..])),
    ("entries of lists", "among those the hub is asked about", insert!(ASK, (ORD, 4), ())),
    ("entries of lists", "among those that may be deleted", insert!(FREE, ("gate", ORD, 4), 1)),
    ("entries of lists", "among those that may be deleted", insert!(FREE, ("gate", ORD, 1), 1)),
    ("entries of lists", "among the pinned", insert!(PINS, (ORD, 77), 1)),
    ("entries of lists", "among the pinned", insert!(PINS, (ORD, 2), 1)),
    ("entries of lists", "among those that may be deleted", |dir| {
        // The pinned one.
        let bytes = fs::metadata(file_of(dir, 2)).unwrap().len();
        edit(dir, |txn| drop(txn.open_table(FREE).unwrap().insert(("gate", ORD, 2), bytes).unwrap()));
    }),
    ("outcomes of slots", "cannot be read", insert!(OUTCOMES, ("s", 1, 4_000), &[0xFF_u8][..])),
    ("outcomes of slots", "a number not given yet", |dir| {
        edit(dir, |txn| {
            let mut outcomes = txn.open_table(OUTCOMES).unwrap();
            let Outcome::Captured { id, .. } = row(outcomes.get(("s", 1, 4_000)).unwrap().unwrap().value()).unwrap() else { panic!() };
            let ahead = Outcome::Captured { id: SnapshotId { seq: Seq(7), ..id }, late_ms: 0 };
            outcomes.insert(("s", 1, 4_000), postcard::to_stdvec(&ahead).unwrap().as_slice()).unwrap();
        });
    }),
    ("outcomes of slots", "a store that this index does not know", |dir| {
        let strange = Outcome::Captured { id: SnapshotId { store: StoreId(7), seq: Seq(1) }, late_ms: 0 };
        edit(dir, |txn| {
            let bytes = postcard::to_stdvec(&strange).unwrap();
            txn.open_table(OUTCOMES).unwrap().insert(("s", 1, 4_000), bytes.as_slice()).unwrap();
        });
    }),
    ("outcomes of slots", "range of slots", insert!(RANGES, ("s", 1, 30_000), &[0xFF_u8][..])),
    ("days of the ledger", "captured: the days count 5, on record are 4", remove!(OUTCOMES, ("s", 1, 4_000))),
    ("days of the ledger", "failed: b: the days count 0, on record are 2", |dir| {
        edit(dir, |txn| txn.open_table(STATE).unwrap().retain_in(..part(CURSORS).start, |_, _| false).unwrap());
    }),
    ("days of the ledger", "cannot be read", insert!(STATE, day_key(0, 20_000, "s"), &[0xFF_u8][..])),
    ("messages of reasons for the hub", "message 2 is missing", remove!(GAPS, 2)),
    ("messages of reasons for the hub", "does not follow the last one", value!("next_gap", 9_u64)),
    ("messages of reasons for the hub", "message 2 cannot be read", insert!(GAPS, 2, &b"?"[..])),
    ("messages of reasons for the hub", "says that it is number 1", |dir| {
        edit(dir, |txn| {
            let mut gaps = txn.open_table(GAPS).unwrap();
            let first = gaps.get(1).unwrap().unwrap().value().to_vec();
            gaps.insert(2, first.as_slice()).unwrap();
        });
    }),
    ("deletions and erasures", "although it has a row", |dir| {
        let path = file_of(dir, 4).strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        edit(dir, |txn| drop(txn.open_table(GARBAGE).unwrap().insert(path.as_str(), ()).unwrap()));
    }),
    ("deletions and erasures", "no picture's place", insert!(GARBAGE, "/etc/passwd", ())),
    ("deletions and erasures", "was erased up to number 6", |dir| {
        let erasure = Erasure { upto: 6, asked_ms: 0, removed: 6, done: true };
        let bytes = postcard::to_stdvec(&erasure).unwrap();
        edit(dir, |txn| drop(txn.open_table(ERASURES).unwrap().insert("gate", bytes.as_slice()).unwrap()));
    }),
    ("pictures", "its file is gone", |dir| fs::remove_file(file_of(dir, 4)).unwrap()),
    ("pictures", "were stored", |dir| fs::OpenOptions::new().write(true).open(file_of(dir, 4)).unwrap().set_len(1_500).unwrap()),
    ("pictures", "SHA-256 does not match", |dir| {
        let mut bytes = fs::read(file_of(dir, 4)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file_of(dir, 4), bytes).unwrap();
    }),
    ("pictures", "its file is picture", |dir| assert!(fs::copy(file_of(dir, 1), file_of(dir, 4)).unwrap() > 0)),
    ("pictures", "is not the picture that was stored", |dir| edit_row(dir, (ORD, 4), |snap| snap.hash8.0 ^= 1)),
    ("pictures", "symbolic link", |dir| {
        let path = file_of(dir, 4);
        fs::rename(&path, dir.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.join("elsewhere"), path).unwrap();
    }),
    ("pictures", "not a regular file", |dir| {
        let path = file_of(dir, 4);
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }),
    ("pictures", "larger than any picture", |dir| {
        fs::OpenOptions::new().write(true).open(file_of(dir, 4)).unwrap().set_len(3 << 30).unwrap();
    }),
    ("files of pictures", "has no row", remove!(SNAPS, (ORD, 4))),
    ("files of pictures", "takes up room for nothing", |dir| fs::write(dir.join("snapshots/gate/0/2-boot1+1.jpg"), b"?").unwrap()),
];

/// What breaks no promise and is said all the same.
const ODDITIES: &[Damage] = &[
    ("deletions and erasures", "deletions that the next start finishes: 1", insert!(GARBAGE, "snapshots/gate/0/3-boot1+9.jpg", ())),
    ("files and directories", "not a picture's name", |dir| fs::write(dir.join("snapshots/gate/0/IMG_1.jpg"), b"?").unwrap()),
    ("files and directories", "no directory of pictures", |dir| std::os::unix::fs::symlink("/proc", dir.join("snapshots/proc")).unwrap()),
    ("files and directories", "no directory of pictures", |dir| fs::write(dir.join("snapshots/gate/notes"), b"?").unwrap()),
    ("files and directories", "a link, a directory or a device", |dir| fs::create_dir(dir.join("snapshots/gate/0/9-boot1+1.jpg")).unwrap()),
    ("files and directories", "everybody may change it", |dir| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file_of(dir, 4), fs::Permissions::from_mode(0o666)).unwrap();
    }),
    ("files and directories", "its owner may not use it", |dir| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file_of(dir, 4), fs::Permissions::from_mode(0o240)).unwrap();
    }),
    ("files of pictures", "in a place that is not its own", |dir| {
        fs::copy(file_of(dir, 4), dir.join("snapshots/gate/0/5-boot9+1.jpg")).unwrap();
    }),
    ("files of pictures", "puts it into quarantine", |dir| fs::write(dir.join("snapshots/gate/0/7-boot1+1.jpg"), b"?").unwrap()),
    ("files in quarantine", "keeps 32 at most", |dir| {
        (0..33).for_each(|n| fs::write(dir.join(format!("quarantine/{n}-boot1+1.jpg")), b"?").unwrap());
    }),
];

#[test]
fn each_damage_is_named_and_a_look_changes_nothing() {
    let scratch = Scratch(std::env::temp_dir().join(format!("shutterd-fsck-{}", std::process::id())));
    let _ = fs::remove_dir_all(&scratch.0);
    fs::create_dir_all(&scratch.0).unwrap();
    let whole = scratch.0.join("good");
    let older = good(&whole);
    let found = look_at(&whole);
    let complaints: Vec<_> = found.checks.iter().flat_map(|check| check.problems.iter().chain(&check.notes)).collect();
    assert_eq!(complaints, [""; 0], "a good store");
    assert_eq!(found.checks.iter().find(|check| check.of == "pictures").unwrap().count, 6);

    let (mut named, mut unnamed) = (0, Vec::new());
    let all = DAMAGES.iter().map(|damage| (damage, true)).chain(ODDITIES.iter().map(|damage| (damage, false)));
    for (number, ((of, words, damage), breaks)) in all.enumerate() {
        let dir = scratch.0.join(number.to_string());
        assert!(Command::new("cp").arg("-a").arg(&whole).arg(&dir).status().unwrap().success());
        damage(&dir);
        let before = photograph_small(&dir);
        let found = look_at(&dir);
        assert!(before == photograph_small(&dir), "looking at damage {number} ({words}) has changed something");
        let check = found.checks.iter().find(|check| check.of == *of);
        let said = check.map(|check| if breaks { &check.problems } else { &check.notes });
        if said.into_iter().flatten().any(|said| said.contains(words)) && (found.problems() > 0) == breaks {
            named += 1;
        } else {
            unnamed.push(format!("{of}: {words}, but: {:?}", found.checks.iter().flat_map(Check::lines).collect::<Vec<_>>()));
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!("damages made: {}, named: {named}", DAMAGES.len() + ODDITIES.len());

    assert!(unnamed.is_empty(), "not named:\n{}", unnamed.join("\n"));

    // What a crash between file and commit leaves is no damage.
    fs::write(whole.join(INDEX), older).unwrap();
    let found = look_at(&whole);
    assert_eq!(found.problems(), 0, "{found:#?}");
    let files = found.checks.iter().find(|check| check.of == "files of pictures").unwrap();
    assert!(files.notes[0].contains("the next start takes it in"), "{found:#?}");
}

/// A sparse file of gigabytes is known by its length.
fn photograph_small(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let large = fs::read_dir(dir.join("snapshots/gate/0")).unwrap().map(|e| e.unwrap().path());
    let large: Vec<_> = large.filter(|path| path.symlink_metadata().unwrap().len() > 1 << 30).collect();
    match large.as_slice() {
        [] => photograph(dir),
        _ => BTreeMap::from_iter(large.into_iter().map(|path| (path.clone(), (0, path.metadata().unwrap().len().to_le_bytes().to_vec())))),
    }
}

#[test]
fn a_look_at_a_newer_index_goes_no_further() {
    let scratch = Scratch(std::env::temp_dir().join(format!("shutterd-fsck-newer-{}", std::process::id())));
    let _ = fs::remove_dir_all(&scratch.0);
    good(&scratch.0);
    edit(&scratch.0, |txn| put_meta(txn, "format", &(FORMAT + 1)).unwrap());
    let found = look_at(&scratch.0);
    assert_eq!(found.problems(), 1, "its rows are not judged: {found:#?}");
}

#[test]
fn a_rebuild_takes_every_whole_picture_back_and_keeps_every_old_index() {
    let scratch = Scratch(std::env::temp_dir().join(format!("shutterd-fsck-rebuild-{}", std::process::id())));
    let _ = fs::remove_dir_all(&scratch.0);
    let dir = &scratch.0;
    good(dir);
    fs::write(dir.join("snapshots/gate/0/2-boot1+1.jpg"), b"?").unwrap();
    let place = Place { dir: dir.clone(), board: "board-1".into(), hub: true };
    let now = Reading { boottime_ms: 90_000, wall_ms: 1_790_000_030_000, quality: Quality::Ntp, uncertainty_ms: Some(0) };
    let mut stores = Vec::new();
    for kept in ["index.redb.bad", "index.redb.bad2"] {
        let damaged = fs::read(dir.join(INDEX)).unwrap();
        assert!(rebuild_in_words(dir, true).unwrap().contains(kept));
        let done = rebuild(&place, &now, "boot-a", &mut Progress { show: &mut |_, _, _| {} }).unwrap();
        assert_eq!((done.pictures, done.kept_as), (6, Some(dir.join(kept))));
        assert_eq!(fs::read(dir.join(kept)).unwrap(), damaged, "the old index is kept as it was");
        stores.push(done.store);
        assert_eq!(look_at(dir).problems(), 0, "{:#?}", look_at(dir));
    }
    assert_ne!(stores[0], stores[1], "a new incarnation each time");
    assert!(dir.join("quarantine/2-boot1+1.jpg").exists());
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let (store, past) = Store::open(&place, config, Arc::new(TestClock::new(now)), "boot-a").unwrap();
    assert!(past.rebuilt, "the agent accounts for what the lost index knew");
    assert_eq!((store.pending_totals().0, store.pending_after(None, 9).unwrap()), (6, vec![]), "the hub is asked first");
    block(store.stop()).unwrap();
}
