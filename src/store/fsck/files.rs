//! Whether each row has its whole file, and each file its row.

use super::progress::Progress;
use crate::image::meta::{self, Meta};
use crate::model::{BUCKET, CameraId, QUARANTINE_FILES_MAX, Seq, SnapshotId};
use crate::store::careful;
use crate::store::findings::Check;
use crate::store::fsck::rows::Rows;
use crate::store::index::tables::{GARBAGE, Key, SNAPS};
use crate::store::index::{Index, SnapRow, SnapState, row};
use crate::store::path::{SNAPSHOTS, path_of, seq_of};
use redb::{ReadableTable, ReadableTableMetadata};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub const QUARANTINE: &str = "quarantine";

/// The files of a data directory under examination.
pub struct Files<'a> {
    pub dir: &'a Path,
    pub disk_failed: bool,
    pub odd: Check,
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Files with a number of ours, in the places where pictures lie.
pub fn count(dir: &Path) -> io::Result<u64> {
    let mut count = 0;
    for camera in entries(&dir.join(SNAPSHOTS))?.iter().filter(|path| careful::is_dir(path)) {
        for bucket in entries(camera)?.iter().filter(|path| careful::is_dir(path)) {
            let named = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).and_then(seq_of).is_some();
            count += entries(bucket)?.iter().filter(|path| named(path) && careful::is_file(path)).count() as u64;
        }
    }
    Ok(count)
}

impl<'a> Files<'a> {
    pub fn new(dir: &'a Path) -> Self {
        Self { dir, disk_failed: false, odd: Check::new("files and directories", "all of the right owner and kind") }
    }

    fn failed(&mut self, e: &io::Error) {
        self.disk_failed |= e.raw_os_error() == Some(libc::EIO);
    }

    /// Every row's file: there, of its length, and the very picture.
    pub fn of_rows(&mut self, rows: &Rows, progress: &mut Progress) -> Result<Check, redb::Error> {
        let mut check = Check::new("pictures", "all whole");
        let mut known_damaged = 0;
        let txn = rows.index.read()?;
        let snaps = txn.open_table(SNAPS)?;
        let of = snaps.len()?;
        for entry in snaps.iter()? {
            let (key, value) = entry?;
            let Ok(snap) = row::<SnapRow>(value.value()) else { continue };
            check.count += 1;
            progress.at("pictures", check.count, of);
            if snap.state == SnapState::Corrupt {
                known_damaged += 1;
                continue;
            }
            let seq = Seq(key.value().1);
            let path = path_of(&snap.camera, seq, &snap.taken);
            let name =
                rows.stores.get(&key.value().0).map_or_else(|| seq.to_string(), |store| SnapshotId { store: *store, seq }.to_string());
            match self.judge(&path, &snap, &name) {
                Ok(()) => {}
                Err(why) => check.problem(format!("{name}: {why} ({})", path.display())),
            }
        }
        if known_damaged > 0 {
            check.note(format!("{known_damaged} of them are known to be damaged and were reported to the hub"));
        }
        Ok(check)
    }

    fn judge(&mut self, path: &Path, snap: &SnapRow, id: &str) -> Result<(), String> {
        let bytes = match careful::read(&self.dir.join(path)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err("its file is gone: the agent will report it as lost".into()),
            Err(e) => {
                self.failed(&e);
                return Err(format!("its file cannot be read: {e}"));
            }
        };
        if bytes.len() as u64 != snap.bytes {
            return Err(format!("its file has {} bytes, {} were stored: the agent will report it as damaged", bytes.len(), snap.bytes));
        }
        let Meta { record, hash8 } = meta::read(&bytes).map_err(|e| format!("{e}: the agent will report it as damaged"))?;
        let said = record.id.to_string();
        if said != id || record.camera != snap.camera {
            return Err(format!("its file is picture {said} of camera {}: the agent will report it as damaged", record.camera));
        }
        if hash8 != snap.hash8 {
            return Err("its file is whole but is not the picture that was stored: the agent will report it as damaged".into());
        }
        Ok(())
    }

