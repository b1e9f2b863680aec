//! A fleet with one configuration: ten thousand nodes must not take and send their pictures in the same second.
//!
//! Each node's configuration is read and its planner run, as on the node. Chi-square over 100 parts of the period says how evenly the
//! slots fill it; for even ones 99.9 % of fleets are below 148.2. Wrong ways to spread are held against the same limit.

use shutterd::agent::next_slots;
use shutterd::clock::Reading;
use shutterd::config::parse;
use shutterd::model::Quality;

const NODES: u64 = 10_000;
const PARTS: u64 = 100;
/// 99.9 % of chi-square with 99 degrees of freedom.
const CRITICAL: f64 = 148.23;
/// 2026-11-22T00:00:00Z, a Sunday.
const WALL_MS: i64 = 1_795_305_600_000;
const PERIODS: [(&str, u64); 4] = [("60s", 60_000), ("5m", 300_000), ("1h", 3_600_000), ("1d", 86_400_000)];

fn node(number: u64) -> String {
    format!("river-{number:05}")
}

/// Where in its period each schedule's next slot lies, for a trusted clock; one entry per period of [`PERIODS`].
fn phases(node: &str, more: &str) -> Vec<u64> {
    let mut text = format!("[node]\nid = \"{node}\"\n[cameras.gate]\nsource = \"pattern:\"\n");
    for (every, _) in PERIODS {
        text += &format!("[schedules.gate-{every}]\ncamera = \"gate\"\nevery = \"{every}\"\n{more}");
    }
    let (settings, _) = parse(&text, node).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let now = Reading { boottime_ms: 100_000, wall_ms: WALL_MS, quality: Quality::Ntp, uncertainty_ms: None };
    let phase = |(every, period_ms): (&str, u64)| {
        let schedule = settings.schedules.iter().find(|s| s.id.as_str() == format!("gate-{every}")).unwrap();
        let slot = next_slots(schedule, &now).into_iter().next().unwrap();
        slot.plan_ms.unwrap().rem_euclid(period_ms as i64) as u64
    };
    PERIODS.into_iter().map(phase).collect()
}

/// How far so many numbers are from filling all parts evenly.
fn chi_square(parts: impl Iterator<Item = u64>) -> f64 {
    let mut counts = vec![0u64; PARTS as usize];
    parts.for_each(|part| counts[part as usize] += 1);
    let expected = counts.iter().sum::<u64>() as f64 / PARTS as f64;
    counts.into_iter().map(|n| (n as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn ten_thousand_nodes_with_one_configuration_fill_each_period_evenly() {
    let fleet: Vec<Vec<u64>> = (1..=NODES).map(|number| phases(&node(number), "")).collect();
    for (i, (every, period_ms)) in PERIODS.into_iter().enumerate() {
        let found = chi_square(fleet.iter().map(|phases| phases[i] * PARTS / period_ms));
        println!("every {every:>3}: chi-square of {NODES} nodes over {PARTS} parts {found:.1}, critical {CRITICAL}");
        assert!(found < CRITICAL, "every {every}");
    }
    // Two schedules of a node are apart from each other, too: a tenth of the one period tells nothing of the other's.
    for (i, j) in [(0, 1), (1, 2), (2, 3), (0, 3)] {
        let tenth = |phases: &[u64], i: usize| phases[i] * 10 / PERIODS[i].1;
        let found = chi_square(fleet.iter().map(|phases| tenth(phases, i) * 10 + tenth(phases, j)));
        println!("every {:>3} against every {:>3}: chi-square {found:.1}, critical {CRITICAL}", PERIODS[i].0, PERIODS[j].0);
        assert!(found < CRITICAL, "{} against {}", PERIODS[i].0, PERIODS[j].0);
    }
}

/// By how much the first slots of a daily time are later than that time, on three days.
fn jitters(node: &str, more: &str) -> Vec<u64> {
    let text = format!(
        "[node]\nid = \"{node}\"\n[cameras.gate]\nsource = \"pattern:\"\n\
         [schedules.morning]\ncamera = \"gate\"\nat = [\"06:00\"]\nzone = \"UTC\"\n{more}"
    );
    let (settings, _) = parse(&text, node).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let now = Reading { boottime_ms: 100_000, wall_ms: WALL_MS, quality: Quality::Ntp, uncertainty_ms: None };
    let six = |plan_ms: i64| (plan_ms - 6 * 3_600_000).rem_euclid(86_400_000) as u64;
    next_slots(&settings.schedules[0], &now).into_iter().map(|slot| six(slot.plan_ms.unwrap())).collect()
}

/// A time of day has no phase: on request it is put off by a part of `jitter`, another one for each node and each day.
#[test]
fn a_time_of_day_with_jitter_is_another_one_on_each_node_and_each_day() {
    const JITTER_MS: u64 = 600_000;
    let fleet: Vec<Vec<u64>> = (1..=NODES).map(|number| jitters(&node(number), "jitter = \"10m\"\n")).collect();
    assert!(fleet.iter().flatten().all(|late_ms| *late_ms <= JITTER_MS));
    let part = |late_ms: u64, parts: u64| (late_ms * parts / JITTER_MS).min(parts - 1);
    for day in 0..3 {
        let found = chi_square(fleet.iter().map(|days| part(days[day], PARTS)));
        println!("06:00 with 10 min of jitter, day {day}: chi-square of {NODES} nodes over {PARTS} parts {found:.1}, critical {CRITICAL}");
        assert!(found < CRITICAL);
    }
    let found = chi_square(fleet.iter().map(|days| part(days[0], 10) * 10 + part(days[1], 10)));
    println!("one day against the next: chi-square {found:.1}, critical {CRITICAL}");
    assert!(found < CRITICAL);
    let found = chi_square((1..=NODES / 10).map(|number| part(jitters(&node(number), "")[0], PARTS)));
    println!("control, without jitter: chi-square {found:.1}");
    assert!(found > CRITICAL);
}

#[test]
fn nodes_that_all_take_the_first_second_are_found_out() {
    let fleet = (1..=NODES / 10).map(|number| phases(&node(number), "phase = \"0s\"\n")[1]);
    let found = chi_square(fleet.map(|phase| phase * PARTS / PERIODS[1].1));
    println!("control, every phase 0: chi-square {found:.1}");
    assert!(found > CRITICAL);
}

#[test]
fn a_bad_hash_is_found_out() {
    // The sum of the letters times a second: what a hurried hand would write.
    let of_node = |number: u64| node(number).bytes().map(u64::from).sum::<u64>() * 1_000;
    let (every, period_ms) = PERIODS[1];
    let found = chi_square((1..=NODES).map(|number| of_node(number) % period_ms * PARTS / period_ms));
    println!("control, every {every} by the sum of the name's letters: chi-square {found:.1}");
    assert!(found > CRITICAL);

    // Even in each period, but a node's schedules go together: a hash that leaves the schedule out.
    let even = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let tenth = |number: u64, period_ms: u64| even(number) % period_ms * 10 / period_ms;
    let alone = chi_square((1..=NODES).map(|number| even(number) % 60_000 * PARTS / 60_000));
    let together = chi_square((1..=NODES).map(|number| tenth(number, 60_000) * 10 + tenth(number, 120_000)));
    println!("control, a hash of the node alone: chi-square {alone:.1} in one period, {together:.1} of two against each other");
    assert!(alone < CRITICAL && together > CRITICAL);
}
