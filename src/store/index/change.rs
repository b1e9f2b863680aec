//! One commit's worth of change.

use super::rows::{BootRow, Built, Erasure, RunState, SnapRow, Synced, Totals, WrittenDay};
use super::tables::Key;
use crate::model::{BootNo, CameraId, Hash8, Outcome, ScheduleId, Slot, StoreId};
use crate::protocol::GapRange;
use std::{collections::BTreeMap, path::PathBuf};

/// One commit's worth of change. Empty fields change nothing.
#[derive(Debug, Default)]
pub struct Change {
    pub snaps: Vec<(Key, SnapRow)>,
    /// Incarnations found in files, by number.
    pub old_stores: Vec<(u32, StoreId)>,
    pub outcomes: Vec<(Slot, Outcome)>,
    pub ranges: Vec<GapRange>,
    pub acks: Vec<(Key, Hash8)>,
    /// Gap messages up to this number are at the hub.
    pub gaps_acked: u64,
    /// Acknowledged pictures that the hub lost.
    pub wanted: Vec<Key>,
    /// Pictures to forget; those the hub has not got leave a tombstone with this reason.
    pub deletes: Vec<(Key, &'static str)>,
    /// Pictures to pin (`true`) or to let go.
    pub pins: Vec<(Key, bool)>,
    /// Pictures to forget on request, pinned or not.
    pub erased: Vec<Key>,
    pub erasures: Vec<(CameraId, Erasure)>,
    /// Where the sweeps by time have got to. Rides along: by itself it changes nothing.
    pub sweep_marks: Option<Vec<u8>>,
    /// What was written to the disk day by day, the newest last. Rides along too: an idle agent writes nothing.
    pub written: Vec<WrittenDay>,
    /// Pictures found damaged, with what was found.
    pub corrupt: Vec<(Key, String)>,
    pub garbage_gone: Vec<PathBuf>,
    /// Planner memory of each schedule, up to its last settled slot; `None` forgets the schedule.
    pub cursors: BTreeMap<ScheduleId, Option<Vec<u8>>>,
    pub boot: Option<(BootNo, BootRow)>,
    /// The first trusted reading of a boot. One that the index has already stays.
    pub synced: Option<(BootNo, Synced)>,
    pub built: Option<(BootNo, Built)>,
    /// All pictures up to here have their true time at the hub, or need not; whether the hub has just said so. What was only passed over
    /// rides along.
    pub retimed: Option<(Key, bool)>,
    pub run: Option<RunState>,
    pub trusted_ms: Option<i64>,
    /// The pictures of a lost index: `Some(Some(n))`, those from number n on are back; `Some(None)`, all are.
    pub rebuild: Option<Option<u64>>,
    /// The hub has said all it has of these (both ends included): what it did not name has to be sent.
    pub answered: Vec<(Key, Key)>,
    pub new_store: Option<(u32, StoreId, String)>,
    /// A gap message that nobody has read yet: it may still grow.
    pub gap_unseen: Option<u64>,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.snaps.is_empty()
            && self.outcomes.is_empty()
            && self.ranges.is_empty()
            && self.acks.is_empty()
            && self.gaps_acked == 0
            && self.wanted.is_empty()
            && self.deletes.is_empty()
            && self.pins.is_empty()
            && self.erased.is_empty()
            && self.erasures.is_empty()
            && self.corrupt.is_empty()
            && self.garbage_gone.is_empty()
            && self.cursors.is_empty()
            && self.boot.is_none()
            && self.synced.is_none()
            && self.built.is_none()
            && !self.retimed.is_some_and(|(_, told)| told)
            && self.run.is_none()
            && self.new_store.is_none()
            && self.old_stores.is_empty()
            && self.rebuild.is_none()
            && self.answered.is_empty()
    }
}

/// What the writer keeps in RAM between commits.
#[derive(Debug, Clone)]
pub struct Counters {
    pub ord: u32,
    pub store: StoreId,
    pub next_seq: u64,
    pub next_gap: u64,
    pub totals: BTreeMap<CameraId, Totals>,
}