    /// Every file that lies where pictures lie: one with a row, or what to make of it.
    pub fn of_directories(&mut self, rows: Option<&Rows>, progress: &mut Progress) -> Result<Check, redb::Error> {
        let mut check = Check::new("files of pictures", "all of them have a row");
        if rows.is_none() {
            check = Check::new("files of pictures", "all whole, and none has a row without an index");
        }
        let rebuild = rows.map(|rows| rows.index.meta::<Option<u64>>("rebuild")).transpose()?.flatten().flatten();
        if let Some(below) = rebuild {
            check.note(format!("the pictures of a lost index are still coming back, from number {below} down; the agent goes on with it"));
        }
        for camera in self.list(&PathBuf::from(SNAPSHOTS), &mut check) {
            let known = camera.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.parse::<CameraId>().is_ok());
            if !self.is_our_dir(&camera, known) {
                continue;
            }
            for bucket in self.list(&camera, &mut check) {
                let number = bucket.file_name().and_then(|n| n.to_str()).and_then(|name| name.parse::<u64>().ok());
                if !self.is_our_dir(&bucket, number.is_some()) {
                    continue;
                }
                for file in self.list(&bucket, &mut check) {
                    let seq = file.file_name().and_then(|n| n.to_str()).and_then(seq_of).filter(|seq| Some(seq.0 / BUCKET) == number);
                    let Some(seq) = seq else {
                        self.odd.note(format!("{}: not a picture's name; left alone", file.display()));
                        continue;
                    };
                    if !careful::is_file(&self.dir.join(&file)) {
                        self.odd.note(format!(
                            "{}: named like a picture, but it is a link, a directory or a device; left alone",
                            file.display()
                        ));
                        continue;
                    }
                    check.count += 1;
                    progress.at("files", check.count, 0);
                    self.look_at_owner(&file);
                    let Some(rows) = rows else {
                        if let Err(why) = self.whole(&file) {
                            check.problem(format!("{}: {why}", file.display()));
                        }
                        continue;
                    };
                    if !has_row(rows.index, rows.stores.keys().copied(), seq, &file)? {
                        let (new, waiting) = (seq.0 >= rows.counters.next_seq, rebuild.is_some_and(|below| seq.0 < below));
                        self.orphan(&file, seq, new, waiting, &mut check);
                    }
                }
            }
        }
        Ok(check)
    }

    fn orphan(&mut self, file: &Path, seq: Seq, new: bool, waiting: bool, check: &mut Check) {
        let at = file.display();
        match self.whole(file) {
            Ok(meta) if meta.record.id.seq != seq || path_of(&meta.record.camera, seq, &meta.record.taken) != *file => {
                check.note(format!("{at}: picture {} in a place that is not its own; left alone", meta.record.id));
            }
            Ok(_) if waiting => {}
            Ok(meta) if new => {
                check.note(format!("{at}: picture {} was stored when the agent ended; the next start takes it in", meta.record.id))
            }
            Ok(meta) => {
                let id = meta.record.id;
                check.problem(format!("{at}: picture {id} has no row: it is never sent and never deleted; --rebuild takes it back"));
            }
            Err(why) if new || waiting => check.note(format!("{at}: {why}; the agent puts it into quarantine")),
            Err(why) => check.problem(format!("{at}: no row, and {why}: it takes up room for nothing")),
        }
    }

    fn whole(&mut self, file: &Path) -> Result<Meta, String> {
        let bytes = careful::read(&self.dir.join(file)).map_err(|e| {
            self.failed(&e);
            e.to_string()
        })?;
        meta::read(&bytes).map_err(|e| e.to_string())
    }

    /// What was put aside, and what else lies in the data directory.
    pub fn quarantine(&mut self) -> Check {
        let mut check = Check::new("files in quarantine", "within their bound");
        let all = self.list(&PathBuf::from(QUARANTINE), &mut check);
        check.count = all.len() as u64;
        if all.len() > QUARANTINE_FILES_MAX {
            check.note(format!("the agent keeps {QUARANTINE_FILES_MAX} at most, and will remove the oldest when it adds one"));
        }
        for name in ["", SNAPSHOTS, QUARANTINE, "index.redb", "lock", "reserve"] {
            if self.dir.join(name).symlink_metadata().is_ok() {
                self.look_at_owner(Path::new(name));
            }
        }
        check
    }

    fn list(&mut self, dir: &Path, check: &mut Check) -> Vec<PathBuf> {
        match entries(&self.dir.join(dir)) {
            Ok(found) => found.into_iter().filter_map(|path| path.strip_prefix(self.dir).map(Path::to_owned).ok()).collect(),
            Err(e) => {
                self.failed(&e);
                check.problem(format!("{}: cannot be listed: {e}; what lies in it is unknown", dir.display()));
                Vec::new()
            }
        }
    }

    fn is_our_dir(&mut self, dir: &Path, named: bool) -> bool {
        let ours = named && careful::is_dir(&self.dir.join(dir));
        if ours {
            self.look_at_owner(dir);
        } else {
            self.odd.note(format!("{}: no directory of pictures; left alone, and not followed", dir.display()));
        }
        ours
    }

    fn look_at_owner(&mut self, path: &Path) {
        self.odd.count += 1;
        let (Ok(about), Ok(top)) = (self.dir.join(path).symlink_metadata(), self.dir.metadata()) else { return };
        let shown = if path.as_os_str().is_empty() { self.dir.display() } else { path.display() };
        if about.uid() != top.uid() {
            self.odd.note(format!("{shown}: belongs to user {}, the data directory to user {}: chown it", about.uid(), top.uid()));
        }
        let wanted = if about.is_dir() { 0o700 } else { 0o400 };
        if about.mode() & wanted != wanted {
            self.odd.note(format!("{shown}: its owner may not use it (mode {:o})", about.mode() & 0o7777));
        }
        if about.mode() & 0o002 != 0 && !about.is_symlink() {
            self.odd.note(format!("{shown}: everybody may change it (mode {:o})", about.mode() & 0o7777));
        }
    }
}

/// Whether a row, or a deletion that is not finished, names this very file.
fn has_row(index: &Index, stores: impl Iterator<Item = u32>, seq: Seq, file: &Path) -> Result<bool, redb::Error> {
    for ord in stores {
        let key: Key = (ord, seq.0);
        // A row that cannot be read has been told of; its file stays.
        match index.snap(key) {
            Ok(Some(snap)) if path_of(&snap.camera, seq, &snap.taken) == *file => return Ok(true),
            Ok(_) => {}
            Err(redb::Error::Corrupted(_)) => return Ok(true),
            Err(e) => return Err(e),
        }
    }
    Ok(index.read()?.open_table(GARBAGE)?.get(file.to_string_lossy().as_ref())?.is_some())
}
