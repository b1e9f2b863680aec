//! What the kernel and its surroundings say about time, read and not judged.
//!
//! The wall clock is read through the C library, so that `faketime` can show how a wrong one is dealt with; all else comes from the kernel
//! alone. On 32-bit boards the standard library knows the call that outlives 2038.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// systemd-timesyncd touches it whenever a server has answered.
const MARKER: &str = "/run/systemd/timesync/synchronized";
const CHIPS: &str = "/sys/class/rtc";

/// What adjtimex says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Somebody disciplines the clock; the kernel's own estimate of its greatest error.
    Synced { error_ms: u32 },
    /// Nobody ever did, or it was set since, or the estimate has grown past 16 s: nine hours without an answer.
    Unsynced,
    /// A sandbox forbids the call.
    Unreadable,
}

fn ms(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
fn us(id: ClockId) -> u64 {
    let now = clock_gettime(id);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

pub fn boottime_ms() -> u64 {
    ms(clock_gettime(ClockId::Boottime))
}

pub fn monotonic_ms() -> u64 {
    ms(clock_gettime(ClockId::Monotonic))
}

fn wall_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

/// The wall clock and CLOCK_BOOTTIME at one instant.
pub fn both_ms() -> (u64, i64) {
    let (boot_us, wall_us, _) = closest(ClockId::Boottime, wall_us);
    (boot_us / 1_000, wall_us.div_euclid(1_000))
}

/// CLOCK_BOOTTIME minus CLOCK_MONOTONIC: the time spent in suspend. In doubt too small.
pub fn asleep_us() -> u64 {
    let (mono_us, boot_us, apart_us) = closest(ClockId::Monotonic, || us(ClockId::Boottime));
    boot_us.saturating_sub(mono_us + apart_us)
}

/// Reads one clock around another. Somebody else may run between two reads; of a few tries the closest counts.
fn closest<T>(outer: ClockId, inner: impl Fn() -> T) -> (u64, T, u64) {
    let read = || {
        let (before, inner, after) = (us(outer), inner(), us(outer));
        (before, inner, after - before)
    };
    let mut best = read();
    for _ in 0..3 {
        if best.2 <= 100 {
            break;
        }
        let again = read();
        if again.2 < best.2 {
            best = again;
        }
    }
    best
}

#[expect(unsafe_code, reason = "adjtimex has no safe wrapper that only reads")]
pub fn sync() -> Kernel {
    // SAFETY: adjtimex with modes = 0 only fills the zeroed struct, which lives across the call.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex)
    };
    if state < 0 {
        return Kernel::Unreadable;
    }
    let synced = state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0;
    if synced { Kernel::Synced { error_ms: u32::try_from(timex.maxerror / 1000).unwrap_or(u32::MAX) } } else { Kernel::Unsynced }
}

/// When timesyncd last heard a server, by the wall clock of that moment.
pub fn marker_ms() -> Option<i64> {
    let about = std::fs::metadata(MARKER).ok()?;
    Some(about.ctime() * 1_000 + about.ctime_nsec() / 1_000_000)
}

/// What the clock chip says that the kernel took this boot's time from. Asking one costs milliseconds: it sits on a slow bus.
pub fn chip_ms() -> Option<i64> {
    let text = |path: std::path::PathBuf| std::fs::read_to_string(path).ok();
    let chips = std::fs::read_dir(CHIPS).ok()?.flatten().map(|chip| chip.path());
    let mut set_us = chips.filter(|chip| text(chip.join("hctosys")).is_some_and(|set| set.trim() == "1"));
    set_us.find_map(|chip| Some(text(chip.join("since_epoch"))?.trim().parse::<i64>().ok()?.saturating_mul(1_000)))
}

/// The kernel's name for this boot.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
