//! A picture describes itself: an EXIF block for every viewer, and one private segment with its whole [`Record`].
//!
//! ```text
//! SOI | APP1 "Exif" (ours) | APP9 "shutterd" version, CRC-32C, record as JSON | the picture as encoded, from its 2nd marker on
//! ```
//! The record holds the SHA-256 of all bytes but the private segment; [`Hash8`] is the head of the SHA-256 of the private
//! segment. So the hash binds record and pixels, and a file found after a crash proves by itself that it is whole.
//! The date is written only when the clock can be believed: no picture is ever dated 1970.

use crate::model::{Hash8, Quality};
use crate::protocol::Record;
use sha2::{Digest, Sha256};

/// Format of the private segment.
pub const FORMAT: u8 = 1;
const NAME: &[u8] = b"shutterd\0";
const APP1: u8 = 0xE1;
const APP9: u8 = 0xE9;
/// A segment's length field counts itself: two bytes.
const SEGMENT_MAX: usize = 0xFFFF;
/// What stands before a picture: SOI and two segments with their markers.
pub const HEAD_BYTES_MAX: usize = 2 + 2 * (2 + SEGMENT_MAX);

/// The bytes that go before `jpeg[2..]`, and what the whole file will be known by.
#[derive(Debug)]
pub struct Composed {
    pub head: Vec<u8>,
    pub hash8: Hash8,
    pub record: Record,
}

/// What a whole, undamaged file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    pub record: Record,
    pub hash8: Hash8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetaError {
    #[error("not a JPEG file")]
    NotJpeg,
    #[error("the file ends before its header does")]
    Cut,
    #[error("a picture without self-description: it was not made by shutterd")]
    Foreign,
    #[error("self-description of format {0}, which this version cannot read; use a newer version")]
    Newer(u8),
    #[error("the self-description is damaged")]
    Damaged,
    #[error("the picture is damaged or incomplete: its SHA-256 does not match")]
    WrongHash,
    #[error("the self-description would not fit into a JPEG segment")]
    TooLong,
}

/// Builds the header of a picture. `record.sha256` is filled in; `jpeg` must start with SOI.
pub fn compose(mut record: Record, jpeg: &[u8]) -> Result<Composed, MetaError> {
    let body = jpeg.strip_prefix(&[0xFF, 0xD8]).ok_or(MetaError::NotJpeg)?;
    let mut head = vec![0xFF, 0xD8];
    segment(&mut head, APP1, &exif(&record))?;
    record.sha256 = hex(&Sha256::new().chain_update(&head).chain_update(body).finalize());
    let json = serde_json::to_vec(&record).map_err(|_| MetaError::Damaged)?;
    let mut private = NAME.to_vec();
    private.push(FORMAT);
    private.extend(crc32c::crc32c(&json).to_be_bytes());
    private.extend(&json);
    let start = head.len();
    segment(&mut head, APP9, &private)?;
    let hash8 = hash8(&head[start..]);
    Ok(Composed { head, hash8, record })
}

/// Reads a file's self-description and checks every byte of the file against it.
pub fn read(jpeg: &[u8]) -> Result<Meta, MetaError> {
    let (meta, at, end) = find(jpeg)?;
    let sha = Sha256::new().chain_update(&jpeg[..at]).chain_update(&jpeg[end..]).finalize();
    if hex(&sha) != meta.record.sha256 {
        return Err(MetaError::WrongHash);
    }
    Ok(meta)
}

/// Reads the self-description from the beginning of a file: [`HEAD_BYTES_MAX`] are enough. Of the picture it proves nothing.
pub fn read_head(head: &[u8]) -> Result<Meta, MetaError> {
    find(head).map(|(meta, ..)| meta)
}

/// The self-description, and where its segment begins and ends.
fn find(jpeg: &[u8]) -> Result<(Meta, usize, usize), MetaError> {
    if !jpeg.starts_with(&[0xFF, 0xD8]) {
        return Err(MetaError::NotJpeg);
    }
    let mut at = 2;
    loop {
        let head = jpeg.get(at..at + 4).ok_or(MetaError::Cut)?;
        // Only APPn and comment segments can stand before ours.
        if head[0] != 0xFF || !((0xE0..=0xEF).contains(&head[1]) || head[1] == 0xFE) {
            return Err(MetaError::Foreign);
        }
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let end = at + 2 + len;
        let content = jpeg.get(at + 4..end).ok_or(MetaError::Cut)?;
        if head[1] == APP9
            && let Some(private) = content.strip_prefix(NAME)
        {
            let record = parse_private(private)?;
            return Ok((Meta { record, hash8: hash8(&jpeg[at..end]) }, at, end));
        }
        at = end;
    }
}

fn parse_private(private: &[u8]) -> Result<Record, MetaError> {
    let (&format, rest) = private.split_first().ok_or(MetaError::Damaged)?;
    if format != FORMAT {
        return Err(MetaError::Newer(format));
    }
    let (crc, json) = rest.split_first_chunk::<4>().ok_or(MetaError::Damaged)?;
    if crc32c::crc32c(json) != u32::from_be_bytes(*crc) {
        return Err(MetaError::Damaged);
    }
    serde_json::from_slice(json).map_err(|_| MetaError::Damaged)
}

fn hash8(private_segment: &[u8]) -> Hash8 {
    let sha = Sha256::digest(private_segment);
    Hash8(sha.iter().take(8).fold(0, |n, &b| n << 8 | u64::from(b)))
}

