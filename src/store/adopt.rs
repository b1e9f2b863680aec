//! Pictures that lie on the disk without a row: taken in under their own ids, or put aside with the reason.
//!
//! After a crash that is at most one group, taken in before anything is planned. After an index was lost it is the whole archive:
//! the newest pictures come in at once, the rest in the background from the newest down, a few files whenever the writer has nothing else
//! to do. How far it has got is in the index, so a restart goes on there. The hub is asked about each of them before any is sent.

use super::blobs::Blobs;
use super::files::Files;
use super::index::{Change, Index, Key, SnapRow, SnapState};
use super::path::path_of;
use crate::image::meta::{self, Meta};
use crate::model::{BOOT_MAX, BootNo, Hash8, Priority, QUARANTINE_FILES_MAX, SCHEDULES_MAX, SEQ_BELIEVED_MAX, Seq, StoreId, TIME_MAX_MS};
use crate::protocol::Record;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Number of a first incarnation. Below it there is room for those that the pictures of a lost index name.
pub const FIRST_ORD: u32 = 1 << 16;
/// Pictures taken in by one commit.
pub const ADOPT_MAX: usize = 64;
/// Pictures that a lost index brings back before the agent is ready: enough to tell where numbers and boots had got to.
const AT_ONCE: usize = 64;
/// Files read in one turn of the background work: a picture to be stored waits for no more than that.
const TURN: usize = 4;

/// What stopped an adoption.
pub enum Adopting {
    Disk(io::Error),
    Index(redb::Error),
}

/// Numbers of the incarnations that pictures name.
pub struct Names {
    ords: BTreeMap<StoreId, u32>,
}
impl Names {
    pub fn of(index: &Index) -> Result<Self, redb::Error> {
        Ok(Self { ords: index.stores()?.into_iter().map(|(ord, store)| (store, ord)).collect() })
    }
    /// One that is not known yet is older than all that are: pictures are looked at from the newest down.
    fn ord(&mut self, store: StoreId, change: &mut Change) -> u32 {
        let known = self.ords.values();
        let next = match known.clone().min() {
            None => FIRST_ORD - 1,
            Some(oldest) => oldest.checked_sub(1).or_else(|| known.max().map(|newest| newest + 1)).unwrap_or_default(),
        };
        *self.ords.entry(store).or_insert_with(|| {
            change.old_stores.push((next, store));
            next
        })
    }
}

