//! A video node as the kernel tells of it: opened without blocking, asked what it can.
//!
//! Every call goes through `libc::open` and `libc::ioctl`, by their names: the layer that lets Raspberry Pi CSI cameras look like
//! V4L2 devices is loaded before libc and sees nothing else. So not `rustix`, and not the `v4l` crate's own calls, which go past libc.
//! What drivers write as text is read as bytes: card names are cut in the middle of a letter.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};
use v4l::{v4l_sys as sys, v4l2::vidioc};

/// Bounds on what a driver may list: a driver that never says "no more" must not keep us.
const FORMATS_MAX: u32 = 64;
const SIZES_MAX: u32 = 128;
const RATES_MAX: u32 = 64;
/// Planes of a buffer that a kernel call has room for (VIDEO_MAX_PLANES).
pub const PLANES_MAX: usize = 8;

pub struct Device {
    fd: OwnedFd,
}

#[derive(Debug, Clone)]
pub struct Capability {
    pub card: String,
    pub driver: String,
    pub bus: String,
    flags: u32,
}

impl Capability {
    /// Gives pictures, and by buffers in memory.
    pub fn captures(&self) -> bool {
        self.flags & (sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE) != 0
    }
    pub fn streams(&self) -> bool {
        self.flags & sys::V4L2_CAP_STREAMING != 0
    }
    /// Only by the interface of several planes.
    pub fn multi_planar(&self) -> bool {
        self.flags & sys::V4L2_CAP_VIDEO_CAPTURE == 0 && self.captures()
    }
    /// The kernel's number of the buffers' kind.
    pub fn buffers(&self) -> u32 {
        match self.multi_planar() {
            true => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
            false => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
        }
    }
}

/// A format that the device offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub fourcc: [u8; 4],
    pub description: String,
    pub sizes: Vec<Size>,
}

/// One size, or all from `min` to `max` in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub min: (u32, u32),
    pub max: (u32, u32),
    pub step: (u32, u32),
}

impl Size {
    pub fn one(width: u32, height: u32) -> Self {
        Self { min: (width, height), max: (width, height), step: (1, 1) }
    }
    pub fn holds(&self, (width, height): (u32, u32)) -> bool {
        let fits = |value: u32, min: u32, max: u32, step: u32| (min..=max).contains(&value) && (value - min).is_multiple_of(step.max(1));
        fits(width, self.min.0, self.max.0, self.step.0) && fits(height, self.min.1, self.max.1, self.step.1)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { min, max, step } = self;
        match min == max {
            true => write!(f, "{}x{}", max.0, max.1),
            false => write!(f, "{}x{} to {}x{} in steps of {}x{}", min.0, min.1, max.0, max.1, step.0, step.1),
        }
    }
}

