//! Opening a store after anything may have happened.
//!
//! ```text
//! lock -> judge the filesystem -> flush what a killed process left in memory only -> open the index, checked ->
//!         finish deletions -> look at the newest buckets:
//!         a whole file without a row is adopted with the slots it names; anything else goes to quarantine
//! ```
//! An index that cannot be read is kept as `index.redb.bad`; a fresh one with a new store id takes its place, and every whole
//! picture on the disk comes back into it in the background (`adopt.rs`).

use super::adopt::{Adopting, FIRST_ORD, Rebuild, adopt_newest};
use super::blobs::Blobs;
use super::files::Files;
use super::index::{Anchors, BootRow, Built, Change, Counters, FORMAT, Index, RunState, Synced};
use super::path::path_of;
use crate::clock::{BUILD_UNIX_S, Reading};
use crate::model::{BootNo, GROUP_MAX, Quality, Seq, StoreId};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub const INDEX: &str = "index.redb";
const LOCK: &str = "lock";
/// Space held back so that the index can still record why, when nothing else fits.
const RESERVE: &str = "reserve";
const RESERVE_BYTES: u64 = 8 << 20;
/// Left for what else a commit needs: blocks of directories and of the filesystem's own.
const GROWTH_BYTES: u64 = 1 << 20;
/// Numbers left out after a run without an ordered end. A disk that lied about its flushes can lose rows and files of pictures that
/// were handed out, and nothing here would tell that their numbers are taken. So many full groups are more than it was seen to lose.
const SKIPPED_AFTER_CRASH: u64 = 32 * GROUP_MAX as u64;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the data directory {dir} is in use by another shutterd (process {pid}); stop that one, or give this one a store.dir of its own"
    )]
    Locked { dir: PathBuf, pid: String },
    #[error("the data directory {dir} is on {kind}, which cannot keep pictures safe over a power cut; use ext4 or f2fs")]
    Unsafe { dir: PathBuf, kind: &'static str },
    #[error("the disk at {at} is not mounted; mount it, or take require_mount out of [store] if pictures belong on the disk below")]
    NotMounted { at: PathBuf },
    #[error("cannot use the data directory {dir}: {source}; {hint}")]
    Io { dir: PathBuf, source: io::Error, hint: &'static str },
    #[error("the index in {dir} has format {found}, this version reads up to {FORMAT}; install the newer version again")]
    Newer { dir: PathBuf, found: u32 },
    #[error("the index in {dir} cannot be used: {source}")]
    Index { dir: PathBuf, source: redb::Error },
}

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct Place {
    pub dir: PathBuf,
    /// This board's serial: a card moved to another board gets a store id of its own.
    pub board: String,
    /// Whether there is a hub to acknowledge pictures.
    pub hub: bool,
}

/// An open store, before its writer runs.
pub struct Opened {
    pub index: Index,
    pub blobs: Blobs,
    pub counters: Counters,
    pub boot: BootNo,
    pub boots: BTreeMap<BootNo, BootRow>,
    /// What they say of time besides.
    pub anchors: Anchors,
    /// Planner memory of each schedule.
    pub cursors: BTreeMap<String, Vec<u8>>,
    /// How the last run ended; `None` for a new store.
    pub last_run: Option<RunState>,
    pub last_trusted_ms: i64,
    pub rebuilt: bool,
    /// Whether space is held back for the index.
    pub reserved: bool,
    /// Pictures of a lost index that are still to come back.
    pub rebuild: Option<Rebuild>,
    pub lock: File,
}

/// Opens the store. On a full disk the space held back for the index is used before that fails.
pub fn open(place: &Place, now: &Reading, boot_id: &str) -> Result<Opened, OpenError> {
    match try_open(place, now, boot_id, None) {
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull && place.dir.join(RESERVE).exists() => {
            feed_index(&place.dir);
            try_open(place, now, boot_id, None)
        }
        other => other,
    }
}

/// Opens the store with a fresh index, as if the present one could not be read; that one is kept under the name `aside`. The run that
/// this begins is no run of an agent.
pub fn open_afresh(place: &Place, now: &Reading, boot_id: &str, aside: &Path) -> Result<Opened, OpenError> {
    try_open(place, now, boot_id, Some(aside))
}

fn try_open(place: &Place, now: &Reading, boot_id: &str, aside: Option<&Path>) -> Result<Opened, OpenError> {
    let dir = &place.dir;
    let io_error = |source: io::Error| {
        let hint = match source.kind() {
            io::ErrorKind::PermissionDenied => "give it to the user that runs shutterd (chown), or choose another store.dir",
            io::ErrorKind::ReadOnlyFilesystem => "it is mounted read-only: the kernel does that when a disk fails; look at dmesg",
            io::ErrorKind::StorageFull => "the disk is full: make room",
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "store.dir must name a directory",
            _ => "look at dmesg for what the disk says",
        };
        OpenError::Io { dir: dir.clone(), source, hint }
    };
    let index_error = |source: redb::Error| match source {
        redb::Error::Io(source) => io_error(source),
        source => OpenError::Index { dir: dir.clone(), source },
    };
    make_dir(dir).map_err(io_error)?;
    let lock = lock(dir, io_error)?;
    judge_filesystem(dir, io_error)?;
    let mut blobs = Blobs::open(dir).map_err(io_error)?;
    if let Some(aside) = aside {
        set_aside(dir, aside).map_err(io_error)?;
    }
    let mut index = open_index(dir).map_err(index_error)?;
    // The format is written by the commit that ends a first start or a rebuild: without it, one was cut short.
    let mut format = index.format().map_err(index_error)?;
    if format.is_some_and(|format| format <= FORMAT) && of_other_pictures(&index, &blobs).map_err(index_error)? {
        tracing::error!("the index is of other pictures than those here; it is kept as {INDEX}.bad, pictures are taken into a new one");
        drop(index);
        set_aside(dir, &bad(dir)).map_err(io_error)?;
        index = open_index(dir).map_err(index_error)?;
        format = None;
    }
    let old = dir.join(format!("{INDEX}.old"));
    match format {
        Some(found) if found > FORMAT => return Err(OpenError::Newer { dir: dir.clone(), found }),
        Some(older) if older < FORMAT => {
            tracing::info!(
                from = older,
                to = FORMAT,
                "the index is brought to the format of this version; the old one is kept until the next start"
            );
            // Not through a link that somebody has put there.
            let _ = fs::remove_file(&old);
            fs::copy(dir.join(INDEX), &old)
                .and_then(|_| File::open(&old)?.sync_all())
                .and_then(|()| File::open(dir)?.sync_all())
                .map_err(io_error)?;
            index.migrate().map_err(index_error)?;
        }
        Some(_) => match fs::remove_file(&old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(e)),
            _ => index.prepare().map_err(index_error)?,
        },
        None => index.prepare().map_err(index_error)?,
    }
    let mut counters = load_counters(&index).map_err(index_error)?;
    let found = go_through(&index, &mut blobs, &mut counters, format.is_none(), place.hub);
    let Found { mut change, rebuilt, rebuild, newest_boot } = found.map_err(|e| match e {
        Adopting::Disk(e) => io_error(e),
        Adopting::Index(e) => index_error(e),
    })?;

    let board: Option<String> = index.meta("board").map_err(index_error)?;
    let mut boots = index.boots().map_err(index_error)?;
    let mut anchors = index.anchors().map_err(index_error)?;
    let last_run = index.meta("run").map_err(index_error)?;
    // An index without a run is one that was rebuilt while no agent ran.
    let rebuilt = rebuilt || (format.is_some() && last_run.is_none());
    if board.as_deref() != Some(&place.board) {
        if let Some(old) = board {
            tracing::warn!(from = old, to = place.board, "this data directory comes from another board: it gets a new store id");
        }
        let ord = index.stores().map_err(index_error)?.last_key_value().map_or(FIRST_ORD, |(ord, _)| *ord + 1);
        change.new_store = Some((ord, StoreId(random_u64()), place.board.clone()));
    }
    let last_trusted_ms = index.value("trusted_ms").map_err(index_error)?.unwrap_or(0);
    // A chip behind the last trusted time has lost days: what it says must not become the time of this boot.
    let behind = now.quality == Quality::Rtc && now.wall_ms < last_trusted_ms;
    let now = &Reading { quality: if behind { Quality::Saved } else { now.quality }, ..*now };
    // Slots name boots by number: a rebuilt index must not give a number that a picture already carries.
    let first_boot = newest_boot.map_or(1, |boot| boot + 1);
    let boot = this_boot(&mut boots, boot_id, first_boot, now);
    change.boot = boots.get(&boot).map(|b| (boot, b.clone()));
    change.synced = Synced::first(now, boot, &mut anchors);
    let built_ms = BUILD_UNIX_S * 1000;
    if anchors.built.values().all(|known| known.built_ms < built_ms) && !anchors.built.contains_key(&boot) {
        let built = Built { at_ms: now.boottime_ms, built_ms };
        anchors.built.insert(boot, built);
        change.built = Some((boot, built));
    }
    // After a lost index it is no run before the agent has put on record what is missing: a crash in between must not hide that.
    change.run = (aside.is_none() && !rebuilt).then_some(RunState::Running { boot });
    if matches!(last_run, Some(RunState::Running { .. })) {
        counters.next_seq += SKIPPED_AFTER_CRASH;
    }
    index.commit(&change, &mut counters, place.hub).map_err(index_error)?;
    let reserved = reserve(dir);
    Ok(Opened {
        cursors: index.cursors().map_err(index_error)?,
        last_trusted_ms,
        index,
        blobs,
        counters,
        boot,
        boots,
        anchors,
        last_run,
        rebuilt,
        reserved,
        rebuild,
        lock,
    })
}

