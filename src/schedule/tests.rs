//! The planner against everything that can happen to a board's clocks, and wrong planners against the same checker.

use super::*;
use crate::model::Quality;
use proptest::prelude::*;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
const YEARS_56_MS: i64 = 56 * 365 * DAY_MS as i64;
/// 2026-11-22, a Sunday.
const WALL_MS: i64 = 1_795_305_600_000;

/// What the checker needs of a planner, so that wrong ones can be held against it.
trait Machine {
    fn next(&mut self, now: &Reading) -> Next;
    fn fired(&mut self, due: Due, now_ms: u64) -> bool;
    fn memory(&self) -> Option<Memory>;
}
impl Machine for Planner {
    fn next(&mut self, now: &Reading) -> Next {
        Planner::next(self, now)
    }
    fn fired(&mut self, due: Due, now_ms: u64) -> bool {
        Planner::fired(self, due, now_ms)
    }
    fn memory(&self) -> Option<Memory> {
        Planner::memory(self)
    }
}
type Make = fn(Grid, BootNo, Option<Memory>) -> Box<dyn Machine>;
fn right(grid: Grid, boot: BootNo, memory: Option<Memory>) -> Box<dyn Machine> {
    Box::new(Planner::new(grid, boot, memory))
}

/// What happens to a board.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// So many slots come due, each seen this late.
    Slots {
        count: u8,
        late_ms: u64,
    },
    /// The clock is moved, and the agent is told at once, this long after it last planned.
    ClockMoves {
        after_ms: u64,
        by_ms: i64,
    },
    /// The clock is moved in the very moment that a slot comes due: the agent plans before it fires.
    MovesAsItComesDue {
        by_ms: i64,
    },
    Trust(bool),
    Sleeps {
        ms: u64,
    },
    AgentRestarts {
        down_ms: u64,
    },
    Reboots {
        off_ms: u64,
    },
}

/// Plays events to a planner and notes every broken promise.
struct World {
    grid: Grid,
    make: Make,
    machine: Box<dyn Machine>,
    stored: Option<Memory>,
    boot: BootNo,
    now_ms: u64,
    offset_ms: i64,
    trusted: bool,
    handed: Option<Due>,
    // What was seen so far, of this boot and of all.
    last: Option<Due>,
    last_plan_ms: Option<i64>,
    /// The grid may begin anew: at a boot, at first trust, at a step.
    anew: bool,
    binds: u32,
    slots: u64,
    broken: Vec<String>,
}

