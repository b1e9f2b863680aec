//! A node that works at full rate until the power goes, again and again; and what it must still have each time it comes back.

use crate::agent::{Agent, Node, now_ms, wait_for};
use crate::ask::Socket;
use crate::books;
use crate::dice::Dice;
use crate::volatile::{Cut, Found, VolatileDisk};
use shutterd::api::{EraseAnswer, ExplainAnswer, ListAnswer, Row, StatusAnswer};
use shutterd::clock::boottime_now_ms;
use shutterd::image::meta;
use shutterd::model::{BootNo, Hash8, SnapshotId};
use shutterd::protocol::GapRange;
use shutterd::store::SnapState;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Schedules of a second each: (camera, phase).
const SCHEDULES: [(&str, u64); 4] = [("gate", 0), ("yard", 250), ("gate", 500), ("yard", 750)];
/// All of them take pictures on command as fast as they can.
const CAMERAS: [&str; 4] = ["gate", "yard", "lane", "roof"];
/// This one's pictures are erased now and then, so that the power also goes inside a deletion.
const ERASED: &str = "roof";
const ASKERS: usize = 2;
/// Acknowledged between two cuts, at least; and so many more at random.
const ACKNOWLEDGED_MIN: u64 = 50;
const ACKNOWLEDGED_MORE: u64 = 40;
const PERIOD_MS: u64 = 1_000;
const DISK_MIB: u64 = 128;
/// A cut at any moment comes so late at most: several commits fit into that.
const CUT_WITHIN_MS: u64 = 50;
const LIST_EVERY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);
/// What the agent logs of an index it cannot read, and when the pictures are back.
const UNREADABLE: &str = "the index cannot be read; it is kept as";
const REBUILT: &str = "all pictures of the lost index are back";

/// Where the data directory lies: on a partition of its own pictures are flushed in groups by syncfs, else one by one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    Own,
    Shared,
}

/// What the campaign has seen.
#[derive(Debug, Default)]
pub struct Tally {
    pub starts: u64,
    pub cuts: u64,
    /// Cuts inside a write, and cuts that took unflushed writes with them.
    pub inside: u64,
    pub with_unflushed: u64,
    pub torn: u64,
    pub acknowledged: u64,
    /// The fewest acknowledged between two cuts.
    pub fewest: Option<u64>,
    pub erasures: u64,
    pub lost: u64,
    pub most_lost_at_once: u64,
    pub silently_wrong: u64,
    /// Rows without a whole file, told as such.
    pub told_damaged: u64,
    pub rebuilt: u64,
    pub slots: u64,
    pub slots_open: u64,
    /// How often e2fsck had more to do than to replay the journal, and what the device saw.
    pub filesystem_repaired: u64,
    pub flushes: u64,
    pub lies: u64,
}

/// A node whose data directory lies on a disk that can lose its power.
pub fn node(name: &str, partition: Partition) -> Node {
    let mut node = Node::new(name);
    let mount = node.root.join("disk").join("mnt");
    node.data = if partition == Partition::Own { mount } else { mount.join("data") };
    let mut text = String::new();
    for camera in CAMERAS {
        text += &format!("[cameras.{camera}]\nsource = \"pattern:?size=160x120\"\n");
    }
    for (camera, phase_ms) in SCHEDULES {
        text += &format!(
            "[schedules.{camera}-{phase_ms}]\ncamera = \"{camera}\"\nalign = \"boot\"\nevery = \"{PERIOD_MS}ms\"\nphase = \"{phase_ms}ms\"\n"
        );
    }
    node.configure(&text);
    node
}

pub struct Campaign<'n> {
    node: &'n Node,
    disk: VolatileDisk,
    socket: Socket,
    /// Words before the agent's command line.
    wrap: &'n [&'n str],
    lying: bool,
    dice: Dice,
    /// What the outside was told of: ids, their cameras, and the pictures' hashes where they were handed out.
    acknowledged: BTreeMap<SnapshotId, Told>,
    /// Every picture ever seen, to notice a number used twice.
    seen: BTreeMap<SnapshotId, Hash8>,
    /// Nothing of [`ERASED`] up to this number has to be there any more.
    erased_to: u64,
    /// Boots: number, and from when to when its slots count.
    boots: Vec<(BootNo, u64, u64)>,
    pub tally: Tally,
    pub complaints: Vec<String>,
}

struct Told {
    camera: String,
    hash8: Option<Hash8>,
}

/// What the threads that work report.
enum Report {
    Acknowledged(SnapshotId, Told),
    Refused(String),
}

