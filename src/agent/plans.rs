//! What the settings mean for planner, cameras and store.

use crate::clock::Reading;
use crate::config::settings::{self, Settings};
use crate::model::CameraId;
use crate::schedule::{Due, Planner};
use crate::store::{Configure, Quota, Rules};

/// Between two pictures of a camera's schedules, at the closest; `None` if it has none.
pub fn interval_ms(settings: &Settings, camera: &CameraId) -> Option<u64> {
    settings.schedules.iter().filter(|s| s.enabled && s.camera == *camera).map(|s| s.rule.shortest_ms()).min()
}

/// What the store is told.
pub fn configure(settings: &Settings) -> Configure {
    let (hub, drop_oldest) = (settings.hub.is_some(), settings.store.when_full == settings::WhenFull::DropOldest);
    let keep = Rules {
        age_ms: settings.keep.age.map(|d| d.as_millis() as u64),
        bytes: settings.keep.bytes,
        count: settings.keep.count,
        cameras: settings.keep.cameras.iter().map(|(id, (bytes, count))| (id.clone(), Quota { bytes: *bytes, count: *count })).collect(),
        free_bytes: settings.keep.free,
        free_inodes: settings.keep.free_inodes,
        thin: settings.keep.thin.clone(),
        drop_oldest: drop_oldest || !hub,
        on_full_disk: drop_oldest || hub,
    };
    let window_ms = settings.store.profile.window_ms();
    Configure { node: settings.node.clone(), hub, version: settings.version.clone(), keep, window_ms }
}

/// The next three slots of a schedule, for `shutterd check`.
pub fn next_slots(schedule: &settings::Schedule, now: &Reading) -> Vec<Due> {
    let mut planner = Planner::new(schedule.rule.clone(), 1, None);
    let (mut now, mut found) = (*now, Vec::new());
    for _ in 0..3 {
        let Some(due) = planner.next(&now).due else { break };
        let _ = planner.fired(due, due.due_ms);
        let passed = due.due_ms - now.boottime_ms;
        now = Reading { boottime_ms: due.due_ms, wall_ms: now.wall_ms + passed as i64, ..now };
        found.push(due);
    }
    found
}
