//! What the agent knows of itself right now: written by the loops, read by uplink, socket and page. Not durable.

use crate::clock;
use crate::model::{CameraId, Session};
use crate::protocol::CameraState;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::watch;

/// A cheap handle; all clones show the same.
#[derive(Clone)]
pub struct Status {
    now: Arc<Mutex<Now>>,
    /// Counts changes, so that a reader can wait for the next one.
    changed: watch::Sender<u64>,
    /// The instant ([`clock::awake_ms`]) by which the uplink turns again at the latest; 0 while there is none.
    uplink_by_ms: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Default)]
pub struct Now {
    pub cameras: BTreeMap<CameraId, CameraState>,
    /// Why there is no store, while there is none.
    pub fault: Option<String>,
    pub config: ConfigOrigin,
    pub uplink: UplinkStatus,
}

/// Which configuration runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConfigOrigin {
    #[default]
    File,
    /// The last accepted one, because the present file has these errors.
    Kept { error: String },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// `off` (no hub section), `connecting`, `online`, `waiting` (connected, but the hub is away).
    pub state: String,
    /// Last reason why the link was lost or could not be made.
    pub error: Option<String>,
    pub session: Option<Session>,
    /// Since the agent started.
    pub connects: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    pub acknowledged: u64,
    /// Acks that named another store, an unknown number or another hash.
    pub acks_ignored: u64,
    /// Pictures the hub would not take; each is offered again.
    #[serde(default)]
    pub refused: u64,
    pub tls_clock: Option<String>,
    pub clone_seen: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self { now: Arc::default(), changed: watch::channel(0).0, uplink_by_ms: Arc::default() }
    }
}

impl Status {
    pub fn read(&self) -> Now {
        self.lock().clone()
    }
    /// Edits what is shown, and wakes those who wait for a change.
    pub fn edit(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.lock());
        self.changed.send_modify(|n| *n += 1);
    }
    /// The uplink is about to wait, for so long at most; `None`: it ends.
    pub fn uplink_waits(&self, at_most: Option<Duration>) {
        let by_ms = at_most.map_or(0, |wait| clock::awake_ms() + wait.as_millis() as u64);
        self.uplink_by_ms.store(by_ms, Relaxed);
    }
    /// By when it has promised to turn.
    pub fn uplink_turns_by_ms(&self) -> Option<u64> {
        Some(self.uplink_by_ms.load(Relaxed)).filter(|by| *by > 0)
    }
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
