//! `command:` — a program of the board's owner that writes one JPEG to its standard output, such as `rpicam-still`.
//!
//! The one source that starts a process, and for cameras behind large C++ stacks the way to keep their crashes, leaks and hangs out of
//! this one. Each capture runs the program anew and owes the node four things:
//!
//! - **An end.** The last second of the time for a picture (a fifth of a short one) belongs to ending a program that is still running:
//!   SIGTERM, and SIGKILL at the deadline, to its whole process group. One that SIGKILL cannot end (it hangs in a driver) is waited for
//!   beside the camera's thread, and not started again before it is gone.
//! - **Nothing left behind.** Whatever is in the group when the program ends is killed, then the program is reaped: in this order, or
//!   its number could be another's by then. If the agent itself dies, the kernel kills the program.
//! - **Honesty.** A picture counts only if the program ended well. It is dated by the *start* of the program: no picture is older than
//!   that, so none serves a slot that fell due while the program was running. Its true instant is later by up to the program's time.
//! - **Silence.** Arguments may hold a password: no text shows them, and what the program says of them is blanked out.
//!
//! The program gets `/dev/null` to read, `/` as directory, no descriptor of the agent's, and of the environment only [`KEPT`]:
//! neither the agent's watchdog and credentials nor secrets of the service. What else it needs goes before it: `env NAME=value`.
//!
//! Needs pidfd (Linux 5.3). Path not taken: `posix_spawn`, which cannot ask for the death signal.

