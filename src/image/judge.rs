//! The honesty gate: nothing becomes a snapshot that is not a whole picture taken when it was asked for.
//!
//! Refused: a picture from before the instant asked for (a driver's or camera's old buffer), one without pixels or over the
//! limit, planes of another size, a JPEG that is cut or corrupt or of another size than the source says. Such a slot
//! fails with a reason instead of keeping a picture that lies.
//!
//! Stored with a remark: `flat`, where nothing can be seen at all (lens cap, night without light, a decoder's grey). It may be the
//! truth, so it is no reason to refuse.
//!
//! Lateness is no flag of this gate: the record holds both the slot's and the picture's instant.

use crate::image::frame::{Frame, FrameData, Sampling};
use crate::image::jpeg::{self, ImageError};

/// Largest difference between the darkest and the brightest spot of a picture in which nothing can be seen.
const FLAT_SPREAD: u8 = 3;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// CLOCK_BOOTTIME milliseconds before which no picture counts.
    pub not_before_ms: u64,
    pub pixels_max: u64,
}

/// What the record says of a picture that passed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    pub flags: Vec<&'static str>,
}

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the picture is {old_ms} ms older than the request")]
    Stale { old_ms: u64 },
    #[error("the picture has no pixels")]
    Empty,
    #[error("the picture has {pixels} pixels, over the limit of {limit}; raise max_pixels if it is right")]
    TooLarge { pixels: u64, limit: u64 },
    #[error("the picture is damaged: {cause}")]
    Damaged { cause: String },
}

impl Refusal {
    /// Stable code for ledger, hub and scripts; the same words as a capture error of that kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stale { .. } => "stale",
            Self::TooLarge { .. } => "too_large",
            Self::Empty | Self::Damaged { .. } => "damaged",
        }
    }
}

/// # Errors
/// Why the picture must not be stored.
pub fn judge(frame: &Frame, limits: Limits) -> Result<Verdict, Refusal> {
    if frame.taken_ms < limits.not_before_ms {
        return Err(Refusal::Stale { old_ms: limits.not_before_ms - frame.taken_ms });
    }
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    if pixels == 0 {
        return Err(Refusal::Empty);
    }
    if pixels > limits.pixels_max {
        return Err(Refusal::TooLarge { pixels, limit: limits.pixels_max });
    }
    let flat = match &frame.data {
        FrameData::Jpeg(jpeg) => {
            let (small, width, height) = jpeg::thumbnail_gray(jpeg, limits.pixels_max).map_err(refusal)?;
            if (width, height) != (frame.width.div_ceil(8), frame.height.div_ceil(8)) {
                return Err(Refusal::Damaged { cause: "its header states another size than the camera".into() });
            }
            is_flat(&small)
        }
        FrameData::Yuv(yuv) => {
            if !yuv.fits(frame.width, frame.height) {
                return Err(Refusal::Damaged { cause: format!("its planes are not those of {}x{}", frame.width, frame.height) });
            }
            is_flat(&yuv.y) && (yuv.sampling == Sampling::Gray || is_flat(&yuv.u) && is_flat(&yuv.v))
        }
    };
    Ok(Verdict { flags: if flat { vec!["flat"] } else { Vec::new() } })
}

fn is_flat(plane: &[u8]) -> bool {
    shutterd_rows::spread(plane) <= FLAT_SPREAD
}

fn refusal(error: ImageError) -> Refusal {
    match error {
        ImageError::TooLarge { pixels, limit } => Refusal::TooLarge { pixels, limit },
        other => Refusal::Damaged { cause: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::frame::Yuv;

    const LIMITS: Limits = Limits { not_before_ms: 1_000, pixels_max: 1 << 20 };

    fn frame(bright: u8) -> Frame {
        let mut y = vec![16; 64 * 48];
        y[100] = bright;
        let yuv = Yuv { y, u: vec![128; 32 * 24], v: vec![128; 32 * 24], sampling: Sampling::Yuv420 };
        Frame { data: FrameData::Yuv(yuv), width: 64, height: 48, taken_ms: 1_000 }
    }
    fn as_jpeg(mut frame: Frame) -> Frame {
        if let FrameData::Yuv(yuv) = &frame.data {
            frame.data = FrameData::Jpeg(jpeg::encode(yuv, frame.width, frame.height, 85).unwrap());
        }
        frame
    }

    #[test]
    fn an_old_buffer_is_not_the_picture_asked_for() {
        let old = Frame { taken_ms: 999, ..frame(200) };
        assert_eq!(judge(&old, LIMITS).unwrap_err().code(), "stale");
        assert_eq!(judge(&frame(200), LIMITS).unwrap(), Verdict::default());
    }

    #[test]
    fn what_is_no_whole_picture_is_refused() {
        let code = |f: Frame| judge(&f, LIMITS).unwrap_err().code();
        assert_eq!(code(Frame { width: 0, ..frame(200) }), "damaged");
        assert_eq!(code(Frame { width: 66, ..frame(200) }), "damaged");
        assert_eq!(code(Frame { width: 9_000, height: 9_000, ..frame(200) }), "too_large");
        assert_eq!(code(Frame { width: 80, ..as_jpeg(frame(200)) }), "damaged");
        let mut cut = as_jpeg(frame(200));
        if let FrameData::Jpeg(jpeg) = &mut cut.data {
            jpeg.truncate(jpeg.len() / 2);
        }
        assert_eq!(code(cut), "damaged");
    }

    #[test]
    fn a_picture_that_shows_nothing_says_so() {
        assert_eq!(judge(&frame(18), LIMITS).unwrap().flags, ["flat"]);
        assert_eq!(judge(&as_jpeg(frame(16)), LIMITS).unwrap().flags, ["flat"]);
        assert!(judge(&as_jpeg(frame(255)), LIMITS).unwrap().flags.is_empty());
    }
}
