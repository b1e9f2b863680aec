//! Opens a camera from its address.
//!
//! | kind | file | what it gives |
//! |---|---|---|
//! | `rtsp://` | [`rtsp`] | the next keyframe of an IP camera: its own JPEG, or H.264 decoded to planar YUV |
//! | `pattern:` | [`pattern`] | a test card that names the slot it was taken for, and can be told to misbehave |
//! | `v4l2:` | [`v4l2`] | the next frame of a USB or other V4L2 camera: its own JPEG, or raw planes |
//! | `command:` | [`command`] | what a program of the board's owner writes: one JPEG |
//!
//! A source never returns later than the deadline it was given, and never a picture that it is not sure of.
pub mod command;
pub mod pattern;
pub mod rtsp;
pub mod source;
pub mod v4l2;
mod words;

use crate::config::{secret::SourceKind, settings::Camera};
use source::{CaptureError, Source};
use std::time::Duration;

/// Opens a source without touching network or device: the first grab does, within its own deadline.
/// `keep_open`: keep a network session between grabs (short intervals). `patience`: how long a grab may wait for a camera that is not
/// plugged in. Called and used on the camera's own thread, never inside the runtime; network sources use `runtime` from there.
/// # Errors
/// The kind of source is not in this version.
pub fn open(
    camera: &Camera,
    keep_open: bool,
    patience: Duration,
    runtime: tokio::runtime::Handle,
) -> Result<Box<dyn Source>, CaptureError> {
    match &camera.source.kind {
        SourceKind::Rtsp(url) => Ok(Box::new(rtsp::Rtsp::new(name(camera), camera, url, keep_open, runtime)?)),
        SourceKind::Pattern(options) => Ok(Box::new(pattern::Pattern::new(name(camera), options.clone(), camera.quality))),
        SourceKind::Command(line) => Ok(Box::new(command::Program::new(name(camera), line.clone(), camera.max_pixels))),
        SourceKind::V4l2(device) => Ok(Box::new(v4l2::V4l2::new(name(camera), camera, device, patience))),
    }
}

/// Whether a camera has to be opened, and then takes its time until it is ready.
pub fn opens(camera: &Camera) -> bool {
    match &camera.source.kind {
        SourceKind::Rtsp(_) | SourceKind::V4l2(_) => true,
        SourceKind::Pattern(options) => options.warm_up_ms > 0,
        SourceKind::Command(_) => false,
    }
}

/// Tells when devices come, for a camera that is one; `None` for others.
pub fn plugs(camera: &Camera) -> Option<v4l2::plug::Plugs> {
    let watched = matches!(camera.source.kind, SourceKind::V4l2(_)).then(v4l2::plug::Plugs::watch)?;
    watched.inspect_err(|e| tracing::warn!(camera = %camera.id, error = %e, "devices that come are not seen at once")).ok()
}

/// What is wrong with a camera's place before anything is asked of it, such as that it is not plugged in.
pub fn missing(camera: &Camera) -> Option<String> {
    let SourceKind::V4l2(device) = &camera.source.kind else { return None };
    match v4l2::find::find(device, &v4l2::find::Places::default()) {
        Err(v4l2::find::Lost::Absent(what)) => Some(what),
        _ => None,
    }
}

/// How a camera is called in error texts: its id and its address, without credentials.
fn name(camera: &Camera) -> String {
    format!("{} ({})", camera.id, camera.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::{Secret, SourceUrl};
    use crate::model::PIXELS_MAX;

    fn refusal(kind: SourceKind) -> CaptureError {
        let source = SourceUrl { kind, user: Some("admin".into()), password: Some(Secret::new("hunter2".into())) };
        let camera = Camera {
            id: "gate".parse().unwrap(),
            source,
            quality: 85,
            timeout: std::time::Duration::from_secs(10),
            max_pixels: PIXELS_MAX,
            video: Default::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        open(&camera, false, Duration::ZERO, runtime.handle().clone()).err().unwrap()
    }

    #[test]
    fn a_kind_of_camera_that_is_not_there_yet_is_refused_in_words() {
        let tls = refusal(SourceKind::Rtsp(url::Url::parse("rtsps://cam/x?token=t0ken").unwrap()));
        assert!(tls.code() == "unsupported" && tls.to_string().contains("rtsps"), "{tls}");
        assert!(!tls.to_string().contains("t0ken") && !tls.to_string().contains("hunter2"), "{tls}");
    }
}
