//! Power cuts, simulated: the index on a disk that forgets.
//!
//! Our own commits run on a disk that notes every write and flush. At a crash, what was written since the last flush survives as
//! the die falls: nothing of it, a beginning, any part, or any part with single writes torn at 512 bytes. Crashes strike anywhere in a
//! commit, and inside the recovery from an earlier crash.
//!
//! The oracle knows the whole contents (every row of every table) before and after each commit. Whatever the crash left is opened
//! as the agent opens it, and must hold exactly the contents after the commit, if that had returned; before that, exactly the one
//! or the other. A file that refuses to open is a failure too. The same code on redb 4.1.0, in `tests/redb_4_1`, must fail.

use super::tables::{self, GARBAGE, Key, SNAPS, STORES};
use super::{BootRow, Change, Counters, Index, RunState, SnapRow, SnapState, Synced};
use crate::model::{Failure, Hash8, Missed, Off, Outcome, Priority, Quality, Seq, Skipped, Slot, SnapshotId, Stamp, StoreId};
use crate::protocol::{GapRange, Instant};
use redb::{ReadableTable, StorageBackend, TableHandle};
use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard},
};

/// A seeded source of chance; equal seeds give equal campaigns (SplitMix64, Steele and others 2014).
struct Chance(u64);
impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
    Flush,
}

#[derive(Debug, Default)]
struct Platter {
    /// What the program sees.
    live: Vec<u8>,
    /// What survives for certain as of the journal's beginning.
    durable: Vec<u8>,
    journal: Vec<Step>,
}

/// A disk with a volatile cache. Clones are the same disk.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

fn apply(image: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Length(len) => image.resize(*len, 0),
        Step::Write(at, data) => {
            let end = at + data.len();
            image.resize(image.len().max(end), 0);
            image[*at..end].copy_from_slice(data);
        }
        Step::Flush => {}
    }
}

