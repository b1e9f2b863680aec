//! Programs as cameras, and all that a program can do wrong: hang, refuse to die, leave children, flood, lie, crash.
//!
//! Each fault is a real process. Where a fault could be a harmless one in disguise, the test shows first what it does to a plain
//! `std::process::Command`.

#[path = "rig/disk.rs"]
mod disk;
#[path = "rig/agent.rs"]
mod rig;

use disk::Disk;
use rig::{Node, pause, text, wait_for};
use shutterd::capture::{self, source::*};
use shutterd::clock::{Deadline, boottime_now_ms};
use shutterd::config;
use shutterd::image::{jpeg, meta};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// A directory with a picture and the programs that a test writes; it goes with this value.
struct Bench(PathBuf);

impl Bench {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("command-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        // Noise, so that it is larger than a pipe holds.
        let y = (0..WIDTH * HEIGHT).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let chroma = vec![128; (WIDTH * HEIGHT / 4) as usize];
        let yuv = Yuv { y, u: chroma.clone(), v: chroma, sampling: Sampling::Yuv420 };
        let picture = jpeg::encode(&yuv, WIDTH, HEIGHT, 90).unwrap();
        assert!(picture.len() > 128 << 10, "{}", picture.len());
        std::fs::write(dir.join("picture"), picture).unwrap();
        Self(dir)
    }
    fn picture(&self) -> Vec<u8> {
        std::fs::read(self.0.join("picture")).unwrap()
    }
    /// Writes a script; `@` in it is this directory. Returns the words that run it.
    fn script(&self, name: &str, body: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, body.replace('@', &self.0.display().to_string())).unwrap();
        format!("sh {}", path.display())
    }
    fn wait_for_pid(&self, file: &str) -> u32 {
        let mut pid = None;
        wait_for(file, || {
            pid = std::fs::read_to_string(self.0.join(file)).ok().and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        pid.unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn plain(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One capture as the agent makes it, and how long it took.
fn grab(line: &str, timeout_ms: u64) -> (Result<Frame, CaptureError>, u64) {
    grab_as("c", line, timeout_ms, 33_177_600)
}

fn grab_as(camera: &str, line: &str, timeout_ms: u64, max_pixels: u64) -> (Result<Frame, CaptureError>, u64) {
    let file = format!("[node]\nid = \"n\"\n[cameras.{camera}]\nsource = '''command:{line}'''\nmax_pixels = {max_pixels}\n");
    let (settings, _) = config::parse(&file, "test").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut source = capture::open(&settings.cameras[0], false, Duration::ZERO, runtime.handle().clone()).unwrap();
    let begun = boottime_now_ms();
    let want = Want { not_before_ms: begun, deadline: Deadline::after(Duration::from_millis(timeout_ms)), label: String::new() };
    let result = source.grab(&want);
    (result, boottime_now_ms() - begun)
}

fn refused(line: &str, timeout_ms: u64) -> (String, &'static str, u64) {
    refused_as("c", line, timeout_ms)
}

fn refused_as(camera: &str, line: &str, timeout_ms: u64) -> (String, &'static str, u64) {
    let (result, took) = grab_as(camera, line, timeout_ms, 33_177_600);
    let error = result.unwrap_err();
    assert_ne!(error.remedy(), Remedy::Fatal, "{error}");
    (error.to_string(), error.code(), took)
}

/// Dead, or a zombie that init has not looked at yet: orphans are its business.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('Z'))
}
/// Not even a zombie: the program itself is ours to reap.
fn is_reaped(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn what_a_program_writes_is_the_picture_dated_by_its_start() {
    let bench = Bench::new("good");
    let line = bench.script("good", "sleep 0.3; cat @/picture; echo fine >&2");
    let before = boottime_now_ms();
    let (frame, took) = grab(&line, 5_000);
    let frame = frame.unwrap();
    assert_eq!((frame.width, frame.height), (WIDTH, HEIGHT));
    assert!(matches!(&frame.data, FrameData::Jpeg(jpeg) if *jpeg == bench.picture()), "byte for byte");
    assert!((before..before + 200).contains(&frame.taken_ms) && took >= 300, "{} {before} {took}", frame.taken_ms);
}

#[test]
fn a_program_that_hangs_is_ended_by_the_deadline_and_so_is_its_whole_family() {
    let bench = Bench::new("hang");
    let line = bench.script("hang", "echo $$ >@/leader; sleep 600 & echo $! >@/child; echo waiting for light >&2; wait");
    let (said, code, took) = refused(&line, 1_500);
    assert_eq!(code, "timeout");
    assert!(said.contains("still running, ended when told to; it said: \"waiting for light\""), "{said}");
    assert!((1_000..1_600).contains(&took), "{took}");
    assert!(is_reaped(bench.wait_for_pid("leader")));
    // Killed as well; the kernel takes its time to bury what init must reap.
    let child = bench.wait_for_pid("child");
    wait_for("the child to be gone", || is_gone(child));
}

#[test]
fn a_program_that_will_not_end_is_killed() {
    let bench = Bench::new("stubborn");
    let line = bench.script("stubborn", "trap '' TERM; echo $$ >@/leader; while :; do sleep 1; done");
    // It does what it says: a plain child lives on after SIGTERM.
    let mut child = plain(&line).spawn().unwrap();
    wait_for("the script", || bench.0.join("leader").exists());
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    pause(200);
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();

    let (said, code, took) = refused(&line, 1_000);
    assert!(code == "timeout" && said.contains("had to be killed"), "{said}");
    assert!((1_000..1_200).contains(&took), "{took}");
    assert!(is_reaped(bench.wait_for_pid("leader")));
}

/// A filesystem on which every write waits, in a way that no signal ends: what a hung driver does to a program.
struct Frozen(Disk);

impl Frozen {
    fn new(at: &Path) -> Option<Self> {
        let disk = Disk::ext4(at, 16)?;
        assert!(Command::new("fsfreeze").arg("-f").arg(&disk.at).status().unwrap().success());
        Some(Self(disk))
    }
}
impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0.at).status();
    }
}

#[test]
fn a_program_that_nothing_can_kill_holds_nobody_up_and_is_not_started_again_before_it_is_gone() {
    let bench = Bench::new("driver");
    let Some(driver) = Frozen::new(&bench.0.join("disk")) else { return };
    let line = bench.script("driver", "echo $$ >>@/leaders; echo x >@/disk/x; cat @/picture");
    let (said, code, took) = refused_as("driver", &line, 1_000);
    assert!(code == "timeout" && said.contains("had to be killed"), "{said}");
    assert!((1_000..1_600).contains(&took), "{took}");
    let (said, code, took) = refused_as("driver", &line, 1_000);
    assert!(code == "program" && said.contains("hangs in a driver") && took < 500, "{took} {said}");
    let leaders = std::fs::read_to_string(bench.0.join("leaders")).unwrap();
    let leader: u32 = leaders.trim().parse().expect("it was started once");
    assert!(!is_gone(leader), "it was killed after all: this shows nothing");
    // Another camera is none of its business.
    assert!(grab(&bench.script("good", "cat @/picture"), 5_000).0.is_ok());
    drop(driver);
    wait_for("the program to be reaped", || is_reaped(leader));
    std::fs::create_dir_all(bench.0.join("disk")).unwrap();
    wait_for("the camera to come back", || grab_as("driver", &line, 5_000, u64::from(WIDTH * HEIGHT)).0.is_ok());
}

#[test]
fn a_child_left_behind_holds_nothing_up_and_does_not_live_on() {
    let bench = Bench::new("grandchild");
    let line = bench.script("grandchild", "sleep 600 & echo $! >@/child; cat @/picture");
    // It does what it says: the pipe of a plain child stays open after its end.
    let mut child = plain(&line).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let read = out.read_to_end(&mut Vec::new());
        let _ = tell.send(());
        read
    });
    assert!(child.wait().unwrap().success());
    assert!(told.recv_timeout(Duration::from_millis(500)).is_err(), "the pipe came to its end: this shows nothing");
    assert!(Command::new("kill").arg(bench.wait_for_pid("child").to_string()).status().unwrap().success());
    reader.join().unwrap().unwrap();

    let (frame, took) = grab(&line, 5_000);
    assert!(matches!(frame.unwrap().data, FrameData::Jpeg(jpeg) if jpeg == bench.picture()));
    assert!(took < 2_000, "{took}");
    let child = bench.wait_for_pid("child");
    wait_for("the child to be gone", || is_gone(child));
}

