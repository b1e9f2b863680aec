//! Mistakes of people and cameras, from outside: the real agent as a process, its words, and what it puts on record.
//!
//! Each case: a clear message, a reason on record, the others undisturbed, and nobody dies of it.

#[path = "rig/agent.rs"]
mod rig;

use rig::{Node, now_ms, pause, text, wait_for};
use shutterd::model::{Off, Outcome};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

const GOOD: &str = "[cameras.good]\nsource = \"pattern:?size=320x240\"\n[schedules.good-1s]\ncamera = \"good\"\nevery = \"1s\"\n";

/// A mistake, and the line that tells of it. The node's own sections take five lines; the text begins with the sixth.
const MISTAKES: [(&str, &str); 9] = [
    ("[cameras.gate]\nsource = \"pattern:\"\ntiemout = \"5s\"", "8: unknown key \"tiemout\" in [cameras.gate]; did you mean \"timeout\"?"),
    (
        "[cameras.gate]\nsource = \"pattern:\"\nquality = \"high\"",
        "8: [cameras.gate] quality: expected a whole number from 1 to 100, got a text",
    ),
    (
        "[schedules.day]\ncamera = \"gate\"\nevery = \"1h\"",
        "7: [schedules.day] camera: \"gate\" is no camera of this file; there is none yet",
    ),
    (
        "[cameras.gate]\nsource = \"pattern:\"\n[schedules.day]\ncamera = \"gaet\"\nevery = \"1h\"",
        "9: [schedules.day] camera: \"gaet\" is no camera of this file; did you mean \"gate\"?",
    ),
    (
        "[cameras.gate]\nsource = \"pattern:\"\n[schedules.day]\ncamera = \"gate\"\nevery = \"-5m\"",
        "10: [schedules.day] every: \"-5m\" is negative; write a duration such as \"5m\"",
    ),
    (
        "[cameras.gate]\nsource = \"pattern:\"\n[schedules.day]\ncamera = \"gate\"\nevery = 300",
        "10: [schedules.day] every: expected a duration such as \"5m\", got a number",
    ),
    (
        "[cameras.gate]\nsource = \"pattern:\"\n[schedules.day]\ncamera = \"gate\"\nevery = \"1h\"\n[schedules.day]\ncamera = \"gate\"\nevery = \"2h\"",
        "11: a second section of the name \"day\" (the first is on line 8); give one of them another name, or delete it",
    ),
    (
        "[cameras.\"../gate\"]\nsource = \"pattern:\"",
        "6: name of a camera: this value is not an id: use 1 to 32 of a-z, 0-9, - and _, starting with a letter or digit",
    ),
    (
        "[cameras.gate]\nsource = \"ftp://10.0.0.5/x\"",
        "7: [cameras.gate] source: not a camera address; it begins with rtsp://, v4l2:, command: or pattern:, such as \"rtsp://user@10.0.0.5/stream\"",
    ),
];

#[test]
fn check_and_run_tell_each_mistake_with_its_line_and_what_to_write() {
    let node = Node::new("mistakes");
    for (mistake, line) in MISTAKES {
        node.configure(mistake);
        let expected = format!("{}:{line}", node.file().display());
        let check = node.command(&["check"]);
        assert_eq!(check.status.code(), Some(78), "{mistake}");
        let end = format!("shutterd: {}: 1 error; nothing was changed", node.file().display());
        assert_eq!(text(&check.stderr).lines().collect::<Vec<_>>(), [expected.as_str(), &end], "{mistake}");
        let run = node.command(&["run"]);
        assert_eq!(run.status.code(), Some(78), "{mistake}");
        let none =
            format!("{}: there is no earlier accepted configuration to run on instead", node.data.join("config.accepted.toml").display());
        assert_eq!(text(&run.stderr).lines().collect::<Vec<_>>(), [expected.as_str(), &none], "{mistake}");
    }
    let all =
        "[cameras.gate]\nsource = 5\n[schedules.a]\ncamera = \"gate\"\nevery = \"1ms\"\n[schedules.b]\ncamera = \"gote\"\nevery = \"1x\"";
    node.configure(all);
    assert_eq!(text(&node.command(&["check"]).stderr).lines().count(), 5, "all mistakes are told at once");
    assert!(!node.data.exists(), "nothing was written");
}

#[test]
fn a_node_that_ran_before_runs_on_its_accepted_file_when_the_present_one_is_broken() {
    let node = Node::new("kept");
    node.configure(GOOD);
    let agent = node.start();
    node.wait_for_pictures("good", 1);
    assert!(agent.stop().0.success());
    node.configure(&GOOD.replace("every", "evry"));
    let agent = node.start();
    node.wait_for_pictures("good", 2);
    let status = node.status();
    let complaint = ":10: unknown key \"evry\" in [schedules.good-1s]; did you mean \"every\"?";
    assert_eq!(status.config, "kept");
    assert!(status.config_error.is_some_and(|e| e.contains(complaint)));
    assert!(text(&node.command(&["status"]).stdout).contains("the last accepted one, because the present file is bad"));
    assert_eq!(node.logged("the configuration cannot be used, the last accepted one runs instead"), 1);
    assert_eq!(node.logged(complaint), 1);
    assert!(agent.stop().0.success());
}

