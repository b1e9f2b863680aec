//! Sweeps by the time pictures were taken: age and thinning.
//!
//! Each camera has a mark for each pass: what lies before it was looked at and stays. The next sweep goes on there, reads one
//! picture that is too young, and so knows when it is due again. The marks ride along with commits; lost ones cost reading, no picture.
//!
//! A clock that leaps makes old what was taken yesterday, and what is deleted stays so: after a leap nothing goes by age for a day, in
//! which the clock may be put right.

use super::rules::{Pass, Rules};
use crate::clock::Reading;
use crate::model::{CameraId, SWEEP_MAX};
use crate::store::index::{Index, Key, SnapRow, Times};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// An idle node does not sweep more often: one unlink and flush for many pictures.
const PAUSE_MS: u64 = 300_000;
/// A wall clock that moved by this against the boot clock was set.
const STEP_MS: u64 = 1_000;
/// A clock that is further from what it was than this has leapt: set while the agent runs, or since the last trusted time on record. (A
/// board may well be off for weeks.)
const LEAP_MS: u64 = 3_600_000;
const OFF_MAX_MS: i64 = 31 * 86_400_000;
/// How long nothing goes by age after a leap.
const CALM_MS: u64 = 86_400_000;
/// Pictures looked at in one sweep.
const READ_MAX: usize = 1_024;

/// What the index keeps of it.
#[derive(Serialize, Deserialize)]
struct Marks {
    passes: String,
    trusted_boots: usize,
    at: Vec<(CameraId, u8, Key)>,
}

pub struct ByTime {
    passes: Vec<Pass>,
    /// The next picture to look at. All earlier ones stay.
    marks: BTreeMap<(CameraId, u8), Key>,
    /// Boots whose time is known: one more, and pictures that were passed over have a time now.
    trusted_boots: usize,
    /// When the next picture falls due; `None`: none is there.
    due_wall_ms: Option<i64>,
    /// Some camera has no picture that is too young yet: a new one may be due at any time.
    open_end: bool,
    /// The last sweep.
    last: Option<Reading>,
    /// The clock as it was last seen while trusted, and the last trusted time that an earlier run put on record.
    seen: Option<Reading>,
    before_ms: i64,
    /// Nothing goes before this instant of the boot clock.
    calm_until_ms: u64,
    /// The last sweep stopped at its limit.
    pub more: bool,
    /// Pictures looked at so far.
    pub rows_read: u64,
}

impl ByTime {
    /// `kept`: what [`Self::save`] made.
    /// `before_ms`: the last trusted time on record, 0 if there is none.
    pub fn new(rules: &Rules, times: &Times, kept: Option<&[u8]>, before_ms: i64) -> Self {
        let passes = rules.passes();
        let trusted_boots = times.known_count();
        let marks: Option<Marks> = kept.and_then(|bytes| postcard::from_bytes(bytes).ok());
        let good = marks.filter(|m| m.passes == format!("{passes:?}") && m.trusted_boots == trusted_boots);
        let marks = good.map(|m| m.at.into_iter().map(|(camera, pass, key)| ((camera, pass), key)).collect()).unwrap_or_default();
        let due_wall_ms = Some(i64::MIN);
        let (last, seen, calm_until_ms, more, rows_read) = (None, None, 0, false, 0);
        Self { passes, marks, trusted_boots, due_wall_ms, open_end: true, last, seen, before_ms, calm_until_ms, more, rows_read }
    }

    pub fn save(&self) -> Option<Vec<u8>> {
        let at = self.marks.iter().map(|((camera, pass), key)| (camera.clone(), *pass, *key)).collect();
        postcard::to_stdvec(&Marks { passes: format!("{:?}", self.passes), trusted_boots: self.trusted_boots, at }).ok()
    }

    /// The rules may be others now.
    pub fn configure(&mut self, rules: &Rules, times: &Times) {
        if rules.passes() != self.passes {
            let Self { rows_read, seen, calm_until_ms, .. } = *self;
            *self = Self { rows_read, seen, calm_until_ms, ..Self::new(rules, times, None, self.before_ms) };
        }
    }

    /// Pictures from this one on may be deleted now that could not before.
    pub fn freed(&mut self, oldest: Key) {
        let mut behind = false;
        for mark in self.marks.values_mut().filter(|mark| oldest < **mark) {
            *mark = oldest;
            behind = true;
        }
        if behind || self.open_end {
            self.due_wall_ms = Some(i64::MIN);
        }
    }

