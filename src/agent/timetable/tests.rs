//! Years of eight schedules in seconds: the real wheel, planners, ledger and store, in a world where clocks are wrong, machines sleep and
//! go off, and days are 23 and 25 hours long. What became of each planned picture is held against what the world knows.

use super::*;
use crate::agent::past::why_off;
use crate::clock::{Clock, TestClock};
use crate::model::{Failure, Priority, Quality};
use crate::protocol::Instant;
use crate::schedule::{Rule, Slots, When};
use crate::store::{Configure, OpenError, Place, Put, Query, Rules};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const YEARS_56_MS: i64 = 56 * 365 * DAY_MS + 14 * DAY_MS;
/// A slot may be told as missed so far from where it was, because the clock was off by as much when it was served.
const NEAR_MS: i64 = 60_000;

/// Eight schedules: changes of clocks in five zones (by half an hour, at midnight, for a month of fasting), polar night and day, a leap
/// day, series, jitter, windows over midnight.
const SCHEDULES: &str = r#"
[node]
id = "sim"
zone = "Europe/Berlin"
latitude = 69.65
longitude = 18.96
[cameras.c]
source = "pattern:"
[schedules.grid]
camera = "c"
every = "GRID"
[schedules.night]
camera = "c"
every = "1h"
during = "mon-fri 22:00..05:00"
zone = "America/New_York"
[schedules.daily]
camera = "c"
at = ["06:00", "12:00"]
[schedules.gap]
camera = "c"
at = "02:10"
zone = "Australia/Lord_Howe"
[schedules.midnight]
camera = "c"
cron = "15 0 * * *"
zone = "America/Santiago"
misfire = "skip"
[schedules.sun]
camera = "c"
at = ["sunrise-30m", "sunset+30m"]
[schedules.leap]
camera = "c"
cron = "0 12 29 2 *"
zone = "Africa/Casablanca"
[schedules.series]
camera = "c"
at = "solar noon"
burst = 3
jitter = "10m"
"#;

/// What happens to a board.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Somebody sets the clock: so far from the true time, and how good it is said to be.
    Clock(i64, Quality),
    /// It says 1970 again.
    Lost,
    Sleeps(i64),
    AgentStops(i64),
    AgentCrashes(i64),
    /// Off for so long; the clock says this much less than the truth afterwards, and nobody vouches for it.
    PowerCut(i64, i64),
}

struct Taken {
    boot: BootNo,
    true_ms: i64,
    plan_ms: Option<i64>,
    /// The clock said the truth.
    true_clock: bool,
}

struct World {
    dir: PathBuf,
    schedules: Vec<settings::Schedule>,
    keep: Rules,
    clock: Arc<TestClock>,
    store: Option<Store>,
    table: Timetable,
    /// True time, what the wall clock is ahead of it, and when each boot began.
    true_ms: i64,
    ahead_ms: i64,
    quality: Quality,
    boots: Vec<i64>,
    slots: BTreeMap<(ScheduleId, BootNo, u64), Taken>,
    captured: Vec<(u64, i64)>,
    /// True times between which a trusted clock was wrong.
    wrong: Vec<(i64, i64)>,
    known: BTreeMap<BootNo, i64>,
    purged_while_wrong: u64,
    broken: Vec<String>,
    every_nth: u64,
    changed: fn(&mut World),
}

