//! One thread per camera: due slots in, stored pictures or reasons out.
//!
//! | file | what |
//! |---|---|
//! | [`queue`] | which slots wait, which a capture serves, which waited too long |
//! | `habits` | when the camera is open, and how long before a slot it is opened |
//! | `develop` | from a frame to the pictures wanted of it |
//! | `teller` | how a capture ended, as status and ledger are told |
//! | `permits` | how many may decode at a time |
//!
//! [`Queue`] decides, without clock or camera. [`Camera`] is the thread around it. The wheel's task offers slots and looks after the
//! queue; the thread blocks in its camera as long as it must. So one camera never delays another, and a driver call that never
//! returns costs that camera alone.
//!
//! A capture serves every slot of its camera that falls due before its frame is taken. Later ones wait, one per schedule,
//! until the camera is free or min(period/2, 10 s) has passed, then they are `missed(busy)`.
//!
//! The thread knows when the next slot is due ([`Camera::foresee`]), and opens a closed camera ahead of it. That is a help and no promise:
//! what fails there is tried again by the slot's own capture, and no frame taken before the slot was due is ever stored for it.

mod develop;
mod habits;
mod permits;
mod queue;
mod teller;

pub use permits::Permits;
pub use queue::{Offered, Queue, Settled, SnapAnswer};
pub use teller::{failing, unknown};

use crate::capture;
use crate::capture::source::{CaptureError, Frame, FrameData, Remedy, Source, Want};
use crate::capture::v4l2::plug::Plugs;
use crate::clock::{Deadline, boottime_now_ms};
use crate::config::settings::{self, Wish};
use crate::image::jpeg;
use crate::model::{BUSY_WAIT_MAX_MS, Failure, ScheduleId, Slot};
use crate::status::Status;
use crate::store::{Answer, Put, Store};
use develop::{Picture, developed, is_plain, judged, shared_out};
use habits::{Habits, Idle};
use queue::{Begun, COMMANDS_MAX, Waiting};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};
use teller::{Teller, Trouble, answer};
use tokio::sync::oneshot;

/// After a panic or an error that nothing but a change can mend: first wait, doubled up to the second.
const REST_MIN_MS: u64 = 30_000;
const REST_MAX_MS: u64 = 600_000;
/// The process died so often in a row during this camera's captures: its driver or decoder is to blame. A single time may have been
/// any SIGKILL, such as that of a board out of memory.
const DEATHS_MAX: usize = 2;

/// What a camera thread needs of the rest.
#[derive(Clone)]
pub struct Surroundings {
    pub store: Store,
    pub status: Status,
    pub permits: Arc<Permits>,
    pub runtime: tokio::runtime::Handle,
    pub runtime_dir: PathBuf,
}

/// A running camera thread.
pub struct Camera {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    pub settings: settings::Camera,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Camera {
    /// `interval_ms`: between two pictures of its schedules at the closest; `None` without any.
    /// # Errors
    /// The system has no thread left.
    pub fn start(settings: settings::Camera, interval_ms: Option<u64>, around: Surroundings) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let mut worker = Worker {
            note: around.runtime_dir.join(format!("grab-{}", settings.id)),
            shared: shared.clone(),
            settings: settings.clone(),
            habits: Habits { interval_ms, warm_up_ms: None, opens: capture::opens(&settings) },
            tried_ms: None,
            plugs: None,
            around,
            source: None,
            encoder: None,
            last: None,
            rest: Rest::default(),
            deaths: 0,
        };
        let name = format!("cam-{}", &settings.id.as_str()[..settings.id.as_str().len().min(11)]);
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
        Ok(Self { shared, settings, thread: Some(thread) })
    }

