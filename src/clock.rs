//! The only reader of clocks.
//!
//! CLOCK_BOOTTIME is the one time that never lies: it counts milliseconds since this boot, through suspend, and nobody
//! can set it. Every deadline is an instant of it. The wall clock is read together with it and always carries a
//! [`Quality`]. A test enforces that no other file reads either.
//!
//! Paths not taken: `std::time::Instant` (CLOCK_MONOTONIC stops in suspend), tokio's timers for schedules (the same).

use crate::model::{BootNo, Quality, Stamp};
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::{sync::Mutex, time::Duration};
use tokio::io::unix::AsyncFd;

/// When this program was built (seconds since 1970, set by build.rs): no true wall clock can be earlier.
pub const BUILD_UNIX_S: i64 = {
    let text = env!("SHUTTERD_BUILD_UNIX").as_bytes();
    let (mut i, mut n) = (0, 0i64);
    while i < text.len() {
        n = n * 10 + (text[i] - b'0') as i64;
        i += 1;
    }
    n
};

/// The wall clock at one instant of the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub boottime_ms: u64,
    pub wall_ms: i64,
    pub quality: Quality,
    pub uncertainty_ms: Option<u32>,
}

impl Reading {
    /// Wall minus boot time: what turns an instant of one clock into the other.
    pub fn offset_ms(&self) -> i64 {
        self.wall_ms - self.boottime_ms as i64
    }
    pub fn stamp(&self, boot: BootNo) -> Stamp {
        let Self { boottime_ms, wall_ms, quality, uncertainty_ms } = *self;
        Stamp { boot, boottime_ms, wall_ms, quality, uncertainty_ms }
    }
}

pub trait Clock: Send + Sync {
    /// Both clocks, read together.
    fn read(&self) -> Reading;
    fn boottime_ms(&self) -> u64 {
        self.read().boottime_ms
    }
}

/// The machine's clocks. Quality is `ntp` while the kernel calls its clock synchronised, else `saved`, or `unset`
/// for a time before this program was built.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        let boottime_ms = self.boottime_ms();
        let wall = rustix::time::clock_gettime(ClockId::Realtime);
        let wall_ms = wall.tv_sec * 1000 + wall.tv_nsec as i64 / 1_000_000;
        let synced = kernel_uncertainty_ms();
        let quality = match synced {
            _ if wall_ms < BUILD_UNIX_S * 1000 => Quality::Unset,
            Some(_) => Quality::Ntp,
            None => Quality::Saved,
        };
        Reading { boottime_ms, wall_ms, quality, uncertainty_ms: synced }
    }
    fn boottime_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(ClockId::Boottime);
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }
}

/// The kernel's estimate of its clock's error, if it calls the clock synchronised.
#[expect(unsafe_code, reason = "adjtimex has no safe wrapper that only reads")]
fn kernel_uncertainty_ms() -> Option<u32> {
    // SAFETY: adjtimex with modes = 0 only fills the zeroed struct, which lives across the call.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex)
    };
    let synced = state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0;
    synced.then(|| u32::try_from(timex.maxerror / 1000).unwrap_or(u32::MAX))
}

/// The kernel's name for this boot.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// An instant of the boot clock by which a wait must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    at_ms: u64,
}

impl Deadline {
    pub fn after(wait: Duration) -> Self {
        Self::at(SystemClock.boottime_ms() + wait.as_millis() as u64)
    }
    pub fn at(boottime_ms: u64) -> Self {
        Self { at_ms: boottime_ms }
    }
    pub fn boottime_ms(self) -> u64 {
        self.at_ms
    }
    /// Time left; zero when it has passed.
    pub fn left(self) -> Duration {
        Duration::from_millis(self.at_ms.saturating_sub(SystemClock.boottime_ms()))
    }
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Now, on the boot clock, for code whose instants are real by nature (captures, network).
pub fn boottime_now_ms() -> u64 {
    SystemClock.boottime_ms()
}

/// An instant of CLOCK_MONOTONIC, with which drivers stamp frames, on the boot clock. The two differ by the time spent in suspend so far.
pub fn boottime_of_monotonic_ms(monotonic_ms: u64) -> u64 {
    let read_us = |id| {
        let now = rustix::time::clock_gettime(id);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
    };
    let (mut asleep_us, mut doubt_us) = (0, u64::MAX);
    // Somebody else may run between two reads; of a few tries the closest counts.
    for _ in 0..4 {
        let (before, boot, after) = (read_us(ClockId::Monotonic), read_us(ClockId::Boottime), read_us(ClockId::Monotonic));
        if after - before < doubt_us {
            // In doubt the difference is too small, and an old frame is never taken for a younger one.
            (asleep_us, doubt_us) = (boot.saturating_sub(after), after - before);
        }
    }
    // Rounded, for the reads are never at the same instant.
    monotonic_ms + (asleep_us + 500) / 1_000
}

/// Milliseconds that the machine was awake, from some start: what tokio's timers count. For how long something takes that cannot go on
/// in suspend; never for deadlines of pictures.
pub fn awake_ms() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// One timerfd on CLOCK_BOOTTIME: wakes the runtime at an instant, and never otherwise.
pub struct BootTimer {
    fd: AsyncFd<std::os::fd::OwnedFd>,
}

impl BootTimer {
    /// # Errors
    /// The kernel has no descriptor left. Needs a running tokio runtime.
    #[expect(unsafe_code, reason = "tokio cannot check that a descriptor stays open; we own it")]
    pub fn new() -> std::io::Result<Self> {
        let fd = rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned by the AsyncFd and stays open until it is dropped.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Self { fd })
    }

    /// Sets the next wake-up; `None` means none.
    pub fn set(&self, at_ms: Option<u64>) -> std::io::Result<()> {
        // A zero time would disarm the timer, so an instant already past is one nanosecond after boot.
        let value = match at_ms {
            Some(0) => Timespec { tv_sec: 0, tv_nsec: 1 },
            Some(ms) => Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as _ },
            None => Timespec { tv_sec: 0, tv_nsec: 0 },
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// Waits for the instant set last.
    pub async fn fired(&self) -> std::io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut count = [0u8; 8];
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut count).map(|_| ())?));
            if let Ok(result) = read {
                return result;
            }
        }
    }
}

/// A clock that stands still until told otherwise: tests run days in microseconds.
pub struct TestClock(Mutex<Reading>);

impl TestClock {
    pub fn new(reading: Reading) -> Self {
        Self(Mutex::new(reading))
    }
    /// Time passes on both clocks.
    pub fn advance(&self, ms: u64) {
        self.change(|r| {
            r.boottime_ms += ms;
            r.wall_ms += ms as i64;
        });
    }
    /// Somebody sets the wall clock, or its quality changes.
    pub fn change(&self, edit: impl FnOnce(&mut Reading)) {
        edit(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()));
    }
}

impl Clock for TestClock {
    fn read(&self) -> Reading {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
