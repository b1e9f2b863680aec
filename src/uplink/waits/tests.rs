//! Fleets after a power cut, and after a broker that was away: how many nodes call in the same second.

use super::*;
use std::{cmp::Reverse, collections::BinaryHeap};

const NODES: usize = 10_000;
/// Boards of one kind take about as long to boot; the agent starts about 20 s after the power came back.
const BOOT_MS: u64 = 20_000;

/// Dice of its own: the same fleet in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

type FirstWait = fn(u64, u64) -> u64;
type Backoff = fn(u32, u64) -> u64;

/// So many of `instants` in each second, from the first that has one.
fn per_second(instants: &[u64]) -> Vec<usize> {
    let second = |at: &u64| (at / 1_000) as usize;
    let (first, last) = (instants.iter().map(second).min().unwrap_or(0), instants.iter().map(second).max().unwrap_or(0));
    let mut counts = vec![0; last - first + 1];
    instants.iter().for_each(|at| counts[second(at) - first] += 1);
    counts
}

fn busiest(instants: &[u64]) -> usize {
    per_second(instants).into_iter().max().unwrap_or(0)
}

/// The power of a region comes back: when each of its nodes connects, which is when its backlog begins to flow.
/// Half of the boards are ready in the same second, the rest within two more.
fn power_comes_back(first_wait: FirstWait) -> Vec<u64> {
    let mut dice = Dice(1);
    (0..NODES)
        .map(|node| {
            let slower_ms = if node % 2 == 0 { dice.roll() % 1_000 } else { dice.roll() % 3_000 };
            let boottime_ms = BOOT_MS + slower_ms;
            boottime_ms + first_wait(boottime_ms, dice.roll())
        })
        .collect()
}

/// What a broker saw that refused everybody for a while and then took so many a second.
struct Seen {
    attempts: Vec<u64>,
    logins: Vec<u64>,
}

/// All nodes lose the broker at instant 0; it is back after `away_ms` and takes `room` logins in each second.
fn broker_comes_back(away_ms: u64, room: usize, backoff: Backoff) -> Seen {
    let mut dice = Dice(2);
    let mut waiting: BinaryHeap<Reverse<(u64, usize, u32)>> = (0..NODES).map(|node| Reverse((backoff(0, dice.roll()), node, 1))).collect();
    let mut seen = Seen { attempts: Vec::new(), logins: Vec::new() };
    let mut taken = (0, 0);
    while let Some(Reverse((at_ms, node, failures))) = waiting.pop() {
        seen.attempts.push(at_ms);
        // Nobody waits for ever here, were the backoff broken.
        assert!(seen.attempts.len() < NODES * 1_000, "the broker is called for ever");
        if at_ms / 1_000 != taken.0 {
            taken = (at_ms / 1_000, 0);
        }
        if at_ms >= away_ms && taken.1 < room {
            taken.1 += 1;
            seen.logins.push(at_ms);
        } else {
            // A refusal comes back at once.
            waiting.push(Reverse((at_ms + 1 + backoff(failures, dice.roll()), node, failures + 1)));
        }
    }
    seen
}

#[test]
fn a_region_that_boots_together_does_not_call_together() {
    let spread = power_comes_back(first_wait_ms);
    println!("after a power cut, {NODES} nodes: connects and first uploads per second {:?}", per_second(&spread));
    // Evenly over 10 s would be 1,000 in a second.
    assert!(busiest(&spread) <= NODES * 12 / 100, "{} in one second", busiest(&spread));

    let at_once: FirstWait = |_, _| 0;
    let together = power_comes_back(at_once);
    println!("the same without a wait: {:?}", per_second(&together));
    assert!(busiest(&together) > NODES * 12 / 100, "the check does not see nodes that call together");
}

#[test]
fn the_wait_after_a_boot_is_even_and_ends_with_it() {
    let mut dice = Dice(3);
    let waits: Vec<u64> = (0..NODES).map(|_| first_wait_ms(BOOT_MS, dice.roll())).collect();
    let counts = per_second(&waits);
    let expected = NODES as f64 / 10.0;
    // The wait of exactly 10,000 ms falls out of the ten whole seconds; it is one in ten thousand.
    let chi_square: f64 = counts[..10].iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
    println!("first waits per second {counts:?}, chi-square {chi_square:.1} (99.9 % of even ones are below 27.9)");
    assert!(chi_square < 27.9);
    assert!(waits.iter().all(|wait| *wait <= 10_000));

    for (boottime_ms, waits) in [(0, true), (119_999, true), (120_000, false), (u64::MAX, false)] {
        assert_eq!(first_wait_ms(boottime_ms, 7_777) > 0, waits, "an agent that starts {boottime_ms} ms after its board");
    }
}

#[test]
fn waits_between_attempts_are_random_and_never_over_a_minute() {
    let mut dice = Dice(4);
    for (failures, limit) in [(0, 1_000), (1, 2_000), (5, 32_000), (6, 60_000), (7, 60_000), (u32::MAX, 60_000)] {
        let waits: Vec<u64> = (0..4_000).map(|_| backoff_ms(failures, dice.roll())).collect();
        assert!(waits.iter().all(|wait| *wait <= limit));
        let mean = waits.iter().sum::<u64>() / 4_000;
        assert!((limit * 45 / 100..limit * 55 / 100).contains(&mean), "mean {mean} ms of {limit} ms");
    }
}

#[test]
fn a_broker_that_comes_back_is_called_by_few_at_a_time() {
    const AWAY_MS: u64 = 300_000;
    const ROOM: usize = 500;
    let told = |what: &str, seen: &Seen| {
        let late: Vec<u64> = seen.attempts.iter().copied().filter(|at| *at >= AWAY_MS).collect();
        let all_in_s = (seen.logins.iter().max().unwrap_or(&0) - AWAY_MS) / 1_000;
        println!(
            "a broker away for {} s that takes {ROOM} logins a second, {what}: busiest second since it is back {} attempts, {:.1} attempts per node, all in after {all_in_s} s",
            AWAY_MS / 1_000,
            busiest(&late),
            late.len() as f64 / NODES as f64,
        );
        (busiest(&late), all_in_s)
    };
    let (attempts, all_in_s) = told("full jitter", &broker_comes_back(AWAY_MS, ROOM, backoff_ms));
    // Evenly over a minute would be 170 in a second.
    assert!(attempts <= ROOM, "{attempts} attempts in one second");
    assert!(all_in_s <= 60);

    let in_chorus: Backoff = |failures, _| (BACKOFF_MS << failures.min(16)).min(BACKOFF_MAX_MS);
    let (attempts, all_in_s) = told("doubling without jitter", &broker_comes_back(AWAY_MS, ROOM, in_chorus));
    assert!(attempts > ROOM && all_in_s > 60, "the check does not see nodes that call in chorus");
}
