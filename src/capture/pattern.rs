//! The test card: colour bars, a square that moves with time, and the name of the slot as blocks that a program can read back from
//! the stored JPEG. It proves on a board without camera that the picture on the hub is the one of that slot.
//!
//! **Block code.** From the top left, row by row, black (0) and white (1) blocks of 16×16 pixels, 8×8 where the label
//! needs the room: magic (2 bytes), length (1), label, CRC-32C of length and label (4, big endian), bits from the highest. A block is read by the mean
//! of its middle, which JPEG quality 30 and full noise do not turn; the CRC refuses what they might.
//!
//! The card can also fail on purpose ([`PatternFault`]), each in a way that a real camera has.

use crate::capture::source::{CaptureError, Frame, FrameData, Sampling, Source, Want, Yuv};
use crate::clock::{Deadline, boottime_now_ms};
use crate::config::secret::{PatternFault, PatternOptions};
use crate::image::jpeg::{self, Encoder};
use std::time::Duration;

const MAGIC: [u8; 2] = [0xa7, 0x1c];
const BLOCKS: [usize; 2] = [16, 8];
/// Studio black and white: far from clipping, so that noise averages out.
const BLACK: u8 = 24;
const WHITE: u8 = 228;
/// Luma, Cb, Cr of the eight bars (BT.601, 75 %).
const BARS: [[u8; 3]; 8] =
    [[180, 128, 128], [162, 44, 142], [131, 156, 44], [112, 72, 58], [84, 184, 198], [65, 100, 212], [35, 212, 114], [16, 128, 128]];
/// The square crosses the picture once in this time.
const SWEEP_MS: u64 = 10_000;

pub struct Pattern {
    camera: String,
    options: PatternOptions,
    quality: u8,
    grabs: u64,
    opened_ms: Option<u64>,
    /// What its warm-up took.
    warmed_ms: Option<u64>,
}

impl Pattern {
    pub fn new(camera: String, options: PatternOptions, quality: u8) -> Self {
        Self { camera, options, quality, grabs: 0, opened_ms: None, warmed_ms: None }
    }

    /// Waits until the card is warm, or the deadline has passed.
    fn await_warmth(&mut self, deadline: Deadline) {
        let opened_ms = *self.opened_ms.get_or_insert_with(boottime_now_ms);
        if self.warmed_ms.is_none() && self.options.warm_up_ms > 0 {
            let warm = Deadline::at(opened_ms + self.options.warm_up_ms);
            wait_until(warm.min(deadline).boottime_ms());
            self.warmed_ms = warm.passed().then(|| boottime_now_ms() - opened_ms);
        }
    }

    fn timeout(&self, want: &Want, asked_ms: u64, stage: &str) -> CaptureError {
        let within = Duration::from_millis(want.deadline.boottime_ms().saturating_sub(asked_ms));
        CaptureError::Timeout { camera: self.camera.clone(), within, stage: stage.into() }
    }

    fn card(&self, want: &Want) -> Result<Frame, CaptureError> {
        let (width, height, taken_ms) = (self.options.width, self.options.height, boottime_now_ms());
        let yuv = draw(&self.options, &want.label, taken_ms);
        let data = if self.options.jpeg { FrameData::Jpeg(self.encode(&yuv)?) } else { FrameData::Yuv(yuv) };
        Ok(Frame { data, width, height, taken_ms })
    }

    fn encode(&self, yuv: &Yuv) -> Result<Vec<u8>, CaptureError> {
        let encoded = Encoder::new(self.quality).and_then(|mut e| e.encode(yuv, self.options.width, self.options.height));
        encoded.map_err(|e| CaptureError::Unsupported { camera: self.camera.clone(), cause: e.to_string() })
    }
}