    /// Slots that fall due together; one capture serves them. Returns those that end right here, and when to check.
    pub fn offer(&self, slots: Vec<Offered>, now_ms: u64) -> (Settled, Option<u64>) {
        let mut queue = lock(&self.shared.0);
        let settled = slots.into_iter().flat_map(|offered| queue.offer(offered, now_ms)).collect();
        let check = queue.next_check_ms();
        drop(queue);
        self.shared.1.notify_one();
        (settled, check)
    }
    /// A schedule's next slot is known, or (`None`) there is none any more: the camera is opened in time for it, or closed again.
    pub fn foresee(&self, schedule: &ScheduleId, due_ms: Option<u64>, now_ms: u64) {
        let offer_follows = lock(&self.shared.0).foresee(schedule, due_ms, now_ms);
        if !offer_follows {
            self.shared.1.notify_one();
        }
    }
    pub fn check(&self, now_ms: u64) -> (Settled, Option<u64>) {
        let mut queue = lock(&self.shared.0);
        (queue.check(now_ms), queue.next_check_ms())
    }
    /// Asks for a picture now.
    pub fn snap(&self, answer: oneshot::Sender<SnapAnswer>) {
        let mut queue = lock(&self.shared.0);
        if queue.commands.len() >= COMMANDS_MAX || queue.grab.as_ref().is_some_and(|g| g.hung) {
            let _ = answer.send(Err(Failure::new("busy", "the camera is busy and others wait already; try again")));
            return;
        }
        queue.commands.push_back(answer);
        drop(queue);
        self.shared.1.notify_one();
    }
    /// Asks the thread to end; slots that wait are returned for their outcome.
    pub fn ask_to_stop(&self) -> Vec<Slot> {
        let mut queue = lock(&self.shared.0);
        queue.stop = true;
        let waiting = queue.waiting.drain(..).map(|w| w.slot).collect();
        drop(queue);
        self.shared.1.notify_one();
        waiting
    }
    /// Waits for the thread to end; when it does not in time it is left behind, and the slots it served are returned.
    pub fn join_until(&mut self, deadline: Deadline) -> Vec<Slot> {
        let mut queue = lock(&self.shared.0);
        while queue.grab.is_some() && !deadline.passed() {
            queue = match self.shared.1.wait_timeout(queue, deadline.left()) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        let stuck = queue.grab.as_mut().map(|g| {
            g.hung = true;
            std::mem::take(&mut g.serving).into_iter().map(|w| w.slot).collect()
        });
        drop(queue);
        match stuck {
            Some(slots) => slots,
            None => {
                if let Some(thread) = self.thread.take() {
                    let _ = thread.join();
                }
                Vec::new()
            }
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How long a camera that cannot be helped is left alone.
#[derive(Default)]
struct Rest {
    until_ms: u64,
    wait_ms: u64,
    why: Option<Failure>,
}

impl Rest {
    fn begin(&mut self, now_ms: u64, why: Failure) {
        self.wait_ms = (self.wait_ms * 2).clamp(REST_MIN_MS, REST_MAX_MS);
        self.until_ms = now_ms + self.wait_ms;
        self.why = Some(why);
    }
    /// The reason to leave the camera alone right now.
    fn reason(&self, now_ms: u64) -> Option<Failure> {
        let why = self.why.as_ref().filter(|_| now_ms < self.until_ms)?;
        let left_s = (self.until_ms - now_ms).div_ceil(1000);
        Some(Failure::new(&why.code, format!("{}; not tried again for {left_s} s", why.detail)))
    }
}

struct Worker {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    settings: settings::Camera,
    habits: Habits,
    /// For which slot it was last opened ahead.
    tried_ms: Option<u64>,
    /// Tells of devices that come, which end a rest.
    plugs: Option<Plugs>,
    around: Surroundings,
    source: Option<Box<dyn Source>>,
    encoder: Option<jpeg::Encoder>,
    /// Checksum of the last picture.
    last: Option<u32>,
    rest: Rest,
    /// Exists while a grab or decode is under way: found at start, the process died in it.
    note: PathBuf,
    /// How often in a row.
    deaths: usize,
}

/// What a capture brought: the pictures of one frame, each for its slots.
struct Taken {
    taken_ms: u64,
    source: &'static str,
    flags: Vec<String>,
    pictures: Vec<(Wish, Vec<Waiting>, Result<Picture, Failure>)>,
}

/// What the thread turns to next.
enum Task {
    Capture(Begun),
    OpenFor { due_ms: u64 },
    Close,
}

impl Worker {
    fn run(&mut self) {
        if let Ok(deaths) = std::fs::read(&self.note) {
            self.deaths = deaths.len() + 1;
            let _ = std::fs::remove_file(&self.note);
            if self.deaths < DEATHS_MAX {
                tracing::warn!(camera = %self.settings.id, "the process died during a capture last time; once may be chance");
            } else {
                let why = Failure::new("crashed", format!("the process died {} times in this camera's driver or decoder", self.deaths));
                tracing::error!(camera = %self.settings.id, "{}; it is left alone for a while", why.detail);
                self.rest.begin(boottime_now_ms(), why);
            }
        }
        if let Some(what) = capture::missing(&self.settings) {
            tracing::warn!(camera = %self.settings.id, "{what}; it is used as soon as it is plugged in");
        }
        self.plugs = capture::plugs(&self.settings);
        while let Some(task) = self.wait() {
            match task {
                Task::Capture(begun) => match self.capture(&begun) {
                    Ok(taken) => self.store(taken, begun.asked),
                    Err(trouble) => {
                        let left = lock(&self.shared.0).end();
                        answer(begun.asked, &self.teller().told(&left, 0, Err(trouble)));
                    }
                },
                Task::OpenFor { due_ms } => self.open_for(due_ms),
                Task::Close => self.source = None,
            }
            // Someone may wait for this capture's end (ordered stop).
            self.shared.1.notify_all();
        }
    }

    fn wait(&self) -> Option<Task> {
        let timeout_ms = self.settings.timeout.as_millis() as u64;
        let mut queue = lock(&self.shared.0);
        loop {
            if queue.stop {
                return None;
            }
            let now_ms = boottime_now_ms();
            if let Some(begun) = queue.begin(now_ms, timeout_ms) {
                return Some(Task::Capture(begun));
            }
            let next_ms = queue.next_ms(now_ms);
            let wake_ms = match self.habits.idle(now_ms, self.source.is_some(), next_ms, self.tried_ms) {
                Idle::Wait { until_ms } => until_ms,
                Idle::Close => return Some(Task::Close),
                Idle::Open { due_ms } => {
                    queue.begin_opening(now_ms, timeout_ms);
                    return Some(Task::OpenFor { due_ms });
                }
            };
            queue = match wake_ms {
                None => self.shared.1.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(at_ms) => match self.shared.1.wait_timeout(queue, Deadline::at(at_ms).left()) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                },
            };
        }
    }

    /// Opens the camera, so that it is warm when a slot falls due. It may fail: nobody waits for it yet.
    fn open_for(&mut self, due_ms: u64) {
        self.tried_ms = Some(due_ms);
        if self.rest.reason(boottime_now_ms()).is_none() {
            let deadline = Deadline::at(due_ms).min(Deadline::after(self.settings.timeout));
            match self.noted(|worker| worker.warm_up(deadline)) {
                // One that is not warm yet goes on with it.
                Ok(Ok(()) | Err(CaptureError::Timeout { .. } | CaptureError::Damaged { .. })) => self.remember_warm_up(),
                Ok(Err(error)) => {
                    tracing::debug!(camera = %self.settings.id, %error, "cannot be opened ahead of a slot");
                    self.source = None;
                }
                Err(_) => (self.source, self.encoder) = (None, None),
            }
        }
        lock(&self.shared.0).end();
    }

    fn warm_up(&mut self, deadline: Deadline) -> Result<(), CaptureError> {
        self.open()?.warm_up(deadline)
    }

    /// Does what C code takes part in, with a note that outlives the process: a byte for each time in a row before this one that the
    /// process did not.
    fn noted<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> std::thread::Result<T> {
        let _ = std::fs::write(&self.note, "+".repeat(self.deaths));
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        let _ = std::fs::remove_file(&self.note);
        done
    }

    /// Hands the pictures to the store. The camera goes on as soon as they are durable, or held to become so with others; whoever asked
    /// for one waits until it is durable.
    fn store(&self, taken: Taken, mut asked: Vec<oneshot::Sender<SnapAnswer>>) {
        let Taken { taken_ms, source, flags, pictures } = taken;
        let (mut handed, mut awaited) = (Vec::new(), Vec::new());
        for (wish, slots, picture) in pictures {
            let for_asked = !asked.is_empty() && is_plain(&wish);
            let asked = if for_asked { std::mem::take(&mut asked) } else { Vec::new() };
            let teller = self.teller();
            let picture = match picture {
                Ok(picture) => picture,
                Err(reason) => {
                    answer(asked, &teller.told(&slots, taken_ms, Err(Trouble::Failed(reason))));
                    continue;
                }
            };
            let put = Put {
                camera: self.settings.id.clone(),
                slots: slots.iter().map(|w| w.slot.clone()).collect(),
                jpeg: picture.jpeg,
                width: picture.width,
                height: picture.height,
                taken_ms,
                source,
                flags: flags.clone(),
                priority: wish.priority,
                window_ms: wish.profile.map(settings::Profile::window_ms),
            };
            if for_asked {
                awaited.push((put, slots, teller, asked));
            } else {
                let told = move |result: Result<_, _>| _ = teller.told(&slots, taken_ms, result.map_err(Trouble::from));
                handed.push((put, Box::new(told) as Answer));
            }
        }
        self.around.store.hand_over(handed);
        for (put, slots, teller, asked) in awaited {
            answer(asked, &teller.told(&slots, taken_ms, self.around.store.put(put).map_err(Trouble::from)));
        }
        lock(&self.shared.0).end();
    }

    fn teller(&self) -> Teller {
        Teller::now(self.settings.id.clone(), self.around.status.clone(), self.around.store.clone())
    }

    /// Pictures fit to be stored, with the slots they serve.
    fn capture(&mut self, begun: &Begun) -> Result<Taken, Trouble> {
        let now_ms = boottime_now_ms();
        // Something came: it may be what the camera was at rest for.
        if self.plugs.as_ref().is_some_and(Plugs::news) {
            self.rest.until_ms = now_ms;
        }
        if let Some(reason) = self.rest.reason(now_ms) {
            return Err(Trouble::Failed(reason));
        }
        let label = begun.first.as_ref().map_or_else(
            || format!("{}/snap/{now_ms}", self.settings.id),
            |slot| format!("{}/{}/{}/{}", self.settings.id, slot.schedule, slot.boot, slot.due_ms),
        );
        // Whatever an open camera gave before its slot was due is not that slot's picture.
        let not_before_ms = begun.first.as_ref().map_or(now_ms, |slot| now_ms.max(slot.due_ms));
        let want = Want { not_before_ms, deadline: Deadline::after(self.settings.timeout), label };
        let taken = self.noted(|worker| worker.take(&want, begun));
        self.deaths = 0;
        let taken = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                match error.remedy() {
                    Remedy::Retry => {}
                    Remedy::Reopen => self.source = None,
                    Remedy::Fatal => {
                        self.source = None;
                        self.rest.begin(boottime_now_ms(), failure(&error));
                    }
                }
                return Err(Trouble::Failed(failure(&error)));
            }
            Err(panic) => {
                (self.source, self.encoder) = (None, None);
                let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
                let failure = Failure::new("panic", format!("the decoder gave up on this camera's data ({})", said.unwrap_or_default()));
                self.rest.begin(boottime_now_ms(), failure.clone());
                return Err(Trouble::Failed(failure));
            }
        };
        self.rest = Rest::default();
        taken.filter(|_| lock(&self.shared.0).goes_on(begun.number)).ok_or(Trouble::Late)
    }

    /// The pictures of one frame, past the honesty gate; `None` if the capture was given up as hung meanwhile. A kept session that
    /// turns out dead is opened anew once; where frames follow each other, the next one is taken after a damaged one.
    fn take(&mut self, want: &Want, begun: &Begun) -> Result<Option<Taken>, CaptureError> {
        loop {
            match self.take_next(want, begun) {
                Err(e @ CaptureError::Damaged { .. }) if self.source.as_ref().is_some_and(|s| s.streams()) && !want.deadline.passed() => {
                    tracing::debug!(camera = %self.settings.id, error = %e, "taking the next frame");
                }
                other => {
                    self.close_unless_needed();
                    return other;
                }
            }
        }
    }

    fn take_next(&mut self, want: &Want, begun: &Begun) -> Result<Option<Taken>, CaptureError> {
        let was_open = self.source.is_some();
        let first = self.grab(want);
        // Such a source has waited for its camera already.
        let waited = matches!(first, Err(CaptureError::Unreachable { .. })) && self.source.as_ref().is_some_and(|s| s.streams());
        let mut frame = match first {
            Err(e @ (CaptureError::Broken { .. } | CaptureError::Unreachable { .. })) if was_open && !waited && !want.deadline.passed() => {
                tracing::debug!(camera = %self.settings.id, error = %e, "the open session was dead; trying a new one");
                self.source = None;
                self.grab(want)?
            }
            other => other?,
        };
        let source = self.source.as_ref().map_or("unknown", |s| s.kind());
        let remarks = self.source.as_ref().map_or(&[][..], |s| s.flags());
        self.remember_warm_up();
        if !self.source.as_ref().is_some_and(|s| s.streams()) {
            self.close_unless_needed();
        }
        let taken_ms = frame.taken_ms;
        let permits = self.around.permits.clone();
        permits.run(|| {
            let mut flags = judged(&frame, want, &self.settings)?;
            flags.extend(remarks.iter().map(|flag| (*flag).to_owned()));
            // No sensor gives the same noise twice: the camera has frozen, though it stamps and sends.
            let sum = sum(&frame);
            if self.last.replace(sum) == Some(sum) {
                flags.push("repeated".to_owned());
            }
            let Some(serving) = lock(&self.shared.0).framed(begun.number, taken_ms) else { return Ok(None) };
            let groups = shared_out(serving, !begun.asked.is_empty());
            let last = groups.len() - 1;
            let pictures = groups.into_iter().enumerate().map(|(i, (wish, slots))| {
                let picture = developed(&mut frame, &wish, i == last, &self.settings, &mut self.encoder);
                (wish, slots, picture.map_err(|e| failure(&e)))
            });
            Ok(Some(Taken { pictures: pictures.collect(), taken_ms, source, flags }))
        })
    }

    fn close_unless_needed(&mut self) {
        let now_ms = boottime_now_ms();
        let next_ms = lock(&self.shared.0).next_ms(now_ms);
        if self.habits.idle(now_ms, true, next_ms, self.tried_ms) == Idle::Close {
            self.source = None;
        }
    }

    fn remember_warm_up(&mut self) {
        let Some(measured_ms) = self.source.as_ref().and_then(|s| s.warm_up_ms()) else { return };
        let before = self.habits.warm_up_ms.replace(measured_ms);
        if before.is_none() {
            let lead_ms = self.habits.lead_ms();
            let open = if self.habits.stays_open() { "is kept open" } else { "is opened ahead of each picture" };
            tracing::info!(camera = %self.settings.id, warm_up_ms = measured_ms, lead_ms, "gave its first usable frame; it {open}");
        }
    }

    fn grab(&mut self, want: &Want) -> Result<Frame, CaptureError> {
        let now_ms = boottime_now_ms();
        let next_ms = lock(&self.shared.0).next_ms(now_ms);
        let follows = next_ms.is_some_and(|due_ms| self.habits.follows(now_ms, due_ms));
        let stay = self.habits.stays_open() || follows;
        let source = self.open()?;
        source.stay_open(stay);
        source.grab(want)
    }

    /// The source, which opens the camera itself when it is told to do something with it.
    fn open(&mut self) -> Result<&mut Box<dyn Source>, CaptureError> {
        let source = match self.source.take() {
            Some(source) => source,
            None => {
                // A camera that is not there may come, but others of its slots fall due meanwhile.
                let most_ms = self.habits.interval_ms.map_or(BUSY_WAIT_MAX_MS, |ms| (ms / 2).min(BUSY_WAIT_MAX_MS));
                let keep = self.habits.stays_open();
                capture::open(&self.settings, keep, Duration::from_millis(most_ms), self.around.runtime.clone())?
            }
        };
        Ok(self.source.insert(source))
    }
}

/// Tells one frame from another.
fn sum(frame: &Frame) -> u32 {
    match &frame.data {
        FrameData::Jpeg(jpeg) => crc32c::crc32c(jpeg),
        FrameData::Yuv(yuv) => crc32c::crc32c_append(crc32c::crc32c(&yuv.y), &yuv.u),
    }
}

fn failure(error: &CaptureError) -> Failure {
    Failure::new(error.code(), error)
}

/// Takes one picture without an agent: nothing is stored.
pub fn take_once(settings: &settings::Camera, runtime: tokio::runtime::Handle) -> Result<Vec<u8>, Failure> {
    let now_ms = boottime_now_ms();
    let want = Want { not_before_ms: now_ms, deadline: Deadline::after(settings.timeout), label: format!("{}/snap/{now_ms}", settings.id) };
    // Who asks by hand is told at once that the camera is not there.
    let mut source = capture::open(settings, false, Duration::ZERO, runtime).map_err(|e| failure(&e))?;
    let mut encoder = None;
    loop {
        let taken = source.grab(&want).and_then(|mut frame| {
            judged(&frame, &want, settings)?;
            developed(&mut frame, &Wish::default(), true, settings, &mut encoder)
        });
        match taken {
            Err(CaptureError::Damaged { .. }) if source.streams() && !want.deadline.passed() => {}
            other => return other.map(|picture| picture.jpeg).map_err(|e| failure(&e)),
        }
    }
}

/// Removes notes of cameras that are not among these.
pub fn clean_notes(runtime_dir: &Path, cameras: &[settings::Camera]) {
    for entry in std::fs::read_dir(runtime_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let camera = name.to_str().and_then(|n| n.strip_prefix("grab-"));
        if camera.is_some_and(|c| cameras.iter().all(|known| known.id.as_str() != c)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// How long an ordered stop waits for camera threads.
pub const STOP_WAIT: Duration = Duration::from_secs(10);
