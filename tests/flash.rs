//! What goes to the flash: our count against the system calls, what `economy` saves, and what it may lose.

#[path = "rig/agent.rs"]
mod rig;

use rig::{Agent, Node, now_ms, pause, text, wait_for};
use shutterd::model::{Off, Outcome};
use shutterd::protocol::{Written, WrittenFor};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

const STRACE: &str = "/usr/bin/strace";
const BY_HAND: &str = "[cameras.card]\nsource = \"pattern:?size=320x240\"\n";

/// What the kernel was asked for below the data directory, by the trace's own sums.
fn asked(trace: &str, data: &Path) -> WrittenFor {
    let data = data.canonicalize().unwrap().display().to_string();
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut sums = WrittenFor::default();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let (first, last) = match call.strip_prefix("<... ") {
            Some(rest) => (begun.remove(thread).unwrap_or_default(), rest),
            None => (call, call),
        };
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, start);
            continue;
        }
        let Some(path) = first.split_once('<').and_then(|(_, rest)| Some(rest.split_once('>')?.0)) else { continue };
        let Some(below) = path.strip_prefix(&data) else { continue };
        let Some(result) = last.rsplit_once(" = ").and_then(|(_, n)| n.split(' ').next()?.parse::<u64>().ok()) else { continue };
        let class = if below == "/index.redb" { &mut sums.index } else { &mut sums.pictures };
        match first.split('(').next().unwrap_or_default() {
            "fsync" | "fdatasync" | "syncfs" => class.flushes += 1,
            "pwrite64" | "writev" => class.bytes += result,
            other => panic!("the store does not write like that: {other} {line}"),
        }
    }
    sums
}