fn segment(out: &mut Vec<u8>, marker: u8, content: &[u8]) -> Result<(), MetaError> {
    let len = u16::try_from(content.len() + 2).map_err(|_| MetaError::TooLong)?;
    debug_assert!(usize::from(len) <= SEGMENT_MAX);
    out.extend([0xFF, marker]);
    out.extend(len.to_be_bytes());
    out.extend(content);
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// A minimal TIFF block (big endian): what made the picture, its id, and its time in UTC where one is known.
fn exif(record: &Record) -> Vec<u8> {
    const ASCII: u16 = 2;
    const LONG: u16 = 4;
    const UNDEFINED: u16 = 7;
    let text = |s: &str| [s.as_bytes(), &[0]].concat();
    let mut main: Vec<(u16, u16, Vec<u8>)> = vec![
        (0x010F, ASCII, text("shutterd")),
        (0x0110, ASCII, text(&format!("{}/{}", record.node, record.camera))),
        (0x0131, ASCII, text(concat!("shutterd ", env!("CARGO_PKG_VERSION")))),
        (0x8769, LONG, vec![0; 4]),
    ];
    let mut sub: Vec<(u16, u16, Vec<u8>)> = vec![(0x9000, UNDEFINED, b"0232".to_vec())];
    let dated = Some(record.taken).filter(|t| t.quality >= Quality::Rtc);
    if let Some(utc) = dated.and_then(|t| chrono::DateTime::from_timestamp_millis(t.wall_ms)) {
        sub.push((0x9003, ASCII, text(&utc.format("%Y:%m:%d %H:%M:%S").to_string())));
        sub.push((0x9011, ASCII, text("+00:00")));
        sub.push((0x9291, ASCII, text(&utc.format("%3f").to_string())));
    }
    sub.push((0xA420, ASCII, text(&record.id.to_string())));
    // TIFF header (8 bytes), first directory with its values, then the Exif directory.
    let sub_at = 8 + directory_len(&main);
    if let Some(pointer) = main.last_mut() {
        pointer.2 = (sub_at as u32).to_be_bytes().to_vec();
    }
    let mut tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08".to_vec();
    directory(&mut tiff, 8, &main);
    directory(&mut tiff, sub_at, &sub);
    tiff
}

fn padded(len: usize) -> usize {
    if len <= 4 { 0 } else { len + len % 2 }
}

fn directory_len(entries: &[(u16, u16, Vec<u8>)]) -> usize {
    2 + 12 * entries.len() + 4 + entries.iter().map(|e| padded(e.2.len())).sum::<usize>()
}

/// One TIFF directory at offset `at`, its longer values right behind it.
fn directory(out: &mut Vec<u8>, at: usize, entries: &[(u16, u16, Vec<u8>)]) {
    let mut values_at = at + 2 + 12 * entries.len() + 4;
    let mut values = Vec::new();
    out.extend((entries.len() as u16).to_be_bytes());
    for (tag, kind, value) in entries {
        let count = if *kind == 4 { 1 } else { value.len() as u32 };
        out.extend(tag.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(count.to_be_bytes());
        if value.len() <= 4 {
            let mut inline = value.clone();
            inline.resize(4, 0);
            out.extend(inline);
        } else {
            out.extend((values_at as u32).to_be_bytes());
            values.extend(value);
            values.resize(values.len() + value.len() % 2, 0);
            values_at += padded(value.len());
        }
    }
    out.extend([0; 4]);
    out.extend(values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Stamp;

    pub(crate) fn record(quality: Quality) -> Record {
        Record {
            v: 1,
            node: "n1".parse().unwrap(),
            id: "00c0ffee00c0ffee-42".parse().unwrap(),
            camera: "gate".parse().unwrap(),
            slots: vec![],
            taken: Stamp { boot: 1, boottime_ms: 5_000, wall_ms: 1_790_000_000_123, quality, uncertainty_ms: Some(3) },
            width: 8,
            height: 8,
            source: "pattern".into(),
            flags: vec![],
            mask: 0,
            config: "0".into(),
            sha256: String::new(),
            rev: 0,
            hash8: None,
        }
    }

    fn file(quality: Quality) -> (Vec<u8>, Hash8) {
        let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &[7u8; 500], &[0xFF, 0xD9]].concat();
        let made = compose(record(quality), &jpeg).unwrap();
        ([&made.head[..], &jpeg[2..]].concat(), made.hash8)
    }

    #[test]
    fn a_file_reads_back_and_every_flipped_bit_is_noticed() {
        let (good, hash) = file(Quality::Ntp);
        let meta = read(&good).unwrap();
        assert_eq!((meta.hash8, meta.record.id.seq.0), (hash, 42));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read(&bad).is_err(), "a flipped bit in byte {at} went unnoticed");
        }
        for len in 0..good.len() {
            assert!(read(&good[..len]).is_err(), "a file cut to {len} bytes went unnoticed");
        }
    }

    #[test]
    fn a_picture_is_dated_only_by_a_clock_that_can_be_believed() {
        let dated = |q| file(q).0.windows(4).any(|w| w == b"2026");
        assert!(dated(Quality::Ntp) && dated(Quality::Rtc));
        assert!(!dated(Quality::Saved) && !dated(Quality::Unset));
    }
}
