//! What is no camera, or a camera that lies: each is refused in words at the hub, and holds nobody up.

use crate::board::PATIENCE;
use crate::feed::Feed;
use crate::stage::{Stage, Told, every};
use shutterd::clock::Deadline;
use std::time::Duration;

/// Camera, its lines in the configuration, the code its slots must end with, and what is wrong with it.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("sink", "source = \"v4l2:/dev/video21\"", "unable", "a node that takes pictures instead of giving them"),
    ("closed", "source = \"v4l2:/dev/video22\"", "denied", "a node that the service may not open"),
    ("taken", "source = \"v4l2:/dev/video23\"", "busy", "a camera that another program is using"),
    ("odd", "source = \"v4l2:ODD\"", "unable", "a camera whose only format nobody here knows"),
    ("liar", "source = \"v4l2:LIAR\"", "damaged", "a camera whose JPEGs have another size than agreed"),
    ("scant", "source = \"v4l2:SCANT\"", "timeout", "a camera whose raw frames are smaller than agreed"),
    ("wish", "source = \"v4l2:/dev/video24\"\nsize = \"123x45\"", "unable", "a size that the camera has not got"),
];

/// Frames of the cameras that lie.
pub fn feed(feed: &Feed) {
    feed.frames("odd", "BA81", (320, 240), (320, 240), 2);
    feed.frames("liar", "MJPG", (320, 240), (640, 480), 5);
    feed.frames("scant", "YUY2", (320, 200), (320, 240), 5);
}

pub fn each_is_refused_in_words(stage: &mut Stage, told: &Told) {
    // Two more of the driver's cameras: one closed to all but root, one in use.
    stage.board.ok("chmod 0 /dev/video22 && systemd-run --quiet --unit=user-of-camera v4l2-ctl -d /dev/video23 --stream-mmap");
    for (port, camera) in ["odd", "liar", "scant"].iter().enumerate() {
        stage.start_camera(camera, &camera.to_uppercase(), 2 + port as u32);
    }
    let more: String = CASES
        .iter()
        .map(|(camera, lines, ..)| {
            format!("[cameras.{camera}]\n{lines}\ntimeout = \"4s\"\n{}", every(camera, "10s").replace("\"0s\"", "\"5s\""))
        })
        .collect();
    let from_ms = stage.now_ms();
    stage.board.ok(&format!(
        "cp /etc/shutterd/shutterd.toml /run/good.toml && cat >>/etc/shutterd/shutterd.toml <<'END'\n{more}END\nsystemctl restart shutterd"
    ));
    let patience = Deadline::after(PATIENCE);
    for (camera, _, code, what) in CASES {
        let wanted = format!("failed({code})");
        let reason = loop {
            let reasons = stage.evidence.reasons(camera);
            let fits = |r: &&crate::evidence::Reason| r.boot == stage.boot && r.due_ms > from_ms && r.word() == wanted;
            if let Some(reason) = reasons.iter().find(fits) {
                break reason.clone();
            }
            assert!(!patience.passed(), "{what} (`{camera}`) is not on record at the hub as {wanted}, but: {reasons:?}");
            std::thread::sleep(Duration::from_millis(300));
        };
        assert!(reason.detail().len() > 20, "{what}: no words");
        assert!(stage.evidence.of(camera, stage.boot, from_ms).is_empty(), "{what}, and yet a picture of it");
        told.shown(format!("{what}: {}: {}", reason.word(), reason.detail()));
    }
    stage.sees("left", 2);
    stage.board.ok("systemctl stop camera-odd camera-liar camera-scant user-of-camera; cp /run/good.toml /etc/shutterd/shutterd.toml; systemctl restart shutterd");
    told.shown("the good cameras went on meanwhile");
}
