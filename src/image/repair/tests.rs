//! Good pictures, broken in each way that cameras break them, and in every way that they must not be mended.

use super::*;
use crate::image::frame::{Sampling, Yuv};
use crate::image::jpeg;
use crate::model::PIXELS_MAX;
use proptest::prelude::*;
use std::sync::LazyLock;

/// Noise over a slope: long and short codes, and every table is used.
fn picture(width: u32, height: u32, sampling: Sampling) -> Vec<u8> {
    let (w, h) = (width as usize, height as usize);
    let (cw, ch) = sampling.chroma(w, h);
    let mut seed = 7u32;
    let mut plane = |w: usize, h: usize, rough: u32| -> Vec<u8> {
        (0..w * h)
            .map(|i| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((i % w * 2) as u32 + (seed >> 24) % rough) as u8
            })
            .collect()
    };
    let yuv = Yuv { y: plane(w, h, 90), u: plane(cw, ch, 30), v: plane(cw, ch, 200), sampling };
    jpeg::encode(&yuv, width, height, 85).unwrap()
}

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| picture(96, 64, Sampling::Yuv420));

/// The same with a restart marker after every MCU row: the encoder has no switch for it, so its scans are cut from pictures of one
/// MCU row each (the DC prediction starts anew in each, as it does behind a restart marker).
fn with_restarts(rows: usize) -> Vec<u8> {
    let (w, row) = (96usize, 16usize);
    let mut out = Vec::new();
    for n in 0..rows {
        let y: Vec<u8> = (0..w * row).map(|i| ((i * 31 + n * 977) >> 2 ^ i) as u8).collect();
        let chroma = |by: usize| (0..w / 2 * row / 2).map(|i| (i * by + n * 50) as u8).collect::<Vec<u8>>();
        let yuv = Yuv { y, u: chroma(3), v: chroma(7), sampling: Sampling::Yuv420 };
        let part = jpeg::encode(&yuv, w as u32, row as u32, 85).unwrap();
        let scan = scan_start(&part);
        if n == 0 {
            let sos = scan - 14;
            out.extend(&part[..sos]);
            let sof = find(&part, 0xc0);
            out[sof + 5..sof + 7].copy_from_slice(&((rows * row) as u16).to_be_bytes());
            out.extend([0xff, DRI, 0, 4, 0, (w / 16) as u8]);
            out.extend(&part[sos..part.len() - 2]);
        } else {
            out.extend([0xff, 0xd0 + (n as u8 - 1) % 8]);
            out.extend(&part[scan..part.len() - 2]);
        }
    }
    out.extend([0xff, EOI]);
    out
}

fn find(jpeg: &[u8], marker: u8) -> usize {
    jpeg.windows(2).position(|two| two == [0xff, marker]).unwrap()
}

fn scan_start(jpeg: &[u8]) -> usize {
    let sos = find(jpeg, SOS);
    sos + 2 + usize::from(u16::from_be_bytes([jpeg[sos + 2], jpeg[sos + 3]]))
}

fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let mut jpeg = jpeg.to_vec();
    while let Some(at) = jpeg.windows(2).position(|two| two == [0xff, DHT]) {
        let length = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        jpeg.drain(at..at + 2 + length);
    }
    jpeg
}

fn pixels(jpeg: &[u8]) -> Vec<u8> {
    jpeg::decode_gray(jpeg, PIXELS_MAX).unwrap().0
}

fn restart_markers(jpeg: &[u8]) -> Vec<usize> {
    (scan_start(jpeg)..jpeg.len() - 1).filter(|&at| jpeg[at] == 0xff && (0xd0..=0xd7).contains(&jpeg[at + 1])).collect()
}

#[test]
fn a_whole_picture_comes_back_as_it_was() {
    for sampling in [Sampling::Yuv420, Sampling::Yuv422, Sampling::Gray] {
        for (w, h) in [(1, 1), (17, 9), (96, 64)] {
            let whole = picture(w, h, sampling);
            assert_eq!(repair(whole.clone()).unwrap(), whole, "{w}x{h} {sampling:?}");
        }
    }
    let restarts = with_restarts(11);
    jpeg::check(&restarts, PIXELS_MAX).unwrap();
    assert_eq!(repair(restarts.clone()).unwrap(), restarts);
    // Fill bytes before a marker are allowed.
    let mut filled = restarts;
    for at in restart_markers(&filled).into_iter().rev() {
        filled.insert(at, 0xff);
    }
    jpeg::check(&filled, PIXELS_MAX).unwrap();
    assert_eq!(repair(filled.clone()).unwrap(), filled);
}

