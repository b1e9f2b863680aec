//! What devices send that lie, and what is said of it.

use super::*;
use crate::image::frame::{Sampling, Yuv};
use crate::image::planar::Range;
use crate::model::PIXELS_MAX;
use format::Choice;
use proptest::prelude::*;
use queue::Timing;

fn mode(fourcc: &[u8; 4], width: u32, height: u32) -> Mode {
    Mode { choice: Choice { fourcc: *fourcc, width, height }, stride: 0, range: Range::Full }
}
fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let luma = (0..width * height).map(|n| (n * 7 % 251) as u8).collect();
    jpeg::encode(&Yuv { y: luma, u: vec![], v: vec![], sampling: Sampling::Gray }, width, height, 85).unwrap()
}
fn filled(used: usize) -> Filled {
    Filled { index: 0, used, flagged: false, overstated: false, timing: Timing { stamp_ms: Some(1_000), queued_ms: 900, seen_ms: 1_030 } }
}

#[test]
fn a_jpeg_is_passed_on_byte_for_byte_and_one_of_another_size_is_not() {
    let own = jpeg(64, 48);
    let (FrameData::Jpeg(passed), 64, 48) = picture(&own, &mode(b"MJPG", 64, 48), PIXELS_MAX).unwrap() else { panic!() };
    assert_eq!(passed, own);
    let rounded_up = picture(&own, &mode(b"MJPG", 64, 40), PIXELS_MAX).unwrap();
    assert_eq!((rounded_up.1, rounded_up.2), (64, 48), "a block's rounding is the camera's own, and its header counts");
    let lie = picture(&own, &mode(b"JPEG", 640, 480), PIXELS_MAX).unwrap_err().to_string();
    assert!(lie.contains("its header says 64x48, the device said 640x480"), "{lie}");
    assert!(matches!(picture(&own, &mode(b"MJPG", 64, 48), 100), Err(ImageError::TooLarge { .. })));
}

#[test]
fn a_buffer_shorter_than_the_size_it_was_said_to_have_is_never_read_past_its_end() {
    for fourcc in crate::image::planar::FORMATS {
        let whole = mode(fourcc, 64, 48);
        let enough = vec![7; 64 * 48 * 2];
        assert!(picture(&enough, &whole, PIXELS_MAX).is_ok());
        for len in [0, 1, 64, 64 * 48 - 1] {
            assert!(picture(&enough[..len], &whole, PIXELS_MAX).is_err(), "{fourcc:?} {len}");
        }
        let stride = Mode { stride: u32::MAX, ..whole };
        assert!(picture(&enough, &stride, PIXELS_MAX).is_err(), "a stride that leads out of the buffer");
    }
}

#[test]
fn each_unfit_buffer_is_counted_under_its_reason_and_told() {
    let mut came = Came::default();
    let jpeg_mode = mode(b"MJPG", 640, 480);
    assert_eq!(fit(&filled(5_000), &jpeg_mode, 1_000, &mut came), Some(1_000));
    for bad in [Filled { flagged: true, ..filled(5_000) }, Filled { overstated: true, ..filled(5_000) }, filled(0), filled(1)] {
        assert_eq!(fit(&bad, &jpeg_mode, 1_000, &mut came), None);
    }
    assert_eq!(fit(&filled(5_000), &jpeg_mode, 1_001, &mut came), None, "from before");
    assert_eq!(fit(&filled(640 * 480 - 1), &mode(b"YUYV", 640, 480), 0, &mut came), None);
    assert_eq!(
        came.in_words(),
        "frames came: 1 from before, 1 flagged as faulty by the driver, 1 empty, 2 too short, 1 larger than their buffer"
    );
    assert_eq!((came.bad(), Came::default().in_words().as_str()), (5, "no frame came"));
}

#[test]
fn a_camera_that_is_not_there_is_unreachable_within_its_patience_and_no_longer() {
    let camera = Camera {
        id: "gate".parse().unwrap(),
        source: crate::config::secret::SourceUrl {
            kind: crate::config::secret::SourceKind::V4l2("nowhere".into()),
            user: None,
            password: None,
        },
        quality: 85,
        timeout: Duration::from_secs(10),
        max_pixels: PIXELS_MAX,
        video: Video::default(),
    };
    let grab = |wanted: &str, patience_ms: u64| {
        let asked_ms = boottime_now_ms();
        let want = Want { not_before_ms: asked_ms, deadline: Deadline::after(Duration::from_secs(10)), label: String::new() };
        let error = V4l2::new("gate".into(), &camera, wanted, Duration::from_millis(patience_ms)).grab(&want).unwrap_err();
        (error, boottime_now_ms() - asked_ms)
    };
    let (error, took_ms) = grab("nowhere", 300);
    assert_eq!(error.code(), "unreachable", "{error}");
    assert!((300..5_000).contains(&took_ms), "{took_ms} ms");
    // Ahead of a slot nobody waits for it; for the slot itself, as long as ever.
    let mut source = V4l2::new("gate".into(), &camera, "nowhere", Duration::from_millis(5_000));
    let asked_ms = boottime_now_ms();
    assert_eq!(source.warm_up(Deadline::after(Duration::from_secs(10))).unwrap_err().code(), "unreachable");
    assert!(boottime_now_ms() - asked_ms < 4_000);
    assert_eq!((source.patience, source.follows), (Duration::from_millis(5_000), Duration::ZERO));
    let (error, _) = grab("/dev/null", 0);
    assert_eq!(error.code(), "unable");
    assert!(error.to_string().contains("/dev/null is not a video device"), "{error}");
}

proptest! {
    #[test]
    fn hostile_bytes_are_an_error_or_a_picture_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..4_096),
        format in 0..7usize, width in 1..200u32, height in 1..200u32, stride in 0..1_000u32,
    ) {
        let all = [b"MJPG", b"JPEG", b"YUYV", b"UYVY", b"NV12", b"YU12", b"GREY"];
        let _ = picture(&bytes, &Mode { stride, ..mode(all[format], width, height) }, PIXELS_MAX);
    }
}