#[test]
fn floods_are_cut_off() {
    let bench = Bench::new("flood");
    for (name, body, words) in [
        ("out", "echo $$ >@/leader; exec cat /dev/zero", "more than 32 MiB of picture"),
        ("err", "echo $$ >@/leader; exec cat /dev/zero >&2", "more than 4 MiB of error text"),
    ] {
        let (said, code, took) = refused(&bench.script(name, body), 20_000);
        assert!(code == "program" && said.contains(words), "{said}");
        assert!(took < 10_000, "{took}");
        assert!(is_reaped(bench.wait_for_pid("leader")));
    }
}

#[test]
fn a_program_without_a_whole_picture_gives_none() {
    let bench = Bench::new("none");
    for (name, body, code, words) in [
        (
            "nothing",
            "echo no cameras available >&2",
            "program",
            "wrote no picture to its standard output; it said: \"no cameras available\"",
        ),
        ("noise", "echo hello; echo odd >&2", "damaged", "not a whole JPEG"),
        ("exit", "cat @/picture; echo 'sensor not found' >&2; exit 3", "program", "failed (exit status: 3); it said: \"sensor not found\""),
        ("signal", "cat @/picture; kill -SEGV $$", "program", "failed (signal: 11 (SIGSEGV)"),
    ] {
        let (said, said_code, took) = refused(&bench.script(name, body), 5_000);
        assert!(said_code == code && said.contains(words), "{name}: {said_code}: {said}");
        assert!(took < 3_000, "{took}");
    }
    let (too_large, _) = grab_as("c", &bench.script("good", "cat @/picture"), 5_000, 1_000);
    assert_eq!(too_large.unwrap_err().code(), "too_large");
}

