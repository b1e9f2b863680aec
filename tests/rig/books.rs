//! Counts what became of every planned picture, from files alone: pictures at the node, pictures and reasons at the hub.
//!
//! Each check returns complaints, so that the same one can be shown to complain of a broken build.

use shutterd::clock::SystemClock;
use shutterd::image::meta::{self, Meta};
use shutterd::model::{Hash8, Outcome, SnapshotId};
use shutterd::protocol::{Gap, GapItem};
use shutterd::store::{Configure, Place, Query, Rules, SnapState, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A grid from boot: slots are all instants of CLOCK_BOOTTIME that leave `phase` when divided by `period`.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub id: String,
    pub camera: String,
    pub period_ms: u64,
    pub phase_ms: u64,
}

impl Schedule {
    pub fn new(id: &str, camera: &str, period_ms: u64, phase_ms: u64) -> Self {
        Self { id: id.into(), camera: camera.into(), period_ms, phase_ms }
    }
    /// The slots in `(from_ms, to_ms]`, by division and nothing else.
    pub fn slots(&self, from_ms: u64, to_ms: u64) -> impl Iterator<Item = u64> + '_ {
        (from_ms + 1..=to_ms).filter(|ms| ms % self.period_ms == self.phase_ms)
    }
}

/// A picture file.
pub struct Picture {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub meta: Meta,
}

impl Picture {
    pub fn key(&self) -> (SnapshotId, Hash8) {
        (self.meta.record.id, self.meta.hash8)
    }
}

/// All files below a directory with this ending.
pub fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All pictures below a directory; a file that does not prove itself whole is a complaint.
pub fn pictures(dir: &Path, complaints: &mut Vec<String>) -> Vec<Picture> {
    let mut found = Vec::new();
    for path in files(dir, ".jpg") {
        let bytes = fs::read(&path).unwrap();
        match meta::read(&bytes) {
            Ok(meta) => found.push(Picture { path, bytes, meta }),
            Err(e) => complaints.push(format!("{}: {e}", path.display())),
        }
    }
    found
}

/// Every picture of the nodes is at the hub exactly once, byte for byte, in its own place; and the hub made none up.
pub fn compare(nodes: &[&[Picture]], hub: &[Picture]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut at_hub: BTreeMap<(SnapshotId, Hash8), Vec<&Picture>> = BTreeMap::new();
    for picture in hub {
        at_hub.entry(picture.key()).or_default().push(picture);
        let (id, hash8) = picture.key();
        if !picture.path.ends_with(format!("img/{}/{}/{}-{hash8}.jpg", picture.meta.record.node, id.store, id.seq)) {
            complaints.push(format!("{} is not where {id} with hash {hash8} belongs", picture.path.display()));
        }
    }
    let mut known = BTreeSet::new();
    for picture in nodes.iter().flat_map(|pictures| pictures.iter()) {
        let (id, hash8) = picture.key();
        known.insert((id, hash8));
        match at_hub.get(&(id, hash8)).map(Vec::as_slice) {
            Some([one]) if one.bytes == picture.bytes => {}
            Some([_]) => complaints.push(format!("{id} differs between {} and the hub", picture.path.display())),
            Some(many) => complaints.push(format!("{id} is at the hub {} times", many.len())),
            None => complaints.push(format!("{} ({id}, hash {hash8}) is not at the hub", picture.path.display())),
        }
    }
    let strangers = at_hub.keys().filter(|key| !known.contains(key));
    complaints.extend(strangers.map(|(id, hash8)| format!("{id} with hash {hash8} is at the hub, but no node has it")));
    complaints
}

/// The index of a stopped agent against its files and the hub's: no row without its whole file, no file without a row,
/// nothing marked acknowledged that the hub has not got. `hub` is `None` for a node without one.
pub fn index(data: &Path, node: &str, hub: Option<&[Picture]>) -> Vec<String> {
    let mut complaints = Vec::new();
    // Listed before the store is opened, which would tidy up.
    let on_disk: BTreeSet<_> = pictures(&data.join("snapshots"), &mut complaints).iter().map(Picture::key).collect();
    let at_hub: Option<BTreeSet<_>> = hub.map(|hub| hub.iter().map(Picture::key).collect());
    let config =
        Configure { node: node.parse().unwrap(), hub: hub.is_some(), version: String::new(), keep: Rules::default(), window_ms: 0 };
    let board = shutterd::config::board_serial().unwrap_or_default();
    let place = Place { dir: data.to_owned(), board, hub: hub.is_some() };
    let boot_id = shutterd::clock::boot_id().unwrap();
    let (store, _) = Store::open(&place, config, Arc::new(SystemClock), &boot_id).unwrap();
    let (mut rows, mut before) = (BTreeSet::new(), None);
    loop {
        let page = store.list(&Query { limit: 500, ..Query::default() }, before).unwrap();
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        for (id, row) in page {
            rows.insert((id, row.hash8));
            if !on_disk.contains(&(id, row.hash8)) {
                complaints.push(format!("the index lists {id} with hash {}, but there is no such file", row.hash8));
            }
            let acknowledged = row.state == SnapState::Acknowledged;
            if acknowledged && at_hub.as_ref().is_some_and(|hub| !hub.contains(&(id, row.hash8))) {
                complaints.push(format!("{id} is marked as acknowledged by the hub, but the hub has not got it"));
            }
        }
    }
    complaints.extend(on_disk.difference(&rows).map(|(id, _)| format!("the file of {id} is in no index")));
    complaints
}

