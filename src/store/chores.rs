//! What the writer does besides writing: makes room, sweeps, pins and erases.
//!
//! An erasure is durable before it begins, goes on in steps between pictures, and is taken up again after a restart until nothing
//! of the camera is left on the disk: rows, files, files without rows, and what quarantine may hold of it.

use super::handover::{Put, PutError};
use super::index::{Change, Erasure, Key, SnapState};
use super::keep::{self, ByTime, Disk, Need, Scene, Verdict};
use super::recover;
use super::writer::{Answer, Writer};
use crate::clock::Reading;
use crate::config::units::SizeInWords;
use crate::model::{CameraId, PINS_MAX, SWEEP_MAX};
use std::collections::{BTreeMap, BTreeSet};

/// What the self-description adds to a picture, generously.
const HEADER_BYTES: u64 = 2_048;
/// What the index may grow by with one commit, and what is held back for it.
const GROWTH_BYTES: u64 = 1 << 20;
const RESERVE_BYTES: u64 = 8 << 20;
/// Commits of deletions before one group of pictures is written.
const ROUNDS_MAX: usize = 4;

/// What the writer remembers for these.
pub struct Keeper {
    by_time: ByTime,
    /// What pictures have given to a disk that others fill, and not got back.
    ceded_bytes: u64,
    /// What was deleted for pictures one for one, and is more (or less) than they took.
    spare_bytes: i64,
    pinned_count: u64,
    pinned_bytes: u64,
    erasing: BTreeMap<CameraId, Erasure>,
    /// There is more than the last commit took, or the rules have changed.
    more: bool,
    said: BTreeMap<String, String>,
}

impl Keeper {
    pub fn new(by_time: ByTime, pins: &[(Key, u64)], erasures: BTreeMap<CameraId, Erasure>) -> Self {
        let erasing = erasures.into_iter().filter(|(_, e)| !e.done).collect();
        let (pinned_count, pinned_bytes) = (pins.len() as u64, pins.iter().map(|(_, bytes)| bytes).sum());
        Self { by_time, ceded_bytes: 0, spare_bytes: 0, pinned_count, pinned_bytes, erasing, more: true, said: BTreeMap::new() }
    }

    /// Whether there is work that waits for nobody.
    pub fn busy(&self) -> bool {
        self.more || !self.erasing.is_empty()
    }
    /// When there is work by the clock.
    pub fn wake_ms(&mut self, now: &Reading) -> Option<u64> {
        self.by_time.look(now);
        self.by_time.wake_ms(now)
    }
}

impl Writer {
    /// Whether nobody has asked for anything and there is still something to do.
    pub fn chores_due(&self) -> bool {
        self.keeper.busy() || self.keeper.by_time.due(&self.clock.read())
    }

    pub fn configured(&mut self) {
        // Marks of a rule that has changed are dropped, whatever the boots say.
        let times = self.shared.index.times().unwrap_or_default();
        self.keeper.by_time.configure(&self.config.keep, &times);
        self.keeper.more = true;
        // A camera that is no more takes no picture that could end its alarm.
        self.keeper.said.retain(|key, _| !key.starts_with("full "));
        self.show_alarms();
    }

    /// The disk must still be the one that was opened.
    pub fn still_mounted(&self) -> Result<(), String> {
        keep::same_filesystem(&self.dir, &self.shared.lock)
    }

    /// When next to nothing is free, the index gets the space held back for it before it needs it: a commit that fails for want
    /// of a block is a fault.
    pub fn feed_index(&mut self) {
        if self.reserved && Disk::of(&self.dir).is_ok_and(|disk| disk.free_bytes < GROWTH_BYTES) {
            recover::feed_index(&self.dir);
            self.reserved = false;
        }
    }

