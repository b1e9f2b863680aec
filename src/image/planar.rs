//! Raw frames of cameras to the encoder's planes: one pass, row by row, never over RGB.
//!
//! **Levels.** A JPEG means full levels (0 to 255). YUV of video devices is coded in studio levels (luma 16 to 235, chroma 16 to 240)
//! unless the driver says otherwise, and stored as it is it would look washed out: black at 16, white at 235. So studio levels are
//! stretched here, and the caller says which they are, from what the driver answered ([`Range::of`]). Peers differ: ffmpeg stretches, fswebcam
//! and ustreamer take the numbers as they come.
//!
//! **Speed.** Every plane is "each n-th byte of a row", written as an iterator of known length that the compiler turns into vector code;
//! stretching is 16-bit arithmetic, not a table, because a table cannot be vectorised.

use crate::image::frame::{Sampling, Yuv};
use crate::image::jpeg::ImageError;

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
        Range::Full => frame.planes(|level| level, |level| level),
        Range::Limited => frame.planes(full_luma, full_chroma),
    })
}

/// Stretches studio levels of planes that are there already.
pub fn stretch(yuv: &mut Yuv) {
    yuv.y.iter_mut().for_each(|level| *level = full_luma(*level));
    yuv.u.iter_mut().chain(&mut yuv.v).for_each(|level| *level = full_chroma(*level));
}

/// 16 to 235 becomes 0 to 255. The factor is 255/219 in 1/256; with both ends clamped nothing leaves 16 bits, and no level is more
/// than 0.55 off.
#[inline(always)]
fn full_luma(level: u8) -> u8 {
    let over = u16::from(level.saturating_sub(16)).min(219);
    ((over * 298 + 137) >> 8) as u8
}

/// 16 to 240 becomes 0 to 255, and 128, no colour, stays exactly that.
#[inline(always)]
fn full_chroma(level: u8) -> u8 {
    let over = u16::from(level.saturating_sub(16)).min(224);
    ((over * 291 + 255) >> 8) as u8
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

impl Rows<'_> {
    /// Byte `AT` of each `STEP`, `count` of each row.
    fn each<const STEP: usize, const AT: usize>(self, count: usize, rows: usize, level: impl Fn(u8) -> u8 + Copy) -> Vec<u8> {
        let mut out = Vec::with_capacity(count * rows);
        for row in self.bytes.chunks(self.stride) {
            let (groups, _) = row[..self.row].as_chunks::<STEP>();
            out.extend(groups[..count].iter().map(|group| level(group[AT])));
        }
        out
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
    fn planes(&self, luma: impl Fn(u8) -> u8 + Copy, chroma: impl Fn(u8) -> u8 + Copy) -> Yuv {
        let (w, h) = (self.width, self.height);
        let [first, second, third] = self.planes;
        let sampling = match self.layout {
            Layout::Yuyv | Layout::Uyvy => Sampling::Yuv422,
            Layout::Nv12 | Layout::Yu12 => Sampling::Yuv420,
            Layout::Grey => Sampling::Gray,
        };
        let (cw, ch) = sampling.chroma(w, h);
        let (y, u, v) = match self.layout {
            Layout::Yuyv => (first.each::<2, 0>(w, h, luma), first.each::<4, 1>(cw, ch, chroma), first.each::<4, 3>(cw, ch, chroma)),
            Layout::Uyvy => (first.each::<2, 1>(w, h, luma), first.each::<4, 0>(cw, ch, chroma), first.each::<4, 2>(cw, ch, chroma)),
            Layout::Nv12 => (first.each::<1, 0>(w, h, luma), second.each::<2, 0>(cw, ch, chroma), second.each::<2, 1>(cw, ch, chroma)),
            Layout::Yu12 => (first.each::<1, 0>(w, h, luma), second.each::<1, 0>(cw, ch, chroma), third.each::<1, 0>(cw, ch, chroma)),
            Layout::Grey => (first.each::<1, 0>(w, h, luma), Vec::new(), Vec::new()),
        };
        Yuv { y, u, v, sampling }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn studio_levels_become_full_levels() {
        let data = [16, 128, 235, 240, 126, 16, 255, 128];
        let yuv = planar(*b"YUYV", &data, 2, 2, 0, Range::Limited).unwrap();
        assert_eq!((yuv.y, yuv.u, yuv.v), (vec![0, 255, 128, 255], vec![128, 0], vec![255, 128]));
    }
}