impl<'n> Campaign<'n> {
    /// `None` where such disks cannot be made. `lies`: percentage of flushes that the disk answers and does not do.
    pub fn new(name: &str, node: &'n Node, lies: u32, wrap: &'n [&'n str]) -> Option<Self> {
        Some(Self {
            node,
            disk: VolatileDisk::new(&node.root.join("disk"), DISK_MIB, lies)?,
            socket: Socket::of(&node.root.join("run")),
            wrap,
            lying: lies > 0,
            dice: Dice::new(name),
            acknowledged: BTreeMap::new(),
            seen: BTreeMap::new(),
            erased_to: 0,
            boots: Vec::new(),
            tally: Tally::default(),
            complaints: Vec::new(),
        })
    }

    /// So many times: power on, check, work, cut. Then power on once more, check, and an ordered stop.
    pub fn run(&mut self, cuts: u32) {
        for turn in 0..cuts {
            let agent = self.begin();
            self.check();
            // Every second cut strikes inside a write; on a disk that lies, every one while a lie stands.
            self.work(agent, self.lying || turn % 2 == 1);
            self.disk.power_off();
        }
        let agent = self.begin();
        self.check();
        let (status, _) = agent.stop();
        assert!(status.success(), "{status}");
        let files = books::index(&self.node.data, "n1", None);
        // On a disk that lies a row can have lost its file without anybody having read it since.
        self.complaints.extend(files.into_iter().filter(|complaint| !(self.lying && complaint.contains("there is no such file"))));
        self.disk.shut_down();
    }

    /// Power on, filesystem checked as an operating system does, and the agent up in another boot.
    fn begin(&mut self) -> Agent<'n> {
        let found = self.disk.power_on(self.dice.next());
        self.tally.filesystem_repaired += u64::from(found == Found::Repaired);
        let begun = self.node.logged(UNREADABLE);
        let boot = self.node.boot(&format!("{:08x}-0000-4000-8000-000000000000\n", self.dice.next() as u32));
        let words: Vec<&str> = boot.iter().map(String::as_str).chain(self.wrap.iter().copied()).collect();
        let agent = self.node.start_under(&words);
        let status: StatusAnswer = self.socket.get("/status").unwrap();
        assert_eq!(status.fault, None, "it starts again");
        self.tally.starts += 1;
        if self.node.logged(UNREADABLE) > begun {
            self.tally.rebuilt += 1;
            assert!(self.node.data.join("index.redb.bad").exists(), "a lost index is kept aside");
            let back = self.node.logged(UNREADABLE);
            wait_for("the pictures of the lost index", || self.node.logged(REBUILT) >= back);
        }
        self.boots.extend(status.boot.map(|boot| (boot, boottime_now_ms(), 0)));
        agent
    }

    fn list(&self) -> Vec<Row> {
        let (mut rows, mut before) = (Vec::new(), String::new());
        loop {
            let page: ListAnswer = self.socket.get(&format!("/snapshots?limit=1000{before}")).unwrap();
            rows.extend(page.snapshots);
            match page.next {
                Some(next) => before = format!("&before={next}"),
                None => return rows,
            }
        }
    }

    /// Everything acknowledged is there and served as it was, everything listed has its whole file, no number was used twice, and
    /// every slot has its outcome.
    fn check(&mut self) {
        let rows = self.list();
        let mut damaged = Vec::new();
        for row in &rows {
            let answer = self.socket.ask("GET", &format!("/snapshots/{}", row.id)).unwrap();
            if answer.status != 200 {
                if !self.may_be_erased(row.id, row.camera.as_str()) {
                    damaged.push(row.id);
                }
                continue;
            }
            match meta::read(&answer.body) {
                Ok(meta) if meta.record.id == row.id && meta.record.camera == row.camera => self.compare(row.id, meta.hash8),
                Ok(meta) => self.wrong(format!("{} is served for {}", meta.record.id, row.id)),
                Err(e) => self.wrong(format!("{} is served damaged: {e}", row.id)),
            }
        }
        // What is not served is told to be damaged.
        if !damaged.is_empty() {
            let state = |id| self.list().into_iter().find(|row| row.id == id).map(|row| row.state);
            wait_for("damaged pictures to be marked", || damaged.iter().all(|&id| state(id) == Some(SnapState::Corrupt)));
            self.tally.told_damaged += damaged.len() as u64;
        }
        let listed: BTreeSet<SnapshotId> = rows.iter().map(|row| row.id).filter(|id| !damaged.contains(id)).collect();
        let gone: Vec<SnapshotId> = self.acknowledged.keys().copied().filter(|id| !listed.contains(id)).collect();
        let lost_before = self.tally.lost;
        for id in gone {
            // Counted once; and a disk that lied may give its number again.
            self.seen.remove(&id);
            let told = self.acknowledged.remove(&id);
            if told.is_some_and(|told| !self.may_be_erased(id, &told.camera)) {
                self.tally.lost += 1;
                self.complain(format!("{id} was acknowledged and is lost"));
            }
        }
        self.tally.most_lost_at_once = self.tally.most_lost_at_once.max(self.tally.lost - lost_before);
        if !self.lying {
            self.complaints.extend(damaged.iter().map(|id| format!("{id} is listed, but has no whole file")));
            let newest = rows.iter().map(|row| row.id.seq.0).max().unwrap_or_default();
            let known: BTreeSet<u64> = listed.iter().map(|id| id.seq.0).collect();
            for (seq, path) in numbered(&self.node.data.join("snapshots")) {
                // Newer ones are being taken right now.
                if seq <= newest && seq > self.erased_to && !known.contains(&seq) {
                    self.complaints.push(format!("{path} is in no index"));
                }
            }
            self.check_slots();
        }
    }