impl World {
    fn new(make: Make, grid: Grid) -> Self {
        Self {
            grid,
            make,
            machine: make(grid, 1, None),
            stored: None,
            boot: 1,
            now_ms: 7_000,
            offset_ms: WALL_MS,
            trusted: false,
            handed: None,
            last: None,
            last_plan_ms: None,
            anew: true,
            binds: 0,
            slots: 0,
            broken: Vec::new(),
        }
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            let what = format!("boot {} at {}: {}", self.boot, self.now_ms, what());
            self.broken.push(what);
        }
    }

    fn reading(&self) -> Reading {
        let quality = if self.trusted { Quality::Ntp } else { Quality::Saved };
        Reading { boottime_ms: self.now_ms, wall_ms: self.now_ms as i64 + self.offset_ms, quality, uncertainty_ms: Some(1) }
    }

    /// Whether the clock differs from the grid seen last by more than can be followed.
    fn steps(&self, now: &Reading, limit: u64) -> bool {
        let held = self.handed.or(self.last).and_then(|due| Some(due.plan_ms? - due.due_ms as i64));
        held.is_none_or(|held| held.abs_diff(now.offset_ms()) > limit)
    }

    fn ask(&mut self) -> Due {
        let now = self.reading();
        let limit = STEP_MS.min(self.grid.period_ms / 2);
        let follows = self.trusted && self.grid.align == Align::Clock;
        let mut anew = follows && self.steps(&now, limit);
        let waiting = self.handed.filter(|due| due.due_ms <= self.now_ms && self.now_ms <= due.due_ms + LATE_MAX_MS);
        let Next { due, passed, unseen, uncounted } = self.machine.next(&now);
        self.check(unseen == Passed::default() && uncounted.is_none(), || format!("a grid tells {unseen:?} and {uncounted:?}"));
        let due = due.unwrap();
        self.check(passed.runs.len() <= 1 && passed.more_from.is_none(), || format!("{passed:?} of one grid"));
        if let Some(run) = passed.runs.first().copied() {
            self.check(run.count > 0 && run.last().due_ms <= now.boottime_ms, || format!("{run:?} is not past"));
            self.outcome(Due { due_ms: run.first_due_ms, plan_ms: run.first_plan_ms }, run.count);
            // Passed unseen, the run alone shows the offset that had been in force.
            anew |= follows && self.steps(&now, limit);
            self.stored = self.machine.memory();
        }
        self.anew |= anew;
        if self.trusted && self.last_plan_ms.is_some_and(|last| last > now.wall_ms + BACK_TOLERATED_MS) {
            self.last_plan_ms = None;
        }
        if self.stored.is_none_or(|memory| memory.boot != self.boot) {
            self.stored = self.machine.memory();
        }
        match waiting {
            Some(waiting) => self.check(due == waiting, || format!("{waiting:?} came due and was replaced by {due:?}")),
            None => self.check(due.due_ms > now.boottime_ms, || format!("{due:?} is not ahead")),
        }
        let bound = |due: Option<Due>| due.is_some_and(|due| due.plan_ms.is_some());
        let before = self.handed.or(self.last);
        self.binds += u32::from(bound(Some(due)) && !bound(before));
        self.check(self.binds <= 1, || "bound to the clock a second time".into());
        self.check(bound(Some(due)) || !bound(before), || "fell back to counting from boot".into());
        if follows && waiting.is_none() {
            let off = due.plan_ms.map(|plan| (plan - due.due_ms as i64).abs_diff(now.offset_ms()));
            self.check(off.is_some_and(|off| off <= limit), || format!("{due:?} is off the trusted clock by {off:?} ms"));
        }
        self.handed = Some(due);
        due
    }

    fn fire(&mut self, due: Due) {
        let accepted = self.machine.fired(due, self.now_ms);
        self.check(accepted, || format!("{due:?} was handed out and then refused"));
        let again = self.machine.fired(due, self.now_ms);
        self.check(!again, || format!("{due:?} fired twice"));
        self.handed = None;
        self.outcome(due, 1);
        self.stored = self.machine.memory();
    }
    /// `count` slots of the grid, the first of them `due`, have got their outcome.
    fn outcome(&mut self, due: Due, count: u64) {
        let Grid { period_ms, phase_ms, .. } = self.grid;
        let on_grid = due.plan_ms.unwrap_or(due.due_ms as i64) - phase_ms as i64;
        self.check(on_grid.rem_euclid(period_ms as i64) == 0, || format!("{due:?} is not on the grid"));
        if let Some(last) = self.last {
            let gap_ms = due.due_ms as i64 - last.due_ms as i64;
            self.check(gap_ms > 0, || format!("{due:?} again, or before {last:?}"));
            self.check(2 * gap_ms >= period_ms as i64, || format!("{due:?} is a burst after {last:?}"));
            let apart_ms = due.plan_ms.zip(last.plan_ms).map_or(gap_ms, |(plan, last)| plan - last);
            self.check(self.anew || apart_ms == period_ms as i64, || format!("a slot was lost between {last:?} and {due:?}"));
        }
        if let (Some(plan), Some(last)) = (due.plan_ms, self.last_plan_ms) {
            self.check(plan > last, || format!("plan {plan} again, or before {last}"));
        }
        let later_ms = (count - 1) * period_ms;
        let last = Due { due_ms: due.due_ms + later_ms, plan_ms: due.plan_ms.map(|plan| plan + later_ms as i64) };
        self.last = Some(last);
        self.last_plan_ms = last.plan_ms.or(self.last_plan_ms);
        self.anew = false;
        self.slots += count;
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Slots { count, late_ms } => {
                for _ in 0..count {
                    let due = self.ask();
                    self.now_ms = self.now_ms.max(due.due_ms) + late_ms;
                    self.fire(due);
                }
            }
            Event::ClockMoves { after_ms, by_ms } => {
                self.sleep(after_ms);
                self.offset_ms += by_ms;
            }
            Event::MovesAsItComesDue { by_ms } => {
                self.now_ms = self.now_ms.max(self.ask().due_ms);
                self.offset_ms += by_ms;
                let due = self.ask();
                self.fire(due);
            }
            Event::Trust(trusted) => self.trusted = trusted,
            Event::Sleeps { ms } => self.sleep(ms),
            Event::AgentRestarts { down_ms } => {
                self.now_ms += down_ms;
                self.handed = None;
                // Bound, but died before a slot of the new grid came due: binding again repeats nothing.
                self.binds = u32::from(self.last.is_some_and(|last| last.plan_ms.is_some()));
                self.machine = (self.make)(self.grid, self.boot, self.stored);
            }
            Event::Reboots { off_ms } => {
                self.offset_ms += (self.now_ms + off_ms) as i64;
                self.boot += 1;
                self.now_ms = 4_000;
                (self.trusted, self.anew, self.binds) = (false, true, 0);
                (self.handed, self.last) = (None, None);
                self.machine = (self.make)(self.grid, self.boot, self.stored);
            }
        }
        self.ask();
    }

    fn sleep(&mut self, ms: u64) {
        self.now_ms += ms;
        if let Some(due) = self.handed
            && due.due_ms <= self.now_ms
            && self.now_ms <= due.due_ms + LATE_MAX_MS
        {
            self.fire(due);
        }
        self.ask();
    }
}

