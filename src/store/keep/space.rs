//! Who makes room before a group of pictures is written.
//!
//! A function of the index, the rules and what the disk says. It does nothing itself: the writer commits what it chose.

use super::disk::Disk;
use super::rules::Rules;
use crate::config::units::SizeInWords;
use crate::model::{CameraId, SWEEP_MAX};
use crate::store::index::{Index, Key, Totals};
use std::collections::{BTreeMap, HashSet, VecDeque};

/// What is to be written.
#[derive(Debug, Clone, Default)]
pub struct Need {
    /// Bytes and number of pictures, by camera.
    pub cameras: BTreeMap<CameraId, (u64, u64)>,
    /// What was deleted for it already, or is still owed for the one before.
    pub made_bytes: i64,
}

impl Need {
    fn bytes(&self) -> u64 {
        self.cameras.values().map(|(bytes, _)| bytes).sum()
    }
    fn count(&self) -> u64 {
        self.cameras.values().map(|(_, count)| count).sum()
    }
}

pub struct Scene<'a> {
    pub index: &'a Index,
    pub totals: &'a BTreeMap<CameraId, Totals>,
    pub rules: &'a Rules,
    pub disk: Disk,
    /// What of the free space is not for pictures: the index may need it.
    pub held_bytes: u64,
    /// What pictures have given to a disk that others fill, and not got back.
    pub ceded_bytes: u64,
    pub pinned_bytes: u64,
}