#[test]
fn missing_huffman_tables_are_put_in() {
    for whole in [GOOD.clone(), picture(33, 17, Sampling::Yuv422), picture(33, 17, Sampling::Gray), with_restarts(3)] {
        let bare = without_tables(&whole);
        assert_eq!(without_tables(&bare), bare);
        let mended = repair(bare.clone()).unwrap();
        assert_eq!(mended.len(), bare.len() + 420);
        assert!(find(&mended, DHT) < find(&mended, SOS));
        assert_eq!(mended[2..4], [0xff, 0xe0], "JFIF stays in front");
        assert!(pixels(&mended) == pixels(&whole));
        assert_eq!(repair(mended.clone()).unwrap(), mended, "mended once, whole for good");
    }
}

#[test]
fn the_standard_tables_are_those_of_the_library() {
    // Its encoder writes them unless it is told to compute its own.
    let mut theirs = Vec::new();
    let mut rest = &GOOD[..];
    while let Some(at) = rest.windows(2).position(|two| two == [0xff, DHT]) {
        let length = usize::from(u16::from_be_bytes([rest[at + 2], rest[at + 3]]));
        theirs.push(rest[at + 4..at + 2 + length].to_vec());
        rest = &rest[at + 2 + length..];
    }
    theirs.sort();
    assert_eq!(theirs.concat(), standard_segment()[4..]);
}

#[test]
fn what_follows_the_end_is_cut_off() {
    let page: &[u8] = b"HTTP/1.1 200 OK";
    for junk in [&[0; 4096][..], &[0xff; 7], page, &GOOD, &[0xff]] {
        assert_eq!(repair([&GOOD[..], junk].concat()).unwrap(), *GOOD);
    }
}

#[test]
fn what_stands_before_the_start_is_cut_off_if_it_is_little() {
    for junk in [&[0][..], &[0; LEAD_MAX], &[0xff], &[0xff, SOI], &[0x12, 0xff, SOI, 0xff, SOI]] {
        assert_eq!(repair([junk, &GOOD].concat()).unwrap(), *GOOD);
    }
    let error = repair([&[0; LEAD_MAX + 1][..], &GOOD].concat()).unwrap_err().to_string();
    assert_eq!(error, "not a whole JPEG: no start marker in the first 1027 bytes");
    assert!(repair(Vec::new()).unwrap_err().to_string().contains("no bytes"));
}

#[test]
fn bytes_between_a_part_and_its_restart_marker_are_cut_out() {
    let whole = with_restarts(11);
    let mut odd = whole.clone();
    for (n, at) in restart_markers(&whole).into_iter().enumerate().rev() {
        // As Logitech cameras do it: from none to nine, of any value but a marker.
        odd.splice(at..at, std::iter::repeat_n([0x00, 0x55, 0x80][n % 3], n % 10));
    }
    odd.splice(odd.len() - 2..odd.len() - 2, [0, 0]);
    assert!(jpeg::check(&odd, PIXELS_MAX).is_err(), "the control: a strict decoder refuses it");
    assert_eq!(repair(odd).unwrap(), whole);
}

/// What the gate stores of a camera's bytes: nothing, or every pixel that the camera coded.
fn stored(bytes: Vec<u8>, whole: &[u8]) -> bool {
    let Some(mended) = repair(bytes).ok().filter(|mended| jpeg::check(mended, PIXELS_MAX).is_ok()) else { return false };
    assert!(pixels(&mended) == pixels(whole), "a cut picture passed for a whole one: {} bytes of {}", mended.len(), whole.len());
    true
}

