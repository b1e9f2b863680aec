//! What is known of a schedule's slots between two plannings, and kept by the store between two starts.

use crate::model::BootNo;
use serde::{Deserialize, Serialize};

/// One slot to come: `(schedule, boot, due_ms)` is its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub due_ms: u64,
    /// The UTC instant meant, by a clock that was trusted.
    pub plan_ms: Option<i64>,
}

/// Neighbouring slots of one schedule: `first_due_ms`, one period later the next, `count` in all (at least 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first_due_ms: u64,
    pub first_plan_ms: Option<i64>,
    pub period_ms: u64,
    pub count: u64,
}

impl Run {
    pub fn of(due: Due) -> Self {
        Self { first_due_ms: due.due_ms, first_plan_ms: due.plan_ms, period_ms: 1, count: 1 }
    }
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

    /// The slots up to an instant, and those after it.
    pub fn split(self, at_ms: u64) -> (Option<Self>, Option<Self>) {
        let before = match at_ms.checked_sub(self.first_due_ms) {
            Some(span) => (span / self.period_ms.max(1) + 1).min(self.count),
            None => 0,
        };
        let later = self.nth(before);
        let rest = Self { first_due_ms: later.due_ms, first_plan_ms: later.plan_ms, count: self.count - before, ..self };
        let some = |run: Self| Some(run).filter(|run| run.count > 0);
        (some(Self { count: before, ..self }), some(rest))
    }

    /// Adds a slot to the last of these runs if it stands as far from its neighbour as they do from each other, else begins a new one.
    pub fn append(runs: &mut Vec<Self>, due: Due) {
        if let Some(run) = runs.last_mut() {
            let (last, step) = (run.last(), due.due_ms.saturating_sub(run.last().due_ms));
            let alike = due.plan_ms.zip(last.plan_ms).map(|(plan, last)| plan - last) == due.plan_ms.map(|_| step as i64);
            if alike && due.plan_ms.is_some() == last.plan_ms.is_some() && step > 0 && (run.count == 1 || run.period_ms == step) {
                (run.period_ms, run.count) = (step, run.count + 1);
                return;
            }
        }
        runs.push(Self::of(due));
    }
}

/// What the store keeps of a schedule, so that no restart repeats or forgets a slot.
///
/// It describes the slots in force in `boot`: every one up to and including `settled_ms` has an outcome (or was never one,
/// because the schedule began later), none after it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub boot: BootNo,
    pub settled_ms: u64,
    /// The latest slot that came due in this boot.
    pub last_due_ms: Option<u64>,
    /// The latest plan that came due, in any boot; compared only with plans made by a trusted clock.
    pub last_plan_ms: Option<i64>,
    /// Wall − boottime while bound to the clock; `None` before a clock was trusted in this boot.
    pub offset_ms: Option<i64>,
    /// Of a grid; 0 otherwise.
    pub period_ms: u64,
    pub phase_ms: u64,
    /// Tells a rule from the one before it; 0: a grid that period and phase tell all of.
    pub mark: u64,
    /// When this boot began to plan the schedule.
    pub since_ms: u64,
}

/// Before there were calendars.
#[derive(Serialize, Deserialize)]
struct GridMemory {
    boot: BootNo,
    settled_ms: u64,
    last_due_ms: Option<u64>,
    last_plan_ms: Option<i64>,
    offset_ms: Option<i64>,
    period_ms: u64,
    phase_ms: u64,
}

impl Memory {
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_stdvec(self).ok()
    }

    /// `None`: not a memory, so the schedule is a new one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok().or_else(|| {
            let GridMemory { boot, settled_ms, last_due_ms, last_plan_ms, offset_ms, period_ms, phase_ms } =
                postcard::from_bytes(bytes).ok()?;
            Some(Self { boot, settled_ms, last_due_ms, last_plan_ms, offset_ms, period_ms, phase_ms, mark: 0, since_ms: settled_ms })
        })
    }

    pub(super) fn settle(&mut self, due: Due) {
        self.settled_ms = self.settled_ms.max(due.due_ms);
        self.last_due_ms = Some(due.due_ms);
        self.last_plan_ms = due.plan_ms.or(self.last_plan_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_of_an_older_agent_is_still_one() {
        let old = GridMemory {
            boot: 3,
            settled_ms: 70_000,
            last_due_ms: Some(60_000),
            last_plan_ms: Some(-5),
            offset_ms: None,
            period_ms: 60_000,
            phase_ms: 9,
        };
        let read = Memory::from_bytes(&postcard::to_stdvec(&old).unwrap()).unwrap();
        assert_eq!((read.boot, read.settled_ms, read.last_plan_ms, read.phase_ms, read.mark), (3, 70_000, Some(-5), 9, 0));
        assert_eq!(Memory::from_bytes(&read.to_bytes().unwrap()), Some(read));
        assert_eq!(Memory::from_bytes(b"x"), None);
    }

    #[test]
    fn slots_that_stand_evenly_are_one_run_and_others_are_not() {
        let mut runs = Vec::new();
        for due_ms in [10, 20, 30, 45, 60, 61] {
            Run::append(&mut runs, Due { due_ms, plan_ms: Some(due_ms as i64 + 1_000) });
        }
        let shapes: Vec<_> = runs.iter().map(|run| (run.first_due_ms, run.period_ms, run.count)).collect();
        assert_eq!(shapes, [(10, 10, 3), (45, 15, 2), (61, 1, 1)]);
        assert_eq!(runs.iter().flat_map(|run| run.slots()).map(|due| due.due_ms).collect::<Vec<_>>(), [10, 20, 30, 45, 60, 61]);
    }
}
