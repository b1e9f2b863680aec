//! When a camera just opened has found its exposure: the first frames of most are dark, white or green.
//!
//! Settled means that the mean brightness of three frames in a row differs by a little at most. Simple, and honest about its limits:
//! the caller has a budget, and a picture taken at its end says so.

/// Frames in a row that must agree.
const FRAMES: usize = 3;
/// By how much their means may differ, of 255.
const SPREAD: u8 = 4;
/// Below this mean a frame is dark. Some cameras send dark frames until the first exposure is through, so darkness is believed only
/// after so many frames; at night that is all it costs.
const DARK: u8 = 20;
const DARK_FRAMES: usize = 15;

#[derive(Debug, Default)]
pub struct Settling {
    last: Vec<u8>,
    seen: usize,
}

impl Settling {
    /// Takes the mean brightness of the next frame; true when it is one to keep.
    pub fn settled(&mut self, mean: u8) -> bool {
        self.seen += 1;
        if self.last.len() == FRAMES {
            self.last.remove(0);
        }
        self.last.push(mean);
        let spread = self.last.iter().max().zip(self.last.iter().min()).map_or(0, |(high, low)| high - low);
        self.last.len() == FRAMES && spread <= SPREAD && (mean >= DARK || self.seen >= DARK_FRAMES)
    }
}

pub fn mean(luma: impl Iterator<Item = u8>) -> u8 {
    let (sum, count) = luma.fold((0u64, 0u64), |(sum, count), level| (sum + u64::from(level), count + 1));
    (sum / count.max(1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames_until_settled(means: impl IntoIterator<Item = u8>) -> Option<usize> {
        let mut settling = Settling::default();
        means.into_iter().position(|mean| settling.settled(mean)).map(|index| index + 1)
    }

    #[test]
    fn a_camera_that_rises_from_black_is_waited_for_and_a_steady_one_is_not() {
        assert_eq!(frames_until_settled([90, 91, 90]), Some(3));
        assert_eq!(frames_until_settled([2, 2, 2, 2, 30, 60, 85, 96, 99, 100, 100]), Some(10));
        assert_eq!(frames_until_settled([255, 255, 200, 140, 120, 118, 117]), Some(7));
        assert_eq!(frames_until_settled((0..200).map(|n| if n % 2 == 0 { 50 } else { 90 })), None, "flicker never settles");
    }

    #[test]
    fn at_night_darkness_is_believed_in_the_end() {
        assert_eq!(frames_until_settled([3; 100]), Some(DARK_FRAMES));
    }

    #[test]
    fn a_mean_is_a_mean() {
        assert_eq!((mean([].into_iter()), mean([10, 20].into_iter()), mean([255; 9].into_iter())), (0, 15, 255));
    }
}
