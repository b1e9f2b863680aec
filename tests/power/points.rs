//! One picture's life, taken and erased again, with every system call of the store failed in its turn: the process killed at it, an I/O
//! error, a full disk. Whatever that leaves, the agent starts on it and has all that it acknowledged.

use crate::agent::{Agent, Node, wait_for};
use crate::ask::{Answer, Socket};
use crate::books::told;
use crate::campaign::numbered;
use crate::dice::{Dice, soak_cuts};
use crate::order::strace;
use crate::parts::breakable;
use shutterd::api::{EraseAnswer, ListAnswer, StatusAnswer};
use shutterd::error::Exit;
use shutterd::image::meta;
use shutterd::model::SnapshotId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

/// Points tried in `make test`; a soak tries all.
const SAMPLE: usize = 40;
/// Calls that reach the disk. `?`: not every architecture has it.
const CALLS: &str = "?open,openat,?mkdir,mkdirat,fallocate,writev,fdatasync,fsync,syncfs,ftruncate,pwrite64,?unlink,unlinkat,?rmdir,getdents64,statx,statfs";
/// Those that can find the disk full, and of these the ones that only a picture needs: there nothing is lost but that picture.
const ROOM: [&str; 9] = ["open", "mkdir", "mkdirat", "fallocate", "writev", "fdatasync", "fsync", "ftruncate", "pwrite64"];
const PICTURE_ROOM: [&str; 5] = ["open", "mkdir", "mkdirat", "fallocate", "writev"];
/// This camera's pictures stay, that one's come and go.
const STAYS: &str = "stays";
const GOES: &str = "goes";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Io,
    Full,
}

impl Fault {
    /// Strace's words for it.
    fn at(self, call: &str, nth: u32) -> [String; 4] {
        let inject = match self {
            Self::Kill => "signal=KILL",
            Self::Io => "error=EIO",
            Self::Full => "error=ENOSPC",
        };
        ["-e".into(), format!("trace={call}"), "-e".into(), format!("inject={call}:{inject}:when={nth}")]
    }
}

struct Stage<'n> {
    node: &'n Node,
    /// Words before the agent's command line.
    wrap: &'n [&'n str],
    socket: Socket,
    agent: Option<Agent<'n>>,
    /// What was handed out and not erased.
    kept: BTreeSet<SnapshotId>,
    highest: u64,
    complaints: Vec<String>,
}

/// How one life went.
struct Life {
    taken: io::Result<Answer>,
    /// The number up to which the erasure was promised to go.
    erased_to: Option<u64>,
    /// The process's end, if it came of itself.
    ended: Option<std::process::ExitStatus>,
    /// What strace wrote.
    trace: String,
}

