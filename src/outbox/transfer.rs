//! How one picture travels: whole in one packet, or `init`, the chunks the hub lacks, `fin`.
//!
//! `fin` is sent only after the broker has taken every chunk, so that a refused chunk is never followed by a claim that
//! all were sent.

use std::collections::VecDeque;

/// How long to wait for the hub to say what it already holds, before everything is sent.
pub const PART_WAIT_MS: u64 = 15_000;

/// One packet of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Whole,
    Init,
    /// Bytes `[from, to)`.
    Chunk {
        from: u64,
        to: u64,
    },
    Fin,
}

#[derive(Debug)]
enum Phase {
    Whole,
    Init,
    AwaitPart { until_ms: u64 },
    Chunks { missing: VecDeque<(u64, u64)> },
    Sent,
}

/// A picture whose bytes are in memory.
#[derive(Debug)]
pub struct Transfer {
    len: u64,
    payload_max: u64,
    phase: Phase,
    /// Packets sent that the broker has not acknowledged.
    unacked: usize,
}

impl Transfer {
    pub fn new(len: u64, payload_max: u64) -> Self {
        let phase = if len <= payload_max { Phase::Whole } else { Phase::Init };
        Self { len, payload_max, phase, unacked: 0 }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// What could be sent now.
    pub fn ready(&self) -> Option<Piece> {
        match &self.phase {
            Phase::Whole => Some(Piece::Whole),
            Phase::Init => Some(Piece::Init),
            Phase::Chunks { missing } => match missing.front() {
                Some(&(from, to)) => Some(Piece::Chunk { from, to: to.min(from + self.payload_max) }),
                None => (self.unacked == 0).then_some(Piece::Fin),
            },
            Phase::AwaitPart { .. } | Phase::Sent => None,
        }
    }

    /// Takes note that [`Self::ready`] is being sent.
    pub fn sending(&mut self, piece: Piece, now_ms: u64) {
        self.unacked += 1;
        match piece {
            Piece::Init => self.phase = Phase::AwaitPart { until_ms: now_ms + PART_WAIT_MS },
            Piece::Whole | Piece::Fin => self.phase = Phase::Sent,
            Piece::Chunk { to, .. } => {
                if let Phase::Chunks { missing } = &mut self.phase
                    && let Some(front) = missing.pop_front()
                    && to < front.1
                {
                    missing.push_front((to, front.1));
                }
            }
        }
    }

    /// The broker took a packet; true when it has taken all of them.
    pub fn delivered(&mut self) -> bool {
        self.unacked = self.unacked.saturating_sub(1);
        self.unacked == 0 && matches!(self.phase, Phase::Sent)
    }

    /// The hub says which byte ranges it holds. It may say so late: what was not sent yet is then left out.
    pub fn held(&mut self, ranges: &[(u64, u64)]) {
        match &mut self.phase {
            Phase::Init | Phase::AwaitPart { .. } => self.phase = Phase::Chunks { missing: without(&[(0, self.len)], ranges).into() },
            Phase::Chunks { missing } => *missing = without(missing.make_contiguous(), ranges).into(),
            Phase::Whole | Phase::Sent => {}
        }
    }

    /// A hub that does not answer an `init` gets everything.
    pub fn tick(&mut self, now_ms: u64) {
        if self.wake_ms().is_some_and(|at| now_ms >= at) {
            self.held(&[]);
        }
    }

    pub fn wake_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::AwaitPart { until_ms } => Some(until_ms),
            _ => None,
        }
    }
}

/// What remains of `missing` (ascending, disjoint) without the `held` ranges, which come from outside: any order, any overlap,
/// inverted or out of bounds.
fn without(missing: &[(u64, u64)], held: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut held: Vec<_> = held.iter().copied().filter(|(from, to)| from < to).collect();
    held.sort_unstable();
    let mut left = Vec::new();
    for &(mut from, to) in missing {
        for &(held_from, held_to) in &held {
            if held_to <= from || held_from >= to {
                continue;
            }
            if held_from > from {
                left.push((from, held_from));
            }
            from = held_to;
            if from >= to {
                break;
            }
        }
        if from < to {
            left.push((from, to));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(transfer: &mut Transfer) -> Vec<Piece> {
        let mut sent = Vec::new();
        while let Some(piece) = transfer.ready() {
            transfer.sending(piece, 0);
            sent.push(piece);
            transfer.delivered();
        }
        sent
    }

    #[test]
    fn a_small_picture_is_one_packet_and_a_large_one_asks_first() {
        assert_eq!(drain(&mut Transfer::new(100, 100)), [Piece::Whole]);
        let mut large = Transfer::new(250, 100);
        assert_eq!(drain(&mut large), [Piece::Init]);
        large.held(&[]);
        let chunk = |from, to| Piece::Chunk { from, to };
        assert_eq!(drain(&mut large), [chunk(0, 100), chunk(100, 200), chunk(200, 250), Piece::Fin]);
    }

    #[test]
    fn only_missing_bytes_are_sent_again() {
        let mut large = Transfer::new(250, 100);
        drain(&mut large);
        large.held(&[(100, 200), (9, 3), (240, u64::MAX)]);
        assert_eq!(drain(&mut large), [Piece::Chunk { from: 0, to: 100 }, Piece::Chunk { from: 200, to: 240 }, Piece::Fin]);
    }

    #[test]
    fn a_silent_hub_gets_everything_after_the_wait() {
        let mut large = Transfer::new(250, 100);
        drain(&mut large);
        large.tick(PART_WAIT_MS - 1);
        assert_eq!(large.ready(), None);
        large.tick(PART_WAIT_MS);
        assert_eq!(large.ready(), Some(Piece::Chunk { from: 0, to: 100 }));
    }

    #[test]
    fn fin_waits_until_the_broker_has_every_chunk() {
        let mut large = Transfer::new(150, 100);
        drain(&mut large);
        large.held(&[]);
        for _ in 0..2 {
            let piece = large.ready().unwrap();
            large.sending(piece, 0);
        }
        assert_eq!(large.ready(), None);
        large.delivered();
        assert_eq!(large.ready(), None);
        large.delivered();
        assert_eq!(large.ready(), Some(Piece::Fin));
    }

    proptest! {
        #[test]
        fn held_and_missing_are_the_whole_for_any_ranges(held in prop::collection::vec((0u64..300, 0u64..300), 0..12)) {
            let left = without(&[(0, 250)], &held);
            for byte in 0..250 {
                let is_held = held.iter().any(|(from, to)| (*from..*to).contains(&byte));
                let is_left = left.iter().filter(|(from, to)| (*from..*to).contains(&byte)).count();
                prop_assert_eq!(is_left, usize::from(!is_held));
            }
        }
    }
}
