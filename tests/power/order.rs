//! The order of steps, as the kernel saw it: the agent's own system calls against the order that the store's header gives.

use crate::agent::{Agent, Node, wait_for};
use crate::ask::Socket;
use crate::books::told;
use crate::disk::{Disk, skipped};
use crate::parts::breakable;
use shutterd::image::meta;
use shutterd::model::{BUCKET, CameraId, Hash8, SnapshotId};
use std::collections::HashMap;
use std::path::Path;
use std::thread;

const CAMERAS: [&str; 3] = ["gate", "yard", "lane"];
/// Pictures of each camera; the first camera's are erased in the end.
const PICTURES: u64 = 6;
/// `?`: not every architecture has it.
const CALLS: &str = "trace=?open,openat,?mkdir,mkdirat,write,writev,pwrite64,fsync,fdatasync,syncfs,?unlink,unlinkat,sendto,sendmsg";
const INDEX: &str = "/index.redb>";

/// A system call that succeeded, with the lines of the trace on which it began and was done.
struct Call {
    name: String,
    /// Arguments and result; file descriptors carry their paths.
    text: String,
    begun: usize,
    done: usize,
}

fn calls(trace: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (line, text) in trace.lines().enumerate() {
        let Some((thread, call)) = text.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            open.insert(thread, (line, start.to_owned()));
            continue;
        }
        let (begun, whole) = match call.strip_prefix("<... ").and_then(|rest| rest.split_once("resumed>")) {
            Some((_, rest)) => open.remove(thread).map_or((line, rest.to_owned()), |(begun, start)| (begun, start + rest)),
            None => (line, call.to_owned()),
        };
        let failed = whole.rsplit_once(" = ").is_none_or(|(_, result)| result.starts_with('-') || result.starts_with('?'));
        if let (Some((name, text)), false) = (whole.split_once('('), failed) {
            calls.push(Call { name: name.to_owned(), text: text.to_owned(), begun, done: line });
        }
    }
    calls.sort_by_key(|call| call.begun);
    calls
}

struct Trace(Vec<Call>);

impl Trace {
    /// The first such call that begins after a line.
    fn after(&self, line: usize, is: impl Fn(&Call) -> bool) -> Option<&Call> {
        self.0.iter().find(|call| call.begun > line && is(call))
    }
    fn flushed(&self, line: usize, path: &str) -> Option<usize> {
        let of = format!("<{path}>");
        let flush = |c: &Call| (["fsync", "fdatasync"].contains(&&*c.name) && c.text.contains(&of)) || c.name == "syncfs";
        self.after(line, flush).map(|call| call.done)
    }
    /// When the commit is done that holds this text: its page written, flushed, the head of the index written, flushed.
    fn committed(&self, line: usize, text: &str) -> Option<(&Call, usize)> {
        let index = |c: &Call, name: &str| c.name == name && c.text.contains(INDEX);
        let page = self.after(line, |c| index(c, "pwrite64") && c.text.contains(text))?;
        let pages = self.after(page.done, |c| index(c, "fdatasync"))?;
        let head = self.after(pages.done, |c| index(c, "pwrite64") && c.text.contains(", \"redb"))?;
        let flush = self.after(head.done, |c| index(c, "fdatasync"))?;
        Some((page, flush.done))
    }

    /// One picture's way: created, written, flushed, its directories flushed, row committed, and only then handed out.
    fn picture(&self, (id, camera, hash8): &(SnapshotId, CameraId, Hash8)) -> Result<(), String> {
        let prefix = format!("/snapshots/{camera}/{}/{}-", id.seq.0 / BUCKET, id.seq);
        let created = self.after(0, |c| c.name.starts_with("open") && c.text.contains("O_EXCL") && c.text.contains(&prefix));
        let created = created.ok_or("its file was never created under its own name")?;
        let path = created.text.split('"').nth(1).unwrap_or_default();
        let of = format!("<{path}>");
        let written = self
            .0
            .iter()
            .rfind(|c| ["write", "writev"].contains(&&*c.name) && c.text.contains(&of))
            .ok_or("nothing was written to its file")?;
        let mut ready = vec![self.flushed(written.done, path).ok_or("its bytes were never flushed")?];
        let dirs: Vec<_> = Path::new(path).ancestors().skip(1).map(|dir| dir.display().to_string()).collect();
        ready.push(self.flushed(created.done, &dirs[0]).ok_or("its name was never flushed")?);
        for pair in dirs.windows(2) {
            let made = self
                .0
                .iter()
                .rfind(|c| c.name.starts_with("mkdir") && c.begun < created.begun && c.text.contains(&format!("\"{}\"", pair[0])));
            if let Some(made) = made {
                ready.push(self.flushed(made.done, &pair[1]).ok_or_else(|| format!("the name of {} was never flushed", pair[0]))?);
            }
        }
        let (row, committed) = self.committed(0, &hash8.to_string()).ok_or("its row was never committed")?;
        if ready.iter().any(|&done| done > row.begun) {
            return Err("its row was written before its file and name were flushed".into());
        }
        let answered = self.after(0, |c| c.text.contains(&format!("x-snapshot-id: {id}\\r"))).ok_or("it was never handed out")?;
        if answered.begun < committed {
            return Err("it was handed out before its row was committed".into());
        }
        Ok(())
    }

