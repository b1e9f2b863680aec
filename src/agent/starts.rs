//! Starts in a row that stored nothing: after five of them the cameras are held back, the uplink never.
//!
//! Whatever ends the process again and again is most likely a camera's driver or decoder. The node stays at the hub meanwhile, and each
//! slot that falls due has its reason. The count is a file in the runtime directory, a byte for each start: a reboot begins anew, a
//! restart by systemd does not. A stored picture or an ordered stop clears it.

use crate::model::Failure;
use std::path::{Path, PathBuf};

/// So many may be chance: a board out of memory, an operator who tries things.
const FREE_STARTS: u32 = 5;
/// First wait, doubled with each further start up to the second.
const WAIT_MIN_MS: u64 = 30_000;
const WAIT_MAX_MS: u64 = 600_000;
const NOTE: &str = "starts-without-picture";

pub struct Starts {
    note: PathBuf,
    before: u32,
    /// Instant of the boot clock.
    cameras_from_ms: u64,
    open: bool,
}

impl Starts {
    /// Counts this start. A runtime directory that cannot be written counts nothing.
    pub fn count(runtime_dir: &Path, now_ms: u64) -> Self {
        let note = runtime_dir.join(NOTE);
        let before = std::fs::read(&note).map_or(0, |starts| u32::try_from(starts.len()).unwrap_or(u32::MAX));
        let _ = std::fs::create_dir_all(runtime_dir);
        // More change nothing.
        let _ = std::fs::write(&note, "+".repeat(before.min(64) as usize + 1));
        Self { note, before, cameras_from_ms: now_ms + wait_ms(before), open: true }
    }

    /// Until then cameras are held back.
    pub fn cameras_from_ms(&self) -> u64 {
        self.cameras_from_ms
    }

    /// Whether a stored picture is still to be noted.
    pub fn open(&self) -> bool {
        self.open
    }

    /// A picture was stored, or the stop is an ordered one.
    pub fn clear(&mut self) {
        self.open = false;
        let _ = std::fs::remove_file(&self.note);
    }

    /// Why a slot has no picture while they are.
    pub fn held_back(&self, now_ms: u64) -> Option<Failure> {
        let left_ms = self.cameras_from_ms.checked_sub(now_ms).filter(|left_ms| *left_ms > 0)?;
        let text = format!(
            "the last {} starts of the agent stored no picture; cameras begin in {} s. The log says why it ended (journalctl -u shutterd)",
            self.before,
            left_ms.div_ceil(1000)
        );
        Some(Failure::new("restarting", text))
    }
}

fn wait_ms(starts: u32) -> u64 {
    match starts.checked_sub(FREE_STARTS) {
        None => 0,
        Some(more) => (WAIT_MIN_MS << more.min(16)).min(WAIT_MAX_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_wait_after_five_starts_without_a_picture_longer_each_time() {
        let waits: Vec<u64> = (0..12).map(|starts| wait_ms(starts) / 1000).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(wait_ms(u32::MAX), WAIT_MAX_MS);
    }

    #[test]
    fn starts_are_counted_over_processes_until_a_picture_is_stored() {
        let dir = std::env::temp_dir().join(format!("shutterd-starts-{}", std::process::id()));
        let waits: Vec<u64> = (0..7).map(|_| (Starts::count(&dir, 50_000).cameras_from_ms() - 50_000) / 1000).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 30, 60]);
        let mut starts = Starts::count(&dir, 50_000);
        let why = starts.held_back(60_000).unwrap().detail;
        assert!(why.contains("the last 7 starts") && why.contains("in 110 s"), "{why}");
        assert_eq!(starts.held_back(170_000), None);
        starts.clear();
        assert_eq!(Starts::count(&dir, 50_000).held_back(50_000), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
