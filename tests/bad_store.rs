//! Data directories that somebody else has had a hand in: an index of a newer version, of another card, cut anywhere; things that are
//! named like pictures and are none.
//!
//! What must hold: the agent starts or says in words why not, never hangs, follows no link out of its directory, loses none of its own
//! pictures, and never uses a number twice.

#[path = "rig/agent.rs"]
mod rig;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rig::{Node, text, wait_for};
use shutterd::clock::SystemClock;
use shutterd::image::meta::{self, Meta};
use shutterd::model::{Seq, Slot, SnapshotId, StoreId};
use shutterd::store::{Configure, OpenError, Place, Put, Query, Rules, SnapState, Store};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const GOOD: &str = "[cameras.good]\nsource = \"pattern:?size=320x240\"\n[schedules.good-1s]\ncamera = \"good\"\nevery = \"1s\"\n";
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

struct Scratch(PathBuf);
impl Scratch {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn open(dir: &Path) -> Store {
    let place = Place { dir: dir.to_owned(), board: "board-1".into(), hub: true };
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    loop {
        match Store::open(&place, config.clone(), Arc::new(SystemClock), "boot-a") {
            // The writer before this one is still on its way out.
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap().0,
        }
    }
}

fn put(store: &Store, camera: &str, n: u64) -> SnapshotId {
    let slot = Slot { schedule: "s".parse().unwrap(), boot: store.boot(), due_ms: 1_000 * n, plan_ms: None };
    let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &n.to_le_bytes(), &[0xFF, 0xD9]].concat();
    let camera = camera.parse().unwrap();
    let put = Put {
        camera,
        slots: vec![slot],
        jpeg,
        width: 8,
        height: 8,
        taken_ms: 1_000 * n,
        source: "pattern",
        flags: vec![],
        priority: Default::default(),
        window_ms: None,
    };
    store.put(put).unwrap().id
}

/// Ends the store and waits until its writer has let go of everything.
fn close(dir: &Path, store: Store) {
    block(store.stop()).unwrap();
    drop(store);
    drop(lock(dir));
}