impl Disk {
    fn of(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter { live: image.clone(), durable: image, journal: Vec::new() })))
    }
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
    fn steps(&self) -> usize {
        self.platter().journal.len()
    }
    /// Shortens the journal to what no flush has covered yet.
    fn settle(&self) {
        let mut platter = self.platter();
        let Some(flushed) = platter.journal.iter().rposition(|s| matches!(s, Step::Flush)) else { return };
        let open = platter.journal.split_off(flushed + 1);
        let covered = std::mem::replace(&mut platter.journal, open);
        for step in &covered {
            apply(&mut platter.durable, step);
        }
    }
    /// What is found after a power cut right before step `at`.
    fn cut(&self, at: usize, chance: &mut Chance) -> Vec<u8> {
        let platter = self.platter();
        let before = &platter.journal[..at];
        let flushed = before.iter().rposition(|s| matches!(s, Step::Flush)).map_or(0, |i| i + 1);
        let mut image = platter.durable.clone();
        for step in &before[..flushed] {
            apply(&mut image, step);
        }
        let open = &before[flushed..];
        match chance.below(4) {
            0 => {}
            1 => open[..chance.below(open.len() + 1)].iter().for_each(|step| apply(&mut image, step)),
            2 => open.iter().filter(|_| chance.one_in(2)).for_each(|step| apply(&mut image, step)),
            _ => {
                for step in open {
                    match step {
                        _ if chance.one_in(4) => {}
                        Step::Write(at, data) => {
                            for (i, sector) in data.chunks(512).enumerate().filter(|_| chance.one_in(2)) {
                                apply(&mut image, &Step::Write(at + i * 512, sector.to_vec()));
                            }
                        }
                        other => apply(&mut image, other),
                    }
                }
            }
        }
        image
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().live.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (platter, at) = (self.platter(), offset as usize);
        out.copy_from_slice(platter.live.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(Step::Length(len as usize));
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.note(Step::Flush);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Step::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}
impl Disk {
    fn note(&self, step: Step) {
        let mut platter = self.platter();
        apply(&mut platter.live, &step);
        platter.journal.push(step);
    }
}

/// Every row of every table, as bytes.
type Contents = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

fn contents(index: &Index) -> Result<Contents, redb::Error> {
    let txn = index.read()?;
    let mut all = Contents::new();
    tables::each_table!(|table| {
        let mut rows = Vec::new();
        for entry in txn.open_table(table)?.iter()? {
            let (key, value) = entry?;
            rows.push((bytes_of(&table, &key), value_bytes_of(&table, &value)));
        }
        all.insert(table.name().to_owned(), rows);
    });
    let there = txn.list_tables()?.count();
    assert_eq!(there, all.len(), "a table that the oracle does not look at");
    Ok(all)
}
fn bytes_of<K: redb::Key + 'static, V: redb::Value + 'static>(
    _: &redb::TableDefinition<'_, K, V>,
    key: &redb::AccessGuard<'_, K>,
) -> Vec<u8> {
    K::as_bytes(&key.value()).as_ref().to_vec()
}
fn value_bytes_of<K: redb::Key + 'static, V: redb::Value + 'static>(
    _: &redb::TableDefinition<'_, K, V>,
    value: &redb::AccessGuard<'_, V>,
) -> Vec<u8> {
    V::as_bytes(&value.value()).as_ref().to_vec()
}

const CAMERAS: [&str; 3] = ["gate", "river", "mast"];

/// A change as the writer makes them, fit for what the index holds.
fn change(index: &Index, counters: &Counters, chance: &mut Chance) -> Result<Change, redb::Error> {
    let mut change = Change::default();
    let txn = index.read()?;
    let known: Vec<(Key, SnapRow)> = {
        let rows = txn.open_table(SNAPS)?;
        let all = rows.iter()?.map(|e| e.map(|(k, v)| (k.value(), v.value().to_vec())));
        let all: Vec<(Key, Vec<u8>)> = all.collect::<Result<_, _>>()?;
        all.into_iter().filter(|_| chance.one_in(3)).map(|(key, v)| Ok((key, super::rows::row(&v)?))).collect::<Result<_, redb::Error>>()?
    };
    if txn.open_table(STORES)?.iter()?.next().is_none() || chance.one_in(40) {
        change.new_store = Some((counters.ord + 1, StoreId(chance.next()), "board".into()));
        change.run = Some(RunState::Running { boot: 1 });
        return Ok(change);
    }
    let schedule = |i: usize| CAMERAS[i].parse().unwrap();
    let due_ms = |seq: u64| seq * 1_000;
    for n in 0..[0, 1, 1, 1, 2, 5, 8][chance.below(7)] {
        let (seq, camera) = (counters.next_seq + n, chance.below(3));
        let slot = Slot { schedule: schedule(camera), boot: 1, due_ms: due_ms(seq), plan_ms: chance.one_in(2).then_some(seq as i64) };
        let taken = Stamp { boot: 1, boottime_ms: due_ms(seq) + 7, wall_ms: 0, quality: Quality::Saved, uncertainty_ms: None };
        let row = SnapRow {
            camera: CAMERAS[camera].parse().unwrap(),
            bytes: 1 + chance.below(200_000) as u64,
            hash8: Hash8(chance.next()),
            taken,
            slots: if chance.one_in(10) { vec![] } else { vec![slot] },
            width: 1_920,
            height: 1_080,
            source: "pattern".into(),
            flags: vec!["dark".into(); chance.below(2)],
            state: [SnapState::Acknowledged, SnapState::Ask, SnapState::Pending, SnapState::Pending][chance.below(4)],
            priority: [Priority::Normal, Priority::Normal, Priority::High, Priority::Low][chance.below(4)],
        };
        change.snaps.push(((counters.ord, seq), row));
    }
    for (key, row) in &known {
        match chance.below(6) {
            0 | 1 => change.acks.push((*key, row.hash8)),
            2 if row.state == SnapState::Acknowledged => change.deletes.push((*key, "older than keep.age")),
            3 if chance.one_in(4) => change.wanted.push(*key),
            4 if chance.one_in(4) => change.corrupt.push((*key, "the hash does not match".into())),
            _ => {}
        }
    }
    if let Some(range) = index.to_ask(8)?.filter(|_| chance.one_in(4)) {
        change.answered.push(range);
    }
    if chance.one_in(12) {
        change.rebuild = Some(chance.one_in(2).then(|| chance.next()));
    }
    if chance.one_in(2) {
        let garbage = txn.open_table(GARBAGE)?;
        change.garbage_gone = garbage.iter()?.map(|e| e.map(|(k, _)| k.value().into())).collect::<Result<_, _>>()?;
    }
    for (key, _) in &known {
        if chance.one_in(20) {
            change.pins.push((*key, chance.one_in(2)));
        }
    }
    for _ in 0..[0, 0, 1, 4][chance.below(4)] {
        let slot = Slot { schedule: schedule(chance.below(3)), boot: 1, due_ms: chance.next() % 9 * 1_000_000, plan_ms: None };
        let outcome = match chance.below(4) {
            0 => Outcome::Failed { reason: Failure::new("timeout", "the camera did not answer") },
            1 => Outcome::Missed { reason: Missed::Busy },
            2 => Outcome::Skipped { reason: Skipped::Full },
            _ => Outcome::Captured { id: SnapshotId { store: counters.store, seq: Seq(chance.next() % 99) }, late_ms: 3 },
        };
        change.outcomes.push((slot, outcome));
    }
    if chance.one_in(6) {
        let from = Instant { boot: 1, due_ms: chance.next() % 9_000_000, wall_ms: None };
        let to = Instant { due_ms: from.due_ms + 60_000, ..from };
        let outcome = Outcome::Off { reason: Off::Crash };
        change.ranges.push(GapRange { schedule: schedule(chance.below(3)), from, to, outcome, count: Some(60) });
    }
    if chance.one_in(5) {
        change.gaps_acked = chance.next() % counters.next_gap.max(1);
    }
    if chance.one_in(6) {
        change.retimed = Some(((counters.ord, chance.next() % counters.next_seq.max(1)), chance.one_in(2)));
    }
    if chance.one_in(3) {
        change.cursors.insert(schedule(chance.below(3)), (!chance.one_in(9)).then(|| chance.next().to_le_bytes().to_vec()));
    }
    if chance.one_in(9) {
        let boot =
            BootRow { boot_id: "b".into(), offset_ms: chance.next() as i64, quality: Quality::Ntp, first_ms: 0, last_ms: chance.next() };
        change.boot = Some((1, boot));
        let synced = Synced { at_ms: 1, offset_ms: chance.next() as i64, quality: Quality::Ntp, uncertainty_ms: None };
        change.synced = Some((1 + chance.below(3) as u32, synced));
        change.trusted_ms = Some(chance.next() as i64);
    }
    Ok(change)
}

#[derive(Debug, Default)]
struct Counts {
    commits: usize,
    crashes: usize,
    /// Of these: before the commit had returned, with something written.
    in_flight: usize,
    in_recovery: usize,
    /// In flight, and found whole.
    came_through: usize,
}

/// When a commit counts as returned; `TooEarly` is wrong on purpose.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    AfterTheLastFlush,
    TooEarly,
}

