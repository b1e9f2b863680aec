//! Kinds of values that many keys have: names, durations, choices.

use super::{
    raw::{At, Section},
    report::{Report, quoted},
    units::{self, InWords},
};
use crate::model::SlugError;
use std::{ops::RangeInclusive, str::FromStr};

pub(super) const DURATION: &str = "a duration such as \"5m\"";

pub(super) fn id<T: FromStr<Err = SlugError>>(text: &str) -> Result<T, String> {
    let advice = "use 1 to 32 of a-z, 0-9, - and _, starting with a letter or digit";
    text.parse().map_err(|_| format!("{} is not an id: {advice}", quoted(text)))
}

/// The name that is part of a section's title.
pub(super) fn named<T: FromStr<Err = SlugError>>(name: &At<&str>, what: &str, report: &mut Report) -> Option<T> {
    id(name.value).map_err(|complaint| report.error(name.at, format!("name of a {what}: {complaint}"))).ok()
}

pub(super) fn required(section: &Section, key: &str, meaning: &str, report: &mut Report) {
    if !section.has(key) {
        section.error(key, format!("is missing; write {meaning}"), report);
    }
}

/// A duration within bounds, in milliseconds.
pub(super) fn within(section: &Section, key: &str, bounds: RangeInclusive<u64>, report: &mut Report) -> Option<u64> {
    let found = section.parsed(key, DURATION, report, |text| match units::duration_ms(text)? {
        ms if ms < *bounds.start() => Err(format!("{} is too short; write {} or more", InWords(ms), InWords(*bounds.start()))),
        ms if ms > *bounds.end() => Err(format!("{} is too long; write {} or less", InWords(ms), InWords(*bounds.end()))),
        ms => Ok(ms),
    });
    found.map(|found| found.value)
}

pub(super) fn choice<T: Copy>(section: &Section, key: &str, choices: &[(&'static str, T)], report: &mut Report) -> Option<T> {
    let all: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let expected = format!("one of {}", all.join(", "));
    let chosen = section.parsed(key, &expected, report, |text| {
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or_else(|| format!("{} is not {expected}", quoted(text)))
    });
    chosen.map(|chosen| chosen.value)
}
