//! Days of the Gregorian calendar, numbered from 1970-01-01 in both directions: integers only, and right for any year.

pub const DAY_S: i64 = 86_400;
pub const DAY_MS: i64 = DAY_S * 1_000;
/// 8,900 years: what is asked about instants further from 1970 than that has no answer, and no sum of it overflows.
const REACH_MS: i64 = 8_900 * 366 * DAY_MS;

pub fn within_reach(wall_ms: i64) -> bool {
    (-REACH_MS..=REACH_MS).contains(&wall_ms)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

impl Date {
    /// The date of a day number.
    pub fn of(number: i64) -> Self {
        // Years begin on 1 March here, so that the leap day is the last of its year; 400 of them have 146,097 days.
        let from_march = number + 719_468;
        let (era, of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Self { year: era * 400 + year_of_era + i64::from(month <= 2), month: month as u32, day: day as u32 }
    }

    /// The number of this day.
    pub fn number(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month = i64::from((self.month + 9) % 12);
        let of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
    }

    pub fn exists(self) -> bool {
        (1..=12).contains(&self.month) && (1..=days_in_month(self.year, self.month)).contains(&self.day)
    }
}

pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

pub fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// 0 is Sunday, 6 is Saturday.
pub fn weekday(number: i64) -> u32 {
    (number + 4).rem_euclid(7) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    #[test]
    fn the_first_and_the_last_days_have_their_dates() {
        for (number, year, month, day) in [(0, 1970, 1, 1), (-1, 1969, 12, 31), (11_016, 2000, 2, 29), (20_783, 2026, 11, 26)] {
            assert_eq!(Date::of(number), Date { year, month, day });
            assert_eq!(Date { year, month, day }.number(), number);
        }
        assert!(!Date { year: 2100, month: 2, day: 29 }.exists() && !Date { year: 2026, month: 13, day: 1 }.exists());
    }

    proptest! {
        #[test]
        fn dates_are_those_of_another_implementation(number in -3_200_000i64..3_200_000) {
            let date = Date::of(number);
            let other = NaiveDate::from_num_days_from_ce_opt(number as i32 + 719_163).unwrap();
            prop_assert_eq!((date.year, date.month, date.day), (i64::from(other.year()), other.month(), other.day()));
            prop_assert_eq!((date.number(), weekday(number)), (number, other.weekday().num_days_from_sunday()));
            prop_assert!(date.exists());
        }
    }
}
