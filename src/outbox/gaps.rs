//! Which gap message goes next: in order, a bounded number at a time, again after silence.

use crate::model::GAPS_IN_FLIGHT_MAX;
use std::collections::VecDeque;

/// Silence after which unconfirmed messages are sent again.
pub const RESEND_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub struct Gaps {
    confirmed: u64,
    /// Highest number ever sent: the hub can have nothing beyond it.
    highest: u64,
    in_flight: VecDeque<u64>,
    resend_ms: u64,
    /// Nothing more in the store, as far as is known.
    dry: bool,
}

impl Gaps {
    /// The number after which the next message is to be looked up, if one may go out now.
    pub fn wanted_after(&self) -> Option<u64> {
        let room = !self.dry && self.in_flight.len() < GAPS_IN_FLIGHT_MAX;
        room.then(|| self.in_flight.back().copied().unwrap_or(self.confirmed))
    }

    pub fn sending(&mut self, no: u64, now_ms: u64) {
        self.in_flight.push_back(no);
        self.highest = self.highest.max(no);
        self.resend_ms = now_ms + RESEND_MS;
    }

    /// The store has no further message; [`Self::news`] says otherwise.
    pub fn none_left(&mut self) {
        self.dry = true;
    }

    pub fn news(&mut self) {
        self.dry = false;
    }

    /// The hub has everything up to `no`. Returns how far that is believed: never beyond what was sent.
    pub fn confirmed(&mut self, no: u64, now_ms: u64) -> u64 {
        let no = no.min(self.highest);
        if no > self.confirmed {
            self.confirmed = no;
            self.in_flight.retain(|sent| *sent > no);
            self.resend_ms = now_ms + RESEND_MS;
        }
        no
    }

    /// Nothing sent so far can be relied upon: begins again after the last confirmed one.
    pub fn restart(&mut self) {
        self.in_flight.clear();
        self.dry = false;
    }

    pub fn tick(&mut self, now_ms: u64) {
        if self.wake_ms().is_some_and(|at| now_ms >= at) {
            self.restart();
        }
    }

    pub fn wake_ms(&self) -> Option<u64> {
        (!self.in_flight.is_empty()).then_some(self.resend_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_eight_are_under_way_and_silence_brings_them_again() {
        let mut gaps = Gaps::default();
        for no in 1..=8 {
            assert_eq!(gaps.wanted_after(), Some(no - 1));
            gaps.sending(no, 0);
        }
        assert_eq!(gaps.wanted_after(), None);
        assert_eq!(gaps.confirmed(3, 1_000), 3);
        assert_eq!(gaps.wanted_after(), Some(8));
        gaps.tick(1_000 + RESEND_MS - 1);
        assert_eq!(gaps.wanted_after(), Some(8));
        gaps.tick(1_000 + RESEND_MS);
        assert_eq!(gaps.wanted_after(), Some(3), "from the last confirmed one");
    }

    #[test]
    fn a_hub_cannot_confirm_what_was_never_sent() {
        let mut gaps = Gaps::default();
        gaps.sending(1, 0);
        assert_eq!(gaps.confirmed(u64::MAX, 0), 1);
        assert_eq!(gaps.wanted_after(), Some(1), "the second one still goes out");
    }
}
