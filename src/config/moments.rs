//! Instants as people write them: `06:00`, `06:00:30`, `sunrise-30m`, `sunset + 1h15m`, `solar noon`, and cron's five fields.
//!
//! What is refused is refused with the spelling that would do.

use super::{
    raw::{nearest, suggestion},
    report::quoted,
    units::{self, InWords},
};
use crate::schedule::{Cron, EACH_WEEK, Event, LAST_WEEK, Moment};

/// Further from an event than this is another event's time.
const OFFSET_MAX_MS: u64 = 12 * 3_600_000;

const EVENTS: [(&str, Event); 6] = [
    ("sunrise", Event::Sunrise),
    ("sunset", Event::Sunset),
    ("dawn", Event::Dawn),
    ("dusk", Event::Dusk),
    ("solar noon", Event::Noon),
    ("solar midnight", Event::Midnight),
];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
pub(super) const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A time of day, or an event of the sun.
/// # Errors
/// Says what is wrong and how to write it.
pub fn moment(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return time(text).map(Moment::Time);
    }
    let (event, later_ms) = sun(text)?;
    Ok(Moment::Sun(event, later_ms))
}

/// Seconds of the day.
pub(super) fn time(text: &str) -> Result<u32, String> {
    let shown = quoted(text);
    let parts: Vec<Option<u32>> = text.split(':').map(|part| (1..=2).contains(&part.len()).then(|| part.parse().ok()).flatten()).collect();
    match parts[..] {
        [Some(hour @ 0..=23), Some(minute @ 0..=59)] => Ok(hour * 3_600 + minute * 60),
        [Some(hour @ 0..=23), Some(minute @ 0..=59), Some(second @ 0..=59)] => Ok(hour * 3_600 + minute * 60 + second),
        [Some(_), Some(_)] | [Some(_), Some(_), Some(_)] => {
            Err(format!("{shown} is no time of day; it goes from \"00:00\" to \"23:59:59\""))
        }
        _ => Err(match twelve_hours(text) {
            Some(meant) => format!("{shown} is no time of day as it is written here; did you mean \"{meant}\"?"),
            None => format!("{shown} is no time of day; write one such as \"06:00\" or \"06:00:30\""),
        }),
    }
}

/// What `6pm`, `6:00 pm` or `6 Uhr` means.
fn twelve_hours(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (number, word) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.')?);
    let mut parts = number.split([':', '.']).map(|part| part.parse::<u32>().ok());
    let (hour, minute) = (parts.next()??, parts.next().unwrap_or(Some(0))?);
    let hour = match word.trim().replace('.', "").as_str() {
        "pm" if (1..=12).contains(&hour) => hour % 12 + 12,
        "am" if (1..=12).contains(&hour) => hour % 12,
        "uhr" | "h" | "o'clock" if hour < 24 => hour,
        _ => return None,
    };
    (minute < 60).then(|| format!("{hour:02}:{minute:02}"))
}

/// An event of the sun, and by how many milliseconds later.
pub(super) fn sun(text: &str) -> Result<(Event, i64), String> {
    let (name, offset) = text.split_at(text.find(['+', '-']).unwrap_or(text.len()));
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    let Some((_, event)) = EVENTS.iter().find(|(known, _)| *known == name) else {
        let advice = match name.as_str() {
            "noon" => "write \"12:00\", or \"solar noon\"".to_owned(),
            "midnight" => "write \"00:00\", or \"solar midnight\"".to_owned(),
            name => match nearest(name, EVENTS.iter().map(|(name, _)| *name)) {
                Some(meant) if offset.chars().all(|c| c.is_ascii_alphanumeric() || " +-".contains(c)) => {
                    format!("did you mean \"{meant}{offset}\"?")
                }
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "write one such as \"06:00\", \"sunset-30m\" or \"solar noon\"".to_owned(),
            },
        };
        return Err(format!("{} is neither a time of day nor an event of the sun; {advice}", quoted(text)));
    };
    let Some(sign) = offset.chars().next() else { return Ok((*event, 0)) };
    match units::duration_ms(&offset[1..])? {
        ms if ms > OFFSET_MAX_MS => Err(format!("{} is too far from {name}; write {} or less", InWords(ms), InWords(OFFSET_MAX_MS))),
        ms if sign == '-' => Ok((*event, -(ms as i64))),
        ms => Ok((*event, ms as i64)),
    }
}

/// As [`moment`] reads it back.
pub(super) fn in_words(event: Event, later_ms: i64) -> String {
    let name = EVENTS.iter().find(|(_, known)| *known == event).map_or("", |(name, _)| name);
    let offset = InWords(later_ms.unsigned_abs());
    match later_ms {
        0 => name.to_owned(),
        ..0 => format!("{name} - {offset}"),
        _ => format!("{name} + {offset}"),
    }
}

