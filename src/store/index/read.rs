//! Questions to the index. Readers see the last commit and never wait for the writer.

use super::book::{DayRow, NESTED_MAX, known, step_of};
use super::open::Index;
use super::rows::{BootRow, Erasure, SnapRow, row};
use super::tables::{
    ASK, BOOTS, BY_CAMERA, CURSORS, ERASURES, FREE, GAPS, GARBAGE, Key, OUTCOMES, PINS, PendingKey, RANGES, SNAPS, STATE, STORES, day_of,
    days_from, part, pending_key, pending_of,
};
use crate::model::{ASK_SPAN_MAX, BootNo, CameraId, Outcome, ScheduleId, StoreId};
use crate::protocol::GapRange;
use crate::store::path::is_ours;
use redb::ReadableTable;
use std::{collections::BTreeMap, path::PathBuf};

/// Slots of one range that are told one by one.
const EXPANDED_MAX: usize = 100_000;
/// Rows looked at to find a neighbour.
const NEAR_MAX: usize = 10_000;

impl Index {
    /// All incarnations, by number.
    pub fn stores(&self) -> Result<BTreeMap<u32, StoreId>, redb::Error> {
        self.read()?.open_table(STORES)?.iter()?.map(|e| e.map(|(k, v)| (k.value(), StoreId(v.value()))).map_err(Into::into)).collect()
    }

    pub fn boots(&self) -> Result<BTreeMap<BootNo, BootRow>, redb::Error> {
        let (txn, mut boots) = (self.read()?, BTreeMap::new());
        for entry in txn.open_table(BOOTS)?.iter()? {
            let (no, value) = entry?;
            boots.insert(no.value(), row(value.value())?);
        }
        Ok(boots)
    }

