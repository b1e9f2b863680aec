//! `during = "mon-fri 04-01..10-31 sunrise-30m..sunset+30m"`: parts of a window, which must all hold.

use super::{
    moments::{self, WEEKDAYS},
    raw::suggestion,
    report::quoted,
};
use crate::schedule::{Bound, DAY_S, Date, Dates, Event, Hours, Window};

const EXAMPLE: &str = "\"mon-fri 06:00..20:00\" or \"sunrise-30m..sunset+30m\"";
const NOON_S: i64 = DAY_S / 2;

/// One window.
/// # Errors
/// Says what is wrong and how to write it.
pub fn window(text: &str) -> Result<Window, String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // What belongs together stands together, then spaces separate the parts.
    let mut joined = text.replace("solar noon", "solar_noon").replace("solar midnight", "solar_midnight");
    for sign in ["..", "+", "-", ","] {
        joined = joined.replace(&format!(" {sign}"), sign).replace(&format!("{sign} "), sign);
    }
    let (mut weekdays, mut dates, mut hours) = (None, None, None);
    for part in joined.split(' ').filter(|part| !part.is_empty()) {
        let second = |what: &str| format!("{} is a second range of {what}; write two windows, as [\"…\", \"…\"]", quoted(part));
        match part.split_once("..") {
            None if weekdays.is_some() => return Err(second("weekdays")),
            None => weekdays = Some(days_of_week(part)?),
            Some((from, to)) if is_date(from) || is_date(to) => match dates {
                Some(_) => return Err(second("dates")),
                None => dates = Some(range_of_dates(from, to)?),
            },
            Some(_) if hours.is_some() => return Err(second("hours")),
            Some((from, to)) => hours = Some(range_of_hours(from, to)?),
        }
    }
    if weekdays.is_none() && dates.is_none() && hours.is_none() {
        return Err(format!("is empty; write a window such as {EXAMPLE}"));
    }
    Ok(Window { text, weekdays: weekdays.unwrap_or(0b111_1111), dates, hours })
}

/// Bits of `mon-fri` or `sat,sun`.
fn days_of_week(text: &str) -> Result<u8, String> {
    let number = |name: &str| {
        let found = WEEKDAYS.iter().position(|known| known.eq_ignore_ascii_case(name));
        found.ok_or_else(|| match name.starts_with(|c: char| c.is_ascii_digit()) {
            true => format!("{} is no range; write FROM..TO, such as {EXAMPLE}", quoted(text)),
            // Whole names begin with the short one.
            false => {
                let short: String = name.chars().take(3).collect();
                format!("{} is no day of the week; {}", quoted(name), suggestion(&short.to_ascii_lowercase(), WEEKDAYS.iter().copied()))
            }
        })
    };
    let mut days = 0;
    for item in text.split(',') {
        let (from, to) = item.split_once('-').unwrap_or((item, item));
        let (mut day, to) = (number(from)?, number(to)?);
        days |= 1 << day;
        // Over Sunday, too: fri-mon.
        while day != to {
            day = (day + 1) % 7;
            days |= 1 << day;
        }
    }
    Ok(days)
}

/// `04-01` or `2026-04-01`, whether or not there is such a day.
fn is_date(text: &str) -> bool {
    date_numbers(text).is_some()
}

fn date_numbers(text: &str) -> Option<Vec<u32>> {
    let widths: Vec<usize> = text.split('-').map(str::len).collect();
    (widths == [2, 2] || widths == [4, 2, 2]).then(|| text.split('-').map(|part| part.parse().ok()).collect()).flatten()
}

fn range_of_dates(from: &str, to: &str) -> Result<Dates, String> {
    let read = |text: &str| {
        let no_date = || format!("{} is no date; write one such as \"04-01\", of each year, or \"2026-04-01\"", quoted(text));
        let (year, month, day) = match date_numbers(text).as_deref() {
            Some(&[month, day]) => (None, month, day),
            Some(&[year, month, day]) => (Some(i64::from(year)), month, day),
            _ => return Err(no_date()),
        };
        // Of each year: some have a 29 February.
        let date = Date { year: year.unwrap_or(2024), month, day };
        if !date.exists() {
            return Err(format!("{} is a day that does not exist", quoted(text)));
        }
        Ok((year.is_some(), date))
    };
    let ((from_once, from_date), (to_once, to_date)) = (read(from)?, read(to)?);
    match (from_once, to_once) {
        (false, false) => Ok(Dates::Yearly((from_date.month, from_date.day), (to_date.month, to_date.day))),
        (true, true) if to_date < from_date => Err(format!("{} is before {}; write the earlier date first", quoted(to), quoted(from))),
        (true, true) => Ok(Dates::Once(from_date.number(), to_date.number())),
        _ => Err(format!("{} and {}: write both with a year, or both without", quoted(from), quoted(to))),
    }
}

fn range_of_hours(from: &str, to: &str) -> Result<Hours, String> {
    let read = |text: &str, ends: bool| match text {
        "" => Err(format!("a range has two ends; write it as {EXAMPLE}")),
        "24:00" if ends => Ok(Bound::Time(DAY_S as u32)),
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => moments::time(text).map(Bound::Time),
        _ => moments::sun(&text.replace('_', " ")).map(|(event, later_ms)| Bound::Sun(event, later_ms)),
    };
    let (from_bound, to_bound) = (read(from, false)?, read(to, true)?);
    if from_bound == to_bound {
        return Err(format!("\"{from}..{to}\" begins where it ends; leave the hours out for the whole day"));
    }
    Ok(Hours { from: from_bound, to: to_bound, overnight: overnight(from_bound, to_bound) })
}

/// Whether a range ends on the day after it begins: decided once, and not by where the sun happens to be. `sunrise..08:00` does not
/// become a day and a half in the weeks when the sun rises after eight.
fn overnight(from: Bound, to: Bound) -> bool {
    let (a, b) = (usual_s(from), usual_s(to));
    let rises = |event| matches!(event, Event::Dawn | Event::Sunrise);
    let sets = |event| matches!(event, Event::Sunset | Event::Dusk);
    match (from, to) {
        // Whatever the offsets: part of a day, or of a night.
        (Bound::Sun(from, _), Bound::Sun(to, _)) if rises(from) && sets(to) => false,
        (Bound::Sun(from, _), Bound::Sun(to, _)) if sets(from) && rises(to) => true,
        (Bound::Time(_), Bound::Time(_)) | (Bound::Sun(..), Bound::Sun(..)) => b <= a,
        // From an afternoon into a morning.
        _ => a > NOON_S && b <= NOON_S || a >= NOON_S && b < NOON_S,
    }
}

/// About when it is, on a day like most.
fn usual_s(bound: Bound) -> i64 {
    const HALF_HOUR_S: i64 = 1_800;
    match bound {
        Bound::Time(second) => i64::from(second),
        Bound::Sun(event, later_ms) => {
            let half_hours = match event {
                Event::Dawn => 11,
                Event::Sunrise => 12,
                Event::Noon => 24,
                Event::Sunset => 36,
                Event::Dusk => 37,
                Event::Midnight => 48,
            };
            half_hours * HALF_HOUR_S + later_ms / 1_000
        }
    }
}

#[cfg(test)]
mod tests;
