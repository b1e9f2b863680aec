//! Which instants are slots of a rule, in one boot: pure enumeration.
//!
//! A rule has *anchors*: points of its grid, or instants of its calendar, as far as they lie in a window. Each anchor is one
//! slot, shifted by its jitter, or a short series of them.
//!
//! Windows and calendars are by the wall clock. While no clock is trusted they go by the best guess there is; a grid without
//! any guess takes all its slots, since a dark picture can be deleted and a missing one not be taken; a calendar has none.

use super::during::During;
use super::grid::{count, first_at_or_after};
use super::memory::{Due, Memory, Run};
use super::rule::{Rule, When};
use crate::model::BURST_GAP_MS;

/// Anchors outside of windows that are passed over before a rule counts as one without slots.
const PASSED_OVER_MAX: usize = 4_000;
/// Slots told one by one when nobody was there; more are told as a stretch of unknown number.
pub const TOLD_MAX: usize = 5_000;
/// Slots counted one by one: a board takes some 100 us for each by the sun, and meanwhile no other slot is served.
const COUNTED_MAX: u64 = 5_000;

/// A rule, and how the clocks of a boot stand to each other.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'r> {
    pub rule: &'r Rule,
    /// Wall − boottime by a trusted clock: what slots are bound to.
    pub offset_ms: Option<i64>,
    /// The same by whatever clock there is.
    pub guess_ms: Option<i64>,
}

/// A slot, and which one of its series it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// On the boot clock; before this boot if negative.
    pub due_ms: i64,
    pub nth: u32,
}

/// Slots that passed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passed {
    pub runs: Vec<Run>,
    /// From here on there were too many to tell one by one.
    pub more_from: Option<Due>,
}

impl Passed {
    pub fn last(&self) -> Option<Due> {
        self.runs.last().map(Run::last)
    }
    /// Takes the last slot out, if it is told at all.
    pub fn pop(&mut self) -> Option<Due> {
        let last = self.last().filter(|_| self.more_from.is_none())?;
        if let Some(run) = self.runs.last_mut() {
            run.count -= 1;
        }
        self.runs.retain(|run| run.count > 0);
        Some(last)
    }
}

impl<'r> Slots<'r> {
    /// The slots that a memory speaks of, in its boot.
    pub fn of(memory: &Memory, rule: &'r Rule) -> Self {
        Self { rule, offset_ms: memory.offset_ms, guess_ms: memory.offset_ms }
    }

    /// The first slot at or after an instant of the boot clock; `None`: none for years, or nobody knows the time.
    pub fn first_from(&self, from_ms: i64) -> Option<Found> {
        let gap_ms = BURST_GAP_MS as i64;
        // An anchor this much earlier may still have a slot to come.
        let reach_ms = self.rule.jitter_ms as i64 + gap_ms * i64::from(self.rule.burst.saturating_sub(1));
        let mut anchor = self.anchor_from(from_ms.saturating_sub(reach_ms));
        let mut best: Option<Found> = None;
        // Where jitter is wider than two anchors are apart, the later one may come first.
        while let Some(at) = anchor.filter(|at| best.is_none_or(|best| *at < best.due_ms)) {
            let start = at + self.jitter_ms(at);
            let nth = (from_ms.saturating_sub(start).max(0) + gap_ms - 1) / gap_ms;
            if nth < i64::from(self.rule.burst.max(1)) {
                let found = Found { due_ms: start + nth * gap_ms, nth: nth as u32 };
                best = best.filter(|best| best.due_ms <= found.due_ms).or(Some(found));
            }
            if reach_ms == 0 {
                break;
            }
            anchor = self.anchor_from(at.saturating_add(1));
        }
        best
    }

    /// The next slot of a memory after an instant: not too close to the latest due one (unless it is of the same series), and with a
    /// plan that did not come due before.
    pub fn first_after(&self, memory: &Memory, after_ms: u64) -> Option<Due> {
        let (apart_ms, mut from) = (self.rule.apart_ms() as i64, after_ms as i64 + 1);
        if let (Some(last), Some(offset)) = (memory.last_plan_ms, self.offset_ms) {
            from = from.max(last + 1 - offset);
        }
        let mut found = self.first_from(from)?;
        if let Some(last) = memory.last_due_ms.map(|last| last as i64) {
            let of_its_series = found.nth > 0 && found.due_ms - last <= BURST_GAP_MS as i64;
            if found.due_ms < last + apart_ms && !of_its_series {
                found = self.first_from(from.max(last + apart_ms))?;
            }
        }
        Some(self.due(found))
    }

