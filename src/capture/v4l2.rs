//! What V4L2 devices this machine has, for `shutterd cameras`. Capturing from them is not in this version.
//!
//! Every node is listed, with the reason where it cannot be asked: a camera that is there but closed to us is what the
//! person at the terminal looks for. Card names come from the device itself, so they are read as bytes, not trusted as text.

use serde::Serialize;
use std::path::{Path, PathBuf};
use v4l::{capability::Flags, framesize::FrameSizeEnum, video::Capture};

/// Sizes shown of one format; some drivers list every step.
const SIZES_MAX: usize = 64;

#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Such as `/dev/video0`; the number changes with the order of plugging.
    pub node: PathBuf,
    /// Names that stay, from `/dev/v4l/by-id` and `by-path`.
    pub links: Vec<PathBuf>,
    pub card: String,
    pub driver: String,
    pub bus: String,
    /// False for metadata, output and codec nodes.
    pub captures: bool,
    pub formats: Vec<FormatInfo>,
    /// Why the node could not be asked.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct FormatInfo {
    /// Four characters, such as `MJPG`.
    pub fourcc: String,
    pub description: String,
    /// `1920x1080`, or a range with its step.
    pub sizes: Vec<String>,
}

/// All nodes in the order of their numbers; empty on a machine without any.
pub fn list() -> Vec<DeviceInfo> {
    let links = links();
    nodes(Path::new("/dev")).into_iter().map(|node| describe(node, &links)).collect()
}

fn nodes(dev: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dev).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.to_str()?.strip_prefix("video")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|n| dev.join(format!("video{n}"))).collect()
}

fn links() -> Vec<(PathBuf, PathBuf)> {
    let dirs = ["/dev/v4l/by-id", "/dev/v4l/by-path"];
    let entries = dirs.into_iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let mut found: Vec<_> = entries.filter_map(|e| Some((e.path(), e.path().canonicalize().ok()?))).collect();
    found.sort();
    found
}

fn describe(node: PathBuf, links: &[(PathBuf, PathBuf)]) -> DeviceInfo {
    let links = links.iter().filter(|(_, target)| *target == node).map(|(link, _)| link.clone()).collect();
    let mut info = DeviceInfo {
        node,
        links,
        card: String::new(),
        driver: String::new(),
        bus: String::new(),
        captures: false,
        formats: Vec::new(),
        error: None,
    };
    if let Err(error) = ask(&mut info) {
        info.error = Some(match error.kind() {
            std::io::ErrorKind::PermissionDenied => format!("{error}; is the user in the group `video`?"),
            _ => error.to_string(),
        });
    }
    info
}

fn ask(info: &mut DeviceInfo) -> std::io::Result<()> {
    let device = v4l::Device::with_path(&info.node)?;
    let caps = capability(&device)?;
    (info.card, info.driver, info.bus) = (text(&caps.card), text(&caps.driver), text(&caps.bus_info));
    info.captures = Flags::from(caps.device_caps).intersects(Flags::VIDEO_CAPTURE | Flags::VIDEO_CAPTURE_MPLANE);
    if !info.captures {
        return Ok(());
    }
    for format in device.enum_formats()? {
        let sizes = device.enum_framesizes(format.fourcc).unwrap_or_default();
        let sizes = sizes.into_iter().take(SIZES_MAX).map(|size| match size.size {
            FrameSizeEnum::Discrete(one) => one.to_string(),
            FrameSizeEnum::Stepwise(range) => range.to_string(),
        });
        info.formats.push(FormatInfo {
            fourcc: text(&format.fourcc.repr),
            description: format.description.clone(),
            sizes: sizes.collect(),
        });
    }
    Ok(())
}

/// `v4l`'s own reading of this struct panics at a card name that is not UTF-8; names come from the device and are cut at 31 bytes.
#[expect(unsafe_code, reason = "an ioctl that the v4l crate does not offer by itself")]
fn capability(device: &v4l::Device) -> std::io::Result<v4l::v4l_sys::v4l2_capability> {
    // SAFETY: VIDIOC_QUERYCAP fills the zeroed struct it is given, which lives across the call; all its fields are integers.
    unsafe {
        let mut caps: v4l::v4l_sys::v4l2_capability = std::mem::zeroed();
        v4l::v4l2::ioctl(device.handle().fd(), v4l::v4l2::vidioc::VIDIOC_QUERYCAP, (&raw mut caps).cast())?;
        Ok(caps)
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_listed_by_number_and_odd_names_left_alone() {
        let dir = std::env::temp_dir().join(format!("shutterd-v4l2-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in ["video10", "video2", "video", "videox", "video-1", "audio0"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        let found = nodes(&dir);
        let names: Vec<_> = found.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["video2", "video10"]);
        // A node that is no device is listed with its error.
        let info = describe(found[0].clone(), &[]);
        assert!(info.error.is_some() && !info.captures);
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(nodes(&dir).is_empty());
        list();
    }

    #[test]
    fn a_card_name_cut_in_the_middle_of_a_letter_is_shown_anyway() {
        assert_eq!(text(b"Caf\xc3\0junk"), "Caf\u{fffd}");
        assert_eq!(text(b"\x1b[2Jx\0"), "?[2Jx");
    }
}