/// What goes, and who must wait.
#[derive(Debug, Default)]
pub struct Verdict {
    pub deletes: Vec<(Key, &'static str)>,
    /// Bytes of those that go because the disk is short.
    pub for_the_disk_bytes: u64,
    /// The floor cannot be met: pictures only make room for each other.
    pub one_for_one: bool,
    /// There is more to delete than one commit takes.
    pub more: bool,
    /// The deletions must be done before there is room.
    pub disk_short: bool,
    /// Why no picture is taken.
    pub refused: Option<String>,
    /// Cameras that have their share, with what to say of it.
    pub full: BTreeMap<CameraId, String>,
    /// What something else has done to the disk.
    pub foreign: Option<String>,
    /// Pictures looked at.
    pub rows_read: u64,
}

const UNACKED: &str = "deleted before the hub had it: no room, and when_full = \"drop_oldest\"";
const PAGE_MIN: usize = 4;
const PAGE_MAX: usize = 64;

pub fn decide(scene: &Scene, need: &Need) -> Result<Verdict, redb::Error> {
    let mut made = Verdict::default();
    let mut need = need.clone();
    let mut victims = Victims::new(scene);
    for (camera, quota) in &scene.rules.cameras {
        let (bytes, count) = need.cameras.get(camera).copied().unwrap_or_default();
        let over = |held: &(u64, u64)| {
            quota.bytes.is_some_and(|most| held.0 + bytes > most) || quota.count.is_some_and(|most| held.1 + count > most)
        };
        let only = [camera.clone()];
        if !victims.reduce(&mut made, &only, "the camera has its share", |v| !over(&v.held(camera)))? && count > 0 {
            need.cameras.remove(camera);
            let pins = if scene.pinned_bytes > 0 { ", or is pinned" } else { "" };
            made.full.insert(camera.clone(), format!("its keep_bytes or keep_count is reached, and the hub has not got the rest{pins}"));
        }
    }
    let all: Vec<CameraId> = scene.totals.keys().cloned().collect();
    let (bytes, count) = (need.bytes(), need.count());
    let over_bytes = |v: &Victims| scene.rules.bytes.is_some_and(|most| v.total().0 + bytes > most);
    let over_count = |v: &Victims| scene.rules.count.is_some_and(|most| v.total().1 + count > most);
    let fits = victims.reduce(&mut made, &all, "keep.bytes or keep.count is reached", |v| !over_bytes(v) && !over_count(v))?;
    if !fits && count > 0 {
        let key = if over_bytes(&victims) { "keep.bytes" } else { "keep.count" };
        let pins = if scene.pinned_bytes >= bytes { "; pinned pictures take part of it" } else { "" };
        made.refused = Some(format!("{key} is reached and the hub has not got the rest{pins}"));
    } else if count > 0 {
        room_on_disk(scene, &need, &mut victims, &mut made)?;
    }
    made.rows_read = victims.rows_read;
    Ok(made)
}

/// The disk must have the pictures' bytes, what is held back for the index, and what the owner wants free.
fn room_on_disk(scene: &Scene, need: &Need, victims: &mut Victims, made: &mut Verdict) -> Result<(), redb::Error> {
    let Scene { rules, disk, .. } = scene;
    let (bytes, floor) = (need.bytes(), rules.free_bytes.unwrap_or(0));
    // A picture may need a bucket and its camera's directory besides.
    let files = need.count() * 3;
    let short = |v: &Victims, floor: u64, inodes: u64| {
        let by_bytes = (floor + scene.held_bytes + bytes).saturating_sub(disk.free_bytes + v.freed.0);
        let by_files = disk.free_inodes.map_or(0, |free| (inodes + files).saturating_sub(free + v.freed.1));
        (by_bytes, by_files)
    };
    let floors = |v: &Victims| short(v, floor, rules.free_inodes.unwrap_or(0));
    let bare = |v: &Victims| short(v, 0, 0);
    let (missing, missing_files) = floors(victims);
    if (missing, missing_files) == (0, 0) {
        return Ok(());
    }
    made.disk_short = true;
    let wanted = rules.on_full_disk || rules.free_bytes.is_some() || rules.free_inodes.is_some();
    let all: Vec<CameraId> = scene.totals.keys().cloned().collect();
    let (ours, ours_files) = victims.total();
    // Pictures may give up to half of what they ever had; beyond, they only make room for each other.
    let budget = (ours + bytes).saturating_sub((ours + scene.ceded_bytes) / 2);
    let not_ours = missing > budget || missing_files > ours_files.div_ceil(2) + files;
    let mut done = false;
    if wanted && !not_ours && missing <= victims.may_give() {
        done = victims.reduce_all_or_nothing(made, &all, "the disk was full", |v| floors(v) == (0, 0))?;
    }
    if wanted && !done && missing_files == 0 {
        let before = victims.freed.0;
        // Pictures differ in size: one that is a little smaller will do, and the next one makes up for it.
        let wants = (bytes - bytes / 8) as i64;
        let replaced = |v: &Victims| (v.freed.0 - before) as i64 + need.made_bytes >= wants && bare(v) == (0, 0);
        done = victims.reduce_all_or_nothing(made, &all, "the disk was full", replaced)?;
        made.one_for_one = done;
    }
    if not_ours && (wanted || ours < missing) {
        let held = SizeInWords(ours >> 20 << 20);
        let used = SizeInWords(disk.total_bytes.saturating_sub(disk.free_bytes) >> 20 << 20);
        made.foreign = Some(format!(
            "something other than pictures fills the disk: {used} are used, pictures have {held} of them; \
             they are not deleted any further for it; make room{}",
            if floor > 0 { ", or ask for less with keep.free" } else { "" }
        ));
    }
    if !done {
        let below_floor = bare(victims) == (0, 0);
        made.refused = Some(match (below_floor, scene.pinned_bytes >= missing.max(1)) {
            (_, true) => format!("the disk is full, and pinned pictures hold {} (unpin some)", SizeInWords(scene.pinned_bytes)),
            (true, _) => "less is free than keep.free asks for, and nothing may be deleted for it".to_owned(),
            (false, _) => "the disk is full".to_owned(),
        });
    }
    Ok(())
}

/// The pictures that may go, oldest first, read from the index as they are needed.
struct Victims<'a> {
    scene: &'a Scene<'a>,
    held: BTreeMap<CameraId, (u64, u64)>,
    free: BTreeMap<CameraId, Queue>,
    rest: BTreeMap<CameraId, Queue>,
    taken: HashSet<Key>,
    /// Bytes and number of what was chosen.
    freed: (u64, u64),
    rows_read: u64,
}

#[derive(Default)]
struct Queue {
    rows: VecDeque<(Key, u64)>,
    from: Key,
    page: usize,
    end: bool,
}

impl<'a> Victims<'a> {
    fn new(scene: &'a Scene<'a>) -> Self {
        let held = scene.totals.iter().map(|(camera, t)| (camera.clone(), (t.bytes, t.count))).collect();
        let (free, rest, taken) = Default::default();
        Self { scene, held, free, rest, taken, freed: (0, 0), rows_read: 0 }
    }

