//! IP cameras over RTSP: the next whole keyframe at or after the instant asked for.
//!
//! The network part is a task on the runtime ([`session`]); this side runs on the camera's own thread, which waits, keeps the one
//! deadline, and decodes. TCP first; UDP where the camera refuses TCP. MJPEG passes untouched, H.264 becomes planar YUV.
//!
//! **Kept open** for short intervals, so that a picture costs one keyframe and no login. Such a session may have died
//! unnoticed while nobody asked: one that fails or has been silent is replaced within the same grab.
//!
//! **Opened ahead** of a slot of a longer interval: MJPEG then plays already and the next frame is the picture; H.264 is set up and told to
//! play at the slot's instant, because most cameras begin with a keyframe.
//!
//! **Ended in order**: small cameras serve few sessions and forget none. A session is told to end when it is no longer needed, and a new one
//! waits (within limits) until the old one has confirmed.
//!
//! Paths not taken: asking for a keyframe out of turn (no standard way, and few cameras follow), joining frames that are not
//! keyframes (needs a decoder running all the time).

mod fault;
mod h264;
mod session;

use crate::capture::source::{CaptureError, Frame, FrameData, Source, Want};
use crate::clock::{Deadline, boottime_now_ms};
use crate::config::settings::Camera;
use crate::image::jpeg::{self, ImageError};
use crate::model::TEARDOWN_MAX_MS;
use fault::{Hidden, Progress};
use h264::Undecodable;
use session::{Address, Encoding, Request, Shot, Wanted};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, atomic::AtomicBool};
use std::time::Duration;
use tokio::{runtime::Handle, sync::mpsc::Sender, task::JoinHandle};

/// An open session without a frame for this long is taken for dead (a camera that lost its power says no goodbye).
const SILENT_MAX_MS: u64 = 5_000;

pub struct Rtsp {
    address: Arc<Address>,
    keep_open: bool,
    pixels_max: u64,
    runtime: Handle,
    link: Option<Link>,
    /// What its last opening took until it was ready.
    warm_up_ms: Option<u64>,
    /// A session told to end.
    ending: Option<Link>,
}

/// The camera thread's end of a session.
struct Link {
    requests: Option<Sender<Request>>,
    progress: Arc<Progress>,
    ended: Receiver<()>,
    task: JoinHandle<()>,
}

impl Rtsp {
    /// # Errors
    /// RTSP over TLS.
    pub fn new(name: String, camera: &Camera, url: &url::Url, keep_open: bool, runtime: Handle) -> Result<Self, CaptureError> {
        if url.scheme() != "rtsp" {
            let cause = format!("{} is not in this version; use rtsp://", url.scheme());
            return Err(CaptureError::Unsupported { camera: name, cause });
        }
        let source = &camera.source;
        let password = source.password.as_ref().map(|secret| secret.expose().to_owned()).unwrap_or_default();
        let credentials =
            source.user.as_ref().map(|user| retina::client::Credentials { username: user.clone(), password: password.clone() });
        let encoded = url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
        let hidden = Hidden(vec![url.query().unwrap_or_default().to_owned(), password, encoded]);
        let address = Address { camera: name, url: url.clone(), credentials, hidden, udp: AtomicBool::new(false) };
        Ok(Self {
            address: Arc::new(address),
            keep_open,
            pixels_max: camera.max_pixels,
            runtime,
            link: None,
            warm_up_ms: None,
            ending: None,
        })
    }

    /// A shot from the open session, or from a new one.
    fn shot(&mut self, want: &Want) -> Result<Shot, CaptureError> {
        let wanted = Wanted::Shot { not_before_ms: want.not_before_ms, stay: self.keep_open };
        self.end_dead();
        if self.link.is_some() {
            match self.ask(wanted, want.deadline) {
                Err(CaptureError::Broken { .. }) if !want.deadline.passed() => self.end_link(),
                done => return done.and_then(|shot| shot.ok_or_else(|| self.gone())),
            }
        }
        self.start(want.deadline);
        self.ask(wanted, want.deadline)?.ok_or_else(|| self.gone())
    }

    fn ask(&mut self, wanted: Wanted, deadline: Deadline) -> Result<Option<Shot>, CaptureError> {
        let Some(link) = &self.link else { return Err(self.gone()) };
        let answer = link.ask(&self.address.camera, wanted, deadline);
        self.warm_up_ms = link.progress.ready_after_ms().or(self.warm_up_ms);
        answer
    }

    fn gone(&self) -> CaptureError {
        gone(&self.address.camera)
    }

    /// Ends a session that died unnoticed.
    fn end_dead(&mut self) {
        if let Some(link) = self.link.take_if(|link| link.progress.silent_ms() > SILENT_MAX_MS || link.task.is_finished()) {
            self.end(link);
        }
    }

