//! V4L2 cameras: USB cameras, and whatever else has a driver of the kernel that gives JPEG or YUV.
//!
//! | file | what |
//! |---|---|
//! | [`find`] | which node is the camera that was meant, at each opening anew |
//! | `device` | a node opened and asked what it can |
//! | `format`, `controls` | what it is told to give, and whether it does |
//! | [`queue`] | the buffers, and whether a frame is young enough |
//! | `settle` | when its exposure has settled |
//! | [`plug`] | tells when devices come |
//! | [`list`] | what is there, for `shutterd cameras` |
//!
//! **A frame is never stale.** The queue is drained to its newest frame, and that must be taken at or after the instant asked for.
//! While kept open the camera streams on between grabs: the driver fills our buffers once and then drops frames without waking us, and
//! exposure stays settled. Stopping the stream would cost that, and most cameras their sensor's start.
//!
//! **A frame is never waited for in vain.** Flagged, empty and short buffers are passed over. A stream that falls silent is stopped and
//! started again: after a few failed USB transfers the driver gives no frame any more, though the camera is healthy. A camera that is
//! not there is waited for, within its patience, by inotify.
//!
//! Paths not taken: the `v4l` crate's stream (no time-out, gives stale and unowned buffers), USERPTR and DMABUF (one copy of a JPEG is
//! cheaper than their rules).

mod controls;
mod device;
pub mod find;
mod format;
pub mod list;
pub mod plug;
pub mod queue;
mod settle;
mod users;

use crate::capture::source::{CaptureError, Frame, FrameData, Source, Want};
use crate::clock::{Deadline, boottime_now_ms};
use crate::config::settings::{Camera, Video};
use crate::image::{
    jpeg::{self, ImageError},
    planar::planar,
    repair::repair,
};
use device::{Capability, Device};
use find::{Lost, Places};
use format::Mode;
use plug::Plugs;
use queue::{Fault, Filled, Queue, Ready};
use settle::Settling;
use std::{path::PathBuf, time::Duration};

/// A stream is silent after this many frame periods, and never sooner than [`SILENCE_MIN_MS`]: cameras slow down in the dark.
const SILENCE_PERIODS: u64 = 5;
const SILENCE_MIN_MS: u64 = 1_000;
/// Until the first frame; sensors take their time to start.
const FIRST_FRAME_MS: u64 = 2_000;
/// What exposure may take to settle; never more than half of the time there is.
const SETTLE_MAX_MS: u64 = 3_000;
/// udev gives a new node to its group after the kernel made it: on a busy small board that was seen to take over a second.
const PERMISSION_WAIT: Duration = Duration::from_secs(5);
/// A camera that comes and goes this often within one capture has a loose plug.
const GONE_MAX: u32 = 3;
/// Past the deadline by this much, it was the kernel that held us.
const HELD_MS: u64 = 1_000;
/// A JPEG may be larger than was agreed by less than one of its blocks: some cameras round up.
const BLOCK: u32 = 16;

pub struct V4l2 {
    camera: String,
    wanted: String,
    video: Video,
    pixels_max: u64,
    /// How long a camera that is not there is waited for.
    patience: Duration,
    /// What a grab may take, and in a warm-up what the grab that follows it may.
    timeout: Duration,
    follows: Duration,
    open: Option<Open>,
    warm_up_ms: Option<u64>,
    unsettled: bool,
}

/// A camera that streams.
struct Open {
    queue: Queue,
    mode: Mode,
    node: PathBuf,
    period_ms: u64,
    silence_ms: u64,
    opened_ms: u64,
    /// While exposure is watched, and until when.
    settling: Option<(Settling, u64)>,
}

/// Why no frame could be taken from an open camera.
enum Stop {
    /// It was unplugged.
    Gone,
    /// The deadline has passed.
    Late,
    Fault(Fault),
    TooLarge {
        pixels: u64,
        limit: u64,
    },
}
impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        let gone = matches!(fault.cause.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
        // Some drivers say "invalid" of a buffer whose camera is gone.
        let invalid = fault.doing.contains("frame") && fault.cause.raw_os_error() == Some(libc::EINVAL);
        if gone || invalid { Self::Gone } else { Self::Fault(fault) }
    }
}

/// What came instead of a picture, for the error that tells it.
#[derive(Debug, Default)]
struct Came {
    old: u32,
    flagged: u32,
    empty: u32,
    short: u32,
    overstated: u32,
    unsettled: u32,
    damaged: u32,
    /// Why the last one was refused.
    damage: Option<String>,
    restarts: u32,
    gone: u32,
}

