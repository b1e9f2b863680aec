//! What cheap cameras leave out of a JPEG or put around it, mended without touching the picture.
//!
//! | found | done |
//! |---|---|
//! | no Huffman tables (Motion JPEG as in AVI files) | the standard ones (ITU T.81, K.3) as a segment of their own |
//! | bytes after the end marker | cut off |
//! | no end marker | zeros at the end cut off, the marker added |
//! | bytes before the start marker, or a start marker twice | cut off, if they are few |
//!
//! A whole JPEG comes back as it was, byte for byte, after a walk over its markers: nothing is decoded and nothing allocated. A
//! byte of the scan is never changed, so the picture's pixels are those the camera coded.
//!
//! Without decoding nobody can say that a scan is complete. An end marker is therefore added only where the decoder that follows
//! (`jpeg::check`, in the honesty gate) must notice what is missing: in one scan that codes every component once. Of a picture in
//! several scans, a cut at the end of one is a valid poorer picture, so there a missing end is an error.

use crate::image::jpeg::ImageError;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;
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
/// No start marker, a header that is cut or leads nowhere, a scan that another picture interrupts, or no end where none may be added.
pub fn repair(mut jpeg: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let lead = lead(&jpeg)?;
    let walk = walk(&jpeg, lead + 2)?;
    jpeg.truncate(walk.end);
    if !walk.ended {
        jpeg.extend([0xff, EOI]);
    }
    if walk.lacks_tables {
        let segment = standard_segment();
        jpeg.splice(walk.tables_at..walk.tables_at, segment);
    }
    jpeg.drain(..lead);
    Ok(jpeg)
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

/// What a walk over the markers found.
struct Walk {
    /// Where the picture ends: behind its end marker, or behind the scan's last byte.
    end: usize,
    ended: bool,
    lacks_tables: bool,
    /// Behind what must stand at the front (JFIF, EXIF, comments), before everything else.
    tables_at: usize,
}

/// What the headers say, as far as it matters here.
#[derive(Default)]
struct Header {
    /// Components, where the coding is sequential with Huffman codes; none for any other coding.
    sequential: Option<u8>,
    /// Huffman tables that are there: a bit for each class and number.
    tables: u8,
    lacks_tables: bool,
    tables_at: Option<usize>,
    scans: u32,
    /// The last scan codes every component.
    complete: bool,
}

fn walk(jpeg: &[u8], start: usize) -> Result<Walk, ImageError> {
    let mut header = Header::default();
    let mut at = start;
    loop {
        let (marker, next) = marker(jpeg, at)?;
        if !matches!(marker, 0xe0..=0xef | 0xfe) {
            header.tables_at.get_or_insert(at);
        }
        at = match marker {
            EOI if header.scans > 0 => return Ok(header.walked(next, true, at)),
            EOI => return Err(damaged("it ends before its first scan")),
            // Stand-alone markers have no business in a header, and a second start is a second picture.
            0x00..=0xbf | 0xd0..=SOI => return Err(damaged(format!("an unexpected marker ff{marker:02x} at byte {at}"))),
            _ => {
                let (content, after) = segment(jpeg, next)?;
                header.note(marker, content);
                if marker == SOS {
                    match scan_end(jpeg, after) {
                        Some(end) => end,
                        None => return header.unended(jpeg, after),
                    }
                } else {
                    after
                }
            }
        };
    }
}

impl Header {
    fn note(&mut self, marker: u8, content: &[u8]) {
        match marker {
            0xc0 | 0xc1 => self.sequential = content.get(5).copied(),
            DHT => self.tables |= tables_of(content),
            SOS => self.note_scan(content),
            _ => {}
        }
    }

    fn note_scan(&mut self, content: &[u8]) {
        self.scans += 1;
        let count = content.first().copied().unwrap_or(0);
        self.complete = self.sequential == Some(count);
        if self.sequential.is_some() {
            let components = content.get(1..).unwrap_or_default().as_chunks::<2>().0;
            for [_, numbers] in components.iter().take(count.into()) {
                let needed = bit(0, numbers >> 4) | bit(1, numbers & 15);
                self.lacks_tables |= needed & !self.tables != 0;
            }
        }
    }

    fn walked(self, end: usize, ended: bool, otherwise: usize) -> Walk {
        Walk { end, ended, lacks_tables: self.lacks_tables, tables_at: self.tables_at.unwrap_or(otherwise) }
    }

    /// A scan that runs to the end of the bytes.
    fn unended(self, jpeg: &[u8], scan: usize) -> Result<Walk, ImageError> {
        if self.scans != 1 || !self.complete {
            return Err(damaged("it ends without an end marker, in one of several scans"));
        }
        let zeros = jpeg[scan..].iter().rev().take_while(|&&byte| byte == 0).count();
        let mut end = jpeg.len() - zeros;
        // The zero behind ff belongs to the scan: it says that the ff is no marker.
        if zeros > 0 && end > scan && jpeg[end - 1] == 0xff {
            end += 1;
        }
        Ok(self.walked(end, false, scan))
    }
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

/// One bit per table: DC 0 to 3, AC 0 to 3.
fn bit(class: u8, number: u8) -> u8 {
    1 << ((class & 1) * 4 + (number & 3))
}

/// The tables a DHT segment defines.
fn tables_of(mut content: &[u8]) -> u8 {
    let mut tables = 0;
    while let Some((head, rest)) = content.split_first_chunk::<17>() {
        tables |= bit(head[0] >> 4, head[0] & 15);
        let values = head[1..].iter().map(|&n| usize::from(n)).sum();
        content = rest.get(values..).unwrap_or_default();
    }
    tables
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
mod tests {
    use super::*;
    use crate::image::frame::{Sampling, Yuv};
    use crate::image::jpeg;

    #[test]
    fn a_whole_picture_comes_back_as_it_was() {
        let yuv = Yuv { y: vec![90; 64 * 48], u: vec![128; 32 * 48], v: vec![100; 32 * 48], sampling: Sampling::Yuv422 };
        let whole = jpeg::encode(&yuv, 64, 48, 85).unwrap();
        assert_eq!(repair(whole.clone()).unwrap(), whole);
        let padded = [&whole[..], &[0; 100]].concat();
        assert_eq!(repair(padded).unwrap(), whole);
    }
}
