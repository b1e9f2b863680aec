//! Plans the slots of a schedule: a pure machine that is asked "what is next?" and told "this one came due".
//!
//! A [`Rule`] says which instants are meant (`calendar`, `grid`, `during`), `slots` enumerates them in the present boot, and the
//! [`Planner`] here decides which is next. Promises, each of them kept over restarts by the [`Memory`] that the store holds:
//! - **Never twice.** In one boot a due instant is later than the one before; bound to the clock, so is the plan. Only a
//!   trusted clock that went back by more than [`BACK_TOLERATED_MS`] may repeat plans.
//! - **Never a burst, never a slot lost in silence.** Slots that passed while nobody was awake to plan come back as
//!   [`Passed`], for the ledger; of these the last one is still served if its rule says so and it is not too late. Two slots of a
//!   grid lie at least half a period apart.
//! - **No drift.** A slot comes from the rule, not from the slot before.
//! - **One change-over.** Until the clock is trusted grids count from boot, and calendars go by the clock there is. The first trusted
//!   reading of a boot binds both to it, and they stay bound to the latest trusted offset even if the trust is lost. An offset that
//!   moves by more than [`STEP_MS`] begins a new grid; a smaller move is followed, from the first slot that it does not push
//!   into the past. Less than [`NOISE_MS`] is no move: slots stay evenly apart, and what ends them alike is one range.
//! - **What the clock went past.** Instants of a calendar that lay in this boot before its time was known, or that a trusted clock was
//!   set past, come back as `unseen`: nobody could know that they were due. (A grid has none: its slots before were others, and taken.)
//!
//! Path not taken: `now + period`, which drifts by every delay; the tests hold the checker against it.

mod calendar;
mod cron;
mod date;
mod during;
mod grid;
mod memory;
mod rule;
mod slots;
mod sun;
mod zone;

pub use calendar::{Calendar, Moment};
pub use cron::{Cron, EACH_WEEK, LAST_WEEK};
pub use date::{DAY_MS, DAY_S, Date};
pub use during::{Bound, Dates, During, Hours, Window};
pub use grid::{Align, Grid, default_phase_ms, own_number};
pub use memory::{Due, Memory, Run};
pub use rule::{Misfire, NEAR_MS, Rule, When};
pub use slots::{Passed, Slots};
pub use sun::{Event, Happening, Place};
pub use zone::{Span, Zone};

use crate::clock::Reading;
use crate::model::{BootNo, Quality};

/// A larger move of the offset is somebody setting the clock, not the kernel steering it.
pub const STEP_MS: u64 = 1_000;
/// Two clocks read one after the other, in whole milliseconds, differ by one now and then, and by more on a busy board. The kernel
/// steers both of them alike.
pub const NOISE_MS: u64 = 20;
/// A trusted clock that is further back than this behind the last plan is believed: or one false date in the future
/// would silence a schedule for years.
pub const BACK_TOLERATED_MS: i64 = 60_000;
/// A slot whose timer is later than this was slept through. A busy board is later than it should be by less.
const LATE_MAX_MS: u64 = 10_000;
/// What a clock went past in one step is told if the step is smaller than this. A larger one is a false date, now or before: the
/// slots of those years were never planned by anybody.
const TOLD_STEP_MS: i64 = 25 * 3_600_000;

/// Plans one schedule in one boot.
#[derive(Debug, Clone)]
pub struct Planner {
    rule: Rule,
    boot: BootNo,
    memory: Option<Memory>,
    /// Handed out and not yet fired.
    pending: Option<Due>,
    /// It had passed when it was handed out, and may be served as late as it is.
    served_late: bool,
    /// Wall − boottime as the last planning guessed it, if there was one.
    guess_ms: Option<i64>,
    planned: bool,
}