#[test]
fn a_cut_picture_is_refused_at_every_byte_and_only_a_lost_end_marker_is_mended() {
    let other = picture(96, 64, Sampling::Yuv422);
    let stale = &other[scan_start(&other)..];
    for whole in [&GOOD[..], &with_restarts(2), &without_tables(&GOOD), &picture(40, 24, Sampling::Gray)] {
        let end = whole.len() - 2;
        for cut in 0..whole.len() {
            let part = &whole[..cut];
            // The scan's last byte may hold nothing but padding bits: then nothing of the picture is lost with it.
            let alone = stored(part.to_vec(), whole);
            assert!(alone == (cut >= end) || cut + 1 == end, "cut at {cut} of {}", whole.len());
            // In a buffer that is larger than the frame, with zeros or with an older picture behind it.
            assert!(!stored([part, &[0; 64]].concat(), whole) || cut + 1 >= end, "cut at {cut}, zeros behind");
            stored([part, &[0xff, EOI]].concat(), whole);
            // Behind a cut scan an older picture's bits would complete it.
            stored([part, &stale[..stale.len() - 2]].concat(), whole);
        }
        assert!(stored([&whole[..end], &[0; 512]].concat(), whole), "padding instead of an end marker");
    }
}

/// A lost packet, as seen from here: bytes missing in the middle. Huffman codes find their feet again, so where a loss leaves as
/// many blocks as before no decoder can tell. The strict decoder is the measure: mending must not make it much blinder.
#[test]
fn what_was_lost_on_the_way_is_not_passed_off_as_padding() {
    let whole = with_restarts(11);
    let (start, good) = (scan_start(&whole), pixels(&whole));
    let lies = |jpeg: &[u8]| jpeg::decode_gray(jpeg, PIXELS_MAX).is_ok_and(|(gray, ..)| gray != good);
    let mut worse = 0;
    let mut tried = 0;
    for lost in [1, 16, 192, 512, 1024, 3072] {
        let cuts = (start..whole.len() - 2 - lost).step_by(23);
        let bad: Vec<_> = cuts.map(|at| [&whole[..at], &whole[at + lost..]].concat()).collect();
        let before = bad.iter().filter(|jpeg| lies(jpeg)).count();
        let after = bad.iter().filter(|&jpeg| repair(jpeg.clone()).is_ok_and(|jpeg| lies(&jpeg))).count();
        println!("{lost} bytes lost in {} pictures: {before} pass the strict decoder as they are, {after} after mending", bad.len());
        (worse, tried) = (worse + after - before, tried + bad.len());
    }
    assert!(worse * 25 <= tried, "{worse} of {tried}");
}

#[test]
fn an_end_marker_glued_on_would_be_refused_by_the_gate_too() {
    let end = GOOD.len() - 2;
    for cut in 0..end {
        let glued = [&GOOD[..cut], &[0xff, EOI]].concat();
        if jpeg::check(&glued, PIXELS_MAX).is_ok() {
            assert!(pixels(&glued) == pixels(&GOOD), "cut at {cut}");
            assert!(cut + 2 >= end);
        }
    }
}

#[test]
fn a_picture_in_several_scans_gets_no_end_marker() {
    // A second scan's header where the first one ends: what comes then was cut off.
    let sos = find(&GOOD, SOS);
    let cut = [&GOOD[..GOOD.len() - 2], &GOOD[sos..sos + 40]].concat();
    assert!(repair(cut).unwrap_err().to_string().contains("it is cut"));
}

#[test]
fn a_second_picture_inside_the_first_is_refused() {
    let cut = scan_start(&GOOD) + 100;
    let error = repair([&GOOD[..cut], &GOOD].concat()).unwrap_err().to_string();
    assert!(error.contains("an unexpected marker ffd8 at byte"), "{error}");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_nor_grow_and_what_is_accepted_stays_what_it_was(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(), keep_end in any::<bool>(), restarts in any::<bool>(), in_header in any::<bool>(),
    ) {
        let mut jpeg = if restarts { with_restarts(5) } else { GOOD.clone() };
        let reach = if in_header { scan_start(&jpeg) } else { jpeg.len() };
        for (at, byte) in edits {
            jpeg[at.index(reach)] = byte;
        }
        if !keep_end {
            jpeg.truncate(cut.index(jpeg.len()));
        }
        let before = jpeg::decode_gray(&jpeg, 1 << 20);
        let mended = repair(jpeg.clone());
        if let Ok(mended) = &mended {
            prop_assert!(mended.len() <= jpeg.len() + 420);
        }
        if let Ok(before) = before {
            let mended = mended.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(jpeg::decode_gray(&mended, 1 << 20).unwrap(), before);
        }
    }

    #[test]
    fn noise_is_no_picture(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        if let Ok(mended) = repair(bytes) {
            prop_assert!(jpeg::check(&mended, PIXELS_MAX).is_err());
        }
    }
}
