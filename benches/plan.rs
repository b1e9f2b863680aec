//! What planning costs: a thousand schedules at the agent's start, after each slot, and when the clock is set. Each kind alone, and all
//! kinds mixed.
//!
//! The schedules come from a configuration and run through the agent's planner, on a clock that is an argument. There is no peer that
//! plans as much; beside it stands what the cheapest planning there is costs on this machine, `now + period` with the clock read before
//! it. A picture costs tens of milliseconds and a schedule takes at most one a second: planning has to vanish beside that.

#[path = "rig/measure.rs"]
mod measure;

use measure::{median, missing};
use shutterd::clock::{Clock, Reading, SystemClock};
use shutterd::config::parse;
use shutterd::model::Quality;
use shutterd::schedule::{Planner, Rule};
use std::{hint::black_box, time::Instant};

const SCHEDULES: usize = 1_000;
const SLOTS: usize = 50;
const ROUNDS: usize = 7;
/// 2026-11-22T00:00:00Z, a Sunday.
const WALL_MS: i64 = 1_795_305_600_000;
const HOUR_MS: i64 = 3_600_000;

const KINDS: [(&str, &str); 8] = [
    ("grid", "every = \"5m\""),
    ("grid in a window", "every = \"5m\"\nduring = \"06:00..20:00\"\nzone = \"Europe/Berlin\""),
    ("grid on weekdays", "every = \"5m\"\nduring = \"mon-fri 06:00..20:00\"\nzone = \"Europe/Berlin\""),
    ("grid by daylight", "every = \"5m\"\nduring = \"sunrise-30m..sunset+30m\""),
    ("times of day", "at = [\"06:00\", \"12:00\", \"18:00\"]\nzone = \"Europe/Berlin\""),
    ("cron, each 10 min", "cron = \"*/10 6-20 * * mon-fri\"\nzone = \"Europe/Berlin\""),
    ("cron, once a month", "cron = \"30 4 1 * *\"\nzone = \"Europe/Berlin\""),
    ("sun", "at = [\"sunrise-30m\", \"solar noon\", \"dusk\"]"),
];

fn main() {
    println!("{SCHEDULES} schedules, median of {ROUNDS} rounds");
    println!("{:<22}{:>16}{:>18}{:>22}", "", "start, all, ms", "per slot, us", "clock set, all, ms");
    let mut mixed = Vec::new();
    for (kind, text) in KINDS {
        match rules(text) {
            Ok(rules) => {
                report(kind, &rules);
                mixed.push(rules);
            }
            Err(why) => missing(&format!("{kind}: {why}")),
        }
    }
    let mixed: Vec<Rule> = (0..SCHEDULES).filter_map(|n| mixed.get(n % mixed.len())?.get(n).cloned()).collect();
    report("all kinds mixed", &mixed);
    let bare = median((0..ROUNDS).map(|_| {
        let begun = Instant::now();
        for period_ms in 0..SCHEDULES as u64 {
            black_box(SystemClock.boottime_ms() + black_box(period_ms));
        }
        us(begun) / SCHEDULES as f64
    }));
    println!("{:<22}{:>16}{:>18.3}", "(now + period)", "", bare);
}

/// A thousand schedules of one kind, of different names.
fn rules(kind: &str) -> Result<Vec<Rule>, String> {
    let mut text = "[node]\nid = \"bench\"\nlatitude = 52.5\nlongitude = 13.4\n[cameras.gate]\nsource = \"pattern:\"\n".to_owned();
    for n in 0..SCHEDULES {
        text += &format!("[schedules.s{n}]\ncamera = \"gate\"\n{kind}\n");
    }
    let (settings, _) = parse(&text, "bench").map_err(|errors| errors.to_string().lines().next().unwrap_or_default().to_owned())?;
    Ok(settings.schedules.into_iter().map(|schedule| schedule.rule).collect())
}

fn us(begun: Instant) -> f64 {
    begun.elapsed().as_nanos() as f64 / 1e3
}

fn reading(boottime_ms: u64, offset_ms: i64) -> Reading {
    Reading { boottime_ms, wall_ms: boottime_ms as i64 + offset_ms, quality: Quality::Ntp, uncertainty_ms: None }
}

fn report(kind: &str, rules: &[Rule]) {
    const START_MS: u64 = 60_000;
    let offset_ms = WALL_MS - START_MS as i64;
    let (mut start, mut slot, mut set) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let now = reading(START_MS, offset_ms);
        let begun = Instant::now();
        let mut planners: Vec<_> = rules.iter().map(|rule| Planner::new(rule.clone(), 1, None)).collect();
        let first: Vec<_> = planners.iter_mut().map(|planner| planner.next(&now).due).collect();
        start.push(us(begun) / 1e3);

        let begun = Instant::now();
        let mut fired = 0;
        for (planner, due) in planners.iter_mut().zip(first) {
            let mut next = due;
            for _ in 0..SLOTS {
                let Some(due) = next else { break };
                assert!(planner.fired(due, due.due_ms), "a slot that was handed out is not known");
                fired += 1;
                next = planner.next(&reading(due.due_ms, offset_ms)).due;
            }
        }
        slot.push(us(begun) / f64::from(fired));

        let mut planners: Vec<_> = rules.iter().map(|rule| Planner::new(rule.clone(), 1, None)).collect();
        planners.iter_mut().for_each(|planner| _ = planner.next(&now));
        let later = reading(START_MS + 1, offset_ms + HOUR_MS);
        let begun = Instant::now();
        planners.iter_mut().for_each(|planner| _ = black_box(planner.next(&later)));
        set.push(us(begun) / 1e3);
    }
    println!("{kind:<22}{:>16.2}{:>18.2}{:>22.2}", median(start), median(slot), median(set));
}