/// The answer of [`Planner::next`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Next {
    /// `None`: no slot for years, or the time is not known.
    pub due: Option<Due>,
    /// Slots that passed unplanned: while the machine slept, or before an agent restart in this boot. Reported once; the
    /// caller knows why they were missed.
    pub passed: Passed,
    /// Instants that nobody could know to be due: the clock went past them.
    pub unseen: Passed,
    /// A stretch of this boot, from and to, in which the schedule had other slots, which nobody can enumerate now.
    pub uncounted: Option<(u64, u64)>,
}

impl Planner {
    /// `memory` is what the store has of this schedule, from this boot or an earlier one; `None`: a new schedule.
    pub fn new(rule: impl Into<Rule>, boot: BootNo, memory: Option<Memory>) -> Self {
        let rule = rule.into();
        Self { rule, boot, memory, pending: None, served_late: false, guess_ms: None, planned: false }
    }

    /// The next slot. To be asked after each [`fired`](Self::fired), at start, and whenever the wall clock was set or
    /// gained trust; the answer replaces the one before. A slot that was handed out and came due a moment ago is handed out
    /// again until it fires; so is one that passed unserved and may still be served.
    pub fn next(&mut self, now: &Reading) -> Next {
        let now_ms = now.boottime_ms;
        if let Some(due) = self.pending
            && due.due_ms <= now_ms
            && !self.lapsed(due, now_ms)
        {
            return Next { due: Some(due), ..Next::default() };
        }
        let known = self.memory.is_some();
        let mut memory = self.memory_of_this_boot(now_ms);
        let guess_ms = (now.quality > Quality::Unset).then(|| now.offset_ms());
        let mut next = Next::default();
        match rule_of(&memory, Some(&self.rule)) {
            Some(rule) => {
                // Without a time nothing was planned; an agent that was not there knows no better than the present one.
                let guessed_ms = if self.planned { self.guess_ms } else { guess_ms };
                let slots = Slots { rule: &rule, offset_ms: memory.offset_ms, guess_ms: memory.offset_ms.or(guessed_ms) };
                next.passed = slots.passed(&memory, memory.settled_ms, now_ms);
            }
            None => next.uncounted = Some((memory.settled_ms, now_ms)).filter(|(from, to)| from < to),
        }
        let mut late = self.still_to_serve(&mut next.passed, &memory, now_ms);
        if let Some(last) = next.passed.last() {
            memory.settle(last);
        }
        memory.settled_ms = memory.settled_ms.max(now_ms);
        let before = memory;
        let memory = self.follow(memory, now, guess_ms);
        self.guess_ms = memory.offset_ms.or(guess_ms);
        if known && matches!(self.rule.when, When::Calendar(_)) {
            next.unseen = self.gone_past(&before, &memory, now_ms);
            if let Some(instead) = self.still_to_serve(&mut next.unseen, &memory, now_ms) {
                late.replace(instead).into_iter().for_each(|due| Run::append(&mut next.passed.runs, due));
            }
            self.drop_what_others_tell(&mut next.unseen, &next.passed, &before, &memory);
        }
        next.due = late.or_else(|| self.first_after(&memory, now_ms));
        // A crash before it is served finds it again behind the cursor.
        self.memory = Some(match late {
            Some(due) => Memory { settled_ms: due.due_ms.saturating_sub(1), ..memory },
            None => memory,
        });
        (self.pending, self.served_late, self.planned) = (next.due, late.is_some(), true);
        next
    }

