//! The ledger's rows: what became of each slot, and what that sums up to per day.
//!
//! A slot has one outcome: a row of its own, or a place in a range. Slots that end one after the other in the same way become one
//! range, so a camera that is dead for a month costs a row and not ten thousand. Captured slots keep rows of their own, up to
//! [`OUTCOME_ROWS_MAX`]; beyond that the oldest go, whosever they are, and so do the oldest of [`RANGE_ROWS_MAX`] ranges. What they sum
//! up to stays, in the days.

use super::rows::{BootRow, bytes, row};
use super::tables::{BOOTS, OUTCOMES, RANGES, STATE, day_key, day_of};
use crate::model::{BootNo, DAYS_KEPT, OUTCOME_ROWS_MAX, Outcome, RANGE_ROWS_MAX, Slot, SnapshotId, Stamp};
use crate::protocol::{GapRange, Instant, UNKNOWN};
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use std::collections::BTreeMap;

const DAY_MS: i64 = 86_400_000;
/// A range over more days than this is counted on its last day: the machine was put away, nobody reads that day by day.
const SPREAD_DAYS_MAX: i64 = 400;
/// What a clock went past is told later, and may lie in the middle of slots a day apart that ended alike. Ranges that begin inside of others
/// are no more than this.
pub const NESTED_MAX: usize = 8;
/// Days gone through for the one that counted a stretch.
const LOOKED_BACK_MAX: usize = 10_000;

/// How many slots of a day ended how. By [`Outcome::label`]; ranges without a number count themselves under [`UNKNOWN`].
pub type DayRow = BTreeMap<String, u64>;

/// What a slot's end means for the book.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It had ended already.
    Known,
    New,
    /// The slot before it on record ended in the same way, and both are one range now.
    Joined,
}

/// The ledger in one transaction.
pub struct Book<'t> {
    txn: &'t WriteTransaction,
    outcomes: Table<'t, (&'static str, u32, u64), &'static [u8]>,
    ranges: Table<'t, (&'static str, u32, u64), &'static [u8]>,
    boots: Table<'t, u32, &'static [u8]>,
    tally: BTreeMap<(String, u8, i32), BTreeMap<String, i64>>,
}

impl<'t> Book<'t> {
    /// With the row of this boot, if it says something new.
    pub fn open(txn: &'t WriteTransaction, boot: Option<&(BootNo, BootRow)>) -> Result<Self, redb::Error> {
        let mut boots = txn.open_table(BOOTS)?;
        if let Some((no, boot)) = boot {
            boots.insert(no, bytes(boot)?.as_slice())?;
        }
        Ok(Self { txn, outcomes: txn.open_table(OUTCOMES)?, ranges: txn.open_table(RANGES)?, boots, tally: BTreeMap::new() })
    }

    /// Nothing replaces captured; a picture replaces any other verdict (it was found after a crash).
    pub fn captured(&mut self, slot: &Slot, id: SnapshotId, taken: &Stamp) -> Result<(), redb::Error> {
        let day = self.day(slot, Some(taken))?;
        match self.known(slot)? {
            Some(Outcome::Captured { .. }) => return Ok(()),
            Some(other) => self.count(slot, day, &other.label(), -1),
            None => {}
        }
        let outcome = Outcome::Captured { id, late_ms: taken.boottime_ms.saturating_sub(slot.due_ms) };
        self.count(slot, day, &outcome.label(), 1);
        self.insert(slot, &outcome)
    }

