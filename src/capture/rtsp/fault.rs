//! How far a session got, and what its errors mean, in words without credentials.

use crate::capture::source::CaptureError;
use crate::clock::boottime_now_ms;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Longest text taken over from the library or the camera.
const CAUSE_MAX_CHARS: usize = 160;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The TCP connection and the description asked for on it.
    Describe,
    Setup,
    Play,
    Frame,
}

/// Shared with the camera's thread, which alone keeps the deadline and has to say where the time went.
#[derive(Debug)]
pub struct Progress {
    stage: AtomicU8,
    frames: AtomicU32,
    damaged: AtomicU32,
    last_frame_ms: AtomicU64,
    begun_ms: u64,
    /// How long it took until the session could give a picture; 0 until then.
    ready_after_ms: AtomicU64,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            stage: AtomicU8::new(0),
            frames: AtomicU32::new(0),
            damaged: AtomicU32::new(0),
            last_frame_ms: AtomicU64::new(0),
            begun_ms: boottime_now_ms(),
            ready_after_ms: AtomicU64::new(0),
        }
    }
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
        self.last_frame_ms.store(boottime_now_ms(), Relaxed);
    }
    /// A new request counts its own frames.
    pub fn asked(&self) {
        self.frames.store(0, Relaxed);
        self.damaged.store(0, Relaxed);
    }
    pub fn frame(&self, at_ms: u64, damaged: bool) {
        self.frames.fetch_add(1, Relaxed);
        self.damaged.fetch_add(damaged.into(), Relaxed);
        self.last_frame_ms.store(at_ms, Relaxed);
    }
    pub fn ready(&self) {
        let after_ms = (boottime_now_ms() - self.begun_ms).max(1);
        let _ = self.ready_after_ms.compare_exchange(0, after_ms, Relaxed, Relaxed);
    }
    pub fn ready_after_ms(&self) -> Option<u64> {
        Some(self.ready_after_ms.load(Relaxed)).filter(|ms| *ms > 0)
    }
    /// Since the last frame, while it plays.
    pub fn silent_ms(&self) -> u64 {
        if self.stage.load(Relaxed) != Stage::Frame as u8 {
            return 0;
        }
        boottime_now_ms().saturating_sub(self.last_frame_ms.load(Relaxed))
    }
    /// For the error of a request that got nothing.
    pub fn describe(&self) -> String {
        const DESCRIBE: u8 = Stage::Describe as u8;
        const SETUP: u8 = Stage::Setup as u8;
        const PLAY: u8 = Stage::Play as u8;
        match self.stage.load(Relaxed) {
            DESCRIBE => "connecting and waiting for the answer to DESCRIBE".into(),
            SETUP => "waiting for the answer to SETUP".into(),
            PLAY => "waiting for the answer to PLAY".into(),
            _ => match (self.frames.load(Relaxed), self.damaged.load(Relaxed)) {
                (0, _) => "connected and playing, but no picture came".into(),
                (frames, 0) => {
                    format!("{frames} pictures came, none of them a new keyframe; is the keyframe interval longer than the timeout?")
                }
                (frames, damaged) => format!("{frames} pictures came, {damaged} of them damaged on the way, none a whole new keyframe"),
            },
        }
    }
}

/// Texts that must not be seen: password, and the query of the address, which may hold a token.
pub struct Hidden(pub Vec<String>);

impl Hidden {
    /// One short line that is fit for logs: the library appends connection details after a blank line, and cameras may send our own headers
    /// back in what they answer.
    pub fn redact(&self, text: &str) -> String {
        let line: String =
            text.lines().next().unwrap_or_default().trim_end_matches("; buffered:").chars().filter(|c| !c.is_control()).collect();
        let mut clean = line;
        for secret in self.0.iter().filter(|secret| !secret.is_empty()) {
            clean = clean.replace(secret.as_str(), "***");
        }
        let lower = clean.to_ascii_lowercase();
        if let Some(at) = ["authorization", "basic ", "digest "].iter().filter_map(|word| lower.find(word)).min() {
            clean.truncate(at);
            clean.push_str("(hidden)");
        }
        clean.chars().take(CAUSE_MAX_CHARS).collect()
    }
}

/// What a library error means, by the stage it came in.
pub fn meaning(camera: &str, hidden: &Hidden, stage: Stage, error: &retina::Error) -> CaptureError {
    let camera = camera.to_owned();
    let cause = hidden.redact(&error.to_string());
    match (stage, error.status_code()) {
        // Later a 401 is an expired nonce, which a new session cures.
        (Stage::Describe | Stage::Setup | Stage::Play, Some(401 | 403)) => CaptureError::Login { camera },
        (Stage::Describe, Some(404)) => CaptureError::NotFound { camera, cause: "it answers 404; check the path of the address".into() },
        (Stage::Describe, None) if cause.starts_with("Unable to connect") => CaptureError::Unreachable { camera, cause },
        _ => CaptureError::Broken { camera, cause },
    }
}

/// Statuses with which cameras refuse a transport at SETUP: the proper one (461), those of older firmware, and an answer of 200 that offers another
/// transport than asked for, which the library reports with that status.
pub fn refuses_transport(error: &retina::Error) -> bool {
    matches!(error.status_code(), Some(200 | 400 | 406 | 461 | 501))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_survives_in_an_error_text() {
        let hidden = Hidden(vec!["hun/ter2".into(), "hun%2Fter2".into(), "token=abc".into()]);
        for text in [
            "Bad URL rtsp://cam/x?token=abc; only",
            "unexpected header Authorization: Basic YWRtaW46aHVuL3RlcjI=",
            "got \"basic YWRtaW46aHVuL3RlcjI=\"",
            "user admin, password hun/ter2 or hun%2Fter2",
            "EOF while reading\n\nconn: x\nmsg: Authorization: Digest response=\"c0ffee\"",
        ] {
            let clean = hidden.redact(text);
            for secret in ["hun/ter2", "hun%2Fter2", "token=abc", "YWRtaW46", "c0ffee"] {
                assert!(!clean.contains(secret), "{clean}");
            }
        }
        assert_eq!(
            hidden.redact("Unable to connect to RTSP server: Connection refused"),
            "Unable to connect to RTSP server: Connection refused"
        );
        assert_eq!(hidden.redact("Expected response, got EOF; buffered:\n\nconn: 10.0.0.2:34512(me)"), "Expected response, got EOF");
        assert!(hidden.redact(&"\x1b[31m".repeat(100)).chars().all(|c| !c.is_control()));
    }
}
