//! The store from outside, on a real directory.
use super::*;
use crate::clock::{Reading, TestClock};
use crate::model::{Failure, Missed, Off, Priority, Quality};
use std::fs::File;

fn clock(boottime_ms: u64) -> Arc<TestClock> {
    let reading = Reading { boottime_ms, wall_ms: 1_790_000_000_000 + boottime_ms as i64, quality: Quality::Ntp, uncertainty_ms: Some(0) };
    Arc::new(TestClock::new(reading))
}

struct Dir(PathBuf);
impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("shutterd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
    fn place(&self) -> Place {
        Place { dir: self.0.clone(), board: "board-1".into(), hub: true }
    }
    fn open(&self, clock: &Arc<TestClock>) -> (Store, Past) {
        self.open_with(clock, Rules::default())
    }
    fn open_with(&self, clock: &Arc<TestClock>, keep: Rules) -> (Store, Past) {
        let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep, window_ms: 0 };
        Store::open(&self.place(), config, clock.clone(), "boot-a").unwrap()
    }
    fn files(&self, below: &str) -> Vec<PathBuf> {
        fn walk(dir: &std::path::Path, out: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() { walk(&entry.path(), out) } else { out.push(entry.path()) }
            }
        }
        let mut out = Vec::new();
        walk(&self.0.join(below), &mut out);
        out.sort();
        out
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn slot(due_ms: u64) -> Slot {
    Slot { schedule: "s".parse().unwrap(), boot: 1, due_ms, plan_ms: None }
}