impl Device {
    /// Opens the node; no call on it blocks for a frame.
    /// # Errors
    /// The kernel's.
    #[expect(unsafe_code, reason = "the call must go through libc by name")]
    pub fn open(node: &Path) -> io::Result<Self> {
        let path = CString::new(node.as_os_str().as_bytes())?;
        // SAFETY: the path is a C string that lives across the call; a descriptor that comes back is ours alone.
        let fd = unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd })
    }

    /// A request that fills, or reads and fills, the struct it belongs to.
    /// # Errors
    /// The kernel's.
    #[expect(unsafe_code, reason = "the call must go through libc by name")]
    pub fn ask<T>(&self, request: vidioc::_IOC_TYPE, about: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: each caller pairs a request with the struct of its definition (the number even holds its size), of integers
            // and of pointers to memory that outlives the call.
            let answer = unsafe { libc::ioctl(self.fd.as_raw_fd(), request as _, std::ptr::from_mut(about).cast::<libc::c_void>()) };
            if answer >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    pub fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// # Errors
    /// `ENOTTY`: not a video node.
    pub fn capability(&self) -> io::Result<Capability> {
        let mut caps: sys::v4l2_capability = zeroed();
        self.ask(vidioc::VIDIOC_QUERYCAP, &mut caps)?;
        // Of this node, where the driver tells it apart from those of the whole device.
        let of_node = caps.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0;
        Ok(Capability {
            card: text(&caps.card),
            driver: text(&caps.driver),
            bus: text(&caps.bus_info),
            flags: if of_node { caps.device_caps } else { caps.capabilities },
        })
    }

    /// All formats with their sizes, in the driver's order.
    /// # Errors
    /// `ENODEV`: it was unplugged meanwhile. That it has none is no error.
    pub fn offers(&self, buffers: u32) -> io::Result<Vec<Offer>> {
        let mut offers = Vec::new();
        for index in 0..FORMATS_MAX {
            let mut format = sys::v4l2_fmtdesc { index, type_: buffers, ..zeroed() };
            match self.ask(vidioc::VIDIOC_ENUM_FMT, &mut format) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::EIO)) => return Err(e),
                Err(_) => break,
                Ok(()) => {}
            }
            let sizes = self.sizes(format.pixelformat);
            offers.push(Offer { fourcc: format.pixelformat.to_le_bytes(), description: text(&format.description), sizes });
        }
        Ok(offers)
    }

    #[expect(unsafe_code, reason = "a union of the kernel")]
    fn sizes(&self, pixel_format: u32) -> Vec<Size> {
        let mut sizes = Vec::new();
        for index in 0..SIZES_MAX {
            let mut size = sys::v4l2_frmsizeenum { index, pixel_format, ..zeroed() };
            if self.ask(vidioc::VIDIOC_ENUM_FRAMESIZES, &mut size).is_err() {
                break;
            }
            // SAFETY: both readings of the union are of plain integers, all of which are initialised.
            let (one, range) = unsafe { (size.__bindgen_anon_1.discrete, size.__bindgen_anon_1.stepwise) };
            if size.type_ == sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
                sizes.push(Size::one(one.width, one.height));
                continue;
            }
            sizes.push(Size {
                min: (range.min_width, range.min_height),
                max: (range.max_width, range.max_height),
                step: (range.step_width, range.step_height),
            });
            break;
        }
        sizes
    }

    /// Frames per second of a format and size, fastest first, as (frames, seconds); of a range its ends.
    #[expect(unsafe_code, reason = "a union of the kernel")]
    pub fn rates(&self, fourcc: [u8; 4], (width, height): (u32, u32)) -> Vec<(u32, u32)> {
        let mut rates = Vec::new();
        for index in 0..RATES_MAX {
            let mut rate = sys::v4l2_frmivalenum { index, pixel_format: u32::from_le_bytes(fourcc), width, height, ..zeroed() };
            if self.ask(vidioc::VIDIOC_ENUM_FRAMEINTERVALS, &mut rate).is_err() {
                break;
            }
            // SAFETY: both readings of the union are of plain integers, all of which are initialised.
            let (one, range) = unsafe { (rate.__bindgen_anon_1.discrete, rate.__bindgen_anon_1.stepwise) };
            if rate.type_ == sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
                rates.push((one.denominator, one.numerator));
                continue;
            }
            rates.extend([(range.min.denominator, range.min.numerator), (range.max.denominator, range.max.numerator)]);
            break;
        }
        rates.retain(|(frames, seconds)| *frames > 0 && *seconds > 0);
        rates
    }
}

/// A struct of the kernel, all zero, to be filled in.
#[expect(unsafe_code, reason = "the kernel's structs have no other way to begin")]
pub fn zeroed<T: Kernel>() -> T {
    // SAFETY: `Kernel` is for structs of integers, raw pointers and unions of such: all zero is a value of each.
    unsafe { std::mem::zeroed() }
}

/// The kernel's structs that are used here.
pub trait Kernel {}
macro_rules! kernel {
    ($($name:ident)*) => { $(impl Kernel for sys::$name {})* };
}
kernel! {
    v4l2_capability v4l2_fmtdesc v4l2_frmsizeenum v4l2_frmivalenum v4l2_format v4l2_streamparm v4l2_requestbuffers v4l2_buffer v4l2_plane
    v4l2_queryctrl v4l2_querymenu v4l2_control
}

pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Four characters, such as `MJPG`, as they may be shown. The highest bit marks a format of big-endian words.
pub fn fourcc(of: [u8; 4]) -> String {
    let [a, b, c, d] = of;
    let suffix = if d & 0x80 != 0 { "-BE" } else { "" };
    format!("{}{suffix}", text(&[a, b, c, d & 0x7f]).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_writes_as_text_is_shown_whatever_it_is() {
        assert_eq!(text(b"Caf\xc3\0junk"), "Caf\u{fffd}");
        assert_eq!(text(b"\x1b[2Jx\0"), "?[2Jx");
        assert_eq!((fourcc(*b"MJPG"), fourcc(*b"Y16 "), fourcc(*b"Y16\xa0")), ("MJPG".into(), "Y16".into(), "Y16-BE".into()));
    }

    #[test]
    fn a_file_is_opened_and_said_to_be_no_video_node() {
        let device = Device::open(Path::new("/dev/null")).unwrap();
        let error = device.capability().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "{error}");
        assert!(device.offers(1).unwrap().is_empty() && device.rates(*b"MJPG", (640, 480)).is_empty());
    }

    #[test]
    fn a_range_of_sizes_holds_its_steps_and_no_other() {
        let range = Size { min: (2, 1), max: (1920, 1080), step: (2, 1) };
        assert!(range.holds((640, 481)) && range.holds((1920, 1080)) && !range.holds((641, 480)) && !range.holds((1922, 1080)));
        assert!(Size::one(640, 480).holds((640, 480)) && !Size::one(640, 480).holds((640, 481)));
        assert_eq!((range.to_string(), Size::one(4, 2).to_string()), ("2x1 to 1920x1080 in steps of 2x1".into(), "4x2".into()));
    }
}