/// What the pictures on the disk say to an index.
struct Found {
    /// For the commit that ends the recovery: until then nothing has changed for the index, and all of it can be done again.
    change: Change,
    rebuilt: bool,
    rebuild: Option<Rebuild>,
    newest_boot: Option<BootNo>,
}

/// Finishes deletions, takes in what has no row, and makes sure that no number is given twice.
fn go_through<F: Files>(index: &Index, blobs: &mut Blobs<F>, counters: &mut Counters, fresh: bool, hub: bool) -> Result<Found, Adopting> {
    let garbage = index.garbage().map_err(Adopting::Index)?;
    blobs.remove(&garbage).map_err(Adopting::Disk)?;
    let highest = blobs.highest().map_err(Adopting::Disk)?;
    let rebuilt = fresh && highest.is_some();
    let mut change = Change { garbage_gone: garbage, ..Change::default() };
    let (mut rebuild, mut newest_boot) = (None, None);
    if rebuilt {
        let below = Seq(highest.map_or(0, |seq| seq.0 + 1));
        let mut begun = Rebuild::new(index, blobs, below, hub)?;
        newest_boot = begun.begin(index, blobs, &mut change)?;
        rebuild = Some(begun);
    } else {
        adopt_newest(index, blobs, Seq(counters.next_seq), hub, &mut change)?;
        if let Some(below) = index.meta::<Option<u64>>("rebuild").map_err(Adopting::Index)?.flatten() {
            rebuild = Some(Rebuild::new(index, blobs, Seq(below), hub)?);
        }
    }
    counters.next_seq = counters.next_seq.max(highest.map_or(0, |seq| seq.0 + 1));
    Ok(Found { change, rebuilt, rebuild, newest_boot })
}

