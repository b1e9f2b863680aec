//! The store: one thread owns index and blobs; everything that outlives a power cut is here, and nothing else remembers.
//!
//! ```text
//! write   open final name O_EXCL -> write -> fdatasync -> fsync new dirs and dir -> commit -> "stored"
//!         several waiting: write all -> syncfs (own mount) or fdatasync each -> one commit
//! economy hold what nobody waits for, up to 60 s, 32 pictures or 4 MiB; any commit takes all of it along, none of it is stored before
//! delete  commit {rows -> garbage, tombstones} -> unlink -> fsync dirs -> garbage dropped by the next commit
//! start   lock -> syncfs (what a killed process left in memory only) -> open the index, checked -> finish garbage
//!         -> adopt whole orphans, quarantine the rest -> plan
//! read    hash checked before every upload; a mismatch is marked, tombstoned and never sent
//! erase   commit {mark} -> steps of: commit {rows -> garbage, tombstones} -> unlink -> ... -> commit {done}; goes on after a restart
//! fault   a failed flush or commit, or another disk under the same path: no retry, no more acks, exit 75
//! ```
//! Readers use the index's own snapshots and never wait for the writer.
//!
//! | promise | test | figure of the short form (`make test`); of the long one (`make soak`) |
//! |---|---|---|
//! | the index opens after any cut with exactly what was acknowledged, also when cut in recovery | `index/tests.rs` | 30,000 crashes, 81 % in flight, 8 % in recovery: 0 lost; an hour |
//! | picture files survive every state that ext4 ordered, f2fs posix and weak POSIX allow after a cut or kill at any step, again in recovery | `recover/tests.rs` | 7,985 + 8,204 + 33,108 states: 0 lost; a third cut, 188,426 states: 0 |
//! | the same on a real ext4 over a volatile cache, torn sectors, half inside a write | `tests/power/cuts.rs` | 10 cuts; 200 cuts, 16,720 acknowledged: 0 lost, 0 wrong, 0 refused to start |
//! | a disk that lies about 30 % of its flushes: starts, and is never silently wrong | `tests/power/cuts.rs` | 10 cuts; 200 cuts: 0 wrong, 0 refused to start, 23 indexes rebuilt |
//! | killed or refused at any system call of a picture's life | `tests/power/points.rs` | 40 points; 249 points: nothing acknowledged lost |
//! | the kernel sees file, name, row and answer in that order | `tests/power/order.rs` | 36 pictures, 12 deletions |
//! | a lost index comes back, and nothing the hub has is sent again | `tests/lost_index.rs` | 5,000 pictures, 1 sent: the one the hub lacked |
//! | what goes was allowed to go; no sweep reads more than it deletes | `keep/tests.rs`, `chores/tests.rs`, `tests/keep.rs` | 800 random stores |
//! | days and ranges say what the slots say | `index/tests.rs` | 200 random ledgers; a dead month is one range |
//! | a picture that has its time keeps it, and the hub is told of that one time until it says that it knows | `index/retime/tests.rs`, `tests/retime.rs` | 48 random lives of a board; the moving offset is found out |
//! | the true time of a picture lies between its bounds | `index/times/tests.rs` | 14 stories, 256 random rows of boots |
//! | every kind of damage is named, and looking changes nothing | `fsck/tests.rs`, `tests/bad_store.rs` | 71 kinds; 100 cut indexes start |
//!
//! Each has its control, a store or an order broken on purpose, which must be found out.

mod adopt;
mod blobs;
mod careful;
mod chores;
mod device;
mod files;
mod findings;
mod fsck;
mod handover;
mod index;
mod keep;
mod ledger;
mod overlay;
mod path;
mod recover;
mod writer;
mod written;

pub use device::life_in_words;
pub use findings::{Check, Findings, grouped};
pub use fsck::{Progress, Rebuilt, Trouble as FsckTrouble, fsck, rebuild, rebuild_in_words};
pub use handover::{Configure, Put, PutError, Stored};
pub use index::answers as disk_answers;
pub use index::{BootRow, DayRow, Erasure, Key, PendingKey, Query, RunState, SnapRow, SnapState, Times, Totals, Untold, WrittenDay};
pub use keep::{Quota, Rules};
pub use ledger::{SlotRun, same_slot_ms};
pub use recover::{OpenError, Place, random_u64};
pub use writer::Answer;