    fn may_be_erased(&self, id: SnapshotId, camera: &str) -> bool {
        camera == ERASED && id.seq.0 <= self.erased_to
    }
    fn wrong(&mut self, complaint: String) {
        self.tally.silently_wrong += 1;
        self.complaints.push(complaint);
    }
    /// On a disk that lies this is no fault of ours.
    fn complain(&mut self, complaint: String) {
        if !self.lying {
            self.complaints.push(complaint);
        }
    }

    /// The picture that is served under an id is the one that ever was.
    fn compare(&mut self, id: SnapshotId, hash8: Hash8) {
        let told = self.acknowledged.get(&id).and_then(|told| told.hash8);
        let before = *self.seen.entry(id).or_insert(hash8);
        if before != hash8 || told.is_some_and(|told| told != hash8) {
            self.wrong(format!("{id} is another picture than before"));
        }
    }

    /// Each slot of the boots before this one has an outcome of its own, or stands in a range that has one.
    fn check_slots(&mut self) {
        let Some(&(_, up_ms, _)) = self.boots.last() else { return };
        let offset_ms = now_ms() - boottime_now_ms() as i64;
        let Some(&(boot, from_ms, to_ms)) = self.boots.iter().rev().nth(1) else { return };
        for (camera, phase_ms) in SCHEDULES {
            for due_ms in (from_ms + 1..up_ms).filter(|ms| ms % PERIOD_MS == phase_ms) {
                let at = due_ms as i64 + offset_ms;
                let why: ExplainAnswer = self.socket.get(&format!("/explain?schedule={camera}-{phase_ms}&at={at}")).unwrap();
                let own = why.slot.as_ref().is_some_and(|slot| slot.due_ms == due_ms);
                let place = (boot, due_ms);
                let within = |range: &GapRange| {
                    (range.from.boot, range.from.due_ms) <= place && (place <= (range.to.boot, range.to.due_ms) || due_ms > to_ms)
                };
                self.tally.slots += 1;
                if why.outcome.is_none() || !(own || why.range.as_ref().is_some_and(within)) {
                    self.tally.slots_open += 1;
                    self.complaints.push(format!("{camera}-{phase_ms} at {due_ms} of boot {boot} has no outcome: {why:?}"));
                }
            }
        }
    }

