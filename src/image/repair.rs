//! What cameras leave out of a JPEG or put between its parts, mended without touching the picture.
//!
//! | found | done |
//! |---|---|
//! | no Huffman tables (Motion JPEG as in AVI files) | the standard ones (ITU T.81, K.3) as a segment of their own |
//! | bytes after the end marker | cut off |
//! | no end marker, but a complete scan | what follows the scan is cut off, the marker added |
//! | bytes between a part of the scan and its restart marker (Logitech C270, C910) | cut out |
//! | a few bytes before the start marker, or a start marker twice | cut off |
//!
//! A whole JPEG comes back as it was, byte for byte, after a walk over its markers: nothing is decoded and nothing allocated. No bit that
//! codes a pixel is ever changed. Only pictures with restart markers or without an end have their scan's bits followed
//! (`scan.rs`), so a cut picture never gets an end marker. Whether the rest is sound is for the decoder in the honesty gate to say.

use crate::image::jpeg::ImageError;
use crate::image::scan::{self, Shape, Table};
use std::ops::Range;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;
const DRI: u8 = 0xdd;
/// Cameras that put something before the start marker put in a few bytes; more than this is another thing than a JPEG.
const LEAD_MAX: usize = 1024;

/// The tables of ITU T.81, K.3: class and number, codes of each length, values.
#[rustfmt::skip]
const STANDARD_TABLES: [(u8, [u8; 16], &[u8]); 4] = [
    (0x00, [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    (0x01, [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    (0x10, [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d], &[
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32,
        0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16,
        0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45,
        0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
        0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94,
        0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6,
        0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8,
        0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
        0xf9, 0xfa,
    ]),
    (0x11, [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77], &[
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81,
        0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34,
        0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44,
        0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
        0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92,
        0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4,
        0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6,
        0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
        0xf9, 0xfa,
    ]),
];

/// A picture in a buffer of a camera as a JPEG that any viewer shows.
/// # Errors
/// No start marker, a header that is cut or leads nowhere, a scan that is cut, or one that another picture interrupts.
pub fn repair(mut jpeg: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let lead = lead(&jpeg)?;
    let Plan { end, ended, tables_at, surplus } = plan(&jpeg, lead + 2)?;
    jpeg.truncate(end);
    if !ended {
        jpeg.extend([0xff, EOI]);
    }
    cut_out(&mut jpeg, &surplus);
    if let Some(at) = tables_at {
        jpeg.splice(at..at, standard_segment());
    }
    jpeg.drain(..lead);
    Ok(jpeg)
}

fn cut_out(bytes: &mut Vec<u8>, surplus: &[Range<usize>]) {
    let Some(mut to) = surplus.first().map(|first| first.start) else { return };
    for (index, cut) in surplus.iter().enumerate() {
        let until = surplus.get(index + 1).map_or(bytes.len(), |next| next.start);
        bytes.copy_within(cut.end..until, to);
        to += until - cut.end;
    }
    bytes.truncate(to);
}

/// Where the last of the start markers at the front stands.
fn lead(jpeg: &[u8]) -> Result<usize, ImageError> {
    let window = &jpeg[..jpeg.len().min(LEAD_MAX + 3)];
    let start = window.windows(3).position(|three| three == [0xff, SOI, 0xff]);
    let mut start = start.ok_or_else(|| match jpeg.len() {
        0 => damaged("the camera sent no bytes"),
        _ => damaged(format!("no start marker in the first {} bytes", window.len())),
    })?;
    while start <= LEAD_MAX && jpeg.get(start + 2..start + 4) == Some(&[0xff, SOI]) {
        start += 2;
    }
    Ok(start)
}

/// What is to be done.
struct Plan {
    /// Where the picture ends: behind its end marker, or behind its scan.
    end: usize,
    /// There is an end marker.
    ended: bool,
    /// Where the standard tables belong, if they are missing.
    tables_at: Option<usize>,
    surplus: Vec<Range<usize>>,
}

fn plan(jpeg: &[u8], start: usize) -> Result<Plan, ImageError> {
    let mut header = Header::default();
    let mut at = start;
    // Behind what must stand at the front: JFIF, EXIF, comments.
    let mut front = None;
    loop {
        let (marker, next) = marker(jpeg, at)?;
        if !matches!(marker, 0xe0..=0xef | 0xfe) {
            front.get_or_insert(at);
        }
        let tables_at = if header.lacks_tables { front } else { None };
        at = match marker {
            EOI if header.scans > 0 => return Ok(Plan { end: next, ended: true, tables_at, surplus: header.surplus(jpeg, at) }),
            // Stand-alone markers have no business here, and a second start is a second picture.
            0x00..=0xbf | 0xd0..=EOI => return Err(damaged(format!("an unexpected marker ff{marker:02x} at byte {at}"))),
            _ => {
                let (content, after) = segment(jpeg, next)?;
                header.note(marker, content, after);
                if marker != SOS {
                    after
                } else if let Some(end) = scan_end(jpeg, after) {
                    end
                } else {
                    let tables_at = if header.lacks_tables { front } else { None };
                    let followed = header.follow(jpeg).filter(|followed| only_padding(jpeg, followed.end));
                    let followed = followed.ok_or_else(|| damaged("it is cut: its scan ends too early"))?;
                    return Ok(Plan { end: followed.end, ended: false, tables_at, surplus: followed.surplus });
                }
            }
        };
    }
}

/// What the headers say, as far as it matters here.
#[derive(Default)]
struct Header<'a> {
    /// The frame's header, where the coding is sequential with Huffman codes; none for any other coding.
    frame: Option<&'a [u8]>,
    /// Code counts and symbols by class and number: DC 0 to 3, AC 0 to 3.
    tables: [Option<(&'a [u8; 16], &'a [u8])>; 8],
    restart: u16,
    scans: u32,
    /// Header of the last scan, and where its bits start.
    scan: &'a [u8],
    scan_at: usize,
    lacks_tables: bool,
}

impl<'a> Header<'a> {
    fn note(&mut self, marker: u8, content: &'a [u8], after: usize) {
        match marker {
            0xc0 | 0xc1 => self.frame = Some(content),
            DHT => self.note_tables(content),
            DRI => self.restart = content.first_chunk().map_or(0, |n| u16::from_be_bytes(*n)),
            SOS => {
                self.scans += 1;
                (self.scan, self.scan_at) = (content, after);
                if self.frame.is_some() {
                    let missing = |slot: usize| self.tables[slot].is_none();
                    self.lacks_tables |= self.components().iter().any(|&[_, numbers]| slots(numbers).into_iter().any(missing));
                }
            }
            _ => {}
        }
    }

    fn note_tables(&mut self, mut content: &'a [u8]) {
        while let Some((&[head], rest)) = content.split_first_chunk()
            && let Some((counts, rest)) = rest.split_first_chunk::<16>()
        {
            let total = counts.iter().map(|&n| usize::from(n)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(total) else { return };
            self.tables[slot_of(head)] = Some((counts, symbols));
            content = rest;
        }
    }

    /// Each component of the last scan: its name and its tables' numbers.
    fn components(&self) -> &'a [[u8; 2]] {
        let Some((&count, rest)) = self.scan.split_first() else { return &[] };
        let all = rest.as_chunks().0;
        all.get(..count.into()).unwrap_or(all)
    }

    /// Bytes to cut out of a scan with restart markers, and between it and the end marker at `end`. Where it cannot be followed, the
    /// decoder will judge it as it is.
    fn surplus(&self, jpeg: &[u8], end: usize) -> Vec<Range<usize>> {
        if self.restart == 0 {
            return Vec::new();
        }
        let Some(mut followed) = self.follow(jpeg) else { return Vec::new() };
        if scan_end(jpeg, followed.end) == Some(end) && jpeg[followed.end..end].iter().any(|&byte| byte != 0xff) {
            followed.surplus.push(followed.end..end);
        }
        followed.surplus
    }

    /// Follows the only scan; none where there are more, or where it does not code every component.
    fn follow(&self, jpeg: &[u8]) -> Option<scan::Followed> {
        let (head, frame) = self.frame?.split_first_chunk::<6>()?;
        let &[bits, h0, h1, w0, w1, count] = head;
        let (height, width) = (u32::from(u16::from_be_bytes([h0, h1])), u32::from(u16::from_be_bytes([w0, w1])));
        let parts: &[[u8; 3]] = frame.as_chunks().0.get(..count.into())?;
        if self.scans != 1 || bits != 8 || self.components().len() != parts.len() {
            return None;
        }
        let tables = self.built();
        let mut blocks = Vec::new();
        let (mut wide, mut high) = (1, 1);
        for &[name, numbers] in self.components() {
            let [_, factors, _] = parts.iter().find(|part| part[0] == name)?;
            // A single component comes block by block, whatever its factors say.
            let (h, v) = if parts.len() == 1 { (1, 1) } else { (factors >> 4, factors & 15) };
            (wide, high) = (wide.max(u32::from(h)), high.max(u32::from(v)));
            let [dc, ac] = slots(numbers).map(|slot| tables[slot].as_ref());
            blocks.extend(std::iter::repeat_n((dc?, ac?), usize::from(h) * usize::from(v)));
        }
        // More blocks in an MCU are against the standard (T.81, B.2.3).
        if blocks.is_empty() || blocks.len() > 10 {
            return None;
        }
        let mcus = u64::from(width.div_ceil(8 * wide)) * u64::from(height.div_ceil(8 * high));
        scan::follow(jpeg, self.scan_at, &Shape { blocks, mcus, restart: self.restart.into() })
    }

    /// The picture's own tables, and the standard ones where they will be put in.
    fn built(&self) -> [Option<Table>; 8] {
        std::array::from_fn(|slot| {
            let standard =
                || STANDARD_TABLES.iter().find(|(number, ..)| slot_of(*number) == slot).map(|(_, counts, symbols)| (counts, *symbols));
            let (counts, symbols) = self.tables[slot].or_else(standard)?;
            Table::new(counts, symbols)
        })
    }
}

/// True where a scan that ends at `end` has nothing but zeros (or ff) behind it, and is not itself made of them: zeros are codes too,
/// and behind a cut scan they, or what an older picture left in the buffer, would make it seem complete.
fn only_padding(jpeg: &[u8], end: usize) -> bool {
    let Some(&last) = jpeg.last().filter(|last| matches!(last, 0x00 | 0xff)) else { return end == jpeg.len() };
    let padding = jpeg.len() - jpeg.iter().rev().take_while(|&&byte| byte == last).count();
    // The zero of a stuffed ff may be the scan's last byte.
    end == padding || end == padding + 1 && jpeg[padding - 1] == 0xff || end == jpeg.len() && end <= padding + 1
}

/// The DC and the AC table that a component's entry names.
fn slots(numbers: u8) -> [usize; 2] {
    [usize::from(numbers >> 4 & 3), 4 + usize::from(numbers & 3)]
}

/// The same for a table's own head: class and number.
fn slot_of(head: u8) -> usize {
    usize::from(head >> 4 & 1) * 4 + usize::from(head & 3)
}

/// The marker at `at`, behind any fill bytes, and what follows it.
fn marker(jpeg: &[u8], at: usize) -> Result<(u8, usize), ImageError> {
    let rest = jpeg.get(at..).unwrap_or_default();
    let fill = rest.iter().take_while(|&&byte| byte == 0xff).count();
    match rest.get(fill) {
        Some(&marker) if fill > 0 => Ok((marker, at + fill + 1)),
        Some(_) => Err(damaged(format!("no marker at byte {at}, where one is due"))),
        None => Err(damaged("it ends in its header")),
    }
}

/// A segment's content and what follows it; `at` is its length field, which counts itself.
fn segment(jpeg: &[u8], at: usize) -> Result<(&[u8], usize), ImageError> {
    let cut = || damaged("it ends in its header");
    let length = jpeg.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
    let end = at + usize::from(u16::from_be_bytes(*length));
    if end < at + 2 {
        return Err(damaged(format!("a segment of no length at byte {at}")));
    }
    Ok((jpeg.get(at + 2..end).ok_or_else(cut)?, end))
}

/// The first marker behind a scan's bytes; none where the bytes end first.
fn scan_end(jpeg: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let found = at + position_of_ff(jpeg.get(at..)?)?;
        match jpeg.get(found + 1)? {
            // Stuffing, restart markers, and the first of several fill bytes.
            0x00 | 0xd0..=0xd7 => at = found + 2,
            0xff => at = found + 1,
            _ => return Some(found),
        }
    }
}

/// As `position`, but with the C library's vector code (`skip_until` on a slice uses it): a scan is megabytes, and this is all
/// that is done to it.
fn position_of_ff(mut bytes: &[u8]) -> Option<usize> {
    let whole = bytes;
    let read = std::io::BufRead::skip_until(&mut bytes, 0xff).ok()?;
    (read > 0 && whole[read - 1] == 0xff).then(|| read - 1)
}

fn standard_segment() -> Vec<u8> {
    let mut content = Vec::new();
    for (number, lengths, values) in STANDARD_TABLES {
        content.push(number);
        content.extend(lengths);
        content.extend(values);
    }
    let length = (content.len() + 2) as u16;
    [&[0xff, DHT], &length.to_be_bytes()[..], &content].concat()
}

fn damaged(cause: impl Into<String>) -> ImageError {
    ImageError::Damaged { cause: cause.into() }
}

#[cfg(test)]
mod tests;
