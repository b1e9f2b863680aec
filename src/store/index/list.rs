//! Lists of pictures, newest first, by camera, schedule and time, a page at a time.
//!
//! Order is by number, never by a clock. Where a trusted clock stamped the pictures, their times rise with their numbers, and a list
//! between two times reads little more than it shows; pictures in between that no trusted clock stamped count by what is known of their
//! time by now: a time, a stretch in which it lies, or nothing but what they say.

use super::open::Index;
use super::rows::{SnapRow, row};
use super::tables::{BY_CAMERA, Key, OUTCOMES, SNAPS, STORES};
use super::times::Times;
use crate::model::{CameraId, Outcome, ScheduleId, StoreId};
use redb::{ReadOnlyTable, ReadableTable};
use std::collections::HashMap;

/// Pictures are numbered when they are stored, a moment after they were taken, and clocks are put right by a little.
const SLACK_MS: i64 = 3_600_000;
/// Pictures looked at for one that a trusted clock stamped.
const STAMPED_WITHIN: usize = 64;

/// Which pictures to list; newest first.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub camera: Option<CameraId>,
    pub schedule: Option<ScheduleId>,
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    /// Only pictures older than this one.
    pub before: Option<Key>,
    pub limit: usize,
}

/// What a list has come to.
struct Page<'q> {
    query: &'q Query,
    times: Times,
    snaps: ReadOnlyTable<Key, &'static [u8]>,
    found: Vec<(Key, SnapRow)>,
}

impl Page<'_> {
    /// Takes a picture in if it fits; false when no more are wanted.
    fn take(&mut self, key: Key) -> Result<bool, redb::Error> {
        let Some(value) = self.snaps.get(key)? else { return Ok(true) };
        let snap: SnapRow = row(value.value())?;
        let (taken, since_ms) = (&snap.taken, self.query.since_ms);
        if taken.quality.trusted() && since_ms.is_some_and(|since| taken.wall_ms < since.saturating_sub(SLACK_MS)) {
            return Ok(false);
        }
        let (earliest_ms, latest_ms) = match self.times.taken_ms(taken) {
            Some(at) => (at, at),
            None => match self.times.bounds_ms(taken.boot, taken.boottime_ms) {
                (None, None) => (taken.wall_ms, taken.wall_ms),
                (earliest, latest) => (earliest.unwrap_or(i64::MIN), latest.unwrap_or(i64::MAX)),
            },
        };
        let fits = self.query.camera.as_ref().is_none_or(|c| *c == snap.camera)
            && since_ms.is_none_or(|since| latest_ms >= since)
            && self.query.until_ms.is_none_or(|until| earliest_ms <= until);
        if fits {
            self.found.push((key, snap));
        }
        Ok(self.found.len() < self.query.limit)
    }

    /// From this place on every picture is later than asked for.
    fn end(&self) -> Result<Key, redb::Error> {
        let end = self.query.before.unwrap_or((u32::MAX, u64::MAX));
        let Some(until) = self.query.until_ms else { return Ok(end) };
        let place = |key: Key| u128::from(key.0) << 64 | u128::from(key.1);
        let (mut low, mut high) = (0, place(end));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.stamped_before((((middle >> 64) as u32), middle as u64))? {
                Some((key, wall_ms)) if wall_ms > until.saturating_add(SLACK_MS) => high = place(key),
                _ => low = middle + 1,
            }
        }
        Ok(((high >> 64) as u32, high as u64))
    }

    /// The last picture before a place that a trusted clock stamped, if there is one nearby.
    fn stamped_before(&self, end: Key) -> Result<Option<(Key, i64)>, redb::Error> {
        for entry in self.snaps.range(..end)?.rev().take(STAMPED_WITHIN) {
            let (key, value) = entry?;
            let snap: SnapRow = row(value.value())?;
            if snap.taken.quality.trusted() {
                return Ok(Some((key.value(), snap.taken.wall_ms)));
            }
        }
        Ok(None)
    }
}

impl Index {
    pub fn list(&self, query: &Query) -> Result<Vec<(Key, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let times = if query.since_ms.or(query.until_ms).is_some() { self.times()? } else { Times::default() };
        let mut page = Page { query, times, snaps: txn.open_table(SNAPS)?, found: Vec::new() };
        let end = page.end()?;
        if let Some(schedule) = &query.schedule {
            let ords: HashMap<StoreId, u32> =
                txn.open_table(STORES)?.iter()?.map(|e| e.map(|(k, v)| (StoreId(v.value()), k.value()))).collect::<Result<_, _>>()?;
            let Some(oldest) = page.snaps.first()?.map(|(key, _)| key.value()) else { return Ok(page.found) };
            let Some((_, newest)) = page.snaps.range(..end)?.next_back().transpose()? else { return Ok(page.found) };
            // What was due after the newest picture that may be shown was taken cannot be among them.
            let taken = row::<SnapRow>(newest.value())?.taken;
            let (name, last_ms) = (schedule.as_str(), taken.boottime_ms.saturating_add(SLACK_MS as u64));
            for entry in txn.open_table(OUTCOMES)?.range((name, 0, 0)..=(name, taken.boot, last_ms))?.rev() {
                let Outcome::Captured { id, .. } = row(entry?.1.value())? else { continue };
                let Some(key) = ords.get(&id.store).map(|ord| (*ord, id.seq.0)) else { continue };
                // One picture may have served two slots of the schedule.
                if page.found.last().is_some_and(|(last, _)| *last == key) {
                    continue;
                }
                if key < oldest || (key < end && !page.take(key)?) {
                    break;
                }
            }
        } else if let Some(camera) = &query.camera {
            let name = camera.as_str();
            for entry in txn.open_table(BY_CAMERA)?.range((name, 0, 0)..(name, end.0, end.1))?.rev() {
                let (_, ord, seq) = entry?.0.value();
                if !page.take((ord, seq))? {
                    break;
                }
            }
        } else {
            for entry in txn.open_table(SNAPS)?.range(..end)?.rev() {
                if !page.take(entry?.0.value())? {
                    break;
                }
            }
        }
        Ok(page.found)
    }
}

#[cfg(test)]
mod tests;
