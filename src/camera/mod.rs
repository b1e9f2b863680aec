//! One thread per camera: due slots in, stored pictures or reasons out.
//!
//! [`Queue`] decides, without clock or camera: which slots wait, which a capture serves, which waited too long. [`Camera`] is
//! the thread around it. The wheel's task offers slots and looks after the queue; the thread blocks in its camera as long as
//! it must. So one camera never delays another, and a driver call that never returns costs that camera alone.
//!
//! A capture serves every slot of its camera that falls due before its frame is taken. Later ones wait, one per schedule,
//! until the camera is free or min(period/2, 10 s) has passed, then they are `missed(busy)`.

mod queue;

pub use queue::{Queue, Settled, SnapAnswer};

use crate::capture;
use crate::capture::source::{CaptureError, Frame, FrameData, Remedy, Source, Want};
use crate::capture::v4l2::plug::Plugs;
use crate::clock::{Deadline, boottime_now_ms};
use crate::config::settings;
use crate::image::{jpeg, judge};
use crate::model::{BUSY_WAIT_MAX_MS, CameraId, Failure, Outcome, Skipped, Slot, Stamp};
use crate::protocol::{CameraHealth, CameraState};
use crate::status::Status;
use crate::store::{Put, PutError, Store, Stored};
use queue::{Begun, COMMANDS_MAX};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::oneshot;

/// Sessions are kept open when pictures come more often than this, or than so many times the warm-up they would cost.
const KEEP_OPEN_BELOW_MS: u64 = 10_000;
const KEEP_OPEN_BELOW_WARM_UPS: u64 = 3;
/// After a panic or an error that nothing but a change can mend: first wait, doubled up to the second.
const REST_MIN_MS: u64 = 30_000;
const REST_MAX_MS: u64 = 600_000;
/// The process died so often in a row during this camera's captures: its driver or decoder is to blame. A single time may have been
/// any SIGKILL, such as that of a board out of memory.
const DEATHS_MAX: usize = 2;

