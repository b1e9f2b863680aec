//! An emulated board: qemu as a process, a shell on it, its cable and its mains plug.
//!
//! What the shell answers drives a story; that a promise is kept is read from the hub's files and from systemd, never from words that
//! this test has put into the board's mouth.

use shutterd::clock::Deadline;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Two emulated processors on two busy ones: judged by events, so this only ends what will never come.
pub const PATIENCE: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(100);

/// Where the images are, and where the emulator is.
pub struct Images {
    dir: PathBuf,
    build_root: PathBuf,
}

impl Images {
    /// `None` after saying aloud that there are none.
    pub fn find() -> Option<Self> {
        let dir = std::env::var_os("SHUTTER_BOARDS").map(PathBuf::from);
        let build_root = std::env::var_os("BUILD_ROOT").map(PathBuf::from);
        if let (Some(dir), Some(build_root)) = (dir, build_root) {
            return Some(Self { dir, build_root });
        }
        assert!(std::env::var_os("CI").is_none(), "SHUTTER_BOARDS and BUILD_ROOT name no emulated boards; run `make board-test`");
        eprintln!("\n*** SKIPPED, no emulated board to test on. Run `make test` or `make board-test BOARD=qemu-virt`\n");
        None
    }
    /// A file made for an architecture: `disk.img`, `uvcsim`, …
    pub fn file(&self, arch: &str, name: &str) -> PathBuf {
        let path = self.dir.join(arch).join(name);
        assert!(path.exists(), "{} is missing; run `make board-image`", path.display());
        path
    }
    /// Debian's emulator from the build root, with the libraries from there: nothing has to be mounted or installed for it.
    fn emulator(&self, name: &str) -> Command {
        let inside = |path: &str| self.build_root.join(path);
        let mut command = Command::new(inside("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(inside("usr/lib/x86_64-linux-gnu")).arg(inside("usr/bin").join(name));
        command.env("QEMU_MODULE_DIR", inside("usr/lib/x86_64-linux-gnu/qemu")).arg("-L").arg(inside("usr/share/qemu"));
        command
    }
}

/// A board that is switched off: what it will boot with.
pub struct Machine<'i> {
    pub images: &'i Images,
    pub arch: &'static str,
    /// Its card; keeps what was written, as a card does.
    pub disk: Option<PathBuf>,
    /// A tar that the test hands in, seen as the last disk.
    pub payload: PathBuf,
    pub dir: PathBuf,
}

impl<'i> Machine<'i> {
    /// With a fresh card.
    pub fn arm64(images: &'i Images, dir: &Path, payload: PathBuf) -> Self {
        let disk = dir.join("disk.img");
        let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(images.file("arm64", "disk.img")).arg(&disk).status();
        assert!(copied.unwrap().success(), "no room for a card of its own in {}", dir.display());
        Self { images, arch: "arm64", disk: Some(disk), payload, dir: dir.to_owned() }
    }
    pub fn armhf(images: &'i Images, dir: &Path, payload: PathBuf) -> Self {
        Self { images, arch: "armhf", disk: None, payload, dir: dir.to_owned() }
    }