    pub fn cursors(&self) -> Result<BTreeMap<String, Vec<u8>>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(STATE)?;
        table.range(part(CURSORS))?.map(|e| e.map(|(k, v)| (k.value().3.to_owned(), v.value().to_vec())).map_err(Into::into)).collect()
    }

    /// Files to be removed. A path that no picture of ours can have, as somebody else's index may hold, is none.
    pub fn garbage(&self) -> Result<Vec<PathBuf>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(GARBAGE)?;
        let paths = table.iter()?.map(|e| e.map(|(k, _)| PathBuf::from(k.value())).map_err(Into::into));
        paths.filter(|path: &Result<PathBuf, redb::Error>| path.as_ref().map_or(true, |path| is_ours(path))).collect()
    }

    /// The newest pictures, newest first.
    pub fn newest(&self, limit: usize) -> Result<Vec<(Key, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let snaps = txn.open_table(SNAPS)?;
        snaps
            .iter()?
            .rev()
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                Ok((key.value(), row(value.value())?))
            })
            .collect()
    }

    pub fn snap(&self, key: Key) -> Result<Option<SnapRow>, redb::Error> {
        self.read()?.open_table(SNAPS)?.get(key)?.map(|v| row(v.value())).transpose()
    }

    /// Up to `limit` unacknowledged pictures after `after`, in backlog order.
    pub fn pending_after(&self, after: Option<PendingKey>, limit: usize) -> Result<Vec<(PendingKey, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let (pending, snaps) = (txn.open_table(STATE)?, txn.open_table(SNAPS)?);
        let from = pending_key(after.map_or((0, 0, 0), |(class, ord, seq)| (class, ord, seq + 1)));
        let mut found = Vec::new();
        for entry in pending.range(from..)?.take(limit) {
            let key = pending_of(entry?.0.value());
            if let Some(value) = snaps.get((key.1, key.2))? {
                found.push((key, row(value.value())?));
            }
        }
        Ok(found)
    }

    /// The first pictures the hub is to be asked about: at most `limit`, all of one incarnation.
    pub fn to_ask(&self, limit: usize) -> Result<Option<(Key, Key)>, redb::Error> {
        let txn = self.read()?;
        let ask = txn.open_table(ASK)?;
        let Some(first) = ask.first()?.map(|(key, _)| key.value()) else { return Ok(None) };
        let mut last = first;
        for entry in ask.range(first..(first.0, first.1.saturating_add(ASK_SPAN_MAX)))?.take(limit) {
            last = entry?.0.value();
        }
        Ok(Some((first, last)))
    }

    /// A camera's pictures from the newest on, as long as `accept` wants more.
    pub fn newest_of(&self, camera: &CameraId, mut accept: impl FnMut(Key, SnapRow) -> bool) -> Result<(), redb::Error> {
        let txn = self.read()?;
        let (by, snaps) = (txn.open_table(BY_CAMERA)?, txn.open_table(SNAPS)?);
        for entry in by.range((camera.as_str(), 0, 0)..=(camera.as_str(), u32::MAX, u64::MAX))?.rev() {
            let (_, ord, seq) = entry?.0.value();
            if let Some(value) = snaps.get((ord, seq))?
                && !accept((ord, seq), row(value.value())?)
            {
                break;
            }
        }
        Ok(())
    }

    pub fn outcome(&self, schedule: &ScheduleId, boot: BootNo, due_ms: u64) -> Result<Option<Outcome>, redb::Error> {
        let txn = self.read()?;
        known(&txn.open_table(OUTCOMES)?, &txn.open_table(RANGES)?, schedule.as_str(), boot, due_ms)
    }

    /// Outcomes of one schedule with `from <= due_ms <= to` in one boot, ascending. Of ranges, those whose slots can be told one by
    /// one.
    pub fn outcomes(&self, schedule: &ScheduleId, boot: BootNo, from: u64, to: u64) -> Result<Vec<(u64, Outcome)>, redb::Error> {
        let txn = self.read()?;
        let (table, name) = (txn.open_table(OUTCOMES)?, schedule.as_str());
        let (mut found, mut passed) = (BTreeMap::new(), 0);
        for entry in txn.open_table(RANGES)?.range((name, boot, 0)..=(name, boot, to))?.rev() {
            let range: GapRange = row(entry?.1.value())?;
            // One that leads into a later boot holds no slot of this one that could be told.
            if range.to.boot != boot || range.count.is_none() {
                continue;
            }
            let last_ms = range.to.due_ms;
            if last_ms < from {
                passed += 1;
                if passed == NESTED_MAX {
                    break;
                }
                continue;
            }
            let first_ms = range.from.due_ms;
            let step_ms = step_of(&range).unwrap_or((last_ms - first_ms).max(1));
            let skipped = from.saturating_sub(first_ms).div_ceil(step_ms);
            // Counted in u64: `step_by` takes a usize, and on a 32-bit board that is 49 days.
            let slots =
                (skipped..).map_while(|n| n.checked_mul(step_ms)?.checked_add(first_ms)).take_while(|due_ms| *due_ms <= last_ms.min(to));
            found.extend(slots.take(EXPANDED_MAX).map(|due_ms| (due_ms, range.outcome.clone())));
        }
        for entry in table.range((name, boot, from)..=(name, boot, to))? {
            let (key, value) = entry?;
            found.insert(key.value().2, row(value.value())?);
        }
        Ok(found.into_iter().collect())
    }

    /// The nearest captured slot of a boot before an instant, or after it: when it was due. Looks at [`NEAR_MAX`] rows at most.
    pub fn captured_near(&self, schedule: &ScheduleId, boot: BootNo, due_ms: u64, later: bool) -> Result<Option<u64>, redb::Error> {
        let txn = self.read()?;
        let (table, name) = (txn.open_table(OUTCOMES)?, schedule.as_str());
        let mut rows: Box<dyn Iterator<Item = _>> = match later {
            true => Box::new(table.range((name, boot, due_ms + 1)..=(name, boot, u64::MAX))?),
            false => Box::new(table.range((name, boot, 0)..(name, boot, due_ms))?.rev()),
        };
        rows.by_ref()
            .take(NEAR_MAX)
            .map(|entry| {
                let (key, value) = entry?;
                Ok((key.value().2, row::<Outcome>(value.value())?))
            })
            .find(|found| !matches!(found, Ok((_, outcome)) if !matches!(outcome, Outcome::Captured { .. })))
            .map(|found| found.map(|(due_ms, _)| due_ms))
            .transpose()
    }

    /// What the days from this one on sum up to, per schedule: whether only an untrusted clock tells the day, the day, the counts.
    pub fn days(&self, from_day: i32) -> Result<Vec<(String, bool, i32, DayRow)>, redb::Error> {
        let txn = self.read()?;
        let mut found = Vec::new();
        let table = txn.open_table(STATE)?;
        for days in days_from(from_day) {
            for entry in table.range(days)? {
                let (key, value) = entry?;
                let (unsure, day, schedule) = day_of(key.value());
                found.push((schedule.to_owned(), unsure == 1, day, row(value.value())?));
            }
        }
        Ok(found)
    }

    /// Ranges of one schedule, newest first, as long as `accept` wants more.
    pub fn ranges(&self, schedule: &ScheduleId, mut accept: impl FnMut(GapRange) -> bool) -> Result<(), redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(RANGES)?;
        for entry in table.range((schedule.as_str(), 0, 0)..=(schedule.as_str(), u32::MAX, u64::MAX))?.rev() {
            if !accept(row(entry?.1.value())?) {
                break;
            }
        }
        Ok(())
    }

    pub fn gaps_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(GAPS)?;
        table
            .range(after.saturating_add(1)..)?
            .take(limit)
            .map(|e| e.map(|(k, v)| (k.value(), v.value().to_vec())).map_err(Into::into))
            .collect()
    }

    /// A camera's pictures that may be deleted, from a place on, oldest first.
    pub fn free_from(&self, camera: &CameraId, from: Key, limit: usize) -> Result<Vec<(Key, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let (free, snaps) = (txn.open_table(FREE)?, txn.open_table(SNAPS)?);
        let mut found = Vec::new();
        for entry in free.range((camera.as_str(), from.0, from.1)..=(camera.as_str(), u32::MAX, u64::MAX))?.take(limit) {
            let (_, ord, seq) = entry?.0.value();
            if let Some(value) = snaps.get((ord, seq))? {
                found.push(((ord, seq), row(value.value())?));
            }
        }
        Ok(found)
    }

    /// The last picture of a camera before a place, of those that may be deleted.
    pub fn free_before(&self, camera: &CameraId, before: Key) -> Result<Option<(Key, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let (free, snaps) = (txn.open_table(FREE)?, txn.open_table(SNAPS)?);
        let last = free.range((camera.as_str(), 0, 0)..(camera.as_str(), before.0, before.1))?.next_back().transpose()?;
        let Some((key, _)) = last else { return Ok(None) };
        let (_, ord, seq) = key.value();
        snaps.get((ord, seq))?.map(|value| Ok(((ord, seq), row(value.value())?))).transpose()
    }

    /// All of a camera's pictures from a place on, oldest first, and whether each is pinned.
    pub fn oldest_from(&self, camera: &CameraId, from: Key, limit: usize) -> Result<Vec<(Key, SnapRow, bool)>, redb::Error> {
        let txn = self.read()?;
        let (by, snaps, pins) = (txn.open_table(BY_CAMERA)?, txn.open_table(SNAPS)?, txn.open_table(PINS)?);
        let mut found = Vec::new();
        for entry in by.range((camera.as_str(), from.0, from.1)..=(camera.as_str(), u32::MAX, u64::MAX))?.take(limit) {
            let (_, ord, seq) = entry?.0.value();
            if let Some(value) = snaps.get((ord, seq))? {
                found.push(((ord, seq), row(value.value())?, pins.get((ord, seq))?.is_some()));
            }
        }
        Ok(found)
    }

    /// Up to `limit` pictures of a camera with a number up to `upto`, whatever their store, oldest first.
    pub fn keys_upto(&self, camera: &CameraId, upto: u64, limit: usize) -> Result<Vec<Key>, redb::Error> {
        let txn = self.read()?;
        let by = txn.open_table(BY_CAMERA)?;
        let mut found = Vec::new();
        for entry in by.range((camera.as_str(), 0, 0)..=(camera.as_str(), u32::MAX, u64::MAX))? {
            let (_, ord, seq) = entry?.0.value();
            if seq <= upto {
                found.push((ord, seq));
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Pinned pictures with their bytes.
    pub fn pins(&self) -> Result<Vec<(Key, u64)>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(PINS)?;
        table.iter()?.map(|e| e.map(|(k, v)| (k.value(), v.value())).map_err(Into::into)).collect()
    }

    pub fn is_pinned(&self, key: Key) -> Result<bool, redb::Error> {
        Ok(self.read()?.open_table(PINS)?.get(key)?.is_some())
    }

    pub fn erasures(&self) -> Result<BTreeMap<CameraId, Erasure>, redb::Error> {
        let (txn, mut all) = (self.read()?, BTreeMap::new());
        for entry in txn.open_table(ERASURES)?.iter()? {
            let (camera, value) = entry?;
            if let Ok(camera) = camera.value().parse() {
                all.insert(camera, row(value.value())?);
            }
        }
        Ok(all)
    }
}
