//! The past, at a start: every slot after the last settled one gets its reason.

use crate::clock::Reading;
use crate::model::{BootNo, Missed, Off, Outcome, ScheduleId};
use crate::protocol::{GapRange, Instant};
use crate::schedule::{Due, Memory, NEAR_MS, Next, Planner, Rule, Run, Slots, rule_of};
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
    /// Slots of this boot after the last settled one that nobody could serve, as their planner tells them. `shortest_ms`: two of them are so
    /// far apart at the closest.
    pub fn off(&self, schedule: &ScheduleId, next: &Next, shortest_ms: u64) {
        let now_ms = self.now.boottime_ms;
        let split_ms = self.storage_failed_at_ms.map_or(now_ms, |at| at.min(now_ms));
        let parts: Vec<_> = next.passed.runs.iter().map(|run| run.split(split_ms)).collect();
        let (before, after): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        for (runs, reason) in [(before, self.before), (after, Off::Storage)] {
            let runs: Vec<Run> = runs.into_iter().flatten().collect();
            self.store.runs_without(slot_runs(schedule, self.boot, &runs, same_slot_ms(shortest_ms)), Outcome::Off { reason });
        }
        tell_unseen(self.store, schedule, self.boot, next, shortest_ms);
        tell_uncounted(self.store, schedule, self.boot, next, Outcome::Off { reason: self.before }, &self.now);
    }

    /// Nobody knows when the other boot ended: one open range, counted where a trusted clock knows both ends. `served`: the plan of a slot
    /// in it that gets its picture yet.
    pub fn off_since_another_boot(&self, schedule: &ScheduleId, memory: &Memory, present: Option<&Rule>, served: Option<i64>) {
        let outcome = Outcome::Off { reason: self.before };
        let rule = rule_of(memory, present);
        let near_ms = same_slot_ms(rule.as_ref().map_or(memory.period_ms, Rule::shortest_ms));
        // Slots behind the cursor may have an outcome: an adopted picture, or one that settled before an earlier slot did.
        let known = self.store.outcomes(schedule, memory.boot, memory.settled_ms + 1, u64::MAX).unwrap_or_default();
        let last_ms = known.last().map_or(memory.settled_ms, |(due_ms, _)| due_ms + near_ms);
        let slots = rule.as_ref().map(|rule| Slots::of(memory, rule));
        if let Some(slots) = &slots {
            let passed = slots.passed(memory, memory.settled_ms, last_ms);
            self.store.runs_without(slot_runs(schedule, memory.boot, &passed.runs, near_ms), outcome.clone());
        }
        let first = slots.and_then(|slots| slots.first_after(memory, last_ms));
        let count = match (rule.filter(|_| present.is_some_and(Rule::follows_the_clock)), memory.offset_ms) {
            (Some(rule), Some(offset)) if self.now.quality.trusted() => {
                lost_between(&rule, last_ms as i64 + offset, self.now.wall_ms, served)
            }
            _ => None,
        };
        if count != Some(0) {
            let (due_ms, wall_ms) = first.map_or((last_ms + 1, None), |first| (first.due_ms, first.plan_ms));
            let from = Instant { boot: memory.boot, due_ms, wall_ms };
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
pub fn count_off(store: &Store, schedule: &ScheduleId, rule: &Rule, boot: BootNo, now: &Reading, served: Option<i64>) {
    if !rule.follows_the_clock() {
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
        if let Some(count) = lost_between(rule, from_ms - 1, to_ms, served) {
            store.range(GapRange { to: Instant { wall_ms: Some(to_ms), ..range.to }, count: Some(count), ..range });
        }
    }
}

/// Slots between two UTC instants, without one that gets its picture yet.
fn lost_between(rule: &Rule, after_ms: i64, before_ms: i64, served: Option<i64>) -> Option<u64> {
    let among = served.is_some_and(|plan| after_ms < plan && plan < before_ms);
    Planner::count_between_plans(rule, after_ms, before_ms).map(|count| count.saturating_sub(among.into()))
}

/// Instants that the clock went past before anybody knew the time.
pub fn tell_unseen(store: &Store, schedule: &ScheduleId, boot: BootNo, next: &Next, shortest_ms: u64) {
    let near_ms = NEAR_MS.min(shortest_ms / 2);
    store.runs_without(slot_runs(schedule, boot, &next.unseen.runs, near_ms), Outcome::Missed { reason: Missed::Clock });
}

/// Slots that are too many to be told one by one, or of a rule that is no more: stretches of unknown number.
pub fn tell_uncounted(store: &Store, schedule: &ScheduleId, boot: BootNo, next: &Next, outcome: Outcome, now: &Reading) {
    let to = Instant { boot, due_ms: now.boottime_ms, wall_ms: now.quality.trusted().then_some(now.wall_ms) };
    let tell = |from: Instant, outcome: Outcome| {
        store.range(GapRange { schedule: schedule.clone(), from, to, outcome, count: None });
    };
    if let Some((from_ms, _)) = next.uncounted {
        tell(Instant { boot, due_ms: from_ms + 1, wall_ms: None }, outcome.clone());
    }
    for (first, outcome) in [(next.passed.more_from, outcome), (next.unseen.more_from, Outcome::Missed { reason: Missed::Clock })] {
        if let Some(Due { due_ms, plan_ms }) = first {
            tell(Instant { boot, due_ms, wall_ms: plan_ms }, outcome);
        }
    }
}

pub fn slot_runs(schedule: &ScheduleId, boot: BootNo, runs: &[Run], near_ms: u64) -> Vec<SlotRun> {
    let one = |run: &Run| {
        let Run { first_due_ms, first_plan_ms, period_ms, count } = *run;
        SlotRun { schedule: schedule.clone(), boot, first_due_ms, first_plan_ms, period_ms, count, near_ms }
    };
    runs.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
