//! What wakes the runtime: an instant of the boot clock, or a wall clock that has moved.

use super::reading::{Clock, Reading};
use super::system::HUB_MOVED;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::{io, os::fd::OwnedFd, sync::Arc};
use tokio::io::unix::AsyncFd;

const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(unsafe_code, reason = "tokio cannot check that a descriptor stays open; we own it")]
    fn new(clock: TimerfdClockId) -> io::Result<Self> {
        let fd = rustix::time::timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned by the AsyncFd and stays open until it is dropped.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }
    fn set(&self, at: Timespec, flags: TimerfdTimerFlags) -> io::Result<()> {
        let spec = Itimerspec { it_interval: NEVER, it_value: at };
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME | flags, &spec)?;
        Ok(())
    }
    async fn fired(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0u8; 8];
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut count).map(|_| ())?));
            if let Ok(result) = read {
                return result;
            }
        }
    }
}

/// One timerfd on CLOCK_BOOTTIME: wakes the runtime at an instant, and never otherwise.
pub struct BootTimer {
    timer: Timer,
}

impl BootTimer {
    /// # Errors
    /// The kernel has no descriptor left. Needs a running tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self { timer: Timer::new(TimerfdClockId::Boottime)? })
    }

    /// Sets the next wake-up; `None` means none.
    pub fn set(&self, at_ms: Option<u64>) -> io::Result<()> {
        // A zero time would disarm the timer, so an instant already past is one nanosecond after boot.
        let at = match at_ms {
            Some(0) => Timespec { tv_sec: 0, tv_nsec: 1 },
            Some(ms) => Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as _ },
            None => NEVER,
        };
        self.timer.set(at, TimerfdTimerFlags::empty())
    }

    /// Waits for the instant set last.
    pub async fn fired(&self) -> io::Result<()> {
        self.timer.fired().await
    }
}

/// Tells at once when the wall clock, as [`super::SystemClock`] reads it, has moved or is worth more or less than before.
///
/// A timer on CLOCK_REALTIME that can never come due, and that the kernel cancels when anybody sets that clock; and the hub's time, which
/// moves nothing but the agent's own offset. That a daemon has synchronised the clock without a step is not told by anything.
pub struct StepWatch {
    timer: Timer,
    clock: Arc<dyn Clock>,
    seen: Reading,
}

impl StepWatch {
    /// # Errors
    /// The kernel has no descriptor left. Needs a running tokio runtime.
    pub fn new(clock: Arc<dyn Clock>) -> io::Result<Self> {
        let watch = Self { timer: Timer::new(TimerfdClockId::Realtime)?, seen: clock.read(), clock };
        watch.arm()?;
        Ok(watch)
    }

    fn arm(&self) -> io::Result<()> {
        self.timer.set(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }, TimerfdTimerFlags::CANCEL_ON_SET)
    }

    /// Reads the clock, and logs what has become of it since it was looked at last.
    pub fn look(&mut self) -> Reading {
        let now = self.clock.read();
        let before = std::mem::replace(&mut self.seen, now);
        if let Some(words) = in_words(&before, &now) {
            tracing::info!("{words}");
        }
        now
    }

    /// Waits until the clock is another one than when it was looked at last. Dropping the wait loses nothing.
    pub async fn stepped(&self) {
        loop {
            tokio::select! {
                // Nothing comes due: whatever the read says, somebody has set the clock (or the machine has slept, which moves nothing).
                _ = self.timer.fired() => {
                    if let Err(e) = self.arm() {
                        tracing::warn!(error = %e, "steps of the clock cannot be watched any more; they are seen when a slot falls due");
                        std::future::pending::<()>().await;
                    }
                }
                () = HUB_MOVED.notified() => {}
            }
            if moved(&self.seen, &self.clock.read()) {
                return;
            }
        }
    }
}

/// Below this a schedule does not change over.
const NOTICED_MS: u64 = 1_000;

fn moved(before: &Reading, now: &Reading) -> bool {
    before.quality != now.quality || before.offset_ms().abs_diff(now.offset_ms()) > NOTICED_MS
}