#[test]
fn a_reload_takes_a_good_file_and_leaves_a_bad_one() {
    let node = Node::new("reload");
    node.configure(GOOD);
    let mut agent = node.start();
    node.wait_for_pictures("good", 1);
    node.configure("[cameras.good]\nsource = 1\n");
    agent.signal("HUP");
    wait_for("the complaint", || node.status().config_error.is_some());
    assert_eq!(node.logged("the new configuration is not used, the running one stays"), 1);
    node.wait_for_pictures("good", 2);

    let changed = GOOD.replace("good-1s", "other-1s")
        + "[cameras.second]\nsource = \"pattern:?size=64x64\"\n[schedules.second-1s]\ncamera = \"second\"\nevery = \"1s\"\n";
    node.configure(&changed);
    agent.signal("HUP");
    wait_for("the good file", || node.logged("the new configuration is in force") == 1);
    assert_eq!(node.status().config_error, None);
    let swapped_ms = shutterd::clock::boottime_now_ms();
    wait_for("both new schedules", || node.taken("second") >= 2 && of_schedule(&node, "other-1s").len() >= 2);
    let removed = of_schedule(&node, "good-1s");
    assert!(!removed.is_empty() && removed.iter().all(|(_, due_ms)| *due_ms <= swapped_ms), "a removed schedule does not fire");
    assert!(agent.runs());
}

/// Boot and due time of each picture's slots of a schedule.
fn of_schedule(node: &Node, schedule: &str) -> Vec<(u32, u64)> {
    let slots = node.pictures().snapshots.into_iter().flat_map(|row| row.slots);
    slots.filter(|s| s.schedule.as_str() == schedule).map(|s| (s.boot, s.due_ms)).collect()
}

/// Every second of the good camera has its picture, taken in time.
fn assert_undisturbed(node: &Node, at_least: usize) {
    let mut dues: Vec<u64> = of_schedule(node, "good-1s").into_iter().map(|(_, due_ms)| due_ms).collect();
    dues.sort_unstable();
    assert!(dues.len() >= at_least, "{dues:?}");
    assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "a slot has no picture: {dues:?}");
    for row in node.pictures().snapshots {
        for slot in row.slots.iter().filter(|s| s.schedule.as_str() == "good-1s") {
            assert!(row.taken.boottime_ms - slot.due_ms < 900, "late by {} ms", row.taken.boottime_ms - slot.due_ms);
        }
    }
}

#[test]
fn a_camera_whose_decoder_panics_is_left_alone_and_disturbs_nobody() {
    let node = Node::new("panic");
    let bad = "[cameras.bad]\nsource = \"pattern:?fault=panic\"\n[schedules.bad-1s]\ncamera = \"bad\"\nevery = \"1s\"\n";
    node.configure(&(GOOD.to_owned() + bad));
    let mut agent = node.start();
    wait_for("the panic", || node.error_of("bad").is_some());
    node.wait_for_pictures("good", 4);
    assert!(agent.runs());
    assert_eq!(node.logged("panicked at"), 1, "it is not tried again at once");
    assert_eq!(node.logged("no picture:"), 1, "a lasting fault is told once");
    let Some(Outcome::Failed { reason }) = node.outcome("bad-1s", now_ms() - 1_000) else { panic!("no reason on record") };
    assert_eq!(reason.code, "panic");
    assert!(reason.detail.contains("not tried again for"), "{}", reason.detail);
    assert_undisturbed(&node, 4);
    assert!(agent.stop().0.success());
}

#[test]
fn a_camera_that_never_comes_back_is_called_hung_and_delays_nobody() {
    let node = Node::new("stuck");
    let bad =
        "[cameras.bad]\nsource = \"pattern:?fault=stuck:60000\"\ntimeout = \"1s\"\n[schedules.bad-1s]\ncamera = \"bad\"\nevery = \"1s\"\n";
    node.configure(&(GOOD.to_owned() + bad));
    let agent = node.start();
    wait_for("the verdict", || node.error_of("bad").as_deref() == Some("hung"));
    node.wait_for_pictures("good", 3);
    let Some(Outcome::Failed { reason }) = node.outcome("bad-1s", now_ms() - 1_000) else { panic!("no reason on record") };
    assert_eq!(reason.code, "hung");
    assert_eq!(node.logged("no picture:"), 1, "a lasting fault is told once");
    let snap = node.command(&["snap", "bad", "-o", "-"]);
    assert_eq!((snap.status.code(), text(&snap.stderr).contains("busy")), (Some(1), true), "{}", text(&snap.stderr));
    assert_undisturbed(&node, 5);
    let (status, took) = agent.stop();
    assert!(status.success() && took.as_secs() < 14, "{status} after {took:?}");
    let agent = node.start();
    assert_eq!(node.logged("the process died in this camera"), 0, "an ordered stop is no crash");
    drop(agent);
}

