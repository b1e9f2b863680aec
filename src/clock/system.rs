//! The machine's clocks, and what this process has learnt of them.

use super::kernel;
use super::reading::{Clock, HubTime, Reading};
use super::trust::{Seen, Trust};
use crate::model::Quality;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// One for the process: whoever reads the clock reads the same one.
static TRUST: Mutex<Trust> = Mutex::new(Trust::new());
/// The hub's time came; one waits for it ([`super::StepWatch`]).
pub static HUB_MOVED: Notify = Notify::const_new();

fn trust() -> MutexGuard<'static, Trust> {
    TRUST.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn seen() -> Seen {
    let (boottime_ms, wall_ms) = kernel::both_ms();
    let kernel = kernel::sync();
    let marker_ms = if kernel == kernel::Kernel::Unreadable { kernel::marker_ms() } else { None };
    Seen { boottime_ms, wall_ms, kernel, marker_ms }
}

/// The machine's clocks: the wall clock is the system's, or the hub's where that is known and the system's is not believed.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        // Under the lock, so that what is judged is never older than what was judged before.
        let mut trust = trust();
        trust.judge(seen(), kernel::chip_ms)
    }
    fn boottime_ms(&self) -> u64 {
        kernel::boottime_ms()
    }
    fn recall(&self, last_trusted_ms: i64, boot: Option<(i64, Quality, u64)>) {
        trust().recall(last_trusted_ms, boot);
        HUB_MOVED.notify_one();
    }
    fn wants_hub_time(&self) -> bool {
        trust().wants_hub_time(&seen())
    }
    fn hear_hub(&self, time: HubTime) -> Result<(), String> {
        trust().hear_hub(time)?;
        HUB_MOVED.notify_one();
        Ok(())
    }
}
