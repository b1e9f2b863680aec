//! Series, jitter and windows on grids and calendars.

use super::*;
use crate::schedule::{Align, Calendar, Grid, Hours, Misfire, Moment, Window, Zone};
use crate::schedule::{Bound, own_number};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

fn grid(period_ms: i64) -> Rule {
    Grid { period_ms: period_ms as u64, phase_ms: 0, align: Align::Clock }.into()
}
fn daily(second: u32) -> Rule {
    let calendar = Calendar::new(vec![Moment::Time(second)], Zone::utc(), None);
    Rule { when: When::Calendar(calendar), misfire: Misfire::Once, ..grid(1) }.marked()
}
/// Each day from an hour to an hour, UTC.
fn hours(from: u32, to: u32) -> During {
    let hours = Hours { from: Bound::Time(from * 3_600), to: Bound::Time(to * 3_600), overnight: to <= from };
    let window = Window { text: String::new(), weekdays: 0x7f, dates: None, hours: Some(hours) };
    During::new(vec![window], Zone::utc(), None)
}
fn on_the_wall(rule: &Rule) -> Slots<'_> {
    Slots { rule, offset_ms: Some(0), guess_ms: Some(0) }
}
fn dues(slots: Slots, after_ms: i64, to_ms: i64) -> Vec<i64> {
    slots.between(after_ms, to_ms).runs.iter().flat_map(|run| run.slots()).map(|due| due.due_ms as i64).collect()
}

#[test]
fn a_grid_has_no_slot_outside_of_its_window_and_all_of_them_inside() {
    let rule = Rule { during: Some(hours(22, 5)), ..grid(HOUR_MS) }.marked();
    let found: Vec<i64> = dues(on_the_wall(&rule), 12 * HOUR_MS, 36 * HOUR_MS).iter().map(|at| at / HOUR_MS % 24).collect();
    assert_eq!(found, [22, 23, 0, 1, 2, 3, 4]);
    assert_eq!(on_the_wall(&rule).count(0, 10 * DAY_MS), Some(70));
    // Nobody knows the time: a dark picture can be deleted, a missing one not be taken.
    let blind = Slots { rule: &rule, offset_ms: None, guess_ms: None };
    assert_eq!(dues(blind, 0, 10 * HOUR_MS).len(), 10);
    let calendar = daily(6 * 3_600);
    assert_eq!(Slots { rule: &calendar, offset_ms: None, guess_ms: None }.first_from(0), None);
}

#[test]
fn a_series_is_so_many_slots_a_second_apart_wherever_one_begins_to_look() {
    let rule = Rule { burst: 3, ..daily(3_600) }.marked();
    assert_eq!(dues(on_the_wall(&rule), 0, DAY_MS), [HOUR_MS, HOUR_MS + 1_000, HOUR_MS + 2_000]);
    for (from_ms, due_ms, nth) in [(0, 0, 0), (1, 1_000, 1), (1_000, 1_000, 1), (1_001, 2_000, 2), (2_001, DAY_MS, 0)] {
        assert_eq!(on_the_wall(&rule).first_from(HOUR_MS + from_ms), Some(Found { due_ms: HOUR_MS + due_ms, nth }), "from {from_ms}");
    }
}

#[test]
fn jitter_is_each_slots_own_for_ever_and_stays_in_the_window() {
    let seed = own_number(&"n1".parse().unwrap(), &"s".parse().unwrap());
    let rule = Rule { during: Some(hours(6, 18)), jitter_ms: 20 * MINUTE_MS as u64, seed, ..grid(HOUR_MS) }.marked();
    let slots = on_the_wall(&rule);
    let found = dues(slots, 0, 30 * DAY_MS);
    assert_eq!(found.len(), 30 * 12);
    let later: Vec<i64> = found.iter().map(|at| at % HOUR_MS).collect();
    assert!(later.iter().all(|ms| (0..=20 * MINUTE_MS).contains(ms)));
    let distinct: std::collections::BTreeSet<_> = later.iter().collect();
    assert!(distinct.len() > 300, "{} of 360 differ", distinct.len());
    assert!(found.iter().all(|at| hours(6, 18).contains(*at)));
    // Asked from anywhere, by a clock that stands elsewhere: the same instants.
    let moved = Slots { offset_ms: Some(777), guess_ms: Some(777), ..slots };
    for at in &found {
        assert_eq!(slots.first_from(*at).unwrap().due_ms, *at);
        assert_eq!(moved.first_from(at - 777).unwrap().due_ms, at - 777);
    }
    let other = Rule { seed: seed + 1, ..rule.clone() };
    assert_ne!(dues(on_the_wall(&other), 0, DAY_MS), dues(slots, 0, DAY_MS));
}

#[test]
fn too_many_to_be_told_one_by_one_are_a_stretch() {
    let rule = Rule { during: Some(hours(0, 23)), ..grid(1_000) }.marked();
    let passed = on_the_wall(&rule).between(0, DAY_MS);
    let told: u64 = passed.runs.iter().map(|run| run.count).sum();
    assert_eq!((told, passed.more_from.map(|due| due.due_ms)), (TOLD_MAX as u64, Some(1_000 * (TOLD_MAX as u64 + 1))));
    assert_eq!(passed.clone().pop(), None, "the last one of them is not told, so it cannot be served");
}
