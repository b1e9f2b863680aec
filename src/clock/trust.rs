//! How far the wall clock can be believed: a pure judgement over what the kernel, a clock chip and the hub say.
//!
//! | quality | what says so |
//! |---|---|
//! | `ntp` | the kernel calls its clock synchronised; where a sandbox forbids to ask it, timesyncd's marker of this boot, written after the last step |
//! | `hub` | the hub answered a question of ours; the agent adds its own offset to the boot clock, the system's clock stays as it is |
//! | `rtc` | a clock chip set the clock at boot, still agrees with it, and says nothing impossible |
//! | `saved` | nothing says that it is right, or wrong |
//! | `unset` | it is earlier than this program |
//!
//! **Trust once won lasts for the boot.** Nine hours without an answer of a server the kernel gives up calling its clock synchronised, yet
//! the clock is only slowly less exact: it keeps its quality, with an uncertainty that grows, until somebody steps it. (A step shows as
//! another distance to the boot clock, which no slewing and no drift changes.) Once the kernel has given up, the hub's time is taken where
//! it is the more exact.
//!
//! **What is not believed**: a time before this program was built, whoever tells it; a chip or a hub ahead of it by more than
//! ten years; a chip behind the last trusted time on record; the time in the hub's presence message, which is retained and may be of any
//! age, and through a bridge between brokers even looks fresh.
//!
//! A chrony without `rtcsync` never tells the kernel: then the clock counts as `saved`, or `hub`.

use super::kernel::Kernel;
use super::reading::{BUILD_UNIX_S, HubTime, Reading};
use crate::model::Quality;

/// What a quartz that nobody disciplines drifts at most, between frost and sun: 8.6 s a day.
const DRIFT_PPM: u64 = 100;
/// An answer that was under way for longer than twice this waited somewhere, nobody knows on which way.
const DOUBT_MAX_MS: u64 = 30_000;
/// The distance between wall and boot clock moves by more than this only in a step.
const STEP_MS: u64 = 1_000;
/// Files are stamped with the tick before.
const TICK_MS: u64 = 100;
/// A chip counts whole seconds, and the kernel reads it in the middle of one.
const CHIP_SLACK_MS: u64 = 3_000;
/// Nobody runs a program for longer than this after it was built; a clock further ahead is wrong.
const YEARS_AHEAD_MS: i64 = 10 * 366 * 86_400_000;

/// What was seen at one instant.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub boottime_ms: u64,
    pub wall_ms: i64,
    pub kernel: Kernel,
    pub marker_ms: Option<i64>,
}

/// An offset that was right at an instant of the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    offset_ms: i64,
    uncertainty_ms: Option<u32>,
    at_ms: u64,
}

impl Held {
    fn uncertainty_ms(&self, boottime_ms: u64) -> Option<u32> {
        let drift_ms = boottime_ms.saturating_sub(self.at_ms) * DRIFT_PPM / 1_000_000;
        self.uncertainty_ms.map(|known| known.saturating_add(drift_ms.min(u64::from(u32::MAX)) as u32))
    }
    fn reading(&self, boottime_ms: u64, quality: Quality) -> Reading {
        let wall_ms = self.offset_ms + boottime_ms as i64;
        Reading { boottime_ms, wall_ms, quality, uncertainty_ms: self.uncertainty_ms(boottime_ms) }
    }
}

/// The distance of the system's wall clock to the boot clock, and the last instant at which it was another one.
#[derive(Debug, Clone, Copy)]
struct Steady {
    offset_ms: i64,
    other_until_ms: u64,
}

/// What is known of this boot's clock. The system's own clock has one of them in a process.
#[derive(Debug)]
pub struct Trust {
    last_trusted_ms: i64,
    steady: Option<Steady>,
    read_ms: u64,
    ntp: Option<Held>,
    hub: Option<Held>,
    /// Whether the chip can be believed, while the clock is not stepped.
    chip: Option<bool>,
}

impl Trust {
    pub const fn new() -> Self {
        Self { last_trusted_ms: 0, steady: None, read_ms: 0, ntp: None, hub: None, chip: None }
    }

    /// What the store has on record: the latest time from a trusted clock, and the offset of this boot.
    pub fn recall(&mut self, last_trusted_ms: i64, boot: Option<(i64, Quality, u64)>) {
        self.last_trusted_ms = last_trusted_ms;
        self.chip = None;
        let Some((offset_ms, quality, at_ms)) = boot else { return };
        let held = Some(Held { offset_ms, uncertainty_ms: None, at_ms });
        match quality {
            Quality::Ntp if self.ntp.is_none() => self.ntp = held,
            Quality::Hub if self.hub.is_none() => self.hub = held,
            _ => {}
        }
    }

