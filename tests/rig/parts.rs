//! The real parts as processes: broker, hub and agent, each ended by its own id when its value goes; and the link between them.
//!
//! Every wait ends by a condition or a deadline, and a deadline that passes says what was waited for.

use rustix::process::{Pid, Signal, kill_process};
use shutterd::api::StatusAnswer;
use shutterd::clock::{Deadline, boottime_now_ms};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

const MOSQUITTO: &str = "/usr/sbin/mosquitto";
/// How often a condition is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(50);
/// A part that is not up after this is broken; a busy machine needs some of it.
const START_MAX: Duration = Duration::from_secs(30);
/// Lines of each log that a failed test prints.
const LOG_TAIL: usize = 25;

/// Whether these programs are here. Says aloud what is missing, and where nobody reads it (`CI`) fails.
pub fn installed(needs: &[(&str, &str)]) -> bool {
    let missing: Vec<&str> = needs.iter().filter(|(program, _)| !Path::new(program).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(" ");
    assert!(std::env::var_os("CI").is_none(), "missing for this test: apt-get install {missing}");
    eprintln!("\n*** SKIPPED. Run `make test`, or: apt-get install {missing}\n");
    false
}

pub const BROKER: (&str, &str) = (MOSQUITTO, "mosquitto");

/// One of our programs; with a breaking switch the one that knows such switches, which `make test` puts into a directory of its own.
fn program(name: &str, switch: Option<&str>) -> PathBuf {
    match switch.and(broken_dir()) {
        Some(dir) => dir.join(name),
        None if name == "shutterd" => env!("CARGO_BIN_EXE_shutterd").into(),
        None => env!("CARGO_BIN_EXE_shutter-hub").into(),
    }
}

fn broken_dir() -> Option<PathBuf> {
    std::env::var_os("SHUTTER_BREAK_BIN_DIR").map(PathBuf::from)
}

/// Whether programs with breaking switches are here: put aside, or those under test themselves (feature `break`).
pub fn breakable() -> bool {
    let here = cfg!(feature = "break") || broken_dir().is_some_and(|dir| dir.join("shutter-hub").exists());
    assert!(here || std::env::var_os("CI").is_none(), "SHUTTER_BREAK_BIN_DIR names no directory with broken programs; run `make test`");
    if !here {
        eprintln!(
            "\n*** SKIPPED, no broken programs to complain of. Run `make test`, or: cargo test --features hub,break --test controls\n"
        );
    }
    here
}

/// Waits until `find` finds something, for at most so long.
pub fn wait_for<T>(what: &str, at_most: Duration, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(at_most);
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(!deadline.passed(), "waited {at_most:?} in vain: {what}");
        thread::sleep(LOOK);
    }
}

/// Waits for an instant of the test's own timetable.
pub fn wait_until(boottime_ms: u64) {
    thread::sleep(Duration::from_millis(boottime_ms.saturating_sub(boottime_now_ms())));
}

/// A directory for one test; a test that fails leaves it, with the last words of every log.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("shutterd-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn log(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
            return;
        }
        eprintln!("\nEverything is left in {}. The logs end with:", self.0.display());
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "log") {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
                let lines: Vec<_> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n  ");
                eprintln!("--- {}\n  {tail}", path.file_name().unwrap_or_default().to_string_lossy());
            }
        }
    }
}

/// A free port below those that the kernel gives to clients: a client that calls a dead broker could else be given the
/// broker's own port and reach itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id().wrapping_mul(97) as u16 % 6_000;
    loop {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A child process that does not outlive its value.
pub struct Process {
    child: Child,
    pub name: String,
}

impl Process {
    fn spawn(name: &str, command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
        Self { child, name: name.into() }
    }
    pub fn id(&self) -> u32 {
        self.child.id()
    }
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }
    /// SIGKILL, and gone on return.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_for(&what, at_most, || self.child.try_wait().unwrap())
    }
    fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} has ended: {status}; see its log", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A real mosquitto that forgets everything when it dies.
pub struct Broker {
    pub process: Process,
    pub port: u16,
    config: PathBuf,
    log: PathBuf,
}

impl Broker {
    pub fn start(scratch: &Scratch) -> Self {
        let config = scratch.path("mosquitto.conf");
        for _ in 0..5 {
            let port = free_port();
            let text = format!("listener {port} 127.0.0.1\nuser root\nallow_anonymous true\npersistence false\nlog_dest stderr\n");
            fs::write(&config, text).unwrap();
            let log = scratch.path("mosquitto.log");
            // Another test's program may have been quicker to take the port.
            if let Some(process) = Self::spawn(&config, &log, port) {
                return Self { process, port, config, log };
            }
        }
        panic!("mosquitto does not start; see its log");
    }
    pub fn start_again(&mut self) {
        self.process = Self::spawn(&self.config, &self.log, self.port).expect("mosquitto does not start again; see its log");
    }
    /// `None`: it ended at once.
    fn spawn(config: &Path, log: &Path, port: u16) -> Option<Process> {
        let mut command = Command::new(MOSQUITTO);
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = Process::spawn("mosquitto", &mut command);
        let listens = wait_for("mosquitto listens", START_MAX, || match process.child.try_wait().unwrap() {
            Some(_) => Some(false),
            None => TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true),
        });
        listens.then_some(process)
    }
}