fn played(make: Make, grid: Grid, events: &[Event]) -> World {
    let mut world = World::new(make, grid);
    for &event in events {
        world.play(event);
    }
    world
}

fn event() -> impl Strategy<Value = Event> {
    let by_ms = || {
        prop_oneof![
            4 => -1_000..=1_000i64,
            2 => -70_000..=70_000i64,
            1 => prop::sample::select(vec![HOUR_MS, -HOUR_MS, 24 * HOUR_MS, -24 * HOUR_MS, YEARS_56_MS, -YEARS_56_MS]),
        ]
    };
    let span_ms = || prop_oneof![0..2_000u64, 0..HOUR_MS as u64, 0..3 * DAY_MS];
    prop_oneof![
        6 => (1..20u8, prop_oneof![Just(0), 0..50u64, 0..5_000u64]).prop_map(|(count, late_ms)| Event::Slots { count, late_ms }),
        4 => (span_ms(), by_ms()).prop_map(|(after_ms, by_ms)| Event::ClockMoves { after_ms, by_ms }),
        1 => by_ms().prop_map(|by_ms| Event::MovesAsItComesDue { by_ms }),
        3 => prop::bool::weighted(0.7).prop_map(Event::Trust),
        2 => span_ms().prop_map(|ms| Event::Sleeps { ms }),
        2 => span_ms().prop_map(|down_ms| Event::AgentRestarts { down_ms }),
        1 => span_ms().prop_map(|off_ms| Event::Reboots { off_ms }),
    ]
}

fn grid() -> impl Strategy<Value = Grid> {
    let period = prop::sample::select(vec![1_000, 1_001, 2_000, 7_000, MINUTE_MS, 5 * MINUTE_MS, HOUR_MS as u64, DAY_MS, 31 * DAY_MS]);
    let align = prop_oneof![5 => Just(Align::Clock), 1 => Just(Align::Boot)];
    (period, any::<u64>(), align).prop_map(|(period_ms, phase, align)| Grid { period_ms, phase_ms: phase % period_ms, align })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn whatever_happens_to_the_board_the_promises_hold(grid in grid(), events in prop::collection::vec(event(), 1..40)) {
        let world = played(right, grid, &events);
        prop_assert!(world.broken.is_empty(), "{:#?}", world.broken);
    }
}

/// Thirty days in which the kernel steers the clock at every tenth slot.
fn thirty_days(make: Make, period_ms: u64) -> World {
    let mut world = World::new(make, Grid { period_ms, phase_ms: 123, align: Align::Clock });
    world.play(Event::Trust(true));
    let (end_ms, mut dice) = (world.now_ms + 30 * DAY_MS, 1u64);
    while world.now_ms + 10 * period_ms < end_ms {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        world.play(Event::Slots { count: 10, late_ms: dice >> 60 });
        world.play(Event::ClockMoves { after_ms: 0, by_ms: (dice >> 40) as i64 % 9 - 4 });
    }
    world
}

#[test]
fn nothing_drifts_in_thirty_days() {
    for period_ms in [10_000, 5 * MINUTE_MS, HOUR_MS as u64] {
        let world = thirty_days(right, period_ms);
        assert_eq!(world.broken, Vec::<String>::new());
        // One more or less where the steered clock itself gained or lost.
        let expected = 30 * DAY_MS / period_ms;
        assert!(world.slots.abs_diff(expected) <= 11, "{} slots of {period_ms} ms, not {expected}", world.slots);
    }
}

