//! The schedules in force: each with its planner and its timer on the wheel. Time comes as an argument, so years of it can be played.

use super::past::{Account, count_off, slot_runs, tell_uncounted, tell_unseen};
use super::timer::{Timer, Timers};
use crate::camera::Offered;
use crate::clock::Reading;
use crate::config::settings;
use crate::model::{BootNo, CameraId, Missed, Off, Outcome, ScheduleId, Slot};
use crate::schedule::{Align, Due, Grid, Memory, Next, Planner, STEP_MS};
use crate::store::{Past, Store, same_slot_ms};
use crate::wheel::TimerId;
use std::collections::BTreeMap;

/// A schedule without a slot for years is asked again after this.
const ASK_AGAIN_MS: u64 = 31 * 86_400_000;

struct Plan {
    settings: settings::Schedule,
    planner: Planner,
    timer: Option<TimerId>,
    /// What two slots are apart at the closest.
    period_ms: u64,
    /// Of its next slot.
    due_ms: Option<u64>,
}

/// The planners, and the wheel that they share with the rest of the agent.
pub struct Timetable {
    pub wheel: Box<Timers>,
    plans: BTreeMap<ScheduleId, Plan>,
    boot: BootNo,
    /// The clock by which everything was planned last.
    planned_by: Option<Reading>,
    /// Slots of earlier boots were counted by the clock that is trusted now.
    counted: bool,
    /// Next slots that were set or taken back: for the cameras.
    news: Vec<(CameraId, ScheduleId, Option<u64>)>,
}

impl Default for Timetable {
    fn default() -> Self {
        Self { wheel: Timers::boxed(), plans: BTreeMap::new(), boot: 0, planned_by: None, counted: false, news: Vec::new() }
    }
}

impl Timetable {
    /// Gives every slot between the last settled one and now its outcome, then plans.
    pub fn begin(&mut self, account: &Account, schedules: &[settings::Schedule], past: Past) {
        (self.boot, self.counted, self.planned_by) = (past.boot, account.now.quality.trusted(), Some(account.now));
        let mut memories = past.cursors;
        for settings in schedules.iter().filter(|s| s.enabled) {
            let memory = memories.remove(&settings.id).and_then(|bytes| Memory::from_bytes(&bytes));
            let mut next = self.insert(settings.clone(), memory, &account.now);
            let late = next.due.filter(|due| due.due_ms <= account.now.boottime_ms);
            if let Some(late) = late.filter(|late| already_served(account.store, &settings.id, memory, *late))
                && let Some(plan) = self.plans.get_mut(&settings.id)
            {
                let _ = plan.planner.fired(late, late.due_ms);
                next.due = plan.planner.next(&account.now).due;
            }
            match &memory {
                Some(memory) if memory.boot != self.boot => {
                    let served = next.due.filter(|due| due.due_ms <= account.now.boottime_ms).and_then(|due| due.plan_ms);
                    account.off_since_another_boot(&settings.id, memory, Some(&settings.rule), served);
                }
                None if past.rebuilt => account.lost(&settings.id),
                _ => {}
            }
            account.off(&settings.id, &next, settings.rule.shortest_ms());
            self.arm(&settings.id, &next, &account.now);
            self.keep(account.store, &settings.id);
        }
        // Schedules that are no more: their slots until now were planned, later ones do not exist.
        for (schedule, memory) in memories {
            if let Some(memory) = Memory::from_bytes(&memory) {
                if memory.boot == self.boot {
                    let shortest_ms = memory.period_ms.max(1);
                    let grid = Grid { period_ms: shortest_ms, phase_ms: memory.phase_ms, align: Align::Clock };
                    account.off(&schedule, &Planner::new(grid, self.boot, Some(memory)).next(&account.now), shortest_ms);
                } else {
                    account.off_since_another_boot(&schedule, &memory, None, None);
                }
            }
            account.store.cursor(schedule, None);
        }
    }