    /// A slot that ended without a picture.
    pub fn without(&mut self, slot: &Slot, outcome: &Outcome) -> Result<News, redb::Error> {
        if self.known(slot)?.is_some() {
            return Ok(News::Known);
        }
        let day = self.day(slot, None)?;
        self.count(slot, day, &outcome.label(), 1);
        let name = slot.schedule.as_str();
        let key = (name, slot.boot, slot.due_ms);
        let here = Instant { boot: slot.boot, due_ms: slot.due_ms, wall_ms: slot.plan_ms };
        let last_row = self.outcomes.range((name, slot.boot, 0)..key)?.next_back().transpose()?;
        let last_row = last_row.map(|(k, v)| Ok::<_, redb::Error>((k.value().2, row::<Outcome>(v.value())?))).transpose()?;
        let last_range = self.ranges.range((name, slot.boot, 0)..key)?.next_back().transpose()?;
        let last_range = last_range.map(|(_, v)| row::<GapRange>(v.value())).transpose()?;
        let row_due_ms = last_row.as_ref().map(|(due_ms, _)| *due_ms);
        let range_end_ms = last_range.as_ref().filter(|r| r.to.boot == slot.boot).map(|r| r.to.due_ms);
        match (last_range, last_row) {
            (Some(range), _)
                if range_end_ms.is_some_and(|end| end < slot.due_ms && row_due_ms.is_none_or(|due| due < end))
                    && range.outcome.same_reason(outcome)
                    && step_of(&range).is_some_and(|step| slot.due_ms - range.to.due_ms == step) =>
            {
                let key = (name, range.from.boot, range.from.due_ms);
                let longer = GapRange { to: here, count: range.count.map(|n| n + 1), ..range.clone() };
                self.ranges.insert(key, bytes(&longer)?.as_slice())?;
                Ok(News::Joined)
            }
            (_, Some((due_ms, before))) if before.same_reason(outcome) && range_end_ms.is_none_or(|end| end < due_ms) => {
                let plan_ms = slot.plan_ms.map(|plan| plan - (slot.due_ms - due_ms) as i64);
                let from = Instant { boot: slot.boot, due_ms, wall_ms: plan_ms };
                let both = GapRange { schedule: slot.schedule.clone(), from, to: here, outcome: before, count: Some(2) };
                self.outcomes.remove((name, slot.boot, due_ms))?;
                self.insert_range(&both)?;
                Ok(News::Joined)
            }
            _ => self.insert(slot, outcome).map(|()| News::New),
        }
    }

    /// A picture of a boot whose row went with a lost index still tells when that was.
    pub fn remember_boot(&mut self, taken: &Stamp) -> Result<(), redb::Error> {
        if self.boots.last()?.is_none_or(|(newest, _)| taken.boot >= newest.value()) {
            return Ok(());
        }
        let known = self.boots.get(taken.boot)?.map(|value| row::<BootRow>(value.value())).transpose()?;
        let (offset_ms, quality, at_ms) = (taken.wall_ms.saturating_sub_unsigned(taken.boottime_ms), taken.quality, taken.boottime_ms);
        let boot = match known {
            None => BootRow { boot_id: String::new(), offset_ms, quality, first_ms: at_ms, last_ms: at_ms },
            Some(boot) if boot.boot_id.is_empty() => {
                let (offset_ms, quality) = if quality > boot.quality { (offset_ms, quality) } else { (boot.offset_ms, boot.quality) };
                BootRow { offset_ms, quality, first_ms: boot.first_ms.min(at_ms), last_ms: boot.last_ms.max(at_ms), ..boot }
            }
            Some(_) => return Ok(()),
        };
        self.boots.insert(taken.boot, bytes(&boot)?.as_slice())?;
        Ok(())
    }

    /// Slots that nobody could serve. A stretch that nobody could count at first may be told again with its number.
    pub fn range(&mut self, range: &GapRange) -> Result<(), redb::Error> {
        let key = (range.schedule.as_str(), range.from.boot, range.from.due_ms);
        let told = self.ranges.get(key)?.map(|value| row::<GapRange>(value.value())).transpose()?;
        if told.is_some_and(|told| told.count.is_none()) && range.count.is_some() {
            self.take_back(range)?;
            self.ranges.remove(key)?;
        }
        if range.count == Some(0) {
            return Ok(());
        }
        self.count_range(range)?;
        self.insert_range(range)
    }

    /// Takes one stretch that nobody could count off the day it was counted on: this one, or one of a clock that was not trusted then.
    fn take_back(&mut self, range: &GapRange) -> Result<(), redb::Error> {
        let (label, name) = (format!("{UNKNOWN}{}", range.outcome.label()), range.schedule.as_str());
        let to = Slot { schedule: range.schedule.clone(), boot: range.to.boot, due_ms: range.to.due_ms, plan_ms: range.to.wall_ms };
        let today = self.day(&to, None)?;
        let days = self.txn.open_table(STATE)?;
        let has = |value: &[u8]| Ok::<_, redb::Error>(row::<DayRow>(value)?.contains_key(&label));
        let mut found =
            days.get(day_key(today.0, today.1, name))?.map(|value| has(value.value())).transpose()?.unwrap_or(false).then_some(today);
        for entry in days.range(day_key(1, i32::MIN, "")..day_key(0, i32::MIN, ""))?.rev().take(LOOKED_BACK_MAX) {
            let (key, value) = entry?;
            let (unsure, day, schedule) = day_of(key.value());
            if found.is_some() {
                break;
            }
            found = (schedule == name && has(value.value())?).then_some((unsure, day));
        }
        drop(days);
        if let Some(day) = found {
            self.count(&to, day, &label, -1);
        }
        Ok(())
    }

