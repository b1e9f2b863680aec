//! What reached the hub, read from its files: the pictures of each camera, and the reasons for slots without one.

use crate::books::files;
use shutterd::clock::Deadline;
use shutterd::image::meta;
use shutterd::model::{Outcome, SnapshotId};
use shutterd::protocol::{Gap, GapItem, Record};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(200);

/// A picture at the hub.
#[derive(Clone)]
pub struct Picture {
    pub path: PathBuf,
    pub record: Record,
}

impl Picture {
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

/// A slot that ended without a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    pub boot: u32,
    pub due_ms: u64,
    pub outcome: Outcome,
}

impl Reason {
    /// `failed(timeout)`, `missed(busy)`, …
    pub fn word(&self) -> String {
        match &self.outcome {
            Outcome::Captured { .. } => "captured".into(),
            Outcome::Failed { reason } => format!("failed({})", reason.code),
            Outcome::Missed { reason } => format!("missed({reason:?})").to_lowercase(),
            Outcome::Skipped { reason } => format!("skipped({reason:?})").to_lowercase(),
            Outcome::Off { reason } => format!("off({reason:?})").to_lowercase(),
        }
    }
    pub fn detail(&self) -> &str {
        match &self.outcome {
            Outcome::Failed { reason } => &reason.detail,
            _ => "",
        }
    }
}

/// The hub's files about one node. Each file is read once.
pub struct Evidence {
    objects: PathBuf,
    node: String,
    pictures: BTreeMap<PathBuf, Picture>,
    pub complaints: Vec<String>,
}

impl Evidence {
    pub fn new(objects: &Path, node: &str) -> Self {
        Self { objects: objects.to_owned(), node: node.to_owned(), pictures: BTreeMap::new(), complaints: Vec::new() }
    }

    fn look(&mut self) {
        for path in files(&self.objects.join("img").join(&self.node), ".jpg") {
            if self.pictures.contains_key(&path) {
                continue;
            }
            match meta::read(&fs::read(&path).unwrap()) {
                Ok(meta) => drop(self.pictures.insert(path.clone(), Picture { path, record: meta.record })),
                Err(e) => self.complaints.push(format!("{}: {e}", path.display())),
            }
        }
    }

    /// All pictures of a camera that were taken in this boot after this instant of it, in the order of their numbers.
    pub fn of(&mut self, camera: &str, boot: u32, after_ms: u64) -> Vec<Picture> {
        self.look();
        let fits =
            |p: &&Picture| p.record.camera.as_str() == camera && p.record.taken.boot == boot && p.record.taken.boottime_ms > after_ms;
        let mut found: Vec<Picture> = self.pictures.values().filter(fits).cloned().collect();
        found.sort_by_key(|p| p.record.id.seq);
        found
    }
    pub fn ids(&mut self) -> Vec<SnapshotId> {
        self.look();
        self.pictures.values().map(|p| p.record.id).collect()
    }

    /// Waits for so many such pictures and returns them.
    pub fn wait(&mut self, what: &str, camera: &str, boot: u32, after_ms: u64, count: usize, at_most: Duration) -> Vec<Picture> {
        let patience = Deadline::after(at_most);
        loop {
            let found = self.of(camera, boot, after_ms);
            if found.len() >= count {
                return found;
            }
            let reasons = self.reasons(camera);
            assert!(
                !patience.passed(),
                "waited {at_most:?} in vain: {what}; the last reasons: {:?}",
                &reasons[reasons.len().saturating_sub(3)..]
            );
            thread::sleep(LOOK);
        }
    }

    /// Slots of a schedule without a picture, as told to the hub, in order. A range gives its first and its last slot.
    pub fn reasons(&self, schedule: &str) -> Vec<Reason> {
        let mut found = Vec::new();
        for path in files(&self.objects.join("gap").join(&self.node), ".json") {
            let gap: Gap = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for item in gap.items {
                match item {
                    GapItem::Slot { slot, outcome } if slot.schedule.as_str() == schedule => {
                        found.push(Reason { boot: slot.boot, due_ms: slot.due_ms, outcome });
                    }
                    GapItem::Range(range) if range.schedule.as_str() == schedule => {
                        for at in [range.from, range.to] {
                            found.push(Reason { boot: at.boot, due_ms: at.due_ms, outcome: range.outcome.clone() });
                        }
                    }
                    _ => {}
                }
            }
        }
        found.sort_by_key(|r| (r.boot, r.due_ms));
        found
    }

    /// Waits for a slot, due in this boot after this instant, that ended without a picture.
    pub fn wait_reason(&mut self, what: &str, schedule: &str, boot: u32, after_ms: u64, at_most: Duration) -> Reason {
        let patience = Deadline::after(at_most);
        loop {
            let found = self.reasons(schedule).into_iter().find(|r| r.boot == boot && r.due_ms > after_ms);
            if let Some(reason) = found {
                return reason;
            }
            assert!(!patience.passed(), "waited {at_most:?} in vain: a reason at the hub for {what}");
            thread::sleep(LOOK);
        }
    }
}