    /// Judges; `chip` is asked only where it matters.
    pub fn judge(&mut self, seen: Seen, chip: impl FnOnce() -> Option<i64>) -> Reading {
        let Seen { boottime_ms, wall_ms, .. } = seen;
        let offset_ms = wall_ms - boottime_ms as i64;
        self.notice_step(offset_ms);
        self.read_ms = self.read_ms.max(boottime_ms);
        let set = wall_ms >= BUILD_UNIX_S * 1_000;
        let here = Held { offset_ms, uncertainty_ms: None, at_ms: boottime_ms };
        if let Some(uncertainty_ms) = self.synced(&seen).filter(|_| set) {
            self.ntp = Some(Held { uncertainty_ms, ..here });
            return Reading { boottime_ms, wall_ms, quality: Quality::Ntp, uncertainty_ms };
        }
        // The clock itself, not the offset that was right: a step below what counts as one is a correction.
        let ntp = self.ntp.map(|held| Held { offset_ms, ..held });
        let wider = |ntp: Held, hub: Held| match (ntp.uncertainty_ms(boottime_ms), hub.uncertainty_ms(boottime_ms)) {
            (Some(ntp), Some(hub)) => ntp > hub,
            (None, hub) => hub.is_some(),
            (Some(_), None) => false,
        };
        match (ntp, self.hub) {
            (Some(ntp), Some(hub)) if wider(ntp, hub) => return hub.reading(boottime_ms, Quality::Hub),
            (Some(ntp), _) => return ntp.reading(boottime_ms, Quality::Ntp),
            (None, Some(hub)) => return hub.reading(boottime_ms, Quality::Hub),
            (None, None) => {}
        }
        let quality = match set {
            false => Quality::Unset,
            true if self.chip_believed(&seen, chip) => Quality::Rtc,
            true => Quality::Saved,
        };
        here.reading(boottime_ms, quality)
    }

    /// Whether nothing keeps the clock right at present.
    pub fn wants_hub_time(&self, seen: &Seen) -> bool {
        self.synced(seen).is_none() || seen.wall_ms < BUILD_UNIX_S * 1_000
    }

    /// # Errors
    /// The hub's time cannot be true.
    pub fn hear_hub(&mut self, time: HubTime) -> Result<(), String> {
        let HubTime { wall_ms, asked_ms, heard_ms } = time;
        if !possible(wall_ms) {
            let says = chrono::DateTime::from_timestamp_millis(wall_ms).map_or_else(|| format!("{wall_ms} ms"), |at| at.to_rfc3339());
            return Err(format!("the hub's clock says {says}, which cannot be: its time is not used; set the hub's clock"));
        }
        let half_ms = heard_ms.saturating_sub(asked_ms).div_ceil(2);
        if half_ms > DOUBT_MAX_MS {
            let took_s = heard_ms.saturating_sub(asked_ms) / 1_000;
            return Err(format!("the hub took {took_s} s to tell the time: too long to be of use, it is asked again"));
        }
        let uncertainty_ms = u32::try_from(half_ms).ok();
        let new = Held { offset_ms: wall_ms + half_ms as i64 - heard_ms as i64, uncertainty_ms, at_ms: heard_ms };
        // Two answers that can both be true: the more exact one. Else the hub's clock was set, and its latest word counts.
        let keep = self
            .hub
            .and_then(|old| Some((old, old.uncertainty_ms(heard_ms)?, uncertainty_ms?)))
            .is_some_and(|(old, was, is)| was < is && old.offset_ms.abs_diff(new.offset_ms) <= u64::from(was) + u64::from(is));
        if !keep {
            self.hub = Some(new);
        }
        Ok(())
    }

    fn notice_step(&mut self, offset_ms: i64) {
        if self.steady.is_none_or(|steady| steady.offset_ms.abs_diff(offset_ms) > STEP_MS) {
            self.steady = Some(Steady { offset_ms, other_until_ms: self.read_ms });
            self.chip = None;
        }
        self.ntp = self.ntp.filter(|held| held.offset_ms.abs_diff(offset_ms) <= STEP_MS);
    }

    /// The kernel's word, or timesyncd's where the kernel's cannot be had; with what is known of the error.
    fn synced(&self, seen: &Seen) -> Option<Option<u32>> {
        match seen.kernel {
            Kernel::Synced { error_ms } => Some(Some(error_ms)),
            Kernel::Unsynced => None,
            Kernel::Unreadable => {
                // By the clock as it is now, the marker must fall between the last step (or the boot) and now.
                let offset_ms = seen.wall_ms - seen.boottime_ms as i64;
                let at_ms = seen.marker_ms? - offset_ms;
                let since_ms = self.steady.map_or(0, |steady| steady.other_until_ms) as i64;
                let until_ms = seen.boottime_ms as i64;
                (since_ms - TICK_MS as i64..=until_ms + TICK_MS as i64).contains(&at_ms).then_some(None)
            }
        }
    }

    fn chip_believed(&mut self, seen: &Seen, chip: impl FnOnce() -> Option<i64>) -> bool {
        let last_trusted_ms = self.last_trusted_ms;
        *self.chip.get_or_insert_with(|| {
            let slack_ms = CHIP_SLACK_MS + seen.boottime_ms * 2 * DRIFT_PPM / 1_000_000;
            chip().is_some_and(|chip_ms| chip_ms.abs_diff(seen.wall_ms) <= slack_ms && possible(chip_ms) && seen.wall_ms >= last_trusted_ms)
        })
    }
}

/// Neither before this program was built nor longer after it than any program runs.
fn possible(wall_ms: i64) -> bool {
    let build_ms = BUILD_UNIX_S * 1_000;
    (build_ms..build_ms + YEARS_AHEAD_MS).contains(&wall_ms)
}

#[cfg(test)]
mod tests;