    /// Makes room for a group. Those that must not be stored are answered; the others come back.
    pub fn admit(&mut self, mut puts: Vec<(Box<Put>, Answer)>, now: &Reading) -> Result<Vec<(Box<Put>, Answer)>, String> {
        self.still_mounted()?;
        // What the hub lost, and what somebody pinned, must not be chosen.
        if !(self.riders.wanted.is_empty() && self.riders.pins.is_empty()) {
            self.commit_riders(now)?;
        }
        let (mut made_bytes, mut verdict) = (self.keeper.spare_bytes, Verdict::default());
        for round in 0..ROUNDS_MAX {
            let mut need = Need { made_bytes, ..Need::default() };
            for (put, _) in &puts {
                let (bytes, count) = need.cameras.entry(put.camera.clone()).or_default();
                (*bytes, *count) = (*bytes + put.jpeg.len() as u64 + HEADER_BYTES, *count + 1);
            }
            verdict = self.decide(&need)?;
            self.alarm("foreign", verdict.foreign.as_deref());
            if (verdict.refused.is_some() || !verdict.full.is_empty()) && !self.riders.acks.is_empty() {
                // What the hub has just acknowledged may make the room.
                self.commit_riders(now)?;
                continue;
            }
            self.riders.deletes.append(&mut verdict.deletes);
            self.keeper.ceded_bytes += verdict.for_the_disk_bytes;
            made_bytes += verdict.for_the_disk_bytes as i64;
            if !(verdict.disk_short && verdict.refused.is_none() && !self.riders.deletes.is_empty() && round + 1 < ROUNDS_MAX) {
                break;
            }
            // The old files must be gone before there is room for the new ones.
            self.commit_riders(now)?;
        }
        self.keeper.more |= verdict.more;
        let short = verdict.refused.is_some();
        self.reserved = self.reserved || (!short && recover::reserve(&self.dir));
        if verdict.refused.is_none() && !self.reserved {
            verdict.refused = Some("the disk is full".to_owned());
        }
        if let Some(why) = &verdict.refused {
            self.say_full(Some(why));
        }
        for camera in puts.iter().map(|(put, _)| put.camera.clone()).collect::<BTreeSet<_>>() {
            let why = verdict.full.get(&camera).map(|why| format!("camera {camera}: no pictures are taken: {why}"));
            self.alarm(&format!("full {camera}"), why.as_deref());
        }
        let waits = |put: &Put| verdict.refused.is_some() || verdict.full.contains_key(&put.camera);
        let (refused, taken): (Vec<_>, Vec<_>) = puts.drain(..).partition(|(put, _)| waits(put));
        for (_, answer) in refused {
            answer(Err(PutError::Full));
        }
        let bytes: u64 = taken.iter().map(|(put, _)| put.jpeg.len() as u64).sum();
        self.keeper.spare_bytes = if verdict.one_for_one { made_bytes - bytes as i64 } else { 0 };
        self.keeper.ceded_bytes = self.keeper.ceded_bytes.saturating_sub(bytes);
        Ok(taken)
    }

    fn decide(&self, need: &Need) -> Result<Verdict, String> {
        let disk = Disk::of(&self.dir).map_err(|e| format!("the disk does not say what room it has: {e}"))?;
        let scene = Scene {
            index: &self.shared.index,
            totals: &self.counters.totals,
            rules: &self.config.keep,
            disk,
            held_bytes: if self.reserved { GROWTH_BYTES } else { RESERVE_BYTES },
            ceded_bytes: self.keeper.ceded_bytes,
            pinned_bytes: self.keeper.pinned_bytes,
        };
        keep::decide(&scene, need).map_err(|e| format!("the index cannot be read: {e}"))
    }

    /// One step of what is due by time, by a rule that has changed, or on request.
    pub fn chores(&mut self, now: &Reading) -> Result<(), String> {
        if !self.chores_due() {
            return Ok(());
        }
        if !(self.riders.wanted.is_empty() && self.riders.pins.is_empty()) {
            self.commit_riders(now)?;
        }
        if let Some(camera) = self.keeper.erasing.keys().next().cloned() {
            self.erase_step(&camera)?;
        }
        if std::mem::take(&mut self.keeper.more) {
            let mut verdict = self.decide(&Need::default())?;
            self.riders.deletes.append(&mut verdict.deletes);
            self.keeper.more = verdict.more;
        }
        if self.keeper.by_time.due(now) {
            let cameras: Vec<CameraId> = self.counters.totals.keys().cloned().collect();
            let index = &self.shared.index;
            let found = index.times().and_then(|times| self.keeper.by_time.sweep(index, cameras.iter(), &times, now));
            let found = found.map_err(|e| format!("the index cannot be read: {e}"))?;
            if !found.is_empty() {
                self.riders.sweep_marks = self.keeper.by_time.save();
                self.riders.deletes.extend(found);
            }
        }
        Ok(())
    }

    /// What a commit has changed for the rules.
    pub fn committed(&mut self, change: &Change) -> Result<(), String> {
        let unhubbed = change.snaps.iter().filter(|(_, snap)| snap.state == SnapState::Acknowledged).map(|(key, _)| *key);
        let unpinned = change.pins.iter().filter(|(_, pin)| !pin).map(|(key, _)| *key);
        let damaged = change.corrupt.iter().map(|(key, _)| *key);
        if let Some(oldest) = change.acks.iter().map(|(key, _)| *key).chain(unhubbed).chain(unpinned).chain(damaged).min() {
            self.keeper.by_time.freed(oldest);
        }
        if !(change.pins.is_empty() && change.erased.is_empty()) {
            let pins = self.shared.index.pins().map_err(|e| format!("the index cannot be read: {e}"))?;
            self.keeper.pinned_count = pins.len() as u64;
            self.keeper.pinned_bytes = pins.iter().map(|(_, bytes)| bytes).sum();
            self.shared.seen().pinned = (self.keeper.pinned_count, self.keeper.pinned_bytes);
        }
        Ok(())
    }