impl Came {
    fn bad(&self) -> u32 {
        self.flagged + self.empty + self.short + self.overstated + self.damaged
    }
    fn in_words(&self) -> String {
        let frames = [
            (self.old, "from before"),
            (self.flagged, "flagged as faulty by the driver"),
            (self.empty, "empty"),
            (self.short, "too short"),
            (self.overstated, "larger than their buffer"),
            (self.damaged, "damaged"),
            (self.unsettled, "with unsettled exposure"),
        ];
        let mut told: Vec<String> = frames.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if let Some(damage) = &self.damage {
            told.push(format!("the last one: {damage}"));
        }
        let mut text = if told.is_empty() { "no frame came".to_owned() } else { format!("frames came: {}", told.join(", ")) };
        if self.restarts > 0 {
            text += &format!("; the stream fell silent and was started anew {} times", self.restarts);
        }
        if self.gone > 0 {
            text += &format!("; it was unplugged {} times", self.gone);
        }
        text
    }
}

impl V4l2 {
    /// Opens nothing yet. `patience`: how long a grab may wait for a camera that is not plugged in.
    pub fn new(name: String, camera: &Camera, wanted: &str, patience: Duration) -> Self {
        let (wanted, video) = (wanted.to_owned(), camera.video);
        let (pixels_max, timeout) = (camera.max_pixels, camera.timeout);
        Self {
            camera: name,
            wanted,
            video,
            pixels_max,
            patience,
            timeout,
            follows: Duration::ZERO,
            open: None,
            warm_up_ms: None,
            unsettled: false,
        }
    }

