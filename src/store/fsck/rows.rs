//! Whether the tables of the index agree with each other.
//!
//! A row is true; the lists (by camera, to be sent, to be asked, to be deleted) must name exactly the rows that belong
//! into them, and totals and days must be their sums.

use super::progress::Progress;
use crate::model::{DAYS_KEPT, OUTCOME_ROWS_MAX, Outcome, Seq, SnapshotId, StoreId};
use crate::protocol::{Gap, GapRange, UNKNOWN};
use crate::store::findings::Check;
use crate::store::index::tables::{
    ASK, BOOTS, BY_CAMERA, CURSORS, ERASURES, FREE, GAPS, GARBAGE, Key, OUTCOMES, PINS, RANGES, SNAPS, STATE, day_of, days_from, part,
    pending_key, pending_of, values,
};
use crate::store::index::{
    BUILT, BootRow, Built, Counters, DayRow, Erasure, Index, RETIMED, SYNCED, SnapRow, SnapState, Synced, Totals, known, row, step_of,
};
use crate::store::path::{is_ours, path_of};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The index under examination.
pub struct Rows<'a> {
    pub index: &'a Index,
    pub counters: &'a Counters,
    pub stores: BTreeMap<u32, StoreId>,
}

type Found = Result<Check, redb::Error>;