fn lock(dir: &Path) -> fs::File {
    let lock = fs::File::open(dir.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    lock
}

/// Waits until the pictures of a lost index are back.
fn settled(store: &Store, count: u64) {
    let mut news = store.news();
    while store.totals().0 < count {
        let change = async { tokio::time::timeout(rig::PATIENCE, news.changed()).await };
        block(change).unwrap_or_else(|_| panic!("{} of {count} pictures are back", store.totals().0)).unwrap();
    }
}

fn rows(store: &Store) -> BTreeMap<SnapshotId, SnapState> {
    let all = store.list(&Query { limit: 100_000, ..Query::default() }, None).unwrap();
    all.into_iter().map(|(id, row)| (id, row.state)).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path()) {
        if path.symlink_metadata().unwrap().is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn an_index_of_a_newer_version_is_refused_in_words_and_no_row_of_it_changes() {
    let node = Node::new("newer");
    node.configure(GOOD);
    let agent = node.start();
    node.wait_for_pictures("good", 3);
    assert!(agent.stop().0.success());
    let index = node.data.join("index.redb");
    let set_format = |format: u32| {
        let db = redb::Database::create(&index).unwrap();
        let txn = db.begin_write().unwrap();
        let bytes = postcard::to_stdvec(&format).unwrap();
        let was = txn.open_table(META).unwrap().insert("format", bytes.as_slice()).unwrap().unwrap().value().to_vec();
        txn.commit().unwrap();
        postcard::from_bytes::<u32>(&was).unwrap()
    };
    let own = set_format(99);
    let photograph = || -> Vec<_> {
        let pictures = files(&node.data.join("snapshots")).into_iter().map(|path| (path.clone(), fs::read(path).unwrap()));
        let db = redb::Database::open(&index).unwrap();
        let txn = db.begin_read().unwrap();
        let meta = txn.open_table(META).unwrap();
        let meta = meta.iter().unwrap().map(|e| e.map(|(k, v)| (PathBuf::from(k.value()), v.value().to_vec())).unwrap());
        pictures.chain(meta).collect()
    };
    let before = photograph();
    let mut agent = node.start();
    let fault = node.status().fault.unwrap_or_default();
    assert!(fault.contains("has format 99, this version reads up to") && fault.contains("install the newer version again"), "{fault}");
    assert!(agent.runs(), "it stays up to say so");
    let looked = node.command(&["fsck"]);
    assert_eq!(looked.status.code(), Some(1), "{}", text(&looked.stdout));
    assert!(agent.stop().0.success());
    assert!(before == photograph(), "rows and pictures are as they were");
    assert!(!node.data.join("index.redb.bad").exists() && !node.data.join("index.redb.old").exists());
    // The newer version again: all is there.
    set_format(own);
    let agent = node.start();
    assert_eq!(node.status().fault, None);
    assert!(node.pictures().snapshots.len() >= 3);
    assert!(agent.stop().0.success());
}

/// SplitMix64 (Steele and others 2014).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[test]
fn an_index_cut_anywhere_is_used_whole_or_rebuilt_whole() {
    const CUTS: u64 = 100;
    const PICTURES: u64 = 40;
    let scratch = Scratch::new("cut-index");
    let good = scratch.0.join("good");
    let store = open(&good);
    let own = store.id();
    let before: Vec<_> = (1..=PICTURES).map(|n| put(&store, "gate", n)).collect();
    close(&good, store);
    let index = fs::read(good.join("index.redb")).unwrap_or_default();
    let mut seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(shutterd::store::random_u64);
    eprintln!("SEED={seed}, an index of {} bytes", index.len());
    let (mut used, mut rebuilt) = (0, 0);
    for cut in 0..CUTS {
        // The ends, the first pages, and anywhere.
        let len = match cut {
            0 => 0,
            1 => index.len() as u64 - 1,
            2..20 => next(&mut seed) % 8_192,
            _ => next(&mut seed) % index.len() as u64,
        };
        let dir = scratch.0.join("cut");
        assert!(Command::new("cp").arg("-a").arg(&good).arg(&dir).status().unwrap().success());
        fs::write(dir.join("index.redb"), &index[..len as usize]).unwrap();
        let store = open(&dir);
        settled(&store, PICTURES);
        let now = rows(&store);
        assert_eq!(now.keys().copied().collect::<Vec<_>>(), before, "cut at {len}: every picture, under its own id");
        let kept = fs::read(dir.join("index.redb.bad")).ok();
        if store.id() == own {
            assert!(kept.is_none() && now.values().all(|state| *state == SnapState::Pending), "cut at {len}: used whole");
            used += 1;
        } else {
            assert!(now.values().all(|state| *state == SnapState::Ask), "cut at {len}: nothing is sent before the hub was asked");
            assert_eq!(kept.map_or(0, |kept| kept.len() as u64), len, "cut at {len}: the old one is kept");
            rebuilt += 1;
        }
        assert!(put(&store, "gate", 99).seq > before[before.len() - 1].seq);
        close(&dir, store);
        fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!("{CUTS} cuts: {used} used whole, {rebuilt} rebuilt, pictures lost 0");
    assert!(rebuilt > CUTS / 2);
}

#[test]
fn the_index_of_another_card_is_no_index_of_this_one() {
    let scratch = Scratch::new("other-card");
    let (own, other) = (scratch.0.join("own"), scratch.0.join("other"));
    let store = open(&other);
    let foreign = store.id();
    // More than here: its next number lies behind all of ours.
    let theirs: Vec<_> = (1..=30).map(|n| put(&store, "door", n)).collect();
    close(&other, store);
    let store = open(&own);
    let ours: Vec<_> = (1..=20).map(|n| put(&store, "gate", n)).collect();
    close(&own, store);
    fs::copy(other.join("index.redb"), own.join("index.redb")).unwrap();

    let store = open(&own);
    settled(&store, ours.len() as u64);
    let now = rows(&store);
    assert_eq!(now.keys().copied().collect::<Vec<_>>(), ours, "our own pictures under their own ids, and no row of the other card's");
    assert!(now.values().all(|state| *state == SnapState::Ask), "asked of the hub before any is sent");
    assert_eq!(store.pending_after(None, 9).unwrap(), [], "nothing wrong is sent");
    assert!(store.gaps_after(0, 9).unwrap().is_empty(), "the other card's pictures are not called lost: that card has them");
    assert!(own.join("index.redb.bad").exists());
    assert_ne!(store.id(), foreign, "both cards go on, so both need names of their own");
    let fresh = put(&store, "gate", 99);
    assert!(!ours.contains(&fresh) && !theirs.contains(&fresh));
    for id in &ours {
        assert!(store.read_picture(*id).unwrap().is_some());
    }
    close(&own, store);
    // Once, not at every start.
    let store = open(&own);
    assert_eq!(rows(&store).len(), 21);
    let id = store.id();
    close(&own, store);
    let store = open(&own);
    assert_eq!(store.id(), id);
    close(&own, store);
}

#[test]
fn an_old_copy_of_the_own_index_reports_what_is_gone_and_takes_in_what_it_does_not_know() {
    let scratch = Scratch::new("old-copy");
    let dir = scratch.0.join("data");
    let store = open(&dir);
    let first: Vec<_> = (1..=10).map(|n| put(&store, "gate", n)).collect();
    close(&dir, store);
    let old = fs::read(dir.join("index.redb")).unwrap();
    let store = open(&dir);
    let own = store.id();
    let later: Vec<_> = (11..=20).map(|n| put(&store, "gate", n)).collect();
    close(&dir, store);
    fs::write(dir.join("index.redb"), old).unwrap();
    let gone = files(&dir.join("snapshots")).into_iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("3-")).unwrap();
    fs::remove_file(gone).unwrap();
    let store = open(&dir);
    assert_eq!(store.id(), own, "it is ours");
    assert_eq!(rows(&store).into_keys().collect::<Vec<_>>(), [&first[..], &later].concat());
    assert!(store.read_picture(first[2]).unwrap().is_none());
    block(store.flush()).unwrap();
    assert_eq!(rows(&store)[&first[2]], SnapState::Corrupt);
    let told = store.gaps_after(0, 9).unwrap().into_iter().map(|(_, json)| text(&json)).collect::<String>();
    assert!(told.contains(&first[2].to_string()), "reported as lost: {told}");
    assert!(put(&store, "gate", 99).seq > later[9].seq);
}

/// A picture file of anybody's making, in the place that its record names.
fn forge(dir: &Path, change: impl FnOnce(&mut shutterd::protocol::Record)) -> PathBuf {
    let second = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("2-");
    let original = files(&dir.join("snapshots/gate/0")).into_iter().find(second).unwrap();
    let Meta { mut record, .. } = meta::read(&fs::read(original).unwrap()).unwrap();
    change(&mut record);
    let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &[9; 100], &[0xFF, 0xD9]].concat();
    let made = meta::compose(record, &jpeg).unwrap();
    let r = &made.record;
    let name = format!("{}-boot{}+{}.jpg", r.id.seq, r.taken.boot, r.taken.boottime_ms / 1_000);
    let dated = chrono::DateTime::from_timestamp_millis(r.taken.wall_ms).filter(|_| r.taken.quality.trusted());
    let name = dated.map_or(name, |utc| format!("{}-{}.jpg", r.id.seq, utc.format("%Y%m%dT%H%M%SZ")));
    let path = dir.join(format!("snapshots/{}/{}/{name}", r.camera, r.id.seq.0 / 1_000));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, [&made.head[..], &jpeg[2..]].concat()).unwrap();
    path
}

