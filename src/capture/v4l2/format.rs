//! Which format, size and rate a camera is told to give, and what it then really gives.
//!
//! The camera's own JPEG comes first: it is stored as it is. Else the raw formats that the encoder takes, in its order. Of sizes the
//! largest within `max_pixels`, unless one is configured. What is configured and cannot be had is refused, with what can be had.

use super::device::{Capability, Device, Offer, fourcc, zeroed};
use crate::config::settings::Video;
use crate::image::planar::{self, Range};
use std::io;
use v4l::{v4l_sys as sys, v4l2::vidioc};

/// Formats passed through as they come.
pub const JPEGS: [[u8; 4]; 2] = [*b"MJPG", *b"JPEG"];
/// A raw Bayer sensor behind its own ports: nothing that we could make a picture of.
const WAY_OUT: &str = "for a CSI camera use a command: source with rpicam-still, which runs its image processor";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub fourcc: [u8; 4],
    pub width: u32,
    pub height: u32,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}x{}", fourcc(self.fourcc), self.width, self.height)
    }
}

/// What the driver agreed to.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    pub choice: Choice,
    /// Bytes from row to row of the first plane.
    pub stride: u32,
    pub range: Range,
}

impl Mode {
    pub fn is_jpeg(&self) -> bool {
        JPEGS.contains(&self.choice.fourcc)
    }
}

/// Whether pictures can be made of a format.
pub fn usable(fourcc: [u8; 4]) -> bool {
    known().any(|known| known == fourcc)
}

/// Best first.
fn known() -> impl Iterator<Item = [u8; 4]> {
    JPEGS.into_iter().chain(planar::FORMATS.iter().copied())
}

/// Picks among what the device offers.
/// # Errors
/// What it cannot, and what it can.
pub fn choose(offers: &[Offer], video: &Video, pixels_max: u64) -> Result<Choice, String> {
    let of = |code: [u8; 4]| offers.iter().filter(move |offer| offer.fourcc == code);
    let listed = |offers: &mut dyn Iterator<Item = &Offer>| offers.map(|offer| fourcc(offer.fourcc)).collect::<Vec<_>>().join(", ");
    if !offers.iter().any(|offer| usable(offer.fourcc)) {
        let given = listed(&mut offers.iter());
        return Err(match offers.is_empty() {
            true => format!("the device offers no format at all; {WAY_OUT}"),
            false => format!("the device gives only {given}, of which no picture can be made here; {WAY_OUT}"),
        });
    }
    let wanted: Vec<_> = known().filter(|code| video.format.is_none_or(|only| only == *code)).collect();
    let candidates: Vec<&Offer> = wanted.iter().flat_map(|code| of(*code)).collect();
    if let (Some(only), true) = (video.format, candidates.is_empty()) {
        let given = listed(&mut offers.iter().filter(|offer| usable(offer.fourcc)));
        return Err(format!("the device does not give {}; set format to one of {given}", fourcc(only)));
    }
    let found = candidates.iter().find_map(|offer| {
        let (width, height) = match video.size {
            Some(size) => (offer.sizes.is_empty() || offer.sizes.iter().any(|range| range.holds(size))).then_some(size)?,
            None => largest(offer, pixels_max)?,
        };
        Some(Choice { fourcc: offer.fourcc, width, height })
    });
    found.ok_or_else(|| {
        let one = |offer: &&Offer| {
            format!("{}: {}", fourcc(offer.fourcc), offer.sizes.iter().map(|size| size.to_string()).collect::<Vec<_>>().join(" "))
        };
        let can = candidates.iter().map(one).collect::<Vec<_>>().join("; ");
        match video.size {
            Some((width, height)) => format!("the device does not give pictures of {width}x{height}; set size to one that it has ({can})"),
            None => format!("every size of the device is over max_pixels = {pixels_max}; raise it ({can})"),
        }
    })
}

/// The largest size within the limit; 0x0, which lets the driver choose, where it lists none.
fn largest(offer: &Offer, pixels_max: u64) -> Option<(u32, u32)> {
    let fits = |&(width, height): &(u32, u32)| u64::from(width) * u64::from(height) <= pixels_max;
    if offer.sizes.is_empty() {
        return Some((0, 0));
    }
    offer
        .sizes
        .iter()
        .flat_map(|size| [size.max, size.min])
        .filter(fits)
        .max_by_key(|(width, height)| u64::from(*width) * u64::from(*height))
}

