//! One H.264 keyframe to planar YUV.
//!
//! The size is judged from the parameter set before the decoder allocates anything, and a picture counts only when the decoder has
//! every macroblock of it: a keyframe with a lost slice is damaged, never half grey. Each keyframe gets a decoder of its
//! own: keyframes need nothing from before, and hostile bytes cannot leave anything behind.
//!
//! Cameras mostly code "studio" levels (black 16, white 235); a JPEG means 0 to 255. Unless the stream says that it is full
//! range already, the planes are stretched, or every picture would look foggy.

use crate::image::frame::{Sampling, Yuv};
use crate::image::planar;
use h264_reader::nal::sps::SeqParameterSet;
use rusty_h264_common::nal::{emulation_unprevent, split_annex_b};
use rusty_h264_decoder::{DecodeError, Decoder, Sps, au_is_idr};

const NAL_TYPE: u8 = 0x1f;
const NAL_SPS: u8 = 7;

#[derive(Debug, PartialEq, Eq)]
pub enum Undecodable {
    Damaged(String),
    Unsupported(String),
    TooLarge(u64),
}

#[derive(Debug)]
pub struct Picture {
    pub yuv: Yuv,
    pub width: u32,
    pub height: u32,
}

/// True for an access unit that holds a keyframe's slices, not only its parameter sets (a client that joins in the middle of a
/// keyframe may get those alone).
pub fn is_keyframe(annex_b: &[u8]) -> bool {
    au_is_idr(annex_b)
}

/// Decodes one access unit with its parameter sets in front (Annex B).
/// # Errors
/// Not whole, of a kind that cannot be decoded, or larger than allowed.
pub fn decode(annex_b: &[u8], pixels_max: u64) -> Result<Picture, Undecodable> {
    let mut full_range = false;
    for nal in split_annex_b(annex_b).into_iter().filter(|nal| nal.first().is_some_and(|head| head & NAL_TYPE == NAL_SPS)) {
        let sps = Sps::parse(&emulation_unprevent(&nal[1..])).map_err(unusable)?;
        let pixels = sps.coded_width() as u64 * sps.coded_height() as u64;
        if pixels > pixels_max {
            return Err(Undecodable::TooLarge(pixels));
        }
        full_range = says_full_range(nal);
    }
    let decoded = Decoder::new().decode(annex_b).map_err(undecodable)?;
    let frame = decoded.ok_or_else(|| Undecodable::Damaged("a part of the keyframe is missing".into()))?;
    let mut yuv = Yuv { y: frame.y, u: frame.u, v: frame.v, sampling: Sampling::Yuv420 };
    if !full_range {
        planar::stretch(&mut yuv);
    }
    Ok(Picture { yuv, width: frame.width as u32, height: frame.height as u32 })
}

/// The decoder skips this part of the parameter set. What cannot be read means studio levels, as the standard says.
fn says_full_range(sps: &[u8]) -> bool {
    let Ok(rbsp) = h264_reader::rbsp::decode_nal(sps) else { return false };
    let Ok(sps) = SeqParameterSet::from_bits(h264_reader::rbsp::BitReader::new(&*rbsp)) else { return false };
    sps.vui_parameters.and_then(|vui| vui.video_signal_type).is_some_and(|signal| signal.video_full_range_flag)
}

/// What a parameter set demands will not change by waiting for another frame.
fn unusable(error: DecodeError) -> Undecodable {
    match error {
        DecodeError::Unsupported(what) => unsupported(what),
        other => Undecodable::Damaged(other.to_string()),
    }
}

/// In a slice the decoder says "unsupported" of broken bits too, so only what a camera is set to counts as such.
fn undecodable(error: DecodeError) -> Undecodable {
    match error {
        DecodeError::Unsupported(what) if what.contains("interlace") || what.contains("FMO") => unsupported(what),
        other => Undecodable::Damaged(other.to_string()),
    }
}

fn unsupported(what: &str) -> Undecodable {
    Undecodable::Unsupported(format!("H.264 with {what}; set the camera to progressive 8-bit 4:2:0, main or baseline profile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_damaged_never_a_picture() {
        for bytes in [&b""[..], b"\0\0\0\x01\x65", b"\0\0\0\x01\x67\x42", b"\0\0\0\x01\x65\xff\xff\xff"] {
            assert!(decode(bytes, 1 << 20).is_err());
        }
    }
}