#[test]
fn a_program_that_cannot_be_started_is_named_with_the_reason() {
    let bench = Bench::new("start");
    for (line, words) in [
        ("rpicam-nowhere --password hunter2".to_owned(), "rpicam-nowhere is not there"),
        (bench.0.join("missing hunter2").display().to_string(), "missing is not there"),
        (format!("{} hunter2", bench.0.join("picture").display()), "picture may not be run by the agent's user (permission denied)"),
        ("/ hunter2".to_owned(), "may not be run"),
    ] {
        let (said, code, took) = refused(&line, 5_000);
        assert!(code == "program" && said.contains(words) && !said.contains("hunter2"), "{said}");
        assert!(took < 2_000);
    }
}

#[test]
fn a_program_gets_no_descriptor_and_little_of_the_environment() {
    let bench = Bench::new("leak");
    // A descriptor without close-on-exec, as some libraries open them.
    let open = std::fs::File::open(bench.0.join("picture")).unwrap();
    let leaky = rustix::io::fcntl_dupfd_cloexec(&open, 50).unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let line = bench.script("leak", "ls /proc/self/fd >@/fds; env >@/env; pwd >@/pwd; cat @/picture");
    let read = |name: &str| std::fs::read_to_string(bench.0.join(name)).unwrap();
    let has = |name: &str| read("fds").lines().any(|fd| fd == name);
    let number = leaky.as_raw_fd().to_string();
    let allowed = |name: &str| capture::command::KEPT.contains(&name) || ["PWD", "SHLVL", "_", "OLDPWD"].contains(&name);
    // It does what it says: a plain child has it, and all variables of this process.
    assert!(plain(&line).stdout(Stdio::null()).status().unwrap().success());
    let other = std::env::vars().map(|(name, _)| name).find(|name| !allowed(name)).expect("a variable that is not handed on");
    assert!(has(&number) && read("env").lines().any(|line| line.starts_with(&format!("{other}="))), "{other}");

    grab(&line, 5_000).0.unwrap();
    assert!(!has(&number) && has("2"), "{}", read("fds"));
    let names: Vec<String> = read("env").lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    assert!(names.iter().all(|name| allowed(name)) && names.iter().any(|name| name == "PATH"), "{names:?}");
    assert_eq!(read("pwd"), "/\n");
}

