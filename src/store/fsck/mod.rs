//! A look at a whole store while no agent runs: does every promise of its invariants hold?
//!
//! [`fsck`] changes nothing, not even what a start would tidy up: the index is read through an overlay that keeps the library's
//! recovery in memory. [`rebuild`] does what the agent does by itself with an index that it cannot read: keeps it aside, makes a fresh
//! one with a new store id, and takes every whole picture back under its own id, to be asked of the hub before any is sent.

mod files;
mod progress;
mod rows;

pub use progress::Progress;

use super::adopt::{ADOPT_MAX, Adopting};
use super::findings::{Check, Findings, grouped};
use super::index::{Change, FORMAT, Index};
use super::overlay::Overlay;
use super::recover::{self, INDEX, OpenError, Place};
use crate::clock::Reading;
use crate::model::StoreId;
use files::Files;
use rows::Rows;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(
        "the data directory {dir} is in use by the agent (process {pid}): stop it first (systemctl stop shutterd), or ask it with `shutterd status`"
    )]
    Locked { dir: PathBuf, pid: String },
    #[error("{at} cannot be read: {source}")]
    Io { at: PathBuf, source: io::Error },
}
impl Trouble {
    /// Whether the disk itself refuses, and not somebody's permissions.
    pub fn disk_failed(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(libc::EIO))
    }
}

/// Holds a store against all that it promises, and changes nothing.
/// # Errors
/// An agent has it, or the disk cannot be read; see [`Trouble`].
pub fn fsck(dir: &Path, progress: &mut Progress) -> Result<Findings, Trouble> {
    // Held until the end.
    let _lock = lock(dir)?;
    std::fs::read_dir(dir).map_err(|source| Trouble::Io { at: dir.to_owned(), source })?;
    let mut findings = Findings::default();
    let mut files = Files::new(dir);
    let index_path = dir.join(INDEX);
    let (check, index) = match look(&index_path, progress) {
        Err(redb::Error::Io(source)) => return Err(Trouble::Io { at: index_path, source }),
        Err(e) => {
            let mut check = Check::new("index", "can be read");
            check.problem(unusable(&e.to_string()));
            (check, None)
        }
        Ok(looked) => looked,
    };
    findings.checks.push(check);
    let judged = judge(index.as_ref(), &mut files, &mut findings, progress);
    match judged {
        Err(redb::Error::Io(source)) => return Err(Trouble::Io { at: index_path, source }),
        Err(e) => {
            let mut check = Check::new("index", "can be read");
            check.problem(unusable(&e.to_string()));
            findings.checks.push(check);
        }
        Ok(()) => {}
    }
    let quarantine = files.quarantine();
    findings.checks.extend([quarantine, files.odd]);
    findings.disk_failed = files.disk_failed;
    Ok(findings)
}

fn lock(dir: &Path) -> Result<Option<File>, Trouble> {
    recover::lock_unchanged(dir).map_err(|e| match e {
        OpenError::Locked { dir, pid } => Trouble::Locked { dir, pid },
        OpenError::Io { dir, source, .. } => Trouble::Io { at: dir, source },
        other => Trouble::Io { at: dir.to_owned(), source: io::Error::other(other) },
    })
}

fn unusable(why: &str) -> String {
    format!("it cannot be used ({why}); the agent keeps it as {INDEX}.bad and takes all pictures into a new one, --rebuild does so now")
}

/// The index as the agent would open it, in memory.
fn look(path: &Path, progress: &mut Progress) -> Result<(Check, Option<Index>), redb::Error> {
    let mut check = Check::new("index", "opens, and all of its checksums hold");
    progress.at("index", 0, 0);
    let about = match path.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if files::count(path.parent().unwrap_or(path))? > 0 {
                check.problem("there is none, but there are pictures; the agent takes them into a new one, --rebuild does so now");
            } else {
                check.note("there is none yet: nothing has been stored here");
            }
            return Ok((check, None));
        }
        Err(e) => return Err(e.into()),
        Ok(about) => about,
    };
    check.count = 1;
    if about.len() == 0 {
        check.problem(unusable("it is empty"));
        return Ok((check, None));
    }
    let overlay = match Overlay::open(path) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(redb::Error::Corrupted(e.to_string())),
        overlay => overlay?,
    };
    let index = match Index::look(overlay) {
        Err(redb::Error::Io(e)) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            return Err(redb::Error::Corrupted(e.to_string()));
        }
        index => index?,
    };
    match index.format()? {
        None => {
            check.note("a first start, or a rebuild, was cut short; the agent goes on with it");
            index.prepare()?;
        }
        Some(found) if found > FORMAT => {
            check.problem(format!(
                "its format is {found}, this version reads up to {FORMAT}: install the newer version again; it was not looked into"
            ));
            return Ok((check, None));
        }
        Some(found) if found < FORMAT => {
            check.note(format!("its format is {found}; the next start brings it to {FORMAT}, and so it was judged here"));
            index.migrate()?;
        }
        Some(_) => index.prepare()?,
    }
    Ok((check, Some(index)))
}