    /// Switches it on. `clock` is what its clock chip says: `utc`, or a date.
    pub fn boot(&self, clock: &str) -> Board {
        let (emulator, machine, cpu) = match self.arch {
            "armhf" => ("qemu-system-arm", "virt,highmem=off", "cortex-a15"),
            _ => ("qemu-system-aarch64", "virt", "cortex-a72"),
        };
        let (shell, monitor) = (self.dir.join("shell"), self.dir.join("monitor"));
        let _ = (fs::remove_file(&shell), fs::remove_file(&monitor));
        let mut command = self.images.emulator(emulator);
        command.args(["-M", machine, "-cpu", cpu, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "512", "-display", "none", "-no-reboot"]);
        command.args(["-rtc", &format!("base={clock}")]);
        command.arg("-kernel").arg(self.images.file(self.arch, "vmlinuz")).arg("-initrd").arg(self.images.file(self.arch, "initrd"));
        let bare = if self.disk.is_none() { " board=bare" } else { "" };
        command.args(["-append", &format!("console=ttyAMA0 quiet rw panic=5 net.ifnames=0{bare}")]);
        for (name, path, more) in [("card", self.disk.as_ref(), "cache=writeback"), ("payload", Some(&self.payload), "readonly=on")] {
            if let Some(path) = path {
                command.args(["-drive", &format!("file={},format=raw,if=none,id={name},{more}", path.display())]);
                command.args(["-device", &format!("virtio-blk-pci,drive={name}")]);
            }
        }
        command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,id=nic,romfile="]);
        command.args(["-device", "virtio-serial-pci", "-chardev", &format!("socket,id=shell,path={},server=on,wait=off", shell.display())]);
        command.args(["-device", "virtserialport,chardev=shell,name=board"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())]);
        let log = fs::File::options().create(true).append(true).open(self.dir.join("qemu.log")).unwrap();
        command.arg("-serial").arg(format!("file:{}", self.dir.join("console.log").display()));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut emulator = Emulator(command.spawn().expect("the emulator cannot be started"));
        let shell = BufReader::new(emulator.connect(&shell));
        let monitor = BufReader::new(emulator.connect(&monitor));
        let mut board = Board { emulator, shell, monitor };
        board.read_monitor();
        board.tell_monitor(r#"{"execute": "qmp_capabilities"}"#);
        let ready = board.line();
        assert_eq!(ready, "ready", "the board's shell has a greeting of its own");
        board
    }
}

/// The process; killed with this value.
struct Emulator(Child);

impl Emulator {
    fn connect(&mut self, socket: &Path) -> UnixStream {
        let patience = Deadline::after(PATIENCE);
        loop {
            if let Ok(stream) = UnixStream::connect(socket) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            assert_eq!(self.0.try_wait().unwrap(), None, "the emulator has ended; see qemu.log");
            assert!(!patience.passed(), "the emulator does not open {}", socket.display());
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command on the board came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub text: String,
}

/// A board that runs.
pub struct Board {
    emulator: Emulator,
    shell: BufReader<UnixStream>,
    monitor: BufReader<UnixStream>,
}

impl Board {
    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.shell.read_line(&mut line);
        assert!(matches!(read, Ok(1..)), "the board says nothing ({read:?}); see console.log");
        line.trim_end().to_owned()
    }
    /// Runs a script on the board as root.
    pub fn run(&mut self, script: &str) -> Said {
        let request = base64(script.as_bytes()) + "\n";
        self.shell.get_mut().write_all(request.as_bytes()).expect("the board's shell is gone");
        let answer = self.line();
        let (code, text) = answer.split_once(' ').unwrap_or((&answer, ""));
        Said { code: code.parse().unwrap(), text: String::from_utf8_lossy(&unbase64(text)).into_owned() }
    }
    /// Runs a script that must succeed.
    pub fn ok(&mut self, script: &str) -> String {
        let said = self.run(script);
        assert_eq!(said.code, 0, "on the board: {script}\n{}", said.text);
        said.text.trim_end().to_owned()
    }
    /// Asks again and again until the script succeeds.
    pub fn until(&mut self, what: &str, script: &str) -> String {
        let patience = Deadline::after(PATIENCE);
        loop {
            let said = self.run(script);
            if said.code == 0 {
                return said.text.trim_end().to_owned();
            }
            assert!(!patience.passed(), "waited {PATIENCE:?} in vain: {what}; the board says: {}", said.text);
            thread::sleep(LOOK);
        }
    }

    fn read_monitor(&mut self) -> String {
        let mut line = String::new();
        assert!(self.monitor.read_line(&mut line).is_ok_and(|n| n > 0), "the emulator's monitor is gone");
        line
    }
    fn tell_monitor(&mut self, command: &str) {
        self.monitor.get_mut().write_all(command.as_bytes()).unwrap();
        // Events come in between.
        while !self.read_monitor().contains("\"return\"") {}
    }
    /// Plugs the network cable in, or pulls it.
    pub fn cable(&mut self, plugged: bool) {
        self.tell_monitor(&format!(r#"{{"execute": "set_link", "arguments": {{"name": "nic", "up": {plugged}}}}}"#));
    }
    /// The mains plug is pulled: the process is killed, and what the board had not flushed is gone.
    pub fn cut_power(mut self) {
        self.emulator.0.kill().unwrap();
        self.emulator.0.wait().unwrap();
    }
}

/// A failed test tells what the service said on the board, if that still answers.
impl Drop for Board {
    fn drop(&mut self) {
        let request = base64(b"journalctl -q -b -o short-monotonic -u 'shutterd*' | tail -n 60 || tail -n 60 /run/agent.log") + "\n";
        if !thread::panicking() || self.shell.get_mut().write_all(request.as_bytes()).is_err() {
            return;
        }
        let _ = self.shell.get_mut().set_read_timeout(Some(Duration::from_secs(30)));
        let mut answer = String::new();
        if self.shell.read_line(&mut answer).is_ok() {
            let said = unbase64(answer.trim_end().split_once(' ').map_or("", |(_, text)| text));
            eprintln!("--- the service on the board\n{}", String::from_utf8_lossy(&said));
        }
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0, |bits, (i, &byte)| bits | u32::from(byte) << (16 - 8 * i));
        text.extend((0..4).map(|i| if i <= group.len() { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char } else { '=' }));
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.bytes().filter_map(|c| DIGITS.iter().position(|&d| d == c)).map(|d| d as u32).collect();
    let group = |group: &[u32]| {
        let bits = group.iter().enumerate().fold(0, |bits, (i, &digit)| bits | digit << (18 - 6 * i));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

#[test]
fn base64_is_that_of_the_boards_own_program() {
    for (text, code) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(base64(text.as_bytes()), code);
        assert_eq!(unbase64(code), text.as_bytes());
    }
}
