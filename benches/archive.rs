//! What a long memory costs: start after a kill, lists, explanations, reports and deletions at 100,000 and 1,000,000 pictures.
//!
//! Eight cameras with a picture every five minutes; the million is fourteen months of them. The index is written here row by row as the
//! agent would have left it (its pictures' files are not made: 150 GB); everything measured is the real process, asked on its socket.
//! Beside the start stands one plain read of the same index: nothing that checks all of it can do with less.

#[path = "rig/long_memory.rs"]
mod long_memory;
#[path = "rig/measure.rs"]
mod measure;

use long_memory::{CAMERAS, Error, PERIOD_MS, fill};
use measure::{fresh_dir, median, missing, monotonic_ms};
use shutterd::clock::{Clock, SystemClock};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const STARTS: usize = 5;
const QUESTIONS: usize = 21;

fn main() {
    println!("archive: {CAMERAS} cameras, a picture every 5 min each, index without files");
    for rows in [100_000, 1_000_000] {
        if let Err(why) = measure(rows) {
            missing(&format!("an archive of {rows} pictures: {why}"));
        }
    }
    println!("  reach: start within 1 s or 1.3 reads of the index; list and explain within 10 ms");
}

fn measure(rows: u64) -> Result<(), Error> {
    let dir = fresh_dir("archive");
    let now_ms = SystemClock.read().wall_ms;
    fill(&dir.join("data"), rows, now_ms)?;
    let index = dir.join("data/index.redb");
    let config = configure(&dir, None)?;
    // Killed, so that every start below finds what a power cut leaves.
    Agent::start(&dir, &config)?.kill();
    let (mut starts, mut reads, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begun = monotonic_ms();
        std::hint::black_box(std::fs::read(&index)?);
        reads.push(monotonic_ms() - begun);
        let begun = monotonic_ms();
        let agent = Agent::start(&dir, &config)?;
        starts.push(monotonic_ms() - begun);
        cpu.push(agent.cpu_ms());
        agent.kill();
    }
    let (start, read, cpu) = (median(starts), median(reads), median(cpu));
    let size = std::fs::metadata(&index)?.len() as f64 / 1e6;
    println!("  {rows} pictures, index of {size:.0} MB");
    println!("    start after a kill: {start:.0} ms ({cpu:.0} ms CPU); one read of the index: {read:.0} ms; ratio {:.2}", start / read);

    let agent = Agent::start(&dir, &config)?;
    let at_start = agent.memory_mib("VmRSS:");
    // Half way back.
    let past_ms = now_ms - (rows / CAMERAS / 2 * PERIOD_MS) as i64;
    let questions = [
        ("list, newest 50", "/snapshots?limit=50".to_owned()),
        ("list, one camera, half way back", format!("/snapshots?camera=cam-3&until={past_ms}&limit=50")),
        ("list, one schedule, half way back", format!("/snapshots?schedule=cam-3-5m&until={past_ms}&limit=50")),
        ("list, one hour, half way back", format!("/snapshots?since={}&until={past_ms}&limit=1000", past_ms - 3_600_000)),
        ("explain, half way back", format!("/explain?schedule=cam-3-5m&at={past_ms}")),
        ("report, all of it", "/report".to_owned()),
    ];
    for (what, path) in questions {
        let mut times = Vec::new();
        for _ in 0..QUESTIONS {
            let begun = monotonic_ms();
            let answer = agent.get(&path)?;
            times.push(monotonic_ms() - begun);
            if !answer.contains("cam-3") {
                return Err(format!("{path}: {answer:.200}").into());
            }
        }
        println!("    {what:<36} {:>6.2} ms", median(times));
    }
    println!(
        "    memory: {at_start:.1} MiB RSS at start, {:.1} after the questions, {:.1} peak",
        agent.memory_mib("VmRSS:"),
        agent.memory_mib("VmHWM:")
    );

    // One in ten has to go.
    let gone = rows / 10;
    configure(&dir, Some(rows - gone))?;
    let (begun, cpu) = (monotonic_ms(), agent.cpu_ms());
    agent.hang_up()?;
    while agent.stored()? > rows - gone {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (took, cpu) = (monotonic_ms() - begun, agent.cpu_ms() - cpu);
    println!(
        "    keep sweep: {gone} of {rows} deleted in {:.1} s, {:.0} µs CPU each; {:.1} MiB peak",
        took / 1e3,
        cpu * 1e3 / gone as f64,
        agent.memory_mib("VmHWM:")
    );
    Ok(())
}

fn configure(dir: &Path, count: Option<u64>) -> Result<PathBuf, Error> {
    let here = dir.display();
    let mut text = format!("[node]\nid = \"bench\"\n[store]\ndir = \"{here}/data\"\nruntime_dir = \"{here}/run\"\n");
    if let Some(count) = count {
        text += &format!("[keep]\ncount = {count}\n");
    }
    for camera in 0..CAMERAS {
        text += &format!("[cameras.cam-{camera}]\nsource = \"pattern:?size=320x240\"\n");
        text += &format!("[schedules.cam-{camera}-5m]\ncamera = \"cam-{camera}\"\nevery = \"31d\"\nalign = \"boot\"\n");
    }
    let path = dir.join("shutterd.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    /// Starts it and waits until its store answers.
    fn start(dir: &Path, config: &Path) -> Result<Self, Error> {
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
        let child = command.arg("-c").arg(config).arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let agent = Self { child, socket: dir.join("run/shutterd.sock") };
        for _ in 0..30_000 {
            if agent.get("/status").is_ok_and(|status| status.contains("\"store\":\"")) {
                return Ok(agent);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(format!("it does not start: {}", std::fs::read_to_string(dir.join("log"))?).into())
    }
    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
    fn stored(&self) -> Result<u64, Error> {
        let status = self.get("/status")?;
        let count = status.split_once("\"stored\":").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        count.ok_or_else(|| format!("no count in {status}").into())
    }
    fn cpu_ms(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<f64> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        // User and system time, in hundredths of a second.
        fields.get(11..13).map_or(f64::NAN, |ticks| ticks.iter().sum::<f64>() * 10.0)
    }
    fn memory_mib(&self, key: &str) -> f64 {
        measure::memory_mib(self.child.id(), key)
    }
    fn hang_up(&self) -> Result<(), Error> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
    }
    fn kill(self) {}
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