/// Peak of this process's resident memory, KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn nothing_that_lies_among_the_pictures_can_hang_mislead_or_lead_out() {
    let scratch = Scratch::new("among");
    let (dir, outside) = (scratch.0.join("data"), scratch.0.join("outside"));
    // What a link could lead to: a torn picture and a foreign file, neither of which may move.
    fs::create_dir_all(outside.join("0")).unwrap();
    fs::write(outside.join("0/700-boot1+1.jpg"), b"torn").unwrap();
    fs::write(outside.join("reserve"), b"precious").unwrap();
    for lost_index in [false, true] {
        let _ = fs::remove_dir_all(&dir);
        let store = open(&dir);
        let own_store = store.id();
        let own: Vec<_> = (1..=20).map(|n| put(&store, "gate", n)).collect();
        close(&dir, store);
        let bucket = dir.join("snapshots/gate/0");
        let link = |to: &str, at: PathBuf| symlink(to, at).unwrap();
        // Links: to a file, to a directory, out, in a circle, to a device.
        link("../../../index.redb", bucket.join("101-boot1+1.jpg"));
        link("..", bucket.join("102-boot1+1.jpg"));
        link("/etc/passwd", bucket.join("103-boot1+1.jpg"));
        link("104-boot1+1.jpg", bucket.join("104-boot1+1.jpg"));
        link("/dev/zero", bucket.join("105-boot1+1.jpg"));
        link("/nowhere", bucket.join("106-boot1+1.jpg"));
        link(outside.to_str().unwrap(), dir.join("snapshots/out"));
        link(".", dir.join("snapshots/loop"));
        link("/proc", dir.join("snapshots/proc"));
        link(outside.join("0").to_str().unwrap(), dir.join("snapshots/gate/7"));
        // Kinds: pipes, sockets, directories, and one that claims gigabytes.
        assert!(
            Command::new("mkfifo")
                .arg(bucket.join("110-boot1+1.jpg"))
                .arg(dir.join("quarantine/3-boot1+1.jpg"))
                .status()
                .unwrap()
                .success()
        );
        let _socket = std::os::unix::net::UnixListener::bind(bucket.join("111-boot1+1.jpg")).unwrap();
        fs::create_dir(bucket.join("112-boot1+1.jpg")).unwrap();
        fs::create_dir(bucket.join("113-boot1+1.jpg")).unwrap();
        fs::create_dir(dir.join("quarantine/113-boot1+1.jpg")).unwrap();
        fs::File::create(bucket.join("114-boot1+1.jpg")).unwrap().set_len(3 << 30).unwrap();
        // A name for which quarantine has a directory already; an empty file; names that are none of ours.
        fs::create_dir(dir.join("quarantine/115-boot1+1.jpg")).unwrap();
        for name in
            ["115-boot1+1.jpg", "116-boot1+1.jpg", "IMG_0001.jpg", "18446744073709551615-x.jpg", "117.jpg", "-x.jpg", "\u{1b}[2J-x.jpg"]
        {
            fs::write(bucket.join(name), b"").unwrap();
        }
        // Where the agent writes for itself.
        fs::remove_file(dir.join("reserve")).unwrap();
        link(outside.join("reserve").to_str().unwrap(), dir.join("reserve"));
        // Records that prove themselves and lie: a number beyond belief, a slot at the end of time, another node's picture, the
        // number of a picture of ours, another camera's place.
        let beyond = forge(&dir, |r| r.id.seq = Seq(u64::MAX - 1));
        let time = forge(&dir, |r| {
            (r.id.seq, r.taken.boottime_ms) = (Seq(120), u64::MAX - 1);
            r.slots.iter_mut().for_each(|slot| (slot.due_ms, slot.plan_ms) = (i64::MAX as u64, Some(i64::MIN)));
        });
        let node = forge(&dir, |r| (r.id, r.node) = (SnapshotId { store: StoreId(7), seq: Seq(121) }, "elsewhere".parse().unwrap()));
        let again = forge(&dir, |r| (r.id.seq, r.taken.boottime_ms) = (own[4].seq, r.taken.boottime_ms + 5_000));
        let again = fs::rename(&again, bucket.join("5-boot1+77.jpg")).map(|()| bucket.join("5-boot1+77.jpg")).unwrap();
        let misplaced = forge(&dir, |r| r.id.seq = Seq(122));
        fs::create_dir_all(dir.join("snapshots/door/0")).unwrap();
        let misplaced = {
            let to = dir.join("snapshots/door/0").join(misplaced.file_name().unwrap());
            fs::rename(misplaced, &to).unwrap();
            to
        };
        if lost_index {
            fs::write(dir.join("index.redb"), b"lost").unwrap();
        }
        let before_kib = peak_kib();
        let store = open(&dir);
        settled(&store, 21);
        let now = rows(&store);
        let strangers: Vec<_> = now.keys().filter(|id| !own.contains(id)).copied().collect();
        assert_eq!(strangers, [SnapshotId { store: StoreId(7), seq: Seq(121) }], "a whole picture in its own place, under its own name");
        assert!(own.iter().all(|id| now.contains_key(id) && store.read_picture(*id).unwrap().is_some()), "our own are unharmed");
        let state = if lost_index { SnapState::Ask } else { SnapState::Pending };
        assert!(own.iter().all(|id| now[id] == state));
        for (left, what) in [(&beyond, "beyond belief"), (&again, "a second of one number"), (&misplaced, "not its own place"), (&node, "")]
        {
            assert!(left.exists(), "{what} is left alone");
        }
        assert!(!time.exists() && dir.join("quarantine").join(time.file_name().unwrap()).exists(), "no agent wrote that");
        for left in [101, 102, 103, 104, 105, 106, 110, 111, 112, 113, 115] {
            assert!(bucket.join(format!("{left}-boot1+1.jpg")).symlink_metadata().is_ok(), "{left} is left alone");
        }
        for torn in [114, 116] {
            assert!(dir.join(format!("quarantine/{torn}-boot1+1.jpg")).symlink_metadata().is_ok(), "{torn} is put aside");
        }
        assert_eq!(fs::read(outside.join("0/700-boot1+1.jpg")).unwrap(), b"torn", "nothing outside is moved");
        assert_eq!(fs::read(outside.join("reserve")).unwrap(), b"precious", "or written to");
        let fresh = put(&store, "gate", 99);
        assert!(fresh.seq > Seq(122) && fresh.seq < Seq(1_000), "numbers go on behind all that were seen: {fresh}");
        assert_eq!(store.id() == own_store, !lost_index);
        // An erasure reads what quarantine has, pipes too, and finds a directory in a picture's place.
        let last = files(&bucket).into_iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("20-")).unwrap();
        fs::remove_file(&last).unwrap();
        fs::create_dir(&last).unwrap();
        for camera in ["door", "gate"] {
            block(store.erase(&camera.parse().unwrap())).unwrap();
            wait_for("the erasure", || store.erasure(&camera.parse().unwrap()).0.is_some_and(|e| e.done));
        }
        assert!(store.fault().borrow().is_none() && last.is_dir());
        close(&dir, store);
        let grown = peak_kib() - before_kib;
        eprintln!("index lost: {lost_index}; memory grew by {grown} KiB beside a file of 3 GiB");
        assert!(grown < 200 << 10);
        let looked = fsck(&dir);
        assert!(looked.contains("left alone") && !looked.contains("\u{1b}"), "{looked}");
    }
}