/// Makes the data directory, and flushes the name of every level that was not there: all that is in it hangs on these.
fn make_dir(dir: &Path) -> io::Result<()> {
    let missing = dir.ancestors().take_while(|level| !level.as_os_str().is_empty() && !level.exists()).count();
    fs::create_dir_all(dir)?;
    for parent in dir.ancestors().skip(1).take(missing) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Takes the lock and writes nothing; `None` where no agent has ever made one.
pub fn lock_unchanged(dir: &Path) -> Result<Option<File>, OpenError> {
    let io_error = |source| OpenError::Io { dir: dir.to_owned(), source, hint: "look at dmesg for what the disk says" };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(dir.join(LOCK), flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        file => File::from(file.map_err(|e| io_error(e.into()))?),
    };
    take(&file, dir, io_error)?;
    Ok(Some(file))
}

fn take(file: &File, dir: &Path, io_error: impl Fn(io::Error) -> OpenError) -> Result<(), OpenError> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = holder(file).unwrap_or_else(|| "unknown".to_owned());
            Err(OpenError::Locked { dir: dir.to_owned(), pid })
        }
        Err(e) => Err(io_error(e.into())),
    }
}

/// Who has the lock. The kernel knows; the file's text may be that of an agent that is gone, while somebody who changes nothing looks.
fn holder(mut file: &File) -> Option<String> {
    let about = file.metadata().ok()?;
    let (device, inode) = (about.dev(), about.ino());
    let named = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    // "1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF"
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let words = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let pid = words.filter(|w| w.get(1) == Some(&"FLOCK") && w.get(5) == Some(&named.as_str())).find_map(|w| Some((*w.get(4)?).to_owned()));
    // 0 or less: in another namespace.
    pid.filter(|pid| pid.parse::<u32>().is_ok_and(|pid| pid > 0)).or_else(|| {
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    })
}