    /// `due` has come due: memory moves past it. `false`: it is not the slot handed out last (it fired before, or a
    /// clock change replaced it), or the machine slept through it, so nothing may be captured for it.
    #[must_use]
    pub fn fired(&mut self, due: Due, now_ms: u64) -> bool {
        let expected = self.pending == Some(due) && !self.lapsed(due, now_ms);
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

    /// Whether there is no slot because nobody knows the time.
    pub fn waits_for_clock(&self) -> bool {
        self.guess_ms.is_none() && matches!(self.rule.when, When::Calendar(_))
    }

    /// Handed out and not yet fired.
    pub fn pending(&self) -> Option<Due> {
        self.pending
    }

    /// Nobody was awake when it was due.
    fn lapsed(&self, due: Due, now_ms: u64) -> bool {
        !self.served_late && now_ms > due.due_ms + LATE_MAX_MS
    }

    /// How many slots were meant between two UTC instants, the ends not counted: what was lost between two boots whose clocks are
    /// both known. `None`: too many to be counted here.
    pub fn count_between_plans(rule: &Rule, after_ms: i64, before_ms: i64) -> Option<u64> {
        Slots { rule, offset_ms: Some(0), guess_ms: Some(0) }.count(after_ms, before_ms.saturating_sub(1))
    }

    fn memory_of_this_boot(&self, now_ms: u64) -> Memory {
        let (period_ms, phase_ms) = self.rule.period_and_phase();
        match self.memory {
            Some(memory) if memory.boot == self.boot => memory,
            // Due instants of another boot mean nothing in this one; plans do.
            earlier => Memory {
                boot: self.boot,
                settled_ms: now_ms,
                last_due_ms: None,
                last_plan_ms: earlier.and_then(|memory| memory.last_plan_ms),
                offset_ms: None,
                period_ms,
                phase_ms,
                mark: self.rule.mark,
                since_ms: now_ms,
            },
        }
    }

    /// Takes the last of the slots that passed if it is to be served all the same.
    fn still_to_serve(&self, passed: &mut Passed, memory: &Memory, now_ms: u64) -> Option<Due> {
        let last = passed.last().filter(|_| self.rule.misfire == Misfire::Once && is_of(memory, &self.rule))?;
        let late_ms = match (last.plan_ms, memory.offset_ms) {
            (Some(plan), Some(offset)) => (now_ms as i64 + offset).saturating_sub(plan),
            _ => now_ms as i64 - last.due_ms as i64,
        };
        let apart_ms = if memory.offset_ms.is_some() && matches!(self.rule.when, When::Calendar(_)) { self.rule.apart_ms() } else { 0 };
        let in_time = late_ms <= self.rule.grace_ms as i64 && memory.last_due_ms.is_none_or(|before| before + apart_ms < last.due_ms);
        if in_time { passed.pop() } else { None }
    }

    /// Instants of a calendar that the clock went past between two plannings: because the first trusted clock of this boot tells
    /// where its past lay, or because it was set forward.
    fn gone_past(&self, before: &Memory, after: &Memory, now_ms: u64) -> Passed {
        let (now, Some(offset)) = (now_ms as i64, after.offset_ms) else { return Passed::default() };
        let mut from = match before.offset_ms {
            // Of what lies before this boot only a slot that may still be served counts; the rest is off.
            None => (after.since_ms as i64).min(now - self.rule.grace_ms as i64),
            Some(held) => {
                let step = offset - held;
                if step <= STEP_MS as i64 {
                    return Passed::default();
                }
                now - step.min(if step <= TOLD_STEP_MS { step } else { self.rule.grace_ms as i64 })
            }
        };
        if let Some(last) = after.last_plan_ms {
            from = from.max(last - offset);
        }
        Slots { rule: &self.rule, offset_ms: Some(offset), guess_ms: Some(offset) }.between(from, now)
    }

    /// What lay before this boot's planning is told by the range between the boots, what a false date went past by nobody.
    fn drop_what_others_tell(&self, unseen: &mut Passed, passed: &Passed, before: &Memory, after: &Memory) {
        let false_date = before.offset_ms.zip(after.offset_ms).is_some_and(|(held, offset)| offset - held > TOLD_STEP_MS);
        // The slot that the wrong clock served was perhaps this one.
        let apart_ms = self.rule.apart_ms();
        let told: Vec<u64> = passed.runs.iter().flat_map(|run| run.slots()).map(|due| due.due_ms).chain(after.last_due_ms).collect();
        let served = |due: &Due| told.iter().any(|at| at.abs_diff(due.due_ms) < apart_ms);
        let own = |due: &Due| due.due_ms > after.since_ms && !false_date && !served(due);
        let slots: Vec<Due> = unseen.runs.iter().flat_map(|run| run.slots()).filter(own).collect();
        unseen.runs.clear();
        slots.into_iter().for_each(|due| Run::append(&mut unseen.runs, due));
        unseen.more_from = unseen.more_from.filter(own);
    }

    fn first_after(&self, memory: &Memory, now_ms: u64) -> Option<Due> {
        let slots = Slots { rule: &self.rule, offset_ms: memory.offset_ms, guess_ms: self.guess_ms };
        slots.first_after(memory, now_ms.max(memory.settled_ms))
    }

    /// Moves a memory, settled up to `now`, to what is in force now.
    fn follow(&mut self, mut memory: Memory, now: &Reading, guess_ms: Option<i64>) -> Memory {
        let (period_ms, phase_ms) = self.rule.period_and_phase();
        let reconfigured = !is_of(&memory, &self.rule);
        let offset_ms = match self.rule.follows_the_clock() {
            false => None,
            true if now.quality.trusted() => Some(now.offset_ms()),
            true => memory.offset_ms,
        };
        let followed_ms = STEP_MS.min(if period_ms > 0 { period_ms / 2 } else { STEP_MS });
        match (memory.offset_ms, offset_ms) {
            (Some(held), Some(seen)) if !reconfigured && held.abs_diff(seen) <= NOISE_MS => {}
            (Some(held), Some(seen)) if !reconfigured && held.abs_diff(seen) <= followed_ms => {
                // Followed only if the slot that is next keeps its place: a move must neither push it into the past, where
                // nobody would take it, nor too close to the one before.
                let followed = Memory { offset_ms: Some(seen), ..memory };
                self.guess_ms = Some(held);
                let here = self.first_after(&memory, now.boottime_ms);
                self.guess_ms = Some(seen);
                let there = self.first_after(&followed, now.boottime_ms);
                let plan = |due: Option<Due>| due.and_then(|due| due.plan_ms);
                if plan(there) <= plan(here) {
                    memory = followed;
                }
            }
            _ => memory.offset_ms = offset_ms,
        }
        if reconfigured {
            // Other slots altogether: half of a long new period after the old one's slot could swallow the first new slot.
            (memory.period_ms, memory.phase_ms, memory.mark) = (period_ms, phase_ms, self.rule.mark);
            (memory.last_due_ms, memory.since_ms) = (None, now.boottime_ms);
        }
        if let (Some(offset), Some(last)) = (memory.offset_ms, memory.last_plan_ms) {
            let wall_ms = now.boottime_ms as i64 + offset;
            if last > wall_ms + BACK_TOLERATED_MS {
                memory.last_plan_ms = Some(wall_ms);
            }
        }
        self.guess_ms = memory.offset_ms.or(guess_ms);
        memory
    }
}

/// Whether a memory speaks of a rule.
fn is_of(memory: &Memory, rule: &Rule) -> bool {
    let (period_ms, phase_ms) = rule.period_and_phase();
    (memory.period_ms, memory.phase_ms, memory.mark) == (period_ms, phase_ms, rule.mark)
}

/// The rule that a memory speaks of, if it can be told: the present one, or a plain grid.
pub fn rule_of(memory: &Memory, present: Option<&Rule>) -> Option<Rule> {
    if let Some(rule) = present.filter(|rule| is_of(memory, rule)) {
        return Some(rule.clone());
    }
    let grid = Grid { period_ms: memory.period_ms, phase_ms: memory.phase_ms, align: Align::Clock };
    (memory.mark == 0 && memory.period_ms > 0).then(|| grid.into())
}

#[cfg(test)]
mod tests;