#[test]
fn a_stop_is_quick_and_on_record_and_a_restart_fires_nothing_twice() {
    let node = Node::new("stop");
    let slow = "[cameras.slow]\nsource = \"pattern:?fault=late:700\"\n[schedules.slow-1s]\ncamera = \"slow\"\nevery = \"1s\"\n";
    node.configure(&(GOOD.to_owned() + slow));
    let mut middles = Vec::new();
    for _ in 0..2 {
        let agent = node.start();
        node.wait_for_pictures("good", 2);
        let (status, took) = agent.stop();
        assert_eq!(status.code(), Some(0));
        assert!(took.as_millis() < 2_500, "stopping took {took:?}");
        pause(3_200);
        middles.push((now_ms() - 1_600, Off::Stop));
    }
    let mut agent = node.start();
    node.wait_for_pictures("good", 2);
    agent.child.kill().unwrap();
    agent.ended();
    pause(3_200);
    middles.push((now_ms() - 1_600, Off::Crash));
    let agent = node.start();
    let started_ms = shutterd::clock::boottime_now_ms();
    node.wait_for_pictures("good", 2);
    for (middle, reason) in middles {
        for schedule in ["good-1s", "slow-1s"] {
            assert_eq!(node.outcome(schedule, middle), Some(Outcome::Off { reason }), "{schedule}");
        }
    }
    let fired = of_schedule(&node, "good-1s");
    let distinct: HashSet<_> = fired.iter().collect();
    assert_eq!(fired.len(), distinct.len(), "a slot fired twice");
    assert!(fired.iter().all(|(boot, _)| *boot == 1), "a restart is no new boot");
    let burst = fired.iter().filter(|(_, due_ms)| (started_ms - 1_500..started_ms + 500).contains(due_ms)).count();
    assert!(burst <= 2, "{burst} slots at once");
    assert!(agent.stop().0.success());
}

#[test]
fn no_secret_leaves_the_configuration() {
    const SECRETS: [&str; 2] = ["Tr0ub4dor", "c0rrect-h0rse"];
    let node = Node::new("secrets");
    // A camera that asks for the password and refuses it, and a hub that takes a connection and says nothing sensible.
    let (camera, to_camera) = server(b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm=\"cam\"\r\n\r\n");
    let (hub, to_hub) = server(b"\x20\x03\x00\x86\x00");
    node.configure(&format!(
        "[hub]\nurl = \"mqtt://n1:{}@127.0.0.1:{hub}\"\n[log]\nlevel = \"trace\"\n{GOOD}\
         [cameras.gate]\nsource = \"rtsp://admin:{}@127.0.0.1:{camera}/live\"\n[schedules.gate-1s]\ncamera = \"gate\"\nevery = \"1s\"\n",
        SECRETS[1], SECRETS[0],
    ));
    let agent = node.start();
    node.wait_for_pictures("good", 2);
    wait_for("the refusals", || node.error_of("gate").is_some() && node.status().uplink.error.is_some());
    agent.signal("HUP");
    node.wait_for_pictures("good", 1);
    let mut said = vec![("log".to_owned(), node.log().into_bytes())];
    for words in
        [&["status"][..], &["check"], &["cameras"], &["ls"], &["snap", "gate", "-o", "-"], &["explain", "gate-1s", "2026-01-01T00:00:00Z"]]
    {
        for json in [&[][..], &["--json"]] {
            let output = node.command(&[words, json].concat());
            said.push((words.join(" "), [output.stdout, output.stderr].concat()));
        }
    }
    for name in ["cmdline", "environ", "comm"] {
        said.push((name.to_owned(), std::fs::read(format!("/proc/{}/{name}", agent.child.id())).unwrap_or_default()));
    }
    for path in files(&node.root) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match name.as_str() {
            // The owner's own file, and the kept copy that only its owner may read.
            "shutterd.toml" => {}
            "config.accepted.toml" => assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600),
            _ => said.push((name, std::fs::read(&path).unwrap_or_default())),
        }
    }
    assert!(said.iter().any(|(name, _)| name.ends_with(".jpg")) && node.log().contains("gate"), "there is something to look at");
    let basic = "YWRtaW46VHIwdWI0ZG9y";
    assert!(text(&to_camera.lock().unwrap()).contains(basic) && text(&to_hub.lock().unwrap()).contains(SECRETS[1]), "both were used");
    for (name, bytes) in &said {
        for secret in SECRETS.into_iter().chain([basic]) {
            assert!(!text(bytes).contains(secret), "a password is in {name}");
        }
    }
    assert!(agent.stop().0.success());
}

/// Answers every client with the same bytes, for as long as the test lives; returns its port and what it hears.
fn server(answer: &'static [u8]) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let all = heard.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let heard = all.clone();
            std::thread::spawn(move || {
                let (mut client, mut piece) = (client, [0; 4096]);
                while let Ok(n @ 1..) = client.read(&mut piece) {
                    heard.lock().unwrap().extend(&piece[..n]);
                    if client.write_all(answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, heard)
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}