/// Opens what a crash left, perhaps with more crashes on the way, and compares.
fn survives(
    mut image: Vec<u8>,
    allowed: &[&Contents],
    chance: &mut Chance,
    counts: &mut Counts,
) -> Result<(Disk, Index, Contents), String> {
    loop {
        let disk = Disk::of(image);
        let opened = catch_unwind(AssertUnwindSafe(|| Index::on(disk.clone())));
        let index = opened.map_err(|_| "panics at the opening".to_owned())?.map_err(|e| format!("refuses to open: {e}"))?;
        if disk.steps() > 0 && chance.one_in(12) {
            drop(index);
            counts.crashes += 1;
            counts.in_recovery += 1;
            let at = chance.below(disk.steps() + 1);
            image = disk.cut(at, chance);
            continue;
        }
        let found = contents(&index).map_err(|e| format!("cannot be read: {e}"))?;
        if !allowed.contains(&&found) {
            let of = |all: &Contents| all.iter().map(|(table, rows)| format!("{table} {}", rows.len())).collect::<Vec<_>>().join(", ");
            return Err(format!("holds {}; allowed: {}", of(&found), allowed.iter().map(|a| of(a)).collect::<Vec<_>>().join(" or ")));
        }
        return Ok((disk, index, found));
    }
}

