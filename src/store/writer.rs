//! The store writer: the one thread that changes anything on the disk.
//!
//! It takes all that is waiting (at most [`GROUP_MAX`] pictures, [`GROUP_BYTES_MAX`] bytes) whenever it is free: no timer, so a
//! single picture waits for nobody and a busy node shares its flushes. Outcomes and acks ride on the next commit; alone they
//! wait for at most 60 s and 10 s.
//!
//! In the profile `economy` (the store's, or the one that a picture brings along) a picture that nobody waits for is held for
//! others, for the stated time at most. It is not stored until the commit: nobody is told so, its slots stay before the cursor, and
//! a crash finds them there without an outcome. Whatever commits takes all that is held with it: a full group, a snap, an outcome that is due, a sweep, a flush, the ordered stop.
//!
//! After a failed flush or commit nothing is retried and nothing more is acknowledged: the
//! kernel marks pages clean after a failed flush, so a second one that succeeds would prove nothing.

use super::adopt::{ADOPT_MAX, Adopting, Rebuild};
use super::blobs::{Blob, Blobs, WriteError};
use super::chores::Keeper;
use super::handover::{Configure, Put, PutError, Shared, Stored};
use super::index::{Anchors, BootRow, Change, Counters, Erasure, Key, RunState, SnapRow, SnapState, Synced};
use super::ledger::{Ledger, SlotRun, ranges_without};
use super::path::path_of;
use super::recover;
use super::written::Days;
use crate::clock::{Clock, Reading};
use crate::image::meta;
use crate::model::{
    BootNo, CameraId, ECONOMY_GROUP_MAX, GROUP_BYTES_MAX, GROUP_MAX, Hash8, Outcome, Priority, ScheduleId, Seq, Slot, SnapshotId,
};
use crate::protocol::{GapRange, Record, Written, WrittenFor};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::sync::oneshot;

/// Outcomes wait for a picture's commit this long at most, acks that long.
const OUTCOMES_WAIT_MS: u64 = 60_000;
const ACKS_WAIT_MS: u64 = 10_000;
const ACKS_MAX: usize = 32;

/// What is done with a picture's fate, once.
pub type Answer = Box<dyn FnOnce(Result<Stored, PutError>) + Send>;

pub enum Work {
    /// With a sender that is dropped as soon as it is held for a group: nobody waits for its commit.
    Put(Box<Put>, Answer, Option<oneshot::Sender<()>>),
    Fired(Slot, Vec<u8>),
    Outcome(Slot, Outcome),
    Runs(Vec<SlotRun>, Outcome),
    Range(GapRange),
    Cursor(ScheduleId, Option<Vec<u8>>),
    Ack(Vec<(Key, Hash8)>, u64),
    Want(Vec<Key>),
    /// Up to here the hub has all true times, or needs none; whether it has just said so.
    Retimed(Key, bool),
    Corrupt(Key, String),
    /// The hub has answered for all of these.
    Answered(Key, Key),
    /// Pins or unpins a picture; the answer comes at once, and holds with the next commit.
    Pin(Key, bool, oneshot::Sender<Result<(), String>>),
    Erase(CameraId, oneshot::Sender<Erasure>),
    Configure(Configure),
    /// Commits what waits, then answers.
    Flush(oneshot::Sender<()>),
    /// Writes the ordered stop, then ends the thread.
    Stop(oneshot::Sender<()>),
}

pub struct Writer {
    pub shared: Arc<Shared>,
    pub blobs: Blobs,
    pub counters: Counters,
    pub boots: BTreeMap<BootNo, BootRow>,
    pub boot: BootNo,
    /// What they say of time besides.
    pub anchors: Anchors,
    /// This boot's row as the index has it.
    pub boot_written: Option<BootRow>,
    pub clock: Arc<dyn Clock>,
    pub config: Configure,
    pub dir: PathBuf,
    pub ledger: Ledger,
    /// What rides on the next commit, and when it must go alone.
    pub riders: Change,
    pub due_ms: Option<u64>,
    pub keeper: Keeper,
    /// Space is held back so that the index can record why, when nothing else fits. Once it was given free, pictures wait
    /// until there is room for it again: they must not eat what the index needs.
    pub reserved: bool,
    /// The index was lost, and the agent has not put on record yet what it knew: its first flush says that it has.
    pub unaccounted: bool,
    /// Pictures of a lost index that are still to come back.
    pub rebuild: Option<Rebuild>,
    /// Bytes and flushes, day by day.
    pub written: Days,
}

