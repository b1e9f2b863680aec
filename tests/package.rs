//! What the package promises of the service: how little it may do, what systemd hears of it, and that it does not wear itself out.
//!
//! Installed and run by a real systemd it is shown in `tests/package/boot.sh` (`make package-test`) and on the emulated board.

#[path = "rig/agent.rs"]
mod rig;

use rig::{Node, wait_for};
use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// In tenths, as `systemd-analyze security` shows it. Reading the clock's state costs the agent 0.2 of it: systemd counts the call as if it
/// set the clock, which needs a capability that the service has not got.
const EXPOSURE_MAX: [(&str, u32); 2] = [("shutterd", 17), ("shutter-hub", 15)];

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("systemd/{name}.service"));
    std::fs::read_to_string(path).unwrap()
}

/// A unit as a file of its own in an empty folder.
fn file(name: &str, tag: &str, text: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unit-{tag}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{name}.service"));
    std::fs::write(&path, text).unwrap();
    path
}

fn analyze_is_here() -> bool {
    let here = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success());
    if !here {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing: install the package systemd");
        eprintln!("\n*** SKIPPED, there is no systemd-analyze to judge the units. Run `make test`, or: apt-get install systemd\n");
    }
    here
}

/// What is wrong with a unit: too much exposure, something open that it does not list, or something listed that is not open.
fn complaints(name: &str, tag: &str, text: &str, exposure_max: u32) -> Vec<String> {
    let path = file(name, tag, text);
    let run =
        |json: &str| Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", json]).arg(&path).output().unwrap();
    let plain = rig::text(&run("--json=off").stdout);
    let overall =
        plain.lines().find_map(|line| line.split_once("Overall exposure level for ")?.1.split_whitespace().nth(1)?.parse::<f64>().ok());
    let mut wrong = Vec::new();
    match overall {
        Some(level) if (level * 10.0).round() as u32 <= exposure_max => println!("{name}: exposure {level}"),
        Some(level) => wrong.push(format!("exposure {level}")),
        None => wrong.push(format!("no exposure in: {plain}")),
    }
    let found: Vec<serde_json::Value> = serde_json::from_slice(&run("--json=short").stdout).unwrap();
    let open = found.iter().filter(|item| item["exposure"].is_string()).map(|item| item["name"].as_str().unwrap().to_owned());
    let open: BTreeSet<String> = open.collect();
    let listed: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# open: ")?.split_whitespace().next()).map(str::to_owned).collect();
    wrong.extend(open.difference(&listed).map(|name| format!("{name} is open, and no reason is given")));
    wrong.extend(listed.difference(&open).map(|name| format!("{name} is not open, though it is listed")));
    wrong
}

#[test]
fn the_services_may_do_little_and_each_thing_left_open_has_its_reason() {
    if !analyze_is_here() {
        return;
    }
    for (name, exposure_max) in EXPOSURE_MAX {
        let text = unit(name);
        assert_eq!(complaints(name, "good", &text, exposure_max), [""; 0], "{name}");
        assert!(!text.lines().any(|line| line.starts_with("IPAddressAllow=any")), "that is for the score alone");
        // The control: each of these lines less is noticed.
        for line in ["RestrictNamespaces=yes\n", "NoNewPrivileges=yes\n", "SystemCallFilter=@system-service\n", "CapabilityBoundingSet=\n"]
        {
            assert!(text.contains(line), "{line}");
            assert_ne!(complaints(name, "worse", &text.replace(line, ""), exposure_max), [""; 0], "{name} without {line}");
        }
    }
}

/// What systemd says of a unit's text, with a program that is there.
fn verify(name: &str, tag: &str, text: &str) -> String {
    let text = text.replace(&format!("/usr/bin/{name}"), "/bin/true");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(file(name, tag, &text)).output().unwrap();
    rig::text(&output.stderr).lines().filter(|line| line.contains(name)).collect()
}

#[test]
fn systemd_understands_every_line_of_units_and_drop_ins() {
    if !analyze_is_here() {
        return;
    }
    for (name, _) in EXPOSURE_MAX {
        assert_eq!(verify(name, "verify", &unit(name)), "");
        assert!(verify(name, "typo", &unit(name).replace("Restart=always", "Restrat=always")).contains("Restrat"), "the control");
    }
    let drop_ins = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/drop-ins");
    let mut seen = 0;
    for path in std::fs::read_dir(drop_ins).unwrap().map(|entry| entry.unwrap().path()) {
        // Examples behind a '#' without a space are used too.
        let text = std::fs::read_to_string(&path).unwrap();
        let used = text.lines().map(|line| if line.starts_with("#[") || line.contains('=') { line.trim_start_matches('#') } else { line });
        let used: String = used.filter(|line| !line.starts_with(' ')).map(|line| line.to_owned() + "\n").collect();
        assert_eq!(verify("shutterd", "drop-in", &(unit("shutterd") + &used)), "", "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 5);
}

/// Listens where systemd would.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn new(node: &Node) -> Self {
        let path = node.root.join("notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path }
    }
    fn words(&self, more: &[&str]) -> Vec<String> {
        let socket = format!("NOTIFY_SOCKET={}", self.path.display());
        ["env".to_owned(), socket].into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect()
    }
    /// The next message within this time.
    fn hears(&self, within: Duration) -> Option<String> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(within)).unwrap();
        self.socket.recv(&mut bytes).ok().map(|n| rig::text(&bytes[..n]))
    }
}

