//! The ledger's bookkeeping: which slots are settled, and runs of slots that nobody could serve.
//!
//! Each schedule has a cursor on disk: the planner's memory at its last slot before which every slot has an outcome. After a
//! crash the slots behind the cursor are enumerated again, and those without an outcome get one. So a slot that had fired
//! but was not settled is never forgotten, and none is counted twice.

use crate::model::{Outcome, ScheduleId, Slot};
use crate::protocol::{GapRange, Instant};
use std::collections::{BTreeMap, VecDeque};

/// Slots fired and not yet settled, per schedule, in order.
#[derive(Default)]
pub struct Ledger {
    open: BTreeMap<ScheduleId, VecDeque<Entry>>,
    /// Cursors that moved since the last commit.
    moved: BTreeMap<ScheduleId, Option<Vec<u8>>>,
}

struct Entry {
    /// `None`: no slot, but a cursor that was set while slots before it were still open.
    slot: Option<Slot>,
    memory: Option<Vec<u8>>,
    settled: bool,
}

impl Ledger {
    /// A slot was handed to its camera; `memory` is the planner's state right after it.
    pub fn fired(&mut self, slot: Slot, memory: Vec<u8>) {
        let queue = self.open.entry(slot.schedule.clone()).or_default();
        queue.push_back(Entry { slot: Some(slot), memory: Some(memory), settled: false });
    }

    /// A slot has its outcome in the coming commit.
    pub fn settle(&mut self, slot: &Slot) {
        let Some(queue) = self.open.get_mut(&slot.schedule) else { return };
        if let Some(entry) = queue.iter_mut().find(|e| e.slot.as_ref().is_some_and(|s| (s.boot, s.due_ms) == (slot.boot, slot.due_ms))) {
            entry.settled = true;
        }
        while queue.front().is_some_and(|e| e.settled) {
            if let Some(entry) = queue.pop_front() {
                self.moved.insert(slot.schedule.clone(), entry.memory);
            }
        }
        if queue.is_empty() {
            self.open.remove(&slot.schedule);
        }
    }

    /// Sets a cursor outright: a schedule begins anew, or (`None`) is no more. Slots still open come first: the cursor passes
    /// none of them.
    pub fn set(&mut self, schedule: ScheduleId, memory: Option<Vec<u8>>) {
        match self.open.get_mut(&schedule) {
            Some(queue) => queue.push_back(Entry { slot: None, memory, settled: true }),
            None => _ = self.moved.insert(schedule, memory),
        }
    }

    /// The cursors to write with the coming commit.
    pub fn take_moved(&mut self) -> BTreeMap<ScheduleId, Option<Vec<u8>>> {
        std::mem::take(&mut self.moved)
    }
}

/// Slots of one schedule at even distances in one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRun {
    pub schedule: ScheduleId,
    pub boot: u32,
    pub first_due_ms: u64,
    pub first_plan_ms: Option<i64>,
    pub period_ms: u64,
    pub count: u64,
    /// A slot on record so close to one of these is that one: [`same_slot_ms`], or more where the clock was known less well.
    pub near_ms: u64,
}

impl SlotRun {
    pub fn last_due_ms(&self) -> u64 {
        self.first_due_ms + self.period_ms * self.count.saturating_sub(1)
    }
}

/// A grid bound to the clock follows its offset, which moves by a millisecond whenever two clocks are read one after the other, and
/// by more where the kernel steers: due times so close to each other are one slot. Two slots are at least half a period apart.
pub fn same_slot_ms(period_ms: u64) -> u64 {
    (period_ms.saturating_sub(1) / 2).min(1_000)
}