fn campaign(seed: u64, crashes: usize, answer: Answer) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut chance = Chance(seed);
    let fresh = || Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
    while counts.crashes < crashes {
        // A life: one index from its birth on, over many cuts.
        let said = |e: redb::Error| format!("without any crash: {e}");
        let mut disk = Disk::default();
        let mut index = Index::on(disk.clone()).map_err(said)?;
        let mut now = contents(&index).map_err(said)?;
        let mut counters = fresh();
        for _ in 0..60 {
            disk.settle();
            let change = change(&index, &counters, &mut chance).map_err(said)?;
            let before = disk.steps();
            let kept = counters.clone();
            index.commit(&change, &mut counters, true).map_err(said)?;
            counts.commits += 1;
            let then = contents(&index).map_err(said)?;
            let steps = disk.steps();
            let mut next = None;
            for _ in 0..4 {
                let at = before + chance.below(steps - before + 1);
                counts.crashes += 1;
                let returned = match answer {
                    Answer::AfterTheLastFlush => at == steps,
                    Answer::TooEarly => at + 2 >= steps,
                };
                counts.in_flight += usize::from(at > before && !returned);
                let either: [&Contents; 2] = [&then, &now];
                let image = disk.cut(at, &mut chance);
                let (disk, index, found) =
                    survives(image, &either[..if returned { 1 } else { 2 }], &mut chance, &mut counts).map_err(|e| {
                        format!("seed {seed}, crash {}, before step {} of {}: {e}", counts.crashes, at - before, steps - before)
                    })?;
                counts.came_through += usize::from(!returned && found == then && then != now);
                if chance.one_in(24) {
                    next = Some((disk, index, found));
                }
            }
            // Life goes on, now and then from what a crash left.
            match next {
                None => now = then,
                Some(left) => {
                    (disk, index, now) = left;
                    if now != then {
                        counters = kept;
                    }
                }
            }
        }
    }
    Ok(counts)
}

/// Everything the ledger says of one schedule: slot by slot, and summed up by the days.
#[cfg(not(redb_4_1))]
mod ledger {
    use super::*;
    use crate::model::{ASK_SPAN_MAX, OUTCOME_ROWS_MAX, RANGE_ROWS_MAX, ScheduleId};
    use redb::ReadableTableMetadata;

    const DAY_MS: u64 = 86_400_000;

    fn commit(index: &Index, counters: &mut Counters, outcomes: Vec<(Slot, Outcome)>, captured: Option<(u64, Slot)>) {
        let mut change = Change { outcomes, ..Change::default() };
        if counters.ord == 0 {
            change.new_store = Some((1, StoreId(9), "board".into()));
            let row = BootRow { boot_id: "b".into(), offset_ms: 0, quality: Quality::Ntp, first_ms: 0, last_ms: 0 };
            change.boot = Some((1, row));
        }
        if let Some((seq, slot)) = captured {
            let taken = Stamp { boot: 1, boottime_ms: slot.due_ms + 5, wall_ms: 0, quality: Quality::Ntp, uncertainty_ms: None };
            let row = SnapRow {
                camera: "gate".parse().unwrap(),
                bytes: 1,
                hash8: Hash8(seq),
                taken,
                slots: vec![slot],
                width: 1,
                height: 1,
                source: "pattern".into(),
                flags: vec![],
                state: SnapState::Pending,
                priority: Priority::Normal,
            };
            change.snaps.push(((1, seq), row));
        }
        index.commit(&change, counters, false).unwrap();
    }