    /// Opens the camera, waiting for it to come if it is not there.
    fn open_when_there(&self, want: &Want) -> Result<Open, CaptureError> {
        let until = want.deadline.min(Deadline::after(self.patience));
        let mut until_allowed = None;
        let mut plugs = None;
        loop {
            let (error, until) = match self.open_now(want) {
                Err(error @ CaptureError::Unreachable { .. }) => (error, until),
                Err(error @ CaptureError::Denied { .. }) => {
                    (error, *until_allowed.get_or_insert_with(|| until.min(Deadline::after(PERMISSION_WAIT))))
                }
                other => return other,
            };
            if until.passed() {
                return Err(error);
            }
            match &plugs {
                // What comes from here on is seen; what came just before is found by looking again.
                None => plugs = Some(Plugs::watch().map_err(|e| self.broken(format!("devices cannot be watched ({e})")))?),
                Some(plugs) => match plugs.wait(until) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return Err(error),
                },
            }
        }
    }

    fn open_now(&self, want: &Want) -> Result<Open, CaptureError> {
        let opened_ms = boottime_now_ms();
        let nodes = self.find()?;
        let mut not_cameras = Vec::new();
        for node in nodes {
            let refused = |doing| move |cause| Fault { doing, cause };
            let device = Device::open(&node.path).map_err(refused("opening it")).map_err(|e| self.fault(e, &node.path))?;
            let caps = match device.capability() {
                Ok(caps) => caps,
                Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => {
                    not_cameras.push(format!("{} is not a video device", node.path.display()));
                    continue;
                }
                Err(e) => return Err(self.fault(Fault { doing: "asking what it is", cause: e }, &node.path)),
            };
            if !caps.captures() || !caps.streams() {
                let what = if caps.captures() { "gives no pictures by streaming" } else { "is not a capture device" };
                not_cameras.push(format!("{} {what} ({}, {})", node.path.display(), caps.card, caps.driver));
                continue;
            }
            // While we hold the node its number is given to nobody else: if the name still leads to it, it is the one that was meant.
            if !self.find()?.iter().any(|again| again.path == node.path && again.usb == node.usb) {
                return Err(self.unreachable("it was replugged just now".into()));
            }
            return self.start(device, &caps, node.path, opened_ms, want);
        }
        Err(self.unable(format!("{}; see `shutterd cameras` for those that give pictures", not_cameras.join("; "))))
    }

    fn start(&self, device: Device, caps: &Capability, node: PathBuf, opened_ms: u64, want: &Want) -> Result<Open, CaptureError> {
        let offers = device.offers(caps.buffers()).map_err(|cause| self.fault(Fault { doing: "asking for its formats", cause }, &node))?;
        let choice = format::choose(&offers, &self.video, self.pixels_max).map_err(|e| self.unable(e))?;
        let told = |doing, refused| match refused {
            format::Refused::Other(what) => self.unable(what),
            format::Refused::Kernel(cause) => self.fault(Fault { doing, cause }, &node),
        };
        let mode = format::set(&device, caps, choice).map_err(|e| told("setting its format", e))?;
        let period_ms = format::pace(&device, caps, &mode, self.video.rate).map_err(|e| told("setting its rate", e))?.unwrap_or(0);
        controls::apply(&device, &self.video.controls).map_err(|e| match e {
            controls::Refused::Unable(what) => self.unable(what),
            controls::Refused::Kernel { control, cause } => match cause.raw_os_error() {
                Some(libc::EIO | libc::ETIMEDOUT | libc::EPIPE | libc::ENODEV) => {
                    self.fault(Fault { doing: "setting a control", cause }, &node)
                }
                _ => self.unable(format!("the device does not take the configured \"{control}\" ({cause})")),
            },
        })?;
        let queue = Queue::start(device, caps.buffers()).map_err(|e| self.fault(e, &node))?;
        tracing::debug!(camera = self.camera, node = %node.display(), mode = %mode.choice, period_ms, "opened");
        let left = want.deadline.left() + self.follows;
        let budget_ms = (left.as_millis() as u64 / 2).min(SETTLE_MAX_MS);
        let silence_ms = FIRST_FRAME_MS.max(SILENCE_PERIODS * period_ms);
        let settling = Some((Settling::default(), boottime_now_ms() + budget_ms));
        Ok(Open { queue, mode, node, period_ms, silence_ms, opened_ms, settling })
    }

    fn find(&self) -> Result<Vec<find::Node>, CaptureError> {
        find::find(&self.wanted, &Places::default()).map_err(|lost| match lost {
            Lost::Absent(what) => self.unreachable(what),
            Lost::Ambiguous(what) => self.unable(what),
        })
    }

    /// The newest good frame taken at or after the instant wanted.
    fn frame(&mut self, want: &Want, came: &mut Came) -> Result<Frame, Stop> {
        let Some(open) = &mut self.open else { return Err(Stop::Gone) };
        let mut heard_ms = boottime_now_ms();
        let mut silence_ms = open.silence_ms;
        loop {
            match open.queue.wait(want.deadline.min(Deadline::at(heard_ms + silence_ms)))? {
                Ready::Broken => return Err(Stop::Gone),
                Ready::Silence if want.deadline.passed() => return Err(Stop::Late),
                Ready::Silence => {
                    came.restarts += 1;
                    open.queue.restart()?;
                    // A slow camera is given more time at each turn, so that it is not restarted for ever.
                    (heard_ms, silence_ms) = (boottime_now_ms(), silence_ms * 2);
                    continue;
                }
                Ready::Frame => {}
            }
            let newest = drain(&mut open.queue, &open.mode, want.not_before_ms, came)?;
            heard_ms = boottime_now_ms();
            if let Some((filled, taken_ms)) = newest {
                let made = picture(open.queue.bytes(&filled), &open.mode, self.pixels_max);
                open.queue.give_back(filled)?;
                match made.and_then(|made| settled(&mut open.settling, &made, self.pixels_max).map(|settled| (made, settled))) {
                    Ok(((data, width, height), Some(settled))) => {
                        if open.settling.take().is_some() {
                            self.warm_up_ms = Some(boottime_now_ms() - open.opened_ms);
                            open.silence_ms = (SILENCE_PERIODS * open.period_ms).max(SILENCE_MIN_MS);
                        }
                        self.unsettled = !settled;
                        return Ok(Frame { data, width, height, taken_ms });
                    }
                    Ok((_, None)) => came.unsettled += 1,
                    Err(ImageError::TooLarge { pixels, limit }) => return Err(Stop::TooLarge { pixels, limit }),
                    Err(damage) => {
                        came.damaged += 1;
                        came.damage = Some(damage.to_string());
                    }
                }
            }
            if want.deadline.passed() {
                return Err(Stop::Late);
            }
        }
    }

    fn try_until(&mut self, want: &Want, asked_ms: u64) -> Result<Frame, CaptureError> {
        let mut came = Came::default();
        loop {
            if self.open.is_none() {
                let opened = self.open_when_there(want);
                self.open = Some(opened.map_err(|error| match error {
                    CaptureError::Unreachable { cause, .. } if came.gone > 0 => {
                        self.unreachable(format!("it was unplugged and is not back: {cause}"))
                    }
                    other => other,
                })?);
            }
            let stop = match self.frame(want, &mut came) {
                Ok(frame) => return Ok(frame),
                Err(stop) => stop,
            };
            let node = self.open.as_ref().map(|open| open.node.clone()).unwrap_or_default();
            match stop {
                Stop::Late => return Err(self.late(asked_ms, &came)),
                Stop::TooLarge { pixels, limit } => return Err(CaptureError::TooLarge { camera: self.camera.clone(), pixels, limit }),
                Stop::Fault(fault) => return Err(self.fault(fault, &node)),
                Stop::Gone => {
                    came.gone += 1;
                    // Its node keeps its number while we hold it.
                    self.open = None;
                    if came.gone > GONE_MAX || want.deadline.passed() {
                        return Err(self.broken(format!("{} was unplugged during the capture ({})", node.display(), came.in_words())));
                    }
                }
            }
        }
    }

    /// No call of the kernel takes a deadline: a camera that does not answer holds it for five seconds and more, and what it says then
    /// ("busy", "gone") is only what became of it.
    fn held(&self, error: CaptureError, want: &Want, asked_ms: u64) -> CaptureError {
        let now_ms = boottime_now_ms();
        let of_the_kernel = matches!(error, CaptureError::Busy { .. } | CaptureError::Broken { .. } | CaptureError::Unreachable { .. });
        if !of_the_kernel || now_ms < want.deadline.boottime_ms() + HELD_MS {
            return error;
        }
        let stage = format!("it did not answer, and its driver held us until now; unplug it and plug it in again; in the end: {error}");
        CaptureError::Timeout { camera: self.camera.clone(), within: Duration::from_millis(now_ms - asked_ms), stage }
    }

    fn late(&self, asked_ms: u64, came: &Came) -> CaptureError {
        let (camera, within) = (self.camera.clone(), Duration::from_millis(boottime_now_ms() - asked_ms));
        let place = self.open.as_ref().map_or(String::new(), |open| format!("{} as {}, ", open.node.display(), open.mode.choice));
        match came.bad() {
            0 => CaptureError::Timeout { camera, within, stage: format!("{place}{}", came.in_words()) },
            _ => CaptureError::Damaged { camera, cause: format!("nothing better came within {within:?} ({place}{})", came.in_words()) },
        }
    }

    /// What the kernel's refusal means to a person.
    fn fault(&self, Fault { doing, cause }: Fault, node: &std::path::Path) -> CaptureError {
        let path = node.display();
        match cause.raw_os_error() {
            Some(libc::EBUSY) => {
                let users = users::of(node);
                let who = if users.is_empty() {
                    "another program that this user may not see, or by another camera of this configuration".to_owned()
                } else {
                    users.join(", ")
                };
                let cause = format!("{path} is in use by {who}; end it, or let it and this agent use different cameras");
                CaptureError::Busy { camera: self.camera.clone(), cause }
            }
            Some(libc::EACCES | libc::EPERM) => {
                let cause =
                    format!("{path} may not be opened ({cause}); add this user to the group `video`, and see DeviceAllow= of the service");
                CaptureError::Denied { camera: self.camera.clone(), cause }
            }
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => self.unreachable(format!("{path} is gone: the camera was unplugged")),
            Some(libc::EIO | libc::ETIMEDOUT | libc::EPIPE | libc::EPROTO) => {
                self.broken(format!("{path} does not answer ({doing}: {cause}); if this lasts, unplug the camera and plug it in again"))
            }
            Some(libc::ENOSPC) => self
                .broken(format!("{path} gets no bandwidth on its USB bus ({doing}: {cause}); use MJPG, a smaller size, or another port")),
            _ => self.broken(format!("{path} refused ({doing}: {cause})")),
        }
    }

    fn unreachable(&self, cause: String) -> CaptureError {
        CaptureError::Unreachable { camera: self.camera.clone(), cause }
    }
    fn broken(&self, cause: String) -> CaptureError {
        CaptureError::Broken { camera: self.camera.clone(), cause }
    }
    fn unable(&self, cause: String) -> CaptureError {
        CaptureError::Unable { camera: self.camera.clone(), cause }
    }
}