/// What the real `shutterd fsck` says of a directory.
fn fsck(dir: &Path) -> String {
    let config = dir.with_extension("toml");
    fs::write(&config, format!("[node]\nid = \"n1\"\n[store]\ndir = \"{}\"\n", dir.display())).unwrap();
    text(&Command::new(env!("CARGO_BIN_EXE_shutterd")).arg("-c").arg(config).arg("fsck").output().unwrap().stdout)
}

#[test]
fn an_index_that_is_no_file_is_put_aside() {
    let scratch = Scratch::new("no-file");
    let dir = scratch.0.join("data");
    let store = open(&dir);
    let own: Vec<_> = (1..=3).map(|n| put(&store, "gate", n)).collect();
    close(&dir, store);
    let index = dir.join("index.redb");
    let kinds: [fn(&Path); 4] = [
        |at| fs::create_dir(at).unwrap(),
        |at| assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        |at| symlink("/dev/zero", at).unwrap(),
        |at| symlink("index.redb", at).unwrap(),
    ];
    for make in kinds {
        for old in [&index, &dir.join("index.redb.bad")] {
            let _ = fs::remove_file(old).or_else(|_| fs::remove_dir(old));
        }
        make(&index);
        let store = open(&dir);
        settled(&store, 3);
        assert_eq!(rows(&store).into_keys().collect::<Vec<_>>(), own);
        assert!(dir.join("index.redb.bad").symlink_metadata().is_ok());
        close(&dir, store);
    }
}

