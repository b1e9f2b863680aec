//! Cron expressions: which minutes of the wall clock they name. The time zone is the calendar's business.
//!
//! The dialect is that of crontab(5): five fields, for minute, hour, day of month, month and day of week (0 and 7 are Sunday).
//! If both day fields are restricted, a day needs to match one of them; a field that begins with `*`, also with a step, does not
//! count as restricted there. On top of it, as many crons have them, `L` is the last day of a month, `fri#2` its second Friday
//! and `friL` its last.

use super::date::{DAY_S, Date, days_in_month, weekday};

/// Leap days that are also a certain weekday are 28 years apart, and 40 around the year 2100.
const YEARS: i64 = 41;

/// Which weeks of a month a weekday is meant in, as bits: 1 to 5, and [`LAST_WEEK`].
pub const EACH_WEEK: u8 = 0b11_1110;
pub const LAST_WEEK: u8 = 0b100_0000;

/// Sets as bits: bit 5 of `minutes` is minute 5. Made by the configuration's checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// As it was written, with single spaces.
    pub text: String,
    pub minutes: u64,
    pub hours: u32,
    pub days: u32,
    pub last_day: bool,
    pub months: u16,
    /// From Sunday.
    pub weekdays: [u8; 7],
    /// The field of days, or that of weekdays, begins with `*`.
    pub any_day: bool,
    pub any_weekday: bool,
    /// Minute or hour begins with `*`: it is about time that passes, rather than times of the day.
    pub elapsed: bool,
}

impl Cron {
    /// The first minute named, at or after a local time (seconds by the wall).
    pub fn at_or_after(&self, local_s: i64) -> Option<i64> {
        let from_minute = local_s.div_euclid(60) + i64::from(local_s.rem_euclid(60) > 0);
        let (today, minute_of_day) = (from_minute.div_euclid(1_440), from_minute.rem_euclid(1_440) as u32);
        let date = Date::of(today);
        if self.names(date, weekday(today))
            && let Some(minute) = self.minute_of_day(minute_of_day)
        {
            return Some(today * DAY_S + minute);
        }
        let day = self.day_after(date)?;
        Some(day * DAY_S + self.minute_of_day(0)?)
    }

    /// The first day named after a date.
    fn day_after(&self, date: Date) -> Option<i64> {
        let mut from_day = date.day + 1;
        for month in 0..YEARS * 12 {
            let index = i64::from(date.month) - 1 + month;
            let (year, month) = (date.year + index.div_euclid(12), index.rem_euclid(12) as u32 + 1);
            if self.months & 1 << month != 0 {
                let before_first = Date { year, month, day: 1 }.number() - 1;
                let named = |day: &u32| self.names(Date { year, month, day: *day }, weekday(before_first + i64::from(*day)));
                if let Some(day) = (from_day..=days_in_month(year, month)).find(named) {
                    return Some(before_first + i64::from(day));
                }
            }
            from_day = 1;
        }
        None
    }

    fn names(&self, date: Date, weekday: u32) -> bool {
        let Date { year, month, day } = date;
        if self.months & 1 << month == 0 {
            return false;
        }
        let days = days_in_month(year, month);
        let by_day = self.days & 1 << day != 0 || self.last_day && day == days;
        let week = 1u8 << day.div_ceil(7) | if day + 7 > days { LAST_WEEK } else { 0 };
        let by_weekday = self.weekdays[weekday as usize % 7] & week != 0;
        if self.any_day || self.any_weekday { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// Seconds of the day of the first time named, at or after a minute of the day.
    fn minute_of_day(&self, from: u32) -> Option<i64> {
        let (hour, minute) = (from / 60, from % 60);
        let at_or_above = |set: u64, bit: u32| {
            let left = set.checked_shr(bit).unwrap_or(0) << bit.min(63);
            (left != 0).then(|| left.trailing_zeros())
        };
        let hours = u64::from(self.hours);
        let this_hour = (hours >> hour & 1 == 1).then(|| at_or_above(self.minutes, minute)).flatten().map(|minute| (hour, minute));
        let later = || Some((at_or_above(hours, hour + 1)?, at_or_above(self.minutes, 0)?));
        let (hour, minute) = this_hour.or_else(later)?;
        Some(i64::from(hour) * 3_600 + i64::from(minute) * 60)
    }
}