    /// Takes other schedules into force. A schedule that stays the same goes on.
    pub fn change(&mut self, store: &Store, schedules: &[settings::Schedule], now: &Reading) {
        let wanted: Vec<_> = schedules.iter().filter(|s| s.enabled).cloned().collect();
        let gone: Vec<_> = self.plans.keys().filter(|id| wanted.iter().all(|w| w.id != **id)).cloned().collect();
        for id in gone {
            self.account(store, &id, now);
            store.cursor(id, None);
        }
        for new in wanted {
            if self.plans.get(&new.id).is_some_and(|plan| plan.settings == new) {
                continue;
            }
            let memory = self.account(store, &new.id, now);
            let (id, next) = (new.id.clone(), self.insert(new, memory, now));
            if let Some(plan) = self.plans.get(&id) {
                tell(store, self.boot, plan, &next, Outcome::Off { reason: Off::Stop }, now);
            }
            self.arm(&id, &next, now);
            self.keep(store, &id);
        }
    }

    /// No schedule is in force any more. All slots up to now are accounted for: whatever the next start has in force begins here.
    pub fn end(&mut self, store: Option<&Store>, now: &Reading) {
        let all: Vec<_> = self.plans.keys().cloned().collect();
        for id in &all {
            if let Some(store) = store {
                self.plan(store, id, now);
                self.keep(store, id);
            }
            self.remove(id);
        }
    }

    /// A slot that is due now, for its camera. `None`: of a plan that was replaced meanwhile, so nothing may be captured for it.
    pub fn fired(&mut self, store: &Store, schedule: &ScheduleId, due: Due, now: &Reading) -> Option<(CameraId, Offered)> {
        let plan = self.plans.get_mut(schedule)?;
        if !plan.planner.fired(due, now.boottime_ms) {
            if plan.planner.pending() == Some(due) {
                self.plan(store, schedule, now);
            }
            return None;
        }
        let slot = Slot { schedule: schedule.clone(), boot: self.boot, due_ms: due.due_ms, plan_ms: due.plan_ms };
        if let Some(memory) = plan.planner.memory().and_then(|memory| memory.to_bytes()) {
            store.fired(slot.clone(), memory);
        }
        let offered = Offered { slot, period_ms: plan.period_ms, wish: plan.settings.wish };
        let camera = plan.settings.camera.clone();
        self.plan(store, schedule, now);
        Some((camera, offered))
    }

    /// Asks a planner for the next slot, and sets its timer. Slots that passed were slept through.
    pub fn plan(&mut self, store: &Store, schedule: &ScheduleId, now: &Reading) {
        let Some(plan) = self.plans.get_mut(schedule) else { return };
        let next = plan.planner.next(now);
        tell(store, self.boot, plan, &next, Outcome::Missed { reason: Missed::Asleep }, now);
        self.arm(schedule, &next, now);
    }

    /// The clock was set, or gained trust: all that goes by it is planned anew.
    pub fn clock_changed(&mut self, store: &Store, now: &Reading) {
        let schedules: Vec<_> = self.plans.keys().cloned().collect();
        let first_trust = now.quality.trusted() && !self.counted;
        for schedule in &schedules {
            self.plan(store, schedule, now);
            // A power cut must not find a memory of the clock that was.
            self.keep(store, schedule);
            if let (true, Some(plan)) = (first_trust, self.plans.get(schedule)) {
                let served = plan.planner.pending().filter(|due| due.due_ms <= now.boottime_ms).and_then(|due| due.plan_ms);
                count_off(store, schedule, &plan.settings.rule, self.boot, now, served);
            }
        }
        (self.planned_by, self.counted) = (Some(*now), self.counted || first_trust);
    }

    /// Whether the clock was set since, or is believed more or less.
    pub fn is_planned_by_another(&self, now: &Reading) -> bool {
        self.planned_by.is_some_and(|then| then.quality != now.quality || then.offset_ms().abs_diff(now.offset_ms()) > STEP_MS)
    }

    /// When the schedules of a camera are due next.
    pub fn due_of(&self, camera: &CameraId) -> impl Iterator<Item = (&ScheduleId, u64)> {
        self.plans.iter().filter(move |(_, plan)| plan.settings.camera == *camera).filter_map(|(id, plan)| Some((id, plan.due_ms?)))
    }

    /// What changed of that since it was last asked for; `None`: nothing comes any more.
    pub fn take_news(&mut self) -> Vec<(CameraId, ScheduleId, Option<u64>)> {
        std::mem::take(&mut self.news)
    }