#[test]
fn an_index_that_names_files_elsewhere_for_deletion_deletes_none_of_them() {
    let scratch = Scratch::new("garbage");
    let dir = scratch.0.join("data");
    let store = open(&dir);
    put(&store, "gate", 1);
    close(&dir, store);
    let outside = scratch.0.join("precious.jpg");
    fs::write(&outside, b"precious").unwrap();
    {
        let db = redb::Database::create(dir.join("index.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        let mut garbage = txn.open_table(TableDefinition::<&str, ()>::new("garbage")).unwrap();
        for path in [outside.to_str().unwrap(), "../precious.jpg", "snapshots/../../precious.jpg", "reserve"] {
            garbage.insert(path, ()).unwrap();
        }
        drop(garbage);
        txn.commit().unwrap();
    }
    let store = open(&dir);
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert!(dir.join("reserve").exists());
    assert_eq!(rows(&store).len(), 1);
}

#[test]
fn a_link_in_place_of_a_cameras_directory_fails_that_camera_in_words_and_disturbs_no_other() {
    let dir = Scratch::new("linked");
    let store = open(&dir.0);
    put(&store, "yard", 1);
    let elsewhere = Scratch::new("elsewhere");
    fs::create_dir_all(&elsewhere.0).unwrap();
    std::os::unix::fs::symlink(&elsewhere.0, dir.0.join("snapshots/gate")).unwrap();
    let slot = Slot { schedule: "s".parse().unwrap(), boot: store.boot(), due_ms: 9_000, plan_ms: None };
    let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &[9; 8], &[0xFF, 0xD9]].concat();
    let camera = "gate".parse().unwrap();
    let picture = Put {
        camera,
        slots: vec![slot],
        jpeg,
        width: 8,
        height: 8,
        taken_ms: 9_000,
        source: "pattern",
        flags: vec![],
        priority: Default::default(),
        window_ms: None,
    };
    let refused = store.put(picture).unwrap_err().to_string();
    assert!(refused.contains("snapshots/gate in the data directory is a link or a file") && refused.contains("move it away"), "{refused}");
    assert_eq!(fs::read_dir(&elsewhere.0).unwrap().count(), 0, "nothing is written through a link");
    put(&store, "yard", 2);
    close(&dir.0, store);
    // The whole tree behind a link: refused at the start, in words.
    fs::rename(dir.0.join("snapshots"), elsewhere.0.join("snapshots")).unwrap();
    std::os::unix::fs::symlink(elsewhere.0.join("snapshots"), dir.0.join("snapshots")).unwrap();
    let place = Place { dir: dir.0.clone(), board: "board-1".into(), hub: true };
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let refused = Store::open(&place, config, Arc::new(SystemClock), "boot-a").err().unwrap().to_string();
    assert!(refused.contains("snapshots in the data directory is a link or a file"), "{refused}");
}