    fn start(&mut self, deadline: Deadline) {
        if let Some(old) = self.ending.take() {
            old.await_end(deadline.left().min(Duration::from_millis(TEARDOWN_MAX_MS)));
        }
        let (requests, queue) = tokio::sync::mpsc::channel(1);
        let (ending, ended) = sync_channel(1);
        let progress = Arc::new(Progress::new());
        let task = session::run(self.address.clone(), queue, progress.clone(), ending);
        self.link = Some(Link { requests: Some(requests), progress, ended, task: self.runtime.spawn(task) });
    }

    fn end_link(&mut self) {
        if let Some(link) = self.link.take() {
            self.end(link);
        }
    }
    fn end(&mut self, mut link: Link) {
        link.requests = None;
        self.ending = Some(link);
    }

    fn frame(&self, shot: Shot) -> Result<Frame, CaptureError> {
        let camera = self.address.camera.clone();
        let limit = self.pixels_max;
        let taken_ms = shot.arrived_ms;
        match shot.encoding {
            Encoding::Jpeg => match jpeg::check(&shot.data, limit) {
                Ok((width, height)) => Ok(Frame { data: FrameData::Jpeg(shot.data), width, height, taken_ms }),
                Err(ImageError::TooLarge { pixels, limit }) => Err(CaptureError::TooLarge { camera, pixels, limit }),
                Err(error) => Err(CaptureError::Damaged { camera, cause: error.to_string() }),
            },
            Encoding::H264 => match h264::decode(&shot.data, limit) {
                Ok(h264::Picture { yuv, width, height }) => Ok(Frame { data: FrameData::Yuv(yuv), width, height, taken_ms }),
                Err(Undecodable::Damaged(cause)) => Err(CaptureError::Damaged { camera, cause }),
                Err(Undecodable::Unsupported(cause)) => Err(CaptureError::Unsupported { camera, cause }),
                Err(Undecodable::TooLarge(pixels)) => Err(CaptureError::TooLarge { camera, pixels, limit }),
            },
        }
    }
}

impl Source for Rtsp {
    fn kind(&self) -> &'static str {
        "rtsp"
    }

    fn grab(&mut self, want: &Want) -> Result<Frame, CaptureError> {
        let shot = self.shot(want);
        if shot.is_err() || !self.keep_open {
            self.end_link();
        }
        self.frame(shot?)
    }

    fn warm_up(&mut self, deadline: Deadline) -> Result<(), CaptureError> {
        self.end_dead();
        if self.link.is_none() {
            self.start(deadline);
        }
        let ready = self.ask(Wanted::Ready, deadline);
        // What takes longer than that goes on, and the grab with it.
        if ready.as_ref().is_err_and(|error| !matches!(error, CaptureError::Timeout { .. })) {
            self.end_link();
        }
        ready.map(|_| ())
    }

    fn stay_open(&mut self, stay: bool) {
        self.keep_open = stay;
    }

    fn warm_up_ms(&self) -> Option<u64> {
        self.warm_up_ms
    }
}

/// Waits a moment for the camera to confirm, so that a source opened anew does not meet its own old session.
impl Drop for Rtsp {
    fn drop(&mut self) {
        self.end_link();
        if let Some(link) = self.ending.take() {
            link.await_end(Duration::from_millis(TEARDOWN_MAX_MS));
        }
    }
}

fn gone(camera: &str) -> CaptureError {
    CaptureError::Broken { camera: camera.to_owned(), cause: "the session has ended".into() }
}

impl Link {
    fn ask(&self, camera: &str, wanted: Wanted, deadline: Deadline) -> Result<Option<Shot>, CaptureError> {
        let asked_ms = boottime_now_ms();
        let gone = || gone(camera);
        let (reply, answer) = sync_channel(1);
        self.progress.asked();
        let request = Request { wanted, reply };
        self.requests.as_ref().and_then(|requests| requests.try_send(request).ok()).ok_or_else(gone)?;
        loop {
            match answer.recv_timeout(deadline.left()) {
                Ok(result) => return result,
                // Also when the runtime shuts down: it drops the session and the other end of this channel with it.
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if deadline.passed() => {
                    let within = Duration::from_millis(deadline.boottime_ms().saturating_sub(asked_ms));
                    return Err(CaptureError::Timeout { camera: camera.to_owned(), within, stage: self.progress.describe() });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Nothing is ever sent on `ended`; the wait is for its other end to go.
    fn await_end(self, patience: Duration) {
        let _ = self.ended.recv_timeout(patience);
        self.task.abort();
    }
}
