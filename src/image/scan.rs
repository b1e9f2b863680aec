//! Follows the bits of a baseline JPEG scan without computing a pixel: where each part of it really ends.
//!
//! Two questions need it, and only pictures that raise them pay for it. Is a scan without an end marker complete? And: which bytes
//! before a restart marker belong to nothing? Common webcams (Logitech C270, C910) put some there in every picture; decoders
//! warn of them, and a strict one refuses the picture.
//!
//! Only what such cameras send is followed: sequential Huffman coding, all components in one scan, 8 bits.

use std::ops::Range;

/// What cameras put before a restart marker is one to nine bytes; more is a part of a picture that was damaged on the way.
const SURPLUS_MAX: usize = 15;
/// Bits that one look into a table answers; longer codes are rare.
const LOOK: u32 = 9;

/// A Huffman table as T.81 annex C numbers its codes.
#[derive(Debug, Clone)]
pub struct Table {
    /// Length and symbol of the code that these bits start with; length 0 for none or a longer one.
    short: [(u8, u8); 1 << LOOK],
    /// For each length: the first code that is longer, aligned to 16 bits, and what turns a code into an index of `symbols`.
    limits: [(u32, i32); 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From a DHT segment's code counts and symbols; none where they are no code.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
        let symbols = symbols.get(..total).filter(|s| s.len() <= 256)?.to_vec();
        let mut table = Self { short: [(0, 0); 1 << LOOK], limits: [(0, 0); 17], symbols };
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = u32::from(counts[length as usize - 1]);
            table.limits[length as usize].1 = index as i32 - code as i32;
            for _ in 0..count {
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    let same = table.short.get_mut(first..first + (1 << (LOOK - length)))?;
                    same.fill((length as u8, table.symbols[index]));
                }
                code += 1;
                index += 1;
            }
            if code > 1 << length {
                return None;
            }
            table.limits[length as usize].0 = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }
}

/// What a scan's blocks look like.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// DC and AC table of each block of an MCU, in order.
    pub blocks: Vec<(&'a Table, &'a Table)>,
    pub mcus: u64,
    /// MCUs between restart markers; 0 for none.
    pub restart: u32,
}

/// The scan's end as its bits say, and bytes within it that belong to nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Followed {
    pub end: usize,
    pub surplus: Vec<Range<usize>>,
}

/// Follows the scan that starts at `start`; none where it is cut, corrupt, has its restart markers in
/// another order or too much before one.
pub fn follow(jpeg: &[u8], start: usize, shape: &Shape) -> Option<Followed> {
    let mut surplus = Vec::new();
    let mut bits = Bits { jpeg, at: start, held: 0, count: 0 };
    let mut left = shape.mcus;
    let mut restarts = 0u8;
    loop {
        let part = if shape.restart == 0 { left } else { left.min(shape.restart.into()) };
        for _ in 0..part {
            for (dc, ac) in &shape.blocks {
                bits.block(dc, ac)?;
            }
        }
        left -= part;
        let end = bits.reached();
        if left == 0 {
            return Some(Followed { end, surplus });
        }
        let marker = next_marker(jpeg, end)?;
        if marker - end > SURPLUS_MAX || jpeg.get(marker + 1) != Some(&(0xd0 | restarts & 7)) {
            return None;
        }
        // Any number of ff may stand before a marker.
        if jpeg[end..marker].iter().any(|&byte| byte != 0xff) {
            surplus.push(end..marker);
        }
        restarts = restarts.wrapping_add(1);
        bits = Bits { jpeg, at: marker + 2, held: 0, count: 0 };
    }
}

/// The first marker from `at` on; a stuffed ff is none.
fn next_marker(jpeg: &[u8], at: usize) -> Option<usize> {
    let found = jpeg.get(at..)?.windows(2).position(|two| two[0] == 0xff && !matches!(two[1], 0x00 | 0xff))?;
    Some(at + found)
}

/// Reads the bits of one part of a scan, up to the next marker.
struct Bits<'a> {
    jpeg: &'a [u8],
    at: usize,
    /// The lowest `count` bits are those read but not used yet.
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// As many whole bytes as fit, fewer where a marker or the end comes first.
    #[inline]
    fn fill(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.jpeg.get(self.at) else { return };
            if byte == 0xff {
                if self.jpeg.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    #[inline]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        if self.count < 32 {
            self.fill();
        }
        // What is missing reads as zeros; that no code uses them is checked when its length is known.
        let ahead = if self.count >= 16 { self.held >> (self.count - 16) } else { self.held << (16 - self.count) } as u32 & 0xffff;
        let (length, symbol) = table.short[(ahead >> (16 - LOOK)) as usize];
        if length > 0 {
            self.skip(length.into())?;
            return Some(symbol);
        }
        let length = (LOOK + 1..=16).find(|&length| ahead < table.limits[length as usize].0)?;
        self.skip(length)?;
        let index = (ahead >> (16 - length)) as i32 + table.limits[length as usize].1;
        table.symbols.get(usize::try_from(index).ok()?).copied()
    }

    #[inline]
    fn skip(&mut self, length: u32) -> Option<()> {
        if self.count < length {
            self.fill();
        }
        self.count = self.count.checked_sub(length)?;
        Some(())
    }

    #[inline]
    fn block(&mut self, dc: &Table, ac: &Table) -> Option<()> {
        let size = self.symbol(dc)?;
        if size > 15 {
            return None;
        }
        self.skip(size.into())?;
        let mut coefficient = 1;
        while coefficient < 64 {
            let symbol = self.symbol(ac)?;
            match (symbol >> 4, symbol & 15) {
                (15, 0) => coefficient += 16,
                (_, 0) => break,
                (zeros, size) => {
                    coefficient += u32::from(zeros) + 1;
                    self.skip(size.into())?;
                }
            }
        }
        (coefficient <= 64).then_some(())
    }

    /// Where the byte ends that the last used bit stands in.
    fn reached(&self) -> usize {
        let mut at = self.at;
        for _ in 0..self.count / 8 {
            let stuffed = at >= 2 && self.jpeg[at - 2..at] == [0xff, 0];
            at -= if stuffed { 2 } else { 1 };
        }
        at
    }
}
