//! The index: redb tables, their rows, and the one commit that moves them.
//!
//! Every change to what the node remembers is one [`Change`], applied by one durable commit: rows, outcomes, the pending
//! list, gap messages and the next number together, or none of it. A commit writes about 12 pages of 4 KiB for one picture
//! and little more for eight (measured), so callers gather.
//!
//! redb settings: two-phase commit (on a disk that lies about flushes one-phase refuses to open twice as often), integrity
//! check on open, quick-repair off (it returned silently wrong data on such a disk), small cache (the default grows to 138 MB
//! over 1 M rows).

use crate::model::{BootNo, CameraId, Hash8, Outcome, Quality, ScheduleId, Seq, Slot, SnapshotId, Stamp, StoreId};
use crate::protocol::{self, Gap, GapItem, GapRange};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Version of tables and rows.
pub const FORMAT: u32 = 1;
const CACHE_BYTES: usize = 8 << 20;

/// Place of a snapshot: number of its store's incarnation (the table `stores`), and its own. Order is the order of capture.
pub type Key = (u32, u64);
/// Class (0 on command, 1 scheduled), then [`Key`]: the backlog's order.
pub type PendingKey = (u8, u32, u64);

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const STORES: TableDefinition<u32, u64> = TableDefinition::new("stores");
const SNAPS: TableDefinition<Key, &[u8]> = TableDefinition::new("snapshots");
const BY_CAMERA: TableDefinition<(&str, u32, u64), ()> = TableDefinition::new("by_camera");
const BY_SCHEDULE: TableDefinition<(&str, u32, u64), ()> = TableDefinition::new("by_schedule");
const PENDING: TableDefinition<PendingKey, ()> = TableDefinition::new("pending");
/// Acknowledged pictures of each camera, oldest first: what may be deleted.
const FREE: TableDefinition<(&str, u32, u64), u64> = TableDefinition::new("acknowledged");
const GARBAGE: TableDefinition<&str, ()> = TableDefinition::new("garbage");
const OUTCOMES: TableDefinition<(&str, u32, u64), &[u8]> = TableDefinition::new("outcomes");
const RANGES: TableDefinition<(&str, u32, u64), &[u8]> = TableDefinition::new("ranges");
const CURSORS: TableDefinition<&str, &[u8]> = TableDefinition::new("cursors");
const BOOTS: TableDefinition<u32, &[u8]> = TableDefinition::new("boots");
const GAPS: TableDefinition<u64, &[u8]> = TableDefinition::new("gaps");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapRow {
    pub camera: CameraId,
    pub bytes: u64,
    pub hash8: Hash8,
    /// As the file says; its path follows from camera, number and this.
    pub taken: Stamp,
    pub slots: Vec<Slot>,
    pub width: u32,
    pub height: u32,
    pub source: String,
    pub flags: Vec<String>,
    pub state: SnapState,
    pub commanded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapState {
    /// The hub has not got it yet.
    Pending,
    /// The hub has it (or there is no hub): free to be forgotten.
    Acknowledged,
    /// The file was found damaged; tombstoned.
    Corrupt,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRow {
    pub boot_id: String,
    /// Wall minus boot time as last seen, and how far it can be believed.
    pub offset_ms: i64,
    pub quality: Quality,
    pub first_ms: u64,
    pub last_ms: u64,
}

/// How the agent last ended, as far as the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    Running { boot: BootNo },
    Stopped { boot: BootNo },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub count: u64,
    pub bytes: u64,
    pub pending: u64,
    pub pending_bytes: u64,
}

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
    /// Pictures found damaged, with what was found.
    pub corrupt: Vec<(Key, String)>,
    pub garbage_gone: Vec<PathBuf>,
    /// Planner memory of each schedule, up to its last settled slot; `None` forgets the schedule.
    pub cursors: BTreeMap<ScheduleId, Option<Vec<u8>>>,
    pub boot: Option<(BootNo, BootRow)>,
    pub run: Option<RunState>,
    pub trusted_ms: Option<i64>,
    pub new_store: Option<(u32, StoreId, String)>,
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
            && self.corrupt.is_empty()
            && self.garbage_gone.is_empty()
            && self.cursors.is_empty()
            && self.boot.is_none()
            && self.run.is_none()
            && self.new_store.is_none()
            && self.old_stores.is_empty()
    }
}