/// Why a device cannot be told what it should give.
#[derive(Debug)]
pub enum Refused {
    /// It gives something else; the text says what.
    Other(String),
    Kernel(io::Error),
}
impl From<io::Error> for Refused {
    fn from(cause: io::Error) -> Self {
        Self::Kernel(cause)
    }
}

/// Sets format and size, and looks at what the driver made of it.
/// # Errors
/// The driver refuses, or gives another format or size.
#[expect(unsafe_code, reason = "a union of the kernel")]
pub fn set(device: &Device, caps: &Capability, choice: Choice) -> Result<Mode, Refused> {
    let mut format = sys::v4l2_format { type_: caps.buffers(), ..zeroed() };
    // What else there is to a format (field order, colours) stays as the driver has it.
    device.ask(vidioc::VIDIOC_G_FMT, &mut format)?;
    let code = u32::from_le_bytes(choice.fourcc);
    // SAFETY: which of the two readings holds is told by the kind of the buffers, and both are of plain integers.
    let (got, sizes, stride, planes, range) = unsafe {
        let keep = |asked: u32, had: u32| if asked == 0 { had } else { asked };
        if caps.multi_planar() {
            let pix = &mut format.fmt.pix_mp;
            (pix.width, pix.height) = (keep(choice.width, pix.width), keep(choice.height, pix.height));
            (pix.pixelformat, pix.num_planes) = (code, 1);
            (pix.plane_fmt[0].bytesperline, pix.plane_fmt[0].sizeimage) = (0, 0);
            device.ask(vidioc::VIDIOC_S_FMT, &mut format)?;
            let pix = format.fmt.pix_mp;
            let range = Range::of(pix.quantization.into(), pix.colorspace);
            (pix.pixelformat, (pix.width, pix.height), pix.plane_fmt[0].bytesperline, pix.num_planes, range)
        } else {
            let pix = &mut format.fmt.pix;
            (pix.width, pix.height) = (keep(choice.width, pix.width), keep(choice.height, pix.height));
            (pix.pixelformat, pix.bytesperline, pix.sizeimage) = (code, 0, 0);
            device.ask(vidioc::VIDIOC_S_FMT, &mut format)?;
            let pix = format.fmt.pix;
            (pix.pixelformat, (pix.width, pix.height), pix.bytesperline, 1, Range::of(pix.quantization, pix.colorspace))
        }
    };
    let given = Choice { fourcc: got.to_le_bytes(), width: sizes.0, height: sizes.1 };
    let as_asked = given.fourcc == choice.fourcc && (choice.width == 0 || sizes == (choice.width, choice.height));
    if !as_asked || sizes.0 == 0 || sizes.1 == 0 {
        return Err(Refused::Other(format!("asked for {choice} the device gives {given}; set format and size to what it can")));
    }
    if planes != 1 {
        return Err(Refused::Other(format!("the device splits {given} over {planes} buffers, which is not supported; {WAY_OUT}")));
    }
    Ok(Mode { choice: given, stride, range })
}

/// Sets the rate if one is wanted. Returns how long a frame takes, as far as the driver tells.
/// # Errors
/// The device has another rate; says which it can.
#[expect(unsafe_code, reason = "a union of the kernel")]
pub fn pace(device: &Device, caps: &Capability, mode: &Mode, rate: Option<u32>) -> Result<Option<u64>, Refused> {
    let mut parm = sys::v4l2_streamparm { type_: caps.buffers(), ..zeroed() };
    let asked = device.ask(vidioc::VIDIOC_G_PARM, &mut parm);
    // SAFETY: for kinds of capture the kernel fills this reading, of plain integers.
    let can = unsafe { parm.parm.capture.capability } & sys::V4L2_CAP_TIMEPERFRAME != 0;
    if let Some(rate) = rate {
        if asked.is_ok() && can {
            parm.parm.capture.timeperframe = sys::v4l2_fract { numerator: 1, denominator: rate };
            device.ask(vidioc::VIDIOC_S_PARM, &mut parm)?;
        }
        // SAFETY: as above.
        let got = unsafe { parm.parm.capture.timeperframe };
        // Intervals are rounded to the camera's units of 100 ns.
        let near = |a: u64, b: u64| a.abs_diff(b) * 100 <= a.max(b);
        if asked.is_err() || !can || !near(u64::from(got.denominator), u64::from(rate) * u64::from(got.numerator)) {
            let choice = mode.choice;
            let mut can: Vec<_> = device.rates(choice.fourcc, (choice.width, choice.height)).into_iter().map(rate_in_words).collect();
            can.dedup();
            let advice = if can.is_empty() { "leave rate out".to_owned() } else { format!("set rate to one of {}", can.join(", ")) };
            return Err(Refused::Other(format!("the device does not give {rate} frames a second as {choice}; {advice}")));
        }
    }
    // SAFETY: as above.
    let period = unsafe { parm.parm.capture.timeperframe };
    let known = asked.is_ok() && period.numerator > 0 && period.denominator > 0;
    Ok(known.then(|| u64::from(period.numerator) * 1_000 / u64::from(period.denominator)))
}