/// In whole milliseconds the difference of two clocks that run alike is one or the other of two numbers.
#[test]
fn slots_stay_evenly_apart_while_the_clocks_differ_by_a_millisecond_now_and_then() {
    let mut world = World::new(right, Grid { period_ms: 5 * MINUTE_MS, phase_ms: 123, align: Align::Clock });
    world.play(Event::Trust(true));
    let dues: Vec<u64> = (0..1_000)
        .map(|i| {
            world.offset_ms = WALL_MS + i64::from(i % 4 == 0);
            world.now_ms = world.ask().due_ms;
            world.fire(world.handed.unwrap());
            world.now_ms
        })
        .collect();
    let uneven = dues.windows(2).filter(|pair| pair[1] - pair[0] != 5 * MINUTE_MS).count();
    assert_eq!((uneven, world.broken.len()), (0, 0), "{:?}", world.broken);
    // A move that is none of reading them is followed all the same.
    world.offset_ms = WALL_MS + 50;
    let due = world.ask();
    assert_eq!(due.plan_ms, Some(due.due_ms as i64 + world.offset_ms));
}

/// Deliberately wrong: the next slot is one period after the present.
struct Drifts {
    period_ms: u64,
    pending: Option<Due>,
}
impl Machine for Drifts {
    fn next(&mut self, now: &Reading) -> Next {
        let plan_ms = Some(now.wall_ms + self.period_ms as i64);
        let due = *self.pending.get_or_insert(Due { due_ms: now.boottime_ms + self.period_ms, plan_ms });
        Next { due: Some(due), ..Next::default() }
    }
    fn fired(&mut self, due: Due, _: u64) -> bool {
        self.pending.take() == Some(due)
    }
    fn memory(&self) -> Option<Memory> {
        None
    }
}

/// Deliberately wrong: the right planner, with a memory that loses what `forget` takes away.
struct Forgets {
    planner: Planner,
    forget: fn(&mut Memory),
}
impl Machine for Forgets {
    fn next(&mut self, now: &Reading) -> Next {
        self.planner.memory.as_mut().map(self.forget);
        self.planner.next(now)
    }
    fn fired(&mut self, due: Due, now_ms: u64) -> bool {
        self.planner.fired(due, now_ms)
    }
    fn memory(&self) -> Option<Memory> {
        self.planner.memory()
    }
}
fn forgets(grid: Grid, boot: BootNo, memory: Option<Memory>, forget: fn(&mut Memory)) -> Box<dyn Machine> {
    Box::new(Forgets { planner: Planner::new(grid, boot, memory), forget })
}

/// The checker proves something only if it sees each kind of wrong planner.
#[test]
fn wrong_planners_are_found_out() {
    let grid = Grid { period_ms: MINUTE_MS, phase_ms: 0, align: Align::Clock };
    let slots = Event::Slots { count: 3, late_ms: 10 };
    let stepped = |by_ms| [Event::Trust(true), slots, Event::ClockMoves { after_ms: 100, by_ms }, slots];
    let controls: [(&str, &str, Make, &[Event]); 6] = [
        ("not on the grid", "now + period", |grid, _, _| Box::new(Drifts { period_ms: grid.period_ms, pending: None }), &[slots, slots]),
        ("again", "forgets its plans", |g, b, m| forgets(g, b, m, |m| m.last_plan_ms = None), &stepped(-40_000)),
        ("a burst", "forgets the last due", |g, b, m| forgets(g, b, m, |m| m.last_due_ms = None), &stepped(59_800)),
        ("was lost", "settles what it never saw", |g, b, m| forgets(g, b, m, |m| m.settled_ms += 90_000), &[slots, slots]),
        (
            "again",
            "starts from nothing",
            |g, b, _| right(g, b, None),
            &[
                Event::Trust(true),
                slots,
                Event::Reboots { off_ms: 0 },
                Event::ClockMoves { after_ms: 0, by_ms: -130_000 + 90_000 },
                Event::Trust(true),
                slots,
            ],
        ),
        (
            "fell back",
            "forgets the offset",
            |g, b, m| forgets(g, b, m, |m| m.offset_ms = None),
            &[Event::Trust(true), slots, Event::Trust(false), slots],
        ),
    ];
    for (complaint, name, make, events) in controls {
        let wrong = played(make, grid, events).broken;
        assert!(wrong.iter().any(|broken| broken.contains(complaint)), "{name}: {wrong:#?}");
        assert_eq!(played(right, grid, events).broken, Vec::<String>::new(), "{name}: the right planner");
    }
    assert!(!thirty_days(controls[0].2, 10_000).broken.is_empty());
}