impl Source for Pattern {
    fn kind(&self) -> &'static str {
        "pattern"
    }

    fn grab(&mut self, want: &Want) -> Result<Frame, CaptureError> {
        let asked_ms = boottime_now_ms();
        self.grabs += 1;
        let strikes = self.grabs.is_multiple_of(self.options.fault_every.max(1));
        match self.options.fault.filter(|_| strikes) {
            Some(PatternFault::Late(ms)) => {
                wait_until(asked_ms.saturating_add(ms).min(want.deadline.boottime_ms()));
            }
            Some(PatternFault::Hang) => wait_until(want.deadline.boottime_ms()),
            // The one wait without a deadline: it plays a driver call that cannot be ended.
            Some(PatternFault::Stuck(ms)) => std::thread::sleep(want.deadline.left() + Duration::from_millis(ms)),
            Some(PatternFault::Fail) => {
                return Err(CaptureError::Broken { camera: self.camera.clone(), cause: "the test card was told to fail".into() });
            }
            Some(PatternFault::Panic) => panic!("the test card was told to panic"),
            Some(PatternFault::Corrupt) => {
                let mut frame = self.card(want)?;
                if let FrameData::Yuv(yuv) = &frame.data {
                    frame.data = FrameData::Jpeg(self.encode(yuv)?);
                }
                if let FrameData::Jpeg(jpeg) = &mut frame.data {
                    jpeg.truncate(jpeg.len() / 2);
                }
                return Ok(frame);
            }
            None => {}
        }
        self.await_warmth(want.deadline);
        wait_until(want.not_before_ms.min(want.deadline.boottime_ms()));
        if want.deadline.passed() {
            return Err(self.timeout(want, asked_ms, "waiting for the test card"));
        }
        self.card(want)
    }

    fn warm_up(&mut self, deadline: Deadline) -> Result<(), CaptureError> {
        self.await_warmth(deadline);
        Ok(())
    }

    fn warm_up_ms(&self) -> Option<u64> {
        self.warmed_ms
    }
}

fn wait_until(boottime_ms: u64) {
    let instant = Deadline::at(boottime_ms);
    while !instant.passed() {
        std::thread::park_timeout(instant.left());
    }
}

fn draw(options: &PatternOptions, label: &str, taken_ms: u64) -> Yuv {
    let (width, height) = (options.width as usize, options.height as usize);
    let (chroma_width, chroma_height) = Sampling::Yuv420.chroma(width, height);
    let bar = |x: usize, width: usize| BARS[x * BARS.len() / width];
    let plane = |width: usize, height: usize, of: usize| {
        let row: Vec<u8> = (0..width).map(|x| bar(x, width)[of]).collect();
        row.repeat(height)
    };
    let mut y = plane(width, height, 0);
    let side = (height / 8).max(1).min(width);
    let left = ((taken_ms % SWEEP_MS) as usize * (width - side)) / SWEEP_MS as usize;
    for row in y.chunks_exact_mut(width).rev().take(side) {
        row[left..left + side].fill(WHITE);
    }
    if let Some((size, bits)) = code(label, width, height) {
        let across = width / size;
        for (i, white) in bits.into_iter().enumerate() {
            let (x, top) = (i % across * size, i / across * size);
            for row in y.chunks_exact_mut(width).skip(top).take(size) {
                row[x..x + size].fill(if white { WHITE } else { BLACK });
            }
        }
    }
    if options.noise > 0 {
        add_noise(&mut y, label, options.noise);
    }
    let u = plane(chroma_width, chroma_height, 1);
    let v = plane(chroma_width, chroma_height, 2);
    Yuv { y, u, v, sampling: Sampling::Yuv420 }
}

/// The same label gives the same noise, so that a test can make the same picture twice.
fn add_noise(luma: &mut [u8], label: &str, amplitude: u8) {
    let mut state = u64::from(crc32c::crc32c(label.as_bytes())) | 1 << 32;
    for pixel in luma {
        // xorshift64: far cheaper than the encoder that follows it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let swing = (state >> 40) as i64 % (2 * i64::from(amplitude) + 1) - i64::from(amplitude);
        *pixel = (i64::from(*pixel) + swing).clamp(0, 255) as u8;
    }
}

/// Block size and bits, if the label has room in the picture: large blocks in its upper half, else small ones anywhere.
fn code(label: &str, width: usize, height: usize) -> Option<(usize, Vec<bool>)> {
    let length = u8::try_from(label.len()).ok()?;
    let mut bytes = vec![length];
    bytes.extend_from_slice(label.as_bytes());
    let crc = crc32c::crc32c(&bytes).to_be_bytes();
    let bits: Vec<bool> = MAGIC.iter().chain(&bytes).chain(&crc).flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1 == 1)).collect();
    let size = BLOCKS.into_iter().zip([height / 2, height]).find(|&(size, room)| {
        let across = width / size;
        across > 0 && bits.len().div_ceil(across) * size <= room
    })?;
    Some((size.0, bits))
}