fn picture(fill: u8, due_ms: u64) -> Put {
    Put {
        camera: "gate".parse().unwrap(),
        slots: vec![slot(due_ms)],
        jpeg: [&[0xFF, 0xD8, 0xFF, 0xDB][..], &vec![fill; 2_000], &[0xFF, 0xD9]].concat(),
        width: 8,
        height: 8,
        taken_ms: due_ms,
        source: "pattern",
        flags: vec![],
        priority: Default::default(),
        window_ms: None,
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
fn what_was_stored_is_there_after_the_process_is_gone_and_leaves_only_by_the_hubs_ack() {
    let (dir, clock) = (Dir::new("stored"), clock(10_000));
    let (store, _) = dir.open(&clock);
    let stored: Vec<_> = (1..=5).map(|i| store.put(picture(i, 1_000 * u64::from(i))).unwrap()).collect();
    drop(store);
    let (store, past) = reopen(&dir, &clock);
    assert_eq!(past.last_run, Some(RunState::Running { boot: 1 }), "no ordered stop was written");
    assert_eq!(store.pending_totals().0, 5);
    let wrong = Hash8(stored[0].hash8.0 ^ 1);
    let foreign = StoreId(store.id().0 ^ 1);
    let (seq, hash8) = (stored[0].id.seq, stored[0].hash8);
    assert_eq!(block(store.acknowledge(store.id(), vec![(seq, wrong), (Seq(99), hash8)], 0)).unwrap(), (0, 2));
    assert_eq!(block(store.acknowledge(foreign, vec![(seq, hash8)], 0)).unwrap(), (0, 1));
    assert_eq!(store.pending_after(None, 10).unwrap().len(), 5);
    assert_eq!(block(store.acknowledge(store.id(), vec![(seq, hash8)], 0)).unwrap(), (1, 0));
    assert_eq!(store.pending_after(None, 10).unwrap().len(), 4, "not sent again, even before the commit");
    block(store.stop()).unwrap();
    drop(store);
    let (store, past) = reopen(&dir, &clock);
    assert_eq!(past.last_run, Some(RunState::Stopped { boot: 1 }));
    assert_eq!(store.pending_totals().0, 4);
    assert!(store.read_picture(stored[0].id).unwrap().is_some(), "acknowledged is not deleted");
}

#[test]
fn a_number_that_a_lying_disk_has_lost_with_its_picture_is_not_given_again() {
    let (dir, clock) = (Dir::new("again"), clock(10_000));
    let (store, _) = dir.open(&clock);
    store.put(picture(1, 1_000)).unwrap();
    drop(store);
    let (store, _) = reopen(&dir, &clock);
    // What the disk had of the index before the picture.
    let early = std::fs::read(dir.0.join(recover::INDEX)).unwrap();
    let lost = store.put(picture(2, 2_000)).unwrap();
    drop(store);
    std::fs::remove_file(&lost.path).unwrap();
    // A file of its own: the writer may not have closed the other one yet.
    std::fs::write(dir.0.join("early"), early).unwrap();
    std::fs::rename(dir.0.join("early"), dir.0.join(recover::INDEX)).unwrap();
    let (store, _) = reopen(&dir, &clock);
    let next = store.put(picture(3, 3_000)).unwrap();
    assert_eq!(next.id.store, lost.id.store);
    assert!(next.id.seq > lost.id.seq, "{} after {}", next.id, lost.id);
}

/// The writer thread holds the lock until it has seen that its last sender is gone.
fn reopen(dir: &Dir, clock: &Arc<TestClock>) -> (Store, Past) {
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    loop {
        match Store::open(&dir.place(), config.clone(), clock.clone(), "boot-a") {
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn a_second_agent_is_told_who_has_the_directory() {
    let (dir, clock) = (Dir::new("lock"), clock(0));
    let (_store, _) = dir.open(&clock);
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let refused = Store::open(&dir.place(), config, clock, "boot-a").err().unwrap().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
}

#[test]
fn a_picture_without_its_row_is_adopted_with_its_slot_and_a_torn_one_is_set_aside() {
    let (dir, clock) = (Dir::new("orphan"), clock(10_000));
    let (store, _) = dir.open(&clock);
    store.put(picture(1, 1_000)).unwrap();
    drop(store);
    std::fs::copy(dir.0.join("index.redb"), dir.0.join("old")).unwrap();
    let (store, _) = reopen(&dir, &clock);
    let [whole, torn] = [2, 3].map(|i| store.put(picture(i, 1_000 * u64::from(i))).unwrap());
    drop(store);
    // The index goes back in time: both files are there, neither has a row.
    drop(reopen(&dir, &clock));
    wait_unlocked(&dir);
    std::fs::rename(dir.0.join("old"), dir.0.join("index.redb")).unwrap();
    let bytes = std::fs::read(&torn.path).unwrap();
    std::fs::write(&torn.path, &bytes[..bytes.len() - 700]).unwrap();
    let (store, _) = reopen(&dir, &clock);
    assert_eq!(store.read_picture(whole.id).unwrap().unwrap().len(), bytes.len());
    assert_eq!(store.outcome_of(&slot(0).schedule, 1, 2_000).unwrap(), Some(Outcome::Captured { id: whole.id, late_ms: 0 }));
    assert_eq!(store.outcome_of(&slot(0).schedule, 1, 3_000).unwrap(), None, "a torn picture captures nothing");
    assert_eq!(dir.files("quarantine").len(), 1);
    let next = store.put(picture(4, 4_000)).unwrap();
    assert!(next.id.seq > torn.id.seq, "the torn picture's number is never reused");
}

fn wait_unlocked(dir: &Dir) {
    let lock = File::open(dir.0.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
}

#[test]
fn an_unreadable_index_is_kept_aside_and_the_pictures_come_back_under_their_own_ids() {
    let (dir, clock) = (Dir::new("bad"), clock(10_000));
    let (store, _) = dir.open(&clock);
    let (old, before) = (store.id(), store.put(picture(1, 1_000)).unwrap());
    drop(store);
    wait_unlocked(&dir);
    std::fs::write(dir.0.join("index.redb"), vec![0x55; 100_000]).unwrap();
    let (store, past) = reopen(&dir, &clock);
    assert!(past.rebuilt && store.id() != old && dir.0.join("index.redb.bad").exists());
    assert_eq!(store.pending_after(None, 9).unwrap(), [], "nothing is sent before the hub was asked");
    assert_eq!(store.to_ask().unwrap(), Some((old, before.id.seq, before.id.seq)));
    assert_eq!(store.pending_totals().0, 1);
    assert!(store.read_picture(before.id).unwrap().is_some());
    assert_eq!(store.boots().unwrap()[&1].offset_ms, clock.read().offset_ms(), "its boot is known again: explain finds its slot");
    assert!(store.put(picture(2, 2_000)).unwrap().id.seq > before.id.seq);
    assert_eq!(block(store.acknowledge(old, vec![(before.id.seq, before.hash8)], 0)).unwrap(), (1, 0));
}

#[test]
fn a_rebuild_that_was_cut_short_goes_on_and_loses_no_picture() {
    let (dir, clock) = (Dir::new("cut"), clock(10_000));
    let (store, _) = dir.open(&clock);
    let before: Vec<_> = (1..=3).map(|i| store.put(picture(i, 1_000 * u64::from(i))).unwrap().id).collect();
    drop(store);
    // What a power cut leaves: a new index that has nothing of the pictures yet, or only its name.
    for empty in [false, true] {
        wait_unlocked(&dir);
        std::fs::remove_file(dir.0.join("index.redb")).unwrap();
        if empty {
            File::create(dir.0.join("index.redb")).unwrap();
        } else {
            drop(index::Index::open(&dir.0.join("index.redb")).unwrap());
        }
        let (store, past) = reopen(&dir, &clock);
        assert!(past.rebuilt);
        assert_eq!(store.to_ask().unwrap(), Some((before[0].store, before[0].seq, before[2].seq)));
        assert_eq!(store.totals().0, 3);
        assert_eq!(dir.files("quarantine").len(), 0);
        drop(store);
        let (store, past) = reopen(&dir, &clock);
        assert!(past.rebuilt && store.pending_totals().0 == 3, "nobody has put on record yet what the index knew");
        block(store.flush()).unwrap();
        drop(store);
        let (store, past) = reopen(&dir, &clock);
        assert!(!past.rebuilt && store.pending_totals().0 == 3, "done once");
        assert_eq!(past.last_run, Some(RunState::Running { boot: past.boot }));
        drop(store);
    }
}

#[test]
fn an_archive_comes_back_in_the_background_and_only_what_the_hub_lacks_is_sent() {
    let (dir, clock) = (Dir::new("archive"), clock(10_000));
    let (store, _) = dir.open(&clock);
    let before: Vec<_> = (1..=300).map(|i| store.put(picture((i % 200) as u8, 1_000 * i)).unwrap()).collect();
    drop(store);
    wait_unlocked(&dir);
    std::fs::write(dir.0.join("index.redb"), b"not an index").unwrap();
    let (store, _) = reopen(&dir, &clock);
    let mut news = store.news();
    while store.totals().0 < 300 {
        block(async { tokio::time::timeout(std::time::Duration::from_secs(20), news.changed()).await.unwrap().unwrap() });
    }
    let (of, from, to) = store.to_ask().unwrap().unwrap();
    assert_eq!((from, to.0 - from.0), (before[0].id.seq, ASK_MAX as u64 - 1));
    // The hub has all but the second one.
    let have = before.iter().filter(|b| b.id.seq <= to && b.id != before[1].id).map(|b| (b.id.seq, b.hash8)).collect();
    assert_eq!(block(store.acknowledge(of, have, 0)).unwrap(), (ASK_MAX as u64 - 1, 0));
    block(store.answered(of, from, to)).unwrap();
    let left: Vec<_> = store.pending_after(None, 9).unwrap().into_iter().map(|(_, p)| p.id).collect();
    assert_eq!(left, [before[1].id]);
    assert_eq!(store.to_ask().unwrap(), Some((of, Seq(to.0 + 1), before[299].id.seq)));
    assert_eq!(store.pending_totals().0, 45);
}

#[test]
fn a_card_in_another_board_gets_its_own_store_id_and_still_sends_what_it_holds() {
    let (dir, clock) = (Dir::new("board"), clock(0));
    let (store, _) = dir.open(&clock);
    let (old, before) = (store.id(), store.put(picture(1, 1_000)).unwrap());
    store.outcome(slot(2_000), Outcome::Missed { reason: crate::model::Missed::Busy });
    block(store.flush()).unwrap();
    drop(store);
    wait_unlocked(&dir);
    let place = Place { board: "board-2".into(), ..dir.place() };
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let (store, _) = Store::open(&place, config, clock, "boot-b").unwrap();
    assert_ne!(store.id(), old);
    store.outcome(slot(3_000), Outcome::Missed { reason: crate::model::Missed::Busy });
    block(store.flush()).unwrap();
    let gaps = store.gaps_after(0, 9).unwrap();
    let told: Vec<crate::protocol::Gap> = gaps.iter().map(|(_, json)| serde_json::from_slice(json).unwrap()).collect();
    assert_eq!(
        told.iter().map(|g| (g.store, g.no)).collect::<Vec<_>>(),
        [(store.id(), 1), (store.id(), 2)],
        "no reason is lost or told twice under one number"
    );
    assert_eq!(store.pending_after(None, 9).unwrap()[0].1.id, before.id);
}

#[test]
fn a_slot_without_a_picture_is_on_record_and_told_to_the_hub_until_the_hub_has_it() {
    let (dir, clock) = (Dir::new("gap"), clock(10_000));
    let (store, _) = dir.open(&clock);
    store.put(picture(1, 1_000)).unwrap();
    let off = Outcome::Off { reason: Off::Crash };
    store.outcome(slot(1_000), off.clone());
    store.outcome(slot(2_000), off.clone());
    store.runs_without(
        vec![SlotRun {
            schedule: slot(0).schedule,
            boot: 1,
            first_due_ms: 1_000,
            first_plan_ms: None,
            period_ms: 1_000,
            count: 4,
            near_ms: 499,
        }],
        off.clone(),
    );
    block(store.flush()).unwrap();
    assert!(matches!(store.outcome_of(&slot(0).schedule, 1, 1_000).unwrap(), Some(Outcome::Captured { .. })), "nothing replaces captured");
    assert_eq!(store.outcome_of(&slot(0).schedule, 1, 2_000).unwrap(), Some(off));
    let gaps = store.gaps_after(0, 10).unwrap();
    assert_eq!(gaps.len(), 1);
    block(store.acknowledge(store.id(), vec![], 7)).unwrap();
    block(store.flush()).unwrap();
    assert_eq!(store.gaps_after(0, 10).unwrap().len(), 1, "an ack of a message never made frees nothing");
    block(store.acknowledge(store.id(), vec![], 1)).unwrap();
    block(store.flush()).unwrap();
    assert_eq!(store.gaps_after(0, 10).unwrap().len(), 0);
}

#[test]
fn reasons_gather_in_one_message_until_somebody_has_seen_it() {
    use crate::protocol::{Gap, GapItem};
    let (dir, clock) = (Dir::new("gather"), clock(10_000));
    let (store, _) = dir.open(&clock);
    let failed = |words: &str| Outcome::Failed { reason: crate::model::Failure::new("timeout", words) };
    let commit = |due_ms: u64, outcome: Outcome| {
        store.outcome(slot(due_ms), outcome);
        block(store.flush()).unwrap();
    };
    (1..=500).for_each(|i| commit(1_000 * i, failed(&format!("no answer within {i} ms"))));
    let first = store.gaps_after(0, 99).unwrap();
    let gap: Gap = serde_json::from_slice(&first[0].1).unwrap();
    let [GapItem::Range(range)] = &gap.items[..] else { panic!("{gap:?}") };
    assert_eq!((first.len(), range.from.due_ms, range.to.due_ms, range.count), (1, 1_000, 500_000, Some(500)));
    // Somebody may have sent it: it stays as it was.
    commit(501_000, failed("no answer within 9 ms"));
    store.put(picture(1, 502_000)).unwrap();
    commit(503_000, failed("no answer within 9 ms"));
    commit(504_000, failed("no answer within 9 ms"));
    let all = store.gaps_after(0, 99).unwrap();
    assert_eq!(all[0], first[0]);
    let gap: Gap = serde_json::from_slice(&all[1].1).unwrap();
    let told: Vec<(u64, Option<u64>)> = gap
        .items
        .iter()
        .map(|item| match item {
            GapItem::Slot { slot, .. } => (slot.due_ms, None),
            GapItem::Range(range) => (range.from.due_ms, range.count),
            GapItem::Tombstone { .. } => panic!("{item:?}"),
        })
        .collect();
    assert_eq!((all.len(), told), (2, vec![(501_000, None), (503_000, Some(2))]), "a picture stands between them");
    // Nobody knows what an earlier run has sent.
    drop(store);
    let (store, _) = reopen(&dir, &clock);
    store.outcome(slot(505_000), failed("no answer within 9 ms"));
    block(store.flush()).unwrap();
    assert_eq!((store.gaps_after(0, 99).unwrap().len(), &store.gaps_after(0, 99).unwrap()[..2]), (3, &all[..]));
}

#[test]
fn a_damaged_file_is_never_sent_and_leaves_a_tombstone() {
    let (dir, clock) = (Dir::new("corrupt"), clock(10_000));
    let (store, _) = dir.open(&clock);
    let stored = store.put(picture(1, 1_000)).unwrap();
    let mut bytes = std::fs::read(&stored.path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    std::fs::write(&stored.path, bytes).unwrap();
    let mut news = store.news();
    news.mark_unchanged();
    assert!(store.read_picture(stored.id).unwrap().is_none());
    block(store.flush()).unwrap();
    assert!(news.has_changed().unwrap(), "the tombstone waits for no other news");
    assert_eq!(store.pending_totals().0, 0);
    assert_eq!(store.snap(stored.id).unwrap().unwrap().state, SnapState::Corrupt);
    let gap = String::from_utf8(store.gaps_after(0, 1).unwrap()[0].1.clone()).unwrap();
    assert!(gap.contains("tombstone") && gap.contains(&stored.id.to_string()), "{gap}");
}

#[test]
fn by_bytes_the_acknowledged_go_first_and_the_rest_is_refused_until_there_is_room() {
    let (dir, clock) = (Dir::new("keep"), clock(10_000));
    let (store, _) = dir.open_with(&clock, Rules { bytes: Some(9_000), ..Rules::default() });
    let first: Vec<_> = (1..=2).map(|i| store.put(picture(i, 1_000 * u64::from(i))).unwrap()).collect();
    assert_eq!(store.put(picture(3, 3_000)).unwrap_err(), PutError::Full);
    block(store.acknowledge(store.id(), vec![(first[0].id.seq, first[0].hash8)], 0)).unwrap();
    store.put(picture(3, 3_000)).unwrap();
    block(store.flush()).unwrap();
    assert!(!first[0].path.exists() && first[1].path.exists());
    assert_eq!(store.totals().0, 2);
    block(store.flush()).unwrap();
}

#[test]
fn on_a_full_disk_only_what_the_hub_has_makes_room_and_only_where_that_is_wanted() {
    let (dir, clock) = (Dir::new("short"), clock(10_000));
    let (store, _) = dir.open(&clock);
    let [safe, _waiting] = [1, 2].map(|i| store.put(picture(i, 1_000 * u64::from(i))).unwrap());
    block(store.acknowledge(store.id(), vec![(safe.id.seq, safe.hash8)], 0)).unwrap();
    block(store.flush()).unwrap();
    let decide = |on_full_disk, need, free_bytes| {
        let rules = Rules { on_full_disk, ..Rules::default() };
        let totals = store.shared.seen().counters.totals.clone();
        let disk = keep::Disk { total_bytes: 1_000_000, free_bytes, free_inodes: None };
        let (held_bytes, ceded_bytes, pinned_bytes) = (0, 0, 0);
        let scene = keep::Scene { index: &store.shared.index, totals: &totals, rules: &rules, disk, held_bytes, ceded_bytes, pinned_bytes };
        let need = keep::Need { cameras: [("gate".parse().unwrap(), (need, 1))].into(), made_bytes: 0 };
        let verdict = keep::decide(&scene, &need).unwrap();
        (verdict.deletes.into_iter().map(|((_, seq), _)| Seq(seq)).collect::<Vec<_>>(), verdict.refused.is_none())
    };
    assert_eq!(decide(true, 1_000, 0), (vec![safe.id.seq], true));
    assert_eq!(decide(true, 1_000_000, 0), (vec![], false), "what the hub has not got stays, and nothing goes in vain");
    assert_eq!(decide(true, 1_000, 2_000), (vec![], true), "a disk with room loses nothing");
    assert_eq!(decide(false, 1_000, 0), (vec![], false), "nobody asked for it");
}

/// A dying cell: the chip has lost days while the board was off.
#[test]
fn a_chip_that_is_behind_the_last_trusted_time_gives_no_boot_its_time() {
    for (lost_ms, known) in [(8 * 86_400_000, false), (0, true)] {
        let (dir, clock) = (Dir::new("chip"), clock(10_000));
        let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
        let (store, _) = Store::open(&dir.place(), config.clone(), clock.clone(), "boot-a").unwrap();
        store.put(picture(1, 1_000)).unwrap();
        block(store.stop()).unwrap();
        drop(store);
        wait_unlocked(&dir);
        clock.change(|now| (now.boottime_ms, now.wall_ms, now.quality) = (5_000, now.wall_ms + 60_000 - lost_ms, Quality::Rtc));
        let (store, past) = Store::open(&dir.place(), config, clock, "boot-b").unwrap();
        assert_eq!(store.times().unwrap().known(past.boot).is_some(), known);
        assert_eq!(past.boots[&past.boot].quality, if known { Quality::Rtc } else { Quality::Saved });
    }
}

/// Slots that end alike become one range, unless something else became of those between them.
#[test]
fn what_stands_between_two_slots_that_ended_alike_hides_neither() {
    let schedule = slot(0).schedule;
    let (failed, asleep) = (Outcome::Failed { reason: Failure::new("timeout", "none") }, Outcome::Missed { reason: Missed::Asleep });
    let run = |first_due_ms, count| {
        vec![SlotRun { schedule: slot(0).schedule, boot: 1, first_due_ms, first_plan_ms: None, period_ms: 1_000, count, near_ms: 499 }]
    };
    let (dir, clock) = (Dir::new("between"), clock(20_000));
    let (store, _) = dir.open(&clock);
    store.outcome(slot(1_000), failed.clone());
    block(store.flush()).unwrap();
    // Slept through, and told with the slot after it.
    store.runs_without(run(2_000, 2), asleep.clone());
    store.outcome(slot(4_000), failed.clone());
    block(store.flush()).unwrap();
    // Two days alike, and in between an instant that the clock turns out to have gone past.
    for due_ms in [6_000, 9_000] {
        store.outcome(slot(due_ms), asleep.clone());
    }
    block(store.flush()).unwrap();
    let clock_went_past = Outcome::Missed { reason: Missed::Clock };
    store.runs_without(run(7_000, 1), clock_went_past.clone());
    block(store.flush()).unwrap();
    let expected = [
        (1_000, &failed),
        (2_000, &asleep),
        (3_000, &asleep),
        (4_000, &failed),
        (6_000, &asleep),
        (7_000, &clock_went_past),
        (9_000, &asleep),
    ];
    for (due_ms, outcome) in expected {
        assert_eq!(store.outcome_of(&schedule, 1, due_ms).unwrap().as_ref(), Some(outcome), "{due_ms}");
    }
    let all: Vec<u64> = store.outcomes(&schedule, 1, 0, 99_000).unwrap().into_iter().map(|(due_ms, _)| due_ms).collect();
    assert_eq!(all, expected.map(|(due_ms, _)| due_ms));
}

#[test]
fn nothing_goes_by_age_while_the_clock_is_not_trusted() {
    let (dir, clock) = (Dir::new("age"), clock(10_000));
    let (store, _) = dir.open_with(&clock, Rules { age_ms: Some(60_000), ..Rules::default() });
    let old = store.put(picture(1, 1_000)).unwrap();
    block(store.acknowledge(store.id(), vec![(old.id.seq, old.hash8)], 0)).unwrap();
    block(store.flush()).unwrap();
    clock.change(|r| (r.wall_ms, r.quality) = (r.wall_ms + 1_000_000_000, Quality::Saved));
    store.put(picture(2, 2_000)).unwrap();
    assert!(old.path.exists());
    clock.change(|r| r.quality = Quality::Ntp);
    store.put(picture(3, 3_000)).unwrap();
    block(store.flush()).unwrap();
    assert!(old.path.exists(), "it has leapt eleven days");
    clock.advance(86_400_000);
    store.put(picture(4, 86_404_000)).unwrap();
    block(store.flush()).unwrap();
    assert!(!old.path.exists());
}

/// What pictures that were handed over are told, by their due times.
type Told = std::sync::mpsc::Receiver<(u64, Result<Stored, PutError>)>;

#[test]
fn a_held_picture_that_finds_no_room_at_the_stop_is_on_record_as_full() {
    let (dir, clock) = (Dir::new("full-stop"), clock(10_000));
    let keep = Rules { bytes: Some(1_000), ..Rules::default() };
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep, window_ms: 60_000 };
    let (store, _) = Store::open(&dir.place(), config, clock.clone(), "boot-a").unwrap();
    let teller = store.clone();
    let skipped = Outcome::Skipped { reason: crate::model::Skipped::Full };
    let told = skipped.clone();
    // What a start has to do is done: from here on a picture is held.
    block(store.flush()).unwrap();
    let answer = move |result: Result<Stored, PutError>| {
        assert_eq!(result.unwrap_err(), PutError::Full);
        teller.outcome(slot(1_000), told);
    };
    store.hand_over([(picture(1, 1_000), Box::new(answer) as Answer)]);
    block(store.stop()).unwrap();
    drop(store);
    let (store, _) = reopen(&dir, &clock);
    assert_eq!(store.outcome_of(&slot(0).schedule, 1, 1_000).unwrap(), Some(skipped));
}

fn economy(dir: &Dir, clock: Arc<dyn Clock>, window_ms: u64) -> (Store, Past) {
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms };
    Store::open(&dir.place(), config, clock, "boot-a").unwrap()
}

/// Slots from the first due time on, a second apart: fired, taken and handed over.
fn hand_over(store: &Store, dues: std::ops::RangeInclusive<u64>) -> Told {
    let (tell, told) = mpsc::channel();
    for n in dues {
        let tell = tell.clone();
        store.fired(slot(n * 1_000), n.to_le_bytes().to_vec());
        store.hand_over([(picture(n as u8, n * 1_000), Box::new(move |result| tell.send((n, result)).unwrap()) as Answer)]);
    }
    told
}

fn cursor(past: &Past) -> Option<u64> {
    past.cursors.values().next().map(|memory| u64::from_le_bytes(memory.as_slice().try_into().unwrap()))
}

#[test]
fn a_held_picture_is_not_stored_and_a_crash_finds_its_slot_without_an_outcome() {
    let (dir, clock) = (Dir::new("held"), clock(10_000));
    let (store, _) = economy(&dir, clock.clone(), 60_000);
    let first = hand_over(&store, 1..=1);
    block(store.flush()).unwrap();
    assert!(matches!(first.try_recv(), Ok((1, Ok(_)))), "a flush takes it along");
    let told = hand_over(&store, 2..=5);
    assert!(told.try_recv().is_err(), "nobody is told that it is stored");
    assert_eq!((store.totals().0, dir.files("snapshots").len()), (1, 1));
    // As after kill -9: what the writer held is gone.
    drop(store);
    assert!(told.recv().is_err());
    wait_unlocked(&dir);
    let (store, past) = economy(&dir, clock, 60_000);
    assert_eq!(cursor(&past), Some(1), "the slots that were held lie behind the cursor: the start counts them again");
    assert_eq!(store.outcome_of(&slot(0).schedule, 1, 2_000).unwrap(), None);
    assert_eq!(store.totals().0, 1);
}

#[test]
fn whatever_commits_takes_all_that_is_held_with_it() {
    let (dir, clock) = (Dir::new("along"), clock(10_000));
    let (store, _) = economy(&dir, clock.clone(), 60_000);
    let all = |told: &Told| told.iter().map(|(n, result)| result.map(|_| n).unwrap()).collect::<Vec<_>>();
    // Somebody waits for the fourth.
    let told = hand_over(&store, 1..=3);
    store.put(picture(4, 4_000)).unwrap();
    assert_eq!(all(&told), [1, 2, 3]);
    // The group is full, by number or by bytes.
    let most = crate::model::ECONOMY_GROUP_MAX as u64;
    let told = hand_over(&store, 5..=4 + most);
    assert_eq!(all(&told).len() as u64, most);
    let (tell, told) = mpsc::channel();
    let mut large = picture(100, 100_000);
    large.jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &vec![1; crate::model::GROUP_BYTES_MAX], &[0xFF, 0xD9]].concat();
    store.hand_over([(large, Box::new(move |result: Result<_, _>| tell.send(result.is_ok()).unwrap()) as Answer)]);
    assert!(told.recv().unwrap());
    // A camera is erased: its pictures that are held are among those there are.
    let told = hand_over(&store, 101..=102);
    block(store.erase(&"gate".parse().unwrap())).unwrap();
    let paths: Vec<_> = told.iter().map(|(_, result)| result.unwrap().path).collect();
    while !store.erasure(&"gate".parse().unwrap()).0.unwrap().done {
        block(store.flush()).unwrap();
    }
    assert!(paths.len() == 2 && paths.iter().all(|path| !path.exists()));
    // An ordered stop.
    let told = hand_over(&store, 103..=104);
    block(store.stop()).unwrap();
    assert_eq!(all(&told), [103, 104]);
    drop(store);
    wait_unlocked(&dir);
    let (store, past) = economy(&dir, clock, 60_000);
    assert_eq!((store.totals().0, cursor(&past)), (2, Some(104)));
}

#[test]
fn a_held_picture_waits_no_longer_than_the_window_and_without_one_not_at_all() {
    let (dir, clock) = (Dir::new("window"), Arc::new(crate::clock::SystemClock));
    let (store, _) = economy(&dir, clock.clone(), 300);
    // What the writer begins with is over.
    block(store.flush()).unwrap();
    let begun_ms = clock.boottime_ms();
    let told = hand_over(&store, 1..=2);
    assert!(told.try_recv().is_err());
    assert!(told.recv().unwrap().1.is_ok());
    let waited_ms = clock.boottime_ms() - begun_ms;
    println!("economy: with a window of 300 ms the first of two was stored after {waited_ms} ms");
    assert!((300..10_000).contains(&waited_ms), "{waited_ms}");
    store.configure(Configure { window_ms: 0, node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default() });
    let told = hand_over(&store, 3..=3);
    assert!(matches!(told.try_recv(), Ok((3, Ok(_)))), "as soon as the camera goes on");
}

#[test]
fn pictures_leave_by_priority_then_by_age_and_a_low_one_is_not_the_one_shown_live() {
    use Priority::{High, Low, Normal};
    // Older rows know only whether a picture was taken on command: the same byte.
    for (commanded, priority) in [(false, Normal), (true, High)] {
        assert_eq!(postcard::to_stdvec(&commanded).unwrap(), postcard::to_stdvec(&priority).unwrap());
    }
    let (dir, clock) = (Dir::new("priority"), clock(10_000));
    let (store, _) = dir.open(&clock);
    for (n, priority) in [Low, Normal, High, Normal, Low, High, Low].into_iter().enumerate() {
        store.put(Put { priority, ..picture(n as u8, 1_000 + n as u64) }).unwrap();
    }
    store.put(Put { slots: vec![], priority: Low, ..picture(7, 0) }).unwrap();
    let order = |store: &Store| -> Vec<u64> { store.pending_after(None, 99).unwrap().iter().map(|(_, p)| p.id.seq.0).collect() };
    let expected = [3, 6, 8, 2, 4, 1, 5, 7];
    assert_eq!(order(&store), expected, "the one on command is of high priority");
    let after = store.pending_after(None, 5).unwrap().last().unwrap().0;
    let rest: Vec<_> = store.pending_after(Some(after), 2).unwrap().into_iter().map(|(_, p)| p.id.seq.0).collect();
    assert_eq!(rest, [1, 5], "from class to class");
    block(store.stop()).unwrap();
    drop(store);
    let (store, _) = reopen(&dir, &clock);
    assert_eq!(order(&store), expected);
    store.put(Put { priority: Low, ..picture(8, 2_000) }).unwrap();
    let live = store.newest_pending(&"gate".parse().unwrap()).unwrap().unwrap().1;
    assert_eq!(live.id.seq.0, 8, "the newest that is not of low priority");
    block(store.acknowledge(live.id.store, vec![(live.id.seq, live.hash8)], 0)).unwrap();
    assert_eq!(order(&store), [3, 6, 2, 4, 1, 5, 7, 9]);
}

#[test]
fn a_picture_may_bring_its_own_patience_whatever_the_stores() {
    let hand_over = |store: &Store, n: u64, window_ms| {
        let (tell, told) = mpsc::channel();
        let put = Put { window_ms, ..picture(n as u8, n * 1_000) };
        store.hand_over([(put, Box::new(move |result: Result<_, _>| tell.send(result.is_ok()).unwrap()) as Answer)]);
        told
    };
    let (dir, clock) = (Dir::new("patience"), clock(10_000));
    let (store, _) = economy(&dir, clock.clone(), 0);
    block(store.flush()).unwrap();
    let patient = hand_over(&store, 1, Some(60_000));
    assert!(patient.try_recv().is_err(), "held in a store that is prompt");
    assert_eq!(store.flash(&clock.read()).loss_window_s, 60, "what a power cut may cost is said");
    let prompt = hand_over(&store, 2, None);
    assert_eq!((prompt.try_recv(), patient.try_recv()), (Ok(true), Ok(true)), "the next one takes it along");
    drop(store);
    wait_unlocked(&dir);
    let (store, _) = economy(&dir, clock, 60_000);
    block(store.flush()).unwrap();
    let patient = hand_over(&store, 3, None);
    assert!(patient.try_recv().is_err());
    assert_eq!(hand_over(&store, 4, Some(0)).try_recv(), Ok(true), "at once in a store that is not");
    assert_eq!(patient.try_recv(), Ok(true));
}
