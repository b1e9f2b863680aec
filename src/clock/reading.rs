//! What a clock says: both clocks at one instant, and how far the wall side can be believed.

use crate::model::{BootNo, Quality, Stamp};

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
    /// Half-width of the interval that holds the true time, where anything states one.
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

/// The hub's answer to a question of ours, with the instants of the boot clock around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubTime {
    /// What the hub's wall clock said, somewhere between the two.
    pub wall_ms: i64,
    pub asked_ms: u64,
    pub heard_ms: u64,
}

pub trait Clock: Send + Sync {
    /// Both clocks, read together.
    fn read(&self) -> Reading;
    fn boottime_ms(&self) -> u64 {
        self.read().boottime_ms
    }
    /// Whether the hub's time would be of use: nothing else keeps this clock right at present.
    fn wants_hub_time(&self) -> bool {
        false
    }
    /// What the store has on record: the latest time from a trusted clock, and this boot's offset with its quality and the instant until
    /// which it was seen. An agent that starts again within a boot then loses no trust, and a chip that has lost days gains none.
    fn recall(&self, _last_trusted_ms: i64, _boot: Option<(i64, Quality, u64)>) {}
    /// Takes the hub's time, if it can be true.
    /// # Errors
    /// Why it cannot, and what to do.
    fn hear_hub(&self, _time: HubTime) -> Result<(), String> {
        Ok(())
    }
}
