//! `shutterd fsck`: a look at the store while no agent runs, and a rebuild of its index. Run by root it goes on as the data directory's
//! owner (`owner.rs`).

use super::owner::become_owner;
use super::trouble::Trouble;
use super::words::print;
use crate::clock::{Clock, Deadline, SystemClock, boot_id};
use crate::config::{self, Origin};
use crate::error::{Chain, Exit};
use crate::store::{self, Findings, FsckTrouble, OpenError, Place, Progress, Store, grouped};
use serde::Serialize;
use std::{
    io::{BufRead, IsTerminal, Write},
    path::Path,
    time::Duration,
};

/// How often a line of progress is written anew on a terminal, and how often one is added elsewhere.
const LOOK: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(5);

pub fn fsck(config_file: &Path, rebuild: bool, yes: bool, json: bool) -> Result<(), Trouble> {
    let loaded = config::load_or_kept(config_file, None).map_err(|e| Trouble::new(Exit::Config, "config", e))?;
    if let Origin::Kept { errors } = &loaded.origin {
        eprintln!("the configuration cannot be used, the last accepted one tells where the pictures are:\n{errors}");
    }
    let settings = loaded.settings;
    let dir = &settings.store.dir;
    Store::require_mount(dir, settings.store.require_mount.as_ref()).map_err(|e| trouble_of(&e))?;
    become_owner(dir)?;
    let place = Place { dir: dir.clone(), board: config::board_serial().unwrap_or_default(), hub: settings.hub.is_some() };
    if rebuild { rebuild_index(&place, yes, json) } else { look(dir, json) }
}

fn look(dir: &Path, json: bool) -> Result<(), Trouble> {
    #[derive(Serialize)]
    struct Looked<'a> {
        dir: &'a Path,
        ok: bool,
        verdict: String,
        #[serde(flatten)]
        findings: &'a Findings,
    }
    eprintln!("looking at the store in {}; nothing is changed", dir.display());
    let mut shown = Shown::new();
    let found = store::fsck(dir, &mut Progress { show: &mut |what, done, of| shown.at(what, done, of) });
    shown.end();
    let findings = found.map_err(|e| cannot(&e))?;
    let (ok, problems) = (findings.problems() == 0, findings.problems());
    let verdict = match (ok, findings.disk_failed) {
        (_, true) => "the disk refuses to be read in places: save what can be saved, and replace it; see dmesg".to_owned(),
        (true, _) => "all is well".to_owned(),
        (false, _) => {
            format!("{} wrong", if problems == 1 { "one thing is".to_owned() } else { format!("{} things are", grouped(problems)) })
        }
    };
    print(&Looked { dir, ok, verdict: verdict.clone(), findings: &findings }, json, |looked| {
        let mut lines: Vec<String> = looked.findings.checks.iter().flat_map(store::Check::lines).collect();
        lines.push(verdict);
        lines.join("\n")
    })?;
    match (ok, findings.disk_failed) {
        (true, false) => Ok(()),
        (_, true) => std::process::exit(Exit::Storage as i32),
        (false, false) => std::process::exit(Exit::Failed as i32),
    }
}

fn rebuild_index(place: &Place, yes: bool, json: bool) -> Result<(), Trouble> {
    #[derive(Serialize)]
    struct Answer {
        pictures: u64,
        others: u64,
        store: String,
        kept_as: Option<std::path::PathBuf>,
    }
    let plan = store::rebuild_in_words(&place.dir, place.hub).map_err(|e| cannot(&e))?;
    if yes {
        eprintln!("{plan}");
    } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        eprint!("{plan}\nDo it? [y/N] ");
        let mut answer = String::new();
        let _ = std::io::stdin().lock().read_line(&mut answer);
        if !answer.trim().eq_ignore_ascii_case("y") {
            return Err(Trouble::new(Exit::Usage, "not_confirmed", "nothing was changed"));
        }
    } else {
        return Err(Trouble::new(Exit::Usage, "not_confirmed", format!("{plan}; say --yes to do it")));
    }
    let boot = boot_id().map_err(|e| Trouble::failed(format!("/proc must be mounted: {e}")))?;
    let mut shown = Shown::new();
    let done = store::rebuild(place, &SystemClock.read(), &boot, &mut Progress { show: &mut |what, done, of| shown.at(what, done, of) });
    shown.end();
    let done = done.map_err(|e| trouble_of(&e))?;
    let answer = Answer { pictures: done.pictures, others: done.others, store: done.store.to_string(), kept_as: done.kept_as };
    print(&answer, json, |done| {
        let mut words = format!("{} pictures are back, the new store id is {}", grouped(done.pictures), done.store);
        if done.others > 0 {
            words += &format!("; {} files are no whole pictures, or not in their own place: see quarantine", grouped(done.others));
        }
        if let Some(kept) = &done.kept_as {
            words += &format!("; the old index is {}, delete it when nothing is missing", kept.display());
        }
        words
    })
}

fn cannot(e: &FsckTrouble) -> Trouble {
    let exit = if e.disk_failed() { Exit::Storage } else { Exit::Failed };
    let code = if matches!(e, FsckTrouble::Locked { .. }) { "locked" } else { "unreadable" };
    let denied = matches!(e, FsckTrouble::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
    let hint = if denied { "; run this as root, or as the user that runs shutterd" } else { "" };
    Trouble::new(exit, code, format!("{e}{hint}"))
}

fn trouble_of(e: &OpenError) -> Trouble {
    let (exit, code) = match e {
        OpenError::Locked { .. } => (Exit::Failed, "locked"),
        OpenError::Io { source, .. } if source.kind() != std::io::ErrorKind::PermissionDenied => (Exit::Storage, "storage"),
        _ => (Exit::Failed, "unusable"),
    };
    Trouble::new(exit, code, Chain(e))
}

/// Progress on standard error: one line that changes on a terminal, else a line now and then.
struct Shown {
    terminal: bool,
    next: Deadline,
    written: bool,
}

impl Shown {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, next: Deadline::after(if terminal { LOOK } else { LINE }), written: false }
    }

    fn at(&mut self, what: &str, done: u64, of: u64) {
        // Reading a clock for each of a million rows is cheaper than a row.
        if !self.next.passed() {
            return;
        }
        let words = match (done * 100).checked_div(of) {
            Some(percent) => format!("{what}: {} of {} ({percent} %)", grouped(done), grouped(of)),
            None if done == 0 => format!("{what} …"),
            None => format!("{what}: {}", grouped(done)),
        };
        let mut out = std::io::stderr();
        let _ = if self.terminal { write!(out, "\r\x1b[K{words}").and_then(|()| out.flush()) } else { writeln!(out, "{words}") };
        self.written = true;
        self.next = Deadline::after(if self.terminal { LOOK } else { LINE });
    }

    fn end(&mut self) {
        if self.terminal && self.written {
            eprint!("\r\x1b[K");
        }
    }
}