impl Source for V4l2 {
    fn kind(&self) -> &'static str {
        "v4l2"
    }

    fn grab(&mut self, want: &Want) -> Result<Frame, CaptureError> {
        let asked_ms = boottime_now_ms();
        self.try_until(want, asked_ms).map_err(|error| self.held(error, want, asked_ms))
    }

    fn warm_up(&mut self, deadline: Deadline) -> Result<(), CaptureError> {
        let now_ms = boottime_now_ms();
        // Nobody waits yet for a camera that is not there. What was begun here the grab goes on with: it opens, watches the exposure
        // settle, and leaves the stream running.
        let patience = std::mem::take(&mut self.patience);
        self.follows = self.timeout;
        let warmed = self.try_until(&Want { not_before_ms: now_ms, deadline, label: String::new() }, now_ms);
        (self.patience, self.follows) = (patience, Duration::ZERO);
        warmed.map(drop)
    }

    fn flags(&self) -> &'static [&'static str] {
        if self.unsettled { &["unsettled"] } else { &[] }
    }

    fn warm_up_ms(&self) -> Option<u64> {
        self.warm_up_ms
    }

    fn streams(&self) -> bool {
        true
    }
}

/// Empties the queue of filled buffers; keeps the newest that is whole and young enough, and when it was taken.
fn drain(queue: &mut Queue, mode: &Mode, not_before_ms: u64, came: &mut Came) -> Result<Option<(Filled, u64)>, Fault> {
    let mut newest: Option<(Filled, u64)> = None;
    while let Some(filled) = queue.take()? {
        match fit(&filled, mode, not_before_ms, came) {
            Some(taken_ms) => {
                if let Some((older, _)) = newest.replace((filled, taken_ms)) {
                    queue.give_back(older)?;
                }
            }
            None => queue.give_back(filled)?,
        }
    }
    Ok(newest)
}

