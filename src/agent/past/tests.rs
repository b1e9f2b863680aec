//! What the past is told to have been, on a real store.

use super::*;
use crate::clock::TestClock;
use crate::model::{Quality, Slot};
use crate::schedule::{Align, Grid};
use crate::store::{Configure, OpenError, Place, Put, Rules};
use std::{path::PathBuf, sync::Arc};

const OFFSET_MS: i64 = 1_790_000_000_000;
const MINUTE_MS: u64 = 60_000;

struct Dir(PathBuf);
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(dir: &Dir, boottime_ms: u64, boot_id: &str) -> (Store, Past, Reading) {
    open_with(dir, boottime_ms, boot_id, Quality::Ntp)
}

fn open_with(dir: &Dir, boottime_ms: u64, boot_id: &str, quality: Quality) -> (Store, Past, Reading) {
    let wall_ms = OFFSET_MS + boottime_ms as i64 + if boot_id == "a" { 0 } else { 10 * MINUTE_MS as i64 };
    let now = Reading { boottime_ms, wall_ms, quality, uncertainty_ms: Some(0) };
    let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let place = Place { dir: dir.0.clone(), board: "board-1".into(), hub: true };
    // The writer of the store before may not have closed it yet.
    loop {
        match Store::open(&place, config.clone(), Arc::new(TestClock::new(now)), boot_id) {
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.map(|(store, past)| (store, past, now)).unwrap(),
        }
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The offset is read anew for each slot, and moves by a millisecond. A picture that is on record behind the cursor, as after a crash
/// between file and commit, must not be joined by an `off` for the same instant.
#[test]
fn a_slot_that_was_served_a_millisecond_off_the_cursors_grid_does_not_end_twice() {
    let schedule: ScheduleId = "s".parse().unwrap();
    let grid = Grid { period_ms: MINUTE_MS, phase_ms: 0, align: Align::Clock };
    for (moved_ms, boot_id, now_ms, off) in [-1, 0, 1].into_iter().flat_map(|moved| [(moved, "a", 330_000, 2), (moved, "b", 30_000, 7)]) {
        let dir = Dir(std::env::temp_dir().join(format!("shutterd-past-{}", std::process::id())));
        let _ = std::fs::remove_dir_all(&dir.0);
        let (store, _, _) = open(&dir, 100_000, "a");
        // 1,790,000,000,000 lies 20 s after a full minute.
        let due_ms = (160_000_i64 + moved_ms) as u64;
        let slot = Slot { schedule: schedule.clone(), boot: 1, due_ms, plan_ms: Some(OFFSET_MS + 160_000) };
        let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &[0; 2_000], &[0xFF, 0xD9]].concat();
        let camera = "gate".parse().unwrap();
        store
            .put(Put {
                camera,
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
            .unwrap();
        block(store.stop()).unwrap();
        drop(store);

        let (store, past, now) = open(&dir, now_ms, boot_id);
        let memory = Memory {
            boot: 1,
            settled_ms: 100_000,
            last_due_ms: Some(100_000),
            last_plan_ms: Some(OFFSET_MS + 100_000),
            offset_ms: Some(OFFSET_MS),
            period_ms: MINUTE_MS,
            phase_ms: 0,
            mark: 0,
            since_ms: 0,
        };
        let account = Account { store: &store, boot: past.boot, before: Off::Crash, storage_failed_at_ms: None, now };
        let rule = Rule::from(grid);
        if memory.boot == past.boot {
            account.off(&schedule, &Planner::new(rule, past.boot, Some(memory)).next(&now), MINUTE_MS);
        } else {
            account.off_since_another_boot(&schedule, &memory, Some(&rule), None);
        }
        block(store.flush()).unwrap();
        let told = counted(&store);
        let told: Vec<_> = told.iter().map(|(label, n)| (label.as_str(), *n)).collect();
        assert_eq!(told, [("captured", 1), ("off: crash", off)], "moved by {moved_ms} ms, now {now_ms} ms of boot {boot_id}");
        block(store.stop()).unwrap();
    }
}

fn counted(store: &Store) -> std::collections::BTreeMap<String, u64> {
    block(store.flush()).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for (_, _, _, day) in store.days(i32::MIN).unwrap() {
        day.into_iter().for_each(|(label, n)| *counts.entry(label).or_insert(0) += n);
    }
    counts
}

/// A board without a clock chip learns the time a while after it has started.
#[test]
fn what_a_power_cut_took_is_counted_as_soon_as_the_clock_is_trusted() {
    let schedule: ScheduleId = "s".parse().unwrap();
    let grid = Grid { period_ms: MINUTE_MS, phase_ms: 0, align: Align::Clock };
    let dir = Dir(std::env::temp_dir().join(format!("shutterd-count-{}", std::process::id())));
    let _ = std::fs::remove_dir_all(&dir.0);
    let (store, _, _) = open(&dir, 100_000, "a");
    block(store.stop()).unwrap();
    drop(store);
    let (store, past, now) = open_with(&dir, 30_000, "b", Quality::Saved);
    let memory = Memory {
        boot: 1,
        settled_ms: 100_000,
        last_due_ms: Some(100_000),
        last_plan_ms: Some(OFFSET_MS + 100_000),
        offset_ms: Some(OFFSET_MS),
        period_ms: MINUTE_MS,
        phase_ms: 0,
        mark: 0,
        since_ms: 0,
    };
    let account = Account { store: &store, boot: past.boot, before: Off::Power, storage_failed_at_ms: None, now };
    account.off_since_another_boot(&schedule, &memory, Some(&Rule::from(grid)), None);
    assert_eq!(counted(&store), [("unknown number off: power".to_owned(), 1)].into());
    // The saved clock was an hour slow.
    let now = Reading { wall_ms: now.wall_ms + 60 * MINUTE_MS as i64 + 35_000, boottime_ms: 65_000, quality: Quality::Ntp, ..now };
    for _ in 0..2 {
        count_off(&store, &schedule, &Rule::from(grid), past.boot, &now, None);
        // Full minutes after the one at boottime 100 s of the boot before, until 30 s of this one.
        let off_ms = (now.offset_ms() + 30_000) - (OFFSET_MS + 100_000);
        assert_eq!(counted(&store), [("off: power".to_owned(), off_ms as u64 / MINUTE_MS)].into(), "once, and in place of the other");
    }
    let told: Vec<GapRange> = {
        let mut all = Vec::new();
        store
            .ranges(&schedule, |range| {
                all.push(range);
                true
            })
            .unwrap();
        all
    };
    assert_eq!((told.len(), told[0].outcome.clone()), (1, Outcome::Off { reason: Off::Power }));
    block(store.stop()).unwrap();
}