fn snaps(node: &Node, count: u64) {
    for _ in 0..count {
        let file = node.root.join("snap.jpg").display().to_string();
        let out = node.command(&["snap", "card", "-o", &file]);
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
}

#[test]
fn the_count_of_bytes_and_flushes_is_that_of_the_system_calls() {
    if !Path::new(STRACE).exists() {
        assert!(std::env::var_os("CI").is_none(), "apt-get install strace");
        eprintln!("\n*** SKIPPED: apt-get install strace\n");
        return;
    }
    let node = Node::new("flash");
    // Nobody but us writes: a picture is taken when the test asks for one. The first start also makes names durable that are not for
    // pictures or rows, such as the kept configuration's; a later one nothing of that.
    node.configure(BY_HAND);
    for (run, count) in [("first", 3), ("second", 20)] {
        let trace = node.root.join(run);
        let mut agent = node.start_traced(&trace);
        snaps(&node, count);
        let said = node.status().flash.unwrap();
        agent.child.kill().unwrap();
        agent.ended();
        wait_for("the whole trace", || std::fs::read_to_string(&trace).is_ok_and(|t| t.contains("+++ killed by SIGKILL +++")));
        let truth = asked(&std::fs::read_to_string(&trace).unwrap(), &node.data);
        println!("flash, {run} run, {count} pictures: the kernel was asked for {truth:?}; the agent counts {:?}", said.since_start);
        assert!(truth.pictures.bytes > 0 && truth.index.flushes > count);
        if run == "first" {
            let bytes = |w: &WrittenFor| (w.pictures.bytes, w.index.bytes);
            assert_eq!(bytes(&said.since_start), bytes(&truth));
            assert_eq!(said.today.written, said.since_start);
            continue;
        }
        assert_eq!(said.since_start, truth);
        // The day goes on over a kill; what followed the first run's last commit may be missing (its own bytes, no picture).
        let status = node.start_and_ask();
        let day = status.flash_days.last().unwrap().written.pictures;
        assert!(day.bytes >= said.today.written.pictures.bytes, "{day:?} {said:?}");
    }
    let agent = node.start();
    let words = text(&node.command(&["status"]).stdout);
    println!("{}", words.lines().skip_while(|l| !l.starts_with("flash")).take(2).collect::<Vec<_>>().join("\n"));
    assert!(words.contains("flash    today"), "{words}");
    assert!(agent.stop().0.success());
}

trait Ask {
    fn start_and_ask(&self) -> shutterd::api::StatusAnswer;
}
impl Ask for Node {
    fn start_and_ask(&self) -> shutterd::api::StatusAnswer {
        let _agent = self.start();
        self.status()
    }
}

/// Four cameras, a picture a second each.
fn four(profile: &str) -> String {
    let camera = |n| {
        let source = "source = \"pattern:?size=320x240\"";
        format!("[cameras.c{n}]\n{source}\n[schedules.c{n}-1s]\ncamera = \"c{n}\"\nevery = \"1s\"\nphase = \"{}ms\"\n", n * 250)
    };
    format!("profile = \"{profile}\"\n{}", (0..4).map(camera).collect::<String>())
}

/// Bytes and flushes a picture, over two groups of what `economy` takes together.
fn per_picture(node: &Node) -> (f64, f64, u64) {
    let before = node.status();
    let taken = |status: &shutterd::api::StatusAnswer| status.stored;
    wait_for("64 pictures", || taken(&node.status()) >= taken(&before) + 64);
    let after = node.status();
    let all = |w: &WrittenFor| w.pictures + w.index;
    let Written { bytes, flushes } = all(&after.flash.as_ref().unwrap().since_start) - all(&before.flash.as_ref().unwrap().since_start);
    let count = taken(&after) - taken(&before);
    (bytes as f64 / count as f64, flushes as f64 / count as f64, count)
}

#[test]
fn economy_asks_the_disk_for_far_fewer_flushes_and_bytes_a_picture() {
    let (prompt, economy) = (Node::new("prompt"), Node::new("economy"));
    prompt.configure(&four("prompt"));
    economy.configure(&four("economy"));
    let check = text(&economy.command(&["check"]).stdout);
    assert!(check.contains("a power cut may lose up to the last 1 min of pictures; each lost slot is on record as off(power)"), "{check}");
    let agents = (prompt.start(), economy.start());
    let (p, e) = (per_picture(&prompt), per_picture(&economy));
    println!("flash: prompt  {:>7.0} B and {:.2} flushes a picture ({} pictures)", p.0, p.1, p.2);
    println!("flash: economy {:>7.0} B and {:.2} flushes a picture ({} pictures)", e.0, e.1, e.2);
    println!("flash: ratio   {:.1} in bytes, {:.1} in flushes", p.0 / e.0, p.1 / e.1);
    assert!(p.0 / e.0 > 3.0 && p.1 / e.1 > 2.5, "{p:?} {e:?}");
    assert_eq!(economy.status().flash.unwrap().loss_window_s, 60);
    assert!(text(&economy.command(&["status"]).stdout).contains("economy: a power cut may lose up to the last 60 s of pictures"));
    assert!(agents.0.stop().0.success() && agents.1.stop().0.success());
}

const ONE: &str = "profile = \"economy\"\n[cameras.card]\nsource = \"pattern:?size=320x240\"\n\
    [schedules.card-1s]\ncamera = \"card\"\nevery = \"1s\"\n";

/// Every slot between two instants has its outcome; returns how many ended how, and complaints about slots that are missing.
fn account(node: &Node, from_ms: i64, to_ms: i64) -> (BTreeMap<String, u64>, Vec<String>) {
    let (mut ended, mut dues, mut complaints) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut at = from_ms;
    while at <= to_ms {
        let found = node.explain("card-1s", at);
        match (found.slot, found.range, &found.outcome) {
            (Some(slot), None, Some(outcome)) => _ = dues.insert(slot.due_ms, outcome.clone()),
            (_, Some(range), Some(outcome)) => {
                for due in (range.from.due_ms..=range.to.due_ms).step_by(1_000) {
                    dues.insert(due, outcome.clone());
                }
            }
            _ => {}
        }
        at += 500;
    }
    for (due, next) in dues.keys().zip(dues.keys().skip(1)) {
        if next - due > 1_500 {
            complaints.push(format!("nothing is on record between the slots {due} and {next}"));
        }
    }
    let (planned, found) = ((to_ms - from_ms) / 1_000, dues.len() as i64);
    if found < planned - 1 {
        complaints.push(format!("of {planned} slots {found} are on record"));
    }
    for outcome in dues.values() {
        let label = match outcome {
            Outcome::Captured { .. } => "captured".to_owned(),
            other => other.to_string(),
        };
        *ended.entry(label).or_default() += 1;
    }
    (ended, complaints)
}

/// Runs until eight pictures are held, and dies with them. Returns what is on record afterwards.
fn killed_in_the_window(node: &Node, mut agent: Agent) -> (BTreeMap<String, u64>, Vec<String>) {
    // A snap takes along what was held.
    snaps(node, 1);
    let begun_ms = now_ms();
    let stored = node.status().stored;
    pause(8_000);
    assert_eq!(node.status().stored, stored, "what is held is not called stored");
    agent.child.kill().unwrap();
    agent.ended();
    let killed_ms = now_ms();
    let agent = node.start();
    snaps(node, 1);
    // The next slots are captured: what comes before them cannot be mistaken for the future.
    pause(5_000);
    snaps(node, 1);
    let found = account(node, begun_ms, killed_ms + 4_000);
    assert!(node.status().stored > stored, "what was stored before is still there");
    assert!(agent.stop().0.success());
    found
}

#[test]
fn kill_in_the_window_loses_at_most_the_window_and_each_lost_slot_is_on_record() {
    let node = Node::new("window");
    node.configure(ONE);
    let (ended, complaints) = killed_in_the_window(&node, node.start());
    println!("economy, killed with 8 s of pictures held: {ended:?}");
    let lost = ended.get(&Outcome::Off { reason: Off::Crash }.to_string()).copied().unwrap_or(0);
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!((7..=12).contains(&lost), "{ended:?}");

    let broken = Node::new("window-broken");
    broken.configure(ONE);
    let Some(agent) = broken.start_broken("held_is_settled") else { return };
    let (ended, complaints) = killed_in_the_window(&broken, agent);
    println!("as it should, it complains of a cursor that passes held pictures: {complaints:?} ({ended:?})");
    assert!(!complaints.is_empty(), "the check does not notice a cursor that passes what is held: {ended:?}");
}

#[test]
fn a_snap_does_not_wait_for_the_window_and_an_ordered_stop_loses_nothing() {
    let node = Node::new("stop");
    node.configure(ONE);
    let agent = node.start();
    snaps(&node, 1);
    pause(3_000);
    let (asked_ms, stored) = (now_ms(), node.status().stored);
    snaps(&node, 1);
    let waited_ms = now_ms() - asked_ms;
    let along = node.status().stored - stored - 1;
    println!("economy: a snap was answered after {waited_ms} ms and took {along} held pictures along");
    assert!(waited_ms < 10_000 && along >= 2);
    pause(3_000);
    let stored = node.status().stored;
    let (status, took) = agent.stop();
    assert!(status.success());
    let stopped_ms = now_ms();
    let agent = node.start();
    let kept = node.status().stored - stored;
    println!("economy: an ordered stop took {took:?} and stored the {kept} pictures that were held");
    assert!(kept >= 3);
    let (ended, complaints) = account(&node, asked_ms - 2_000, stopped_ms - 1_000);
    assert!(complaints.is_empty() && ended.keys().all(|label| label == "captured"), "{ended:?} {complaints:?}");
    assert!(agent.stop().0.success());
}

#[test]
fn slots_held_over_a_power_cut_are_on_record_as_off_power() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
        eprintln!("\n*** SKIPPED: another boot can only be shown as root\n");
        return;
    }
    let node = Node::new("power");
    node.configure(ONE);
    let mut agent = node.start_in_boot("11111111-0000-0000-0000-000000000001\n");
    snaps(&node, 1);
    let (held_ms, stored) = (now_ms() + 2_000, node.status().stored);
    pause(5_000);
    // Nothing of them has been written: a power cut could take no more.
    agent.child.kill().unwrap();
    agent.ended();
    let agent = node.start_in_boot("22222222-0000-0000-0000-000000000002\n");
    assert_eq!(node.status().stored, stored);
    assert_eq!(node.outcome("card-1s", held_ms), Some(Outcome::Off { reason: Off::Power }));
    assert!(agent.stop().0.success());
}