/// A planner whose clock is trusted from `trusted_ms` on, after slots at 5 and 10 minutes since boot.
fn counted_from_boot() -> World {
    let mut world = World::new(right, Grid { period_ms: 5 * MINUTE_MS, phase_ms: 0, align: Align::Clock });
    world.play(Event::Slots { count: 2, late_ms: 0 });
    assert_eq!(world.last, Some(Due { due_ms: 600_000, plan_ms: None }));
    world
}

#[test]
fn the_first_trusted_clock_binds_the_grid_half_a_period_after_the_last_slot_at_the_earliest() {
    // Wall − boottime modulo the period is 200 s (100 s): the clock's own slots lie 100 s (200 s) after those from boot.
    for (offset_s, due_ms) in [(200, 1_000_000), (100, 800_000), (150, 750_000), (151, 1_049_000)] {
        let mut world = counted_from_boot();
        world.offset_ms = WALL_MS + offset_s * 1_000;
        world.play(Event::Trust(true));
        let due = world.handed.unwrap();
        assert_eq!((due.due_ms, due.plan_ms), (due_ms, Some(due_ms as i64 + world.offset_ms)), "offset {offset_s}");
        assert_eq!(world.broken, Vec::<String>::new());
    }
}

#[test]
fn a_clock_that_reads_2030_by_mistake_does_not_silence_a_schedule() {
    let mut world = counted_from_boot();
    world.offset_ms += 4 * 365 * DAY_MS as i64;
    let slots = Event::Slots { count: 1, late_ms: 0 };
    for event in [Event::Trust(true), slots, Event::ClockMoves { after_ms: 1_000, by_ms: -4 * 365 * DAY_MS as i64 }] {
        world.play(event);
    }
    let wait_ms = world.handed.unwrap().due_ms - world.now_ms;
    assert!(wait_ms <= 2 * 5 * MINUTE_MS, "{wait_ms}");
    assert_eq!(world.broken, Vec::<String>::new());
}

#[test]
fn a_night_of_sleep_is_one_run_of_missed_slots_and_no_burst() {
    let mut planner = Planner::new(Grid { period_ms: 5 * MINUTE_MS, phase_ms: 0, align: Align::Boot }, 1, None);
    let at = |boottime_ms| Reading { boottime_ms, wall_ms: WALL_MS, quality: Quality::Saved, uncertainty_ms: Some(1) };
    let due = planner.next(&at(1_000)).due.unwrap();
    let morning_ms = 8 * HOUR_MS as u64 + 1;
    assert!(planner.fired(due, due.due_ms));
    let next = planner.next(&at(morning_ms));
    let run = next.passed.runs[0];
    assert_eq!((run.first_due_ms, run.count, run.last().due_ms), (600_000, 95, 8 * HOUR_MS as u64));
    assert_eq!(next.due.unwrap().due_ms, 8 * HOUR_MS as u64 + 5 * MINUTE_MS);
    assert_eq!(planner.next(&at(morning_ms + 1)).passed, Passed::default(), "reported once");
}

#[test]
fn an_agent_restart_goes_on_where_it_was_and_counts_what_it_missed() {
    let mut world = counted_from_boot();
    let kept = world.stored.unwrap().to_bytes().unwrap();
    world.now_ms += 11 * MINUTE_MS;
    let mut planner = Planner::new(world.grid, 1, Memory::from_bytes(&kept));
    let next = planner.next(&world.reading());
    assert_eq!(next.passed.runs.iter().map(|run| (run.first_due_ms, run.count)).collect::<Vec<_>>(), [(900_000, 2)]);
    assert_eq!(next.due, Some(Due { due_ms: 1_500_000, plan_ms: None }));
}

#[test]
fn a_changed_period_repeats_nothing_and_skips_nothing_of_its_own() {
    let world = counted_from_boot();
    let daily = Grid { period_ms: DAY_MS, phase_ms: 601_000, align: Align::Boot };
    let next = Planner::new(daily, 1, world.stored).next(&world.reading());
    assert_eq!((next.due.unwrap().due_ms, next.passed), (601_000, Passed::default()));
}
