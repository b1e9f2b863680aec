//! Planes made smaller, by eighths: what the JPEG library does for a JPEG while it decodes, for pictures that come as planes.

use crate::image::frame::Yuv;

/// Planes of so many eighths (1–8) of their width and height, rounded up; each pixel is the mean of those that it stands for.
pub fn reduce(yuv: &Yuv, width: u32, height: u32, eighths: u32) -> (Yuv, u32, u32) {
    let (small_width, small_height) = (reduced(width, eighths), reduced(height, eighths));
    let (from, to) = ((width as usize, height as usize), (small_width as usize, small_height as usize));
    let (chroma_from, chroma_to) = (yuv.sampling.chroma(from.0, from.1), yuv.sampling.chroma(to.0, to.1));
    let small = Yuv {
        y: plane(&yuv.y, from, to, eighths),
        u: plane(&yuv.u, chroma_from, chroma_to, eighths),
        v: plane(&yuv.v, chroma_from, chroma_to, eighths),
        sampling: yuv.sampling,
    };
    (small, small_width, small_height)
}

/// One side of a picture so reduced.
pub fn reduced(side: u32, eighths: u32) -> u32 {
    (side * eighths).div_ceil(8)
}

fn plane(pixels: &[u8], (width, height): (usize, usize), to: (usize, usize), eighths: u32) -> Vec<u8> {
    let (columns, rows) = (shares(width, to.0, eighths), shares(height, to.1, eighths));
    let mut small = Vec::with_capacity(to.0 * to.1);
    for from_rows in &rows {
        for from_columns in &columns {
            let (mut sum, mut weight) = (0, 0);
            for &(row, high) in from_rows {
                for &(column, wide) in from_columns {
                    sum += u32::from(pixels[row * width + column]) * high * wide;
                    weight += high * wide;
                }
            }
            small.push((sum + weight / 2).checked_div(weight).unwrap_or(0) as u8);
        }
    }
    small
}

/// For each place of a reduced line, which places of the full one it covers, and how much of each. Lengths are counted in eighths of a
/// reduced place: a full one has `eighths` of them, a reduced one 8.
fn shares(full: usize, small: usize, eighths: u32) -> Vec<Vec<(usize, u32)>> {
    let (n, full) = (eighths as usize, full.max(1));
    let share = |at: usize| {
        let (begin, end) = (at * 8, at * 8 + 8);
        // The last place may reach over the edge.
        let covered = (begin / n).min(full - 1)..end.div_ceil(n).min(full);
        covered.map(|from| (from, (end.min(from * n + n).saturating_sub(begin.max(from * n))).max(1) as u32)).collect()
    };
    (0..small).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::frame::Sampling;

    fn ramp(width: usize, height: usize, sampling: Sampling) -> Yuv {
        let (cw, ch) = sampling.chroma(width, height);
        let y = (0..width * height).map(|i| (i % width * 255 / width) as u8).collect();
        Yuv { y, u: vec![90; cw * ch], v: vec![160; cw * ch], sampling }
    }

    #[test]
    fn every_reduction_of_every_odd_size_fits_and_keeps_its_levels() {
        for sampling in [Sampling::Yuv420, Sampling::Yuv422, Sampling::Gray] {
            for (width, height) in [(1, 1), (3, 5), (17, 9), (64, 48), (167, 93)] {
                for eighths in 1..=8 {
                    let (small, w, h) = reduce(&ramp(width as usize, height as usize, sampling), width, height, eighths);
                    assert!(small.fits(w, h), "{sampling:?} {width}x{height} {eighths}");
                    assert_eq!((w, h), ((width * eighths).div_ceil(8), (height * eighths).div_ceil(8)));
                    assert!(small.u.iter().all(|u| *u == 90) && small.v.iter().all(|v| *v == 160));
                }
            }
        }
    }

    #[test]
    fn all_of_it_is_the_same_and_half_of_it_the_mean_of_pairs() {
        let full = ramp(64, 8, Sampling::Gray);
        assert_eq!(reduce(&full, 64, 8, 8).0.y, full.y);
        let half = reduce(&full, 64, 8, 4).0.y;
        assert_eq!(half[5], (u16::from(full.y[10]) + u16::from(full.y[11])).div_ceil(2) as u8);
        // Five eighths: the first place covers one pixel and three fifths of the next.
        let five = reduce(&full, 64, 8, 5).0.y;
        let first = (f64::from(full.y[0]) * 5.0 + f64::from(full.y[1]) * 3.0) / 8.0;
        assert_eq!(five[0], first.round() as u8);
    }
}
