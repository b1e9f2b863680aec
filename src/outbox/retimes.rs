//! Which record is told to the hub again, its picture having got its true time after it was taken: in order, a bounded number at a
//! time, paced, and again after silence, until the hub has said that it is durable there.
//!
//! Weeks without a link are 50,000 of them. Kept in memory are the few under way, and the place in the store up to which all is told.

use crate::model::{RETIMES_IN_FLIGHT_MAX, RETIMES_LOOK_MAX, SnapshotId};
use std::collections::VecDeque;

/// Silence after which unconfirmed records are sent again, doubling up to the longest.
pub const RESEND_MS: u64 = 60_000;
pub const RESEND_MAX_MS: u64 = 600_000;
/// So long after one record the next may go: ten thousand nodes may have got their clocks at the same time.
pub const PACE_MS: u64 = 50;

/// Place of a picture in the store: incarnation, number.
pub type Place = (u32, u64);

#[derive(Debug, Default)]
pub struct Retimes {
    /// Everything up to here was looked at.
    looked: Place,
    /// What was found there and is not confirmed, in order; confirmed ones behind it stay until those before them are.
    flights: VecDeque<Flight>,
    /// Nothing more in the store, as far as is known.
    dry: bool,
    free_ms: u64,
    resend_ms: u64,
    tries: u32,
    /// Rows passed over, and confirmations, that the store was not told of.
    passed: usize,
    confirmed: bool,
    /// A record went out last: a picture is next, if one waits.
    turn_over: bool,
}

#[derive(Debug)]
struct Flight {
    place: Place,
    id: SnapshotId,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    /// Its record is being read, or waits for room.
    Taken,
    Sent,
    Confirmed,
}

/// What the store is to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remember {
    pub upto: Place,
    /// The hub has confirmed something of it; else it was only passed over.
    pub told: bool,
}

impl Retimes {
    /// Begins behind a place.
    pub fn from(upto: Place) -> Self {
        Self { looked: upto, ..Self::default() }
    }

    /// Where the store is to be looked at, and for how many, if it is to be.
    pub fn wanted(&self) -> Option<(Place, usize)> {
        let room = RETIMES_IN_FLIGHT_MAX.saturating_sub(self.flights.len());
        (!self.dry && room > 0).then_some((self.looked, room))
    }

    /// The answer: what was found up to a place, of so many rows; whether there may be more.
    pub fn found(&mut self, found: impl IntoIterator<Item = (Place, SnapshotId)>, upto: Place, rows: usize, more: bool) {
        self.flights.extend(found.into_iter().map(|(place, id)| Flight { place, id, state: State::Queued }));
        self.looked = upto;
        self.passed += rows;
        self.dry = !more;
    }

    pub fn news(&mut self) {
        self.dry = false;
    }

    /// The next one whose record is to be read, if one may go now. One at a time.
    pub fn take(&mut self, now_ms: u64) -> Option<(Place, SnapshotId)> {
        if now_ms < self.free_ms || self.any(State::Taken) {
            return None;
        }
        let next = self.flights.iter_mut().find(|flight| flight.state == State::Queued)?;
        next.state = State::Taken;
        Some((next.place, next.id))
    }

    /// There is nothing to be told of this one any more.
    pub fn gone(&mut self, place: Place) {
        self.end(|flight| flight.place == place);
    }

    /// The one that was taken is on its way.
    pub fn sending(&mut self, now_ms: u64) {
        for flight in self.flights.iter_mut().filter(|flight| flight.state == State::Taken) {
            flight.state = State::Sent;
        }
        self.free_ms = now_ms + PACE_MS;
        self.resend_ms = now_ms + resend_after_ms(self.tries);
        self.turn_over = true;
    }

    /// Whether a picture that waits goes before the next record: neither starves the other.
    pub fn turn_over(&self) -> bool {
        self.turn_over
    }
    pub fn picture_sent(&mut self) {
        self.turn_over = false;
    }

    /// The hub has a record of this picture with this revision. Only what was sent counts.
    pub fn confirmed(&mut self, id: SnapshotId, now_ms: u64) {
        if self.end(|flight| flight.id == id && flight.state == State::Sent) {
            (self.confirmed, self.tries) = (true, 0);
            self.resend_ms = now_ms + resend_after_ms(0);
        }
    }

    fn end(&mut self, which: impl Fn(&Flight) -> bool) -> bool {
        let Some(flight) = self.flights.iter_mut().find(|flight| which(flight)) else { return false };
        flight.state = State::Confirmed;
        while self.flights.front().is_some_and(|flight| flight.state == State::Confirmed) {
            self.flights.pop_front();
        }
        true
    }

    /// What the store is to remember, once: everything before the first one that is not confirmed.
    pub fn remember(&mut self) -> Option<Remember> {
        if !self.confirmed && self.passed < RETIMES_LOOK_MAX {
            return None;
        }
        let upto = self.flights.front().map_or(self.looked, |flight| (flight.place.0, flight.place.1.saturating_sub(1)));
        let told = std::mem::take(&mut self.confirmed);
        self.passed = 0;
        Some(Remember { upto, told })
    }

    /// The hub lost everything from this place on.
    pub fn go_back(&mut self, oldest: Place) {
        let before = (oldest.0, oldest.1.saturating_sub(1));
        if before < self.looked {
            *self = Self { free_ms: self.free_ms, ..Self::from(before) };
        }
    }

    /// Nothing sent so far can be relied upon.
    pub fn restart(&mut self) {
        for flight in self.flights.iter_mut().filter(|flight| flight.state != State::Confirmed) {
            flight.state = State::Queued;
        }
        self.dry = false;
    }

    pub fn tick(&mut self, now_ms: u64) {
        if self.any(State::Sent) && now_ms >= self.resend_ms {
            self.tries += 1;
            for flight in self.flights.iter_mut().filter(|flight| flight.state == State::Sent) {
                flight.state = State::Queued;
            }
        }
    }

    fn any(&self, state: State) -> bool {
        self.flights.iter().any(|flight| flight.state == state)
    }

    /// The next instant at which something is to be done by itself.
    pub fn wake_ms(&self) -> Option<u64> {
        // While one is being read, its end wakes.
        let next = (self.any(State::Queued) && !self.any(State::Taken)).then_some(self.free_ms);
        next.into_iter().chain(self.any(State::Sent).then_some(self.resend_ms)).min()
    }
}

fn resend_after_ms(tries: u32) -> u64 {
    RESEND_MS.saturating_mul(1 << tries.min(10)).min(RESEND_MAX_MS)
}

#[cfg(test)]
mod tests;
