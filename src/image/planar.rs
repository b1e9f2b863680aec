//! Raw frames of cameras to the encoder's planes: one pass, row by row, never over RGB.
//!
//! **Levels.** A JPEG means full levels (0 to 255). YUV of video devices is coded in studio levels (luma 16 to 235, chroma 16 to 240)
//! unless the driver says otherwise, and stored as it is it would look washed out: black at 16, white at 235. So studio levels are
//! stretched here, and the caller says which they are, from what the driver answered ([`Range::of`]). Peers differ: ffmpeg stretches, fswebcam
//! and ustreamer take the numbers as they come.

use crate::image::frame::{Sampling, Yuv};
use crate::image::jpeg::ImageError;
use shutterd_rows::{Level, Of, add, change};

/// What [`planar`] understands, the best first: more chroma before less, chroma before none, and of equals the cheaper one.
pub const FORMATS: &[[u8; 4]] = &[*b"YUYV", *b"UYVY", *b"YU12", *b"NV12", *b"GREY"];

/// The levels a camera codes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// 0 to 255, as in a JPEG.
    Full,
    /// Studio levels: luma 16 to 235, chroma 16 to 240.
    Limited,
}

impl Range {
    /// From `quantization` and `colorspace` as VIDIOC_G_FMT answers them. The default is the kernel's own
    /// (`V4L2_MAP_QUANTIZATION_DEFAULT`): limited for YUV, full where the colour space is JPEG's.
    pub fn of(quantization: u32, colorspace: u32) -> Self {
        const FULL_RANGE: u32 = 1;
        const LIM_RANGE: u32 = 2;
        const COLORSPACE_JPEG: u32 = 7;
        match quantization {
            FULL_RANGE => Self::Full,
            LIM_RANGE => Self::Limited,
            _ if colorspace == COLORSPACE_JPEG => Self::Full,
            _ => Self::Limited,
        }
    }
}

/// One raw frame as planes without gaps, in full levels.
///
/// `stride` is `bytesperline` of the first plane, 0 where rows have no gaps. Bytes after the last row are ignored: drivers round
/// their buffers up.
/// # Errors
/// A format that is not in [`FORMATS`], no pixels, rows longer than the stride, or fewer bytes than the picture needs.
pub fn planar(format: [u8; 4], data: &[u8], width: u32, height: u32, stride: u32, range: Range) -> Result<Yuv, ImageError> {
    let refuse = |cause: String| ImageError::Raw { format: format.escape_ascii().to_string(), width, height, cause };
    let layout = Layout::of(format).ok_or_else(|| refuse("an unknown format".into()))?;
    if width == 0 || height == 0 {
        return Err(refuse("it has no pixels".into()));
    }
    let frame = layout.cut(data, width as usize, height as usize, stride as usize).map_err(refuse)?;
    Ok(match range {
        Range::Full => frame.planes(Level::Same, Level::Same),
        Range::Limited => frame.planes(Level::Luma, Level::Chroma),
    })
}

/// Stretches studio levels of planes that are there already.
pub fn stretch(yuv: &mut Yuv) {
    change(&mut yuv.y, Level::Luma);
    change(&mut yuv.u, Level::Chroma);
    change(&mut yuv.v, Level::Chroma);
}

#[derive(Debug, Clone, Copy)]
enum Layout {
    Yuyv,
    Uyvy,
    Nv12,
    Yu12,
    Grey,
}

impl Layout {
    fn of(format: [u8; 4]) -> Option<Self> {
        Some(match &format {
            b"YUYV" => Self::Yuyv,
            b"UYVY" => Self::Uyvy,
            b"NV12" => Self::Nv12,
            b"YU12" => Self::Yu12,
            b"GREY" => Self::Grey,
            _ => return None,
        })
    }

    /// The frame's planes within `data`, as rows that are known to be there.
    fn cut(self, data: &[u8], width: usize, height: usize, stride: usize) -> Result<Raw<'_>, String> {
        let pairs = width.div_ceil(2);
        let row = match self {
            // Two pixels share their chroma, so an odd row ends with a whole pair.
            Self::Yuyv | Self::Uyvy => pairs.checked_mul(4),
            Self::Nv12 | Self::Yu12 | Self::Grey => Some(width),
        }
        .ok_or("rows longer than memory")?;
        let stride = if stride == 0 { row } else { stride };
        if stride < row {
            return Err(format!("its rows are {row} bytes, but the driver says {stride}"));
        }
        let half = height.div_ceil(2);
        // Of each further plane: length of a row, from row to row (as V4L2 lays out planes in one buffer), rows.
        let (chroma, planes) = match self {
            Self::Yuyv | Self::Uyvy | Self::Grey => ((0, 0, 0), 0),
            Self::Nv12 => ((pairs * 2, stride.next_multiple_of(2), half), 1),
            Self::Yu12 => ((pairs, stride.div_ceil(2), half), 2),
        };
        let mut rest = data;
        let mut needed = Some(0usize);
        let mut found = [Rows { bytes: &[], row: 0, stride: 1 }; 3];
        let shapes = [(row, stride, height), chroma, chroma];
        for (index, &(row, stride, rows)) in shapes.iter().enumerate().take(1 + planes) {
            // The gap after a plane's last row is not needed where nothing follows it.
            let bytes = stride.checked_mul(rows - 1).and_then(|b| b.checked_add(row));
            let step = if index == planes { bytes } else { stride.checked_mul(rows) };
            needed = needed.zip(step).and_then(|(sum, step)| sum.checked_add(step));
            let plane = bytes.and_then(|bytes| rest.get(..bytes)).unwrap_or_default();
            found[index] = Rows { bytes: plane, row, stride };
            rest = step.and_then(|step| rest.get(step..)).unwrap_or_default();
        }
        let needed = needed.ok_or("more bytes than memory")?;
        if data.len() < needed {
            return Err(format!("{} bytes came, {needed} are needed", data.len()));
        }
        Ok(Raw { layout: self, width, height, planes: found })
    }
}