/// When the frame of a buffer was taken, if it may be a picture; counts why not.
fn fit(filled: &Filled, mode: &Mode, not_before_ms: u64, came: &mut Came) -> Option<u64> {
    let Some(taken_ms) = filled.timing.taken_ms(not_before_ms) else {
        came.old += 1;
        return None;
    };
    let pixels = u64::from(mode.choice.width) * u64::from(mode.choice.height);
    // The smallest JPEG there is has more bytes than this; of a raw format even the leanest has one for each pixel.
    let least = if mode.is_jpeg() { 128 } else { pixels };
    let reasons = [
        (filled.flagged, &mut came.flagged),
        (filled.overstated, &mut came.overstated),
        (filled.used == 0, &mut came.empty),
        ((filled.used as u64) < least, &mut came.short),
    ];
    for (found, count) in reasons {
        if found {
            *count += 1;
            return None;
        }
    }
    Some(taken_ms)
}

type Made = (FrameData, u32, u32);

/// A picture of a buffer's bytes, with its size.
fn picture(bytes: &[u8], mode: &Mode, pixels_max: u64) -> Result<Made, ImageError> {
    let (width, height) = (mode.choice.width, mode.choice.height);
    if !mode.is_jpeg() {
        let yuv = planar(mode.choice.fourcc, bytes, width, height, mode.stride, mode.range)?;
        return Ok((FrameData::Yuv(yuv), width, height));
    }
    let jpeg = repair(bytes.to_vec())?;
    let size = jpeg::size(&jpeg, pixels_max)?;
    if size.0.abs_diff(width) >= BLOCK || size.1.abs_diff(height) >= BLOCK {
        let cause = format!("its header says {}x{}, the device said {width}x{height}", size.0, size.1);
        return Err(ImageError::Damaged { cause });
    }
    Ok((FrameData::Jpeg(jpeg), size.0, size.1))
}

/// Whether to keep the frame: `None` while exposure still moves, then whether it has settled.
fn settled(settling: &mut Option<(Settling, u64)>, made: &Made, pixels_max: u64) -> Result<Option<bool>, ImageError> {
    let Some((watch, until_ms)) = settling else { return Ok(Some(true)) };
    let mean = match &made.0 {
        FrameData::Jpeg(jpeg) => settle::mean(jpeg::thumbnail_gray(jpeg, pixels_max)?.0.into_iter()),
        // Every 61st pixel tells the mean as well, in no pattern with the rows.
        FrameData::Yuv(yuv) => settle::mean(yuv.y.iter().copied().step_by(61)),
    };
    if watch.settled(mean) {
        return Ok(Some(true));
    }
    Ok((boottime_now_ms() >= *until_ms).then_some(false))
}

#[cfg(test)]
mod tests;