    /// Random ends of slots, in order and late, some twice, some found captured afterwards: every slot has the outcome that counts, and
    /// the days sum up to exactly that.
    #[test]
    fn the_days_sum_up_what_the_slots_say_and_nothing_is_counted_twice() {
        let schedule: ScheduleId = "gate-5m".parse().unwrap();
        let ways = [
            Outcome::Failed { reason: Failure::new("timeout", "no answer") },
            Outcome::Failed { reason: Failure::new("timeout", "no answer, in other words") },
            Outcome::Failed { reason: Failure::new("refused", "no") },
            Outcome::Missed { reason: Missed::Busy },
            Outcome::Off { reason: Off::Stop },
        ];
        for seed in 1..=200 {
            let mut chance = Chance(seed);
            let index = Index::on(Disk::default()).unwrap();
            let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
            let mut model: BTreeMap<u64, Outcome> = BTreeMap::new();
            // Slots around midnight, so that ranges cross it.
            let due = |i: u64| 3 * DAY_MS - 30 * 300_000 + i * 300_000;
            let mut way = 0;
            for i in 0..60 {
                if chance.one_in(5) {
                    way = chance.below(ways.len() + 1);
                }
                let i = if chance.one_in(8) { chance.below(60) as u64 } else { i };
                let slot = Slot { schedule: schedule.clone(), boot: 1, due_ms: due(i), plan_ms: None };
                match ways.get(way) {
                    Some(outcome) => {
                        commit(&index, &mut counters, vec![(slot.clone(), outcome.clone())], None);
                        model.entry(slot.due_ms).or_insert_with(|| outcome.clone());
                    }
                    None => {
                        let seq = counters.next_seq;
                        commit(&index, &mut counters, vec![], Some((seq, slot.clone())));
                        let captured = Outcome::Captured { id: SnapshotId { store: StoreId(9), seq: Seq(seq) }, late_ms: 5 };
                        let known = model.entry(slot.due_ms).or_insert_with(|| captured.clone());
                        if !matches!(known, Outcome::Captured { .. }) {
                            *known = captured;
                        }
                    }
                }
            }
            let labels = |all: Vec<(u64, Outcome)>| all.into_iter().map(|(due, o)| (due, o.label())).collect::<Vec<_>>();
            let wanted = labels(model.clone().into_iter().collect());
            assert_eq!(labels(index.outcomes(&schedule, 1, 0, u64::MAX).unwrap()), wanted, "seed {seed}");
            for (due, outcome) in &model {
                let told = index.outcome(&schedule, 1, *due).unwrap().unwrap();
                assert_eq!(told.label(), outcome.label(), "seed {seed}, slot {due}");
            }
            let mut sums: BTreeMap<(i32, String), u64> = BTreeMap::new();
            for (due, label) in wanted {
                *sums.entry(((due / DAY_MS) as i32, label)).or_default() += 1;
            }
            let mut told = BTreeMap::new();
            for (name, unsure, day, counts) in index.days(i32::MIN).unwrap() {
                assert!(name == schedule.as_str() && !unsure);
                told.extend(counts.into_iter().map(|(label, n)| ((day, label), n)));
            }
            assert_eq!(told, sums, "seed {seed}");
        }
    }

    #[test]
    fn old_days_go_by_todays_date_and_not_by_what_a_slot_claims() {
        let index = Index::on(Disk::default()).unwrap();
        let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
        let missed = |day: u64, plan_ms| {
            let slot = Slot { schedule: "gate-5m".parse().unwrap(), boot: 1, due_ms: day * DAY_MS, plan_ms };
            vec![(slot, Outcome::Missed { reason: Missed::Busy })]
        };
        let days = |index: &Index| index.days(i32::MIN).unwrap().into_iter().map(|(_, _, day, _)| day).collect::<Vec<_>>();
        commit(&index, &mut counters, missed(0, None), None);
        commit(&index, &mut counters, missed(1, Some(40_000 * DAY_MS as i64)), None);
        assert_eq!(days(&index), [0, 40_000]);
        let row = BootRow { boot_id: "c".into(), offset_ms: 0, quality: Quality::Ntp, first_ms: 0, last_ms: 1_200 * DAY_MS };
        index.commit(&Change { boot: Some((2, row)), ..Change::default() }, &mut counters, false).unwrap();
        commit(&index, &mut counters, missed(1_200, None), None);
        assert_eq!(days(&index), [1_200, 40_000]);
    }

    #[test]
    fn a_camera_that_is_dead_for_a_month_costs_one_range() {
        let index = Index::on(Disk::default()).unwrap();
        let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
        let schedule: ScheduleId = "gate-5m".parse().unwrap();
        let outcome = Outcome::Failed { reason: Failure::new("timeout", "no answer") };
        for chunk in (0..8_640_u64).collect::<Vec<_>>().chunks(100) {
            let slots = chunk.iter().map(|i| Slot { schedule: schedule.clone(), boot: 1, due_ms: i * 300_000, plan_ms: None });
            commit(&index, &mut counters, slots.map(|slot| (slot, outcome.clone())).collect(), None);
        }
        let all = contents(&index).unwrap();
        let days = index.days(i32::MIN).unwrap();
        assert_eq!((all["outcomes"].len(), all["ranges"].len(), days.len()), (0, 1, 30));
        assert_eq!(index.outcomes(&schedule, 1, 0, u64::MAX).unwrap().len(), 8_640);
        assert_eq!(index.days(29).unwrap()[0].3["failed: timeout"], 288);
    }

