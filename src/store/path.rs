//! Where a picture lies below the data directory.
//!
//! ```text
//! snapshots/<camera>/<seq/1000>/<seq>-20261122T210501Z.jpg      clock trusted
//! snapshots/<camera>/<seq/1000>/<seq>-boot3+305.jpg             clock not trusted: seconds since that boot
//! ```
//! Only the number before the first `-` is ever parsed, nothing is ever renamed, and the clock never chooses a directory.

use crate::model::{BUCKET, CameraId, SEQ_MAX, Seq, Stamp};
use std::path::{Path, PathBuf};

pub const SNAPSHOTS: &str = "snapshots";

/// Where a picture lies, relative to the data directory.
pub fn path_of(camera: &CameraId, seq: Seq, taken: &Stamp) -> PathBuf {
    let dated = if taken.quality.trusted() { chrono::DateTime::from_timestamp_millis(taken.wall_ms) } else { None };
    let name = match dated {
        Some(utc) => format!("{seq}-{}.jpg", utc.format("%Y%m%dT%H%M%SZ")),
        None => format!("{seq}-boot{}+{}.jpg", taken.boot, taken.boottime_ms / 1000),
    };
    Path::new(SNAPSHOTS).join(camera.as_str()).join((seq.0 / BUCKET).to_string()).join(name)
}

/// The number in a file's name, if it is one of ours.
pub fn seq_of(name: &str) -> Option<Seq> {
    let (seq, _) = name.strip_suffix(".jpg")?.split_once('-')?;
    // No node ever takes so many: a file that claims it must not spoil the numbers to come.
    seq.parse().ok().filter(|seq| *seq <= SEQ_MAX).map(Seq)
}

/// Whether a path, relative to the data directory, is one that a picture of ours can have.
pub fn is_ours(path: &Path) -> bool {
    let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
    let Some([top, camera, bucket, name]) = parts.as_deref() else { return false };
    *top == SNAPSHOTS && camera.parse::<CameraId>().is_ok() && seq_of(name).is_some_and(|seq| (seq.0 / BUCKET).to_string() == *bucket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Quality;

    #[test]
    fn a_path_out_of_the_directory_is_nobodys_picture() {
        assert!(is_ours(Path::new("snapshots/gate/12/12042-20261122T210501Z.jpg")));
        let foreign =
            ["/etc/passwd", "../x", "snapshots/../0/7-x.jpg", "snapshots/gate/1/7-x.jpg", "snapshots/gate/0/../7-x.jpg", "index.redb"];
        assert_eq!(foreign.map(|path| is_ours(Path::new(path))), [false; 6]);
    }

    #[test]
    fn a_name_shows_the_time_only_when_the_clock_was_trusted() {
        let camera = "gate".parse().unwrap();
        let mut taken = Stamp { boot: 3, boottime_ms: 305_900, wall_ms: 1_795_381_501_000, quality: Quality::Ntp, uncertainty_ms: Some(0) };
        assert_eq!(path_of(&camera, Seq(12_042), &taken).to_str().unwrap(), "snapshots/gate/12/12042-20261122T210501Z.jpg");
        taken.quality = Quality::Saved;
        assert_eq!(path_of(&camera, Seq(7), &taken).to_str().unwrap(), "snapshots/gate/0/7-boot3+305.jpg");
        assert_eq!(seq_of("7-boot3+305.jpg"), Some(Seq(7)));
        for foreign in ["x-1.jpg", "7.jpg", "7-x.png", "-7-x.jpg", "18446744073709551615-x.jpg", "IMG_0001.jpg"] {
            assert_eq!(seq_of(foreign), None, "{foreign}");
        }
    }
}
