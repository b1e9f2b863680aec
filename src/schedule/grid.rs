//! The arithmetic of grids: which instants are slots. Integers only, and every slot from the grid's base, never from
//! the slot before it, so nothing adds up over months.
//!
//! A grid in one boot is `due = base + k × period` on CLOCK_BOOTTIME. Not bound to the clock, its base is the phase.
//! Bound to it, slots are UTC multiples of the period plus the phase, and the base is the phase minus the offset
//! (wall − boottime) in force. Then `plan = due + offset` is an exact multiple, and the same in every boot.

use crate::model::{BootNo, NodeId, ScheduleId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a grid schedule follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// UTC multiples of the period once the clock is trusted; until then like `Boot`.
    Clock,
    /// Multiples of the period since this boot, always.
    Boot,
}

/// A schedule that repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub period_ms: u64,
    /// Where in the period the slots lie.
    pub phase_ms: u64,
    pub align: Align,
}

/// One slot to come: `(schedule, boot, due_ms)` is its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub due_ms: u64,
    /// The UTC instant meant, on a grid bound to the clock.
    pub plan_ms: Option<i64>,
}

/// Neighbouring slots of one grid: `first_due_ms`, one period later the next, `count` in all (at least 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first_due_ms: u64,
    pub first_plan_ms: Option<i64>,
    pub period_ms: u64,
    pub count: u64,
}

/// What the store keeps of a schedule, so that no restart repeats or forgets a slot.
///
/// It describes the grid in force in `boot`: every slot of it up to and including `settled_ms` has an outcome (or was
/// never one, because the grid began later), none after it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub boot: BootNo,
    pub settled_ms: u64,
    /// The latest slot that came due in this boot.
    pub last_due_ms: Option<u64>,
    /// The latest plan that came due, in any boot; compared only with plans made by a trusted clock.
    pub last_plan_ms: Option<i64>,
    /// Wall − boottime while bound to the clock; `None` while counting from boot.
    pub offset_ms: Option<i64>,
    pub period_ms: u64,
    pub phase_ms: u64,
}

impl Grid {
    /// Slots planned strictly between two UTC instants: what was lost between two boots whose clocks are both known.
    pub fn count_between_plans(&self, after_ms: i64, before_ms: i64) -> u64 {
        let first = first_at_or_after(after_ms.saturating_add(1), self.phase_ms as i64, self.period_ms);
        count(first, before_ms.saturating_sub(1), self.period_ms)
    }
}

impl Run {
    pub fn last(&self) -> Due {
        self.nth(self.count.saturating_sub(1))
    }
    /// Every slot of the run, in order.
    pub fn slots(self) -> impl Iterator<Item = Due> {
        (0..self.count).map(move |n| self.nth(n))
    }
    fn nth(&self, n: u64) -> Due {
        let later_ms = n * self.period_ms;
        Due { due_ms: self.first_due_ms + later_ms, plan_ms: self.first_plan_ms.map(|plan| plan + later_ms as i64) }
    }
}

impl Memory {
    /// The slots of this grid in `(from_ms, to_ms]` of its boot, as far as they are not settled.
    pub fn run_between(&self, from_ms: u64, to_ms: u64) -> Option<Run> {
        let first = self.first_after(from_ms);
        let count = count(first.due_ms as i64, to_ms as i64, self.period_ms);
        (count > 0).then_some(Run { first_due_ms: first.due_ms, first_plan_ms: first.plan_ms, period_ms: self.period_ms, count })
    }

    /// The next slot of this grid after `now_ms`: not settled, at least half a period after the latest due one, and
    /// with a plan that did not come due before.
    pub(super) fn first_after(&self, now_ms: u64) -> Due {
        let mut from = now_ms.max(self.settled_ms) as i64 + 1;
        if let Some(last) = self.last_due_ms {
            from = from.max((last + self.period_ms.div_ceil(2)) as i64);
        }
        let offset = self.offset_ms.unwrap_or(0);
        if let (Some(last), Some(offset)) = (self.last_plan_ms, self.offset_ms) {
            from = from.max(last + 1 - offset);
        }
        let due = first_at_or_after(from, self.phase_ms as i64 - offset, self.period_ms);
        Due { due_ms: due as u64, plan_ms: self.offset_ms.map(|offset| due + offset) }
    }
}