    /// The slots of a memory in `(after_ms, to_ms]`.
    pub fn passed(&self, memory: &Memory, after_ms: u64, to_ms: u64) -> Passed {
        match self.first_after(memory, after_ms) {
            Some(first) => self.between(first.due_ms as i64 - 1, to_ms as i64),
            None => Passed::default(),
        }
    }

    pub fn due(&self, found: Found) -> Due {
        // A plan from before this boot keeps its place as its first instant.
        Due { due_ms: found.due_ms.max(0) as u64, plan_ms: self.offset_ms.map(|offset| found.due_ms + offset) }
    }

    /// The slots in `(after_ms, to_ms]`.
    pub fn between(&self, after_ms: i64, to_ms: i64) -> Passed {
        let mut passed = Passed::default();
        if let (When::Grid(grid), true) = (&self.rule.when, self.is_plain()) {
            let offset = self.offset_ms.unwrap_or(0);
            let first = first_at_or_after(after_ms + 1, grid.phase_ms as i64 - offset, grid.period_ms);
            let count = count(first, to_ms, grid.period_ms);
            if count > 0 {
                let Due { due_ms, plan_ms } = self.due(Found { due_ms: first, nth: 0 });
                passed.runs.push(Run { first_due_ms: due_ms, first_plan_ms: plan_ms, period_ms: grid.period_ms, count });
            }
            return passed;
        }
        let mut from_ms = after_ms.saturating_add(1);
        for told in 0.. {
            let Some(found) = self.first_from(from_ms).filter(|found| found.due_ms <= to_ms) else { break };
            if told == TOLD_MAX {
                passed.more_from = Some(self.due(found));
                break;
            }
            Run::append(&mut passed.runs, self.due(found));
            from_ms = found.due_ms + 1;
        }
        passed
    }

    /// How many slots lie in `(after_ms, to_ms]`; `None`: too many to be counted here.
    pub fn count(&self, after_ms: i64, to_ms: i64) -> Option<u64> {
        if self.is_plain() {
            return Some(self.between(after_ms, to_ms).runs.iter().map(|run| run.count).sum());
        }
        let (mut from_ms, mut counted) = (after_ms.saturating_add(1), 0);
        while let Some(found) = self.first_from(from_ms).filter(|found| found.due_ms <= to_ms) {
            if counted == COUNTED_MAX {
                return None;
            }
            (from_ms, counted) = (found.due_ms + 1, counted + 1);
        }
        Some(counted)
    }

    /// A grid, of which arithmetic tells everything.
    fn is_plain(&self) -> bool {
        self.rule.during.is_none() && self.rule.jitter_ms == 0 && self.rule.burst == 1 && matches!(self.rule.when, When::Grid(_))
    }

    fn anchor_from(&self, from_ms: i64) -> Option<i64> {
        match &self.rule.when {
            When::Grid(grid) => {
                let base = grid.phase_ms as i64 - self.offset_ms.unwrap_or(0);
                let mut from = from_ms;
                for _ in 0..PASSED_OVER_MAX {
                    let due = first_at_or_after(from, base, grid.period_ms);
                    let Some((during, guess)) = self.rule.during.as_ref().zip(self.guess_ms) else { return Some(due) };
                    let open = during.open_from(due.checked_add(guess)?)? - guess;
                    if open == due {
                        return Some(due);
                    }
                    from = open;
                }
                None
            }
            When::Calendar(calendar) => {
                let guess = self.guess_ms?;
                let mut after = from_ms.checked_add(guess)?.checked_sub(1)?;
                for _ in 0..PASSED_OVER_MAX {
                    let plan = calendar.next_after(after)?;
                    let open = self.rule.during.as_ref().map_or(Some(plan), |during| during.open_from(plan))?;
                    if open == plan {
                        return Some(plan - guess);
                    }
                    after = open - 1;
                }
                None
            }
        }
    }

    /// The same for ever for one anchor of one schedule of one node.
    fn jitter_ms(&self, anchor_ms: i64) -> i64 {
        if self.rule.jitter_ms == 0 {
            return 0;
        }
        let wall = match self.rule.when {
            When::Grid(_) => self.offset_ms,
            When::Calendar(_) => self.guess_ms,
        };
        // SplitMix64 (Steele, Lea, Flood 2014): neighbours share nothing.
        let mut mixed = self.rule.seed.wrapping_add((anchor_ms + wall.unwrap_or(0)) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let later_ms = ((mixed ^ (mixed >> 31)) % (self.rule.jitter_ms + 1)) as i64;
        let inside = |(during, guess): (&During, i64)| during.contains(anchor_ms + later_ms + guess);
        // It must not carry a slot out of its window.
        if self.rule.during.as_ref().zip(self.guess_ms).is_none_or(inside) { later_ms } else { 0 }
    }
}

#[cfg(test)]
mod tests;