/// One field of a cron expression.
struct Field {
    name: &'static str,
    range: (u32, u32),
    /// That stand for numbers, beginning with the lowest.
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", range: (0, 59), names: &[] };
const HOUR: Field = Field { name: "hour", range: (0, 23), names: &[] };
const DAY: Field = Field { name: "day of month", range: (1, 31), names: &[] };
const MONTH: Field = Field { name: "month", range: (1, 12), names: &MONTHS };
const WEEKDAY: Field = Field { name: "day of week", range: (0, 7), names: &WEEKDAYS };

/// Five fields: minute, hour, day of month, month, day of week.
/// # Errors
/// Says what is wrong and how to write it.
pub fn cron(text: &str) -> Result<Cron, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let five = "write five: minute, hour, day of month, month and day of week, such as \"0 6 * * mon-fri\"";
    let [minute, hour, day, month, weekday] = fields[..] else {
        let same = [("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *")];
        return Err(match (same.iter().find(|(name, _)| *name == text), fields.len()) {
            (Some((name, same)), _) => format!("{name} is written \"{same}\" here"),
            (None, 6 | 7) => format!("has {} fields; {five}; there is none for seconds or years", fields.len()),
            (None, count) => format!("has {count} field{}; {five}", if count == 1 { "" } else { "s" }),
        });
    };
    let (mut days, mut last_day) = (0, false);
    for item in day.split(',') {
        match item {
            "L" | "l" => last_day = true,
            item => days |= DAY.item(item)?,
        }
    }
    let mut weekdays = [0; 7];
    for item in weekday.split(',') {
        let (which, weeks) = weeks_of(item)?;
        for number in (0..=7).filter(|number| which & 1 << number != 0) {
            weekdays[number % 7] |= weeks;
        }
    }
    Ok(Cron {
        text: fields.join(" "),
        minutes: MINUTE.set(minute)?,
        hours: HOUR.set(hour)? as u32,
        days: days as u32,
        last_day,
        months: MONTH.set(month)? as u16,
        weekdays,
        any_day: day.starts_with('*'),
        any_weekday: weekday.starts_with('*'),
        elapsed: minute.starts_with('*') || hour.starts_with('*'),
    })
}

/// Weekdays as bits, and in which weeks of the month.
fn weeks_of(item: &str) -> Result<(u64, u8), String> {
    if let Some((day, nth)) = item.split_once('#') {
        let week = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
        let week: u8 = week.ok_or_else(|| format!("{} has no week 1 to 5 after #; write one such as \"fri#2\"", shown(item)))?;
        return Ok((1 << WEEKDAY.number(day)?, 1 << week));
    }
    match item.strip_suffix(['L', 'l']) {
        Some(day) if !day.is_empty() => Ok((1 << WEEKDAY.number(day)?, LAST_WEEK)),
        _ => Ok((WEEKDAY.item(item)?, EACH_WEEK)),
    }
}

impl Field {
    fn set(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |set, item| Ok(set | self.item(item)?))
    }

    /// The numbers of `*`, `5`, `1-5` or one of them with `/step`.
    fn item(&self, text: &str) -> Result<u64, String> {
        let (least, most) = self.range;
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let step = match step.map(|step| step.parse::<u32>().ok().filter(|step| (1..=most).contains(step))) {
            None => 1,
            Some(Some(step)) => step,
            Some(None) => return Err(format!("{} has no step that fits a {}; write one such as \"*/5\"", shown(text), self.name)),
        };
        // Sunday has two numbers; where none is written the week ends on Saturday.
        let end = if self.name == WEEKDAY.name { 6 } else { most };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (least, end),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            // As most crons: `5/15` goes on to the end.
            None if text.len() > range.len() => (self.number(range)?, end.max(self.number(range)?)),
            None => (self.number(range)?, self.number(range)?),
        };
        // As the beginning of a range Sunday comes first.
        let first = if first == 7 && last < 7 && self.name == WEEKDAY.name { 0 } else { first };
        if first > last {
            return Err(format!("{} ends before it begins; write \"{first}-{end},{least}-{last}\"", shown(text)));
        }
        Ok((first..=last).step_by(step as usize).fold(0, |set, number| set | 1 << number))
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let (least, most) = self.range;
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|index| index as u32 + least);
        let number = named.or_else(|| text.parse().ok().filter(|number| (least..=most).contains(number)));
        number.ok_or_else(|| {
            let names = if self.names.is_empty() { String::new() } else { format!(" or {}", self.names.join(", ")) };
            let advice = match text {
                "?" => "write * for any".to_owned(),
                _ if text.ends_with(['W', 'w']) => "nearest weekdays (W) are not in this dialect; write the days".to_owned(),
                text if !self.names.is_empty() && text.len() > 3 && text.is_ascii() => suggestion(&text[..3], self.names.iter().copied()),
                _ => format!("it goes from {least} to {most}{names}"),
            };
            format!("{} is no {}; {advice}", shown(text), self.name)
        })
    }
}

/// A part of an expression, in which single slashes are no address.
fn shown(text: &str) -> String {
    if text.contains("//") {
        return quoted(text);
    }
    quoted(&text.replace('/', "\u{1}")).replace("\\u{1}", "/")
}

#[cfg(test)]
mod tests;
