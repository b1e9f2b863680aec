//! The only reader of clocks.
//!
//! CLOCK_BOOTTIME is the one time that never lies: it counts milliseconds since this boot, through suspend, and nobody
//! can set it. Every deadline is an instant of it. The wall clock is read together with it and always carries a
//! [`Quality`](crate::model::Quality), which `trust` judges from what `kernel` reads and what the hub says. `system` is the machine's clock,
//! `timers` what wakes the agent. A test enforces that nothing outside of this folder reads a clock.
//!
//! Paths not taken: `std::time::Instant` (CLOCK_MONOTONIC stops in suspend), tokio's timers for schedules (the same), setting the system's
//! clock from the hub's time (it belongs to the system).

mod kernel;
mod reading;
mod system;
mod timers;
mod trust;

pub use kernel::boot_id;
pub use reading::{BUILD_UNIX_S, Clock, HubTime, Reading};
pub use system::SystemClock;
pub use timers::{BootTimer, StepWatch, within};

use std::{sync::Mutex, time::Duration};

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
    // In doubt the difference is too small, and an old frame is never taken for a younger one. Rounded, for the reads are never at the
    // same instant.
    monotonic_ms + (kernel::asleep_us() + 500) / 1_000
}

/// Milliseconds that the machine was awake, from some start: what tokio's timers count. For how long something takes that cannot go on
/// in suspend; never for deadlines of pictures.
pub fn awake_ms() -> u64 {
    kernel::monotonic_ms()
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
