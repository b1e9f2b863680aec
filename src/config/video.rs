//! What a `v4l2:` camera is told to give: `size`, `rate`, `format` and `[cameras.NAME.controls]`.
//!
//! Only the spelling is judged here. What a device can is known when it is opened, and told then.

use super::{
    raw::Section,
    report::{Report, quoted},
    settings::{Controls, PowerLine, Set, Video},
    units,
};
use crate::image::planar;
use crate::model::{RATE_MAX, SIDE_MAX};

/// The camera's keys that are for this kind alone.
pub(super) const KEYS: [&str; 4] = ["size", "rate", "format", "controls"];
const CONTROL_KEYS: [&str; 4] = ["exposure", "white_balance", "focus", "power_line"];
/// More than any camera's: bounds that catch a slip, the device's own are told when it is opened.
const EXPOSURE_MAX_US: u64 = 60_000_000;
const KELVIN: std::ops::RangeInclusive<u64> = 1_000..=20_000;
const FOCUS_MAX: u64 = 65_535;

pub(super) fn video(section: &Section, report: &mut Report) -> Video {
    let size = section.parsed("size", "a size in pixels such as \"1920x1080\"", report, size).map(|size| size.value);
    let format = section.parsed("format", "a format such as \"MJPG\"", report, format).map(|format| format.value);
    let rate = section.number("rate", 1..=RATE_MAX, report).map(|rate| rate as u32);
    let controls = section.section("controls", &CONTROL_KEYS, report).map(|section| controls(&section, report)).unwrap_or_default();
    Video { size, rate, format, controls }
}

pub(super) fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| (1..=SIDE_MAX).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| format!("{} is not a size in pixels; write one such as \"1920x1080\"", quoted(text)))
}

fn format(text: &str) -> Result<[u8; 4], String> {
    let known = [*b"MJPG", *b"JPEG"].into_iter().chain(planar::FORMATS.iter().copied());
    let found = known.clone().find(|code| code == text.as_bytes());
    let name = |code: [u8; 4]| String::from_utf8_lossy(&code).into_owned();
    found.ok_or_else(|| format!("{} is not one of {}", quoted(text), known.map(name).collect::<Vec<_>>().join(", ")))
}

fn controls(section: &Section, report: &mut Report) -> Controls {
    let power_line = section.parsed("power_line", "\"50Hz\", \"60Hz\" or \"off\"", report, |text| match text {
        "50Hz" => Ok(PowerLine::Hz50),
        "60Hz" => Ok(PowerLine::Hz60),
        "off" => Ok(PowerLine::Off),
        _ => Err(format!("{} is not one of \"50Hz\", \"60Hz\", \"off\"", quoted(text))),
    });
    Controls {
        exposure: section.parsed("exposure", "\"auto\" or a time such as \"10ms\"", report, exposure).map(|exposure| exposure.value),
        white_balance: auto_or_number(section, "white_balance", KELVIN, report),
        focus: auto_or_number(section, "focus", 0..=FOCUS_MAX, report),
        power_line: power_line.map(|line| line.value),
    }
}

/// Microseconds; units are written as elsewhere, with `us` for the short ones of bright days.
fn exposure(text: &str) -> Result<Set, String> {
    if text == "auto" {
        return Ok(Set::Auto);
    }
    let short = text.trim().strip_suffix("us").and_then(|number| number.trim().parse::<u64>().ok());
    let us = short.map_or_else(|| units::duration_ms(text).map(|ms| ms.saturating_mul(1_000)), Ok)?;
    match us {
        1..=EXPOSURE_MAX_US => Ok(Set::To(us as u32)),
        _ => Err(format!("{} is not an exposure; write \"auto\" or a time such as \"10ms\" or \"500us\"", quoted(text))),
    }
}

fn auto_or_number(section: &Section, key: &str, range: std::ops::RangeInclusive<u64>, report: &mut Report) -> Option<Set> {
    if !section.is_text(key) {
        return section.number(key, range, report).map(|value| Set::To(value as u32));
    }
    let expected = format!("\"auto\" or a whole number from {} to {}", range.start(), range.end());
    let auto = section.parsed(key, &expected, report, |text| match text {
        "auto" => Ok(Set::Auto),
        _ => Err(format!("{} is not {expected}", quoted(text))),
    });
    auto.map(|auto| auto.value)
}

/// As `shutterd check` says it; empty where nothing is configured.
pub(super) fn in_words(video: &Video) -> String {
    let Video { size, rate, format, controls } = video;
    let set = |name: &str, set: Option<Set>, words: &dyn Fn(u32) -> String| {
        set.map(|set| match set {
            Set::Auto => format!("{name} automatic"),
            Set::To(value) => format!("{name} {}", words(value)),
        })
    };
    let line = controls.power_line.map(|line| match line {
        PowerLine::Off => "no power-line filter",
        PowerLine::Hz50 => "power line 50 Hz",
        PowerLine::Hz60 => "power line 60 Hz",
    });
    let exposure = |us: u32| if us.is_multiple_of(1_000) { format!("{} ms", us / 1_000) } else { format!("{us} us") };
    let parts = [
        format.map(|code| String::from_utf8_lossy(&code).into_owned()),
        size.map(|(width, height)| format!("{width}x{height}")),
        rate.map(|rate| format!("{rate} frames a second")),
        set("exposure", controls.exposure, &exposure),
        set("white balance", controls.white_balance, &|kelvin| format!("{kelvin} K")),
        set("focus", controls.focus, &|value| value.to_string()),
        line.map(str::to_owned),
    ];
    parts.into_iter().flatten().map(|part| format!(", {part}")).collect()
}

#[cfg(test)]
mod tests;
