//! What a schedule says: at which instants it wants pictures, and what becomes of those that were not kept.

use super::calendar::Calendar;
use super::during::During;
use super::grid::{Align, Grid};

/// A picture this near to a calendar's instant is the one that was meant: the clock was a little off when it was taken.
pub const NEAR_MS: u64 = 60_000;

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
    /// Of node and schedule: makes jitter its own.
    pub seed: u64,
    /// Tells this rule from others; 0: a grid that period and phase tell all of.
    pub mark: u64,
}

impl Rule {
    /// With its mark.
    pub fn marked(mut self) -> Self {
        let plain = matches!(self.when, When::Grid(_)) && self.during.is_none() && self.jitter_ms == 0 && self.burst == 1;
        let said = format!("{:?}{:?}{}/{}/{}", self.when, self.during, self.jitter_ms, self.burst, self.seed);
        // 0 is taken.
        self.mark = if plain { 0 } else { u64::from(crc32c::crc32c(said.as_bytes())) << 1 | 1 };
        self
    }

    /// What a memory keeps of a grid.
    pub fn period_and_phase(&self) -> (u64, u64) {
        match self.when {
            When::Grid(grid) => (grid.period_ms, grid.phase_ms),
            When::Calendar(_) => (0, 0),
        }
    }

    /// Whether slots are bound to the wall clock once it is trusted.
    pub fn follows_the_clock(&self) -> bool {
        !matches!(self.when, When::Grid(Grid { align: Align::Boot, .. }))
    }

    /// What two slots are apart at least, whatever happens to the clock; a series is one slot here.
    pub fn apart_ms(&self) -> u64 {
        let half_ms = self.shortest_ms().div_ceil(2);
        match self.when {
            When::Grid(_) => half_ms,
            When::Calendar(_) => half_ms.min(NEAR_MS),
        }
    }

    /// The shortest distance of two anchors.
    pub fn shortest_ms(&self) -> u64 {
        match &self.when {
            When::Grid(grid) => grid.period_ms,
            When::Calendar(calendar) => calendar.shortest_ms(),
        }
    }
}

impl From<Grid> for Rule {
    /// All slots of the grid, and nothing else.
    fn from(grid: Grid) -> Self {
        Self { when: When::Grid(grid), during: None, jitter_ms: 0, burst: 1, misfire: Misfire::Skip, grace_ms: 0, seed: 0, mark: 0 }
    }
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
