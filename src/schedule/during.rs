//! When a schedule is in force: windows of the day, of the week, of the year, by the clock or by the sun.
//!
//! A window belongs to the day on which it begins, and its weekdays and dates are asked of that day: `fri 22:00..06:00` is
//! open until Saturday morning. Clock times that are missing or come twice are taken as everywhere (see [`Zone`]).
//!
//! **Where the sun does not rise or set**, each end of a window is a condition that either holds or does not. `sunrise..` and
//! `..sunset` mean "while the sun is up": open all day in polar day, closed in polar night. `sunset..` and `..sunrise` mean
//! "while it is down": the other way round. Which of the two it is, the sun's heights at its noon and its midnight tell, against
//! the event's own elevation. Such a day goes from midnight to midnight, such a night from noon to noon.

use super::date::{DAY_MS, DAY_S, Date, weekday, within_reach};
use super::sun::{Event, Happening, Place};
use super::zone::Zone;

/// So far ahead a window is looked for; between the 29ths of February around 2100 lie 8 years.
const DAYS_AHEAD: i64 = 9 * 366;
/// A window of the local day before may still be open: overnight, with events of the sun and their offsets of up to 12 hours.
const DAYS_BACK: i64 = 3;
/// A day of the sun that is not the day of the calendar, and the equation of time: from mean noon to any of its events.
const SUN_REACH_MS: i64 = (DAY_S / 2 + 1_200) * 1_000;
/// The zone's offset that tells which of the sun's days is which of the calendar's: 2026-01-01.
const REFERENCE_S: i64 = 1_767_225_600;

/// A union of windows.
#[derive(Debug, Clone, PartialEq)]
pub struct During {
    windows: Vec<Window>,
    zone: Zone,
    place: Option<Place>,
    /// Number of the sun's day minus that of the local one; always the same, so that each belongs to exactly one.
    sun_day_ahead: i64,
}

/// All of its parts must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// As it was written.
    pub text: String,
    /// Bit 0 is Sunday.
    pub weekdays: u8,
    pub dates: Option<Dates>,
    pub hours: Option<Hours>,
}

/// Both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dates {
    /// Month and day; over New Year if the first is later than the last.
    Yearly((u32, u32), (u32, u32)),
    /// Day numbers.
    Once(i64, i64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hours {
    pub from: Bound,
    pub to: Bound,
    /// Ends on the day after.
    pub overnight: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Seconds of the local day.
    Time(u32),
    /// With milliseconds later.
    Sun(Event, i64),
}

impl During {
    /// Windows by the sun without a `place` never open.
    pub fn new(windows: Vec<Window>, zone: Zone, place: Option<Place>) -> Self {
        let noon_s = place.map_or(DAY_S / 2, |place| place.mean_noon_s(0)) + zone.span(REFERENCE_S).offset_s;
        Self { windows, zone, place, sun_day_ahead: -noon_s.div_euclid(DAY_S) }
    }

    /// Whether an instant (UTC milliseconds) lies inside: the beginning of a window does, its end does not.
    pub fn contains(&self, wall_ms: i64) -> bool {
        within_reach(wall_ms)
            && self.windows.iter().any(|window| self.next(window, wall_ms, DAYS_BACK).is_some_and(|(from, _)| from <= wall_ms))
    }

    /// The first instant at or after `wall_ms` that lies inside; `None` if there is none in the coming years.
    pub fn open_from(&self, wall_ms: i64) -> Option<i64> {
        if !within_reach(wall_ms) {
            return None;
        }
        let opens = self.windows.iter().filter_map(|window| self.next(window, wall_ms, DAYS_AHEAD));
        opens.map(|(from, _)| from.max(wall_ms)).min()
    }

    pub fn windows(&self) -> &[Window] {
        &self.windows
    }
    pub fn zone(&self) -> &Zone {
        &self.zone
    }
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// The first opening of a window that is not over at `wall_ms`.
    fn next(&self, window: &Window, wall_ms: i64, days_ahead: i64) -> Option<(i64, i64)> {
        let today = self.zone.local_s(wall_ms.div_euclid(1_000)).div_euclid(DAY_S);
        let (mut first, mut last) = (today - DAYS_BACK, today + days_ahead);
        if let Some(Dates::Once(from, to)) = window.dates {
            // However far in the future it is: unless only today is asked for.
            first = first.max(from);
            last = to.min(if days_ahead > DAYS_BACK { first + days_ahead } else { last });
        }
        (first..=last).filter(|day| window.on(*day)).find_map(|day| self.opening(window, day, wall_ms))
    }

    /// When a window that begins on a day is open, unless that is over at `wall_ms`.
    fn opening(&self, window: &Window, day: i64, wall_ms: i64) -> Option<(i64, i64)> {
        let Some(Hours { from, to, overnight }) = window.hours else {
            let (from, to) = (self.local_ms(day, 0), self.local_ms(day + 1, 0));
            return (to > wall_ms).then_some((from, to));
        };
        let to = self.bound(day + i64::from(overnight), to, false, wall_ms)?;
        if to <= wall_ms {
            return None;
        }
        let from = self.bound(day, from, true, i64::MIN)?;
        (from < to).then_some((from, to))
    }

    /// An end of a window, `None` if its condition does not hold that day. Not exact where it is not after `not_before_ms` anyway.
    fn bound(&self, day: i64, bound: Bound, opens: bool, not_before_ms: i64) -> Option<i64> {
        let (event, later_ms) = match bound {
            Bound::Time(second) => return Some(self.local_ms(day, i64::from(second))),
            Bound::Sun(event, later_ms) => (event, later_ms),
        };
        let (place, sun_day) = (self.place?, day + self.sun_day_ahead);
        let latest_ms = place.mean_noon_s(sun_day) * 1_000 + SUN_REACH_MS + later_ms;
        // A day of the sun that does not end is taken to the end of the local one.
        let noon_ms = self.local_ms(day, DAY_S / 2);
        if latest_ms.max(noon_ms + DAY_MS) <= not_before_ms {
            return Some(latest_ms);
        }
        // An opening in the morning, and an end in the evening, want the sun above their elevation.
        let wants_above = event.is_morning() == opens;
        match place.event(sun_day, event) {
            Happening::At(at) => Some(at * 1_000 + later_ms),
            Happening::Above if !wants_above => None,
            Happening::Below if wants_above => None,
            // The condition holds all day: from or until midnight of a day, or noon of a night.
            _ if !wants_above => Some(noon_ms),
            _ if opens => Some(self.local_ms(day, 0)),
            _ => Some(self.local_ms(day + 1, 0)),
        }
    }

    fn local_ms(&self, day: i64, second: i64) -> i64 {
        self.zone.instant_s(day * DAY_S + second) * 1_000
    }
}

impl Window {
    /// Whether it may begin on a day.
    fn on(&self, day: i64) -> bool {
        if self.weekdays & 1 << weekday(day) == 0 {
            return false;
        }
        match self.dates {
            None => true,
            Some(Dates::Once(from, to)) => (from..=to).contains(&day),
            Some(Dates::Yearly(from, to)) => {
                let Date { month, day, .. } = Date::of(day);
                let date = (month, day);
                if from <= to { from <= date && date <= to } else { date >= from || date <= to }
            }
        }
    }
}

#[cfg(test)]
mod tests;
