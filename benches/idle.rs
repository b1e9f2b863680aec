//! Agents that wait: wake-ups of all their threads, memory, and the size of the binary.
//!
//! In the same minute, side by side: one with hourly schedules for each of its four cameras, one without any schedule, one with a
//! thousand of an hour of which none falls due in that minute, and one with a thousand of an hour spread as they are by default.
//! All hold TLS to one real mosquitto; each camera has taken one picture before, so that decoder, encoder and store have claimed
//! what they keep. There is no peer: nothing else does this job; a bare `mosquitto_sub` on the same broker shows what waiting for a
//! broker alone costs.

#[path = "rig/measure.rs"]
mod measure;

use measure::{fresh_dir, median, memory_mib, missing, monotonic_ms, succeeds};
use shutterd::clock::{Clock, SystemClock};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SECONDS: u64 = 60;
const CAMERAS: [&str; 4] = ["north", "east", "south", "west"];
const AGENTS: [(&str, Schedules); 4] = [
    ("4 schedules of 1 h", Schedules { count: 4, quiet: true }),
    ("no schedule", Schedules { count: 0, quiet: true }),
    ("1,000 schedules of 1 h, none due", Schedules { count: 1_000, quiet: true }),
    ("1,000 schedules of 1 h, spread", Schedules { count: 1_000, quiet: false }),
];

/// Hourly ones, from boot.
#[derive(Clone, Copy)]
struct Schedules {
    count: usize,
    /// The next slot of each is half an hour away, so that waiting alone is measured.
    quiet: bool,
}

impl Schedules {
    fn phase(self) -> Option<u64> {
        self.quiet.then(|| (SystemClock.boottime_ms() / 1_000 + 1_800) % 3_600)
    }
}

fn main() {
    size();
    if let Err(why) = idle() {
        missing(&format!("idle: {why}"));
    }
}

fn size() {
    let binary = Path::new(env!("CARGO_BIN_EXE_shutterd"));
    let stripped = fresh_dir("size").join("shutterd");
    let bytes = |path: &Path| std::fs::metadata(path).map_or(f64::NAN, |m| m.len() as f64 / 1e6);
    if succeeds("strip", &["-o", &stripped.display().to_string(), &binary.display().to_string()]) {
        println!("size: shutterd stripped, {}: {:.2} MB (reach: 6 MB on aarch64)", std::env::consts::ARCH, bytes(&stripped));
    } else {
        println!("size: shutterd as built, {}: {:.2} MB; strip is missing (binutils)", std::env::consts::ARCH, bytes(binary));
    }
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn idle() -> Result<(), String> {
    let dir = fresh_dir("idle");
    let here = dir.display();
    certificates(&dir)?;
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?.port();
    let broker = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\ncafile {here}/ca.pem\ncertfile {here}/hub.pem\nkeyfile {here}/hub.key\nuser root\n"
    );
    std::fs::write(dir.join("mosquitto.conf"), broker).map_err(|e| e.to_string())?;
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Running);
    let _broker = quiet(Command::new("mosquitto").arg("-c").arg(dir.join("mosquitto.conf")))
        .map_err(|e| format!("no mosquitto ({e}); apt-get install mosquitto"))?;

    let agents = AGENTS.into_iter().map(|(name, schedules)| Agent::start(&dir, port, name, schedules)).collect::<Result<Vec<_>, _>>()?;
    let listener = quiet(
        Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", "nothing", "-k", "30"])
            .arg("--cafile")
            .arg(dir.join("ca.pem")),
    );
    if listener.is_err() {
        missing("mosquitto_sub, the peer that only waits (apt-get install mosquitto-clients)");
    }
    // What the last picture set off is over (the runtime's spare threads live for 10 s).
    std::thread::sleep(Duration::from_secs(12));

    let watched: Vec<(&str, u32)> = agents
        .iter()
        .map(|agent| (agent.name, agent.process.0.id()))
        .chain(listener.as_ref().ok().map(|listener| ("mosquitto_sub", listener.0.id())))
        .collect();
    let before: Vec<_> = watched.iter().map(|(_, pid)| wake_ups(*pid)).collect();
    let pictures: Vec<_> = agents.iter().map(Agent::pictures).collect();
    let (begun, mut resident) = (monotonic_ms(), Vec::new());
    for _ in 0..6 {
        std::thread::sleep(Duration::from_secs(SECONDS / 6));
        resident.push(memory_mib(agents[0].process.0.id(), "VmRSS:"));
    }
    let seconds = (monotonic_ms() - begun) / 1e3;
    let after: Vec<_> = watched.iter().map(|(_, pid)| wake_ups(*pid)).collect();
    println!("idle: agents with {} cameras, TLS to mosquitto up, side by side for {seconds:.0} s", CAMERAS.len());
    for (i, ((name, pid), (before, after))) in watched.iter().zip(before.iter().zip(after)).enumerate() {
        let threads: Vec<(String, f64)> = after
            .into_iter()
            .map(|(tid, (thread, count))| (thread, (count - before.get(&tid).map_or(0, |t| t.1)) as f64 / seconds))
            .collect();
        let all: f64 = threads.iter().map(|t| t.1).sum();
        let [resident, peak, anonymous] = ["VmRSS:", "VmHWM:", "RssAnon:"].map(|key| memory_mib(*pid, key));
        let taken = match (agents.get(i), pictures.get(i)) {
            (Some(agent), Some(before)) => format!(", {} pictures taken", agent.pictures() - before),
            _ => String::new(),
        };
        println!(
            "  {name:<32} {all:.2} wake-ups/s over {} threads, {resident:.1} MiB RSS ({peak:.1} peak, {anonymous:.1} anonymous){taken}",
            threads.len()
        );
        let parts: Vec<String> =
            threads.iter().filter(|(_, rate)| *rate > 0.0).map(|(thread, rate)| format!("{thread} {rate:.2}")).collect();
        println!("    {}", parts.join(", "));
    }
    println!("  reach: 2 wake-ups/s, 16 MB RSS; median RSS of the first {:.1} MB", median(resident) * 1.048_576);
    Ok(())
}

