//! A node for tests: a directory of its own, a configuration file, and the real `shutterd` as a process in it.
//!
//! What a test knows it knows from outside: exit codes, the log, the commands' answers, files.

#![allow(dead_code, reason = "each test program uses what it needs")]

use shutterd::api::{ExplainAnswer, ListAnswer, StatusAnswer};
use shutterd::clock::{Clock, Deadline, SystemClock};
use shutterd::model::{CameraId, Outcome};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// How long something may take on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Node {
    pub root: PathBuf,
    pub data: PathBuf,
    /// The agent's program; `SHUTTER_BIN` names another one, such as the release build.
    pub bin: PathBuf,
}

impl Node {
    pub fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let bin = std::env::var_os("SHUTTER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_shutterd").into(), PathBuf::from);
        Self { data: root.join("data"), root, bin }
    }

    /// From now on the program that knows breaking switches, which `make test` puts into a directory of its own.
    pub fn use_broken(&mut self) {
        if let Some(dir) = std::env::var_os("SHUTTER_BREAK_BIN_DIR") {
            self.bin = PathBuf::from(dir).join("shutterd");
        }
    }

    pub fn file(&self) -> PathBuf {
        self.root.join("shutterd.toml")
    }
    /// Writes the configuration: `text` after the node's own sections.
    pub fn configure(&self, text: &str) {
        let (data, run) = (self.data.display(), self.root.join("run").display().to_string());
        let own = format!("[node]\nid = \"n1\"\n[store]\ndir = \"{data}\"\nruntime_dir = \"{run}\"\n");
        std::fs::write(self.file(), own + text).unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Output {
        self.program(words).output().unwrap()
    }
    fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.bin);
        command.arg("-c").arg(self.file()).args(words).stdin(Stdio::null());
        command.env_remove("RUST_BACKTRACE").env("TZ", "UTC");
        command
    }

    /// Starts the agent and waits until it answers.
    pub fn start(&self) -> Agent<'_> {
        self.start_as(self.program(&["run"]))
    }

    /// Starts a program with breaking switches, which `make test` puts into a directory of its own; `None` after saying that there is
    /// none.
    pub fn start_broken(&self, switch: &str) -> Option<Agent<'_>> {
        let dir = std::env::var_os("SHUTTER_BREAK_BIN_DIR").map(PathBuf::from);
        let broken = match dir {
            _ if cfg!(feature = "break") => PathBuf::from(env!("CARGO_BIN_EXE_shutterd")),
            Some(dir) if dir.join("shutterd").exists() => dir.join("shutterd"),
            _ => {
                assert!(std::env::var_os("CI").is_none(), "SHUTTER_BREAK_BIN_DIR names no directory with broken programs; run `make test`");
                eprintln!("\n*** SKIPPED, no broken program to complain of. Run `make test`\n");
                return None;
            }
        };
        let plain = self.program(&["run"]);
        let mut command = Command::new(broken);
        command.args(plain.get_args()).stdin(Stdio::null()).env_remove("RUST_BACKTRACE").env("TZ", "UTC").env("SHUTTER_BREAK", switch);
        Some(self.start_as(command))
    }

    /// Starts the agent under strace, which writes down what becomes durable and how. Strace steps aside: the process is the agent's.
    pub fn start_traced(&self, into: &Path) -> Agent<'_> {
        let (mut command, plain) = (Command::new("strace"), self.program(&["run"]));
        command.args(["-D", "-f", "-y", "-qq", "-s", "0", "-e", "trace=fsync,fdatasync,syncfs,sync_file_range,pwrite64,pwritev,writev"]);
        command.arg("-o").arg(into).arg(plain.get_program()).args(plain.get_args());
        command.stdin(Stdio::null()).env_remove("RUST_BACKTRACE").env("TZ", "UTC");
        self.start_as(command)
    }

    /// Starts the agent as if the machine had booted meanwhile: it sees another boot id. Needs root.
    pub fn start_in_boot(&self, boot_id: &str) -> Agent<'_> {
        self.start_under(&self.boot(boot_id))
    }
    /// What goes before a command line for it to see another boot id.
    pub fn boot(&self, boot_id: &str) -> Vec<String> {
        let file = self.root.join("boot_id");
        std::fs::write(&file, boot_id).unwrap();
        let bind = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        ["unshare", "--mount", "sh", "-c", bind, &file.display().to_string()].map(str::to_owned).to_vec()
    }

    /// Starts the agent under strace, which makes the kernel's answers wrong. Strace steps aside: the process is the agent's.
    pub fn start_with_fault(&self, inject: &str) -> Agent<'_> {
        let call = inject.split(':').next().unwrap_or_default();
        let words = ["strace", "-D", "-qq", "-e", &format!("trace={call}"), "-e", &format!("inject={inject}"), "-o", "/dev/null"];
        self.start_under(&words)
    }

    /// Starts the agent with words before its own command line; what they name must become the agent itself (`strace -D` does).
    pub fn start_under(&self, words: &[impl AsRef<str>]) -> Agent<'_> {
        let plain = self.program(&["run"]);
        let mut words = words.iter().map(AsRef::as_ref);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
        command.env_remove("RUST_BACKTRACE").env("TZ", "UTC");
        self.start_as(command)
    }

    fn start_as(&self, mut command: Command) -> Agent<'_> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.root.join("log")).unwrap();
        let child = command.stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let mut agent = Agent { node: self, child };
        wait_for("the agent to answer", || {
            assert_eq!(agent.child.try_wait().unwrap(), None, "the agent ended: {}", self.log());
            self.command(&["status"]).status.success()
        });
        agent
    }

    /// Everything that all runs have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.join("log")).unwrap_or_default()
    }
    pub fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    fn json<T: serde::de::DeserializeOwned>(&self, words: &[&str]) -> T {
        let output = self.command(&[words, &["--json"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}: {text}");
        serde_json::from_str(&text).unwrap()
    }
    pub fn status(&self) -> StatusAnswer {
        self.json(&["status"])
    }
    pub fn pictures(&self) -> ListAnswer {
        self.json(&["ls", "-n", "1000"])
    }
    /// What became of the slot nearest to a wall-clock instant.
    pub fn explain(&self, schedule: &str, wall_ms: i64) -> ExplainAnswer {
        let time = chrono::DateTime::from_timestamp_millis(wall_ms).unwrap().to_rfc3339();
        self.json(&["explain", schedule, &time])
    }
    pub fn outcome(&self, schedule: &str, wall_ms: i64) -> Option<Outcome> {
        self.explain(schedule, wall_ms).outcome
    }
    pub fn taken(&self, camera: &str) -> u64 {
        let camera: CameraId = camera.parse().unwrap();
        self.status().cameras.get(&camera).map_or(0, |c| c.captured)
    }
    pub fn error_of(&self, camera: &str) -> Option<String> {
        let camera: CameraId = camera.parse().unwrap();
        self.status().cameras.get(&camera)?.error.as_ref().map(|e| e.code.to_string())
    }
    /// The camera delivers so many pictures more.
    pub fn wait_for_pictures(&self, camera: &str, more: u64) {
        let before = self.taken(camera);
        wait_for(&format!("{more} pictures of {camera}"), || self.taken(camera) >= before + more);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.root.display(), self.log());
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// A running agent; it is killed with this value.
pub struct Agent<'n> {
    node: &'n Node,
    pub child: Child,
}

impl Agent<'_> {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }
    /// Asks it to stop; returns how it ended and how long that took.
    pub fn stop(mut self) -> (ExitStatus, Duration) {
        let begun = now_ms();
        self.signal("TERM");
        let status = self.ended();
        (status, Duration::from_millis((now_ms() - begun) as u64))
    }
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the agent to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn now_ms() -> i64 {
    SystemClock.read().wall_ms
}

pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Deadline::after(PATIENCE);
    while !done() {
        assert!(!patience.passed(), "waited in vain for {what}");
        pause(100);
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