fn lock(dir: &Path, io_error: impl Fn(io::Error) -> OpenError) -> Result<File, OpenError> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(rustix::fs::open(dir.join(LOCK), flags, Mode::from_raw_mode(0o640)).map_err(|e| io_error(e.into()))?);
    take(&file, dir, &io_error)?;
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    match written {
        // The lock works without its text; a full disk must not keep the agent from starting.
        Err(e) if e.kind() != io::ErrorKind::StorageFull => Err(io_error(e)),
        _ => Ok(file),
    }
}

/// Filesystems without a journal, or whose flushes go over a network, cannot keep the promise.
fn judge_filesystem(dir: &Path, io_error: impl Fn(io::Error) -> OpenError) -> Result<(), OpenError> {
    let kind = match rustix::fs::statfs(dir).map_err(|e| io_error(e.into()))?.f_type as u32 {
        0x4d44 => "vfat",
        0x2011_BAB0 => "exfat",
        0x5346_544e | 0x7366_746e => "ntfs",
        0x6969 => "nfs",
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => "a Windows share",
        0x0102_1994 => {
            tracing::warn!(dir = %dir.display(), "the data directory is on tmpfs: pictures are gone after a reboot");
            return Ok(());
        }
        _ => return Ok(()),
    };
    Err(OpenError::Unsafe { dir: dir.to_owned(), kind })
}

/// Opens or creates the index; one that cannot be read is kept aside and a fresh one made.
fn open_index(dir: &Path) -> Result<Index, redb::Error> {
    let path = dir.join(INDEX);
    // The library takes an empty file for a new one, so an index cut to nothing is told here.
    let fresh = fs::metadata(&path).map_or(true, |about| about.len() == 0);
    if path.symlink_metadata().is_ok() && !fs::metadata(&path).is_ok_and(|about| about.is_file()) {
        tracing::error!("the index is no file; what is there is kept as {INDEX}.bad, pictures are taken into a new one");
        set_aside(dir, &bad(dir))?;
    }
    let opened = match Index::open(&path) {
        Err(e @ redb::Error::DatabaseAlreadyOpen) => return Err(e),
        // The disk refuses: that is a fault, not damage. A file that is no index, or ends too early, is damage.
        Err(redb::Error::Io(e)) if !matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => return Err(e.into()),
        Err(damage) => {
            tracing::error!(%damage, "the index cannot be read; it is kept as {INDEX}.bad, pictures are taken into a new one");
            set_aside(dir, &bad(dir))?;
            Index::open(&path)?
        }
        Ok(index) if !fresh => return Ok(index),
        Ok(index) => index,
    };
    // The new file's name must survive, or the first commits would be to a file nobody finds.
    File::open(dir)?.sync_all()?;
    opened.count_flush();
    Ok(opened)
}

fn bad(dir: &Path) -> PathBuf {
    dir.join(format!("{INDEX}.bad"))
}

/// Keeps the index under another name; where there is none, nothing is to be kept.
fn set_aside(dir: &Path, aside: &Path) -> io::Result<()> {
    // Room for the second file.
    release_reserve(dir);
    match fs::rename(dir.join(INDEX), aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => File::open(dir)?.sync_all(),
    }
}

/// Rows whose files are looked for, and files that are read.
const ROWS_LOOKED_AT: usize = 8;

/// Whether the index was put here from elsewhere: none of its newest pictures is here, and the newest that is here is of a store it
/// has never heard of. A row's file is flushed before the row, so no power cut looks like that.
fn of_other_pictures(index: &Index, blobs: &Blobs) -> Result<bool, redb::Error> {
    // Rows that cannot be read tell nothing.
    let rows = index.newest(ROWS_LOOKED_AT).unwrap_or_default();
    if rows.is_empty() || rows.iter().any(|((_, seq), row)| blobs.is_file(&path_of(&row.camera, Seq(*seq), &row.taken))) {
        return Ok(false);
    }
    let known = index.stores()?;
    Ok(blobs.newest_whole(ROWS_LOOKED_AT)?.is_some_and(|id| !known.values().any(|store| *store == id.store)))
}