/// One plane as it lies in a buffer.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    row: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.stride).map(move |row| &row[..self.row])
    }
}

/// A frame whose bytes are all there.
struct Raw<'a> {
    layout: Layout,
    width: usize,
    height: usize,
    planes: [Rows<'a>; 3],
}

impl Raw<'_> {
    /// Row by row for all planes that share its bytes, so that each row comes from memory once.
    fn planes(&self, luma: Level, chroma: Level) -> Yuv {
        let sampling = match self.layout {
            Layout::Yuyv | Layout::Uyvy => Sampling::Yuv422,
            Layout::Nv12 | Layout::Yu12 => Sampling::Yuv420,
            Layout::Grey => Sampling::Gray,
        };
        let w = self.width;
        let (cw, ch) = sampling.chroma(w, self.height);
        let (mut y, mut u, mut v) = (Vec::with_capacity(w * self.height), Vec::with_capacity(cw * ch), Vec::with_capacity(cw * ch));
        let [first, second, third] = self.planes;
        for row in first.iter() {
            match self.layout {
                Layout::Yuyv => {
                    add(&mut y, row, Of::Two(0), w, luma);
                    add(&mut u, row, Of::Four(1), cw, chroma);
                    add(&mut v, row, Of::Four(3), cw, chroma);
                }
                Layout::Uyvy => {
                    add(&mut y, row, Of::Two(1), w, luma);
                    add(&mut u, row, Of::Four(0), cw, chroma);
                    add(&mut v, row, Of::Four(2), cw, chroma);
                }
                Layout::Nv12 | Layout::Yu12 | Layout::Grey => add(&mut y, row, Of::All, w, luma),
            }
        }
        match self.layout {
            Layout::Nv12 => second.iter().for_each(|row| {
                add(&mut u, row, Of::Two(0), cw, chroma);
                add(&mut v, row, Of::Two(1), cw, chroma);
            }),
            Layout::Yu12 => {
                second.iter().for_each(|row| add(&mut u, row, Of::All, cw, chroma));
                third.iter().for_each(|row| add(&mut v, row, Of::All, cw, chroma));
            }
            Layout::Yuyv | Layout::Uyvy | Layout::Grey => {}
        }
        Yuv { y, u, v, sampling }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where the formats' pages in the kernel's documentation put a pixel's bytes: luma, U, V.
    fn at(format: [u8; 4], x: usize, y: usize, stride: usize, height: usize) -> [Option<usize>; 3] {
        let (pair, line) = (x / 2 * 4, y * stride);
        match &format {
            b"YUYV" => [Some(line + x * 2), Some(line + pair + 1), Some(line + pair + 3)],
            b"UYVY" => [Some(line + x * 2 + 1), Some(line + pair), Some(line + pair + 2)],
            b"NV12" => {
                let u = stride * height + y / 2 * stride.next_multiple_of(2) + x / 2 * 2;
                [Some(line + x), Some(u), Some(u + 1)]
            }
            b"YU12" => {
                let (chroma, half) = (stride.div_ceil(2), height.div_ceil(2));
                let u = stride * height + y / 2 * chroma + x / 2;
                [Some(line + x), Some(u), Some(u + chroma * half)]
            }
            _ => [Some(line + x), None, None],
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    /// How many bytes a frame needs, as its own complaint says.
    fn needed(format: [u8; 4], width: u32, height: u32, stride: u32) -> usize {
        let complaint = planar(format, &[], width, height, stride, Range::Full).unwrap_err().to_string();
        let number = complaint.split_once(" bytes came, ").and_then(|(_, rest)| rest.split(' ').next()).map(str::parse);
        number.unwrap_or_else(|| panic!("{complaint}")).unwrap()
    }

    proptest! {
        #[test]
        fn every_pixel_of_every_format_lands_where_it_belongs(
            format in prop::sample::select(FORMATS), width in 1u32..40, height in 1u32..20, gap in 0u32..20, tight in any::<bool>(),
        ) {
            let (w, h) = (width as usize, height as usize);
            let row = if matches!(&format, b"YUYV" | b"UYVY") { width.div_ceil(2) * 4 } else { width };
            let stride = row + if tight { 0 } else { gap };
            let len = needed(format, width, height, stride);
            let data = noise(len);
            let yuv = planar(format, &data, width, height, if tight { 0 } else { stride }, Range::Full).unwrap();
            prop_assert!(yuv.fits(width, height));
            let (cw, ch) = yuv.sampling.chroma(w, h);
            for y in 0..h {
                for x in 0..w {
                    let [luma, u, v] = at(format, x, y, stride as usize, h).map(|at| at.map(|at| data[at]));
                    prop_assert_eq!(luma, Some(yuv.y[y * w + x]));
                    if cw > 0 {
                        let chroma = y * ch / h * cw + x / 2;
                        let chroma = if yuv.sampling == Sampling::Yuv420 { y / 2 * cw + x / 2 } else { chroma };
                        prop_assert_eq!((u, v), (Some(yuv.u[chroma]), Some(yuv.v[chroma])));
                    }
                }
            }
            // One byte less is too few, and the complaint says both numbers.
            let short = planar(format, &data[..len - 1], width, height, stride, Range::Full).unwrap_err().to_string();
            prop_assert!(short.contains(&format!("{} bytes came, {len} are needed", len - 1)), "{}", short);
        }

        #[test]
        fn no_size_or_stride_panics_or_makes_memory_of_nothing(
            format in prop::sample::select(FORMATS), width: u32, height: u32, stride: u32, small in any::<[bool; 3]>(),
            data in prop::collection::vec(any::<u8>(), 0..4096),
        ) {
            let [width, height, stride] = [(width, 0), (height, 1), (stride, 2)].map(|(n, i)| if small[i] { n % 70 } else { n });
            if let Ok(yuv) = planar(format, &data, width, height, stride, Range::Limited) {
                prop_assert!(yuv.fits(width, height) && yuv.y.len() <= data.len());
            }
        }
    }

    #[test]
    fn what_cannot_be_a_frame_is_refused_with_its_reason() {
        let says = |format: &[u8; 4], width, height, stride| {
            planar(*format, &[0; 64], width, height, stride, Range::Full).unwrap_err().to_string()
        };
        assert_eq!(says(b"H264", 4, 4, 0), "no picture in H264 of 4x4: an unknown format");
        assert_eq!(says(b"GREY", 0, 4, 0), "no picture in GREY of 0x4: it has no pixels");
        assert_eq!(says(b"YUYV", 4, 4, 7), "no picture in YUYV of 4x4: its rows are 8 bytes, but the driver says 7");
        assert_eq!(says(b"YUYV", 640, 480, 0), "no picture in YUYV of 640x480: 64 bytes came, 614400 are needed");
        assert!(says(b"\0\n\xff ", 4, 4, 0).is_ascii());
    }

    #[test]
    fn studio_levels_become_full_levels() {
        let data = [16, 128, 235, 240, 126, 16, 255, 128];
        let yuv = planar(*b"YUYV", &data, 2, 2, 0, Range::Limited).unwrap();
        assert_eq!((yuv.y, yuv.u, yuv.v), (vec![0, 255, 128, 255], vec![128, 0], vec![255, 128]));
        let mut there = Yuv { y: vec![0, 16, 126, 235, 255], u: vec![16, 128, 240], v: vec![128], sampling: Sampling::Yuv420 };
        stretch(&mut there);
        assert_eq!((there.y, there.u, there.v), (vec![0, 0, 128, 255, 255], vec![0, 128, 255], vec![128]));
        let codes: Vec<u8> = (0..=255).collect();
        let mut all = Yuv { y: codes.clone(), u: codes.clone(), v: codes, sampling: Sampling::Yuv422 };
        stretch(&mut all);
        for code in 0..=255u8 {
            let luma = ((f64::from(code) - 16.0) * 255.0 / 219.0).clamp(0.0, 255.0);
            let chroma = ((f64::from(code) - 128.0) * 255.0 / 224.0 + 128.0).clamp(0.0, 255.0);
            assert!((f64::from(all.y[usize::from(code)]) - luma).abs() < 0.55, "luma {code}");
            assert!((f64::from(all.u[usize::from(code)]) - chroma).abs() < 0.85, "chroma {code}");
        }
        assert_eq!(all.u[128], 128, "no colour stays no colour");
    }

    #[test]
    fn levels_are_the_drivers_word_and_else_the_kernels_default() {
        const SRGB: u32 = 8;
        const JPEG: u32 = 7;
        let of = |quantization, colorspace| Range::of(quantization, colorspace) == Range::Full;
        assert_eq!([of(0, SRGB), of(0, JPEG), of(1, SRGB), of(2, JPEG), of(99, 0)], [false, true, true, false, false]);
    }
}