    /// Looks whether the clock has leapt. To be told every reading that may decide about a picture.
    pub fn look(&mut self, now: &Reading) {
        if !now.quality.trusted() {
            return;
        }
        let leapt = match &self.seen {
            Some(seen) => seen.offset_ms().abs_diff(now.offset_ms()) > LEAP_MS,
            None => self.before_ms > 0 && now.wall_ms - self.before_ms > OFF_MAX_MS,
        };
        if leapt && !self.passes.is_empty() {
            self.calm_until_ms = now.boottime_ms + CALM_MS;
            tracing::warn!("the clock has leapt to another day: no picture is deleted by age for 24 hours, until it can be relied on");
        }
        self.seen = Some(*now);
    }

    /// When to sweep next, on the boot clock. Never, while the clock is not trusted.
    pub fn wake_ms(&self, now: &Reading) -> Option<u64> {
        if self.passes.is_empty() || !now.quality.trusted() {
            return None;
        }
        if self.more || self.stepped(now) {
            return Some(now.boottime_ms.max(self.calm_until_ms));
        }
        let due = now.boottime_ms.saturating_add(self.due_wall_ms?.saturating_sub(now.wall_ms).max(0).unsigned_abs());
        Some(self.last.map_or(due, |last| due.max(last.boottime_ms + PAUSE_MS)).max(self.calm_until_ms))
    }

    fn stepped(&self, now: &Reading) -> bool {
        self.last.is_some_and(|last| last.offset_ms().abs_diff(now.offset_ms()) > STEP_MS)
    }

    pub fn due(&self, now: &Reading) -> bool {
        self.wake_ms(now).is_some_and(|at| at <= now.boottime_ms)
    }

    /// Chooses what goes; the marks assume that it does.
    pub fn sweep<'c>(
        &mut self,
        index: &Index,
        cameras: impl Iterator<Item = &'c CameraId> + Clone,
        times: &Times,
        now: &Reading,
    ) -> Result<Vec<(Key, &'static str)>, redb::Error> {
        self.look(now);
        if !now.quality.trusted() || now.boottime_ms < self.calm_until_ms {
            return Ok(Vec::new());
        }
        // What the clock called the future may be the past now.
        if self.trusted_boots != times.known_count() || self.stepped(now) {
            self.trusted_boots = times.known_count();
            self.marks.clear();
        }
        (self.more, self.open_end, self.due_wall_ms, self.last) = (false, false, None, Some(*now));
        let (mut chosen, mut gone, mut left) = (Vec::new(), HashSet::new(), READ_MAX);
        for (number, pass) in self.passes.iter().enumerate() {
            let too_young_ms = now.wall_ms.saturating_sub_unsigned(pass.after_ms);
            for camera in cameras.clone() {
                let name = (camera.clone(), number as u8);
                let mut at = self.marks.get(&name).copied().unwrap_or_default();
                let time = |snap: &SnapRow| times.latest_ms(&snap.taken).filter(|t| *t <= now.wall_ms);
                let stretch = |t: i64| pass.leaves.and_then(|grain| grain.stretch(t));
                // The last one that stayed may be the first of a stretch that goes on.
                let mut kept = None;
                if pass.leaves.is_some() && at != Key::default() {
                    self.rows_read += 1;
                    kept = index.free_before(camera, at)?.and_then(|(_, snap)| time(&snap)).and_then(stretch);
                }
                let mut page = 2;
                'camera: loop {
                    let rows = index.free_from(camera, at, page)?;
                    self.rows_read += rows.len() as u64;
                    left = left.saturating_sub(rows.len());
                    let all = rows.len() < page;
                    for (key, snap) in rows {
                        if chosen.len() == SWEEP_MAX {
                            self.more = true;
                            break 'camera;
                        }
                        // What another pass has chosen stands for no stretch.
                        match time(&snap).filter(|_| !gone.contains(&key)) {
                            // Nobody knows when it was taken, or the clock said nonsense then.
                            None => {}
                            Some(t) if t >= too_young_ms => {
                                let due = t.saturating_add_unsigned(pass.after_ms).saturating_add(1);
                                self.due_wall_ms = Some(self.due_wall_ms.map_or(due, |other| other.min(due)));
                                break 'camera;
                            }
                            Some(t) if pass.leaves.is_none() || (kept.is_some() && kept == stretch(t)) => {
                                gone.insert(key);
                                chosen.push((key, pass.why));
                            }
                            Some(t) => kept = stretch(t),
                        }
                        at = (key.0, key.1 + 1);
                    }
                    if all {
                        self.open_end = true;
                        break;
                    }
                    if left == 0 {
                        self.more = true;
                        break;
                    }
                    page = (page * 4).min(64);
                }
                self.marks.insert(name, at);
            }
        }
        Ok(chosen)
    }
}