/// What has become of the clock between two readings, in words; `None` if nothing worth a line of the log.
fn in_words(before: &Reading, now: &Reading) -> Option<String> {
    if !moved(before, now) {
        return None;
    }
    let step_ms = now.offset_ms() - before.offset_ms();
    let mut said = Vec::new();
    if step_ms.unsigned_abs() > NOTICED_MS {
        said.push(format!("set {} by {}", if step_ms < 0 { "back" } else { "forward" }, span(step_ms.unsigned_abs())));
    }
    let source = || format!("{:?}{}", now.quality, within(now.uncertainty_ms)).to_lowercase();
    match (before.quality.trusted(), now.quality.trusted()) {
        (false, true) => said.push(format!("is trusted now ({})", source())),
        (true, false) => said.push(format!("is not trusted any more ({})", source())),
        _ if before.quality != now.quality => said.push(format!("is {} now", source())),
        _ => {}
    }
    let said = said.join(" and ").replacen("set ", "was set ", 1);
    Some(format!("the clock {said}; schedules by the clock are planned anew"))
}

/// How exact, such as `, within 0.3 s`; nothing where nobody says.
pub fn within(uncertainty_ms: Option<u32>) -> String {
    match uncertainty_ms {
        None => String::new(),
        Some(ms @ 0..10_000) => {
            let seconds = format!("{:.2}", f64::from(ms.max(10)) / 1_000.0);
            format!(", within {} s", seconds.trim_end_matches('0').trim_end_matches('.'))
        }
        Some(ms) => format!(", within {}", span(ms.into())),
    }
}

/// The two largest units, such as `1 h 0 min`.
fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let units = [(86_400 * 365, "years"), (86_400, "days"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(length, _)| seconds >= *length).unwrap_or(units.len() - 1);
    let mut left = seconds;
    let mut said = Vec::new();
    for (length, name) in units.iter().skip(first).take(2) {
        said.push(format!("{} {name}", left / length));
        left %= length;
    }
    said.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Quality;

    const HOUR_MS: i64 = 3_600_000;

    fn reading(wall_ms: i64, quality: Quality) -> Reading {
        Reading { boottime_ms: 7_000, wall_ms: 1_795_000_000_000 + wall_ms, quality, uncertainty_ms: Some(300) }
    }

    #[test]
    fn what_happened_to_the_clock_is_said_in_words() {
        let was = reading(0, Quality::Ntp);
        assert_eq!(in_words(&was, &reading(900, Quality::Ntp)), None);
        let after = |wall_ms, quality| in_words(&was, &reading(wall_ms, quality)).unwrap();
        assert_eq!(after(-HOUR_MS, Quality::Ntp), "the clock was set back by 1 h 0 min; schedules by the clock are planned anew");
        assert_eq!(
            after(49 * HOUR_MS, Quality::Saved),
            "the clock was set forward by 2 days 1 h and is not trusted any more (saved, within 0.3 s); schedules by the clock are planned anew"
        );
        assert_eq!(after(5, Quality::Hub), "the clock is hub, within 0.3 s now; schedules by the clock are planned anew");
        let in_1970 = Reading { wall_ms: 60_000, quality: Quality::Unset, ..was };
        assert_eq!(
            in_words(&in_1970, &was).unwrap(),
            "the clock was set forward by 56 years 335 days and is trusted now (ntp, within 0.3 s); schedules by the clock are planned anew"
        );
    }

    #[test]
    fn how_exact_the_clock_is_reads_well() {
        let said = |ms| within(Some(ms));
        assert_eq!(
            [0, 14, 300, 2_000, 9_990].map(said),
            [", within 0.01 s", ", within 0.01 s", ", within 0.3 s", ", within 2 s", ", within 9.99 s"]
        );
        assert_eq!([16_000, 200_000, 90_000_000].map(said), [", within 16 s", ", within 3 min 20 s", ", within 1 days 1 h"]);
        assert_eq!(within(None), "");
    }

    /// This machine's clock is nobody's to set: that a step wakes the watch is shown on the emulated board.
    #[tokio::test]
    async fn a_watch_waits_while_nobody_sets_the_clock() {
        let watch = StepWatch::new(Arc::new(crate::clock::SystemClock)).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(watch.timer.0.get_ref());
        let armed = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        // CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, and a number of seconds that no clock reaches.
        assert!(armed.contains("clockid: 0") && armed.contains("settime flags: 03"), "{armed}");
        assert!(armed.lines().any(|line| line.starts_with("it_value: (") && line.len() > 20), "{armed}");
        let waited = tokio::time::timeout(std::time::Duration::from_millis(200), watch.stepped()).await;
        assert!(waited.is_err(), "it told of a step that nobody made");
    }
}
