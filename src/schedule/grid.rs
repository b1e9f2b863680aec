//! The arithmetic of grids: which instants are slots. Integers only, and every slot from the grid's base, never from
//! the slot before it, so nothing adds up over months.
//!
//! A grid in one boot is `due = base + k × period` on CLOCK_BOOTTIME. Not bound to the clock, its base is the phase.
//! Bound to it, slots are UTC multiples of the period plus the phase, and the base is the phase minus the offset
//! (wall − boottime) in force. Then `plan = due + offset` is an exact multiple, and the same in every boot.

use crate::model::{NodeId, ScheduleId};
use sha2::{Digest, Sha256};

/// What a grid schedule follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// UTC multiples of the period once the clock is trusted; until then like `Boot`.
    Clock,
    /// Multiples of the period since this boot, always.
    Boot,
}

/// A schedule that repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub period_ms: u64,
    /// Where in the period the slots lie.
    pub phase_ms: u64,
    pub align: Align,
}

/// Where in the period a schedule's slots lie when nobody said: the same for ever for one schedule of one node, spread
/// over the nodes of a fleet, so that they do not all call the hub in the same second.
pub fn default_phase_ms(node: &NodeId, schedule: &ScheduleId, period_ms: u64) -> u64 {
    own_number(node, schedule) % period_ms.max(1)
}

/// What a schedule of a node has to itself.
pub fn own_number(node: &NodeId, schedule: &ScheduleId) -> u64 {
    let digest = Sha256::digest(format!("{node}/{schedule}"));
    let (head, _) = digest.split_at(size_of::<u64>());
    head.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The first of `base + k × period` (k any integer) that is not before `from`.
pub fn first_at_or_after(from: i64, base: i64, period_ms: u64) -> i64 {
    // The configuration has no period of 0; this keeps a memory from another hand from dividing by it.
    let period = period_ms.max(1) as i64;
    from + (base.rem_euclid(period) - from.rem_euclid(period)).rem_euclid(period)
}

/// How many slots lie in `[first, to]`.
pub fn count(first: i64, to: i64, period_ms: u64) -> u64 {
    if first > to { 0 } else { (to - first) as u64 / period_ms.max(1) + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_of_a_schedule_never_changes() {
        let phase = |node: &str, schedule: &str| default_phase_ms(&node.parse().unwrap(), &schedule.parse().unwrap(), 300_000);
        // printf n1/every-5m | sha256sum: the first 16 digits, modulo 300,000. A new version must not move a fleet.
        assert_eq!(phase("n1", "every-5m"), 247_234);
        assert_ne!(phase("n2", "every-5m"), 247_234);
        assert_ne!(phase("n1", "every-5n"), 247_234);
    }
}