/// Where in the period a schedule's slots lie when nobody said: the same for ever for one schedule of one node, spread
/// over the nodes of a fleet, so that they do not all call the hub in the same second.
pub fn default_phase_ms(node: &NodeId, schedule: &ScheduleId, period_ms: u64) -> u64 {
    let digest = Sha256::digest(format!("{node}/{schedule}"));
    let (head, _) = digest.split_at(size_of::<u64>());
    head.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)) % period_ms.max(1)
}

/// The first of `base + k × period` (k any integer) that is not before `from`.
fn first_at_or_after(from: i64, base: i64, period_ms: u64) -> i64 {
    // The configuration has no period of 0; this keeps a memory from another hand from dividing by it.
    let period = period_ms.max(1) as i64;
    from + (base.rem_euclid(period) - from.rem_euclid(period)).rem_euclid(period)
}

/// How many slots lie in `[first, to]`.
fn count(first: i64, to: i64, period_ms: u64) -> u64 {
    if first > to { 0 } else { (to - first) as u64 / period_ms.max(1) + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn memory(offset_ms: Option<i64>) -> Memory {
        Memory { boot: 1, settled_ms: 0, last_due_ms: None, last_plan_ms: None, offset_ms, period_ms: 5 * MINUTE_MS, phase_ms: MINUTE_MS }
    }

    #[test]
    fn without_a_clock_slots_are_counted_from_boot() {
        let memory = memory(None);
        for (now_ms, due_ms) in [(0, 60_000), (59_999, 60_000), (60_000, 360_000), (359_999, 360_000)] {
            assert_eq!(memory.first_after(now_ms), Due { due_ms, plan_ms: None }, "after {now_ms}");
        }
    }

    #[test]
    fn with_a_clock_plans_are_exact_multiples_whatever_the_offset() {
        for offset_ms in [-10_000_000_007, -1, 0, 1, 1_795_000_000_123] {
            let due = memory(Some(offset_ms)).first_after(1_000_000);
            let plan_ms = due.plan_ms.unwrap();
            assert_eq!((plan_ms - MINUTE_MS as i64).rem_euclid(5 * MINUTE_MS as i64), 0);
            assert_eq!(due.due_ms as i64 + offset_ms, plan_ms);
            assert!(due.due_ms > 1_000_000 && due.due_ms <= 1_300_000);
        }
    }

    #[test]
    fn a_run_counts_each_slot_of_an_interval_once() {
        let memory = memory(None);
        assert_eq!(memory.run_between(60_000, 359_999), None);
        let run = memory.run_between(59_999, 960_000).unwrap();
        assert_eq!((run.first_due_ms, run.count), (60_000, 4));
        assert_eq!(run.last().due_ms, 960_000);
        let both = [memory.run_between(59_999, 500_000), memory.run_between(500_000, 960_000)];
        assert_eq!(both.iter().flatten().flat_map(|run| run.slots()).collect::<Vec<_>>(), run.slots().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_settled_is_in_no_run() {
        let settled = Memory { settled_ms: 660_000, last_due_ms: Some(660_000), ..memory(None) };
        assert_eq!(settled.run_between(0, 959_999), None);
        assert_eq!(settled.run_between(0, 960_000).map(|run| run.count), Some(1));
    }

    #[test]
    fn slots_lost_between_boots_are_counted_without_both_ends() {
        let grid = Grid { period_ms: 5 * MINUTE_MS, phase_ms: MINUTE_MS, align: Align::Clock };
        for (after, before, count) in [(60_000, 360_000, 0), (60_000, 660_000, 1), (0, 660_000, 2), (60_000, 660_001, 2), (9, 9, 0)] {
            assert_eq!(grid.count_between_plans(after, before), count, "{after}..{before}");
        }
    }

    #[test]
    fn the_phase_of_a_schedule_never_changes() {
        let phase = |node: &str, schedule: &str| default_phase_ms(&node.parse().unwrap(), &schedule.parse().unwrap(), 300_000);
        // printf n1/every-5m | sha256sum: the first 16 digits, modulo 300,000. A new version must not move a fleet.
        assert_eq!(phase("n1", "every-5m"), 247_234);
        assert_ne!(phase("n2", "every-5m"), 247_234);
        assert_ne!(phase("n1", "every-5n"), 247_234);
    }
}