impl<'n> Stage<'n> {
    fn new(node: &'n Node, wrap: &'n [&'n str]) -> Self {
        node.configure(&[STAYS, GOES].map(|camera| format!("[cameras.{camera}]\nsource = \"pattern:?size=160x120\"\n")).concat());
        let socket = Socket::of(&node.root.join("run"));
        Self { node, wrap, socket, agent: None, kept: BTreeSet::new(), highest: 0, complaints: Vec::new() }
    }

    /// Starts on whatever there is, and looks it through.
    fn start(&mut self, point: &str) {
        // Its directories are made anew in each life.
        let _ = std::fs::remove_dir(self.node.data.join("snapshots").join(GOES));
        self.agent = Some(self.node.start_under(self.wrap));
        let status: StatusAnswer = self.socket.get("/status").unwrap();
        assert_eq!(status.fault, None, "{point}");
        let erasing =
            |socket: &Socket| socket.get::<EraseAnswer>(&format!("/cameras/{GOES}/erase")).unwrap().erasure.is_some_and(|e| !e.done);
        wait_for("a begun erasure to go on to its end", || !erasing(&self.socket));
        let rows = self.socket.get::<ListAnswer>("/snapshots?limit=1000").unwrap().snapshots;
        let listed: BTreeSet<SnapshotId> = rows.iter().map(|row| row.id).collect();
        let mut wrong = Vec::new();
        for id in self.kept.difference(&listed) {
            wrong.push(format!("{id} was acknowledged and is lost"));
        }
        for row in rows.iter().filter(|row| row.camera.as_str() == GOES || !self.kept.contains(&row.id)) {
            let answer = self.socket.ask("GET", &format!("/snapshots/{}", row.id)).unwrap();
            if meta::read(&answer.body).ok().is_none_or(|meta| meta.record.id != row.id) {
                wrong.push(format!("{} is listed, but is no whole picture: {}", row.id, answer.status));
            }
        }
        let files: BTreeSet<u64> = numbered(&self.node.data.join("snapshots")).into_iter().map(|(seq, _)| seq).collect();
        let numbers: BTreeSet<u64> = listed.iter().map(|id| id.seq.0).collect();
        if files != numbers {
            wrong.push(format!("files {:?} and rows {:?} are not the same", files.difference(&numbers), numbers.difference(&files)));
        }
        self.highest = self.highest.max(numbers.last().copied().unwrap_or_default());
        match self.snap(STAYS).map(|answer| taken(&answer)) {
            Ok(Some(id)) if id.seq.0 > self.highest => {
                self.highest = id.seq.0;
                self.kept.insert(id);
            }
            other => wrong.push(format!("the next picture is no new one: {other:?}, so far {}", self.highest)),
        }
        self.complaints.extend(wrong.into_iter().map(|what| format!("{point}: {what}")));
    }

    fn snap(&self, camera: &str) -> io::Result<Answer> {
        self.socket.ask("POST", &format!("/cameras/{camera}/snap"))
    }

    /// Strace on the store's thread alone, with these words.
    fn attach(&self, words: &[String]) -> Child {
        let pid = self.agent.as_ref().unwrap().child.id();
        let tasks = format!("/proc/{pid}/task");
        let store = std::fs::read_dir(&tasks).unwrap().flatten().map(|task| task.path());
        let store = store.into_iter().find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "store\n")).unwrap();
        let thread = store.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new("strace");
        command.args(["-qq", "-p", &thread, "-o"]).arg(self.node.root.join("trace")).args(words);
        let strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let traced =
            || std::fs::read_to_string(store.join("status")).is_ok_and(|s| s.contains("TracerPid:") && !s.contains("TracerPid:\t0\n"));
        wait_for("strace to attach", traced);
        strace
    }

    /// A picture is taken and erased again, under strace with these words. The agent is down afterwards.
    fn life(&mut self, words: &[String]) -> Life {
        let mut strace = self.attach(words);
        let taken = self.snap(GOES);
        let asked = self.socket.ask("POST", &format!("/cameras/{GOES}/erase")).ok().filter(|answer| answer.status == 200);
        let begun = asked.and_then(|answer| serde_json::from_slice::<EraseAnswer>(&answer.body).ok()).and_then(|answer| answer.erasure);
        let mut agent = self.agent.take().unwrap();
        let mut ended = None;
        wait_for("the erasure, or the agent's end", || {
            ended = agent.child.try_wait().unwrap();
            let done = self.socket.get::<EraseAnswer>(&format!("/cameras/{GOES}/erase")).is_ok_and(|e| e.erasure.is_some_and(|e| e.done));
            ended.is_some() || done
        });
        if ended.is_none() {
            // Done with its row; what goes with the last commit comes with the stop.
            agent.signal("TERM");
            ended = Some(agent.ended()).filter(|status| !status.success());
        }
        strace.wait().unwrap();
        let trace = std::fs::read_to_string(self.node.root.join("trace")).unwrap_or_default();
        Life { taken, erased_to: begun.map(|erasure| erasure.upto), ended, trace }
    }

    /// Judges a life with a fault in it, then starts again without.
    fn judge(&mut self, point: &str, call: &str, fault: Fault, life: &Life) {
        let code = life.ended.and_then(|status| status.code());
        let right = match (fault, life.ended) {
            (Fault::Kill, Some(status)) => status.signal() == Some(9),
            (Fault::Kill, None) => false,
            (Fault::Full, end) if PICTURE_ROOM.contains(&call) => {
                let refused = life.taken.as_ref().is_ok_and(|answer| answer.status != 200 && answer.text().contains("full"));
                refused && end.is_none()
            }
            (_, Some(_)) => code == Some(Exit::Storage as i32),
            (_, None) => true,
        };
        if !right {
            let said = life.taken.as_ref().map(|answer| (answer.status, if answer.status == 200 { String::new() } else { answer.text() }));
            self.complaints.push(format!("{point}: it ended with {:?}, and had said {said:?}", life.ended));
        }
        if let Some(id) = life.taken.as_ref().ok().and_then(taken) {
            self.highest = self.highest.max(id.seq.0);
            self.start(point);
            let there = self.socket.ask("GET", &format!("/snapshots/{id}")).unwrap().status == 200;
            // An erasure whose answer was lost may have begun or not; it has, if it is on record.
            let on_record = self.socket.get::<EraseAnswer>(&format!("/cameras/{GOES}/erase")).unwrap().erasure.map(|erasure| erasure.upto);
            if there == on_record.max(life.erased_to).is_some_and(|upto| id.seq.0 <= upto) {
                self.complaints.push(format!("{point}: {id} is there: {there}; erased up to {on_record:?}, promised {:?}", life.erased_to));
            }
        } else {
            self.start(point);
        }
    }
}