#[test]
fn an_agent_with_programs_for_cameras_puts_each_end_on_record_and_no_argument() {
    let (node, bench) = (Node::new("programs"), Bench::new("agent"));
    let good = bench.script("good", "env >@/env; cat @/picture");
    let half = bench.script("half", "head -c 50000 @/picture");
    let bad = bench.script("bad", "echo cannot log in with $2 >&2; exit 1");
    node.configure(&format!(
        "[cameras.good]\nsource = 'command:{good}'\n[schedules.good]\ncamera = \"good\"\nevery = \"1s\"\n\
         [cameras.half]\nsource = 'command:{half}'\n[schedules.half]\ncamera = \"half\"\nevery = \"1s\"\n\
         [cameras.bad]\nsource = 'command:{bad} --password hunter2'\n[schedules.bad]\ncamera = \"bad\"\nevery = \"1s\"\n"
    ));
    let check = node.command(&["check"]);
    let said = text(&check.stdout) + &text(&check.stderr);
    assert!(check.status.success() && said.contains("camera bad: command:sh with 3 arguments, timeout"), "{said}");
    let agent = node.start_under(&["env", "NOTIFY_SOCKET=/nowhere", "CREDENTIALS_DIRECTORY=/nowhere", "WATCHDOG_USEC=1"]);
    node.wait_for_pictures("good", 3);
    wait_for("both faults", || node.error_of("half").is_some() && node.error_of("bad").is_some());
    assert_eq!((node.error_of("half").as_deref(), node.error_of("bad").as_deref()), (Some("damaged"), Some("program")));
    assert_eq!((node.taken("half"), node.taken("bad")), (0, 0));
    let env = std::fs::read_to_string(bench.0.join("env")).unwrap();
    assert!(env.contains("PATH=") && !["NOTIFY", "CREDENTIALS", "WATCHDOG"].iter().any(|name| env.contains(name)), "{env}");
    assert!(agent.stop().0.success());
    let log = node.log();
    assert!(
        log.contains("bad (command:sh with 3 arguments): the program failed (exit status: 1); it said: \"cannot log in with …\""),
        "{log}"
    );
    assert!(!said.contains("hunter2") && !log.contains("hunter2"), "{log}");
}

#[test]
fn a_camera_that_gives_the_same_picture_again_and_again_is_marked_as_frozen() {
    let (node, bench) = (Node::new("frozen"), Bench::new("frozen"));
    let same = bench.script("same", "cat @/picture");
    node.configure(&format!(
        "[cameras.same]\nsource = 'command:{same}'\n[schedules.same]\ncamera = \"same\"\nevery = \"1s\"\n\
         [cameras.card]\nsource = \"pattern:\"\n[schedules.card]\ncamera = \"card\"\nevery = \"1s\"\n"
    ));
    let agent = node.start();
    node.wait_for_pictures("same", 3);
    node.wait_for_pictures("card", 3);
    assert!(agent.stop().0.success());
    let repeated = |camera: &str| {
        let dirs = std::fs::read_dir(node.data.join("snapshots").join(camera)).unwrap().map(|dir| dir.unwrap().path());
        let files = dirs.flat_map(|dir| std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()));
        let flags = files.map(|file| meta::read(&std::fs::read(file).unwrap()).unwrap().record.flags);
        flags.map(|flags| flags.iter().any(|flag| flag == "repeated")).collect::<Vec<_>>()
    };
    let same = repeated("same");
    assert!(same.len() >= 3 && same.iter().filter(|marked| !**marked).count() == 1, "all but the first: {same:?}");
    assert!(!repeated("card").contains(&true));
}

#[test]
fn no_program_outlives_its_agent() {
    let (node, bench) = (Node::new("outlive"), Bench::new("outlive"));
    let hang = bench.script("hang", "sleep 600 & echo $! >@/child; echo $$ >@/leader; wait");
    node.configure(&format!(
        "[cameras.hang]\nsource = 'command:{hang}'\ntimeout = \"5m\"\n[schedules.hang]\ncamera = \"hang\"\nevery = \"1s\"\nalign = \"boot\"\n"
    ));
    let pids = || {
        let pids = (bench.wait_for_pid("leader"), bench.wait_for_pid("child"));
        std::fs::remove_file(bench.0.join("leader")).unwrap();
        std::fs::remove_file(bench.0.join("child")).unwrap();
        pids
    };
    // Killed, it can do nothing; the kernel does.
    let mut agent = node.start();
    let (leader, child) = pids();
    assert!(!is_gone(leader));
    agent.signal("KILL");
    agent.ended();
    wait_for("the program to be gone", || is_gone(leader));
    // Its child is not the kernel's to find: systemd ends all of a service's group. Here nobody does.
    let _ = Command::new("kill").arg(child.to_string()).status();

    let agent = node.start();
    let (leader, child) = pids();
    let (status, took) = agent.stop();
    assert!(status.success() && took < Duration::from_secs(14), "{status} {took:?}");
    wait_for("the whole family to be gone", || is_gone(leader) && is_gone(child));
}