impl Rows<'_> {
    pub fn check(&self, progress: &mut Progress) -> Result<Vec<Check>, redb::Error> {
        let txn = self.index.read()?;
        let mut checks = vec![self.stores(&txn)?, self.times(&txn)?];
        checks.extend(self.snaps(&txn, progress)?);
        checks.push(self.lists(&txn)?);
        checks.push(self.outcomes(&txn, progress)?);
        checks.push(days(&txn)?);
        checks.push(self.gaps(&txn)?);
        checks.push(self.deletions(&txn)?);
        Ok(checks)
    }

    /// What a picture is called; its place in the index where that names no known store.
    fn name(&self, (ord, seq): Key) -> String {
        match self.stores.get(&ord) {
            Some(store) => SnapshotId { store: *store, seq: Seq(seq) }.to_string(),
            None => format!("number {seq} of the unknown store {ord}"),
        }
    }

    fn stores(&self, txn: &ReadTransaction) -> Found {
        let mut check = Check::new("store ids", "each of its own, the present one among them");
        check.count = self.stores.len() as u64;
        let distinct: BTreeSet<_> = self.stores.values().collect();
        if distinct.len() != self.stores.len() {
            check.problem("one store id stands for two incarnations: a picture's id does not tell which one is meant");
        }
        if !self.stores.contains_key(&self.counters.ord) {
            check.problem(format!("the present incarnation ({}) has no store id: new pictures would have no name", self.counters.ord));
        }
        for key in ["next_seq", "next_gap"] {
            if self.index.value::<u64>(key)?.is_none_or(|next| next == 0) {
                check.problem(format!("`{key}` is missing: numbers would be given a second time"));
            }
        }
        if self.index.meta::<String>("board")?.is_none() {
            check.problem("the board that this store belongs to is not on record: the next start begins a new store id");
        }
        for entry in txn.open_table(BOOTS)?.iter()? {
            let (no, value) = entry?;
            if row::<BootRow>(value.value()).is_err() {
                check.problem(format!("the row of boot {} cannot be read: the agent does not start with it", no.value()));
            }
        }
        // Planner memories are the agent's; here only their keys must be names.
        for entry in txn.open_table(STATE)?.range(part(CURSORS))? {
            let schedule = entry?.0.value().3.to_owned();
            if schedule.parse::<crate::model::ScheduleId>().is_err() {
                check.problem(format!("a planner memory belongs to {schedule:?}, which is no schedule"));
            }
        }
        Ok(check)
    }

    /// What gives pictures their time.
    fn times(&self, txn: &ReadTransaction) -> Found {
        let mut check = Check::new("times of boots", "each by one trusted reading of its own");
        let boots = txn.open_table(BOOTS)?;
        for entry in txn.open_table(STATE)?.range(values())? {
            let (key, value) = entry?;
            let (_, boot, _, name) = key.value();
            let readable = match name {
                SYNCED => row::<Synced>(value.value()).map(|synced| synced.quality.trusted()),
                BUILT => row::<Built>(value.value()).map(|_| true),
                RETIMED => row::<Key>(value.value()).map(|_| true),
                _ => continue,
            };
            check.count += 1;
            match readable {
                Err(_) => check.problem(format!("`{name}` of boot {boot} cannot be read: the agent does not start with it")),
                Ok(false) => {
                    check.problem(format!("the time of boot {boot} is by a clock that was not trusted: its pictures show it as true"))
                }
                Ok(true) if name != RETIMED && boots.get(boot)?.is_none() => {
                    check.problem(format!("`{name}` belongs to boot {boot}, which has no row"));
                }
                Ok(true) => {}
            }
        }
        Ok(check)
    }

    /// Every row, what must name it, and what rows add up to.
    fn snaps(&self, txn: &ReadTransaction, progress: &mut Progress) -> Result<[Check; 3], redb::Error> {
        let mut check = Check::new("rows", "all readable, all in their lists");
        let mut slots = Check::new("slots with a picture", "all on record as captured");
        let mut sums = Check::new("totals", "as the rows add up");
        let (snaps, by_camera) = (txn.open_table(SNAPS)?, txn.open_table(BY_CAMERA)?);
        let (pending, ask, free) = (txn.open_table(STATE)?, txn.open_table(ASK)?, txn.open_table(FREE)?);
        let (pins, outcomes, ranges) = (txn.open_table(PINS)?, txn.open_table(OUTCOMES)?, txn.open_table(RANGES)?);
        let all_outcomes = outcomes.len()? < OUTCOME_ROWS_MAX;
        let mut totals: BTreeMap<_, Totals> = BTreeMap::new();
        let of = snaps.len()?;
        for entry in snaps.iter()? {
            let (key, value) = entry?;
            let key = key.value();
            check.count += 1;
            progress.at("rows", check.count, of);
            let name = self.name(key);
            let Ok(snap) = row::<SnapRow>(value.value()) else {
                check.problem(format!("{name}: its row cannot be read, so neither can its picture be found"));
                continue;
            };
            let (ord, seq) = key;
            if !self.stores.contains_key(&ord) {
                check.problem(format!("{name}: its store has no id, so nobody can ask for it"));
            }
            if seq >= self.counters.next_seq {
                check.problem(format!("{name}: its number will be given again (next is {})", self.counters.next_seq));
            }
            let camera = snap.camera.as_str();
            if by_camera.get((camera, ord, seq))?.is_none() {
                check.problem(format!("{name} is missing among the pictures of camera {camera}: neither shown nor deleted in its turn"));
            }
            for slot in &snap.slots {
                slots.count += 1;
                let known = match known(&outcomes, &ranges, slot.schedule.as_str(), slot.boot, slot.due_ms) {
                    // Told of among the outcomes.
                    Err(redb::Error::Corrupted(_)) => continue,
                    known => known?,
                };
                if all_outcomes && !matches!(known, Some(Outcome::Captured { .. })) {
                    let due = format!("{} in boot {} at {} ms", slot.schedule, slot.boot, slot.due_ms);
                    slots.problem(format!("{name} was taken for slot {due}, which is not on record as captured"));
                }
            }
            let pinned = pins.get(key)?.is_some();
            let may_go = matches!(snap.state, SnapState::Acknowledged | SnapState::Corrupt) && !pinned;
            if snap.state == SnapState::Pending && pending.get(pending_key((snap.priority.class(), ord, seq)))?.is_none() {
                check.problem(format!("{name} is not among those to be sent, and the hub has not got it: it would never be sent"));
            }
            if snap.state == SnapState::Ask && ask.get(key)?.is_none() {
                check.problem(format!("{name} is not among those the hub is to be asked about: it would never be sent"));
            }
            if may_go && free.get((camera, ord, seq))?.is_none() {
                check.problem(format!("{name} may be deleted but is not among those: it would fill the disk for ever"));
            }
            let total = totals.entry(snap.camera).or_default();
            (total.count, total.bytes) = (total.count + 1, total.bytes.saturating_add(snap.bytes));
            if matches!(snap.state, SnapState::Pending | SnapState::Ask) {
                (total.pending, total.pending_bytes) = (total.pending + 1, total.pending_bytes.saturating_add(snap.bytes));
            }
        }
        sums.count = totals.len() as u64;
        for camera in totals.keys().chain(self.counters.totals.keys()).collect::<BTreeSet<_>>() {
            let (counted, said) = (totals.get(camera).copied().unwrap_or_default(), self.counters.totals.get(camera).copied());
            let said = said.unwrap_or_default();
            if counted != said {
                let words = |t: Totals| format!("{} pictures, {} bytes, {} of them not at the hub", t.count, t.bytes, t.pending);
                sums.problem(format!("camera {camera}: the index says {}; its rows are {}: quotas go wrong", words(said), words(counted)));
            }
        }
        Ok([check, slots, sums])
    }

    /// Nothing in a list that does not belong there.
    fn lists(&self, txn: &ReadTransaction) -> Found {
        let mut check = Check::new("entries of lists", "all of pictures that belong there");
        let (snaps, pins) = (txn.open_table(SNAPS)?, txn.open_table(PINS)?);
        let snap = |key: Key| -> Result<Option<SnapRow>, redb::Error> { Ok(snaps.get(key)?.and_then(|value| row(value.value()).ok())) };
        let mut judge = |key: Key, list: &str, belongs: bool| {
            check.count += 1;
            if !belongs {
                check.problem(format!("{} stands {list}, where it does not belong", self.name(key)));
            }
        };
        for entry in txn.open_table(BY_CAMERA)?.iter()? {
            let entry = entry?.0;
            let (name, ord, seq) = entry.value();
            judge(
                (ord, seq),
                &format!("among the pictures of camera {name}"),
                snap((ord, seq))?.is_some_and(|s| s.camera.as_str() == name),
            );
        }
        for entry in txn.open_table(STATE)?.range(pending_key((0, 0, 0))..)? {
            let (class, ord, seq) = pending_of(entry?.0.value());
            let belongs = snap((ord, seq))?.is_some_and(|s| s.state == SnapState::Pending && s.priority.class() == class);
            judge((ord, seq), "among those to be sent", belongs);
        }
        for entry in txn.open_table(ASK)?.iter()? {
            let key = entry?.0.value();
            judge(key, "among those the hub is asked about", snap(key)?.is_some_and(|s| s.state == SnapState::Ask));
        }
        for entry in txn.open_table(FREE)?.iter()? {
            let (key, bytes) = entry?;
            let (name, ord, seq) = key.value();
            let belongs = snap((ord, seq))?.is_some_and(|s| {
                matches!(s.state, SnapState::Acknowledged | SnapState::Corrupt) && s.camera.as_str() == name && s.bytes == bytes.value()
            });
            let pinned = pins.get((ord, seq))?.is_some();
            judge((ord, seq), "among those that may be deleted", belongs && !pinned);
        }
        for entry in pins.iter()? {
            let (key, bytes) = entry?;
            judge(key.value(), "among the pinned", snap(key.value())?.is_some_and(|s| s.bytes == bytes.value()));
        }
        Ok(check)
    }

    fn outcomes(&self, txn: &ReadTransaction, progress: &mut Progress) -> Found {
        let mut check = Check::new("outcomes of slots", "all readable, no picture named that was never numbered");
        let outcomes = txn.open_table(OUTCOMES)?;
        let of = outcomes.len()?;
        if of > OUTCOME_ROWS_MAX {
            check.problem(format!("there are more than the {OUTCOME_ROWS_MAX} that are kept"));
        }
        for entry in outcomes.iter()? {
            let (key, value) = entry?;
            let (schedule, boot, due_ms) = key.value();
            check.count += 1;
            progress.at("outcomes", check.count, of);
            let slot = format!("slot {schedule} in boot {boot} at {due_ms} ms");
            match row::<Outcome>(value.value()) {
                Err(_) => check.problem(format!("{slot}: what became of it cannot be read")),
                Ok(Outcome::Captured { id, .. }) if !self.stores.values().any(|store| *store == id.store) => {
                    check.problem(format!("{slot}: captured as {id}, which is of a store that this index does not know"));
                }
                Ok(Outcome::Captured { id, .. }) if id.seq.0 >= self.counters.next_seq => {
                    check.problem(format!("{slot}: captured as {id}, a number not given yet (next is {})", self.counters.next_seq));
                }
                Ok(_) => {}
            }
        }
        for entry in txn.open_table(RANGES)?.iter()? {
            let (key, value) = entry?;
            check.count += 1;
            let (schedule, boot, due_ms) = key.value();
            let good = row::<GapRange>(value.value())
                .is_ok_and(|range| (range.schedule.as_str(), range.from.boot, range.from.due_ms) == (schedule, boot, due_ms));
            if !good {
                check.problem(format!("the range of slots of {schedule} from {due_ms} ms in boot {boot} on cannot be read"));
            }
        }
        Ok(check)
    }

    /// Messages that the hub has not confirmed: numbered without a hole, up to the next one.
    fn gaps(&self, txn: &ReadTransaction) -> Found {
        let mut check = Check::new("messages of reasons for the hub", "numbered without a hole");
        let mut expected = None;
        for entry in txn.open_table(GAPS)?.iter()? {
            let (no, value) = entry?;
            let no = no.value();
            check.count += 1;
            if let Some(expected) = expected.filter(|expected| *expected != no) {
                check.problem(format!("message {expected} is missing: the hub would wait for it, or never learn what it says"));
            }
            expected = Some(no + 1);
            match serde_json::from_slice::<Gap>(value.value()) {
                Ok(gap) if gap.no == no && gap.store == self.counters.store => {}
                Ok(gap) => check.problem(format!("message {no} says that it is number {} of store {}", gap.no, gap.store)),
                Err(_) => check.problem(format!("message {no} cannot be read")),
            }
        }
        if expected.is_some_and(|expected| expected != self.counters.next_gap) {
            check.problem(format!("the next message is number {}, which does not follow the last one", self.counters.next_gap));
        }
        Ok(check)
    }

    /// Deletions under way, and erasures.
    fn deletions(&self, txn: &ReadTransaction) -> Found {
        let mut check = Check::new("deletions and erasures", "none of a picture that is to stay");
        let (snaps, garbage) = (txn.open_table(SNAPS)?, txn.open_table(GARBAGE)?);
        for entry in garbage.iter()? {
            let path = entry?.0.value().to_owned();
            check.count += 1;
            if !is_ours(Path::new(&path)) {
                check.problem(format!("{path:?} is to be deleted, which is no picture's place; it is left alone"));
            }
        }
        if check.count > 0 {
            check.note(format!("deletions that the next start finishes: {}", check.count));
        }
        for entry in snaps.iter()? {
            let (key, value) = entry?;
            if check.count == 0 {
                break;
            }
            let Ok(snap) = row::<SnapRow>(value.value()) else { continue };
            let path = path_of(&snap.camera, Seq(key.value().1), &snap.taken);
            if garbage.get(path.to_string_lossy().as_ref())?.is_some() {
                check.problem(format!("{}: its file is to be deleted at the next start although it has a row", self.name(key.value())));
            }
        }
        for entry in txn.open_table(ERASURES)?.iter()? {
            let (camera, value) = entry?;
            check.count += 1;
            match (camera.value().parse::<crate::model::CameraId>(), row::<Erasure>(value.value())) {
                (Ok(camera), Ok(erasure)) if !erasure.done => {
                    check.note(format!("the erasure of camera {camera} is under way; the agent goes on with it"));
                }
                (Ok(camera), Ok(erasure)) => {
                    if let [key, ..] = self.index.keys_upto(&camera, erasure.upto, 1)?.as_slice() {
                        check.problem(format!(
                            "{} is there although camera {camera} was erased up to number {}",
                            self.name(*key),
                            erasure.upto
                        ));
                    }
                }
                _ => check.problem(format!("an erasure of {:?} cannot be read", camera.value())),
            }
        }
        Ok(check)
    }
}

