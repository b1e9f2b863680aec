//! What every camera is to the rest of the agent: something that gives one frame before a deadline, or says why not.

pub use crate::image::frame::{Frame, FrameData, Sampling, Yuv};

use crate::clock::Deadline;
use std::time::Duration;

/// What the source is asked for.
#[derive(Debug, Clone)]
pub struct Want {
    /// The frame must be taken at or after this CLOCK_BOOTTIME instant (ms).
    pub not_before_ms: u64,
    /// When the grab must have ended, with or without a frame.
    pub deadline: Deadline,
    /// Identity of the (first) slot served, such as `gate/every-5m/3/305000`; the test card draws it.
    pub label: String,
}

pub trait Source: Send {
    /// Kind for the record: `rtsp`, `pattern`, …
    fn kind(&self) -> &'static str;
    /// Takes one frame. Blocks the camera's thread, never past the deadline by more than a scheduling delay.
    /// # Errors
    /// Says what the camera did; [`CaptureError::remedy`] says what to do with the source.
    fn grab(&mut self, want: &Want) -> Result<Frame, CaptureError>;
    /// Opens the camera ahead of its next grab, so that this finds it warm. Returns when it is, or at the deadline, and then the grab
    /// goes on from there.
    /// # Errors
    /// As [`grab`](Self::grab), which tries again.
    fn warm_up(&mut self, _deadline: Deadline) -> Result<(), CaptureError> {
        Ok(())
    }
    /// Whether what the next grab has opened is left open after it.
    fn stay_open(&mut self, _stay: bool) {}
    /// Remarks on the last frame, for its record.
    fn flags(&self) -> &'static [&'static str] {
        &[]
    }
    /// How long this camera took from opening to its being ready for a grab, where that was measured.
    fn warm_up_ms(&self) -> Option<u64> {
        None
    }
    /// True if frames follow each other by themselves: after a damaged one the next is soon there.
    fn streams(&self) -> bool {
        false
    }
}

/// What the world did. Texts name the device, never a credential.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("{camera} did not deliver a picture within {within:?} ({stage})")]
    Timeout { camera: String, within: Duration, stage: String },
    #[error("{camera} cannot be reached: {cause}")]
    Unreachable { camera: String, cause: String },
    /// Somebody else uses it.
    #[error("{camera} is busy: {cause}")]
    Busy { camera: String, cause: String },
    /// The system does not let us.
    #[error("{camera} is closed to this user: {cause}")]
    Denied { camera: String, cause: String },
    /// What is configured is not to be had of it.
    #[error("{camera} cannot be used as configured: {cause}")]
    Unable { camera: String, cause: String },
    #[error("{camera} refuses the login; check user and password")]
    Login { camera: String },
    #[error("{camera} has no such stream: {cause}")]
    NotFound { camera: String, cause: String },
    #[error("{camera} broke the stream off: {cause}")]
    Broken { camera: String, cause: String },
    #[error("{camera} sent a damaged picture: {cause}")]
    Damaged { camera: String, cause: String },
    #[error("{camera}: the program {cause}")]
    Program { camera: String, cause: String },
    #[error("{camera} sends what cannot be used: {cause}")]
    Unsupported { camera: String, cause: String },
    #[error("{camera} sent a picture of {pixels} pixels, over the limit of {limit}; raise max_pixels if it is right")]
    TooLarge { camera: String, pixels: u64, limit: u64 },
}

/// What to do with the source after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Keep it; the next frame may be good.
    Retry,
    /// Drop it and open it anew for the next capture.
    Reopen,
    /// Nothing will help until somebody changes configuration or camera; back off.
    Fatal,
}

impl CaptureError {
    /// Stable code for ledger, hub and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Busy { .. } => "busy",
            Self::Denied { .. } => "denied",
            Self::Unable { .. } => "unable",
            Self::Login { .. } => "login",
            Self::NotFound { .. } => "not_found",
            Self::Broken { .. } => "broken",
            Self::Damaged { .. } => "damaged",
            Self::Program { .. } => "program",
            Self::Unsupported { .. } => "unsupported",
            Self::TooLarge { .. } => "too_large",
        }
    }
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Damaged { .. } | Self::Program { .. } => Remedy::Retry,
            Self::Timeout { .. } | Self::Unreachable { .. } | Self::Broken { .. } | Self::Busy { .. } => Remedy::Reopen,
            Self::Denied { .. } | Self::Unable { .. } => Remedy::Fatal,
            Self::Login { .. } | Self::NotFound { .. } | Self::Unsupported { .. } | Self::TooLarge { .. } => Remedy::Fatal,
        }
    }
}