    /// Counts all that is on record: an index of the first format has no days.
    pub fn count_all(&mut self) -> Result<(), redb::Error> {
        let rows = self.outcomes.iter()?.map(|e| {
            let (key, value) = e?;
            let (schedule, boot, due_ms) = key.value();
            Ok::<_, redb::Error>((schedule.to_owned(), boot, due_ms, row::<Outcome>(value.value())?))
        });
        for (schedule, boot, due_ms, outcome) in rows.collect::<Result<Vec<_>, _>>()? {
            let Ok(schedule) = schedule.parse() else { continue };
            let slot = Slot { schedule, boot, due_ms, plan_ms: None };
            let day = self.day(&slot, None)?;
            self.count(&slot, day, &outcome.label(), 1);
        }
        let ranges = self.ranges.iter()?.map(|e| row::<GapRange>(e?.1.value()));
        for range in ranges.collect::<Result<Vec<_>, _>>()? {
            self.count_range(&range)?;
        }
        Ok(())
    }

    /// Writes the days that changed.
    pub fn close(self) -> Result<(), redb::Error> {
        if self.tally.is_empty() {
            return Ok(());
        }
        // A slot that claims to be far in the future must not push out what is known.
        let newest = self.boots.last()?.map(|(_, value)| row::<BootRow>(value.value())).transpose()?;
        let tomorrow = newest.map_or(i32::MAX, |boot| boot.offset_ms.saturating_add_unsigned(boot.last_ms).div_euclid(DAY_MS) as i32 + 1);
        let mut days = self.txn.open_table(STATE)?;
        for ((schedule, unsure, day), changes) in self.tally {
            let key = day_key(unsure, day, &schedule);
            let known = days.get(key)?.map(|v| row::<DayRow>(v.value())).transpose()?;
            let fresh = known.is_none();
            let mut counts = known.unwrap_or_default();
            for (label, by) in changes {
                let count = counts.entry(label).or_default();
                *count = count.saturating_add_signed(by);
            }
            counts.retain(|_, count| *count > 0);
            days.insert(key, bytes(&counts)?.as_slice())?;
            if fresh {
                let old = days.range(day_key(unsure, i32::MIN, "")..day_key(unsure, day.min(tomorrow).saturating_sub(DAYS_KEPT), ""))?;
                let old = old.map(|e| e.map(|(k, _)| (day_of(k.value()).1, k.value().3 == schedule))).collect::<Result<Vec<_>, _>>()?;
                for (day, _) in old.into_iter().filter(|(_, own)| *own) {
                    days.remove(day_key(unsure, day, &schedule))?;
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, slot: &Slot, outcome: &Outcome) -> Result<(), redb::Error> {
        let name = slot.schedule.as_str();
        self.outcomes.insert((name, slot.boot, slot.due_ms), bytes(outcome)?.as_slice())?;
        keep_newest(&mut self.outcomes, OUTCOME_ROWS_MAX)
    }

    /// Slots that fail two by two, between pictures, make a range each: these have a bound too.
    fn insert_range(&mut self, range: &GapRange) -> Result<(), redb::Error> {
        self.ranges.insert((range.schedule.as_str(), range.from.boot, range.from.due_ms), bytes(range)?.as_slice())?;
        keep_newest(&mut self.ranges, RANGE_ROWS_MAX)
    }

    fn known(&self, slot: &Slot) -> Result<Option<Outcome>, redb::Error> {
        known(&self.outcomes, &self.ranges, slot.schedule.as_str(), slot.boot, slot.due_ms)
    }

    fn count(&mut self, slot: &Slot, (unsure, day): (u8, i32), label: &str, by: i64) {
        let counts = self.tally.entry((slot.schedule.to_string(), unsure, day)).or_default();
        *counts.entry(label.to_owned()).or_default() += by;
    }

    /// When a slot was due by the wall clock, and whether that clock was trusted.
    fn wall_of(&self, slot: &Slot) -> Result<Option<(i64, bool)>, redb::Error> {
        if let Some(plan_ms) = slot.plan_ms {
            return Ok(Some((plan_ms, true)));
        }
        let boot = self.boots.get(slot.boot)?.map(|value| row::<BootRow>(value.value())).transpose()?;
        Ok(boot.map(|boot| (boot.offset_ms + slot.due_ms as i64, boot.quality.trusted())))
    }

    /// The UTC day of a slot, and whether (1) only an untrusted clock says so.
    fn day(&self, slot: &Slot, taken: Option<&Stamp>) -> Result<(u8, i32), redb::Error> {
        // The boot may have gone with a lost index; the picture still tells.
        let said = || taken.map_or((0, false), |taken| (taken.wall_ms, taken.quality.trusted()));
        let (wall_ms, trusted) = self.wall_of(slot)?.unwrap_or_else(said);
        Ok((u8::from(!trusted), wall_ms.div_euclid(DAY_MS) as i32))
    }

    fn count_range(&mut self, range: &GapRange) -> Result<(), redb::Error> {
        let label = range.outcome.label();
        let slot = |at: &Instant| Slot { schedule: range.schedule.clone(), boot: at.boot, due_ms: at.due_ms, plan_ms: at.wall_ms };
        let (from, to) = (slot(&range.from), slot(&range.to));
        let (first, last) = (self.day(&from, None)?, self.day(&to, None)?);
        let Some(count) = range.count else {
            self.count(&to, last, &format!("{UNKNOWN}{label}"), 1);
            return Ok(());
        };
        let days = i64::from(last.1) - i64::from(first.1);
        let spread = first.0 == last.0 && (1..=SPREAD_DAYS_MAX).contains(&days) && count > 1;
        let (true, Some((from_ms, _)), Some((to_ms, _))) = (spread, self.wall_of(&from)?, self.wall_of(&to)?) else {
            self.count(&to, last, &label, count as i64);
            return Ok(());
        };
        let step_ms = ((to_ms - from_ms) / (count as i64 - 1)).max(1);
        let mut left = count as i64;
        for day in first.1..=last.1 {
            // Slots before the end of this day, less those of the days before.
            let until = ((i64::from(day) + 1) * DAY_MS - from_ms + step_ms - 1).div_euclid(step_ms).clamp(0, count as i64);
            let here = if day == last.1 { left } else { until - (count as i64 - left) };
            left -= here;
            if here > 0 {
                self.count(&to, (last.0, day), &label, here);
            }
        }
        Ok(())
    }
}

/// Makes room for one more row by taking the oldest, of whatever schedule: a new schedule must not pay for those that filled the table.
fn keep_newest(table: &mut Table<(&'static str, u32, u64), &'static [u8]>, most: u64) -> Result<(), redb::Error> {
    if table.len()? <= most {
        return Ok(());
    }
    let mut oldest: Option<(BootNo, u64, String)> = None;
    let mut next = table.first()?.map(|(key, _)| key.value().0.to_owned()).map(|name| (name, 0, 0));
    while let Some((name, boot, due_ms)) = next {
        let Some((key, _)) = table.range((name.as_str(), boot, due_ms)..)?.next().transpose()? else { break };
        let (name, boot, due_ms) = key.value();
        let first = (boot, due_ms, name.to_owned());
        next = Some((name.to_owned(), u32::MAX, u64::MAX));
        oldest = Some(oldest.map_or(first.clone(), |oldest| oldest.min(first)));
    }
    if let Some((boot, due_ms, name)) = oldest {
        table.remove((name.as_str(), boot, due_ms))?;
    }
    Ok(())
}

/// The distance of a range's slots, if they stand evenly in one boot.
pub fn step_of(range: &GapRange) -> Option<u64> {
    let span = range.to.due_ms.checked_sub(range.from.due_ms).filter(|_| range.from.boot == range.to.boot)?;
    let steps = range.count?.checked_sub(1).filter(|steps| *steps > 0)?;
    (span % steps == 0).then_some(span / steps)
}

/// What is on record of one slot: its own row, or the range it stands in.
pub fn known(
    outcomes: &impl ReadableTable<(&'static str, u32, u64), &'static [u8]>,
    ranges: &impl ReadableTable<(&'static str, u32, u64), &'static [u8]>,
    schedule: &str,
    boot: BootNo,
    due_ms: u64,
) -> Result<Option<Outcome>, redb::Error> {
    let key = (schedule, boot, due_ms);
    if let Some(value) = outcomes.get(key)? {
        return Ok(Some(row(value.value())?));
    }
    for entry in ranges.range((schedule, boot, 0)..=key)?.rev().take(NESTED_MAX) {
        let range: GapRange = row(entry?.1.value())?;
        let inside = range.to.boot == boot && due_ms <= range.to.due_ms;
        let on_step = due_ms == range.from.due_ms
            || due_ms == range.to.due_ms
            || step_of(&range).is_some_and(|step| (due_ms - range.from.due_ms).is_multiple_of(step));
        if inside && on_step && range.count.is_some() {
            return Ok(Some(range.outcome));
        }
    }
    Ok(None)
}