    fn held(&self, camera: &CameraId) -> (u64, u64) {
        self.held.get(camera).copied().unwrap_or_default()
    }
    fn total(&self) -> (u64, u64) {
        self.held.values().fold((0, 0), |(b, n), (bytes, count)| (b + bytes, n + count))
    }

    /// About how many bytes could go; what is asked of the hub may be counted though it cannot.
    fn may_give(&self) -> u64 {
        let waits: u64 = if self.scene.rules.drop_oldest { 0 } else { self.scene.totals.values().map(|t| t.pending_bytes).sum() };
        self.total().0.saturating_sub(waits + self.scene.pinned_bytes)
    }

    /// Takes pictures, always from the camera that holds most, until enough are gone. Returns whether they are, or will be with
    /// the next commits.
    fn reduce(
        &mut self,
        made: &mut Verdict,
        cameras: &[CameraId],
        why: &'static str,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<bool, redb::Error> {
        while !enough(self) {
            if made.deletes.len() >= SWEEP_MAX {
                made.more = true;
                return Ok(true);
            }
            let mut fattest: Vec<_> = cameras.iter().map(|camera| (std::cmp::Reverse(self.held(camera).0), camera)).collect();
            fattest.sort();
            let mut found = None;
            for rest in [false, true] {
                if rest && !self.scene.rules.drop_oldest {
                    break;
                }
                for (_, camera) in &fattest {
                    if found.is_none() {
                        found = self.oldest(camera, rest)?.map(|(key, bytes)| (camera, key, bytes, if rest { UNACKED } else { why }));
                    }
                }
            }
            let Some((camera, key, bytes, why)) = found else { return Ok(false) };
            self.taken.insert(key);
            made.deletes.push((key, why));
            self.freed = (self.freed.0 + bytes, self.freed.1 + 1);
            if let Some(held) = self.held.get_mut(*camera) {
                *held = (held.0.saturating_sub(bytes), held.1.saturating_sub(1));
            }
        }
        Ok(true)
    }

    /// The same for the disk's sake. Deleting some where not all is enough would help nobody.
    fn reduce_all_or_nothing(
        &mut self,
        made: &mut Verdict,
        cameras: &[CameraId],
        why: &'static str,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<bool, redb::Error> {
        let (count, freed, held) = (made.deletes.len(), self.freed, self.held.clone());
        let done = self.reduce(made, cameras, why, enough)?;
        if done {
            made.for_the_disk_bytes += self.freed.0 - freed.0;
        } else {
            for (key, _) in made.deletes.drain(count..) {
                self.taken.remove(&key);
            }
            (self.freed, self.held) = (freed, held);
            // They were read past.
            self.free.clear();
            self.rest.clear();
        }
        Ok(done)
    }

    /// A camera's oldest that may be deleted and was not chosen; with `rest`, of those that the hub has not got.
    fn oldest(&mut self, camera: &CameraId, rest: bool) -> Result<Option<(Key, u64)>, redb::Error> {
        let queues = if rest { &mut self.rest } else { &mut self.free };
        let queue = queues.entry(camera.clone()).or_default();
        loop {
            while let Some((key, bytes)) = queue.rows.pop_front() {
                if !self.taken.contains(&key) {
                    return Ok(Some((key, bytes)));
                }
            }
            if queue.end {
                return Ok(None);
            }
            queue.page = (queue.page * 4).clamp(PAGE_MIN, PAGE_MAX);
            let rows: Vec<(Key, u64, bool)> = if rest {
                let rows = self.scene.index.oldest_from(camera, queue.from, queue.page)?;
                rows.into_iter().map(|(key, snap, pinned)| (key, snap.bytes, pinned)).collect()
            } else {
                let rows = self.scene.index.free_from(camera, queue.from, queue.page)?;
                rows.into_iter().map(|(key, snap)| (key, snap.bytes, false)).collect()
            };
            self.rows_read += rows.len() as u64;
            queue.end = rows.len() < queue.page;
            if let Some((key, ..)) = rows.last() {
                queue.from = (key.0, key.1 + 1);
            }
            queue.rows.extend(rows.into_iter().filter(|(_, _, pinned)| !pinned).map(|(key, bytes, _)| (key, bytes)));
        }
    }
}