/// An agent whose cameras have all taken a picture, and whose link is up.
struct Agent {
    name: &'static str,
    config: PathBuf,
    process: Running,
}

impl Agent {
    fn start(dir: &Path, port: u16, name: &'static str, schedules: Schedules) -> Result<Self, String> {
        let here = dir.join(name.replace(' ', "-"));
        std::fs::create_dir_all(&here).map_err(|e| e.to_string())?;
        let mut text = format!(
            "[node]\nid = \"bench-{}\"\n[store]\ndir = \"{here}/data\"\nruntime_dir = \"{here}/run\"\n\
             [hub]\nurl = \"mqtts://127.0.0.1:{port}\"\nca_file = \"{}/ca.pem\"\n",
            schedules.count + usize::from(schedules.quiet),
            dir.display(),
            here = here.display(),
        );
        for camera in CAMERAS {
            text += &format!("[cameras.{camera}]\nsource = \"pattern:?size=1280x720\"\n");
        }
        for n in 0..schedules.count {
            let phase = schedules.phase().map_or(String::new(), |phase_s| format!("phase = \"{phase_s}s\"\n"));
            let camera = CAMERAS[n % CAMERAS.len()];
            text += &format!("[schedules.s{n}]\ncamera = \"{camera}\"\nevery = \"1h\"\nalign = \"boot\"\n{phase}");
        }
        let config = here.join("shutterd.toml");
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        let log = std::fs::File::create(here.join("log")).map_err(|e| e.to_string())?;
        let process = shutterd(&config).arg("run").stderr(log).stdout(Stdio::null()).spawn().map(Running).map_err(|e| e.to_string())?;
        let agent = Self { name, config, process };
        let connected = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            ["\"state\": \"online\"", "\"state\": \"waiting\""].iter().any(|state| agent.status().contains(state))
        });
        if !connected {
            let said = std::fs::read_to_string(here.join("log")).unwrap_or_default();
            return Err(format!("the agent with {name} does not connect to the broker:\n{said}"));
        }
        for camera in CAMERAS {
            let taken = shutterd(&agent.config).args(["snap", camera, "-o"]).arg(here.join("snap.jpg")).stdout(Stdio::null()).status();
            taken.ok().filter(|s| s.success()).ok_or("a picture cannot be taken")?;
        }
        Ok(agent)
    }

    fn status(&self) -> String {
        let asked = shutterd(&self.config).args(["status", "--json"]).output();
        asked.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    }

    /// Counted on the disk: a question would wake it.
    fn pictures(&self) -> usize {
        files(&self.config.with_file_name("data").join("snapshots"))
    }
}

fn files(dir: &Path) -> usize {
    let inside = std::fs::read_dir(dir).into_iter().flatten().flatten();
    inside.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

fn shutterd(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
    command.arg("-c").arg(config);
    command
}

/// A certificate authority and a certificate for 127.0.0.1.
fn certificates(dir: &Path) -> Result<(), String> {
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").map_err(|e| e.to_string())?;
    let at = |name: &str| dir.join(name).display().to_string();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let (ca, ca_key, san) = (at("ca.pem"), at("ca.key"), at("san"));
    let (cert, cert_key, request) = (at("hub.pem"), at("hub.key"), at("hub.csr"));
    let authority = [&["req", "-x509", "-days", "30", "-subj", "/CN=bench", "-keyout", &ca_key, "-out", &ca][..], &key].concat();
    let asked = [&["req", "-subj", "/CN=hub", "-keyout", &cert_key, "-out", &request][..], &key].concat();
    let signed =
        ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "30", "-extfile", &san, "-out", &cert];
    let done = succeeds("openssl", &authority) && succeeds("openssl", &asked) && succeeds("openssl", &signed);
    done.then_some(()).ok_or_else(|| "openssl cannot make certificates".to_owned())
}

/// Voluntary context switches of each thread, by its number: each is a wake-up that ended in sleep again.
fn wake_ups(pid: u32) -> BTreeMap<u64, (String, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("status")).ok()?;
        let field = |key: &str| text.lines().find_map(|l| Some(l.strip_prefix(key)?.trim().to_owned()));
        Some((field("Pid:")?.parse().ok()?, (field("Name:")?, field("voluntary_ctxt_switches:")?.parse().ok()?)))
    };
    tasks.filter_map(read).collect()
}