    /// More milliseconds apart than a 32-bit board can count in one word.
    #[test]
    fn slots_two_months_apart_are_told_where_they_were() {
        let index = Index::in_memory().unwrap();
        let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
        let schedule: ScheduleId = "season".parse().unwrap();
        let due = [1_000, 1_000 + 60 * DAY_MS, 1_000 + 120 * DAY_MS];
        let at = |due_ms| Instant { boot: 1, due_ms, wall_ms: None };
        let outcome = Outcome::Off { reason: Off::Crash };
        let range = GapRange { schedule: schedule.clone(), from: at(due[0]), to: at(due[2]), outcome, count: Some(3) };
        index.commit(&Change { ranges: vec![range], ..Change::default() }, &mut counters, false).unwrap();
        let told = |from| index.outcomes(&schedule, 1, from, u64::MAX).unwrap().into_iter().map(|(due_ms, _)| due_ms).collect::<Vec<_>>();
        assert_eq!((told(0), told(1_001)), (due.to_vec(), due[1..].to_vec()));
    }

    /// The hub answers with all it has between two numbers: of an archive that was thinned out that may be a year.
    #[test]
    fn a_question_to_the_hub_spans_no_more_numbers_than_it_can_answer() {
        let index = Index::in_memory().unwrap();
        let txn = index.begin().unwrap();
        let keys = [1, 2, ASK_SPAN_MAX, ASK_SPAN_MAX + 1, u64::MAX].map(|seq| (7, seq));
        for key in keys {
            txn.open_table(tables::ASK).unwrap().insert(key, ()).unwrap();
        }
        txn.commit().unwrap();
        assert_eq!(index.to_ask(256).unwrap(), Some((keys[0], keys[2])));
        assert_eq!(index.to_ask(2).unwrap(), Some((keys[0], keys[1])));
    }

    /// A new schedule must not pay for those that have filled the tables.
    #[test]
    fn a_full_ledger_forgets_the_oldest_and_not_the_newcomer() {
        let index = Index::in_memory().unwrap();
        let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
        let slot = |name: &str, boot, due_ms| Slot { schedule: name.parse().unwrap(), boot, due_ms, plan_ms: None };
        let off = Outcome::Off { reason: Off::Crash };
        let range = |name: &str, boot, due_ms| {
            let at = |due_ms| Instant { boot, due_ms, wall_ms: None };
            let (from, to) = (at(due_ms), at(due_ms + 1));
            GapRange { schedule: name.parse().unwrap(), from, to, outcome: off.clone(), count: Some(2) }
        };
        let txn = index.begin().unwrap();
        {
            let bytes = postcard::to_stdvec(&off).unwrap();
            let mut outcomes = txn.open_table(tables::OUTCOMES).unwrap();
            (0..OUTCOME_ROWS_MAX).for_each(|n| drop(outcomes.insert((["fast", "slow"][n as usize % 2], 1, n), bytes.as_slice()).unwrap()));
            let mut ranges = txn.open_table(tables::RANGES).unwrap();
            for n in 0..RANGE_ROWS_MAX {
                let bytes = postcard::to_stdvec(&range("fast", 1, n * 10)).unwrap();
                ranges.insert(("fast", 1, n * 10), bytes.as_slice()).unwrap();
            }
        }
        txn.commit().unwrap();
        for n in 0..3 {
            commit(&index, &mut counters, vec![], Some((n + 1, slot("new", 2, n * 1_000))));
            let ranges = vec![range("new", 2, 500 + n * 1_000)];
            index.commit(&Change { ranges, ..Change::default() }, &mut counters, false).unwrap();
        }
        let new: Vec<_> =
            index.outcomes(&"new".parse().unwrap(), 2, 0, u64::MAX).unwrap().into_iter().map(|(due, o)| (due, o.label())).collect();
        let captured = new.iter().filter(|(due, label)| due % 1_000 == 0 && label == "captured").count();
        assert_eq!((captured, new.len()), (3, 9), "{new:?}");
        let txn = index.read().unwrap();
        let (outcomes, ranges) = (txn.open_table(tables::OUTCOMES).unwrap(), txn.open_table(tables::RANGES).unwrap());
        assert_eq!((outcomes.len().unwrap(), ranges.len().unwrap()), (OUTCOME_ROWS_MAX, RANGE_ROWS_MAX));
        for (name, due_ms) in [("fast", 0), ("slow", 1), ("fast", 2)] {
            assert!(outcomes.get((name, 1, due_ms)).unwrap().is_none(), "{name} {due_ms} was the oldest");
        }
        assert!(outcomes.get(("slow", 1, 3)).unwrap().is_some() && ranges.get(("fast", 1, 30)).unwrap().is_some());
        assert!(ranges.get(("fast", 1, 20)).unwrap().is_none());
    }
}

