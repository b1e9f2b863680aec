//! What passes between the callers, the writer and the readers of the store.

use super::device::Device;
use super::index::{Counters, Erasure, Index, Key};
use super::keep::Rules;
use super::written::Days;
use crate::clock;
use crate::model::{BootNo, CameraId, Hash8, NodeId, Priority, Seq, Slot, SnapshotId, StoreId};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::watch;

/// What may change while the store is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Configure {
    pub node: NodeId,
    /// Without a hub every stored picture counts as acknowledged.
    pub hub: bool,
    /// Version of the configuration, for the records.
    pub version: String,
    pub keep: Rules,
    /// How long a picture that nobody waits for may wait for others to share its flushes; a power cut loses those that wait.
    pub window_ms: u64,
}

/// A picture to be stored.
#[derive(Debug)]
pub struct Put {
    pub camera: CameraId,
    /// Empty: taken on command.
    pub slots: Vec<Slot>,
    pub jpeg: Vec<u8>,
    pub width: u32,
    pub height: u32,
    /// CLOCK_BOOTTIME of the frame.
    pub taken_ms: u64,
    pub source: &'static str,
    pub flags: Vec<String>,
    /// One taken on command is always [`Priority::High`].
    pub priority: Priority,
    /// How long it may wait for others, if nobody waits for it; `None`: as [`Configure::window_ms`] says.
    pub window_ms: Option<u64>,
}

/// A picture that survives a power cut from now on.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: SnapshotId,
    pub hash8: Hash8,
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    #[error("the store is full")]
    Full,
    #[error("the picture cannot be stored: {0}")]
    Unusable(String),
    #[error("the store has failed and takes nothing more")]
    Fault,
}

/// The store as its readers see it.
pub struct Shared {
    pub index: Index,
    pub dir: PathBuf,
    pub boot: BootNo,
    /// Held for as long as the store lives; the kernel drops it with the process.
    pub lock: File,
    /// The block device as it was then, if the data directory has one.
    pub disk_at_start: Option<Device>,
    pub seen: Mutex<Seen>,
    /// Counts commits that give the hub something new.
    pub news: watch::Sender<u64>,
    pub fault: watch::Sender<Option<String>>,
    /// Since when the writer is at its present piece of work ([`clock::awake_ms`]); 0 while it waits for one.
    pub busy_since_ms: AtomicU64,
}

/// What readers see of the writer between commits.
pub struct Seen {
    pub counters: Counters,
    pub stores: BTreeMap<u32, StoreId>,
    /// Acknowledged, but not yet committed: not pending any more. With their bytes.
    pub acked: HashMap<Key, u64>,
    /// Erasures asked for, and how far they are.
    pub erasures: BTreeMap<CameraId, Erasure>,
    /// Number and bytes of pinned pictures.
    pub pinned: (u64, u64),
    /// What lasts and somebody should do something about.
    pub alarms: Vec<String>,
    /// The newest gap message a reader may have seen, or that an earlier run may have sent.
    pub gap_shown: u64,
    /// The one that is growing right now: not shown before that is durable.
    pub gap_growing: Option<u64>,
    /// What was written to the disk, as of the last commit.
    pub written: Days,
    pub window_ms: u64,
}

impl Shared {
    /// The writer begins a piece of work, or waits for one.
    pub fn set_busy(&self, busy: bool) {
        self.busy_since_ms.store(if busy { clock::awake_ms().max(1) } else { 0 }, Relaxed);
    }
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
    /// The newest gap message, if nobody has seen it: until the commit is done nobody will.
    pub fn gap_unseen(&self) -> Option<u64> {
        let mut seen = self.seen();
        let last = seen.counters.next_gap - 1;
        seen.gap_growing = (last > seen.gap_shown).then_some(last);
        seen.gap_growing
    }
    /// Up to `limit` gap messages after a number. What they say is final from here on.
    pub fn gaps_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
        let mut seen = self.seen();
        let end = seen.gap_growing.unwrap_or(u64::MAX);
        let mut found = self.index.gaps_after(after, limit)?;
        found.retain(|(no, _)| *no < end);
        seen.gap_shown = found.last().map_or(seen.gap_shown, |(no, _)| seen.gap_shown.max(*no));
        Ok(found)
    }
    /// Shows readers the state after a commit.
    pub fn committed(&self, counters: &Counters, acked: &[Key], told: bool) {
        let mut seen = self.seen();
        seen.counters = counters.clone();
        // Whoever asked meanwhile was not shown it.
        let told = seen.gap_growing.take().is_some() || told;
        for key in acked {
            seen.acked.remove(key);
        }
        drop(seen);
        if told {
            self.news.send_modify(|n| *n += 1);
        }
    }
    pub fn set_fault(&self, fault: String) {
        tracing::error!(fault, "the store has failed; nothing is acknowledged from here on");
        self.fault.send_modify(|f| {
            f.get_or_insert(fault);
        });
    }
}

impl Seen {
    pub fn id(&self, key: Key) -> Option<SnapshotId> {
        Some(SnapshotId { store: *self.stores.get(&key.0)?, seq: Seq(key.1) })
    }
}
