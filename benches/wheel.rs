//! The timing wheel against the usual way, a `BinaryHeap` that skips cancelled timers when they come up.
//!
//! Prints nanoseconds per operation and the ratio (below 1: the wheel is faster); asserts nothing, times are the
//! machine's. Both work on the same instants in interleaved rounds, and the median round counts.

use shutterd::model::WHEEL_CAPACITY;
use shutterd::wheel::{TimerId, Wheel};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    hint::black_box,
    time::Instant,
};

const ROUNDS: usize = 31;
const DAY_MS: u64 = 86_400_000;

/// What both can do.
trait Timers {
    type Id;
    fn insert(&mut self, at_ms: u64, item: u32) -> Self::Id;
    fn cancel(&mut self, id: Self::Id);
    fn next_deadline(&mut self) -> Option<u64>;
    fn advance(&mut self, now_ms: u64) -> u64;
}

impl Timers for Box<Wheel<u32, WHEEL_CAPACITY>> {
    type Id = TimerId;
    fn insert(&mut self, at_ms: u64, item: u32) -> TimerId {
        Wheel::insert(self, at_ms, item).expect("the bench stays below the capacity")
    }
    fn cancel(&mut self, id: TimerId) {
        Wheel::cancel(self, id);
    }
    fn next_deadline(&mut self) -> Option<u64> {
        Wheel::next_deadline(self)
    }
    fn advance(&mut self, now_ms: u64) -> u64 {
        let mut sum = 0;
        Wheel::advance(self, now_ms, &mut |_, _, item| sum += u64::from(item));
        sum
    }
}

#[derive(Default)]
struct Heap {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    cancelled: HashSet<u64>,
    inserted: u64,
}

impl Timers for Heap {
    type Id = u64;
    fn insert(&mut self, at_ms: u64, item: u32) -> u64 {
        self.inserted += 1;
        self.heap.push(Reverse((at_ms, self.inserted, item)));
        self.inserted
    }
    fn cancel(&mut self, id: u64) {
        self.cancelled.insert(id);
    }
    fn next_deadline(&mut self) -> Option<u64> {
        while let Some(&Reverse((at_ms, id, _))) = self.heap.peek() {
            if !self.cancelled.remove(&id) {
                return Some(at_ms);
            }
            self.heap.pop();
        }
        None
    }
    fn advance(&mut self, now_ms: u64) -> u64 {
        let mut sum = 0;
        while self.next_deadline().is_some_and(|at_ms| at_ms <= now_ms) {
            if let Some(Reverse((_, _, item))) = self.heap.pop() {
                sum += u64::from(item);
            }
        }
        sum
    }
}

/// The same instants for both: within a day, from a fixed seed.
fn instants(count: usize) -> Vec<u64> {
    let mut dice = 42u64;
    let mut roll = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % DAY_MS
    };
    (0..count).map(|_| roll()).collect()
}

fn ns_each(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Nanoseconds per insert, cancel, fired timer (all in one pass), life of a periodic schedule (sleep until the next
/// deadline, fire, insert again), and question for the deadline when all timers share one slot, the wheel's worst case.
fn round<T: Timers>(make: fn() -> T, instants: &[u64]) -> [f64; 5] {
    let count = instants.len();
    let mut timers = make();
    let mut ids = Vec::with_capacity(count);
    let insert = ns_each(count, || ids.extend(instants.iter().map(|&at_ms| timers.insert(at_ms, 1))));
    let cancel = ns_each(count, || ids.drain(..).for_each(|id| timers.cancel(id)));
    black_box(timers.advance(DAY_MS));

    for &at_ms in instants {
        timers.insert(DAY_MS + at_ms, 1);
    }
    let fire = ns_each(count, || assert_eq!(black_box(timers.advance(2 * DAY_MS)), count as u64));

    for &at_ms in instants {
        timers.insert(2 * DAY_MS + at_ms, 1);
    }
    let live = ns_each(count, || {
        for _ in 0..count {
            let now_ms = timers.next_deadline().unwrap_or_default();
            for _ in 0..timers.advance(now_ms) {
                timers.insert(now_ms + DAY_MS, 1);
            }
        }
    });

    let mut timers = make();
    for _ in instants {
        timers.insert(DAY_MS, 1);
    }
    let crowd = ns_each(count, || (0..count).for_each(|_| assert!(black_box(timers.next_deadline()).is_some())));
    [insert, cancel, fire, live, crowd]
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    println!("{:>7}  {:<28}{:>10}{:>10}{:>8}", "timers", "ns per operation, median", "wheel", "heap", "ratio");
    for count in [100, 4_000] {
        let instants = instants(count);
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push((round(Wheel::boxed, &instants), round(Heap::default, &instants)));
        }
        for (i, what) in ["insert", "cancel", "fire all", "wait, fire, insert again", "deadline, all in one slot"].into_iter().enumerate() {
            let wheel = median(rounds.iter().map(|round| round.0[i]).collect());
            let heap = median(rounds.iter().map(|round| round.1[i]).collect());
            println!("{count:>7}  {what:<28}{wheel:>10.1}{heap:>10.1}{:>8.2}", wheel / heap);
        }
    }
}