/// Every outcome that the hub knows, by schedule and instant.
#[derive(Default)]
pub struct Ledger {
    pub outcomes: BTreeMap<(String, u64), Vec<String>>,
    /// Gap messages read.
    pub messages: usize,
}

impl Ledger {
    fn add(&mut self, schedule: &str, due_ms: u64, outcome: String) {
        self.outcomes.entry((schedule.to_owned(), due_ms)).or_default().push(outcome);
    }

    /// Reads pictures and gap messages of one node at the hub.
    pub fn at_hub(pictures: &[Picture], objects: &Path, node: &str, schedules: &[Schedule], complaints: &mut Vec<String>) -> Self {
        let mut ledger = Self::default();
        for picture in pictures {
            for slot in &picture.meta.record.slots {
                ledger.add(slot.schedule.as_str(), slot.due_ms, "captured".into());
            }
        }
        for path in files(&objects.join("gap").join(node), ".json") {
            let gap: Gap = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            ledger.messages += 1;
            for item in gap.items {
                match item {
                    GapItem::Slot { slot, outcome } => ledger.add(slot.schedule.as_str(), slot.due_ms, word(&outcome)),
                    GapItem::Range(range) => {
                        let id = range.schedule.as_str();
                        let Some(schedule) = schedules.iter().find(|s| s.id == id) else {
                            complaints.push(format!("{} speaks of the unknown schedule {id}", path.display()));
                            continue;
                        };
                        // So many slots at even distances, the first and the last one named.
                        let span_ms = range.to.due_ms - range.from.due_ms;
                        let step_ms = range.count.and_then(|count| span_ms.checked_div(count - 1)).unwrap_or(schedule.period_ms).max(1);
                        let slots: Vec<u64> = (range.from.due_ms..=range.to.due_ms).step_by(step_ms as usize).collect();
                        let on_grid = slots.iter().all(|due_ms| due_ms % schedule.period_ms == schedule.phase_ms);
                        if range.count != Some(slots.len() as u64) || slots.last() != Some(&range.to.due_ms) || !on_grid {
                            complaints.push(format!("{}: {range:?} does not count its slots right", path.display()));
                        }
                        slots.iter().for_each(|due_ms| ledger.add(id, *due_ms, word(&range.outcome)));
                    }
                    GapItem::Tombstone { id, reason, .. } => complaints.push(format!("{id} was given up: {reason}")),
                }
            }
        }
        ledger
    }

    /// Every slot of `(from_ms, to_ms]` has exactly one outcome, and nothing that is no slot has any.
    pub fn balance(&self, schedules: &[Schedule], from_ms: u64, to_ms: u64) -> Vec<String> {
        let mut complaints = Vec::new();
        for schedule in schedules {
            for due_ms in schedule.slots(from_ms, to_ms) {
                match self.of(schedule, due_ms) {
                    [_] => {}
                    [] => complaints.push(format!("{} at {due_ms} has no outcome", schedule.id)),
                    many => complaints.push(format!("{} at {due_ms} has {} outcomes: {many:?}", schedule.id, many.len())),
                }
            }
        }
        for ((id, due_ms), outcomes) in &self.outcomes {
            let slot = schedules.iter().any(|s| s.id == *id && due_ms % s.period_ms == s.phase_ms);
            if !slot {
                complaints.push(format!("{id} at {due_ms} was never planned, but has {outcomes:?}"));
            }
        }
        complaints
    }

    pub fn of(&self, schedule: &Schedule, due_ms: u64) -> &[String] {
        self.outcomes.get(&(schedule.id.clone(), due_ms)).map_or(&[], Vec::as_slice)
    }
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Captured { .. } => "captured".into(),
        Outcome::Failed { reason } => format!("failed({})", reason.code),
        Outcome::Missed { reason } => format!("missed({})", lower(reason)),
        Outcome::Skipped { reason } => format!("skipped({})", lower(reason)),
        Outcome::Off { reason } => format!("off({})", lower(reason)),
    }
}

fn lower(reason: &impl std::fmt::Debug) -> String {
    format!("{reason:?}").to_lowercase()
}

/// Complaints as the message of a failed test: all if few, else the first and their number.
pub fn told(complaints: &[String]) -> String {
    let first: Vec<_> = complaints.iter().take(20).map(String::as_str).collect();
    let more = complaints.len().saturating_sub(20);
    format!(
        "{} complaints:\n  {}{}",
        complaints.len(),
        first.join("\n  "),
        if more > 0 { format!("\n  … and {more} more") } else { String::new() }
    )
}
