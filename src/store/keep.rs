//! What goes when pictures must go. Only what the hub has (or all, without a hub) goes by age or size; what it has not got
//! goes only where the owner said `when_full = "drop_oldest"`, and leaves a tombstone.

use super::index::{BootRow, Index, Key, SnapRow, Totals};
use crate::clock::Reading;
use crate::model::{BootNo, CameraId};
use std::collections::{BTreeMap, VecDeque};

/// Pictures deleted by one commit at most.
const SWEEP_MAX: usize = 256;
const PER_CAMERA_MAX: usize = 64;

/// The rules in force.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rules {
    pub age_ms: Option<u64>,
    pub bytes: Option<u64>,
    /// What is not acknowledged may go too: `when_full = "drop_oldest"`, or there is no hub to acknowledge anything.
    pub drop_oldest: bool,
    /// Old pictures make room on a full disk, besides `bytes`. Not without a hub, unless the owner said so: these pictures are
    /// nowhere else.
    pub on_full_disk: bool,
}

/// Pictures to delete with the coming commit, and whether `need` bytes then fit.
pub struct Verdict {
    pub deletes: Vec<(Key, &'static str)>,
    pub fits: bool,
}

/// Decides before a group of `need` bytes is written. `disk_short`: the filesystem has no room for them.
pub fn decide(
    index: &Index,
    totals: &BTreeMap<CameraId, Totals>,
    boots: &BTreeMap<BootNo, BootRow>,
    rules: &Rules,
    now: &Reading,
    need: u64,
    disk_short: bool,
) -> Result<Verdict, redb::Error> {
    let mut oldest: BTreeMap<&CameraId, VecDeque<(Key, SnapRow)>> = BTreeMap::new();
    let mut left: BTreeMap<&CameraId, u64> = totals.iter().map(|(camera, t)| (camera, t.bytes)).collect();
    let mut total: u64 = left.values().sum();
    let mut deletes = Vec::new();
    // On a disk without room for them, the new pictures must replace old ones.
    let limit = rules.bytes.unwrap_or(u64::MAX).min(if disk_short && rules.on_full_disk { total } else { u64::MAX });
    let over = |total: u64| total.saturating_add(need) > limit;
    let by_age = rules.age_ms.filter(|_| now.quality.trusted());
    if !over(total) && by_age.is_none() {
        return Ok(Verdict { deletes, fits: true });
    }
    for camera in totals.keys() {
        oldest.insert(camera, index.oldest_free(camera, PER_CAMERA_MAX)?.into());
    }
    if let Some(age_ms) = by_age {
        let limit = now.wall_ms.saturating_sub_unsigned(age_ms);
        for (camera, queue) in &mut oldest {
            queue.retain(|(key, snap)| {
                let old = true_time_ms(snap, boots).is_some_and(|t| t < limit) && deletes.len() < SWEEP_MAX;
                if old {
                    deletes.push((*key, "older than keep.age"));
                    total = total.saturating_sub(snap.bytes);
                    left.entry(camera).and_modify(|b| *b = b.saturating_sub(snap.bytes));
                }
                !old
            });
        }
    }
    // Fairly: the camera with most bytes gives first.
    while over(total) && deletes.len() < SWEEP_MAX {
        let fattest = left.iter().filter(|(c, _)| oldest.get(*c).is_some_and(|q| !q.is_empty())).max_by_key(|(_, b)| **b);
        let Some(camera) = fattest.map(|(c, _)| *c) else { break };
        let Some((key, snap)) = oldest.get_mut(camera).and_then(VecDeque::pop_front) else { break };
        deletes.push((key, if disk_short { "the disk was full" } else { "keep.bytes reached" }));
        total = total.saturating_sub(snap.bytes);
        left.entry(camera).and_modify(|b| *b = b.saturating_sub(snap.bytes));
    }
    if rules.drop_oldest && over(total) {
        for (key, snap) in index.pending_after(None, SWEEP_MAX - deletes.len())? {
            if !over(total) {
                break;
            }
            deletes.push(((key.1, key.2), "deleted before the hub had it: no room, and when_full = \"drop_oldest\""));
            total = total.saturating_sub(snap.bytes);
        }
    }
    Ok(Verdict { deletes, fits: !over(total) })
}

/// When a picture was taken, if any trusted clock can tell.
pub fn true_time_ms(snap: &SnapRow, boots: &BTreeMap<BootNo, BootRow>) -> Option<i64> {
    if snap.taken.quality.trusted() {
        return Some(snap.taken.wall_ms);
    }
    let boot = boots.get(&snap.taken.boot).filter(|b| b.quality.trusted())?;
    Some(boot.offset_ms + snap.taken.boottime_ms as i64)
}