/// What one way to end is counted as, and in how many days.
#[derive(Default)]
struct Tally {
    on_record: i64,
    counted: u64,
}

/// The days against what is on record of single slots. Days may count more: what is on record has a bound.
fn days(txn: &ReadTransaction) -> Found {
    let mut check = Check::new("days of the ledger", "as their slots add up");
    let mut tallies: BTreeMap<(String, String), Tally> = BTreeMap::new();
    let (outcomes, ranges) = (txn.open_table(OUTCOMES)?, txn.open_table(RANGES)?);
    for entry in ranges.iter()? {
        let Ok(range) = row::<GapRange>(entry?.1.value()) else { continue };
        let label = range.outcome.label();
        let (label, count) = match range.count {
            Some(count) => (label, count as i64),
            None => (format!("{UNKNOWN}{label}"), 1),
        };
        tallies.entry((range.schedule.to_string(), label)).or_default().on_record += count;
    }
    for entry in outcomes.iter()? {
        let (key, value) = entry?;
        let (schedule, boot, due_ms) = key.value();
        let Ok(outcome) = row::<Outcome>(value.value()) else { continue };
        tallies.entry((schedule.to_owned(), outcome.label())).or_default().on_record += 1;
        // A picture found after its slot was given up: the range still spans it, the days do not count it twice.
        let last = ranges.range((schedule, boot, 0)..=(schedule, boot, due_ms))?.next_back().transpose()?;
        let given_up = last.and_then(|(_, value)| row::<GapRange>(value.value()).ok()).filter(|range| {
            let on_step = due_ms == range.from.due_ms
                || due_ms == range.to.due_ms
                || step_of(range).is_some_and(|step| (due_ms - range.from.due_ms).is_multiple_of(step));
            range.to.boot == boot && due_ms <= range.to.due_ms && on_step && range.count.is_some()
        });
        if let Some(range) = given_up {
            tallies.entry((schedule.to_owned(), range.outcome.label())).or_default().on_record -= 1;
        }
    }
    let trimmed = outcomes.len()? >= OUTCOME_ROWS_MAX;
    let mut spans: BTreeMap<String, (i32, i32)> = BTreeMap::new();
    let [unsure, sure] = days_from(i32::MIN);
    let state = txn.open_table(STATE)?;
    for entry in state.range(unsure)?.chain(state.range(sure)?) {
        let (key, value) = entry?;
        let (_, day, schedule) = day_of(key.value());
        check.count += 1;
        let Ok(counts) = row::<DayRow>(value.value()) else {
            check.problem(format!("day {day} of schedule {schedule} cannot be read"));
            continue;
        };
        let span = spans.entry(schedule.to_owned()).or_insert((day, day));
        *span = (span.0.min(day), span.1.max(day));
        for (label, count) in counts {
            tallies.entry((schedule.to_owned(), label)).or_default().counted += count;
        }
    }
    for ((schedule, label), Tally { on_record, counted }) in tallies {
        // Old days go; what they counted may still be on record.
        let days_gone = spans.get(&schedule).is_some_and(|(first, last)| last.saturating_sub(*first) >= DAYS_KEPT);
        let (on_record, counted_signed) = (on_record.max(0), counted as i64);
        let too_few = counted_signed < on_record && !days_gone;
        let too_many = counted_signed > on_record && !trimmed && label == "captured";
        if too_few || too_many {
            check.problem(format!("schedule {schedule}, {label}: the days count {counted}, on record are {on_record}: `report` is wrong"));
        }
    }
    Ok(check)
}
