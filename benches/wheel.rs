//! The timing wheel against three others: a `BinaryHeap` that skips cancelled timers when they come up, a published hierarchical wheel
//! (`hierarchical_hash_wheel_timer`), and tokio's `DelayQueue`.
//!
//! Prints nanoseconds per operation with the wheel's ratio to each (below 1: the wheel is faster), allocations, and the wake-ups it
//! takes to reach a timer. Asserts nothing: times are the machine's. All work on the same instants in interleaved rounds, the median
//! round counts. `DelayQueue` cannot be told the time: it fires by tokio's own clock, so it takes part where that can be waited for.

#[path = "rig/timers.rs"]
mod timers;

use shutterd::clock::{BootTimer, Clock, SystemClock};
use shutterd::model::WHEEL_CAPACITY;
use shutterd::wheel::Wheel;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use timers::{HashWheel, Heap, Queue, Timers};

const ROUNDS: usize = 15;
const SECOND_MS: u64 = 1_000;
const SPANS: [(&str, u64); 3] = [("1 s", SECOND_MS), ("1 h", 3_600 * SECOND_MS), ("31 d", 31 * 86_400 * SECOND_MS)];
const WEEK_MS: u64 = 7 * 86_400 * SECOND_MS;
const WHAT: [&str; 5] = ["insert", "cancel", "fire all", "wait, fire, insert again", "next wake-up, one instant"];

/// The system's allocator, with a count of what is asked of it.
struct Counted;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; everything is handed on to the system's")]
// SAFETY: each call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the promises of this same function.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// Nanoseconds and allocations per operation; both NaN where it cannot be measured.
#[derive(Clone, Copy)]
struct Each {
    ns: f64,
    allocations: f64,
}

const NOT_MEASURED: Each = Each { ns: f64::NAN, allocations: f64::NAN };

fn each(count: usize, work: impl FnOnce()) -> Each {
    let (start, before) = (Instant::now(), ALLOCATIONS.load(Relaxed));
    work();
    let (ns, allocations) = (start.elapsed().as_nanos() as f64, ALLOCATIONS.load(Relaxed) - before);
    Each { ns: ns / count as f64, allocations: allocations as f64 / count as f64 }
}

/// The same instants for all, from a fixed seed: between 1 ms and the span.
fn instants(count: usize, span_ms: u64) -> Vec<u64> {
    let mut dice = 42u64;
    let mut roll = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 20) % span_ms + 1
    };
    (0..count).map(|_| roll()).collect()
}

/// Insert, cancel, fired timer (all in one pass), life of a periodic schedule (sleep until the next wake-up, fire, insert again), and
/// question for the next wake-up when all timers wait for one instant, the wheel's worst case.
fn round<T: Timers>(make: fn() -> T, instants: &[u64], span_ms: u64) -> [Each; 5] {
    let count = instants.len();
    let mut timers = make();
    let mut ids = Vec::with_capacity(count);
    let insert = each(count, || ids.extend(instants.iter().map(|&at_ms| timers.insert(at_ms, 1))));
    let cancel = each(count, || ids.drain(..).for_each(|id| timers.cancel(id)));
    assert_eq!(timers.advance(span_ms), 0);

    for &at_ms in instants {
        timers.insert(span_ms + at_ms, 1);
    }
    let fire = each(count, || assert_eq!(black_box(timers.advance(2 * span_ms)), count as u64));

    for &at_ms in instants {
        timers.insert(2 * span_ms + at_ms, 1);
    }
    let live = each(count, || {
        let mut fired = 0;
        while fired < count as u64 {
            let now_ms = timers.next_wake().expect("all timers come back");
            let due = timers.advance(now_ms);
            fired += due;
            for _ in 0..due {
                timers.insert(now_ms + span_ms, 1);
            }
        }
    });

    let mut timers = make();
    for _ in instants {
        timers.insert(span_ms, 1);
    }
    let crowd = each(count, || (0..count).for_each(|_| assert!(black_box(timers.next_wake()).is_some())));
    [insert, cancel, fire, live, crowd]
}

/// The same of a `DelayQueue`, as far as its clock lets it. It fires only what lies within a second, after that second.
fn round_of_queue(runtime: &tokio::runtime::Runtime, instants: &[u64], span_ms: u64, fires: bool) -> [Each; 5] {
    let _inside = runtime.enter();
    let count = instants.len();
    let mut queue = Queue::new(WHEEL_CAPACITY);
    let mut keys = Vec::with_capacity(count);
    let insert = each(count, || keys.extend(instants.iter().map(|&at_ms| queue.insert(at_ms, 1))));
    let cancel = each(count, || keys.drain(..).for_each(|key| queue.cancel(&key)));
    let mut fire = NOT_MEASURED;
    if fires {
        let mut queue = Queue::new(WHEEL_CAPACITY);
        for &at_ms in instants {
            queue.insert(at_ms, 1);
        }
        std::thread::sleep(Duration::from_millis(span_ms + 10));
        fire = each(count, || assert_eq!(runtime.block_on(queue.drain()), count as u64));
    }
    let mut queue = Queue::new(WHEEL_CAPACITY);
    for _ in instants {
        queue.insert(span_ms, 1);
    }
    let crowd = each(count, || (0..count).for_each(|_| assert!(black_box(queue.next()).is_some())));
    [insert, cancel, fire, NOT_MEASURED, crowd]
}

fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().filter(|figure| !figure.is_nan()).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(figure: f64, digits: usize) -> String {
    if figure.is_nan() { "-".to_owned() } else { format!("{figure:.digits$}") }
}

fn operations(runtime: &tokio::runtime::Runtime) {
    println!("ns per operation, median of {ROUNDS} rounds; in brackets the wheel's ratio to each");
    println!("{:>7} {:>5}  {:<26}{:>8}{:>18}{:>18}{:>18}", "timers", "span", "", "wheel", "heap", "hash wheel", "DelayQueue");
    for count in [1_000, 4_000] {
        for (span, span_ms) in SPANS {
            let instants = instants(count, span_ms);
            let mut rounds = Vec::new();
            for nth in 0..ROUNDS {
                let fires = span_ms == SECOND_MS && nth < 3;
                rounds.push([
                    round(Wheel::<u32, WHEEL_CAPACITY>::boxed, &instants, span_ms),
                    round(|| Heap::new(WHEEL_CAPACITY), &instants, span_ms),
                    round(HashWheel::default, &instants, span_ms),
                    round_of_queue(runtime, &instants, span_ms, fires),
                ]);
            }
            for (i, what) in WHAT.into_iter().enumerate() {
                let ns = |peer: usize| median(rounds.iter().map(|round| round[peer][i].ns));
                let peer = |peer: usize| match ns(peer) {
                    ns_of_peer if ns_of_peer.is_nan() => "-".to_owned(),
                    ns_of_peer => format!("{ns_of_peer:.1} ({:.3})", ns(0) / ns_of_peer),
                };
                println!("{count:>7} {span:>5}  {what:<26}{:>8.1}{:>18}{:>18}{:>18}", ns(0), peer(1), peer(2), peer(3));
            }
            if (count, span_ms) == (4_000, SPANS[2].1) {
                println!("{:>7} {span:>5}  allocations per 1,000 operations, most of any round", count);
                for (i, what) in WHAT.into_iter().enumerate() {
                    let most =
                        |peer: usize| rounds.iter().map(|round| round[peer][i].allocations * 1e3).reduce(f64::max).unwrap_or(f64::NAN);
                    let [wheel, heap, hash, queue] = [0, 1, 2, 3].map(|peer| shown(most(peer), 0));
                    println!("{:>15}{what:<26}{wheel:>8}{heap:>18}{hash:>18}{queue:>18}", "");
                }
            }
        }
    }
}

/// How often an owner that sleeps until told is woken before a single timer fires.
fn wakes<T: Timers>(mut timers: T, now_ms: u64, ahead_ms: u64) -> u64 {
    timers.advance(now_ms);
    timers.insert(now_ms + ahead_ms, 1);
    let mut wakes = 0;
    while let Some(at_ms) = timers.next_wake() {
        timers.advance(at_ms);
        wakes += 1;
    }
    wakes
}

/// The same, of a real thread that waits: its voluntary context switches.
fn switches() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok()).unwrap_or(0)
}

fn wake_ups(runtime: &tokio::runtime::Runtime) -> std::io::Result<()> {
    const AHEAD_MS: u64 = 5_000;
    // A boot clock somewhere in its life: what is counted depends on where in its slots the present lies.
    let now_ms = 123_456_789;
    println!("wake-ups to reach one timer");
    for (ahead, ahead_ms) in [("a week", WEEK_MS), ("5 s", AHEAD_MS)] {
        let wheel = wakes(Wheel::<u32, WHEEL_CAPACITY>::boxed(), now_ms, ahead_ms);
        let (heap, hash) = (wakes(Heap::new(1), now_ms, ahead_ms), wakes(HashWheel::default(), now_ms, ahead_ms));
        println!("  {ahead} ahead, by what each says of its next wake-up: wheel {wheel}, heap {heap}, hash wheel {hash}");
    }
    runtime.block_on(async {
        let (timer, mut wheel) = (BootTimer::new()?, Wheel::<u32, WHEEL_CAPACITY>::boxed());
        let begun_ms = SystemClock.boottime_ms();
        wheel.advance(begun_ms);
        let before = switches();
        Timers::insert(&mut wheel, begun_ms + AHEAD_MS, 1);
        let mut fired = 0;
        while fired == 0 {
            timer.set(wheel.next_deadline())?;
            timer.fired().await?;
            fired = wheel.advance(SystemClock.boottime_ms());
        }
        let (of_wheel, before) = (switches() - before, switches());
        let mut queue = Queue::new(1);
        queue.insert(AHEAD_MS, 1);
        assert_eq!(queue.drain().await, 1);
        let (of_queue, before) = (switches() - before, switches());
        tokio::time::sleep(Duration::from_millis(AHEAD_MS)).await;
        let of_sleep = switches() - before;
        println!(
            "  5 s ahead, by the waiting thread's context switches: wheel and timerfd {of_wheel}, DelayQueue {of_queue}, tokio::time::sleep {of_sleep}"
        );
        Ok(())
    })
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    operations(&runtime);
    wake_ups(&runtime)
}