/// The picture that an answer hands out whole.
fn taken(answer: &Answer) -> Option<SnapshotId> {
    (answer.status == 200).then(|| meta::read(&answer.body).ok().map(|meta| meta.record.id))?
}

#[test]
fn killed_or_refused_at_any_step_it_starts_again_with_all_that_it_acknowledged() {
    if !strace() {
        return;
    }
    let node = Node::new("points");
    let mut stage = Stage::new(&node, &["env"]);
    stage.start("a first start");
    // Twice, so that the counts are those of a store at work.
    let watch = ["-e".to_owned(), format!("trace={CALLS}")];
    let mut counts = BTreeMap::new();
    for _ in 0..2 {
        let life = stage.life(&watch);
        assert!(life.ended.is_none() && life.taken.is_ok_and(|answer| answer.status == 200));
        counts.clear();
        for call in life.trace.lines().filter_map(|line| line.split_once('(')).map(|(call, _)| call.to_owned()) {
            *counts.entry(call).or_insert(0) += 1;
        }
        stage.start("no fault");
    }
    let mut points: Vec<(String, u32, Fault)> = Vec::new();
    for (call, count) in &counts {
        for nth in 1..=*count {
            points.extend([Fault::Kill, Fault::Io].map(|fault| (call.clone(), nth, fault)));
            points.extend(ROOM.contains(&call.as_str()).then(|| (call.clone(), nth, Fault::Full)));
        }
    }
    let all = points.len();
    if soak_cuts().is_none() {
        let mut dice = Dice::new("points");
        while points.len() > SAMPLE {
            points.swap_remove(dice.below(points.len() as u64) as usize);
        }
    }
    let mut hit = BTreeMap::new();
    for (call, nth, fault) in &points {
        let life = stage.life(&fault.at(call, *nth));
        let point = format!("{fault:?} at {call} number {nth}");
        let struck = life.trace.contains("(INJECTED)") || life.trace.contains("killed by SIGKILL");
        if struck {
            *hit.entry(format!("{fault:?}")).or_insert(0) += 1;
            stage.judge(&point, call, *fault, &life);
        } else {
            stage.start(&point);
        }
    }
    println!("system calls of one picture's life: {counts:?}");
    println!("points: {all}, tried {}, struck {hit:?}", points.len());
    assert!(stage.complaints.is_empty(), "{}", told(&stage.complaints));
    let struck: usize = hit.values().sum();
    // How many calls a commit makes varies with what falls together, more so on a busy machine: the highest numbers may not come up.
    assert!(struck * 4 >= points.len() * 3, "only {struck} of {} points were struck", points.len());
    assert!(stage.agent.take().unwrap().stop().0.success());
}

#[test]
fn a_row_written_before_its_file_is_found_out_by_a_kill_between_the_two() {
    if !strace() || !breakable() {
        return;
    }
    let mut node = Node::new("broken-points");
    node.use_broken();
    let mut stage = Stage::new(&node, &["env", "SHUTTER_BREAK=row_before_file"]);
    stage.start("a first start");
    let life = stage.life(&Fault::Kill.at("fallocate", 1));
    assert!(life.ended.is_some());
    stage.start("a kill between row and file");
    println!("as it should, it complains: {}", told(&stage.complaints));
    assert!(stage.complaints.iter().any(|c| c.contains("is listed, but is no whole picture")));
}
