//! What was written day by day, by our own count: pure, time by argument.
//!
//! The rows ride on commits that happen anyway, so they lag by the last commit itself: that much is missing of a run that was
//! not ended in order. Not counted is what is written once: the lock's text, the kept configuration, the copy of an index that a
//! newer version is about to change.

use super::index::WrittenDay;
use crate::clock::Reading;
use crate::protocol::WrittenFor;

/// Days on record. A row takes up to 40 bytes, and all of them must fit into the page that every commit writes in any case.
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
mod tests {
    use super::*;
    use crate::model::Quality;
    use crate::protocol::Written;

    fn at(day: i64, quality: Quality) -> Reading {
        Reading { boottime_ms: 0, wall_ms: day * DAY_MS + 3_600_000, quality, uncertainty_ms: None }
    }
    fn all(pictures: u64, index: u64) -> WrittenFor {
        let written = |bytes| Written { bytes, flushes: bytes / 10 };
        WrittenFor { pictures: written(pictures), index: written(index) }
    }

    #[test]
    fn each_byte_belongs_to_the_day_it_was_written_on_and_to_one_only() {
        let mut days = Days::default();
        days.count(&at(7, Quality::Ntp), all(100, 30));
        days.count(&at(7, Quality::Ntp), all(150, 40));
        days.count(&at(8, Quality::Ntp), all(250, 40));
        days.count(&at(8, Quality::Ntp), all(250, 40));
        assert_eq!(days.rows().iter().map(|r| (r.day, r.unsure, r.written)).collect::<Vec<_>>(), [
            (7, false, all(150, 40)),
            (8, false, WrittenFor { index: Written::default(), ..all(100, 0) }),
        ]);
        assert_eq!(days.since_start(), all(250, 40));
        assert_eq!(days.today(&at(9, Quality::Ntp)).written, WrittenFor::default());
        // Another run: its counters begin at nothing, the rows stay.
        let mut days = Days::new(days.rows().to_vec());
        days.count(&at(8, Quality::Saved), all(20, 10));
        days.count(&at(8, Quality::Ntp), all(30, 10));
        assert_eq!(days.today(&at(8, Quality::Ntp)).written, all(130, 10));
        assert!(days.rows().iter().any(|row| row.unsure), "which part an untrusted clock dated stays on record");
    }

    #[test]
    fn the_record_is_bounded_whatever_the_clock_says_and_small_enough_to_ride_along() {
        let mut days = Days::default();
        for n in 1..=1_000 {
            // A clock that jumps about, as far as it can.
            let quality = if n % 3 == 0 { Quality::Saved } else { Quality::Ntp };
            days.count(&at((n * 7_919) % 50_000, quality), all(n as u64 * 4_000_000_000, n as u64 * 900_000_000));
        }
        let bytes = postcard::to_stdvec(days.rows()).unwrap().len();
        println!("written: {} days on record in {bytes} bytes", days.rows().len());
        assert!(days.rows().len() == DAYS_MAX && bytes <= 40 * DAYS_MAX, "{bytes}");
        assert_eq!(days.today(&at(1_000 * 7_919 % 50_000, Quality::Ntp)).written.pictures.bytes, 4_000_000_000, "the newest is kept");
    }
}
