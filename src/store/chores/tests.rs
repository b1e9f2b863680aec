//! Pins, erasures and sweeps from outside, on a real directory.

use crate::clock::{Reading, TestClock};
use crate::model::{CameraId, Outcome, Quality, Seq, Slot};
use crate::store::index::{Change, Counters, Index};
use crate::store::{Configure, Erasure, Place, Put, PutError, Rules, SnapState, Store, Stored};
use std::path::PathBuf;
use std::sync::Arc;

struct Dir(PathBuf, Arc<TestClock>);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("shutterd-chores-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let reading = Reading { boottime_ms: 10_000, wall_ms: 1_790_000_000_000, quality: Quality::Ntp, uncertainty_ms: Some(0) };
        Self(dir, Arc::new(TestClock::new(reading)))
    }
    fn configure(&self, keep: Rules) -> Configure {
        Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep, window_ms: 0 }
    }
    /// The writer that held it before lets go a moment after its last handle.
    fn open(&self, keep: Rules) -> Store {
        let place = Place { dir: self.0.clone(), board: "b".into(), hub: true };
        loop {
            match Store::open(&place, self.configure(keep.clone()), self.1.clone(), "boot-a") {
                Err(crate::store::OpenError::Locked { .. }) => std::thread::yield_now(),
                opened => return opened.unwrap().0,
            }
        }
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn camera(name: &str) -> CameraId {
    name.parse().unwrap()
}

fn put(store: &Store, name: &str, due_ms: u64) -> Result<Stored, PutError> {
    let slot = Slot { schedule: name.parse().unwrap(), boot: 1, due_ms, plan_ms: None };
    let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &vec![1; 2_000], &[0xFF, 0xD9]].concat();
    store.put(Put {
        camera: camera(name),
        slots: vec![slot],
        jpeg,
        width: 8,
        height: 8,
        taken_ms: due_ms,
        source: "pattern",
        flags: vec![],
        priority: Default::default(),
        window_ms: None,
    })
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn acknowledge(store: &Store, of: &[&Stored]) {
    let have = of.iter().map(|s| (s.id.seq, s.hash8)).collect();
    block(store.acknowledge(store.id(), have, 0)).unwrap();
    block(store.flush()).unwrap();
}

/// Until the erasure is over.
fn erased(store: &Store, name: &str) -> Erasure {
    loop {
        match store.erasure(&camera(name)).0 {
            Some(erasure) if erasure.done => return erasure,
            _ => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_pinned_picture_outlives_every_rule_and_a_restart_until_it_is_unpinned() {
    let dir = Dir::new("pin");
    let rules = Rules { bytes: Some(9_000), age_ms: Some(60_000), ..Rules::default() };
    let store = dir.open(rules.clone());
    let first = put(&store, "gate", 1_000).unwrap();
    let second = put(&store, "gate", 2_000).unwrap();
    assert_eq!(block(store.pin(first.id, true)).unwrap(), Ok(()));
    // Pinned while it waits, acknowledged later.
    acknowledge(&store, &[&first, &second]);
    put(&store, "gate", 3_000).unwrap();
    block(store.flush()).unwrap();
    assert!(first.path.exists() && !second.path.exists(), "the other one made room");
    drop(store);
    let store = dir.open(rules);
    assert_eq!((store.pinned().0, store.is_pinned(first.id).unwrap()), (1, true));
    dir.1.advance(10_000_000);
    let third = put(&store, "gate", 4_000);
    assert!(first.path.exists(), "not by age either");
    assert_eq!(third.unwrap_err(), PutError::Full);
    assert!(store.alarms()[0].contains("keep.bytes is reached"), "{:?}", store.alarms());
    assert_eq!(block(store.pin(first.id, false)).unwrap(), Ok(()));
    put(&store, "gate", 5_000).unwrap();
    block(store.flush()).unwrap();
    assert!(!first.path.exists() && store.alarms().is_empty());
}

#[test]
fn pins_cannot_take_all_the_room() {
    let dir = Dir::new("pins");
    let store = dir.open(Rules { bytes: Some(9_000), ..Rules::default() });
    let [one, two] = [1_000, 2_000].map(|due| put(&store, "gate", due).unwrap());
    assert_eq!(block(store.pin(one.id, true)).unwrap(), Ok(()));
    assert_eq!(block(store.pin(one.id, true)).unwrap(), Ok(()), "twice is once");
    let refused = block(store.pin(two.id, true)).unwrap().unwrap_err();
    assert!(refused.contains("half of the room for pictures at most; unpin some"), "{refused}");
    let nobody = crate::model::SnapshotId { store: store.id(), seq: Seq(99) };
    assert_eq!(block(store.pin(nobody, true)).unwrap(), Err("there is no such picture on this node".into()));
    assert_eq!(store.pinned().0, 1);
}

#[test]
fn an_erasure_removes_everything_of_one_camera_and_nothing_else() {
    let dir = Dir::new("erase");
    let store = dir.open(Rules::default());
    let gate: Vec<_> = (1..=300).map(|n| put(&store, "gate", n * 1_000).unwrap()).collect();
    let yard = put(&store, "yard", 1_000).unwrap();
    acknowledge(&store, &[&gate[0], &gate[1]]);
    block(store.pin(gate[5].id, true)).unwrap().unwrap();
    // A file that has no row, one that nobody can read any more, and one of somebody else.
    let bucket = gate[0].path.parent().unwrap();
    std::fs::write(bucket.join("7-boot9+1.jpg"), b"x").unwrap();
    std::fs::write(dir.0.join("quarantine/8-boot9+1.jpg"), b"x").unwrap();
    std::fs::copy(&yard.path, dir.0.join("quarantine/9-boot9+1.jpg")).unwrap();
    block(store.erase(&camera("gate"))).unwrap();
    let later = put(&store, "gate", 900_000).unwrap();
    assert_eq!(erased(&store, "gate").removed, 302);
    block(store.flush()).unwrap();
    assert!(gate.iter().all(|s| !s.path.exists() && store.snap(s.id).unwrap().is_none()));
    assert!(later.path.exists() && yard.path.exists(), "what was taken since is not meant");
    let left: Vec<_> = std::fs::read_dir(dir.0.join("quarantine")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["9-boot9+1.jpg"]);
    assert_eq!((store.pending_totals().0, store.pinned()), (2, (0, 0)));
    let told: Vec<String> = store.gaps_after(0, 999).unwrap().into_iter().map(|(_, json)| String::from_utf8(json).unwrap()).collect();
    let told = told.concat();
    assert_eq!(told.matches("erased on request").count(), 298, "the hub hears of each that it has not got");
    assert!(
        matches!(store.outcome_of(&"gate".parse().unwrap(), 1, 1_000).unwrap(), Some(Outcome::Captured { .. })),
        "what happened stays on record"
    );
}

#[test]
fn an_erasure_that_was_cut_short_ends_after_the_restart() {
    let dir = Dir::new("cut");
    let store = dir.open(Rules::default());
    let gate: Vec<_> = (1..=3).map(|n| put(&store, "gate", n * 1_000).unwrap()).collect();
    let (id, next_seq) = (store.id(), gate[2].id.seq.0 + 1);
    block(store.stop()).unwrap();
    drop(store);
    // What a power cut leaves right after the mark was durable.
    let lock = std::fs::File::open(dir.0.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let index = Index::open(&dir.0.join("index.redb")).unwrap();
    let totals = index.value("totals").unwrap().unwrap();
    let mut counters = Counters { ord: 1, store: id, next_seq, next_gap: 1, totals };
    let mark = Erasure { upto: next_seq - 1, asked_ms: 5, removed: 0, done: false };
    index.commit(&Change { erasures: vec![(camera("gate"), mark)], ..Change::default() }, &mut counters, true).unwrap();
    drop((index, lock));
    let store = dir.open(Rules::default());
    assert_eq!(erased(&store, "gate").removed, 3);
    block(store.flush()).unwrap();
    assert!(gate.iter().all(|s| !s.path.exists()));
    drop(store);
    let store = dir.open(Rules::default());
    assert!(store.erasure(&camera("gate")).0.unwrap().done, "and that it was stays on record");
    put(&store, "gate", 9_000).unwrap();
}

#[test]
fn an_idle_node_sweeps_when_the_clock_becomes_trusted_and_not_before() {
    let dir = Dir::new("idle");
    let rules = Rules { age_ms: Some(60_000), ..Rules::default() };
    let store = dir.open(rules.clone());
    let old = put(&store, "gate", 1_000).unwrap();
    acknowledge(&store, &[&old]);
    dir.1.change(|r| (r.wall_ms, r.quality) = (r.wall_ms + 1_000_000_000, Quality::Saved));
    store.configure(dir.configure(rules.clone()));
    block(store.flush()).unwrap();
    assert!(old.path.exists());
    dir.1.change(|r| r.quality = Quality::Ntp);
    // The agent says so when it sees that.
    store.configure(dir.configure(rules.clone()));
    block(store.flush()).unwrap();
    assert!(old.path.exists(), "the clock is eleven days from where it was: it may be wrong now");
    dir.1.advance(86_400_000);
    store.configure(dir.configure(rules));
    block(store.flush()).unwrap();
    assert!(!old.path.exists() && store.snap(old.id).unwrap().is_none());
}

#[test]
fn a_smaller_share_is_reached_without_waiting_for_a_picture() {
    let dir = Dir::new("smaller");
    let store = dir.open(Rules::default());
    let all: Vec<_> = (1..=20).map(|n| put(&store, "gate", n * 1_000).unwrap()).collect();
    acknowledge(&store, &all.iter().collect::<Vec<_>>());
    store.configure(dir.configure(Rules { count: Some(5), ..Rules::default() }));
    block(store.flush()).unwrap();
    assert_eq!(store.totals().0, 5);
    assert!(!all[14].path.exists() && all[15].path.exists());
}

#[test]
fn what_the_hub_lost_is_not_deleted_by_the_commit_that_hears_of_it() {
    let dir = Dir::new("wanted");
    let store = dir.open(Rules { count: Some(10), ..Rules::default() });
    let all: Vec<_> = (1..=10).map(|n| put(&store, "gate", n * 1_000).unwrap()).collect();
    acknowledge(&store, &all.iter().collect::<Vec<_>>());
    block(store.want_again(all.iter().map(|s| s.id).collect())).unwrap();
    assert_eq!(put(&store, "gate", 99_000).unwrap_err(), PutError::Full);
    assert!(all.iter().all(|s| s.path.exists() && store.snap(s.id).unwrap().unwrap().state == SnapState::Pending));
}

#[test]
fn what_the_hub_has_not_got_goes_only_where_that_is_wanted_and_the_hub_hears_of_it() {
    let dir = Dir::new("drop");
    let store = dir.open(Rules { count: Some(10), ..Rules::default() });
    let all: Vec<_> = (1..=10).map(|n| put(&store, "gate", n * 1_000).unwrap()).collect();
    acknowledge(&store, &[&all[4]]);
    put(&store, "gate", 11_000).unwrap();
    assert_eq!(put(&store, "gate", 12_000).unwrap_err(), PutError::Full);
    assert!(!all[4].path.exists() && all[0].path.exists(), "what the hub has goes first, though others are older");
    assert!(store.gaps_after(0, 9).unwrap().is_empty());
    store.configure(dir.configure(Rules { count: Some(10), drop_oldest: true, ..Rules::default() }));
    put(&store, "gate", 13_000).unwrap();
    block(store.flush()).unwrap();
    assert!(!all[0].path.exists() && all[1].path.exists());
    let told = String::from_utf8(store.gaps_after(0, 9).unwrap().remove(0).1).unwrap();
    assert!(told.contains(&all[0].id.to_string()) && told.contains("deleted before the hub had it"), "{told}");
}

#[test]
fn another_disk_under_the_same_path_ends_the_store() {
    let dir = Dir::new("moved");
    let store = dir.open(Rules::default());
    put(&store, "gate", 1_000).unwrap();
    let aside = dir.0.with_extension("aside");
    let _ = std::fs::remove_dir_all(&aside);
    std::fs::rename(&dir.0, &aside).unwrap();
    // Where an unmounted disk was: a directory of another filesystem.
    std::os::unix::fs::symlink("/dev/shm", &dir.0).unwrap();
    let refused = put(&store, "gate", 2_000).unwrap_err();
    let fault = block(async { store.fault().wait_for(Option::is_some).await.unwrap().clone() }).unwrap();
    std::fs::remove_file(&dir.0).unwrap();
    std::fs::remove_dir_all(&aside).unwrap();
    assert_eq!(refused, PutError::Fault);
    assert!(fault.contains("is not mounted any more"), "{fault}");
}