use crate::clock::{Clock, Reading};
use crate::config::settings::Mount;
use crate::image::meta;
use crate::model::{
    ASK_MAX, BootNo, CameraId, Hash8, Outcome, Priority, SLOTS_PER_PICTURE_MAX, STORE_QUEUE_MAX, ScheduleId, Seq, Slot, SnapshotId, StoreId,
};
use crate::protocol::{Flash, FlashDay, GapRange, RETIMED_REV, Record};
use device::Device;
use handover::{Seen, Shared};
use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
};
use tokio::sync::{oneshot, watch};
use writer::{Work, Writer};
use written::Days;

/// Handle to the writer and its index; cheap to clone. The writer ends with [`Store::stop`].
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    work: mpsc::SyncSender<Work>,
}

/// A stored picture that the hub has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub id: SnapshotId,
    pub camera: CameraId,
    pub bytes: u64,
    pub hash8: Hash8,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Fault(String),
}
impl From<redb::Error> for StoreError {
    fn from(e: redb::Error) -> Self {
        Self::Fault(format!("the index cannot be read: {e}"))
    }
}

/// What the past left behind, for the planner.
pub struct Past {
    pub boot: BootNo,
    /// How the last run ended; `None` for a new store.
    pub last_run: Option<RunState>,
    /// Planner memory of each schedule at its last settled slot.
    pub cursors: BTreeMap<ScheduleId, Vec<u8>>,
    pub boots: BTreeMap<BootNo, BootRow>,
    pub last_trusted_ms: i64,
    pub rebuilt: bool,
}

impl Store {
    /// Whether the disk that the owner requires is there. Nothing is made on the one below it.
    /// # Errors
    /// [`OpenError::NotMounted`].
    pub fn require_mount(dir: &Path, mount: Option<&Mount>) -> Result<(), OpenError> {
        mount.map_or(Ok(()), |mount| keep::mounted(dir, mount)).map_err(|at| OpenError::NotMounted { at })
    }

    /// Opens the store and starts its writer thread.
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(place: &Place, config: Configure, clock: Arc<dyn Clock>, boot_id: &str) -> Result<(Self, Past), OpenError> {
        // At the first start the directory is yet to be made.
        let above = place.dir.ancestors().find_map(|dir| std::fs::metadata(dir).ok());
        let disk_at_start = above.and_then(|about| Device::read(Path::new(device::SYS), about.dev()));
        if let Some(alarm) = disk_at_start.as_ref().and_then(Device::alarm) {
            tracing::error!("{alarm}");
        }
        let opened = recover::open(place, &clock.read(), boot_id)?;
        clock.recall(opened.last_trusted_ms, opened.boots.get(&opened.boot).map(|b| (b.offset_ms, b.quality, b.last_ms)));
        let cursors = opened.cursors.into_iter().filter_map(|(id, memory)| Some((id.parse().ok()?, memory))).collect();
        let index_error = |source| OpenError::Index { dir: place.dir.clone(), source };
        let stores = opened.index.stores().map_err(index_error)?;
        let (pins, erasures) = (opened.index.pins().map_err(index_error)?, opened.index.erasures().map_err(index_error)?);
        let marks: Option<Vec<u8>> = opened.index.meta("sweep").map_err(index_error)?;
        let times = opened.index.times().map_err(index_error)?;
        let by_time = keep::ByTime::new(&config.keep, &times, marks.as_deref(), opened.last_trusted_ms);
        let written = opened.index.value("written").map_err(index_error)?.map_or_else(Days::default, Days::new);
        let keeper = chores::Keeper::new(by_time, &pins, erasures.clone());
        let pinned = (pins.len() as u64, pins.iter().map(|(_, bytes)| bytes).sum());
        let seen = Seen {
            counters: opened.counters.clone(),
            stores,
            acked: HashMap::new(),
            erasures,
            pinned,
            alarms: Vec::new(),
            gap_shown: opened.counters.next_gap - 1,
            gap_growing: None,
            written: written.clone(),
            window_ms: config.window_ms,
        };
        let shared = Arc::new(Shared {
            index: opened.index,
            dir: place.dir.clone(),
            boot: opened.boot,
            lock: opened.lock,
            disk_at_start,
            seen: Mutex::new(seen),
            news: watch::channel(0).0,
            fault: watch::channel(None).0,
            busy_since_ms: AtomicU64::new(0),
        });
        let (sender, work) = mpsc::sync_channel(STORE_QUEUE_MAX);
        let mut writer = Writer {
            shared: shared.clone(),
            blobs: opened.blobs,
            counters: opened.counters,
            boots: opened.boots.clone(),
            boot: opened.boot,
            anchors: opened.anchors,
            boot_written: None,
            clock,
            config,
            dir: place.dir.clone(),
            ledger: ledger::Ledger::default(),
            riders: index::Change::default(),
            due_ms: None,
            keeper,
            reserved: opened.reserved,
            unaccounted: opened.rebuilt,
            rebuild: opened.rebuild,
            written,
        };
        writer.count_written(&writer.clock.read());
        let spawned = std::thread::Builder::new().name("store".into()).spawn(move || writer.run(&work));
        spawned.map_err(|source| OpenError::Io { dir: place.dir.clone(), source, hint: "the system has no thread left" })?;
        let past = Past {
            boot: opened.boot,
            last_run: opened.last_run,
            cursors,
            boots: opened.boots,
            last_trusted_ms: opened.last_trusted_ms,
            rebuilt: opened.rebuilt,
        };
        Ok((Self { shared, work: sender }, past))
    }

