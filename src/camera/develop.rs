//! From a frame to the pictures that are wanted of it.
//!
//! The gate comes first, once for the frame. Then each wish of the slots that share it gets a picture of its own: the camera's own JPEG
//! untouched where nothing else is wished, else a smaller one, or one of another quality. Never an enlarged one.

use super::queue::Waiting;
use crate::capture::source::{CaptureError, Frame, FrameData, Want};
use crate::config::settings::{self, Wish};
use crate::image::jpeg::{Encoder, ImageError};
use crate::image::judge;
use crate::image::reduce::{reduce, reduced};
use std::cmp::Reverse;

/// A picture as it is stored.
pub struct Picture {
    pub jpeg: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

/// Past the honesty gate: the remarks on the frame.
pub fn judged(frame: &Frame, want: &Want, settings: &settings::Camera) -> Result<Vec<String>, CaptureError> {
    let limits = judge::Limits { not_before_ms: want.not_before_ms, pixels_max: settings.max_pixels };
    let verdict = judge::judge(frame, limits).map_err(|e| match e {
        judge::Refusal::TooLarge { pixels, limit } => CaptureError::TooLarge { camera: settings.id.to_string(), pixels, limit },
        other => unusable(settings, &other),
    })?;
    Ok(verdict.flags.into_iter().map(str::to_owned).collect())
}

/// Who gets a picture of their own: the slots of each wish. Those who asked (`plain`) get one as the camera is configured. The most urgent
/// come last: the newest picture is the one that is shown first.
pub fn shared_out(serving: Vec<Waiting>, plain: bool) -> Vec<(Wish, Vec<Waiting>)> {
    let mut groups: Vec<(Wish, Vec<Waiting>)> = Vec::new();
    for waiting in serving {
        match groups.iter_mut().find(|(wish, _)| *wish == waiting.wish) {
            Some((_, group)) => group.push(waiting),
            None => groups.push((waiting.wish, vec![waiting])),
        }
    }
    if groups.is_empty() || plain && !groups.iter().any(|(wish, _)| is_plain(wish)) {
        groups.push((Wish::default(), Vec::new()));
    }
    groups.sort_by_key(|(wish, _)| Reverse(wish.priority.class()));
    groups
}

/// A picture as the camera is configured.
pub fn is_plain(wish: &Wish) -> bool {
    wish.size.is_none() && wish.quality.is_none()
}

/// One picture of a frame that passed the gate. `last`: the frame is not needed any more.
pub fn developed(
    frame: &mut Frame,
    wish: &Wish,
    last: bool,
    settings: &settings::Camera,
    encoder: &mut Option<Encoder>,
) -> Result<Picture, CaptureError> {
    let (width, height) = (frame.width, frame.height);
    let eighths = wish.size.map_or(8, |within| eighths_within((width, height), within));
    if let (FrameData::Jpeg(jpeg), 8, None) = (&mut frame.data, eighths, wish.quality) {
        let jpeg = if last { std::mem::take(jpeg) } else { jpeg.clone() };
        return Ok(Picture { jpeg, width, height });
    }
    let quality = wish.quality.unwrap_or(settings.quality);
    let made = ready(encoder, quality).and_then(|encoder| match &frame.data {
        FrameData::Jpeg(jpeg) => encoder.remake(jpeg, eighths as usize, settings.max_pixels),
        FrameData::Yuv(yuv) if eighths == 8 => Ok((encoder.encode(yuv, width, height)?, width, height)),
        FrameData::Yuv(yuv) => {
            let (small, width, height) = reduce(yuv, width, height, eighths);
            Ok((encoder.encode(&small, width, height)?, width, height))
        }
    });
    let (jpeg, width, height) = made.map_err(|e| unusable(settings, &e))?;
    Ok(Picture { jpeg, width, height })
}

/// The camera's encoder, set to a quality.
fn ready(encoder: &mut Option<Encoder>, quality: u8) -> Result<&mut Encoder, ImageError> {
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => encoder.insert(Encoder::new(quality)?),
    };
    encoder.set_quality(quality)?;
    Ok(encoder)
}

/// The most eighths of a picture that fit; the smallest reduction there is where none does.
fn eighths_within((width, height): (u32, u32), within: (u32, u32)) -> u32 {
    (2..=8).rev().find(|n| reduced(width, *n) <= within.0 && reduced(height, *n) <= within.1).unwrap_or(1)
}

pub fn unusable(settings: &settings::Camera, cause: &dyn std::fmt::Display) -> CaptureError {
    CaptureError::Damaged { camera: settings.id.to_string(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_reduced_to_the_largest_that_fits_and_never_enlarged() {
        for (within, eighths) in [
            ((1920, 1080), 8),
            ((4000, 4000), 8),
            ((1919, 1080), 7),
            ((1680, 945), 7),
            ((960, 540), 4),
            ((960, 539), 3),
            ((240, 135), 1),
            ((16, 16), 1),
        ] {
            assert_eq!(eighths_within((1920, 1080), within), eighths, "{within:?}");
        }
    }
}