    /// One deletion: committed as garbage, then the file goes, then its directory is flushed, then the index goes on.
    fn deletion(&self, gone: &Call) -> Result<(), String> {
        let path = gone.text.split('"').nth(1).unwrap_or_default();
        let at = path.find("snapshots/").unwrap_or_default();
        let (_, committed) = self.committed(0, &path[at..]).ok_or("nobody had written down that it was to go")?;
        if committed > gone.begun {
            return Err("it went before that was committed".into());
        }
        let dir = Path::new(path).parent().unwrap_or(Path::new("")).display().to_string();
        let flushed = self.flushed(gone.done, &dir).ok_or("its going was never flushed")?;
        let next = self.after(gone.done, |c| c.name == "pwrite64" && c.text.contains(INDEX));
        if next.is_some_and(|next| next.begun < flushed) {
            return Err("the index went on before its going was flushed".into());
        }
        Ok(())
    }
}

/// What the agent did: pictures and deletions looked at, and complaints.
#[derive(Default)]
struct Seen {
    pictures: usize,
    deletions: usize,
    complaints: Vec<String>,
}

fn look(trace: &str, pictures: &[(SnapshotId, CameraId, Hash8)]) -> Seen {
    let trace = Trace(calls(trace));
    let mut seen = Seen::default();
    for picture in pictures {
        seen.pictures += 1;
        seen.complaints.extend(trace.picture(picture).err().map(|why| format!("{}: {why}", picture.0)));
    }
    for gone in trace.0.iter().filter(|c| c.name.starts_with("unlink") && c.text.contains("/snapshots/")) {
        seen.deletions += 1;
        seen.complaints.extend(trace.deletion(gone).err().map(|why| format!("{}: {why}", gone.text)));
    }
    seen
}

/// An agent under strace that takes pictures of all cameras at once, then erases one camera's. It may be one that ends itself.
fn traced(node: &Node, switch: Option<&str>) -> Seen {
    let file = node.root.join("trace");
    let mut words = vec!["env".to_owned()];
    words.extend(switch.map(|switch| format!("SHUTTER_BREAK={switch}")));
    words.extend(["strace", "-D", "-f", "-y", "-s", "65536", "-e", CALLS, "-o"].map(str::to_owned));
    words.push(file.display().to_string());
    let text: String = CAMERAS.iter().map(|camera| format!("[cameras.{camera}]\nsource = \"pattern:?size=160x120\"\n")).collect();
    node.configure(&text);
    let mut agent: Agent = node.start_under(&words);
    let pid = agent.child.id();
    let socket = Socket::of(&node.root.join("run"));
    let takes = |camera: &str| {
        let answers = (0..PICTURES).map_while(|_| socket.ask("POST", &format!("/cameras/{camera}/snap")).ok());
        let metas = answers.map_while(|answer| meta::read(&answer.body).ok());
        metas.map(|meta| (meta.record.id, meta.record.camera, meta.hash8)).collect::<Vec<_>>()
    };
    let pictures: Vec<_> = thread::scope(|scope| {
        let all = CAMERAS.map(|camera| scope.spawn(move || takes(camera)));
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    if switch.is_some() {
        // If it has not ended itself.
        let _ = agent.child.kill();
        agent.ended();
    } else {
        assert_eq!(socket.ask("POST", &format!("/cameras/{}/erase", CAMERAS[0])).unwrap().status, 200);
        wait_for("the erasure", || node.logged("the camera's pictures are erased") == 1);
        assert!(agent.stop().0.success());
    }
    let mut trace = String::new();
    wait_for("the trace", || {
        trace = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
        trace.lines().any(|line| line.starts_with(&format!("{pid} ")) && line.contains("+++ "))
    });
    look(&trace, &pictures)
}

pub fn strace() -> bool {
    let here = std::process::Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success());
    if !here {
        skipped("strace is not installed");
    }
    here
}

#[test]
fn the_kernel_sees_file_name_row_and_answer_in_that_order() {
    if !strace() {
        return;
    }
    for own_partition in [false, true] {
        let node = Node::new("order");
        let disk = if own_partition { Disk::ext4(&node.data, 64) } else { None };
        if own_partition && disk.is_none() {
            return;
        }
        let seen = traced(&node, None);
        println!("partition of its own: {own_partition}; in order: {} pictures, {} deletions", seen.pictures, seen.deletions);
        assert!(seen.complaints.is_empty(), "{}", told(&seen.complaints));
        assert_eq!((seen.pictures as u64, seen.deletions as u64), (PICTURES * CAMERAS.len() as u64, PICTURES));
    }
}

#[test]
fn a_row_written_before_its_file_is_seen_by_the_kernel() {
    if !strace() || !breakable() {
        return;
    }
    let mut node = Node::new("disorder");
    node.use_broken();
    let seen = traced(&node, Some("row_before_file"));
    let found = seen.complaints.iter().any(|c| c.contains("its row was written before its file and name were flushed"));
    assert!(found, "of {} pictures: {}", seen.pictures, told(&seen.complaints));
    println!("as it should, it complains: {}", told(&seen.complaints));
}