    /// Stores a picture that somebody waits for; blocks until it is durable. For camera threads, not for the runtime.
    pub fn put(&self, put: Put) -> Result<Stored, PutError> {
        let (answer, stored) = oneshot::channel();
        let done = Box::new(|result| _ = answer.send(result));
        self.work.send(Work::Put(Box::new(put), done, None)).map_err(|_| PutError::Fault)?;
        stored.blocking_recv().unwrap_or(Err(PutError::Fault))
    }
    /// Stores pictures that nobody waits for. Blocks until each is durable, or held by the writer for a group; calls their answers (on
    /// the writer's thread) when they are durable or refused. A store that fails before that calls nobody.
    pub fn hand_over(&self, puts: impl IntoIterator<Item = (Put, Answer)>) {
        let sent = puts.into_iter().filter_map(|(put, done)| {
            let (held, holds) = oneshot::channel();
            self.work.send(Work::Put(Box::new(put), done, Some(held))).ok().map(|()| holds)
        });
        // All of them are sent before the first is waited for: they share their flushes.
        for holds in sent.collect::<Vec<_>>() {
            // Dropped at the end of the writer's turn, whatever came of it.
            let _ = holds.blocking_recv();
        }
    }

    /// A slot was handed to its camera; `memory` is the planner's state right after it. Not durable by itself: a crash
    /// enumerates such slots again from the cursor on.
    pub fn fired(&self, slot: Slot, memory: Vec<u8>) {
        self.send(Work::Fired(slot, memory));
    }
    /// A slot ended without a picture. Durable with the next commit, after 60 s at most.
    pub fn outcome(&self, slot: Slot, outcome: Outcome) {
        self.send(Work::Outcome(slot, outcome));
    }
    /// Slots nobody served; those that have an outcome keep it.
    pub fn runs_without(&self, runs: Vec<SlotRun>, outcome: Outcome) {
        if !runs.is_empty() {
            self.send(Work::Runs(runs, outcome));
        }
    }
    /// An open range, such as off between two boots.
    pub fn range(&self, range: GapRange) {
        self.send(Work::Range(range));
    }
    /// A schedule begins with this planner memory, or (`None`) is no more.
    pub fn cursor(&self, schedule: ScheduleId, memory: Option<Vec<u8>>) {
        self.send(Work::Cursor(schedule, memory));
    }
    pub fn configure(&self, config: Configure) {
        self.send(Work::Configure(config));
    }
    /// Makes all that was sent durable.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (answer, done) = oneshot::channel();
        self.send(Work::Flush(answer));
        done.await.map_err(|_| self.fault_error())
    }
    /// Writes the ordered stop and ends the writer.
    pub async fn stop(&self) -> Result<(), StoreError> {
        let (answer, done) = oneshot::channel();
        self.send(Work::Stop(answer));
        done.await.map_err(|_| self.fault_error())
    }

    /// Never blocks the runtime: a queue that is full means a writer that hangs.
    fn send(&self, work: Work) {
        if let Err(mpsc::TrySendError::Full(_)) = self.work.try_send(work) {
            self.shared.set_fault("the disk has not kept up: 4,096 pieces of work wait for it".into());
        }
    }

    fn fault_error(&self) -> StoreError {
        StoreError::Fault(self.shared.fault.borrow().clone().unwrap_or_else(|| "the store has ended".into()))
    }

    pub fn id(&self) -> StoreId {
        self.shared.seen().counters.store
    }
    pub fn boot(&self) -> BootNo {
        self.shared.boot
    }
    /// `Some` once a flush or commit failed: the process must end with exit code 75.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.shared.fault.subscribe()
    }
    /// Since when the writer is at its present piece of work (instant of `clock::awake_ms`), if it is at one.
    pub fn busy_since_ms(&self) -> Option<u64> {
        Some(self.shared.busy_since_ms.load(Relaxed)).filter(|since| *since > 0)
    }
    /// Changes whenever something new is to be sent.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }

    /// Up to `limit` unacknowledged pictures after `after`, in backlog order (by priority, then oldest first).
    pub fn pending_after(&self, after: Option<PendingKey>, limit: usize) -> Result<Vec<(PendingKey, Pending)>, StoreError> {
        let (mut found, mut from) = (Vec::new(), after);
        // Acks that are not committed yet are skipped, so a page may need several reads.
        while found.len() < limit {
            let page = self.shared.index.pending_after(from, limit)?;
            let Some((last, _)) = page.last() else { break };
            from = Some(*last);
            let short = page.len() < limit;
            let seen = self.shared.seen();
            let open = page.into_iter().filter(|(key, _)| !seen.acked.contains_key(&(key.1, key.2)));
            found.extend(open.filter_map(|(key, row)| Some((key, pending(&seen, (key.1, key.2), row)?))));
            if short {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Pictures that came back after the index was lost, and that the hub is to be asked about before any is sent: one store, from
    /// and to, at most [`ASK_MAX`] of them.
    pub fn to_ask(&self) -> Result<Option<(StoreId, Seq, Seq)>, StoreError> {
        let range = self.shared.index.to_ask(ASK_MAX)?;
        let seen = self.shared.seen();
        Ok(range.and_then(|(from, to)| Some((*seen.stores.get(&from.0)?, Seq(from.1), Seq(to.1)))))
    }
    /// The hub has answered for all of these: what it did not name is sent. Returns when that is durable.
    pub async fn answered(&self, store: StoreId, from: Seq, to: Seq) -> Result<(), StoreError> {
        if let (Some(from), Some(to)) = (self.key(SnapshotId { store, seq: from }), self.key(SnapshotId { store, seq: to })) {
            self.send(Work::Answered(from, to));
        }
        self.flush().await
    }

    /// The newest unacknowledged picture of a camera.
    pub fn newest_pending(&self, camera: &CameraId) -> Result<Option<(PendingKey, Pending)>, StoreError> {
        let (mut newest, mut looked_at) = (None, 0);
        // Only the newest picture can be live: what lies behind an acknowledged one is backlog. One of low priority comes after all
        // others, and so lets those through that were taken with it.
        self.shared.index.newest_of(camera, |key, row| {
            looked_at += 1;
            let low = row.priority == Priority::Low;
            if !low {
                newest = Some((key, row));
            }
            low && looked_at < SLOTS_PER_PICTURE_MAX
        })?;
        let seen = self.shared.seen();
        Ok(newest.filter(|(key, row)| row.state == SnapState::Pending && !seen.acked.contains_key(key)).and_then(|(key, row)| {
            let place = (row.priority.class(), key.0, key.1);
            Some((place, pending(&seen, key, row)?))
        }))
    }

    /// Number and bytes of all unacknowledged pictures.
    pub fn pending_totals(&self) -> (u64, u64) {
        let seen = self.shared.seen();
        let all = seen.counters.totals.values().fold((0, 0), |(n, b), t| (n + t.pending, b + t.pending_bytes));
        (all.0.saturating_sub(seen.acked.len() as u64), all.1.saturating_sub(seen.acked.values().sum()))
    }
    /// Number and bytes of all stored pictures.
    pub fn totals(&self) -> (u64, u64) {
        self.shared.seen().counters.totals.values().fold((0, 0), |(n, b), t| (n + t.count, b + t.bytes))
    }

    /// Number and bytes of pinned pictures.
    pub fn pinned(&self) -> (u64, u64) {
        self.shared.seen().pinned
    }
    /// What lasts and somebody should do something about, in words.
    pub fn alarms(&self) -> Vec<String> {
        let worn = self.shared.disk_at_start.as_ref().and_then(Device::alarm);
        worn.into_iter().chain(self.shared.seen().alarms.clone()).collect()
    }
    /// What was written to the disk, and what the disk says.
    pub fn flash(&self, now: &Reading) -> Flash {
        let disk = self.shared.disk_at_start.as_ref().and_then(|start| {
            let number = self.shared.lock.metadata().ok()?.dev();
            Some(Device::read(Path::new(device::SYS), number)?.since(start))
        });
        let seen = self.shared.seen();
        let loss_window_s = seen.window_ms.div_ceil(1000);
        Flash { loss_window_s, since_start: seen.written.since_start(), today: flash_day(&seen.written.today(now)), disk }
    }
    /// The days on record, the oldest first.
    pub fn flash_days(&self) -> Vec<FlashDay> {
        self.shared.seen().written.rows().iter().map(flash_day).collect()
    }
    pub fn is_pinned(&self, id: SnapshotId) -> Result<bool, StoreError> {
        self.key(id).map_or(Ok(false), |key| Ok(self.shared.index.is_pinned(key)?))
    }
    /// Keeps a picture whatever the rules say, or lets it go again. Durable when it returns.
    /// # Errors
    /// Why it cannot be pinned, in words.
    pub async fn pin(&self, id: SnapshotId, pin: bool) -> Result<Result<(), String>, StoreError> {
        let Some(key) = self.key(id) else { return Ok(Err("there is no such picture on this node".to_owned())) };
        let (answer, verdict) = oneshot::channel();
        self.send(Work::Pin(key, pin, answer));
        let verdict = verdict.await.map_err(|_| self.fault_error())?;
        self.flush().await.map(|()| verdict)
    }
    /// Begins to remove all pictures of a camera there are now. When it returns, that will end whatever happens.
    pub async fn erase(&self, camera: &CameraId) -> Result<Erasure, StoreError> {
        let (answer, begun) = oneshot::channel();
        self.send(Work::Erase(camera.clone(), answer));
        let begun = begun.await.map_err(|_| self.fault_error())?;
        self.flush().await.map(|()| begun)
    }
    /// The last erasure of a camera, under way or done, and what the camera has now (number, bytes).
    pub fn erasure(&self, camera: &CameraId) -> (Option<Erasure>, u64, u64) {
        let seen = self.shared.seen();
        let totals = seen.counters.totals.get(camera).copied().unwrap_or_default();
        (seen.erasures.get(camera).copied(), totals.count, totals.bytes)
    }

    /// The whole file, its hash checked. `Ok(None)`: it is gone, damaged (then it is marked and tombstoned), or
    /// cannot be read right now.
    pub fn read_picture(&self, id: SnapshotId) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(key) = self.key(id) else { return Ok(None) };
        let Some(row) = self.shared.index.snap(key)?.filter(|r| r.state != SnapState::Corrupt) else { return Ok(None) };
        let path = self.path(key, &row);
        // A bad sector may read well the second time.
        let found = match careful::read(&path).or_else(|_| careful::read(&path)) {
            Ok(file) => match meta::read(&file) {
                Ok(meta) if meta.hash8 == row.hash8 => return Ok(Some(file)),
                Ok(_) => "the file holds another picture".to_owned(),
                Err(e) => e.to_string(),
            },
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData)
                    || e.raw_os_error() == Some(libc::EIO) =>
            {
                format!("the file cannot be read: {e}")
            }
            Err(e) => {
                // No descriptor, no memory, no permission: that says nothing of the picture.
                tracing::warn!(%id, error = %e, "a stored picture cannot be read now; it stays where it is");
                return Ok(None);
            }
        };
        // Deleted while we read: its row is gone, and that is no damage.
        if self.shared.index.snap(key)?.is_some() {
            tracing::error!(%id, found, "a stored picture is damaged; it is marked and will not be sent");
            self.send(Work::Corrupt(key, found));
        }
        Ok(None)
    }

    fn path(&self, key: Key, row: &SnapRow) -> PathBuf {
        self.shared.dir.join(path::path_of(&row.camera, Seq(key.1), &row.taken))
    }

    fn key(&self, id: SnapshotId) -> Option<Key> {
        let seen = self.shared.seen();
        seen.stores.iter().find(|(_, store)| **store == id.store).map(|(ord, _)| (*ord, id.seq.0))
    }

    pub fn id_of(&self, key: Key) -> Option<SnapshotId> {
        self.shared.seen().id(key)
    }

    pub fn snap(&self, id: SnapshotId) -> Result<Option<SnapRow>, StoreError> {
        self.key(id).map_or(Ok(None), |key| Ok(self.shared.index.snap(key)?))
    }

    /// Pictures, newest first.
    pub fn list(&self, query: &Query, before: Option<SnapshotId>) -> Result<Vec<(SnapshotId, SnapRow)>, StoreError> {
        let place = before.and_then(|id| self.key(id));
        if place.is_none() && before.is_some() {
            // Not the first page: whoever turns pages would never come to an end.
            return Ok(Vec::new());
        }
        let query = Query { before: place, ..query.clone() };
        let rows = self.shared.index.list(&query)?;
        let seen = self.shared.seen();
        Ok(rows.into_iter().filter_map(|(key, row)| Some((seen.id(key)?, row))).collect())
    }

    pub fn boots(&self) -> Result<BTreeMap<BootNo, BootRow>, StoreError> {
        Ok(self.shared.index.boots()?)
    }
    /// When pictures were taken, as far as is known by now.
    pub fn times(&self) -> Result<Times, StoreError> {
        Ok(self.shared.index.times()?)
    }
    pub fn outcome_of(&self, schedule: &ScheduleId, boot: BootNo, due_ms: u64) -> Result<Option<Outcome>, StoreError> {
        Ok(self.shared.index.outcome(schedule, boot, due_ms)?)
    }
    /// Outcomes of a schedule's slots with `from <= due_ms <= to` in one boot.
    pub fn outcomes(&self, schedule: &ScheduleId, boot: BootNo, from: u64, to: u64) -> Result<Vec<(u64, Outcome)>, StoreError> {
        Ok(self.shared.index.outcomes(schedule, boot, from, to)?)
    }
    /// The nearest captured slot of a boot before an instant, or after it: when it was due.
    pub fn captured_near(&self, schedule: &ScheduleId, boot: BootNo, due_ms: u64, later: bool) -> Result<Option<u64>, StoreError> {
        Ok(self.shared.index.captured_near(schedule, boot, due_ms, later)?)
    }
    /// What became of the slots, per schedule and UTC day since 1970 from this one on; `true` where only an untrusted clock told the
    /// day.
    pub fn days(&self, from_day: i32) -> Result<Vec<(String, bool, i32, DayRow)>, StoreError> {
        Ok(self.shared.index.days(from_day)?)
    }
    /// Ranges of a schedule, newest first, as long as `accept` wants more.
    pub fn ranges(&self, schedule: &ScheduleId, accept: impl FnMut(GapRange) -> bool) -> Result<(), StoreError> {
        Ok(self.shared.index.ranges(schedule, accept)?)
    }
    /// Gap messages with a number above `after`: (number, JSON as it must be published).
    pub fn gaps_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        Ok(self.shared.gaps_after(after, limit)?)
    }

    /// What the hub durably has. Committed after 32, after 10 s or with the next commit; lost ones come again. An ack that
    /// names another store, an unknown number or another hash frees nothing. Returns how many of `have` were accepted, and
    /// how many ignored.
    pub async fn acknowledge(&self, store: StoreId, have: Vec<(Seq, Hash8)>, gaps: u64) -> Result<(u64, u64), StoreError> {
        let (mut accepted, mut ignored) = (Vec::new(), 0);
        for (seq, hash8) in have {
            match self.key(SnapshotId { store, seq }) {
                Some(key) => match self.shared.index.snap(key)?.filter(|row| row.hash8 == hash8) {
                    Some(row) => {
                        accepted.push((key, hash8));
                        if matches!(row.state, SnapState::Pending | SnapState::Ask) {
                            self.shared.seen().acked.insert(key, row.bytes);
                        }
                    }
                    None => ignored += 1,
                },
                None => ignored += 1,
            }
        }
        let own = self.id() == store;
        // A hub cannot have stored gap messages that were never made.
        let gaps = if own && gaps < self.shared.seen().counters.next_gap { gaps } else { 0 };
        let count = accepted.len() as u64;
        if count > 0 || gaps > 0 {
            self.send(Work::Ack(accepted, gaps));
        }
        Ok((count, ignored))
    }

    /// The hub lost these: those we still have become pending again. Returns the oldest place.
    pub async fn want_again(&self, ids: Vec<SnapshotId>) -> Result<Option<Key>, StoreError> {
        let keys: Vec<Key> = ids.into_iter().filter_map(|id| self.key(id)).collect();
        let oldest = keys.iter().min().copied();
        if oldest.is_some() {
            self.send(Work::Want(keys));
        }
        Ok(oldest)
    }

    /// Up to here the hub has every true time that it was not told with the picture, or needs none.
    pub fn retimed(&self) -> Result<Key, StoreError> {
        Ok(self.shared.index.retimed()?)
    }
    /// Pictures behind a place whose time is known now, and was not when they were taken.
    pub fn to_retime(&self, after: Key, rows_max: usize, found_max: usize) -> Result<Untold, StoreError> {
        Ok(self.shared.index.to_retime(after, self.shared.boot, rows_max, found_max)?)
    }
    /// What the hub is to know of such a picture: as the file says, with its true time and the next revision. `None`: it is gone, damaged,
    /// or needs none.
    pub fn retimed_record(&self, key: Key) -> Result<Option<Record>, StoreError> {
        let Some(row) = self.shared.index.snap(key)?.filter(|row| row.state != SnapState::Corrupt) else { return Ok(None) };
        let Some(taken) = self.times()?.corrected(&row.taken) else { return Ok(None) };
        // Nearly every one fits into the first of these.
        let path = self.path(key, &row);
        let head =
            [8 << 10, meta::HEAD_BYTES_MAX].into_iter().find_map(|most| meta::read_head(&careful::read_head(&path, most).ok()?).ok());
        // One that is damaged is found out when somebody wants to see it, or sends it.
        let record = head.filter(|head| head.hash8 == row.hash8).map(|head| head.record);
        Ok(record.map(|record| Record { taken, rev: RETIMED_REV, hash8: Some(row.hash8), ..record }))
    }
    /// The hub has all true times up to here, or (`told` false) they needed none. Durable with the next commit: a place that is lost
    /// only costs telling again.
    pub fn set_retimed(&self, upto: Key, told: bool) {
        self.send(Work::Retimed(upto, told));
    }
}

fn flash_day(row: &WrittenDay) -> FlashDay {
    let date = chrono::NaiveDate::from_epoch_days(row.day);
    FlashDay { day: date.map_or_else(String::new, |date| date.format("%Y-%m-%d").to_string()), unsure: row.unsure, written: row.written }
}

fn pending(seen: &Seen, key: Key, row: SnapRow) -> Option<Pending> {
    Some(Pending { id: seen.id(key)?, camera: row.camera, bytes: row.bytes, hash8: row.hash8 })
}

#[cfg(test)]
mod tests;
