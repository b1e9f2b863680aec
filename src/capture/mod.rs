//! Opens a camera from its address.
//!
//! | kind | file | what it gives |
//! |---|---|---|
//! | `rtsp://` | [`rtsp`] | the next keyframe of an IP camera: its own JPEG, or H.264 decoded to planar YUV |
//! | `pattern:` | [`pattern`] | a test card that names the slot it was taken for, and can be told to misbehave |
//! | `command:` | [`command`] | what a program of the board's owner writes: one JPEG |
//! | `v4l2:` | [`v4l2`] | enumeration only |
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

/// Opens a source without touching the network: the first grab connects, within its own deadline.
/// `keep_open`: keep a network session between grabs (short intervals). Called and used on the camera's own thread, never inside the
/// runtime; network sources use `runtime` from there.
/// # Errors
/// The kind of source is not in this version.
pub fn open(camera: &Camera, keep_open: bool, runtime: tokio::runtime::Handle) -> Result<Box<dyn Source>, CaptureError> {
    match &camera.source.kind {
        SourceKind::Rtsp(url) => Ok(Box::new(rtsp::Rtsp::new(name(camera), camera, url, keep_open, runtime)?)),
        SourceKind::Pattern(options) => Ok(Box::new(pattern::Pattern::new(name(camera), options.clone(), camera.quality))),
        SourceKind::Command(line) => Ok(Box::new(command::Program::new(name(camera), line.clone(), camera.max_pixels))),
        SourceKind::V4l2(device) => Err(CaptureError::Unsupported {
            camera: name(camera),
            cause: format!("V4L2 capture is not in this version yet: {device} can be listed by `shutterd cameras`, not captured from"),
        }),
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
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        open(&camera, false, runtime.handle().clone()).err().unwrap()
    }

    #[test]
    fn a_kind_of_camera_that_is_not_there_yet_is_refused_in_words() {
        let usb = refusal(SourceKind::V4l2("usb-046d_C920".into()));
        assert_eq!(usb.code(), "unsupported");
        assert!(usb.to_string().contains("V4L2 capture is not in this version yet: usb-046d_C920"), "{usb}");
        let tls = refusal(SourceKind::Rtsp(url::Url::parse("rtsps://cam/x?token=t0ken").unwrap()));
        assert!(tls.code() == "unsupported" && tls.to_string().contains("rtsps"), "{tls}");
        assert!(!tls.to_string().contains("t0ken") && !tls.to_string().contains("hunter2"), "{tls}");
    }
}