/// Looks at one file: a whole picture goes into `change` in state `as_state`, anything else to quarantine or is left alone. Returns
/// the boot it names.
fn adopt_one<F: Files>(
    index: &Index,
    blobs: &mut Blobs<F>,
    names: &mut Names,
    (seq, path): (Seq, &Path),
    as_state: SnapState,
    change: &mut Change,
) -> Result<Option<BootNo>, Adopting> {
    let read = blobs.read(path);
    // Deleted since it was listed.
    if matches!(&read, Err(e) if e.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let denied = matches!(&read, Err(e) if e.kind() == io::ErrorKind::PermissionDenied);
    let whole = read.map_err(|e| e.to_string()).and_then(|file| {
        let Meta { record, hash8 } = meta::read(&file).map_err(|e| e.to_string())?;
        Ok((row(&record, file.len() as u64, hash8, as_state), record))
    });
    let (row, record) = match whole {
        Ok(whole) => whole,
        Err(why) if denied || !blobs.is_file(path) => {
            tracing::warn!(path = %path.display(), why, "what is named like a picture, but is no file or belongs to somebody else, is left alone");
            return Ok(None);
        }
        Err(why) => {
            tracing::warn!(path = %path.display(), why, "a file that is not a whole picture goes to quarantine");
            blobs.quarantine(path, QUARANTINE_FILES_MAX).map_err(Adopting::Disk)?;
            return Ok(None);
        }
    };
    let id = record.id;
    if id.seq != seq || path_of(&record.camera, seq, &record.taken) != *path {
        tracing::warn!(path = %path.display(), %id, "a whole picture in a place that is not its own is left alone");
        return Ok(None);
    }
    // Numbers that no agent ever gave would spoil those to come.
    let boots = record.slots.iter().map(|slot| slot.boot).chain([record.taken.boot]);
    let dues = record.slots.iter().map(|slot| slot.due_ms).chain([record.taken.boottime_ms]);
    let walls = record.slots.iter().filter_map(|slot| slot.plan_ms).chain([record.taken.wall_ms]).map(i64::unsigned_abs);
    let forged = boots.max() > Some(BOOT_MAX) || dues.chain(walls).max() > Some(TIME_MAX_MS);
    if forged || record.slots.len() > SCHEDULES_MAX || seq.0 > SEQ_BELIEVED_MAX {
        tracing::warn!(path = %path.display(), %id, "a picture whose record no agent can have written goes to quarantine");
        blobs.quarantine(path, QUARANTINE_FILES_MAX).map_err(Adopting::Disk)?;
        return Ok(None);
    }
    let key: Key = (names.ord(id.store, change), seq.0);
    // There already, if an earlier adoption was cut short.
    if index.snap(key).map_err(Adopting::Index)?.is_none() {
        tracing::debug!(%id, camera = %record.camera, "a picture that was not in the index is taken in");
        change.snaps.push((key, row));
    }
    Ok(Some(record.taken.boot))
}

fn row(record: &Record, bytes: u64, hash8: Hash8, state: SnapState) -> SnapRow {
    let r = record.clone();
    SnapRow {
        camera: r.camera,
        bytes,
        hash8,
        taken: r.taken,
        // What its schedule wished is not in the file: it travels like any other.
        priority: if r.slots.is_empty() { Priority::High } else { Priority::Normal },
        slots: r.slots,
        width: r.width,
        height: r.height,
        source: r.source,
        flags: r.flags,
        state,
    }
}

/// The pictures of a lost index on their way back.
pub struct Rebuild {
    names: Names,
    as_state: SnapState,
    /// Everything from this number on has been looked at.
    below: Seq,
    /// Buckets still to be listed, ascending, and the files of the one at work, ascending.
    buckets: Vec<u64>,
    files: Vec<(Seq, PathBuf)>,
    taken_in: u64,
}

impl Rebuild {
    /// # Errors
    /// The directories cannot be listed, or the index not read.
    pub fn new<F: Files>(index: &Index, blobs: &Blobs<F>, below: Seq, hub: bool) -> Result<Self, Adopting> {
        Ok(Self {
            names: Names::of(index).map_err(Adopting::Index)?,
            as_state: if hub { SnapState::Ask } else { SnapState::Acknowledged },
            below,
            buckets: blobs.buckets(below).map_err(Adopting::Disk)?,
            files: Vec::new(),
            taken_in: 0,
        })
    }

    /// Takes the newest pictures in at once; returns the newest boot that one of them names.
    pub fn begin<F: Files>(&mut self, index: &Index, blobs: &mut Blobs<F>, change: &mut Change) -> Result<Option<BootNo>, Adopting> {
        self.look(AT_ONCE, index, blobs, change)
    }

    /// A little of the rest, into what rides on the next commit. Returns whether all is done.
    pub fn go_on<F: Files>(&mut self, index: &Index, blobs: &mut Blobs<F>, change: &mut Change) -> Result<bool, Adopting> {
        self.look(TURN, index, blobs, change)?;
        let done = self.files.is_empty() && self.buckets.is_empty();
        if done {
            change.rebuild = Some(None);
            tracing::info!(pictures = self.taken_in, "all pictures of the lost index are back");
        }
        Ok(done)
    }

    fn look<F: Files>(
        &mut self,
        files: usize,
        index: &Index,
        blobs: &mut Blobs<F>,
        change: &mut Change,
    ) -> Result<Option<BootNo>, Adopting> {
        let mut newest_boot = None;
        for _ in 0..files {
            while self.files.is_empty()
                && let Some(bucket) = self.buckets.pop()
            {
                self.files = blobs.in_bucket(bucket).map_err(Adopting::Disk)?;
                self.files.retain(|(seq, _)| *seq < self.below);
            }
            let Some((seq, path)) = self.files.pop() else { break };
            let before = change.snaps.len();
            let boot = adopt_one(index, blobs, &mut self.names, (seq, &path), self.as_state, change)?;
            newest_boot = newest_boot.max(boot);
            self.taken_in += (change.snaps.len() - before) as u64;
            self.below = seq;
            change.rebuild = Some(Some(seq.0));
        }
        Ok(newest_boot)
    }
}

/// Takes in what a crash left behind a group: every file from this number on.
pub fn adopt_newest<F: Files>(index: &Index, blobs: &mut Blobs<F>, from: Seq, hub: bool, change: &mut Change) -> Result<(), Adopting> {
    let mut names = Names::of(index).map_err(Adopting::Index)?;
    let as_state = if hub { SnapState::Pending } else { SnapState::Acknowledged };
    for (seq, path) in blobs.scan(from).map_err(Adopting::Disk)? {
        adopt_one(index, blobs, &mut names, (seq, &path), as_state, change)?;
    }
    Ok(())
}

#[cfg(test)]
pub mod tests;