pub fn load_counters(index: &Index) -> Result<Counters, redb::Error> {
    let stores = index.stores()?;
    // Format 1 did not say which one is its own: it was the last.
    let ord = index.meta("ord")?.or(stores.last_key_value().map(|(ord, _)| *ord)).unwrap_or(0);
    let store = stores.get(&ord).copied().unwrap_or(StoreId(0));
    let [next_seq, next_gap] = [index.value("next_seq")?.unwrap_or(1), index.value("next_gap")?.unwrap_or(1)];
    Ok(Counters { ord, store, next_seq, next_gap, totals: index.value("totals")?.unwrap_or_default() })
}

/// The row of this boot: the newest if it has this boot's name, else a new one.
fn this_boot(boots: &mut BTreeMap<BootNo, BootRow>, boot_id: &str, first: BootNo, now: &Reading) -> BootNo {
    let newest = boots.last_key_value().map(|(no, row)| (*no, row.boot_id == boot_id));
    let no = match newest {
        Some((no, true)) => no,
        Some((no, false)) => no + 1,
        None => first,
    };
    let row = boots.entry(no).or_insert_with(|| BootRow {
        boot_id: boot_id.to_owned(),
        offset_ms: now.offset_ms(),
        quality: now.quality,
        first_ms: now.boottime_ms,
        last_ms: now.boottime_ms,
    });
    row.see(now);
    no
}

/// What a boot's row on the disk may lag behind: writing it with each picture costs a page.
const BOOT_ROW_LAG_MS: u64 = 60_000;
/// Below this the offset only moves by reading two clocks one after the other.
const OFFSET_NOISE_MS: u64 = 20;

impl Synced {
    /// What is to be written if this is a boot's first trusted reading.
    pub fn first(now: &Reading, boot: BootNo, anchors: &mut Anchors) -> Option<(BootNo, Self)> {
        if !now.quality.trusted() || anchors.synced.contains_key(&boot) {
            return None;
        }
        let Reading { boottime_ms: at_ms, quality, uncertainty_ms, .. } = *now;
        let synced = Self { at_ms, offset_ms: now.offset_ms(), quality, uncertainty_ms };
        anchors.synced.insert(boot, synced);
        Some((boot, synced))
    }
}

impl BootRow {
    /// Notes that the boot is alive, and its offset if the clock is at least as good as before.
    pub fn see(&mut self, now: &Reading) {
        self.last_ms = self.last_ms.max(now.boottime_ms);
        if now.quality >= self.quality {
            (self.offset_ms, self.quality) = (now.offset_ms(), now.quality);
        }
    }

    /// Whether a commit should carry this row instead of the one the index has.
    pub fn says_more_than(&self, written: &Self) -> bool {
        self.quality != written.quality
            || self.offset_ms.abs_diff(written.offset_ms) > OFFSET_NOISE_MS
            || self.last_ms >= written.last_ms + BOOT_ROW_LAG_MS
    }
}

/// Holds back some space for the index; returns whether there was room for it.
pub fn reserve(dir: &Path) -> bool {
    let path = dir.join(RESERVE);
    if fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == RESERVE_BYTES) {
        return true;
    }
    // Not through a link that somebody has put there, and not into a pipe.
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let made = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o640))
        .map(File::from)
        .map_err(io::Error::from)
        .and_then(|f| Ok(rustix::fs::fallocate(&f, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?));
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
    // Where nothing can be reserved, nothing is held back from pictures either.
    !matches!(made, Err(e) if e.kind() == io::ErrorKind::StorageFull)
}

/// Gives the held-back space free.
pub fn release_reserve(dir: &Path) {
    let _ = fs::remove_file(dir.join(RESERVE));
}

/// Gives the held-back space to the index: as blocks of its file, so that nobody else can have them.
pub fn feed_index(dir: &Path) {
    release_reserve(dir);
    if let Ok(index) = File::options().write(true).open(dir.join(INDEX))
        && let Ok(about) = index.metadata()
    {
        // A filesystem that cannot do this leaves the space free.
        let _ = rustix::fs::fallocate(&index, rustix::fs::FallocateFlags::KEEP_SIZE, 0, about.len() + RESERVE_BYTES - GROWTH_BYTES);
    }
}

pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // The kernel's generator can only fail before it is seeded, and then it waits.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