use super::words::Words;
use crate::capture::source::{CaptureError, Frame, FrameData, Source, Want};
use crate::clock::{Deadline, boottime_now_ms};
use crate::config::command::CommandLine;
use crate::image::{
    jpeg::{self, ImageError},
    repair,
};
use crate::model::{PICTURE_BYTES_MAX, PROGRAM_GRACE_MAX_MS, PROGRAM_WORDS_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use std::{
    ffi::OsString,
    io::{self, ErrorKind, Read},
    os::fd::{AsFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

/// What a program gets of the agent's environment.
pub const KEPT: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"];
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long a program is waited for that was sent SIGKILL, before somebody else waits.
const KILL_WAIT: Duration = Duration::from_millis(200);
/// More than a full pipe: what can be left in one when the program has ended.
const LAST_READS: usize = 32;

/// Programs that run now, by the process group that each leads; all of this process.
static RUNNING: (Mutex<Vec<Group>>, Condvar) = (Mutex::new(Vec::new()), Condvar::new());

struct Group {
    leader: Pid,
    /// The camera that waits for its end in vain.
    stuck: Option<String>,
}

fn running() -> MutexGuard<'static, Vec<Group>> {
    RUNNING.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Ends every program: asks, and kills what is still there after `grace`. For the end of the agent.
pub fn end_all(grace: Duration) {
    for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, KILL_WAIT)] {
        let deadline = Deadline::after(wait);
        let mut groups = running();
        // A group in the list is not reaped yet, so the number is its own.
        groups.iter().for_each(|group| _ = kill_process_group(group.leader, signal));
        while !groups.is_empty() && !deadline.passed() {
            groups = match RUNNING.1.wait_timeout(groups, deadline.left()) {
                Ok((groups, _)) => groups,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

pub struct Program {
    camera: String,
    line: CommandLine,
    pixels_max: u64,
}

impl Program {
    pub fn new(camera: String, line: CommandLine, pixels_max: u64) -> Self {
        Self { camera, line, pixels_max }
    }

    fn failed(&self, cause: String) -> CaptureError {
        CaptureError::Program { camera: self.camera.clone(), cause }
    }

    fn started(&self) -> Result<Run, CaptureError> {
        if running().iter().any(|group| group.stuck.as_ref() == Some(&self.camera)) {
            return Err(self.failed("is still running from the last capture and cannot be killed: it hangs in a driver".into()));
        }
        let name = self.line.name().escape_debug();
        Run::start(&self.camera, &self.line).map_err(|cause| {
            self.failed(match cause.kind() {
                ErrorKind::NotFound => format!("{name} is not there (nor is what its first line names, if it is a script); install it"),
                ErrorKind::PermissionDenied => format!("{name} may not be run by the agent's user (permission denied)"),
                _ => format!("{name} cannot be started: {cause}"),
            })
        })
    }

    /// The picture of a program that ended in time.
    fn picture(&self, run: &mut Run, status: ExitStatus, taken_ms: u64) -> Result<Frame, CaptureError> {
        let said = run.words.told(&self.line.arguments);
        if !status.success() {
            return Err(self.failed(format!("failed ({status}){said}")));
        }
        if run.picture.is_empty() {
            return Err(self.failed(format!("ended well but wrote no picture to its standard output{said}")));
        }
        let damaged = |cause: ImageError| match cause {
            ImageError::TooLarge { pixels, limit } => CaptureError::TooLarge { camera: self.camera.clone(), pixels, limit },
            other => CaptureError::Damaged { camera: self.camera.clone(), cause: format!("{other}{said}") },
        };
        let picture = repair::repair(std::mem::take(&mut run.picture)).map_err(damaged)?;
        let (width, height) = jpeg::size(&picture, self.pixels_max).map_err(damaged)?;
        Ok(Frame { data: FrameData::Jpeg(picture), width, height, taken_ms })
    }
}

impl Source for Program {
    fn kind(&self) -> &'static str {
        "command"
    }

    fn grab(&mut self, want: &Want) -> Result<Frame, CaptureError> {
        let wanted = Deadline::at(want.not_before_ms);
        while !wanted.passed() {
            std::thread::park_timeout(wanted.left());
        }
        let taken_ms = boottime_now_ms();
        let deadline_ms = want.deadline.boottime_ms();
        let within_ms = deadline_ms.saturating_sub(taken_ms);
        let asked = Deadline::at(deadline_ms - (within_ms / 5).min(PROGRAM_GRACE_MAX_MS).min(deadline_ms));
        let mut run = self.started()?;
        let end = run.until(asked);
        if let End::Late = end {
            run.signal(Signal::TERM);
            let obeyed = matches!(run.until(want.deadline), End::Ended(_));
            let how = if obeyed { "still running, ended when told to" } else { "still running, had to be killed" };
            let said = run.words.told(&self.line.arguments);
            let (camera, within) = (self.camera.clone(), Duration::from_millis(within_ms));
            return Err(CaptureError::Timeout { camera, within, stage: format!("the program was {how}{said}") });
        }
        match end {
            End::Ended(status) => self.picture(&mut run, status, taken_ms),
            End::Floods(what, most) => Err(self.failed(format!("was killed: it wrote more than {} MiB of {what}", most >> 20))),
            End::Broken(cause) => Err(self.failed(format!("cannot be followed: {cause}"))),
            End::Late => Err(self.failed("ended too late".into())),
        }
    }
}

/// How waiting for a program came to an end.
enum End {
    Ended(ExitStatus),
    Late,
    /// It writes without end: what, and how many bytes would have been right.
    Floods(&'static str, usize),
    /// The kernel refuses to say.
    Broken(io::Error),
}

/// One run of the program. Whatever becomes of this value, the group is killed and the program reaped.
struct Run {
    camera: String,
    child: Option<Child>,
    leader: Pid,
    pidfd: OwnedFd,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    picture: Vec<u8>,
    words: Words,
}

impl Run {
    fn start(camera: &str, line: &CommandLine) -> io::Result<Self> {
        let mut command = Command::new(&line.program);
        command.args(&line.arguments).env_clear().current_dir("/").process_group(0);
        let kept = KEPT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.env("PATH", OsString::from(PATH_DEFAULT)).envs(kept);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tie_to_this_thread(&mut command);
        // Before anybody may ask for the end of all programs, this one is on the list.
        let mut groups = running();
        let mut child = command.spawn()?;
        let known = Pid::from_raw(child.id() as i32).ok_or(ErrorKind::Other.into());
        let followed = known.and_then(|leader| Ok((leader, pidfd_open(leader, PidfdFlags::empty())?)));
        let (leader, pidfd) = match followed {
            Ok(followed) => followed,
            Err(cause) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(cause);
            }
        };
        groups.push(Group { leader, stuck: None });
        drop(groups);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let run =
            Self { camera: camera.to_owned(), child: Some(child), leader, pidfd, out, err, picture: Vec::new(), words: Words::default() };
        run.out.iter().try_for_each(|pipe| rustix::io::ioctl_fionbio(pipe, true))?;
        run.err.iter().try_for_each(|pipe| rustix::io::ioctl_fionbio(pipe, true))?;
        Ok(run)
    }

    fn signal(&self, signal: Signal) {
        if self.child.is_some() {
            // Not reaped yet, so the number is its own. The program itself may have left its group.
            let _ = kill_process_group(self.leader, signal);
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Reads what the program writes until it ends, or until the instant.
    fn until(&mut self, instant: Deadline) -> End {
        loop {
            if instant.passed() {
                return End::Late;
            }
            let left = instant.left();
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            let pipes = [self.out.as_ref().map(AsFd::as_fd), self.err.as_ref().map(AsFd::as_fd)];
            fds.extend(pipes.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) as _ };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return End::Broken(cause.into()),
            }
            let ended = !fds[0].revents().is_empty();
            drop(fds);
            if ended {
                // Whoever else holds the pipes writes nothing more.
                self.signal(Signal::KILL);
            }
            for _ in 0..if ended { LAST_READS } else { 1 } {
                match self.read() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(end) => return end,
                }
            }
            if ended {
                return match self.reap() {
                    Some(Ok(status)) => End::Ended(status),
                    Some(Err(cause)) => End::Broken(cause),
                    None => End::Late,
                };
            }
        }
    }

    /// Takes a piece of what there is; false when there is nothing now.
    fn read(&mut self) -> Result<bool, End> {
        let mut piece = [0; 64 << 10];
        let picture = read_some(&mut self.out, &mut piece).map_err(End::Broken)?;
        if self.picture.len() + picture > PICTURE_BYTES_MAX {
            return Err(End::Floods("picture", PICTURE_BYTES_MAX));
        }
        self.picture.extend_from_slice(&piece[..picture]);
        let words = read_some(&mut self.err, &mut piece).map_err(End::Broken)?;
        self.words.push(&piece[..words]);
        if self.words.total() > PROGRAM_WORDS_MAX {
            return Err(End::Floods("error text", PROGRAM_WORDS_MAX));
        }
        Ok(picture + words > 0)
    }

    /// Takes the program off the list, then off the kernel's; it has ended.
    fn reap(&mut self) -> Option<io::Result<ExitStatus>> {
        let mut child = self.child.take()?;
        running().retain(|group| group.leader != self.leader);
        RUNNING.1.notify_all();
        Some(child.wait())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        (self.out, self.err) = (None, None);
        if self.child.is_none() {
            return;
        }
        if ends_within(&self.pidfd, KILL_WAIT) {
            self.reap();
        } else if let Some(mut child) = self.child.take() {
            tracing::warn!("{}: the program cannot be killed; it is not started again before it is gone", self.camera);
            let leader = self.leader;
            running().iter_mut().filter(|group| group.leader == leader).for_each(|group| group.stuck = Some(self.camera.clone()));
            let _ = std::thread::Builder::new().name("program-end".into()).spawn(move || {
                let _ = child.wait();
                running().retain(|group| group.leader != leader);
                RUNNING.1.notify_all();
            });
        }
    }
}

fn ends_within(pidfd: &OwnedFd, wait: Duration) -> bool {
    let deadline = Deadline::after(wait);
    loop {
        let left = deadline.left();
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) as _ };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) if !deadline.passed() => {}
            Ok(ready) => return ready > 0,
            Err(_) => return false,
        }
    }
}

/// How much was read; the pipe is closed at its end.
fn read_some<P: Read>(pipe: &mut Option<P>, into: &mut [u8]) -> io::Result<usize> {
    let Some(open) = pipe else { return Ok(0) };
    match open.read(into) {
        Ok(0) => {
            *pipe = None;
            Ok(0)
        }
        Ok(count) => Ok(count),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(e) => Err(e),
    }
}

/// The program dies with the thread that started it, and takes over none of the agent's descriptors: libraries open some without
/// close-on-exec, and a camera held open by a program is busy for everybody else.
#[expect(unsafe_code, reason = "nothing but a hook between fork and exec can do this")]
fn tie_to_this_thread(command: &mut Command) {
    let agent = std::process::id();
    let hook = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It died before the line above.
        if rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(agent as i32) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // Since Linux 5.11; an older kernel refuses, and the program starts without.
        // SAFETY: marks descriptors of the child as close-on-exec, among them the one that tells the parent of a failed exec, which
        // has the mark already; 0 to 2 are left alone. No memory is touched.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: runs in the child of a fork with other threads; system calls only, no allocation, no locks.
    unsafe { command.pre_exec(hook) };
}