/// The hub, on a broker of its own or on another's.
pub struct Hub {
    pub process: Process,
    /// Where nodes connect, for a hub with its own broker.
    pub mqtt: Option<u16>,
    pub objects: PathBuf,
}

impl Hub {
    /// `wrap` goes before the hub's own command line; what it names must become the hub itself (`strace -D` does).
    pub fn start(scratch: &Scratch, broker: Option<u16>, wrap: &[&str], switch: Option<&str>) -> Self {
        let program = program("shutter-hub", switch);
        let data = scratch.path("hub");
        let words: Vec<&OsStr> = wrap.iter().map(OsStr::new).chain([program.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--data").arg(&data).args(["--http", "127.0.0.1:0"]);
        match broker {
            Some(port) => command.args(["--broker", &format!("mqtt://127.0.0.1:{port}")]),
            None => command.args(["--mqtt", "127.0.0.1:0"]),
        };
        command.env_remove("SHUTTER_BREAK").envs(switch.map(|switch| ("SHUTTER_BREAK", switch)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(scratch.log("hub"));
        let mut process = Process::spawn("shutter-hub", &mut command);
        let mut lines = BufReader::new(process.child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mqtt = lines.find_map(|line| Some(line.strip_prefix("mqtt ")?.to_owned())).expect("the hub did not start; see its log");
        let mqtt = mqtt.rsplit_once(':').map(|(_, port)| port.parse().unwrap());
        thread::spawn(move || lines.for_each(drop));
        Self { process, mqtt, objects: data.join("objects") }
    }
}

/// An agent's configuration, as a file and as the test's own knowledge of it.
#[derive(Clone)]
pub struct Node {
    pub id: String,
    /// Broker or link to it; `None`: no hub.
    pub hub: Option<u16>,
    /// Camera and its source.
    pub cameras: Vec<(String, String)>,
    pub schedules: Vec<super::books::Schedule>,
}

impl Node {
    fn toml(&self, dir: &Path, enabled: bool) -> String {
        let mut text = format!("[node]\nid = \"{}\"\n", self.id);
        if let Some(port) = self.hub {
            text += &format!("[hub]\nurl = \"mqtt://127.0.0.1:{port}\"\n");
        }
        let (data, run) = (dir.join("data"), dir.join("run"));
        text += &format!("[store]\ndir = \"{}\"\nruntime_dir = \"{}\"\n", data.display(), run.display());
        for (camera, source) in &self.cameras {
            text += &format!("[cameras.{camera}]\nsource = \"{source}\"\n");
        }
        for s in &self.schedules {
            text += &format!("[schedules.{}]\ncamera = \"{}\"\nalign = \"boot\"\nenabled = {enabled}\n", s.id, s.camera);
            text += &format!("every = \"{}ms\"\nphase = \"{}ms\"\n", s.period_ms, s.phase_ms);
        }
        text
    }
}

/// The agent, with data, socket and configuration in one directory.
pub struct Agent {
    pub process: Process,
    pub dir: PathBuf,
    /// When it began to answer, by CLOCK_BOOTTIME: every slot from here on is planned.
    pub up_ms: u64,
}

impl Agent {
    pub fn start(scratch: &Scratch, name: &str, node: &Node) -> Self {
        let mut agent = Self::spawn(scratch, name, node, true, None);
        agent.wait_up();
        agent
    }
    /// Without its schedules: it only hands over what it has, and accounts for the past.
    pub fn start_idle(scratch: &Scratch, name: &str, node: &Node) -> Self {
        let mut agent = Self::spawn(scratch, name, node, false, None);
        agent.wait_up();
        agent
    }
    /// With a breaking switch; it may be gone at once.
    pub fn spawn(scratch: &Scratch, name: &str, node: &Node, enabled: bool, switch: Option<&str>) -> Self {
        let dir = scratch.path(name);
        fs::create_dir_all(&dir).unwrap();
        let config = dir.join("shutterd.toml");
        fs::write(&config, node.toml(&dir, enabled)).unwrap();
        let mut command = Command::new(program("shutterd", switch));
        command.arg("run").arg("--config").arg(config);
        command.env_remove("SHUTTER_BREAK").envs(switch.map(|switch| ("SHUTTER_BREAK", switch)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(scratch.log(name));
        Self { process: Process::spawn(name, &mut command), dir, up_ms: 0 }
    }
    pub fn wait_up(&mut self) {
        wait_for("the agent answers on its socket", START_MAX, || {
            self.process.assert_alive();
            self.status()
        });
        self.up_ms = boottime_now_ms();
    }
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
    pub fn status(&self) -> Option<StatusAnswer> {
        let mut socket = UnixStream::connect(shutterd::api::socket_path(&self.dir.join("run"))).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        socket.write_all(b"GET /status HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
    pub fn wait_status(&mut self, what: &str, at_most: Duration, holds: impl Fn(&StatusAnswer) -> bool) {
        let mut last = None;
        let deadline = Deadline::after(at_most);
        loop {
            self.process.assert_alive();
            let now = self.status();
            if now.as_ref().is_some_and(&holds) {
                return;
            }
            last = now.or(last);
            assert!(!deadline.passed(), "waited {at_most:?} in vain: {what}; the agent says {last:#?}");
            thread::sleep(LOOK);
        }
    }
    /// An ordered stop; anything but success is a failure.
    pub fn stop(mut self) {
        self.process.terminate();
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.success(), "{} ended with {status}", self.process.name);
    }
}