    /// Takes and lists pictures as fast as it goes, until the power goes.
    fn work(&mut self, mut agent: Agent<'n>, inside: bool) {
        let enough = ACKNOWLEDGED_MIN + self.dice.below(ACKNOWLEDGED_MORE);
        let erase_after = (self.dice.below(2) == 0).then(|| self.dice.below(enough));
        // After a flush there are one to three writes before the next, as ext4 goes about it; after one that was not done, more.
        let nth = if inside { 1 + self.dice.below(if self.lying { 16 } else { 3 }) } else { 0 };
        let moment = Duration::from_millis(self.dice.below(CUT_WITHIN_MS));
        let (report, reports) = mpsc::channel();
        let mut acknowledged = 0;
        let pid = agent.child.id();
        let cut = thread::scope(|scope| {
            let _agent = EndsWithPanic(pid);
            for camera in CAMERAS.iter().cycle().take(CAMERAS.len() * ASKERS) {
                let (socket, report) = (self.socket.clone(), report.clone());
                scope.spawn(move || takes_pictures(&socket, camera, &report));
            }
            let socket = self.socket.clone();
            scope.spawn(move || lists_pictures(&socket, &report));
            let mut erasure = None;
            while acknowledged < enough {
                match reports.recv_timeout(PATIENCE) {
                    Ok(Report::Acknowledged(id, told)) => acknowledged += u64::from(self.note(id, told)),
                    Ok(Report::Refused(why)) => panic!("a picture was refused: {why}"),
                    Err(e) => panic!("no picture for {PATIENCE:?}: {e}"),
                }
                if erase_after.is_some_and(|after| acknowledged > after) && erasure.is_none() {
                    let socket = self.socket.clone();
                    erasure = Some(scope.spawn(move || socket.ask("POST", &format!("/cameras/{ERASED}/erase"))));
                }
            }
            thread::sleep(moment);
            let cut = self.disk.cut(self.dice.next(), nth);
            // Whoever waits gets no answer any more.
            agent.child.kill().unwrap();
            agent.ended();
            if let Some(erasure) = erasure {
                self.tally.erasures += 1;
                let begun = erasure.join().unwrap().ok().and_then(|answer| serde_json::from_slice::<EraseAnswer>(&answer.body).ok());
                // Without an answer it may have begun or not, and reached any of them.
                self.erased_to = begun.and_then(|answer| answer.erasure).map_or(u64::MAX, |erasure| erasure.upto);
            }
            cut
        });
        for report in reports {
            if let Report::Acknowledged(id, told) = report {
                acknowledged += u64::from(self.note(id, told));
            }
        }
        if self.erased_to == u64::MAX {
            self.erased_to = self.acknowledged.keys().map(|id| id.seq.0).max().unwrap_or_default() + 100;
        }
        if let Some(boot) = self.boots.last_mut() {
            boot.2 = boottime_now_ms();
        }
        self.count(&cut, acknowledged);
    }

    /// Whether that is news.
    fn note(&mut self, id: SnapshotId, told: Told) -> bool {
        match self.acknowledged.get_mut(&id) {
            Some(known) => {
                known.hash8 = known.hash8.or(told.hash8);
                false
            }
            None => {
                self.acknowledged.insert(id, told);
                true
            }
        }
    }

    fn count(&mut self, cut: &Cut, acknowledged: u64) {
        let tally = &mut self.tally;
        tally.cuts += 1;
        tally.inside += u64::from(cut.inside);
        tally.with_unflushed += u64::from(cut.unflushed > 0);
        tally.torn += u64::from(cut.kind == "torn" && cut.survived_bytes > 0 && cut.survived_bytes < cut.unflushed_bytes);
        tally.acknowledged += acknowledged;
        tally.fewest = Some(tally.fewest.map_or(acknowledged, |fewest| fewest.min(acknowledged)));
        tally.flushes += cut.flushes;
        tally.lies += cut.lies;
    }
}

/// The askers stop when the agent does; a test that fails meanwhile must not wait for them for ever.
struct EndsWithPanic(u32);

impl Drop for EndsWithPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = Command::new("kill").args(["-9", &self.0.to_string()]).status();
        }
    }
}

/// Every answer with an id is an acknowledgement: the picture survives a power cut from there on.
fn takes_pictures(socket: &Socket, camera: &str, report: &mpsc::Sender<Report>) {
    while let Ok(answer) = socket.ask("POST", &format!("/cameras/{camera}/snap")) {
        let id = answer.header(shutterd::api::ID_HEADER).and_then(|id| id.parse().ok());
        let told = match (id, meta::read(&answer.body)) {
            // Erased between its commit and its answer.
            (None, _) if camera == ERASED && answer.text().contains("cannot be read back") => continue,
            (Some(id), Ok(meta)) => Report::Acknowledged(id, Told { camera: camera.into(), hash8: Some(meta.hash8) }),
            _ => Report::Refused(answer.text()),
        };
        let over = matches!(told, Report::Refused(_));
        if report.send(told).is_err() || over {
            return;
        }
    }
}

/// A row that is shown is durable too.
fn lists_pictures(socket: &Socket, report: &mpsc::Sender<Report>) {
    while let Ok(page) = socket.get::<ListAnswer>("/snapshots?limit=20") {
        for row in page.snapshots {
            if report.send(Report::Acknowledged(row.id, Told { camera: row.camera.to_string(), hash8: None })).is_err() {
                return;
            }
        }
        thread::sleep(LIST_EVERY);
    }
}

/// Files below a directory whose name begins with a number.
pub fn numbered(dir: &Path) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.split_once('-') {
            _ if path.is_dir() => found.extend(numbered(&path)),
            Some((seq, _)) => found.extend(seq.parse().ok().map(|seq| (seq, path.display().to_string()))),
            None => {}
        }
    }
    found
}