impl Writer {
    pub fn run(mut self, work: &mpsc::Receiver<Work>) {
        let mut stop = None;
        // The group under way, and its bytes.
        let (mut puts, mut bytes) = (Vec::new(), 0);
        // One with a picture that is held may be larger.
        let mut most = GROUP_MAX;
        while stop.is_none() {
            self.shared.set_busy(false);
            let now = self.clock.read();
            let wake_ms = self.due_ms.into_iter().chain(self.keeper.wake_ms(&now)).min();
            let first = match wake_ms {
                // Between two steps of a long piece of work, pictures go first.
                _ if self.keeper.busy() => work.try_recv().map_err(|e| match e {
                    mpsc::TryRecvError::Empty => mpsc::RecvTimeoutError::Timeout,
                    mpsc::TryRecvError::Disconnected => mpsc::RecvTimeoutError::Disconnected,
                }),
                _ if self.rebuild.is_some() => match self.rebuild_while_idle(work) {
                    Ok(first) => first,
                    Err(fault) => {
                        self.shared.set_fault(fault);
                        return;
                    }
                },
                None => work.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(at) => work.recv_timeout(Duration::from_millis(at.saturating_sub(now.boottime_ms))),
            };
            self.shared.set_busy(true);
            let (mut flush, mut held) = (Vec::new(), Vec::new());
            let mut enough = false;
            let mut next = match first {
                Ok(work) => Some(work),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            while let Some(item) = next {
                match item {
                    Work::Put(put, answer, hold) => {
                        bytes += put.jpeg.len();
                        let window_ms = hold.as_ref().map_or(0, |_| put.window_ms.unwrap_or(self.config.window_ms));
                        if window_ms > 0 {
                            most = ECONOMY_GROUP_MAX;
                            self.show_window(window_ms);
                        }
                        puts.push((put, answer));
                        self.due_in(window_ms);
                        #[cfg(feature = "break")]
                        self.break_held(&puts, hold.is_some());
                        held.extend(hold);
                    }
                    // Pictures that are held are among those to be erased: they need their numbers first.
                    Work::Erase(..) if !puts.is_empty() => {
                        (bytes, most) = (0, GROUP_MAX);
                        if let Err(fault) = self.step(std::mem::take(&mut puts)) {
                            self.shared.set_fault(fault);
                            return;
                        }
                        self.ride(item);
                    }
                    Work::Flush(answer) => {
                        if std::mem::take(&mut self.unaccounted) {
                            self.riders.run = Some(RunState::Running { boot: self.boot });
                        }
                        flush.push(answer);
                    }
                    Work::Stop(answer) => {
                        self.riders.run = Some(RunState::Stopped { boot: self.boot });
                        stop = Some(answer);
                    }
                    other => self.ride(other),
                }
                enough = puts.len() >= most || bytes >= GROUP_BYTES_MAX || stop.is_some();
                next = if enough { None } else { work.try_recv().ok() };
            }
            // The first trusted reading of a boot waits for no picture: those before it get their time now.
            let synced = self.clock.read().quality.trusted() && !self.anchors.synced.contains_key(&self.boot);
            let due = synced || self.due_ms.is_some_and(|at| at <= self.clock.boottime_ms());
            if !enough && flush.is_empty() && !due && !self.chores_due() {
                continue;
            }
            (bytes, most) = (0, GROUP_MAX);
            if let Err(fault) = self.step(std::mem::take(&mut puts)) {
                self.shared.set_fault(fault);
                return;
            }
            for answer in flush {
                let _ = answer.send(());
            }
        }
        if let Some(answer) = stop {
            // What came of pictures of the last group that found no room.
            work.try_iter().for_each(|item| self.ride(item));
            match self.commit_riders(&self.clock.read()) {
                Ok(()) => _ = answer.send(()),
                Err(fault) => self.shared.set_fault(fault),
            }
        }
    }

    /// What a power cut may cost, as far as pictures have shown.
    fn show_window(&self, window_ms: u64) {
        let mut seen = self.shared.seen();
        seen.window_ms = seen.window_ms.max(window_ms);
    }

    /// The control: what is held counts as settled, and the cursor passes it before the commit.
    #[cfg(feature = "break")]
    fn break_held(&mut self, puts: &[(Box<Put>, Answer)], held: bool) {
        if held && std::env::var("SHUTTER_BREAK").is_ok_and(|b| b == "held_is_settled") {
            puts.iter().flat_map(|(put, _)| &put.slots).for_each(|slot| self.ledger.settle(slot));
            let (now, due_ms) = (self.clock.read(), self.due_ms);
            let _ = self.commit_riders(&now);
            self.due_ms = due_ms;
        }
    }

    /// Takes pictures of a lost index in until there is something else to do.
    fn rebuild_while_idle(&mut self, work: &mpsc::Receiver<Work>) -> Result<Result<Work, mpsc::RecvTimeoutError>, String> {
        let fault = |e| match e {
            Adopting::Disk(e) => format!("the pictures of the lost index cannot be read: {e}"),
            Adopting::Index(e) => format!("the index cannot be read: {e}"),
        };
        loop {
            match work.try_recv() {
                Ok(work) => return Ok(Ok(work)),
                Err(mpsc::TryRecvError::Disconnected) => return Ok(Err(mpsc::RecvTimeoutError::Disconnected)),
                Err(mpsc::TryRecvError::Empty) => {}
            }
            self.shared.set_busy(true);
            let Some(rebuild) = &mut self.rebuild else { return Ok(Err(mpsc::RecvTimeoutError::Timeout)) };
            let done = rebuild.go_on(&self.shared.index, &mut self.blobs, &mut self.riders).map_err(fault)?;
            if done {
                self.rebuild = None;
            }
            let now_ms = self.clock.boottime_ms();
            if done || self.riders.snaps.len() >= ADOPT_MAX {
                self.due_ms = Some(now_ms);
            }
            if self.due_ms.is_some_and(|at| at <= now_ms) || self.chores_due() {
                return Ok(Err(mpsc::RecvTimeoutError::Timeout));
            }
        }
    }

    /// Takes note of work that needs no commit of its own.
    fn ride(&mut self, work: Work) {
        let wait_ms = match work {
            Work::Fired(slot, memory) => {
                self.ledger.fired(slot, memory);
                return;
            }
            Work::Outcome(slot, outcome) => {
                self.ledger.settle(&slot);
                self.riders.outcomes.push((slot, outcome));
                if self.riders.outcomes.len() >= crate::model::GAP_ITEMS_MAX { 0 } else { OUTCOMES_WAIT_MS }
            }
            Work::Runs(runs, outcome) => {
                for run in runs {
                    let (from, to) = (run.first_due_ms.saturating_sub(run.near_ms), run.last_due_ms() + run.near_ms);
                    let known = self.shared.index.outcomes(&run.schedule, run.boot, from, to);
                    let settled: Vec<u64> = known.map(|k| k.into_iter().map(|(due, _)| due).collect()).unwrap_or_default();
                    self.riders.ranges.extend(ranges_without(&run, &settled, &outcome));
                }
                OUTCOMES_WAIT_MS
            }
            Work::Range(range) => {
                self.riders.ranges.push(range);
                OUTCOMES_WAIT_MS
            }
            Work::Cursor(schedule, memory) => {
                self.ledger.set(schedule, memory);
                OUTCOMES_WAIT_MS
            }
            Work::Ack(keys, gaps) => {
                self.riders.acks.extend(keys);
                self.riders.gaps_acked = self.riders.gaps_acked.max(gaps);
                // The hub acknowledges what a group brought: waiting for the next group saves a commit.
                if self.riders.acks.len() >= ACKS_MAX { 0 } else { ACKS_WAIT_MS.max(self.config.window_ms) }
            }
            Work::Want(keys) => {
                self.riders.wanted.extend(keys);
                0
            }
            Work::Retimed(upto, told) => {
                self.riders.retimed = Some((upto, told || self.riders.retimed.is_some_and(|(_, told)| told)));
                if !told {
                    return;
                }
                OUTCOMES_WAIT_MS
            }
            Work::Corrupt(key, found) => {
                self.riders.corrupt.push((key, found));
                0
            }
            Work::Answered(from, to) => {
                self.riders.answered.push((from, to));
                0
            }
            Work::Pin(key, pin, answer) => {
                let _ = answer.send(self.pin(key, pin));
                0
            }
            Work::Erase(camera, answer) => {
                let _ = answer.send(self.erase(camera));
                0
            }
            Work::Configure(config) => {
                self.config = config;
                self.shared.seen().window_ms = self.config.window_ms;
                self.configured();
                return;
            }
            Work::Put(..) | Work::Flush(_) | Work::Stop(_) => return,
        };
        self.due_in(wait_ms);
    }

    /// A commit is due so soon, or sooner.
    fn due_in(&mut self, wait_ms: u64) {
        let at = self.clock.boottime_ms() + wait_ms;
        self.due_ms = Some(self.due_ms.map_or(at, |due| due.min(at)));
    }

    /// One commit: a group of pictures, if any, with everything that rides along.
    fn step(&mut self, puts: Vec<(Box<Put>, Answer)>) -> Result<(), String> {
        let now = self.clock.read();
        let puts = if puts.is_empty() { puts } else { self.admit(puts, &now)? };
        self.chores(&now)?;
        let mut change = std::mem::take(&mut self.riders);
        let mut answers = Vec::new();
        if !puts.is_empty() {
            self.write_group(puts, &now, &mut change, &mut answers)?;
            if let Err(gone) = self.still_mounted() {
                // They lie on the disk below, where nobody would look for them.
                for (_, stored) in &answers {
                    let _ = std::fs::remove_file(&stored.path);
                }
                return Err(gone);
            }
        }
        self.commit(change, answers, &now)
    }

    /// Commits what rides along, and nothing else.
    pub fn commit_riders(&mut self, now: &Reading) -> Result<(), String> {
        let change = std::mem::take(&mut self.riders);
        self.commit(change, Vec::new(), now)
    }

    fn commit(&mut self, mut change: Change, answers: Vec<(Answer, Stored)>, now: &Reading) -> Result<(), String> {
        change.cursors = self.ledger.take_moved();
        self.note_boot(now, &mut change);
        let acked: Vec<Key> = change.acks.iter().map(|(key, _)| *key).collect();
        let told = !change.snaps.is_empty()
            || !change.outcomes.is_empty()
            || !change.ranges.is_empty()
            || !change.wanted.is_empty()
            || !change.answered.is_empty()
            || !change.erased.is_empty()
            || change.synced.is_some()
            || change.rebuild == Some(None);
        let next_gap = self.counters.next_gap;
        if !change.is_empty() {
            self.count_written(now);
            change.written = self.written.rows().to_vec();
            self.feed_index();
            change.gap_unseen = self.shared.gap_unseen();
            self.shared
                .index
                .commit(&change, &mut self.counters, self.config.hub)
                .map_err(|e| format!("the index cannot be written: {e}"))?;
        } else {
            self.riders.retimed = change.retimed;
        }
        self.due_ms = None;
        // Tombstones too are to be sent.
        let told = told || self.counters.next_gap != next_gap;
        self.count_written(now);
        self.shared.seen().stores.extend(change.old_stores.iter().copied());
        self.shared.committed(&self.counters, &acked, told);
        self.committed(&change)?;
        for (answer, stored) in answers {
            answer(Ok(stored));
        }
        if !(change.deletes.is_empty() && change.erased.is_empty()) {
            let garbage = self.shared.index.garbage().map_err(|e| format!("the index cannot be read: {e}"))?;
            self.blobs.remove(&garbage).map_err(|e| format!("a picture cannot be deleted: {e}"))?;
            // The rows that name them go with the next commit, whenever that is; at a start they are gone through again.
            self.riders.garbage_gone = garbage;
            self.count_written(now);
        }
        Ok(())
    }

    /// Takes note of what was written up to now, and shows it.
    pub fn count_written(&mut self, now: &Reading) {
        let pictures = Written { bytes: self.blobs.counters.bytes, flushes: self.blobs.counters.flushes };
        self.written.count(now, WrittenFor { pictures, index: self.shared.index.written() });
        self.shared.seen().written = self.written.clone();
    }

    fn write_group(
        &mut self,
        puts: Vec<(Box<Put>, Answer)>,
        now: &Reading,
        change: &mut Change,
        answers: &mut Vec<(Answer, Stored)>,
    ) -> Result<(), String> {
        let mut ready = Vec::new();
        for (put, answer) in puts {
            let seq = Seq(self.counters.next_seq);
            self.counters.next_seq += 1;
            let record = self.record(&put, seq, now);
            let blocked = self.blobs.blocked(&path_of(&put.camera, seq, &record.taken));
            match blocked.map_or_else(|| meta::compose(record, &put.jpeg).map_err(|e| e.to_string()), Err) {
                Ok(made) => ready.push((put, answer, seq, made)),
                Err(why) => answer(Err(PutError::Unusable(why))),
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "break")]
        let broken_order = std::env::var("SHUTTER_BREAK").is_ok_and(|b| b == "row_before_file");
        let group: Vec<Blob> = ready
            .iter()
            .map(|(put, _, seq, made)| Blob {
                path: path_of(&put.camera, *seq, &made.record.taken),
                head: &made.head,
                rest: put.jpeg.get(2..).unwrap_or_default(),
            })
            .collect();
        let rows = ready.iter().map(|(put, _, seq, made)| {
            let row = SnapRow {
                camera: put.camera.clone(),
                bytes: (made.head.len() + put.jpeg.len() - 2) as u64,
                hash8: made.hash8,
                taken: made.record.taken,
                slots: put.slots.clone(),
                width: put.width,
                height: put.height,
                source: put.source.to_owned(),
                flags: put.flags.clone(),
                state: if self.config.hub { SnapState::Pending } else { SnapState::Acknowledged },
                priority: if put.slots.is_empty() { Priority::High } else { put.priority },
            };
            ((self.counters.ord, seq.0), row)
        });
        let rows: Vec<_> = rows.collect();
        #[cfg(feature = "break")]
        if broken_order {
            let early = Change { snaps: rows.clone(), ..Change::default() };
            let _ = self.shared.index.commit(&early, &mut self.counters, self.config.hub);
            if self.counters.next_seq.is_multiple_of(5) {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
            }
        }
        match self.blobs.write(&group) {
            Ok(()) => self.say_full(None),
            Err(WriteError::Full(e)) => {
                self.say_full(Some(&format!("the disk is full ({e})")));
                recover::feed_index(&self.dir);
                self.reserved = false;
                for (_, answer, _, _) in ready {
                    answer(Err(PutError::Full));
                }
                return Ok(());
            }
            Err(WriteError::Fault(e)) => return Err(format!("a picture cannot be written: {e}")),
        }
        #[cfg(feature = "break")]
        let rows = if broken_order { Vec::new() } else { rows };
        change.snaps.extend(rows);
        for (put, answer, seq, made) in ready {
            for slot in &put.slots {
                self.ledger.settle(slot);
            }
            let id = SnapshotId { store: self.counters.store, seq };
            answers.push((answer, Stored { id, hash8: made.hash8, path: self.dir.join(path_of(&put.camera, seq, &made.record.taken)) }));
        }
        Ok(())
    }

    fn record(&self, put: &Put, seq: Seq, now: &Reading) -> Record {
        // The frame was taken a moment ago: the same offset holds for it.
        let mut taken = now.stamp(self.boot);
        taken.wall_ms -= now.boottime_ms.saturating_sub(put.taken_ms) as i64;
        taken.boottime_ms = put.taken_ms;
        Record {
            v: crate::protocol::VERSION,
            node: self.config.node.clone(),
            id: SnapshotId { store: self.counters.store, seq },
            camera: put.camera.clone(),
            slots: put.slots.clone(),
            taken,
            width: put.width,
            height: put.height,
            source: put.source.to_owned(),
            flags: put.flags.clone(),
            mask: 0,
            config: self.config.version.clone(),
            sha256: String::new(),
            rev: 0,
            hash8: None,
        }
    }

    fn note_boot(&mut self, now: &Reading, change: &mut Change) {
        change.synced = Synced::first(now, self.boot, &mut self.anchors);
        if let Some(row) = self.boots.get_mut(&self.boot) {
            row.see(now);
            // Rides along with others only: an idle agent writes nothing.
            if !change.is_empty() {
                if self.boot_written.as_ref().is_none_or(|written| row.says_more_than(written)) {
                    self.boot_written = Some(row.clone());
                    change.boot = Some((self.boot, row.clone()));
                }
                change.trusted_ms = now.quality.trusted().then_some(now.wall_ms);
            }
        }
    }
}