/// `30`, or `7.5`.
pub fn rate_in_words((frames, seconds): (u32, u32)) -> String {
    let rate = f64::from(frames) / f64::from(seconds.max(1));
    if (rate - rate.round()).abs() < 0.05 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

#[cfg(test)]
mod tests {
    use super::super::device::Size;
    use super::*;

    fn offer(code: &[u8; 4], sizes: &[(u32, u32)]) -> Offer {
        let sizes = sizes.iter().map(|&(width, height)| Size::one(width, height)).collect();
        Offer { fourcc: *code, description: String::new(), sizes }
    }
    fn usual() -> Vec<Offer> {
        vec![
            offer(b"H264", &[(1920, 1080)]),
            offer(b"NV12", &[(640, 480)]),
            offer(b"YUYV", &[(640, 480), (1920, 1080)]),
            offer(b"MJPG", &[(640, 480), (1280, 720), (320, 240)]),
        ]
    }
    const ANY: u64 = 33_177_600;

    #[test]
    fn the_cameras_own_jpeg_comes_first_at_its_largest_size_then_raw_formats_in_the_encoders_order() {
        let chosen = |offers: &[Offer], video: Video, limit| choose(offers, &video, limit).unwrap().to_string();
        assert_eq!(chosen(&usual(), Video::default(), ANY), "MJPG 1280x720");
        assert_eq!(chosen(&usual(), Video::default(), 640 * 480), "MJPG 640x480");
        assert_eq!(chosen(&usual()[..3], Video::default(), ANY), "YUYV 1920x1080");
        assert_eq!(chosen(&usual()[..2], Video::default(), ANY), "NV12 640x480");
        let size = Video { size: Some((1920, 1080)), ..Video::default() };
        assert_eq!(chosen(&usual(), size, ANY), "YUYV 1920x1080", "only raw has this size");
        let format = Video { format: Some(*b"NV12"), ..Video::default() };
        assert_eq!(chosen(&usual(), format, ANY), "NV12 640x480");
        let range = Offer { sizes: vec![Size { min: (2, 2), max: (4096, 2160), step: (2, 2) }], ..offer(b"YUYV", &[]) };
        assert_eq!(chosen(&[range], Video { size: Some((800, 600)), ..Video::default() }, ANY), "YUYV 800x600");
        assert_eq!(chosen(&[offer(b"GREY", &[])], Video::default(), ANY), "GREY 0x0", "the driver's own size");
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_what_can() {
        let refused = |offers: &[Offer], video: Video, limit| choose(offers, &video, limit).unwrap_err();
        let size = Video { size: Some((800, 600)), ..Video::default() };
        assert_eq!(
            refused(&usual()[1..], size, ANY),
            "the device does not give pictures of 800x600; set size to one that it has (MJPG: 640x480 1280x720 320x240; YUYV: 640x480 1920x1080; NV12: 640x480)"
        );
        let format = Video { format: Some(*b"GREY"), ..Video::default() };
        assert_eq!(refused(&usual(), format, ANY), "the device does not give GREY; set format to one of NV12, YUYV, MJPG");
        assert!(refused(&usual(), Video::default(), 100).contains("over max_pixels = 100; raise it"));
        let bayer = refused(&[offer(b"pBAA", &[(640, 480)])], Video::default(), ANY);
        assert!(bayer.contains("gives only pBAA") && bayer.contains("rpicam-still"), "{bayer}");
        assert!(refused(&[], Video::default(), ANY).contains("no format at all"));
        let hostile = refused(&[offer(b"\x1b[2J", &[])], Video::default(), ANY);
        assert!(!hostile.contains('\x1b'), "{hostile:?}");
    }

    #[test]
    fn rates_read_as_people_say_them() {
        assert_eq!([(30, 1), (30_000, 1_001), (15, 2), (5, 1)].map(rate_in_words), ["30", "30", "7.5", "5"]);
    }
}
