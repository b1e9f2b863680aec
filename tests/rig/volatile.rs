//! A disk whose power can be cut: a real ext4 on a block device that forgets what was not flushed.
//!
//! `nbdkit` (the device, `volatile_disk.py`) → `nbdfuse` (a file) → `losetup` (a block device) → ext4. Needs root, FUSE and loop devices.

use serde::Deserialize;
use shutterd::clock::Deadline;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A step that takes longer than this hangs.
const STEP_MAX: Duration = Duration::from_secs(30);

/// What the device has seen.
#[derive(Debug, Deserialize)]
pub struct Stats {
    pub flushes: u64,
    /// Writes that a cut now would put at risk.
    pub pending: u64,
}

/// A power cut, as it fell.
#[derive(Debug, Deserialize)]
pub struct Cut {
    pub kind: String,
    /// It struck while a write was under way.
    pub inside: bool,
    pub unflushed: u64,
    pub unflushed_bytes: u64,
    pub survived_bytes: u64,
    /// Since the power came.
    pub flushes: u64,
    pub lies: u64,
}

/// How the operating system found the filesystem.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Found {
    /// Whole, once its journal was replayed.
    Whole,
    /// Damaged, and repaired by `e2fsck -y`.
    Repaired,
}

pub struct VolatileDisk {
    dir: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
    /// Percentage of flushes that are answered and not done.
    lies: u32,
    on: Option<On>,
    cycles: u64,
}

/// What there is while the power is on.
struct On {
    nbd: Child,
    fuse: PathBuf,
    control: PathBuf,
    device: String,
    mounted: bool,
}

impl VolatileDisk {
    /// A fresh ext4 of `mib` MiB, not yet powered. `None` where such disks cannot be made: said aloud, and a failure where `CI` is set.
    pub fn new(dir: &Path, mib: u64, lies: u32) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let disk = Self { dir: dir.to_owned(), at: dir.join("mnt"), lies, on: None, cycles: 0 };
        fs::create_dir_all(&disk.at).unwrap();
        File::create(disk.image()).unwrap().set_len(mib << 20).unwrap();
        let made = run("mkfs.ext4", &["-q", "-b", "4096", "-J", "size=8", &text(&disk.image())]).is_ok();
        let rig = ["/usr/bin/nbdfuse", "/usr/bin/nbdkit", "/dev/fuse", "/dev/loop-control"].iter().all(|path| Path::new(path).exists());
        if made && rig && rustix::process::geteuid().is_root() {
            return Some(disk);
        }
        let why = "no disk whose power can be cut: that needs root, /dev/fuse, loop devices, and: apt-get install e2fsprogs nbdkit nbdkit-plugin-python libnbd-bin fuse3";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("\n*** SKIPPED, {why}\n");
        None
    }
    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// Power on, then what an operating system does: check, replay the journal, mount.
    pub fn power_on(&mut self, seed: u64) -> Found {
        assert!(self.on.is_none());
        self.cycles += 1;
        let (fuse, control) = (self.dir.join(format!("fuse{}", self.cycles)), self.dir.join("control"));
        fs::create_dir_all(&fuse).unwrap();
        let _ = fs::remove_file(&control);
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/volatile_disk.py");
        let mut command = Command::new("nbdfuse");
        command.arg(fuse.join("disk")).args(["--command", "nbdkit", "-s", "--exit-with-parent", "python"]).arg(plugin);
        command.arg(format!("image={}", text(&self.image()))).arg(format!("control={}", text(&control)));
        command.args([format!("lies={}", self.lies), format!("seed={seed}")]);
        let log = File::options().create(true).append(true).open(self.dir.join("nbd.log")).unwrap();
        let nbd = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        // From here on, whatever fails is taken down again.
        self.on = Some(On { nbd, fuse: fuse.clone(), control, device: String::new(), mounted: false });
        let file = fuse.join("disk");
        wait_for("the device", || file.exists());
        let device = run("losetup", &["--find", "--show", &text(&file)]).unwrap().trim().to_owned();
        self.on.as_mut().unwrap().device.clone_from(&device);
        let found = match run("e2fsck", &["-p", &device]) {
            Ok(_) => Found::Whole,
            Err(_) => {
                // It says 1 where it has repaired something.
                let _ = run("e2fsck", &["-f", "-y", &device]);
                run("e2fsck", &["-f", "-n", &device]).expect("what e2fsck has repaired is whole");
                Found::Repaired
            }
        };
        run("mount", &["-t", "ext4", &device, &text(&self.at)]).unwrap();
        self.on.as_mut().unwrap().mounted = true;
        found
    }

    fn ask<T: for<'de> Deserialize<'de>>(&self, line: &str) -> T {
        let mut socket = UnixStream::connect(&self.on.as_ref().unwrap().control).unwrap();
        socket.set_read_timeout(Some(STEP_MAX)).unwrap();
        writeln!(socket, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
    pub fn stats(&self) -> Stats {
        self.ask("stats")
    }
    /// Cuts the power inside the `nth` write after a flush, on a disk that lies while a lie stands; 0: now. From the return on every request fails.
    pub fn cut(&self, seed: u64, nth: u64) -> Cut {
        self.ask(&format!("cut {seed} {nth}"))
    }

    /// The device itself, beside the filesystem.
    pub fn raw(&self) -> PathBuf {
        self.on.as_ref().unwrap().fuse.join("disk")
    }
    /// What a cut has left.
    pub fn survived(&self) -> File {
        File::open(self.image()).unwrap()
    }

    /// Takes down what hangs on the dead device. Nobody may use the mount any more.
    pub fn power_off(&mut self) {
        let Some(mut on) = self.on.take() else { return };
        if on.mounted {
            let _ = run("umount", &[&text(&self.at)]).or_else(|_| run("umount", &["-l", &text(&self.at)]));
        }
        if !on.device.is_empty() {
            let _ = run("losetup", &["-d", &on.device]);
        }
        let _ = run("umount", &["-l", &text(&on.fuse)]);
        let _ = on.nbd.kill();
        let _ = on.nbd.wait();
        let _ = fs::remove_dir(&on.fuse);
    }
    /// An ordered shutdown, and the filesystem is looked through.
    pub fn shut_down(&mut self) {
        // Threads of this process may be about to close their files.
        wait_for("the mount to be free", || run("umount", &[&text(&self.at)]).is_ok());
        let on = self.on.as_mut().unwrap();
        on.mounted = false;
        run("e2fsck", &["-f", "-n", &on.device]).unwrap();
        self.power_off();
    }
}

impl Drop for VolatileDisk {
    fn drop(&mut self) {
        self.power_off();
        let _ = fs::remove_file(self.image());
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(format!("{program} {arguments:?}: {}: {}{}", output.status, said(&output.stdout), said(&output.stderr)))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Deadline::after(STEP_MAX);
    while !done() {
        assert!(!patience.passed(), "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
