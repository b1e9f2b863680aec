//! A time zone: which local time an instant has, and which instant a local time is.
//!
//! Made from the tz database's own files (RFC 9636), whose last line is a rule for all years to come, so 2037 is a year like
//! any other. Two promises about the nights on which clocks are changed:
//! - **A local time that does not exist** (the hour that is left out in spring) is taken at the first instant after the gap.
//! - **A local time that comes twice** (in autumn) is taken once, the first time.

use super::date::{DAY_S, Date, days_in_month, leap, weekday};
use std::sync::Arc;
use tz::timezone::{RuleDay, TransitionRule};

/// More than any zone was ever ahead of UTC, in seconds.
const AHEAD_MAX_S: i64 = 26 * 3_600;

/// Cheap to clone: schedules of one zone share its table.
#[derive(Debug, Clone)]
pub struct Zone(Arc<Table>);

#[derive(Debug, PartialEq)]
struct Table {
    name: String,
    /// Before the first change.
    first_offset_s: i64,
    /// Ascending: the instant, and the offset from then on.
    changes: Vec<(i64, i64)>,
    /// After the last change.
    rule: Option<Rule>,
}

/// Two changes each year.
#[derive(Debug, PartialEq)]
struct Rule {
    /// To summer time and back, each with the offset from then on. The offset before it is the other's.
    turns: [(RuleDay, i64, i64); 2],
}

/// A stretch of time without a change: `[from_s, to_s)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from_s: i64,
    pub to_s: i64,
    /// Local time minus UTC.
    pub offset_s: i64,
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Zone {
    pub fn utc() -> Self {
        Self(Arc::new(Table { name: "UTC".to_owned(), first_offset_s: 0, changes: Vec::new(), rule: None }))
    }

    /// A zone from a compiled file of the tz database; `None` if that is damaged.
    pub fn from_tzif(name: &str, bytes: &[u8]) -> Option<Self> {
        let read = tz::TimeZone::from_tz_data(bytes).ok()?;
        let zone = read.as_ref();
        let offset = |index: usize| zone.local_time_types().get(index).map(|kind| i64::from(kind.ut_offset()));
        let mut changes: Vec<(i64, i64)> = Vec::with_capacity(zone.transitions().len());
        let first_offset_s = offset(0)?;
        for change in zone.transitions() {
            let offset_s = offset(change.local_time_type_index())?;
            // Many changes only rename the time.
            if changes.last().map_or(first_offset_s, |(_, before)| *before) != offset_s {
                changes.push((change.unix_leap_time(), offset_s));
            }
        }
        let mut rule = None;
        match zone.extra_rule() {
            Some(TransitionRule::Alternate(turn)) => {
                let (winter_s, summer_s) = (i64::from(turn.std().ut_offset()), i64::from(turn.dst().ut_offset()));
                // Times of day in the file are by the clock that is about to be changed.
                let spring = (*turn.dst_start(), i64::from(turn.dst_start_time()) - winter_s, summer_s);
                let autumn = (*turn.dst_end(), i64::from(turn.dst_end_time()) - summer_s, winter_s);
                rule = Some(Rule { turns: [spring, autumn] });
            }
            // The last change says the same.
            Some(TransitionRule::Fixed(_)) | None => {}
        }
        Some(Self(Arc::new(Table { name: name.to_owned(), first_offset_s, changes, rule })))
    }

    /// Its IANA name, such as `Europe/Berlin`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The stretch without a change that an instant (UTC seconds) lies in.
    pub fn span(&self, utc_s: i64) -> Span {
        let Table { first_offset_s, changes, rule, .. } = &*self.0;
        let after = changes.partition_point(|(at, _)| *at <= utc_s);
        let (from_s, offset_s) = match after.checked_sub(1).and_then(|last| changes.get(last)) {
            Some(&(at, offset)) => (at, offset),
            None => (i64::MIN, *first_offset_s),
        };
        let listed = Span { from_s, to_s: changes.get(after).map_or(i64::MAX, |(at, _)| *at), offset_s };
        match rule {
            Some(rule) if after == changes.len() => rule.span(utc_s, listed),
            _ => listed,
        }
    }

    /// Local time, as seconds since 1970-01-01 00:00 by the wall.
    pub fn local_s(&self, utc_s: i64) -> i64 {
        utc_s + self.span(utc_s).offset_s
    }

    /// The instant of a local time: the first if it comes twice, the end of the gap if it does not exist.
    pub fn instant_s(&self, local_s: i64) -> i64 {
        let mut span = self.span(local_s - AHEAD_MAX_S);
        loop {
            let at = local_s - span.offset_s;
            if at < span.to_s {
                return at.max(span.from_s);
            }
            span = self.span(span.to_s);
        }
    }
}

impl Rule {
    /// `listed` is the stretch after the last listed change, without end.
    fn span(&self, utc_s: i64, listed: Span) -> Span {
        let year = Date::of(utc_s.div_euclid(DAY_S)).year;
        let mut span = listed;
        // A turn near New Year may belong to a neighbouring year by UTC.
        for year in [year - 1, year, year + 1] {
            for (day, time_s, offset_s) in &self.turns {
                let at = day_number(day, year) * DAY_S + time_s;
                if at <= utc_s && at >= span.from_s {
                    (span.from_s, span.offset_s) = (at, *offset_s);
                } else if at > utc_s && at < span.to_s {
                    span.to_s = at;
                }
            }
        }
        span
    }
}

/// The day in a year that a rule names.
fn day_number(day: &RuleDay, year: i64) -> i64 {
    let new_year = Date { year, month: 1, day: 1 }.number();
    match day {
        // 1 to 365; the leap day is not counted.
        RuleDay::Julian1WithoutLeap(nth) => {
            let nth = i64::from(nth.get());
            new_year + nth - 1 + i64::from(leap(year) && nth >= 60)
        }
        RuleDay::Julian0WithLeap(nth) => new_year + i64::from(nth.get()),
        // The nth of a weekday in a month; the fifth is the last.
        RuleDay::MonthWeekDay(rule) => {
            let month = u32::from(rule.month());
            let first = Date { year, month, day: 1 }.number();
            let to_weekday = (i64::from(rule.week_day()) - i64::from(weekday(first))).rem_euclid(7);
            let day = to_weekday + 7 * (i64::from(rule.week()) - 1);
            first + if day >= i64::from(days_in_month(year, month)) { day - 7 } else { day }
        }
    }
}

#[cfg(test)]
mod tests;