/// The parts of a run that have no outcome yet, as ranges with this one. `settled` holds the due times that have one, ascending.
pub fn ranges_without(run: &SlotRun, settled: &[u64], outcome: &Outcome) -> Vec<GapRange> {
    let mut ranges = Vec::new();
    let mut start = 0;
    // Each may be near to several, where the clock was known less well than they are apart.
    let taken = settled.iter().flat_map(|due| {
        let period_ms = run.period_ms.max(1);
        let from = due.saturating_sub(run.near_ms).saturating_sub(run.first_due_ms).div_ceil(period_ms);
        let to = (due + run.near_ms).checked_sub(run.first_due_ms).map_or(0, |span| span / period_ms + 1);
        from..to.min(run.count)
    });
    for index in taken.chain([run.count]) {
        if index > start {
            let at = |i: u64| Instant {
                boot: run.boot,
                due_ms: run.first_due_ms + i * run.period_ms,
                wall_ms: run.first_plan_ms.map(|p| p + (i * run.period_ms) as i64),
            };
            let (from, to, count) = (at(start), at(index - 1), Some(index - start));
            ranges.push(GapRange { schedule: run.schedule.clone(), from, to, outcome: outcome.clone(), count });
        }
        start = start.max(index + 1);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Off;

    fn slot(due_ms: u64) -> Slot {
        Slot { schedule: "s".parse().unwrap(), boot: 1, due_ms, plan_ms: None }
    }

    #[test]
    fn the_cursor_never_passes_a_slot_without_outcome() {
        let mut ledger = Ledger::default();
        for due in [1, 2, 3] {
            ledger.fired(slot(due), vec![due as u8]);
        }
        ledger.settle(&slot(2));
        assert!(ledger.take_moved().is_empty(), "slot 1 has no outcome yet");
        ledger.settle(&slot(1));
        assert_eq!(ledger.take_moved().into_values().collect::<Vec<_>>(), [Some(vec![2])]);
        ledger.settle(&slot(3));
        assert_eq!(ledger.take_moved().into_values().collect::<Vec<_>>(), [Some(vec![3])]);
    }

    #[test]
    fn a_schedule_that_changes_or_goes_with_a_slot_open_keeps_that_slot_before_its_new_cursor() {
        for new in [Some(vec![9]), None] {
            let mut ledger = Ledger::default();
            ledger.fired(slot(1), vec![1]);
            ledger.set(slot(1).schedule, new.clone());
            assert!(ledger.take_moved().is_empty(), "slot 1 has no outcome yet");
            ledger.settle(&slot(1));
            assert_eq!(ledger.take_moved().into_values().collect::<Vec<_>>(), [new], "the old slot does not bring the old cursor back");
        }
    }

    #[test]
    fn a_range_leaves_out_the_slots_that_have_an_outcome() {
        let run = SlotRun {
            schedule: "s".parse().unwrap(),
            boot: 1,
            first_due_ms: 100,
            first_plan_ms: None,
            period_ms: 10,
            count: 5,
            near_ms: 4,
        };
        let counted = |settled: &[u64]| {
            let made = ranges_without(&run, settled, &Outcome::Off { reason: Off::Crash });
            made.iter().map(|r| (r.from.due_ms, r.to.due_ms, r.count.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(counted(&[]), [(100, 140, 5)]);
        assert_eq!(counted(&[100, 120]), [(110, 110, 1), (130, 140, 2)]);
        assert_eq!(counted(&[100, 110, 120, 130, 140]), []);
        assert_eq!(counted(&[140]), [(100, 130, 4)]);
        assert_eq!(counted(&[99, 121]), [(110, 110, 1), (130, 140, 2)], "the clock's offset has moved by a millisecond");
        assert_eq!(counted(&[95]), [(100, 140, 5)], "half a period before the first is another slot");
        // A series of three that a clock 20 s slow had served: near to all of them.
        let run = SlotRun { first_due_ms: 100_000, period_ms: 1_000, count: 3, near_ms: 60_000, ..run };
        assert_eq!(ranges_without(&run, &[120_000, 121_000, 122_000], &Outcome::Off { reason: Off::Crash }), []);
    }
}