impl Drop for World {
    fn drop(&mut self) {
        self.store = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn picture(camera: CameraId, slot: Slot, taken_ms: u64) -> Put {
    let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &[0; 300], &[0xFF, 0xD9]].concat();
    let (slots, flags, priority) = (vec![slot], vec![], Priority::Normal);
    Put { camera, slots, jpeg, width: 8, height: 8, taken_ms, source: "pattern", flags, priority, window_ms: None }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

impl World {
    fn new(name: &str, from_ms: i64, grid: &str, keep_days: u64, every_nth: u64) -> Self {
        let text = SCHEDULES.replace("GRID", grid);
        let (settings, _) = crate::config::parse(&text, "sim.toml").unwrap();
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = base.join(format!("shutterd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let now = Reading { boottime_ms: 9_000, wall_ms: from_ms, quality: Quality::Ntp, uncertainty_ms: Some(1) };
        let mut world = Self {
            dir,
            schedules: settings.schedules,
            keep: Rules { age_ms: Some(keep_days * DAY_MS as u64), ..Rules::default() },
            clock: Arc::new(TestClock::new(now)),
            store: None,
            table: Timetable::default(),
            true_ms: from_ms,
            ahead_ms: 0,
            quality: Quality::Ntp,
            boots: vec![from_ms - 9_000],
            slots: BTreeMap::new(),
            captured: Vec::new(),
            wrong: Vec::new(),
            known: BTreeMap::new(),
            purged_while_wrong: 0,
            broken: Vec::new(),
            every_nth,
            changed: |world| {
                let now = world.clock.read();
                world.table.clock_changed(world.store.as_ref().unwrap(), &now);
            },
        };
        world.start();
        world
    }

    fn boot_ms(&self) -> i64 {
        *self.boots.last().unwrap()
    }
    fn trusted_and_wrong(&self) -> bool {
        self.quality.trusted() && self.ahead_ms != 0
    }

    fn start(&mut self) {
        let config =
            Configure { node: "sim".parse().unwrap(), hub: false, version: "0".into(), keep: self.keep.clone(), window_ms: 60_000 };
        let place = Place { dir: self.dir.clone(), board: "board".into(), hub: false };
        let boot_id = format!("boot-{}", self.boots.len());
        // The writer of the store before may not have closed it yet.
        let (store, past) = loop {
            match Store::open(&place, config.clone(), self.clock.clone(), &boot_id) {
                Err(OpenError::Locked { .. }) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        assert_eq!(past.boot as usize, self.boots.len());
        let account =
            Account { store: &store, boot: past.boot, before: why_off(&past, false), storage_failed_at_ms: None, now: self.clock.read() };
        self.table = Timetable::default();
        self.table.begin(&account, &self.schedules, past);
        block(store.flush()).unwrap();
        self.store = Some(store);
    }

    /// Time passes in true time; nothing fires.
    fn set_true(&mut self, true_ms: i64) {
        self.true_ms = true_ms;
        let (boottime_ms, wall_ms, quality) = ((true_ms - self.boot_ms()) as u64, true_ms + self.ahead_ms, self.quality);
        self.clock.change(|now| (now.boottime_ms, now.wall_ms, now.quality) = (boottime_ms, wall_ms, quality));
    }

    fn run_until(&mut self, end_ms: i64) {
        while let Some(due_ms) = self.table.wheel.next_deadline() {
            let at_ms = self.boot_ms() + due_ms as i64;
            if at_ms > end_ms {
                break;
            }
            self.set_true(at_ms.max(self.true_ms));
            self.turn();
        }
        self.set_true(end_ms);
    }

    fn turn(&mut self) {
        let now = self.clock.read();
        let mut timers = Vec::new();
        self.table.wheel.advance(now.boottime_ms, &mut |_, _, timer| timers.push(timer));
        for timer in timers {
            let store = self.store.clone().unwrap();
            match timer {
                Timer::Slot { schedule, due } => {
                    if let Some((camera, offered)) = self.table.fired(&store, &schedule, due, &now) {
                        self.serve(&store, camera, offered.slot);
                    }
                }
                Timer::Plan { schedule } => self.table.plan(&store, &schedule, &now),
                _ => unreachable!("no such timer in this world"),
            }
        }
    }

    fn serve(&mut self, store: &Store, camera: CameraId, slot: Slot) {
        let key = (slot.schedule.clone(), slot.boot, slot.due_ms);
        let true_clock = self.quality.trusted() && self.ahead_ms == 0;
        let taken = Taken { boot: slot.boot, true_ms: self.true_ms, plan_ms: slot.plan_ms, true_clock };
        if self.slots.insert(key, taken).is_some() {
            self.broken.push(format!("{slot:?} twice"));
        }
        let name = slot.schedule.as_str();
        if true_clock && name != "grid" && name != "night" && slot.plan_ms.is_none() {
            self.broken.push(format!("{slot:?} has no plan by a trusted clock"));
        }
        if !(self.slots.len() as u64).is_multiple_of(self.every_nth) {
            store.outcome(slot, Outcome::Failed { reason: Failure::new("timeout", "no picture") });
            return;
        }
        let put = picture(camera, slot, (self.true_ms - self.boot_ms()) as u64);
        match store.put(put) {
            Ok(stored) => self.captured.push((stored.id.seq.0, self.true_ms)),
            Err(e) => self.broken.push(format!("not stored: {e}")),
        }
    }

    fn play(&mut self, event: Event) {
        let store = self.store.clone().unwrap();
        // What is stamped so far is stamped by the clock that was.
        block(store.flush()).unwrap();
        // What is old enough may go an hour early.
        let (was_wrong, count) = (self.trusted_and_wrong() && self.ahead_ms.abs() > HOUR_MS, store.totals().0);
        match event {
            Event::Clock(ahead_ms, quality) => self.set_clock(ahead_ms, quality),
            Event::Lost => self.set_clock(12_000 - self.true_ms, Quality::Unset),
            Event::Sleeps(ms) => {
                self.set_true(self.true_ms + ms);
                self.turn();
            }
            Event::AgentStops(ms) => {
                block(store.stop()).unwrap();
                drop(store);
                self.restart(ms);
            }
            Event::AgentCrashes(ms) => {
                drop(store);
                self.restart(ms);
            }
            Event::PowerCut(ms, behind_ms) => {
                drop(store);
                self.store = None;
                self.end_of_wrong();
                self.boots.push(self.true_ms + ms);
                let quality = if behind_ms < self.true_ms { Quality::Saved } else { Quality::Unset };
                (self.ahead_ms, self.quality) = (-behind_ms, quality);
                self.set_true(self.true_ms + ms + 4_000);
                self.start();
            }
        }
        self.look(was_wrong, count);
    }

    fn restart(&mut self, ms: i64) {
        self.store = None;
        self.set_true(self.true_ms + ms);
        self.start();
    }

    fn set_clock(&mut self, ahead_ms: i64, quality: Quality) {
        self.end_of_wrong();
        (self.ahead_ms, self.quality) = (ahead_ms, quality);
        if self.trusted_and_wrong() {
            self.wrong.push((self.true_ms, i64::MAX));
        }
        self.set_true(self.true_ms);
        (self.changed)(self);
        self.turn();
        block(self.store.as_ref().unwrap().flush()).unwrap();
    }

    fn end_of_wrong(&mut self) {
        if let Some(last) = self.wrong.last_mut().filter(|(_, end)| *end == i64::MAX) {
            last.1 = self.true_ms;
        }
    }

    /// Nothing goes while a trusted clock is wrong, and no boot's time is told twice.
    fn look(&mut self, was_wrong: bool, count: u64) {
        let store = self.store.clone().unwrap();
        if was_wrong && store.totals().0 < count {
            self.purged_while_wrong += count - store.totals().0;
        }
        let times = store.times().unwrap();
        for boot in 1..=self.boots.len() as BootNo {
            if let Some(synced) = times.known(boot) {
                let first = *self.known.entry(boot).or_insert(synced.offset_ms);
                if first != synced.offset_ms {
                    self.broken.push(format!("boot {boot} was timed twice: {first}, {}", synced.offset_ms));
                }
            }
        }
    }

    // ---- the verdict ----

    fn true_of(&self, at: &Instant) -> i64 {
        self.boots[at.boot as usize - 1] + at.due_ms as i64
    }

    /// Stretches without pictures that are on record, in true time.
    fn told(&self, store: &Store, schedule: &ScheduleId) -> Vec<(i64, i64)> {
        let mut told = Vec::new();
        store
            .ranges(schedule, |range| {
                told.push((self.true_of(&range.from), self.true_of(&range.to)));
                true
            })
            .unwrap();
        told
    }

    fn near_a_wrong_clock(&self, at_ms: i64) -> bool {
        self.wrong.iter().any(|(from, to)| (from - DAY_MS - HOUR_MS..to.saturating_add(DAY_MS + HOUR_MS)).contains(&at_ms))
    }

    fn judge(&mut self, from_ms: i64) {
        let store = self.store.clone().unwrap();
        block(store.flush()).unwrap();
        let mut broken = std::mem::take(&mut self.broken);
        for schedule in &self.schedules {
            self.judge_schedule(&store, schedule, from_ms, &mut broken);
        }
        self.judge_pictures(&store, &mut broken);
        if self.purged_while_wrong > 0 {
            broken.push(format!("{} pictures were purged by a wrong clock", self.purged_while_wrong));
        }
        self.broken = broken;
    }

    fn judge_schedule(&self, store: &Store, schedule: &settings::Schedule, from_ms: i64, broken: &mut Vec<String>) {
        let (id, rule) = (&schedule.id, &schedule.rule);
        let told = self.told(store, id);
        let is_told = |from: i64, to: i64| told.iter().any(|(first, last)| first - NEAR_MS <= to && from <= last + NEAR_MS);
        let own: Vec<_> = self.slots.iter().filter(|((name, ..), _)| name == id).collect();
        for ((_, boot, due_ms), taken) in &own {
            if store.outcome_of(id, *boot, *due_ms).unwrap().is_none() && !is_told(taken.true_ms, taken.true_ms) {
                broken.push(format!("{id} {boot}/{due_ms} has no outcome"));
            }
        }
        let mut served: Vec<&Taken> = own.iter().map(|(_, taken)| *taken).collect();
        served.sort_by_key(|taken| taken.true_ms);
        // A series is three pictures a second apart, and nothing else comes as close.
        for (n, pair) in served.windows(2).enumerate() {
            let apart_ms = pair[1].true_ms - pair[0].true_ms;
            let series = rule.burst > 1 && (apart_ms == 1_000 || served[n].plan_ms.is_none());
            // A boot that does not know the time yet has slots of its own.
            let unaware = pair[0].boot != pair[1].boot && pair[1].plan_ms.is_none();
            if apart_ms < rule.apart_ms() as i64 && !unaware && !series && !self.near_a_wrong_clock(pair[1].true_ms) {
                broken.push(format!("{id}: a burst, {apart_ms} ms after the slot at {}", pair[0].true_ms));
            }
        }
        for taken in served.iter().filter(|taken| taken.true_clock) {
            let late_ms = taken.plan_ms.map_or(0, |plan| taken.true_ms - plan);
            let grace_ms = if rule.misfire == crate::schedule::Misfire::Once { rule.grace_ms as i64 } else { 0 };
            // A sleep of a few seconds is no worse than a busy board.
            if !(0..=grace_ms.max(10_000)).contains(&late_ms) {
                broken.push(format!("{id}: planned for {:?}, came at {}", taken.plan_ms, taken.true_ms));
            }
        }
        self.judge_holes(rule, id, &served, &is_told, from_ms, broken);
    }

    /// Whatever a right clock would have planned was served or told.
    fn judge_holes(
        &self,
        rule: &Rule,
        id: &ScheduleId,
        served: &[&Taken],
        is_told: &dyn Fn(i64, i64) -> bool,
        from_ms: i64,
        broken: &mut Vec<String>,
    ) {
        if let When::Grid(grid) = rule.when {
            // Where a boot learns the time its grid changes over, from half a period after the last slot on.
            let longest_ms = 2 * grid.period_ms as i64 + 1_000;
            let gaps = served.windows(2).filter(|pair| pair[1].true_ms - pair[0].true_ms > longest_ms && rule.during.is_none());
            for pair in gaps.filter(|pair| !is_told(pair[0].true_ms + 1, pair[1].true_ms - 1)) {
                broken.push(format!("{id}: nothing between {} and {}, and nothing told", pair[0].true_ms, pair[1].true_ms));
            }
            return;
        }
        let (mut planned, mut holes) = (0, 0);
        let mut next_served = served.iter().peekable();
        let slots = Slots { rule, offset_ms: Some(0), guess_ms: Some(0) };
        let (mut at, end_ms) = (from_ms, self.true_ms - HOUR_MS);
        while let Some(found) = slots.first_from(at + 1).filter(|found| found.due_ms < end_ms) {
            let plan = found.due_ms;
            at = plan;
            planned += 1;
            while next_served.peek().is_some_and(|taken| taken.true_ms < plan - NEAR_MS) {
                next_served.next();
            }
            let near = next_served.peek().is_some_and(|taken| taken.true_ms <= plan + rule.grace_ms.max(NEAR_MS as u64) as i64);
            if !near && !is_told(plan, plan) && !self.near_a_wrong_clock(plan) {
                holes += 1;
                broken.push(format!("{id}: planned for {plan}, neither served nor told"));
            }
        }
        println!("  {id}: {} served, {planned} planned by a right clock, {holes} holes", served.len());
    }

    fn judge_pictures(&self, store: &Store, broken: &mut Vec<String>) {
        let times = store.times().unwrap();
        let truth: BTreeMap<u64, i64> = self.captured.iter().copied().collect();
        if !self.captured.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            broken.push("numbers do not rise with time".into());
        }
        let (mut rows, mut retimed, mut unknown) = (0, 0, 0);
        let (mut before, limit) = (None, 500);
        loop {
            let page = store.list(&Query { limit, ..Query::default() }, before).unwrap();
            for (id, row) in &page {
                let Some(true_ms) = truth.get(&id.seq.0) else { continue };
                rows += 1;
                let in_wrong = |at: i64| self.wrong.iter().any(|(from, to)| (*from..=*to).contains(&at));
                match times.taken_ms(&row.taken) {
                    Some(ms) if ms.abs_diff(*true_ms) <= 50 => retimed += u64::from(!row.taken.quality.trusted()),
                    // The first clock that a boot trusted was wrong, or this picture's own was.
                    Some(_) if in_wrong(*true_ms) || self.first_trust_was_wrong(row.taken.boot) => {}
                    Some(ms) => broken.push(format!("{id} was taken at {true_ms}, and is said to be of {ms}")),
                    None => {
                        unknown += 1;
                        let (earliest, latest) = times.bounds_ms(row.taken.boot, row.taken.boottime_ms);
                        let lies = earliest.is_some_and(|at| at > true_ms + 1_000) || latest.is_some_and(|at| at < true_ms - 1_000);
                        if lies && self.wrong.is_empty() {
                            broken.push(format!("{id} was taken at {true_ms}, not within {earliest:?} and {latest:?}"));
                        }
                    }
                }
            }
            before = page.last().map(|(id, _)| *id);
            if page.len() < limit {
                break;
            }
        }
        println!("  {} pictures taken, {rows} kept, {retimed} of them timed later, {unknown} with bounds", self.captured.len());
    }

    fn first_trust_was_wrong(&self, boot: BootNo) -> bool {
        self.known.get(&boot).is_some_and(|offset| offset.abs_diff(self.boots[boot as usize - 1]) > 50)
    }
}

fn dice(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// Something happens every few hours or days, and some time later the clock is right again.
fn played(mut world: World, days: i64, between_ms: i64, seed: u64) -> World {
    let (from_ms, mut state) = (world.true_ms, seed);
    let end_ms = from_ms + days * DAY_MS;
    while world.true_ms < end_ms {
        let pause_ms = between_ms / 2 + dice(&mut state, between_ms as u64) as i64;
        world.run_until((world.true_ms + pause_ms).min(end_ms));
        let span = |state: &mut u64, most: i64| 1_000 + dice(state, most as u64) as i64;
        let step = [HOUR_MS, -HOUR_MS, DAY_MS, -DAY_MS, YEARS_56_MS, 90_000, -90_000][dice(&mut state, 7) as usize];
        let event = match dice(&mut state, 12) {
            0 | 1 => Event::Clock(step, Quality::Ntp),
            2 => Event::Clock(step, Quality::Saved),
            3 => Event::Lost,
            4 => Event::Clock(0, Quality::Saved),
            5 | 6 => Event::Sleeps(span(&mut state, 10 * HOUR_MS)),
            7 => Event::AgentStops(span(&mut state, HOUR_MS)),
            8 => Event::AgentCrashes(span(&mut state, HOUR_MS)),
            9 => Event::PowerCut(span(&mut state, 3 * DAY_MS), 0),
            10 => Event::PowerCut(span(&mut state, 12 * HOUR_MS), DAY_MS),
            _ => Event::PowerCut(span(&mut state, HOUR_MS), world.true_ms),
        };
        world.play(event);
        if world.ahead_ms != 0 || !world.quality.trusted() {
            let wait_ms = span(&mut state, 6 * HOUR_MS);
            world.run_until(world.true_ms + wait_ms);
            world.play(Event::Clock(0, if dice(&mut state, 2) == 0 { Quality::Ntp } else { Quality::Hub }));
        }
    }
    world.judge(from_ms);
    let total = world.slots.len();
    println!("{days} days, seed {seed}: {total} slots came due in {} boots, {} broken promises", world.boots.len(), world.broken.len());
    world
}

/// 2026-10-15: clocks go back in Berlin on the 25th and in New York on 1 November, the sun sets on Tromsø for two months on 27 November.
const AUTUMN_MS: i64 = 1_792_022_400_000;

/// From `SHUTTER_SEED` on, `SHUTTER_SOAK_SEEDS` of them.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SHUTTER_SEED").unwrap_or(1);
    first..first + number("SHUTTER_SOAK_SEEDS").unwrap_or(usual)
}

fn assert_kept(world: &World, seed: u64) {
    assert!(world.broken.is_empty(), "seed {seed}: {:#?}", &world.broken[..world.broken.len().min(30)]);
}

#[test]
fn thirty_days_of_wrong_clocks_sleep_and_power_cuts_leave_no_slot_without_an_outcome() {
    for seed in seeds(3) {
        assert_kept(&played(World::new("days", AUTUMN_MS, "5m", 60, 8), 30, 12 * HOUR_MS, seed), seed);
    }
}

#[test]
fn ten_years_of_them_too() {
    for seed in seeds(1) {
        let world = played(World::new("years", AUTUMN_MS, "6h", 400, 20), 3_653, 5 * DAY_MS, seed);
        assert_kept(&world, seed);
        let leap = world.slots.iter().filter(|((name, ..), taken)| name.as_str() == "leap" && taken.true_clock).count();
        assert!((1..=3).contains(&leap), "{leap} pictures of 29 February in ten years");
    }
}

/// The controls: the same world finds out a timetable that is wrong about steps of the clock.
#[test]
fn a_timetable_that_begins_anew_at_each_step_of_the_clock_is_found_out() {
    let mut world = World::new("anew", AUTUMN_MS, "5m", 60, 8);
    world.changed = |world| {
        let (now, store) = (world.clock.read(), world.store.clone().unwrap());
        world.table.change(&store, &[], &now);
        world.table.change(&store, &world.schedules, &now);
    };
    let world = played(world, 30, 6 * HOUR_MS, 1);
    assert!(world.broken.iter().any(|broken| broken.starts_with("grid")), "{:#?}", world.broken);
}

#[test]
fn a_timetable_that_takes_no_notice_of_steps_is_found_out() {
    let mut world = World::new("blind", AUTUMN_MS, "5m", 60, 8);
    world.changed = |_| {};
    let world = played(world, 30, 6 * HOUR_MS, 1);
    assert!(world.broken.iter().any(|broken| broken.contains("planned for")), "{:#?}", world.broken);
}

/// A crash between file and commit leaves a picture that the start finds again; its slot is still before the cursor, and may be late.
#[test]
fn a_late_slot_whose_picture_was_found_again_is_not_served_twice() {
    // 04:00:00 UTC is 06:00 in Berlin; the world begins at midnight.
    for (found_again, served) in [(true, 0), (false, 1)] {
        let mut world = World::new("found", AUTUMN_MS, "6h", 60, 1);
        let six_ms = AUTUMN_MS + 4 * HOUR_MS;
        world.run_until(six_ms - 5_000);
        let store = world.store.clone().unwrap();
        block(store.flush()).unwrap();
        if found_again {
            let due_ms = (six_ms - world.boot_ms()) as u64;
            let slot = Slot { schedule: "daily".parse().unwrap(), boot: 1, due_ms, plan_ms: Some(six_ms) };
            world.set_true(six_ms + 100);
            store.put(picture("c".parse().unwrap(), slot, due_ms + 100)).unwrap();
        }
        world.set_true(six_ms + 200);
        drop(store);
        world.restart(5 * MINUTE_MS);
        let before = world.slots.len();
        world.run_until(world.true_ms + MINUTE_MS);
        let again = world.slots.keys().filter(|(name, ..)| name.as_str() == "daily").count();
        assert_eq!((again, world.slots.len() - before), (served, served), "found again: {found_again}");
    }
}

#[test]
fn a_schedule_that_is_taken_out_after_a_sleep_leaves_no_slot_untold() {
    let mut world = World::new("taken-out", AUTUMN_MS, "5m", 60, 1);
    world.run_until(AUTUMN_MS + HOUR_MS);
    world.set_true(AUTUMN_MS + 4 * HOUR_MS);
    let (store, now) = (world.store.clone().unwrap(), world.clock.read());
    world.table.change(&store, &[], &now);
    block(store.flush()).unwrap();
    let grid: ScheduleId = "grid".parse().unwrap();
    let told = store.outcomes(&grid, 1, 0, u64::MAX).unwrap();
    let asleep = told.iter().filter(|(_, outcome)| *outcome == Outcome::Missed { reason: Missed::Asleep }).count();
    assert_eq!((told.len(), asleep), (48, 36));
}