/// The label in a luma plane with tight rows; `None` where there is none or it cannot be read without doubt.
pub fn read_label(gray: &[u8], width: usize, height: usize) -> Option<String> {
    if width.checked_mul(height)? != gray.len() {
        return None;
    }
    BLOCKS.into_iter().find_map(|size| read_blocks(gray, width, height, size))
}

/// As [`read_label`], from a whole JPEG.
pub fn read_label_jpeg(jpeg: &[u8]) -> Option<String> {
    let (gray, width, height) = jpeg::decode_gray(jpeg, crate::model::PIXELS_MAX).ok()?;
    read_label(&gray, width as usize, height as usize)
}

fn read_blocks(gray: &[u8], width: usize, height: usize, size: usize) -> Option<String> {
    let (across, down) = (width / size, height / size);
    let white = |i: usize| {
        let (left, top) = (i % across * size + size / 4, i / across * size + size / 4);
        let middle = gray.chunks_exact(width).skip(top).take(size / 2).flat_map(|row| &row[left..left + size / 2]);
        middle.map(|&p| usize::from(p)).sum::<usize>() > usize::from(BLACK.midpoint(WHITE)) * (size / 2) * (size / 2)
    };
    let byte = |at: usize| {
        let last = at * 8 + 7;
        (across > 0 && last < across * down).then(|| (0..8).fold(0, |byte, i| byte << 1 | u8::from(white(at * 8 + i))))
    };
    let bytes = |from: usize, len: usize| (from..from + len).map(byte).collect::<Option<Vec<u8>>>();
    if bytes(0, 2)? != MAGIC {
        return None;
    }
    let body = bytes(2, 1 + usize::from(byte(2)?))?;
    let crc = bytes(2 + body.len(), 4)?;
    (crc == crc32c::crc32c(&body).to_be_bytes()).then(|| String::from_utf8(body[1..].to_vec()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::judge::{Limits, judge};
    use crate::model::PIXELS_MAX;

    const LABEL: &str = "gate/every-5m/3/305000";

    fn options(width: u32, height: u32) -> PatternOptions {
        PatternOptions { width, height, fault: None, fault_every: 1, noise: 0, jpeg: false, warm_up_ms: 0 }
    }
    fn want(deadline_ms: u64) -> Want {
        let now = boottime_now_ms();
        Want { not_before_ms: now, deadline: Deadline::at(now + deadline_ms), label: LABEL.into() }
    }
    fn grab(options: PatternOptions, deadline_ms: u64) -> (Result<Frame, CaptureError>, u64) {
        let started = boottime_now_ms();
        let result = Pattern::new("gate (pattern:)".into(), options, 85).grab(&want(deadline_ms));
        (result, boottime_now_ms() - started)
    }
    fn passes(frame: &Frame) -> bool {
        judge(frame, Limits { not_before_ms: 0, pixels_max: PIXELS_MAX }).is_ok()
    }

    #[test]
    fn the_slot_can_be_read_back_through_bad_jpeg_and_full_noise() {
        for (width, height) in [(640, 480), (320, 240), (1280, 720), (641, 479)] {
            for (quality, noise) in [(30, 0), (30, 100), (95, 100), (1, 0)] {
                let yuv = draw(&PatternOptions { noise, ..options(width, height) }, LABEL, 5_000);
                let jpeg = jpeg::encode(&yuv, width, height, quality).unwrap();
                assert_eq!(read_label_jpeg(&jpeg).as_deref(), Some(LABEL), "{width}x{height} q{quality} noise {noise}");
            }
        }
    }

    #[test]
    fn the_longest_slot_name_fits_the_smallest_usual_card() {
        let long = "c".repeat(100);
        let yuv = draw(&options(320, 240), &long, 0);
        assert_eq!(read_label(&yuv.y, 320, 240), Some(long));
    }

    #[test]
    fn a_label_is_exact_or_absent() {
        let mut yuv = draw(&options(640, 480), LABEL, 0);
        // The fifth block of the label's first byte turned over.
        let at = 3 * 8 + 4;
        for row in yuv.y.chunks_exact_mut(640).take(16) {
            row[at * 16..at * 16 + 16].iter_mut().for_each(|p| *p = 255 - *p);
        }
        assert_eq!(read_label(&yuv.y, 640, 480), None);
        assert_eq!(read_label(&[128; 640 * 480], 640, 480), None);
        assert_eq!(read_label(&[255; 100], 640, 480), None);
        assert_eq!(read_label(&[], 0, 0), None);
    }

    #[test]
    fn two_instants_give_two_pictures_and_one_instant_one() {
        let card = |ms| draw(&options(640, 480), LABEL, ms).y;
        assert_ne!(card(1_000), card(1_500));
        assert_eq!(card(1_000), card(1_000));
    }

    #[test]
    fn noise_makes_a_big_file() {
        let yuv = draw(&PatternOptions { noise: 100, ..options(1280, 720) }, LABEL, 0);
        let len = jpeg::encode(&yuv, 1280, 720, 85).unwrap().len();
        assert!(len >= 300 << 10, "{len} bytes");
    }

    #[test]
    fn a_card_passes_the_gate_as_yuv_and_as_jpeg() {
        for jpeg in [false, true] {
            let frame = grab(PatternOptions { jpeg, ..options(640, 480) }, 1_000).0.unwrap();
            assert!(passes(&frame));
            assert_eq!(matches!(frame.data, FrameData::Jpeg(_)), jpeg);
        }
    }

    #[test]
    fn a_card_is_never_older_than_the_request() {
        let mut ask = want(1_000);
        ask.not_before_ms += 60;
        let frame = Pattern::new(String::new(), options(64, 64), 85).grab(&ask).unwrap();
        assert!(frame.taken_ms >= ask.not_before_ms);
    }

    #[test]
    fn a_card_that_warms_up_does_so_once_and_can_do_it_ahead() {
        let mut card = Pattern::new(String::new(), PatternOptions { warm_up_ms: 120, ..options(64, 64) }, 85);
        let begun = boottime_now_ms();
        card.warm_up(Deadline::at(begun + 30)).unwrap();
        assert_eq!(card.warm_up_ms(), None, "the deadline came first");
        let cold = card.grab(&want(1_000)).unwrap().taken_ms - begun;
        let warm = card.grab(&want(1_000)).unwrap().taken_ms - begun;
        assert!(cold >= 120 && warm < cold + 100, "{cold} {warm}");
        assert!(card.warm_up_ms().is_some_and(|ms| ms >= 120));
        let patience_ended = Pattern::new(String::new(), PatternOptions { warm_up_ms: 5_000, ..options(64, 64) }, 85).grab(&want(50));
        assert_eq!(patience_ended.unwrap_err().code(), "timeout");
    }

    #[test]
    fn each_fault_is_the_one_ordered() {
        let with = |fault| PatternOptions { fault: Some(fault), ..options(320, 240) };
        let (late, took) = grab(with(PatternFault::Late(120)), 2_000);
        assert!(late.is_ok() && took >= 120, "{took}");
        let (too_late, took) = grab(with(PatternFault::Late(5_000)), 150);
        assert!(too_late.unwrap_err().code() == "timeout" && took < 1_000);
        let (hang, took) = grab(with(PatternFault::Hang), 150);
        assert!(hang.unwrap_err().code() == "timeout" && took >= 150);
        let (stuck, took) = grab(with(PatternFault::Stuck(200)), 50);
        assert!(stuck.unwrap_err().code() == "timeout" && took >= 250, "{took}");
        assert_eq!(grab(with(PatternFault::Fail), 1_000).0.unwrap_err().code(), "broken");
        assert!(!passes(&grab(with(PatternFault::Corrupt), 1_000).0.unwrap()));
        assert!(std::panic::catch_unwind(|| grab(with(PatternFault::Panic), 1_000)).is_err());
    }

    #[test]
    fn a_fault_strikes_every_nth_grab() {
        let mut source =
            Pattern::new(String::new(), PatternOptions { fault: Some(PatternFault::Fail), fault_every: 3, ..options(64, 64) }, 85);
        let ok: Vec<bool> = (0..6).map(|_| source.grab(&want(1_000)).is_ok()).collect();
        assert_eq!(ok, [true, true, false, true, true, false]);
    }
}