fn judge(index: Option<&Index>, files: &mut Files, findings: &mut Findings, progress: &mut Progress) -> Result<(), redb::Error> {
    let Some(index) = index else {
        findings.checks.push(files.of_directories(None, progress)?);
        return Ok(());
    };
    let counters = recover::load_counters(index)?;
    let rows = Rows { index, counters: &counters, stores: index.stores()? };
    findings.checks.extend(rows.check(progress)?);
    findings.checks.push(files.of_rows(&rows, progress)?);
    findings.checks.push(files.of_directories(Some(&rows), progress)?);
    Ok(())
}

/// What a rebuild has done.
#[derive(Debug)]
pub struct Rebuilt {
    pub pictures: u64,
    /// Files that are no whole pictures, or lie in a place that is not their own.
    pub others: u64,
    pub store: StoreId,
    pub kept_as: Option<PathBuf>,
}

/// A name for the present index that nothing has yet, if there is an index.
fn aside(dir: &Path) -> (PathBuf, bool) {
    let bad = dir.join(format!("{INDEX}.bad"));
    let numbered = (2_u32..).map(|n| dir.join(format!("{INDEX}.bad{n}")));
    let free = std::iter::once(bad.clone()).chain(numbered).find(|path| path.symlink_metadata().is_err());
    (free.unwrap_or(bad), dir.join(INDEX).symlink_metadata().is_ok())
}

/// What [`rebuild`] would do.
/// # Errors
/// An agent has the store, or its directories cannot be listed.
pub fn rebuild_in_words(dir: &Path, hub: bool) -> Result<String, Trouble> {
    lock(dir)?;
    let (aside, there) = aside(dir);
    let kept = if there { format!("keeps the index as {}", aside.display()) } else { "finds no index".to_owned() };
    let asked = if hub { "the hub is asked about each before any is sent again" } else { "there is no hub to ask about them" };
    Ok(format!(
        "this {kept}, makes a fresh one with a new store id, reads all {} files of pictures in {} and takes every whole one back under its own \
         id; {asked}. Files that are not whole go to quarantine. Pins, erasures under way, and what is on record of slots without a picture, stay behind in the old index",
        grouped(files::count(dir).map_err(|source| Trouble::Io { at: dir.to_owned(), source })?),
        dir.display(),
    ))
}

/// Makes a fresh index and takes all pictures back. Cut short, the agent goes on with it.
/// # Errors
/// See [`OpenError`].
pub fn rebuild(place: &Place, now: &Reading, boot_id: &str, progress: &mut Progress) -> Result<Rebuilt, OpenError> {
    let dir = &place.dir;
    let disk_error = |source| OpenError::Io { dir: dir.clone(), source, hint: "look at dmesg for what the disk says" };
    let index_error = |source| match source {
        redb::Error::Io(source) => disk_error(source),
        source => OpenError::Index { dir: dir.clone(), source },
    };
    let (aside, there) = aside(dir);
    let before = files::count(dir).map_err(disk_error)?;
    let mut opened = recover::open_afresh(place, now, boot_id, &aside)?;
    let mut change = Change::default();
    let pictures = |counters: &super::index::Counters| counters.totals.values().map(|total| total.count).sum::<u64>();
    while let Some(rebuild) = &mut opened.rebuild {
        let done = rebuild.go_on(&opened.index, &mut opened.blobs, &mut change).map_err(|e| match e {
            Adopting::Disk(e) => disk_error(e),
            Adopting::Index(e) => index_error(e),
        })?;
        if done || change.snaps.len() >= ADOPT_MAX {
            opened.index.commit(&std::mem::take(&mut change), &mut opened.counters, place.hub).map_err(index_error)?;
            progress.at("pictures", pictures(&opened.counters), before);
        }
        if done {
            break;
        }
    }
    let pictures = pictures(&opened.counters);
    Ok(Rebuilt { pictures, others: before.saturating_sub(pictures), store: opened.counters.store, kept_as: there.then_some(aside) })
}

#[cfg(test)]
mod tests;