/// Which pictures to list; newest first.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub camera: Option<CameraId>,
    pub schedule: Option<ScheduleId>,
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    /// Only pictures older than this one.
    pub before: Option<Key>,
    pub limit: usize,
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

/// A row that cannot be read is damage, whatever redb thinks of its pages.
fn row<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    postcard::from_bytes(bytes).map_err(|e| redb::Error::Corrupted(format!("a row cannot be read: {e}")))
}

fn bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    postcard::to_stdvec(value).map_err(|e| redb::Error::Corrupted(format!("a row cannot be written: {e}")))
}

pub struct Index {
    db: Database,
}

impl Index {
    /// Opens or creates the file, checking all of it.
    pub fn open(path: &Path) -> Result<Self, redb::Error> {
        let db = Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path)?;
        let index = Self { db };
        let txn = index.begin()?;
        create_tables(&txn)?;
        txn.commit()?;
        Ok(index)
    }

    fn begin(&self) -> Result<WriteTransaction, redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(false);
        Ok(txn)
    }

    /// Applies a change durably. `report` makes gap messages for the hub; `store` numbers are taken from and put back to
    /// `counters`.
    /// # Errors
    /// Nothing may be believed to be stored; the caller must not go on.
    pub fn commit(&self, change: &Change, counters: &mut Counters, report: bool) -> Result<(), redb::Error> {
        let txn = self.begin()?;
        let mut next = counters.clone();
        let mut gap = Vec::new();
        if let Some((ord, store, board)) = &change.new_store {
            (next.ord, next.store) = (*ord, *store);
            next.next_gap = renumber_gaps(&txn, *store)?;
            txn.open_table(STORES)?.insert(ord, store.0)?;
            put_meta(&txn, "board", board)?;
            put_meta(&txn, "format", &FORMAT)?;
        }
        for (ord, store) in &change.old_stores {
            txn.open_table(STORES)?.insert(ord, store.0)?;
        }
        apply_snaps(&txn, change, &mut next)?;
        apply_acks(&txn, change, &mut next)?;
        apply_deletes(&txn, change, &mut next, &mut gap)?;
        apply_ledger(&txn, change, &mut gap)?;
        if report {
            for items in Gap::cut(&gap) {
                let message = Gap { v: protocol::VERSION, store: next.store, no: next.next_gap, items: items.to_vec() };
                let json = serde_json::to_vec(&message).map_err(|e| redb::Error::Corrupted(e.to_string()))?;
                txn.open_table(GAPS)?.insert(next.next_gap, json.as_slice())?;
                next.next_gap += 1;
            }
        }
        put_meta(&txn, "next_seq", &next.next_seq)?;
        put_meta(&txn, "next_gap", &next.next_gap)?;
        if let Some(run) = &change.run {
            put_meta(&txn, "run", run)?;
        }
        if let Some(ms) = &change.trusted_ms {
            put_meta(&txn, "trusted_ms", ms)?;
        }
        // In a table of its own each commit would write a page more.
        if next.totals != counters.totals {
            put_meta(&txn, "totals", &next.totals)?;
        }
        txn.commit()?;
        *counters = next;
        Ok(())
    }

    fn read(&self) -> Result<ReadTransaction, redb::Error> {
        Ok(self.db.begin_read()?)
    }

    pub fn meta<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, redb::Error> {
        self.read()?.open_table(META)?.get(key)?.map(|v| row(v.value())).transpose()
    }

    /// All incarnations, by number.
    pub fn stores(&self) -> Result<BTreeMap<u32, StoreId>, redb::Error> {
        self.read()?.open_table(STORES)?.iter()?.map(|e| e.map(|(k, v)| (k.value(), StoreId(v.value()))).map_err(Into::into)).collect()
    }

    pub fn boots(&self) -> Result<BTreeMap<BootNo, BootRow>, redb::Error> {
        let (txn, mut boots) = (self.read()?, BTreeMap::new());
        for entry in txn.open_table(BOOTS)?.iter()? {
            let (no, value) = entry?;
            boots.insert(no.value(), row(value.value())?);
        }
        Ok(boots)
    }

    pub fn cursors(&self) -> Result<BTreeMap<String, Vec<u8>>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(CURSORS)?;
        table.iter()?.map(|e| e.map(|(k, v)| (k.value().to_owned(), v.value().to_vec())).map_err(Into::into)).collect()
    }

    pub fn garbage(&self) -> Result<Vec<PathBuf>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(GARBAGE)?;
        table.iter()?.map(|e| e.map(|(k, _)| PathBuf::from(k.value())).map_err(Into::into)).collect()
    }

    pub fn snap(&self, key: Key) -> Result<Option<SnapRow>, redb::Error> {
        self.read()?.open_table(SNAPS)?.get(key)?.map(|v| row(v.value())).transpose()
    }

    /// Up to `limit` unacknowledged pictures after `after`, in backlog order.
    pub fn pending_after(&self, after: Option<PendingKey>, limit: usize) -> Result<Vec<(PendingKey, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let (pending, snaps) = (txn.open_table(PENDING)?, txn.open_table(SNAPS)?);
        let from = after.map_or((0, 0, 0), |(class, ord, seq)| (class, ord, seq + 1));
        let mut found = Vec::new();
        for entry in pending.range(from..)?.take(limit) {
            let key = entry?.0.value();
            if let Some(value) = snaps.get((key.1, key.2))? {
                found.push((key, row(value.value())?));
            }
        }
        Ok(found)
    }

    /// A camera's pictures from the newest on, as long as `accept` wants more.
    pub fn newest_of(&self, camera: &CameraId, mut accept: impl FnMut(Key, SnapRow) -> bool) -> Result<(), redb::Error> {
        let txn = self.read()?;
        let (by, snaps) = (txn.open_table(BY_CAMERA)?, txn.open_table(SNAPS)?);
        for entry in by.range((camera.as_str(), 0, 0)..=(camera.as_str(), u32::MAX, u64::MAX))?.rev() {
            let (_, ord, seq) = entry?.0.value();
            if let Some(value) = snaps.get((ord, seq))?
                && !accept((ord, seq), row(value.value())?)
            {
                break;
            }
        }
        Ok(())
    }

    pub fn list(&self, query: &Query) -> Result<Vec<(Key, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let snaps = txn.open_table(SNAPS)?;
        let end = query.before.unwrap_or((u32::MAX, u64::MAX));
        let mut found = Vec::new();
        let mut take = |key: Key| -> Result<bool, redb::Error> {
            if let Some(value) = snaps.get(key)? {
                let snap: SnapRow = row(value.value())?;
                let fits = query.camera.as_ref().is_none_or(|c| *c == snap.camera)
                    && query.since_ms.is_none_or(|t| snap.taken.wall_ms >= t)
                    && query.until_ms.is_none_or(|t| snap.taken.wall_ms <= t);
                if fits {
                    found.push((key, snap));
                }
            }
            Ok(found.len() < query.limit)
        };
        let name = query.schedule.as_ref().map(ScheduleId::as_str).or(query.camera.as_ref().map(CameraId::as_str));
        match name {
            Some(name) => {
                let table = if query.schedule.is_some() { txn.open_table(BY_SCHEDULE)? } else { txn.open_table(BY_CAMERA)? };
                for entry in table.range((name, 0, 0)..(name, end.0, end.1))?.rev() {
                    let (_, ord, seq) = entry?.0.value();
                    if !take((ord, seq))? {
                        break;
                    }
                }
            }
            None => {
                let keys = snaps.range(..end)?.rev().map(|e| e.map(|(k, _)| k.value()));
                for key in keys {
                    if !take(key?)? {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    pub fn outcome(&self, schedule: &ScheduleId, boot: BootNo, due_ms: u64) -> Result<Option<Outcome>, redb::Error> {
        self.read()?.open_table(OUTCOMES)?.get((schedule.as_str(), boot, due_ms))?.map(|v| row(v.value())).transpose()
    }

    /// Outcomes of one schedule with `from <= due_ms <= to` in one boot.
    pub fn outcomes(&self, schedule: &ScheduleId, boot: BootNo, from: u64, to: u64) -> Result<Vec<(u64, Outcome)>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(OUTCOMES)?;
        let mut found = Vec::new();
        for entry in table.range((schedule.as_str(), boot, from)..=(schedule.as_str(), boot, to))? {
            let (key, value) = entry?;
            found.push((key.value().2, row(value.value())?));
        }
        Ok(found)
    }

    /// Ranges of one schedule, newest first, as long as `accept` wants more.
    pub fn ranges(&self, schedule: &ScheduleId, mut accept: impl FnMut(GapRange) -> bool) -> Result<(), redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(RANGES)?;
        for entry in table.range((schedule.as_str(), 0, 0)..=(schedule.as_str(), u32::MAX, u64::MAX))?.rev() {
            if !accept(row(entry?.1.value())?) {
                break;
            }
        }
        Ok(())
    }

    pub fn gaps_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
        let txn = self.read()?;
        let table = txn.open_table(GAPS)?;
        table
            .range(after.saturating_add(1)..)?
            .take(limit)
            .map(|e| e.map(|(k, v)| (k.value(), v.value().to_vec())).map_err(Into::into))
            .collect()
    }

    /// The oldest acknowledged picture of a camera.
    pub fn oldest_free(&self, camera: &CameraId, limit: usize) -> Result<Vec<(Key, SnapRow)>, redb::Error> {
        let txn = self.read()?;
        let (free, snaps) = (txn.open_table(FREE)?, txn.open_table(SNAPS)?);
        let mut found = Vec::new();
        for entry in free.range((camera.as_str(), 0, 0)..=(camera.as_str(), u32::MAX, u64::MAX))?.take(limit) {
            let (_, ord, seq) = entry?.0.value();
            if let Some(value) = snaps.get((ord, seq))? {
                found.push(((ord, seq), row(value.value())?));
            }
        }
        Ok(found)
    }
}

fn create_tables(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(META)?;
    txn.open_table(STORES)?;
    txn.open_table(SNAPS)?;
    txn.open_table(BY_CAMERA)?;
    txn.open_table(BY_SCHEDULE)?;
    txn.open_table(PENDING)?;
    txn.open_table(FREE)?;
    txn.open_table(GARBAGE)?;
    txn.open_table(OUTCOMES)?;
    txn.open_table(RANGES)?;
    txn.open_table(CURSORS)?;
    txn.open_table(BOOTS)?;
    txn.open_table(GAPS)?;
    Ok(())
}

fn put_meta<T: Serialize>(txn: &WriteTransaction, key: &str, value: &T) -> Result<(), redb::Error> {
    txn.open_table(META)?.insert(key, bytes(value)?.as_slice())?;
    Ok(())
}

/// Gap messages count from 1 in each incarnation: those that the hub has not confirmed go on under the new store's id.
/// Returns the next free number.
fn renumber_gaps(txn: &WriteTransaction, store: StoreId) -> Result<u64, redb::Error> {
    let mut table = txn.open_table(GAPS)?;
    let old = table.iter()?.map(|e| e.map(|(_, v)| v.value().to_vec())).collect::<Result<Vec<_>, _>>()?;
    table.retain(|_, _| false)?;
    let mut no = 1;
    for json in old {
        let unreadable = |e: serde_json::Error| redb::Error::Corrupted(e.to_string());
        let gap: Gap = serde_json::from_slice(&json).map_err(unreadable)?;
        let json = serde_json::to_vec(&Gap { store, no, ..gap }).map_err(unreadable)?;
        table.insert(no, json.as_slice())?;
        no += 1;
    }
    Ok(no)
}

fn store_names(txn: &WriteTransaction) -> Result<BTreeMap<u32, StoreId>, redb::Error> {
    txn.open_table(STORES)?.iter()?.map(|e| e.map(|(k, v)| (k.value(), StoreId(v.value()))).map_err(Into::into)).collect()
}

fn apply_snaps(txn: &WriteTransaction, change: &Change, next: &mut Counters) -> Result<(), redb::Error> {
    let stores = store_names(txn)?;
    let (mut snaps, mut by_camera) = (txn.open_table(SNAPS)?, txn.open_table(BY_CAMERA)?);
    let (mut by_schedule, mut outcomes) = (txn.open_table(BY_SCHEDULE)?, txn.open_table(OUTCOMES)?);
    let (mut pending, mut free) = (txn.open_table(PENDING)?, txn.open_table(FREE)?);
    for ((ord, seq), snap) in &change.snaps {
        let camera = snap.camera.as_str();
        snaps.insert((*ord, *seq), bytes(snap)?.as_slice())?;
        by_camera.insert((camera, *ord, *seq), ())?;
        let totals = next.totals.entry(snap.camera.clone()).or_default();
        totals.count += 1;
        totals.bytes += snap.bytes;
        match snap.state {
            SnapState::Pending => {
                pending.insert((u8::from(!snap.commanded), *ord, *seq), ())?;
                totals.pending += 1;
                totals.pending_bytes += snap.bytes;
            }
            SnapState::Acknowledged => {
                free.insert((camera, *ord, *seq), snap.bytes)?;
            }
            SnapState::Corrupt => {}
        }
        let id = SnapshotId { store: stores.get(ord).copied().unwrap_or(next.store), seq: Seq(*seq) };
        for slot in &snap.slots {
            by_schedule.insert((slot.schedule.as_str(), *ord, *seq), ())?;
            let key = (slot.schedule.as_str(), slot.boot, slot.due_ms);
            // Nothing replaces captured; a picture replaces any other verdict (an orphan adopted after a crash).
            let taken = outcomes.get(key)?.map(|v| row::<Outcome>(v.value())).transpose()?;
            if !matches!(taken, Some(Outcome::Captured { .. })) {
                let late_ms = snap.taken.boottime_ms.saturating_sub(slot.due_ms);
                outcomes.insert(key, bytes(&Outcome::Captured { id, late_ms })?.as_slice())?;
            }
        }
        next.next_seq = next.next_seq.max(seq + 1);
    }
    Ok(())
}

fn apply_acks(txn: &WriteTransaction, change: &Change, next: &mut Counters) -> Result<(), redb::Error> {
    if !(change.acks.is_empty() && change.wanted.is_empty()) {
        let (mut snaps, mut pending, mut free) = (txn.open_table(SNAPS)?, txn.open_table(PENDING)?, txn.open_table(FREE)?);
        let acked = change.acks.iter().map(|(key, hash)| (key, Some(hash), SnapState::Pending, SnapState::Acknowledged));
        let wanted = change.wanted.iter().map(|key| (key, None, SnapState::Acknowledged, SnapState::Pending));
        for (key, hash, from, to) in acked.chain(wanted) {
            let Some(mut snap) = snaps.get(key)?.map(|v| row::<SnapRow>(v.value())).transpose()? else { continue };
            if snap.state != from || hash.is_some_and(|h| *h != snap.hash8) {
                continue;
            }
            snap.state = to;
            snaps.insert(key, bytes(&snap)?.as_slice())?;
            let totals = next.totals.entry(snap.camera.clone()).or_default();
            let (camera, queued) = ((snap.camera.as_str(), key.0, key.1), (u8::from(!snap.commanded), key.0, key.1));
            if to == SnapState::Acknowledged {
                pending.remove(queued)?;
                free.insert(camera, snap.bytes)?;
                totals.pending = totals.pending.saturating_sub(1);
                totals.pending_bytes = totals.pending_bytes.saturating_sub(snap.bytes);
            } else {
                free.remove(camera)?;
                pending.insert(queued, ())?;
                totals.pending += 1;
                totals.pending_bytes += snap.bytes;
            }
        }
    }
    if change.gaps_acked > 0 {
        txn.open_table(GAPS)?.retain(|no, _| no > change.gaps_acked)?;
    }
    Ok(())
}

fn apply_deletes(txn: &WriteTransaction, change: &Change, next: &mut Counters, gap: &mut Vec<GapItem>) -> Result<(), redb::Error> {
    if change.deletes.is_empty() && change.corrupt.is_empty() && change.garbage_gone.is_empty() {
        return Ok(());
    }
    let stores = store_names(txn)?;
    let (mut snaps, mut by_camera, mut by_schedule) = (txn.open_table(SNAPS)?, txn.open_table(BY_CAMERA)?, txn.open_table(BY_SCHEDULE)?);
    let (mut pending, mut free, mut garbage) = (txn.open_table(PENDING)?, txn.open_table(FREE)?, txn.open_table(GARBAGE)?);
    let gone = change.deletes.iter().map(|(key, reason)| (*key, (*reason).to_owned(), true));
    let damaged = change.corrupt.iter().map(|(key, found)| (*key, found.clone(), false));
    for (key, reason, forget) in gone.chain(damaged) {
        let Some(mut snap) = snaps.get(key)?.map(|v| row::<SnapRow>(v.value())).transpose()? else { continue };
        let camera = snap.camera.clone();
        let totals = next.totals.entry(camera.clone()).or_default();
        if snap.state == SnapState::Pending {
            totals.pending = totals.pending.saturating_sub(1);
            totals.pending_bytes = totals.pending_bytes.saturating_sub(snap.bytes);
            if let Some(store) = stores.get(&key.0) {
                gap.push(GapItem::Tombstone { id: SnapshotId { store: *store, seq: Seq(key.1) }, camera: camera.clone(), reason });
            }
        }
        pending.remove((u8::from(!snap.commanded), key.0, key.1))?;
        free.remove((camera.as_str(), key.0, key.1))?;
        if forget {
            totals.count = totals.count.saturating_sub(1);
            totals.bytes = totals.bytes.saturating_sub(snap.bytes);
            garbage.insert(super::blobs::path_of(&camera, Seq(key.1), &snap.taken).to_string_lossy().as_ref(), ())?;
            by_camera.remove((camera.as_str(), key.0, key.1))?;
            for slot in &snap.slots {
                by_schedule.remove((slot.schedule.as_str(), key.0, key.1))?;
            }
            snaps.remove(key)?;
        } else {
            snap.state = SnapState::Corrupt;
            // A damaged picture may still go when its time comes.
            free.insert((camera.as_str(), key.0, key.1), snap.bytes)?;
            snaps.insert(key, bytes(&snap)?.as_slice())?;
        }
    }
    for path in &change.garbage_gone {
        garbage.remove(path.to_string_lossy().as_ref())?;
    }
    Ok(())
}

fn apply_ledger(txn: &WriteTransaction, change: &Change, gap: &mut Vec<GapItem>) -> Result<(), redb::Error> {
    let mut outcomes = txn.open_table(OUTCOMES)?;
    for (slot, outcome) in &change.outcomes {
        let key = (slot.schedule.as_str(), slot.boot, slot.due_ms);
        if outcomes.get(key)?.is_none() {
            outcomes.insert(key, bytes(outcome)?.as_slice())?;
            gap.push(GapItem::Slot { slot: slot.clone(), outcome: outcome.clone() });
        }
    }
    let mut ranges = txn.open_table(RANGES)?;
    for range in &change.ranges {
        ranges.insert((range.schedule.as_str(), range.from.boot, range.from.due_ms), bytes(range)?.as_slice())?;
        gap.push(GapItem::Range(range.clone()));
    }
    let mut cursors = txn.open_table(CURSORS)?;
    for (schedule, memory) in &change.cursors {
        match memory {
            Some(memory) => cursors.insert(schedule.as_str(), memory.as_slice())?,
            None => cursors.remove(schedule.as_str())?,
        };
    }
    if let Some((no, boot)) = &change.boot {
        txn.open_table(BOOTS)?.insert(no, bytes(boot)?.as_slice())?;
    }
    Ok(())
}