#[cfg(not(redb_4_1))]
mod holds {
    use super::*;

    #[test]
    fn whatever_a_power_cut_leaves_opens_with_exactly_what_was_acknowledged() {
        // An hour of these is `make soak`.
        let seconds: Option<u64> = std::env::var("SHUTTER_SOAK_S").ok().map(|s| s.parse().unwrap());
        let began = std::time::Instant::now();
        let (mut seed, mut all) = (1, Counts::default());
        while all.crashes < 30_000 || seconds.is_some_and(|s| began.elapsed().as_secs() < s) {
            let some = campaign(seed, 1_000, Answer::AfterTheLastFlush).unwrap();
            all.crashes += some.crashes;
            all.commits += some.commits;
            all.in_flight += some.in_flight;
            all.in_recovery += some.in_recovery;
            all.came_through += some.came_through;
            seed += 1;
        }
        eprintln!("index: {all:?}, lost 0, refused to open 0, seeds 1 to {}, {:?}", seed - 1, began.elapsed());
        assert!(all.in_flight * 5 >= all.crashes && all.in_recovery * 50 >= all.crashes, "{all:?}");
        assert!(all.came_through > 0, "some commits in flight are found whole");
    }

    /// Cut short, or with a bit turned over anywhere: it is refused, or the contents are right. No panic, nothing silently wrong.
    #[test]
    fn a_damaged_file_is_refused_or_right() {
        let mut chance = Chance(7);
        let disk = Disk::default();
        let index = Index::on(disk.clone()).unwrap();
        let mut counters = Counters { ord: 0, store: StoreId(0), next_seq: 1, next_gap: 1, totals: BTreeMap::new() };
        for _ in 0..60 {
            let change = change(&index, &counters, &mut chance).unwrap();
            index.commit(&change, &mut counters, true).unwrap();
        }
        let right = contents(&index).unwrap();
        drop(index);
        let image = disk.platter().live.clone();
        let (mut refused, mut good) = (0, 0);
        for i in 0..600 {
            let mut damaged = image.clone();
            if i < 100 {
                damaged.truncate(chance.below(image.len()));
            } else {
                let at = chance.below(image.len());
                damaged[at] ^= 1 << chance.below(8);
            }
            match Index::on(Disk::of(damaged)).and_then(|index| contents(&index)) {
                // An empty file is a new one; the store looks at that before it opens.
                Ok(found) if found == right => good += 1,
                Ok(found) => panic!("damage {i} went unseen: {found:?}"),
                Err(_) => refused += 1,
            }
        }
        eprintln!("index, damaged: {refused} refused, {good} right, 0 silently wrong");
        assert!(refused > 100 && good > 0);
    }

    #[test]
    fn an_answer_before_the_last_flush_is_found_out() {
        let told = campaign(1, 2_000, Answer::TooEarly).unwrap_err();
        eprintln!("control, answer before the last flush: {told}");
        assert!(told.contains("allowed"), "{told}");
    }
}

/// Ends with the first complaint: after 10,000 to 25,000 crashes, mostly.
#[cfg(redb_4_1)]
#[test]
fn redb_4_1_is_found_out() {
    let told = (1..=150).find_map(|seed| campaign(seed, 1_000, Answer::AfterTheLastFlush).err().map(|e| format!("seed {seed}: {e}")));
    eprintln!("control, redb 4.1.0: {told:?}");
    assert!(told.is_some(), "150,000 crashes and no complaint: this harness proves nothing");
}
