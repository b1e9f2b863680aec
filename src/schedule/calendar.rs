//! Instants that people name: times of day, cron expressions, events of the sun.
//!
//! A function of the instant asked from and of nothing else: no state, no clock.
//!
//! **When clocks are changed** (see [`Zone`]): a time of day in the missing hour is taken at the first instant after the gap, one
//! in the doubled hour once, the first time. So are cron expressions that name minutes and hours. One whose minute or hour begins
//! with `*` is about time that passes: it has nothing in the missing hour and goes on through both of the doubled ones.

use super::cron::Cron;
use super::date::{DAY_S, within_reach};
use super::sun::{Event, Happening, Place};
use super::zone::Zone;

/// A time that comes twice is skipped the second time; more than a few days in a row are never lost to that.
const DAYS_AHEAD: i64 = 4;
/// An event of the sun that does not happen for so long does not happen at this place.
const SUN_DAYS_AHEAD: i64 = 400;
/// True noon is up to 17 minutes off the mean one, and so is midnight.
const SUN_OFF_S: i64 = 1_200;
/// Where the shortest distance is looked for: a year with its changes of clocks, or as many instants.
const SHORTEST_FROM_MS: i64 = 1_767_225_600_000;
const SHORTEST_SPAN_MS: i64 = 400 * DAY_S * 1_000;
const SHORTEST_STEPS: usize = 1_500;

/// One kind of instants.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// Seconds of the local day, by the wall.
    Time(u32),
    Cron(Cron),
    /// An event of the sun, and how much later (or earlier) in milliseconds.
    Sun(Event, i64),
}

/// A union of instants.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    moments: Vec<Moment>,
    zone: Zone,
    place: Option<Place>,
    shortest_ms: u64,
}

impl Calendar {
    /// Events of the sun without a `place` never happen.
    pub fn new(moments: Vec<Moment>, zone: Zone, place: Option<Place>) -> Self {
        let mut calendar = Self { moments, zone, place, shortest_ms: u64::MAX };
        let mut at = calendar.next_after(SHORTEST_FROM_MS);
        for _ in 0..SHORTEST_STEPS {
            let Some(last) = at.filter(|at| at - SHORTEST_FROM_MS < SHORTEST_SPAN_MS) else { break };
            at = calendar.next_after(last);
            calendar.shortest_ms = calendar.shortest_ms.min(at.map_or(u64::MAX, |at| at.abs_diff(last)));
        }
        calendar
    }

    /// The first instant after `wall_ms` (both UTC milliseconds); `None` if there is none in the coming years.
    pub fn next_after(&self, wall_ms: i64) -> Option<i64> {
        let next = || self.moments.iter().filter_map(|moment| self.next_of(moment, wall_ms)).min();
        within_reach(wall_ms).then(next).flatten()
    }

    /// The shortest distance of two neighbouring instants, as far as a year tells.
    pub fn shortest_ms(&self) -> u64 {
        self.shortest_ms
    }

    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }
    pub fn zone(&self) -> &Zone {
        &self.zone
    }
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    fn next_of(&self, moment: &Moment, wall_ms: i64) -> Option<i64> {
        let utc_s = wall_ms.div_euclid(1_000);
        match moment {
            Moment::Time(second) => {
                let today = self.zone.local_s(utc_s).div_euclid(DAY_S);
                let at = |day: i64| self.zone.instant_s(day * DAY_S + i64::from(*second));
                (today..today + DAYS_AHEAD).map(at).find(|at| *at > utc_s).map(|at| at * 1_000)
            }
            Moment::Cron(cron) if cron.elapsed => self.next_elapsed(cron, utc_s).map(|at| at * 1_000),
            Moment::Cron(cron) => {
                let mut local_s = self.zone.local_s(utc_s) + 1;
                for _ in 0..DAYS_AHEAD * 1_440 {
                    local_s = cron.at_or_after(local_s)?;
                    let at = self.zone.instant_s(local_s);
                    if at > utc_s {
                        return Some(at * 1_000);
                    }
                    local_s += 60;
                }
                None
            }
            Moment::Sun(event, later_ms) => {
                let place = self.place?;
                let event_after_ms = wall_ms - later_ms;
                // Any event of a day lies within twelve hours of its noon.
                let noon_after_s = event_after_ms.div_euclid(1_000) - DAY_S / 2 - SUN_OFF_S;
                let day = (noon_after_s - place.mean_noon_s(0)).div_euclid(DAY_S);
                let at = |day: i64| match place.event(day, *event) {
                    Happening::At(at) => Some(at * 1_000),
                    Happening::Above | Happening::Below => None,
                };
                (day..day + SUN_DAYS_AHEAD).filter_map(at).find(|at| *at > event_after_ms).map(|at| at + later_ms)
            }
        }
    }

    /// Within one stretch of unchanged clocks after the other.
    fn next_elapsed(&self, cron: &Cron, utc_s: i64) -> Option<i64> {
        let (mut from_s, mut span) = (utc_s + 1, self.zone.span(utc_s + 1));
        loop {
            let at = cron.at_or_after(from_s + span.offset_s)? - span.offset_s;
            if at < span.to_s {
                return Some(at);
            }
            from_s = span.to_s;
            span = self.zone.span(from_s);
        }
    }
}

#[cfg(test)]
mod tests;
