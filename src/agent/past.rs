//! The past, at a start: every slot after the last settled one gets its reason.

use crate::clock::Reading;
use crate::model::{BootNo, Off, Outcome, ScheduleId};
use crate::protocol::{GapRange, Instant};
use crate::schedule::{Align, Grid, Memory, Run};
use crate::store::{Past, Query, RunState, SlotRun, Store, same_slot_ms};

/// What is known of the time in which no agent worked.
pub struct Account<'a> {
    pub store: &'a Store,
    pub boot: BootNo,
    /// Why nobody took pictures before this process began.
    pub before: Off,
    /// When this process began, if it had to wait for its store.
    pub storage_failed_at_ms: Option<u64>,
    pub now: Reading,
}

/// Why the last run is over. `fault_noted`: it left a note that its storage failed.
pub fn why_off(past: &Past, fault_noted: bool) -> Off {
    match past.last_run {
        Some(RunState::Stopped { .. }) => Off::Stop,
        Some(RunState::Running { boot }) if boot == past.boot => {
            if fault_noted {
                Off::Storage
            } else {
                Off::Crash
            }
        }
        Some(RunState::Running { .. }) => Off::Power,
        None => Off::IndexLost,
    }
}

impl Account<'_> {
    /// Slots after the last settled one that nobody could serve.
    pub fn off(&self, schedule: &ScheduleId, memory: &Memory, grid: Option<&Grid>) {
        if memory.boot != self.boot {
            self.off_since_another_boot(schedule, memory, grid);
            return;
        }
        let now_ms = self.now.boottime_ms;
        let split_ms = self.storage_failed_at_ms.map_or(now_ms, |at| at.max(memory.settled_ms).min(now_ms));
        for (from, to, reason) in [(memory.settled_ms, split_ms, self.before), (split_ms, now_ms, Off::Storage)] {
            if let Some(run) = memory.run_between(from, to) {
                self.store.run_without(slot_run(schedule, self.boot, run), Outcome::Off { reason });
            }
        }
    }

    /// Nobody knows when the other boot ended: one open range, counted where a trusted clock knows both ends.
    fn off_since_another_boot(&self, schedule: &ScheduleId, memory: &Memory, grid: Option<&Grid>) {
        let outcome = Outcome::Off { reason: self.before };
        // Slots behind the cursor may have an outcome: an adopted picture, or one that settled before an earlier slot did.
        let known = self.store.outcomes(schedule, memory.boot, memory.settled_ms + 1, u64::MAX).unwrap_or_default();
        let last_ms = known.last().map_or(memory.settled_ms, |(due_ms, _)| due_ms + same_slot_ms(memory.period_ms));
        if let Some(run) = memory.run_between(memory.settled_ms, last_ms) {
            self.store.run_without(slot_run(schedule, memory.boot, run), outcome.clone());
        }
        let Some(first) = memory.run_between(last_ms, last_ms + 2 * memory.period_ms) else { return };
        let count = match (grid, memory.offset_ms) {
            (Some(grid), Some(offset)) if self.now.quality.trusted() && grid.align == Align::Clock => {
                Some(grid.count_between_plans(last_ms as i64 + offset, self.now.wall_ms))
            }
            _ => None,
        };
        if count != Some(0) {
            let from = Instant { boot: memory.boot, due_ms: first.first_due_ms, wall_ms: first.first_plan_ms };
            self.store.range(GapRange { schedule: schedule.clone(), from, to: self.until_now(), outcome, count });
        }
    }

    /// What a lost index knew of a schedule after its newest picture is gone: one open range says so.
    pub fn lost(&self, schedule: &ScheduleId) {
        let query = Query { schedule: Some(schedule.clone()), limit: 1, ..Query::default() };
        let newest = self.store.list(&query, None).ok().and_then(|mut rows| rows.pop());
        let slot = newest.and_then(|(_, row)| {
            let slot = row.slots.into_iter().find(|s| s.schedule == *schedule)?;
            // The offset of that boot went with the index; the picture's own stamp still tells it.
            let said_ms = row.taken.wall_ms - (row.taken.boottime_ms as i64 - slot.due_ms as i64);
            Some((slot, said_ms))
        });
        let from = match slot {
            Some((slot, said_ms)) => Instant { boot: slot.boot, due_ms: slot.due_ms + 1, wall_ms: slot.plan_ms.or(Some(said_ms)) },
            None => Instant { boot: 0, due_ms: 0, wall_ms: None },
        };
        let outcome = Outcome::Off { reason: Off::IndexLost };
        self.store.range(GapRange { schedule: schedule.clone(), from, to: self.until_now(), outcome, count: None });
    }

    fn until_now(&self) -> Instant {
        let wall_ms = self.now.quality.trusted().then_some(self.now.wall_ms);
        Instant { boot: self.boot, due_ms: self.now.boottime_ms, wall_ms }
    }
}

/// The clock has become trusted: how many slots went by before this boot can be told now, if the boot before knew its time.
pub fn count_off(store: &Store, schedule: &ScheduleId, grid: &Grid, boot: BootNo, now: &Reading) {
    if grid.align != Align::Clock {
        return;
    }
    let mut newest = None;
    let _ = store.ranges(schedule, |range| {
        let within_this_boot = range.from.boot >= boot;
        newest = Some(range).filter(|_| !within_this_boot);
        within_this_boot
    });
    let Some(range) = newest.filter(|range| range.to.boot == boot && range.count.is_none()) else { return };
    if let (Some(from_ms), Outcome::Off { .. }) = (range.from.wall_ms, &range.outcome) {
        let to_ms = range.to.due_ms as i64 + now.offset_ms();
        let count = Some(grid.count_between_plans(from_ms - 1, to_ms));
        store.range(GapRange { to: Instant { wall_ms: Some(to_ms), ..range.to }, count, ..range });
    }
}

pub fn slot_run(schedule: &ScheduleId, boot: BootNo, run: Run) -> SlotRun {
    let Run { first_due_ms, first_plan_ms, period_ms, count } = run;
    SlotRun { schedule: schedule.clone(), boot, first_due_ms, first_plan_ms, period_ms, count }
}

#[cfg(test)]
mod tests;