    fn insert(&mut self, settings: settings::Schedule, memory: Option<Memory>, now: &Reading) -> Next {
        let (id, period_ms) = (settings.id.clone(), settings.rule.shortest_ms());
        let mut planner = Planner::new(settings.rule.clone(), self.boot, memory);
        let next = planner.next(now);
        if planner.waits_for_clock() {
            tracing::warn!(schedule = %id, "the clock is not set: its pictures begin as soon as the hub or the network tells the time");
        }
        self.plans.insert(id, Plan { settings, planner, timer: None, period_ms, due_ms: None });
        next
    }

    /// Takes a schedule out of force, its slots up to now accounted for.
    fn account(&mut self, store: &Store, schedule: &ScheduleId, now: &Reading) -> Option<Memory> {
        let mut old = self.remove(schedule)?;
        let passed = old.planner.next(now);
        tell(store, self.boot, &old, &passed, Outcome::Missed { reason: Missed::Asleep }, now);
        old.planner.memory()
    }

    fn remove(&mut self, schedule: &ScheduleId) -> Option<Plan> {
        let plan = self.plans.remove(schedule)?;
        plan.timer.into_iter().for_each(|timer| _ = self.wheel.cancel(timer));
        self.news.push((plan.settings.camera.clone(), schedule.clone(), None));
        Some(plan)
    }

    /// What the planner has to remember when it begins: slots of a schedule that never fired are counted too.
    fn keep(&self, store: &Store, schedule: &ScheduleId) {
        let memory = self.plans.get(schedule).and_then(|plan| plan.planner.memory());
        store.cursor(schedule.clone(), memory.and_then(|memory| memory.to_bytes()));
    }

    fn arm(&mut self, schedule: &ScheduleId, next: &Next, now: &Reading) {
        let Some(plan) = self.plans.get_mut(schedule) else { return };
        plan.timer.take().into_iter().for_each(|old| _ = self.wheel.cancel(old));
        plan.due_ms = next.due.map(|due| due.due_ms);
        self.news.push((plan.settings.camera.clone(), schedule.clone(), plan.due_ms));
        let (at_ms, timer) = match next.due {
            Some(due) => (due.due_ms, Timer::Slot { schedule: schedule.clone(), due }),
            // As soon as the time is known it is planned.
            None if plan.planner.waits_for_clock() => return,
            None => (now.boottime_ms + ASK_AGAIN_MS, Timer::Plan { schedule: schedule.clone() }),
        };
        match self.wheel.insert(at_ms, timer) {
            Ok(timer) => plan.timer = Some(timer),
            // Cannot happen within the limits that the configuration enforces.
            Err(_) => tracing::error!(%schedule, "no timer is left for this schedule"),
        }
    }
}

/// Whether a late slot has its picture already: one that a crash left on the disk, found again at this start.
fn already_served(store: &Store, schedule: &ScheduleId, memory: Option<Memory>, late: Due) -> bool {
    let here = Some((store.boot(), late.due_ms));
    // By the clock of the boot before.
    let before = memory.and_then(|memory| Some((memory.boot, late.plan_ms?.checked_sub(memory.offset_ms?)?.try_into().ok()?)));
    here.into_iter().chain(before).any(|(boot, due_ms): (BootNo, u64)| {
        let known = store.outcomes(schedule, boot, due_ms.saturating_sub(STEP_MS), due_ms + STEP_MS).unwrap_or_default();
        known.iter().any(|(_, outcome)| matches!(outcome, Outcome::Captured { .. }))
    })
}

/// Puts on record what a planner says of slots that nobody served.
fn tell(store: &Store, boot: BootNo, plan: &Plan, next: &Next, passed: Outcome, now: &Reading) {
    let (schedule, near_ms) = (&plan.settings.id, same_slot_ms(plan.period_ms));
    store.runs_without(slot_runs(schedule, boot, &next.passed.runs, near_ms), passed.clone());
    tell_unseen(store, schedule, boot, next, plan.period_ms);
    tell_uncounted(store, schedule, boot, next, passed, now);
}

#[cfg(test)]
mod tests;
