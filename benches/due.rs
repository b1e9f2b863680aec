//! From due to fired: how late the agent's timer path (wheel, one timerfd, the runtime) wakes, on an idle machine and with every core busy.
//!
//! Beside it, in the same run and in turn, a thread that does nothing but read a timerfd (what the kernel allows) and
//! `tokio::time::sleep_until` (what most programs use). Microseconds after the instant asked for; asserts nothing.

use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use shutterd::clock::{BootTimer, Clock, SystemClock};
use shutterd::model::WHEEL_CAPACITY;
use shutterd::wheel::Wheel;
use std::{
    hint::spin_loop,
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// Of each way and load; taken in turns, so that a bad moment of the machine hits all.
const DEADLINES: usize = 2_000;
const TURNS: usize = 8;

fn main() -> io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    println!("due to fired, {DEADLINES} deadlines each, 1 to 8 ms apart, in us");
    println!("{:<26}{:<28}{:>8}{:>8}{:>8}{:>8}", "", "", "p50", "p99", "p99.9", "max");
    for (load, busy) in
        [("idle".to_owned(), 0), (format!("{cores} busy threads"), cores), (format!("{} busy threads", 2 * cores), 2 * cores)]
    {
        let late = under_load(busy, measure)?;
        let reference = percentile(&late[0].1, 0.99);
        for (way, mut late) in late {
            late.sort_unstable();
            let p99 = percentile(&late, 0.99);
            println!(
                "{load:<26}{way:<28}{:>8}{p99:>8}{:>8}{:>8}{}",
                percentile(&late, 0.5),
                percentile(&late, 0.999),
                late.last().copied().unwrap_or(0),
                if p99 == reference {
                    String::new()
                } else {
                    format!("   p99 of the agent's / this: {:.2}", reference as f64 / p99 as f64)
                }
            );
        }
    }
    Ok(())
}

fn percentile(late: &[u64], part: f64) -> u64 {
    let mut sorted = late.to_vec();
    sorted.sort_unstable();
    sorted.get(((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// With so many threads of the usual priority that never sleep.
fn under_load<T>(busy: usize, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    spin_loop();
                }
            });
        }
        let done = work();
        stop.store(true, Relaxed);
        done
    })
}

type Late = Vec<u64>;

fn measure() -> io::Result<Vec<(&'static str, Late)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut gaps = Gaps(7);
    let (mut agent, mut bare, mut sleep) = (Late::new(), Late::new(), Late::new());
    for _ in 0..TURNS {
        let gaps: Vec<u64> = (0..DEADLINES / TURNS).map(|_| gaps.next_ms()).collect();
        runtime.block_on(agents_way(&gaps, &mut agent))?;
        bare_timerfd(&gaps, &mut bare)?;
        runtime.block_on(tokios_way(&gaps, &mut sleep));
    }
    Ok(vec![("wheel, timerfd, runtime", agent), ("bare timerfd, blocking read", bare), ("tokio::time::sleep_until", sleep)])
}

/// Distances between deadlines, from a fixed seed.
struct Gaps(u64);

impl Gaps {
    fn next_ms(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % 8 + 1
    }
}

fn boottime_us() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// As `Agent::run` waits: the timer is set to the wheel's next deadline, and fired timers are taken from the wheel. The next timer is
/// put in after the one before has fired, as a schedule's is; others wait further ahead.
async fn agents_way(gaps: &[u64], late: &mut Late) -> io::Result<()> {
    let (timer, mut wheel) = (BootTimer::new()?, Wheel::<u64, WHEEL_CAPACITY>::boxed());
    let now_ms = SystemClock.boottime_ms();
    wheel.advance(now_ms, &mut |_, _, _| {});
    for others in 1..1_000 {
        let _ = wheel.insert(now_ms + 3_600_000 + others * 977, 0);
    }
    for gap_ms in gaps {
        let due_ms = SystemClock.boottime_ms() + gap_ms;
        let _ = wheel.insert(due_ms, due_ms);
        let mut fired = None;
        while fired.is_none() {
            timer.set(wheel.next_deadline())?;
            timer.fired().await?;
            wheel.advance(SystemClock.boottime_ms(), &mut |_, _, due_ms| fired = Some(due_ms));
        }
        late.push(boottime_us() - due_ms * 1_000);
    }
    Ok(())
}

fn bare_timerfd(gaps: &[u64], late: &mut Late) -> io::Result<()> {
    let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    for gap_ms in gaps {
        let due_us = (boottime_us() / 1_000 + gap_ms) * 1_000;
        let at = Timespec { tv_sec: (due_us / 1_000_000) as i64, tv_nsec: (due_us % 1_000_000 * 1_000) as _ };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        rustix::io::read(&timer, &mut [0u8; 8])?;
        late.push(boottime_us() - due_us);
    }
    Ok(())
}

async fn tokios_way(gaps: &[u64], late: &mut Late) {
    for gap_ms in gaps {
        let due = Instant::now() + Duration::from_millis(*gap_ms);
        tokio::time::sleep_until(due).await;
        late.push(due.elapsed().as_micros() as u64);
    }
}
