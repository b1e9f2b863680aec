//! Plans the slots of a schedule: a pure machine that is asked "what is next?" and told "this one came due".
//!
//! Promises, each of them kept over restarts by the [`Memory`] that the store holds:
//! - **Never twice.** In one boot a due instant is later than the one before; bound to the clock, so is the plan. Only a
//!   trusted clock that went back by more than [`BACK_TOLERATED_MS`] may repeat plans.
//! - **Never a burst, never a slot lost in silence.** Slots that passed while nobody was awake to plan come back as a
//!   [`Run`], for the ledger; the next slot is always ahead. Two slots lie at least half a period apart.
//! - **No drift.** A slot comes from the grid, not from the slot before.
//! - **One change-over.** Until the clock is trusted the grid counts from boot. The first trusted reading of a boot binds
//!   it to the clock, and it stays bound to the latest trusted offset even if the trust is lost. An offset that moves
//!   by more than [`STEP_MS`] begins a new grid; a smaller move is followed, from the first slot that it does not push
//!   into the past. Less than [`NOISE_MS`] is no move: slots stay evenly apart, and what ends them alike is one range.
//!
//! Path not taken: `now + period`, which drifts by every delay; the tests hold the checker against it.

mod calendar;
mod cron;
mod date;
mod during;
mod grid;
mod rule;
mod sun;
mod zone;

pub use calendar::{Calendar, Moment};
pub use cron::{Cron, EACH_WEEK, LAST_WEEK};
pub use date::{DAY_MS, DAY_S, Date};
pub use during::{Bound, Dates, During, Hours, Window};
pub use grid::{Align, Due, Grid, Memory, Run, default_phase_ms};
pub use rule::{Misfire, Rule, When};
pub use sun::{Event, Happening, Place};
pub use zone::{Span, Zone};

use crate::clock::Reading;
use crate::model::BootNo;

/// A larger move of the offset is somebody setting the clock, not the kernel steering it.
pub const STEP_MS: u64 = 1_000;
/// Two clocks read one after the other, in whole milliseconds, differ by one now and then, and by more on a busy board. The kernel
/// steers both of them alike.
pub const NOISE_MS: u64 = 20;
/// A trusted clock that is further back than this behind the last plan is believed: or one false date in the future
/// would silence a schedule for years.
pub const BACK_TOLERATED_MS: i64 = 60_000;

/// Plans one schedule in one boot.
#[derive(Debug, Clone)]
pub struct Planner {
    grid: Grid,
    boot: BootNo,
    memory: Option<Memory>,
    /// Handed out and not yet due, as far as we were told.
    pending: Option<Due>,
}

/// The answer of [`Planner::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    pub due: Due,
    /// Slots that passed unplanned: while the machine slept, or before an agent restart in this boot. Reported once; the
    /// caller knows why they were missed.
    pub skipped: Option<Run>,
}

impl Planner {
    /// `memory` is what the store has of this schedule, from this boot or an earlier one; `None`: a new schedule.
    pub fn new(grid: Grid, boot: BootNo, memory: Option<Memory>) -> Self {
        Self { grid, boot, memory, pending: None }
    }

    /// The next slot. To be asked after each [`fired`](Self::fired), at start, and whenever the wall clock was set or
    /// gained trust; the answer replaces the one before. A slot that was handed out and came due meanwhile is handed out
    /// again until it fires, however late.
    pub fn next(&mut self, now: &Reading) -> Next {
        let now_ms = now.boottime_ms;
        if let Some(due) = self.pending
            && due.due_ms <= now_ms
        {
            return Next { due, skipped: None };
        }
        let mut memory = self.memory_of_this_boot(now_ms);
        let skipped = memory.run_between(memory.settled_ms, now_ms);
        if let Some(run) = skipped {
            memory.settle(run.last());
        }
        memory.settled_ms = memory.settled_ms.max(now_ms);
        let memory = self.follow(memory, now);
        let due = memory.first_after(now_ms);
        self.memory = Some(memory);
        self.pending = Some(due);
        Next { due, skipped }
    }

    /// `due` has come due: memory moves past it. `false`: it is not the slot handed out last (it fired before, or a
    /// clock change replaced it), so nothing may be captured for it.
    #[must_use]
    pub fn fired(&mut self, due: Due) -> bool {
        let expected = self.pending == Some(due);
        if expected && let Some(memory) = &mut self.memory {
            memory.settle(due);
            self.pending = None;
        }
        expected
    }

    /// What the store must keep. To be written with the outcomes of the slots that it calls settled, and after the first
    /// [`next`](Self::next) of a boot, so that slots of a schedule that never fired are counted too.
    pub fn memory(&self) -> Option<Memory> {
        self.memory
    }

    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    fn memory_of_this_boot(&self, now_ms: u64) -> Memory {
        match self.memory {
            Some(memory) if memory.boot == self.boot => memory,
            // Due instants of another boot mean nothing in this one; plans do.
            earlier => Memory {
                boot: self.boot,
                settled_ms: now_ms,
                last_due_ms: None,
                last_plan_ms: earlier.and_then(|memory| memory.last_plan_ms),
                offset_ms: None,
                period_ms: self.grid.period_ms,
                phase_ms: self.grid.phase_ms,
            },
        }
    }

    /// Moves a memory, settled up to `now`, to the grid that is in force now.
    fn follow(&self, mut memory: Memory, now: &Reading) -> Memory {
        let Grid { period_ms, phase_ms, align } = self.grid;
        let reconfigured = (memory.period_ms, memory.phase_ms) != (period_ms, phase_ms);
        let offset_ms = match align {
            Align::Boot => None,
            Align::Clock if now.quality.trusted() => Some(now.offset_ms()),
            Align::Clock => memory.offset_ms,
        };
        match (memory.offset_ms, offset_ms) {
            (Some(held), Some(seen)) if !reconfigured && held.abs_diff(seen) <= NOISE_MS => {}
            (Some(held), Some(seen)) if !reconfigured && held.abs_diff(seen) <= STEP_MS.min(period_ms / 2) => {
                // Followed only if the slot that is next keeps its place: a move must neither push it into the past, where
                // nobody would take it, nor too close to the one before.
                let followed = Memory { offset_ms: Some(seen), ..memory };
                let (here, there) = (memory.first_after(now.boottime_ms), followed.first_after(now.boottime_ms));
                if there.plan_ms <= here.plan_ms {
                    memory = followed;
                }
            }
            _ => memory.offset_ms = offset_ms,
        }
        if reconfigured {
            // Another grid altogether: half of a long new period after the old one's slot could swallow the first new slot.
            (memory.period_ms, memory.phase_ms, memory.last_due_ms) = (period_ms, phase_ms, None);
        }
        if let (Some(offset), Some(last)) = (memory.offset_ms, memory.last_plan_ms) {
            let wall_ms = now.boottime_ms as i64 + offset;
            if last > wall_ms + BACK_TOLERATED_MS {
                memory.last_plan_ms = Some(wall_ms);
            }
        }
        memory
    }
}

impl Memory {
    fn settle(&mut self, due: Due) {
        self.settled_ms = self.settled_ms.max(due.due_ms);
        self.last_due_ms = Some(due.due_ms);
        self.last_plan_ms = due.plan_ms.or(self.last_plan_ms);
    }
}

#[cfg(test)]
mod tests;