/// Lets one capture (two on boards with 1 GB and more) decode and encode at a time.
pub struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Permits {
    pub fn for_this_board() -> Self {
        let total_kib = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()));
        let count = if total_kib.is_some_and(|kib| kib >= 1_000_000) { 2 } else { 1 };
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }
    fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let lock = |m: &Mutex<usize>| -> bool {
            let mut free = m.lock().unwrap_or_else(|p| p.into_inner());
            while *free == 0 {
                free = self.freed.wait(free).unwrap_or_else(|p| p.into_inner());
            }
            *free -= 1;
            true
        };
        lock(&self.free);
        // Given back on a panic too: decoders are fed hostile bytes.
        struct Back<'a>(&'a Permits);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                *self.0.free.lock().unwrap_or_else(|p| p.into_inner()) += 1;
                self.0.freed.notify_one();
            }
        }
        let _back = Back(self);
        work()
    }
}

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
            interval_ms,
            warm_up_ms: None,
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
    pub fn offer(&self, slots: Vec<(Slot, u64)>) -> (Settled, Option<u64>) {
        let mut queue = lock(&self.shared.0);
        let settled = slots.into_iter().flat_map(|(slot, period_ms)| queue.offer(slot, period_ms)).collect();
        let check = queue.next_check_ms();
        drop(queue);
        self.shared.1.notify_one();
        (settled, check)
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
            std::mem::take(&mut g.serving)
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
    interval_ms: Option<u64>,
    /// From opening to a usable frame, as measured last.
    warm_up_ms: Option<u64>,
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

/// A frame that passed the gate, as JPEG.
struct Picture {
    jpeg: Vec<u8>,
    width: u32,
    height: u32,
    taken_ms: u64,
    source: &'static str,
    flags: Vec<String>,
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
        while let Some(begun) = self.wait() {
            match self.capture(&begun) {
                Ok(put) => self.store(put, begun.asked),
                Err(trouble) => {
                    let left = lock(&self.shared.0).end();
                    answer(begun.asked, self.teller().told(left, Err(trouble)));
                }
            }
            // Someone may wait for this capture's end (ordered stop).
            self.shared.1.notify_all();
        }
    }

    fn wait(&self) -> Option<Begun> {
        let mut queue = lock(&self.shared.0);
        loop {
            if queue.stop {
                return None;
            }
            if let Some(begun) = queue.begin(boottime_now_ms(), self.settings.timeout.as_millis() as u64) {
                return Some(begun);
            }
            queue = self.shared.1.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Hands the picture to the store. The camera goes on as soon as it is durable, or held to become so with others; whoever asked
    /// for it waits until it is durable.
    fn store(&self, put: Put, asked: Vec<oneshot::Sender<SnapAnswer>>) {
        let (teller, slots) = (self.teller(), put.slots.clone());
        if asked.is_empty() {
            self.around.store.hand_over(put, move |result| _ = teller.told(slots, result.map_err(Trouble::from)));
        } else {
            answer(asked, teller.told(slots, self.around.store.put(put).map_err(Trouble::from)));
        }
        lock(&self.shared.0).end();
    }

    fn teller(&self) -> Teller {
        let taken = crate::clock::Clock::read(&crate::clock::SystemClock).stamp(self.around.store.boot());
        Teller { id: self.settings.id.clone(), taken, status: self.around.status.clone(), store: self.around.store.clone() }
    }

    /// A picture fit to be stored, with the slots it serves.
    fn capture(&mut self, begun: &Begun) -> Result<Put, Trouble> {
        let now_ms = boottime_now_ms();
        // Something came: it may be what the camera was at rest for.
        if self.plugs.as_ref().is_some_and(Plugs::news) {
            self.rest.until_ms = now_ms;
        }
        if let Some(reason) = self.rest.reason(now_ms) {
            return Err(Trouble::Failed(reason));
        }
        let first = begun.serving.first();
        let label = first.map_or_else(
            || format!("{}/snap/{now_ms}", self.settings.id),
            |slot| format!("{}/{}/{}/{}", self.settings.id, slot.schedule, slot.boot, slot.due_ms),
        );
        let want = Want { not_before_ms: now_ms, deadline: Deadline::after(self.settings.timeout), label };
        // A byte for each capture in a row before this one that the process did not outlive.
        let _ = std::fs::write(&self.note, "+".repeat(self.deaths));
        let taken = catch_unwind(AssertUnwindSafe(|| self.take(&want)));
        let _ = std::fs::remove_file(&self.note);
        self.deaths = 0;
        let picture = match taken {
            Ok(Ok(picture)) => picture,
            Ok(Err(error)) => {
                let failure = Failure::new(error.code(), &error);
                match error.remedy() {
                    Remedy::Retry => {}
                    Remedy::Reopen => self.source = None,
                    Remedy::Fatal => {
                        self.source = None;
                        self.rest.begin(boottime_now_ms(), failure.clone());
                    }
                }
                return Err(Trouble::Failed(failure));
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
        let slots = lock(&self.shared.0).framed(begun.number, picture.taken_ms).ok_or(Trouble::Late)?;
        Ok(Put {
            camera: self.settings.id.clone(),
            slots,
            jpeg: picture.jpeg,
            width: picture.width,
            height: picture.height,
            taken_ms: picture.taken_ms,
            source: picture.source,
            flags: picture.flags,
        })
    }

    /// One frame, past the honesty gate, as JPEG. A kept session that turns out dead is opened anew once; where frames follow each
    /// other, the next one is taken after a damaged one.
    fn take(&mut self, want: &Want) -> Result<Picture, CaptureError> {
        loop {
            match self.take_next(want) {
                Err(e @ CaptureError::Damaged { .. }) if self.source.as_ref().is_some_and(|s| s.streams()) && !want.deadline.passed() => {
                    tracing::debug!(camera = %self.settings.id, error = %e, "taking the next frame");
                }
                other => {
                    if !self.stays_open() {
                        self.source = None;
                    }
                    return other;
                }
            }
        }
    }

    fn take_next(&mut self, want: &Want) -> Result<Picture, CaptureError> {
        let was_open = self.source.is_some();
        let first = self.grab(want);
        // Such a source has waited for its camera already.
        let waited = matches!(first, Err(CaptureError::Unreachable { .. })) && self.source.as_ref().is_some_and(|s| s.streams());
        let frame = match first {
            Err(e @ (CaptureError::Broken { .. } | CaptureError::Unreachable { .. })) if was_open && !waited && !want.deadline.passed() => {
                tracing::debug!(camera = %self.settings.id, error = %e, "the open session was dead; trying a new one");
                self.source = None;
                self.grab(want)?
            }
            other => other?,
        };
        let kind = self.source.as_ref().map_or("unknown", |s| s.kind());
        let remarks = self.source.as_ref().map_or(&[][..], |s| s.flags());
        self.remember_warm_up();
        if !self.stays_open() && !self.source.as_ref().is_some_and(|s| s.streams()) {
            self.source = None;
        }
        let (width, height, taken_ms) = (frame.width, frame.height, frame.taken_ms);
        let permits = self.around.permits.clone();
        permits.run(|| {
            if self.encoder.is_none() && matches!(frame.data, FrameData::Yuv(_)) {
                self.encoder = Some(jpeg::Encoder::new(self.settings.quality).map_err(|e| unusable(&self.settings, &e))?);
            }
            let (jpeg, mut flags) = judged_jpeg(frame, want, &self.settings, &mut self.encoder)?;
            flags.extend(remarks.iter().map(|flag| (*flag).to_owned()));
            // No sensor gives the same noise twice: the camera has frozen, though it stamps and sends.
            let sum = crc32c::crc32c(&jpeg);
            if self.last.replace(sum) == Some(sum) {
                flags.push("repeated".to_owned());
            }
            Ok(Picture { jpeg, width, height, taken_ms, source: kind, flags })
        })
    }

    fn stays_open(&self) -> bool {
        stays_open(self.interval_ms, self.warm_up_ms)
    }

    fn remember_warm_up(&mut self) {
        let Some(measured_ms) = self.source.as_ref().and_then(|s| s.warm_up_ms()) else { return };
        let before = self.warm_up_ms.replace(measured_ms);
        if before.is_none() {
            let open = if self.stays_open() { "is kept open" } else { "is opened for each picture" };
            tracing::info!(camera = %self.settings.id, warm_up_ms = measured_ms, "gave its first usable frame; it {open}");
        }
    }

    fn grab(&mut self, want: &Want) -> Result<Frame, CaptureError> {
        if self.source.is_none() {
            // A camera that is not there may come, but others of its slots fall due meanwhile.
            let patience = Duration::from_millis(self.interval_ms.map_or(BUSY_WAIT_MAX_MS, |ms| (ms / 2).min(BUSY_WAIT_MAX_MS)));
            let keep = stays_open(self.interval_ms, None);
            self.source = Some(capture::open(&self.settings, keep, patience, self.around.runtime.clone())?);
        }
        match &mut self.source {
            Some(source) => source.grab(want),
            None => Err(CaptureError::Unreachable { camera: self.settings.id.to_string(), cause: "not open".into() }),
        }
    }
}

/// Whether a camera is left open between its pictures.
fn stays_open(interval_ms: Option<u64>, warm_up_ms: Option<u64>) -> bool {
    let below_ms = KEEP_OPEN_BELOW_MS.max(warm_up_ms.unwrap_or(0) * KEEP_OPEN_BELOW_WARM_UPS);
    interval_ms.is_some_and(|interval_ms| interval_ms < below_ms)
}

fn answer(asked: Vec<oneshot::Sender<SnapAnswer>>, answer: SnapAnswer) {
    for asked in asked {
        let _ = asked.send(answer.clone());
    }
}

/// Tells status and ledger how a capture ended, from the camera's thread or, of a picture that was held, from the store's.
struct Teller {
    id: CameraId,
    /// When the camera delivered.
    taken: Stamp,
    status: Status,
    store: Store,
}

impl Teller {
    /// `slots` get the outcome, unless the commit gave them theirs. Returns the answer for those who asked.
    fn told(&self, slots: Vec<Slot>, result: Result<Stored, Trouble>) -> SnapAnswer {
        let all = |outcome: Outcome| slots.iter().for_each(|slot| self.store.outcome(slot.clone(), outcome.clone()));
        match result {
            Ok(stored) => {
                self.good();
                Ok(stored)
            }
            Err(Trouble::Failed(reason)) => {
                failing(&self.status, &self.id, &reason);
                all(Outcome::Failed { reason: reason.clone() });
                Err(reason)
            }
            Err(Trouble::Full) => {
                let reason = Failure::new("full", "the store is full: connect the hub, raise keep.bytes or make room on the disk");
                failing(&self.status, &self.id, &reason);
                all(Outcome::Skipped { reason: Skipped::Full });
                Err(reason)
            }
            // Nothing can be written any more; the next start finds these slots without an outcome.
            Err(Trouble::Fault) => Err(Failure::new("storage", "the store has failed")),
            Err(Trouble::Late) => Err(Failure::new("hung", "the camera came back too late")),
        }
    }

    fn good(&self) {
        let id = &self.id;
        self.status.edit(|now| {
            // Its camera may be gone from the configuration by now.
            let Some(state) = now.cameras.get_mut(id) else { return };
            if state.state == CameraHealth::Failing {
                tracing::info!(camera = %id, "delivers pictures again");
            }
            *state = CameraState {
                state: CameraHealth::Ok,
                last_good: Some(self.taken),
                error: None,
                captured: state.captured + 1,
                ..state.clone()
            };
        });
    }
}

/// A capture failed. A lasting fault is logged when it starts, and once more when it ends.
pub fn failing(status: &Status, id: &CameraId, reason: &Failure) {
    status.edit(|now| {
        let state = now.cameras.entry(id.clone()).or_insert_with(unknown);
        if state.error.as_ref().is_none_or(|e| e.code != reason.code) {
            tracing::error!(camera = %id, code = reason.code, "no picture: {}", reason.detail);
        }
        *state = CameraState { state: CameraHealth::Failing, error: Some(reason.clone()), failed: state.failed + 1, ..state.clone() };
    });
}

/// A camera that has not been asked for a picture yet.
pub fn unknown() -> CameraState {
    CameraState { v: crate::protocol::VERSION, state: CameraHealth::Off, last_good: None, error: None, captured: 0, failed: 0 }
}

enum Trouble {
    Failed(Failure),
    Full,
    Fault,
    /// Given up as hung meanwhile: its slots have their outcome.
    Late,
}
impl From<PutError> for Trouble {
    fn from(e: PutError) -> Self {
        match e {
            PutError::Full => Self::Full,
            PutError::Fault => Self::Fault,
            PutError::Unusable(why) => Self::Failed(Failure::new("unusable", why)),
        }
    }
}

/// Takes one picture without an agent: nothing is stored.
pub fn take_once(settings: &settings::Camera, runtime: tokio::runtime::Handle) -> Result<Vec<u8>, Failure> {
    let failure = |e: CaptureError| Failure::new(e.code(), &e);
    let now_ms = boottime_now_ms();
    let want = Want { not_before_ms: now_ms, deadline: Deadline::after(settings.timeout), label: format!("{}/snap/{now_ms}", settings.id) };
    // Who asks by hand is told at once that the camera is not there.
    let mut source = capture::open(settings, false, Duration::ZERO, runtime).map_err(failure)?;
    let mut encoder = Some(jpeg::Encoder::new(settings.quality).map_err(|e| failure(unusable(settings, &e)))?);
    loop {
        let taken = source.grab(&want).and_then(|frame| judged_jpeg(frame, &want, settings, &mut encoder));
        match taken {
            Err(CaptureError::Damaged { .. }) if source.streams() && !want.deadline.passed() => {}
            other => return other.map(|(jpeg, _)| jpeg).map_err(failure),
        }
    }
}

fn unusable(settings: &settings::Camera, cause: &dyn std::fmt::Display) -> CaptureError {
    CaptureError::Damaged { camera: settings.id.to_string(), cause: cause.to_string() }
}

/// Past the honesty gate, then as JPEG: a camera's own untouched, planes through the encoder.
fn judged_jpeg(
    frame: Frame,
    want: &Want,
    settings: &settings::Camera,
    encoder: &mut Option<jpeg::Encoder>,
) -> Result<(Vec<u8>, Vec<String>), CaptureError> {
    let limits = judge::Limits { not_before_ms: want.not_before_ms, pixels_max: settings.max_pixels };
    let verdict = judge::judge(&frame, limits).map_err(|e| match e {
        judge::Refusal::TooLarge { pixels, limit } => CaptureError::TooLarge { camera: settings.id.to_string(), pixels, limit },
        other => unusable(settings, &other),
    })?;
    let jpeg = match (frame.data, encoder) {
        (FrameData::Jpeg(jpeg), _) => jpeg,
        (FrameData::Yuv(yuv), Some(encoder)) => encoder.encode(&yuv, frame.width, frame.height).map_err(|e| unusable(settings, &e))?,
        (FrameData::Yuv(_), None) => return Err(unusable(settings, &"there is no encoder")),
    };
    Ok((jpeg, verdict.flags.into_iter().map(str::to_owned).collect()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_stays_open_for_short_intervals_and_where_its_warm_up_would_cost_a_third() {
        for (interval_s, warm_up_ms, open) in [
            (Some(5), None, true),
            (Some(10), None, false),
            (Some(10), Some(400), false),
            (Some(10), Some(3_400), true),
            (Some(3600), Some(3_000), false),
            (None, Some(60_000), false),
        ] {
            assert_eq!(stays_open(interval_s.map(|s| s * 1_000), warm_up_ms), open, "{interval_s:?} {warm_up_ms:?}");
        }
    }
}
