//! What was written day by day, by our own count: pure, time by argument.
//!
//! The rows ride on commits that happen anyway, so they lag by the last commit itself: that much is missing of a run that was
//! not ended in order. Not counted is what is written once: the lock's text, the kept configuration, the copy of an index that a
//! newer version is about to change.

use super::index::WrittenDay;
use crate::clock::Reading;
use crate::protocol::WrittenFor;

/// Days on record. A row takes up to 40 bytes, and all of them are written with every commit, in a page that it
/// writes in any case.
const DAYS_MAX: usize = 32;
const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Clone, Default)]
pub struct Days {
    /// In the order they were begun: a clock that was wrong once does not decide which row goes.
    rows: Vec<WrittenDay>,
    /// Since the agent's start.
    so_far: WrittenFor,
}

fn day_of(now: &Reading) -> i32 {
    i32::try_from(now.wall_ms.div_euclid(DAY_MS)).unwrap_or(0)
}

impl Days {
    pub fn new(rows: Vec<WrittenDay>) -> Self {
        Self { rows, so_far: WrittenFor::default() }
    }

    /// Takes note of all that was written since the agent's start; what is new belongs to this day.
    pub fn count(&mut self, now: &Reading, all: WrittenFor) {
        let new = WrittenFor { pictures: all.pictures - self.so_far.pictures, index: all.index - self.so_far.index };
        self.so_far = all;
        if new == WrittenFor::default() {
            return;
        }
        let (day, unsure) = (day_of(now), !now.quality.trusted());
        match self.rows.iter_mut().rev().find(|row| (row.day, row.unsure) == (day, unsure)) {
            Some(row) => add(&mut row.written, new),
            None => {
                self.rows.push(WrittenDay { day, unsure, written: new });
                self.rows.drain(..self.rows.len().saturating_sub(DAYS_MAX));
            }
        }
    }

    pub fn since_start(&self) -> WrittenFor {
        self.so_far
    }

    /// The day that the clock says, with what was written on it before the clock was trusted.
    pub fn today(&self, now: &Reading) -> WrittenDay {
        let mut today = WrittenDay { day: day_of(now), unsure: !now.quality.trusted(), written: WrittenFor::default() };
        for row in self.rows.iter().filter(|row| row.day == today.day) {
            add(&mut today.written, row.written);
        }
        today
    }

    pub fn rows(&self) -> &[WrittenDay] {
        &self.rows
    }
}

fn add(to: &mut WrittenFor, more: WrittenFor) {
    *to = WrittenFor { pictures: to.pictures + more.pictures, index: to.index + more.index };
}

#[cfg(test)]
mod tests;