    /// Takes note of a picture to pin, or says why not.
    pub fn pin(&mut self, key: Key, pin: bool) -> Result<(), String> {
        let index_error = |e: redb::Error| format!("the index cannot be read: {e}");
        if pin && !self.shared.index.is_pinned(key).map_err(index_error)? {
            let Some(snap) = self.shared.index.snap(key).map_err(index_error)? else {
                return Err("there is no such picture on this node".to_owned());
            };
            let most = self.config.keep.bytes.or_else(|| Disk::of(&self.dir).ok().map(|disk| disk.total_bytes)).unwrap_or(u64::MAX) / 2;
            if self.keeper.pinned_count >= PINS_MAX {
                return Err(format!("{PINS_MAX} pictures are pinned, which is the most there may be; unpin some"));
            }
            if self.keeper.pinned_bytes + snap.bytes > most {
                let held = SizeInWords(self.keeper.pinned_bytes);
                return Err(format!("pinned pictures hold {held}, and may hold half of the room for pictures at most; unpin some"));
            }
            // Until the commit has counted them.
            (self.keeper.pinned_count, self.keeper.pinned_bytes) = (self.keeper.pinned_count + 1, self.keeper.pinned_bytes + snap.bytes);
        }
        self.riders.pins.push((key, pin));
        Ok(())
    }

    /// Takes note that a camera is to be erased, up to its newest picture now.
    pub fn erase(&mut self, camera: CameraId) -> Erasure {
        let asked_ms = self.clock.read().wall_ms;
        let erasure = Erasure { upto: self.counters.next_seq.saturating_sub(1), asked_ms, removed: 0, done: false };
        tracing::warn!(%camera, "all pictures of this camera are erased, on request");
        self.note_erasure(camera, erasure);
        erasure
    }

    fn note_erasure(&mut self, camera: CameraId, erasure: Erasure) {
        self.riders.erasures.push((camera.clone(), erasure));
        self.shared.seen().erasures.insert(camera.clone(), erasure);
        if erasure.done {
            self.keeper.erasing.remove(&camera);
        } else {
            self.keeper.erasing.insert(camera, erasure);
        }
    }

    /// Rows first, in the order of every deletion; then files that had none.
    fn erase_step(&mut self, camera: &CameraId) -> Result<(), String> {
        let Some(mut erasure) = self.keeper.erasing.get(camera).copied() else { return Ok(()) };
        // The mark itself is still on its way to the disk.
        if self.riders.erasures.iter().any(|(waiting, _)| waiting == camera) {
            return Ok(());
        }
        let keys = self.shared.index.keys_upto(camera, erasure.upto, SWEEP_MAX).map_err(|e| format!("the index cannot be read: {e}"))?;
        erasure.removed += keys.len() as u64;
        if keys.is_empty() {
            let strays = self.blobs.strays(camera, erasure.upto, SWEEP_MAX).map_err(|e| format!("a directory cannot be read: {e}"))?;
            self.blobs.remove(&strays).map_err(|e| format!("a picture cannot be deleted: {e}"))?;
            erasure.removed += strays.len() as u64;
            erasure.done = strays.is_empty();
        }
        if erasure.done {
            tracing::warn!(%camera, removed = erasure.removed, "the camera's pictures are erased");
        }
        self.riders.erased.extend(keys);
        self.note_erasure(camera.clone(), erasure);
        Ok(())
    }

    /// Says a lasting state once when it begins and once when it ends, and shows it in between.
    fn alarm(&mut self, key: &str, words: Option<&str>) {
        match words {
            Some(words) => {
                if self.keeper.said.insert(key.to_owned(), words.to_owned()).is_none() {
                    tracing::error!("{words}");
                }
            }
            None => match self.keeper.said.remove(key) {
                Some(was) => tracing::info!(was, "that is over"),
                None => return,
            },
        }
        self.show_alarms();
    }

    fn show_alarms(&self) {
        self.shared.seen().alarms = self.keeper.said.values().cloned().collect();
    }

    /// Says once that the store is full, and once that it is not any more.
    pub fn say_full(&mut self, why: Option<&str>) {
        let said = self.keeper.said.contains_key("full");
        match why {
            Some(why) => {
                if !said {
                    tracing::error!(
                        why,
                        "the store is full: no pictures are taken until there is room; connect the hub, raise keep.bytes or make room"
                    );
                }
                self.keeper.said.insert("full".to_owned(), format!("no pictures are taken: {why}"));
            }
            None if said => {
                tracing::info!("the store has room again");
                self.keeper.said.remove("full");
            }
            None => return,
        }
        self.show_alarms();
    }
}

#[cfg(test)]
mod tests;