const CARD: &str = "[cameras.card]\nsource = \"pattern:?size=320x240\"\n[schedules.card-1h]\ncamera = \"card\"\nevery = \"1h\"\n";
const LONG: Duration = Duration::from_secs(30);

#[test]
fn systemd_hears_ready_what_the_agent_does_and_that_it_lives_until_it_stands_still() {
    let node = Node::new("notify");
    node.configure(CARD);
    let systemd = Systemd::new(&node);
    let agent = node.start_under(&systemd.words(&["WATCHDOG_USEC=1000000"]));
    let first = systemd.hears(LONG).unwrap();
    assert!(first.contains("READY=1") && first.contains("STATUS=1 camera"), "{first}");
    for _ in 0..3 {
        assert_eq!(systemd.hears(LONG).unwrap().trim(), "WATCHDOG=1");
    }
    agent.signal("STOP");
    while systemd.hears(Duration::from_secs(3)).is_some() {}
    agent.signal("CONT");
    assert_eq!(systemd.hears(LONG).unwrap().trim(), "WATCHDOG=1");
    assert!(agent.stop().0.success());
    let rest: Vec<String> = std::iter::from_fn(|| systemd.hears(Duration::from_millis(100))).collect();
    assert!(rest.iter().any(|said| said.contains("STOPPING=1")), "{rest:?}");
}

#[test]
fn without_a_watchdog_nobody_is_told_anything_more() {
    let node = Node::new("no-watchdog");
    node.configure(CARD);
    let systemd = Systemd::new(&node);
    let agent = node.start_under(&systemd.words(&[]));
    assert!(systemd.hears(LONG).unwrap().contains("READY=1"));
    assert_eq!(systemd.hears(Duration::from_secs(3)), None);
    drop(agent);
}

/// Starts the agent with reads of its index that take so long, and returns how often it asks for more time before it is ready.
fn asks_for_time(node: &Node, delay: &str) -> usize {
    let systemd = Systemd::new(node);
    let index = node.data.join("index.redb").display().to_string();
    let inject = format!("inject=pread64:delay_enter={delay}");
    let slow = ["strace", "-D", "-f", "-qq", "-P", &index, "-e", "trace=pread64", "-e", &inject, "-o", "/dev/null"];
    let agent = node.start_under(&systemd.words(&slow));
    let said = std::iter::from_fn(|| systemd.hears(LONG)).take_while(|said| !said.contains("READY=1"));
    let asked = said.inspect(|said| assert!(said.contains("EXTEND_TIMEOUT_USEC="), "{said}")).count();
    drop(agent);
    asked
}

#[test]
fn a_long_recovery_asks_for_more_time_as_long_as_the_disk_answers() {
    let node = Node::new("patience");
    node.configure(CARD);
    assert!(node.start().stop().0.success());
    assert!(asks_for_time(&node, "3000000:when=1..5") >= 1, "15 s of slow reads");
    // The control: one read that does not come back. What was answered before it counts once.
    assert!(asks_for_time(&node, "22000000:when=1") <= 1, "a disk that does not answer is no progress");
}

#[test]
fn after_five_starts_that_stored_nothing_cameras_are_held_back_with_a_reason_and_a_picture_ends_that() {
    let node = Node::new("starts");
    let camera = |fault: &str| {
        let text =
            format!("[cameras.gate]\nsource = \"pattern:?size=320x240{fault}\"\n[schedules.gate-1s]\ncamera = \"gate\"\nevery = \"1s\"\n");
        node.configure(&text);
    };
    camera("&fault=fail");
    for _ in 0..5 {
        let agent = node.start();
        wait_for("the camera to fail", || node.error_of("gate").is_some_and(|code| code != "restarting"));
        // Killed.
        drop(agent);
    }
    camera("");
    let agent = node.start();
    wait_for("a slot to have its reason", || node.error_of("gate").as_deref() == Some("restarting"));
    assert_eq!(node.taken("gate"), 0);
    assert!(node.logged("the last 5 starts of the agent stored no picture; cameras begin in 30 s") > 0, "{}", node.log());
    let snap = node.command(&["snap", "gate", "-o", "-"]);
    assert!(rig::text(&snap.stderr).contains("cameras begin in"), "{}", rig::text(&snap.stderr));
    // An ordered stop is nobody's fault.
    assert!(agent.stop().0.success());
    let agent = node.start();
    node.wait_for_pictures("gate", 1);
    wait_for("the count to be cleared", || !node.root.join("run/starts-without-picture").exists());
    drop(agent);
}
