//! What a schedule says: at which instants it wants pictures, and what becomes of those that were not kept.

use super::calendar::Calendar;
use super::during::During;
use super::grid::Grid;

/// One schedule's whole meaning. Made by the checks of the configuration, so it cannot be wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub when: When,
    /// Slots outside of it do not exist.
    pub during: Option<During>,
    /// Each slot is later by a part of this that is its own for ever.
    pub jitter_ms: u64,
    /// Pictures of one short series, [`BURST_GAP_MS`](crate::model::BURST_GAP_MS) apart; 1: no series.
    pub burst: u32,
    pub misfire: Misfire,
    /// How late a slot that passed may still be served, under [`Misfire::Once`].
    pub grace_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum When {
    Grid(Grid),
    Calendar(Calendar),
}

/// What becomes of slots that passed unserved: each gets its outcome, and of the last one perhaps a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfire {
    Skip,
    Once,
}
