//! Answers in words, and times as people write them.

use super::trouble::Trouble;
use crate::api::{EraseAnswer, ExplainAnswer, ListAnswer, ReportAnswer, Row, StatusAnswer};
use crate::capture::v4l2::list;
use crate::clock::{Clock, SystemClock, within};
use crate::model::{Outcome, Quality, Stamp};
use crate::protocol::{Disk, DiskWritten, Flash, Punctuality, UNKNOWN, Written, WrittenFor, share};
use crate::store::{DayRow, Erasure, SnapState, grouped, life_in_words};
use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, io::Write as _};

/// A line on standard output; a reader that went away is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub fn print<T: Serialize>(value: &T, json: bool, words: impl FnOnce(&T) -> String) -> Result<(), Trouble> {
    let text = if json { serde_json::to_string_pretty(value).map_err(Trouble::failed)? } else { words(value) };
    say(text.trim_end());
    Ok(())
}

/// A wall-clock instant in the local zone, such as `2026-11-22 12:05:00 +01:00`.
pub fn local(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |utc| utc.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %:z").to_string())
}

/// An instant told beside another one: the time of day alone, if the day is the same.
fn near(ms: i64, beside_ms: Option<i64>) -> String {
    let day = |ms| DateTime::from_timestamp_millis(ms).map(|utc| utc.with_timezone(&Local).date_naive());
    match DateTime::from_timestamp_millis(ms) {
        Some(utc) if beside_ms.and_then(day) == day(ms) => utc.with_timezone(&Local).format("%H:%M:%S").to_string(),
        _ => local(ms),
    }
}

/// A size to read at a glance, such as `1.4 GB`.
fn about(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// When a picture was taken; without a trusted clock, marked, what is known of it and the seconds since boot.
fn taken_in_words(time_ms: Option<i64>, bounds_ms: (Option<i64>, Option<i64>), taken: &Stamp) -> String {
    match time_ms {
        Some(ms) => local(ms),
        None => {
            // A clock that was carried over from the last shutdown says more than one bound alone that it agrees with.
            let agrees = match bounds_ms {
                (Some(earliest), None) => taken.wall_ms >= earliest,
                (None, Some(latest)) => taken.wall_ms <= latest,
                (bound, _) => bound.is_none(),
            };
            let said = (taken.quality > Quality::Unset && agrees).then(|| format!("≈ {}", local(taken.wall_ms)));
            let about = said.or_else(|| between(bounds_ms)).unwrap_or_else(|| format!("≈ {}", local(taken.wall_ms)));
            format!("{about} (boot {} + {} s)", taken.boot, taken.boottime_ms / 1000)
        }
    }
}

/// Not before and not after, such as `≈ 2026-11-22 12:05 … 2026-11-23 07:40 +01:00`.
fn between(bounds_ms: (Option<i64>, Option<i64>)) -> Option<String> {
    let at = |ms: i64, form: &str| {
        let utc = DateTime::from_timestamp_millis(ms)?;
        Some(utc.with_timezone(&Local).format(form).to_string())
    };
    let (minute, zoned) = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M %:z");
    match bounds_ms {
        (Some(earliest), Some(latest)) => {
            let zone = |ms| at(ms, "%:z");
            // Two hours apart, summer time may have ended between them.
            let first = at(earliest, if zone(earliest) == zone(latest) { minute } else { zoned })?;
            Some(format!("≈ {first} … {}", at(latest, zoned)?))
        }
        (Some(earliest), None) => Some(format!("≈ after {}", at(earliest, zoned)?)),
        (None, Some(latest)) => Some(format!("≈ before {}", at(latest, zoned)?)),
        (None, None) => None,
    }
}

pub fn list_in_words(list: &ListAnswer) -> String {
    let mut out = String::new();
    for Row { id, camera, slots, taken, time_ms, earliest_ms, latest_ms, bytes, state, pinned, .. } in &list.snapshots {
        let state = match state {
            SnapState::Pending => "waits for the hub",
            SnapState::Acknowledged => "safe",
            SnapState::Corrupt => "damaged",
            SnapState::Ask => "asks the hub",
        };
        let state = if *pinned { format!("{state}, pinned") } else { state.to_owned() };
        let why = if slots.is_empty() {
            "on command".to_owned()
        } else {
            slots.iter().map(|s| s.schedule.as_str()).collect::<Vec<_>>().join(",")
        };
        let when = taken_in_words(*time_ms, (*earliest_ms, *latest_ms), taken);
        let _ = writeln!(out, "{id:<24} {camera:<12} {when:<44} {:>9}  {why:<16} {state}", about(*bytes));
    }
    match (&list.next, list.snapshots.is_empty()) {
        (Some(next), _) => _ = writeln!(out, "more with --before {next}"),
        (None, true) => out.push_str("no pictures\n"),
        (None, false) => {}
    }
    out
}

/// How long after they were due its pictures were taken.
fn on_time_in_words(on_time: &Punctuality) -> Option<String> {
    let seconds = |ms: u64| if ms < 1_000 { format!("{ms} ms") } else { format!("{} s", (ms as f64 / 100.0).round() / 10.0) };
    let (within_ms, share) = on_time.mostly()?;
    let (within, worst, of) = (seconds(within_ms), seconds(on_time.worst_ms), grouped(on_time.of));
    Some(format!("on time: {share} % within {within}, worst {worst} (of {of})"))
}

pub fn status_in_words(s: &StatusAnswer) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "node     {} (shutterd {})", s.node, s.version);
    match &s.config_error {
        Some(error) => _ = writeln!(out, "config   the last accepted one, because the present file is bad:\n{error}"),
        None => _ = writeln!(out, "config   the present file"),
    }
    let quality = serde_json::to_string(&s.clock).unwrap_or_default();
    let _ = writeln!(
        out,
        "clock    {} ({}{}{})",
        local(s.wall_ms),
        quality.trim_matches('"'),
        within(s.uncertainty_ms),
        if s.clock.trusted() { "" } else { ": not trusted" }
    );
    match &s.fault {
        Some(fault) => _ = writeln!(out, "store    FAULT: {fault}"),
        None => {
            let _ = writeln!(
                out,
                "store    {} pictures, {}; {} wait for the hub ({})",
                s.stored,
                about(s.stored_bytes),
                s.pending,
                about(s.pending_bytes)
            );
        }
    }
    if s.pinned > 0 {
        let _ = writeln!(out, "         {} of them pinned, {}", s.pinned, about(s.pinned_bytes));
    }
    for alarm in &s.alarms {
        let _ = writeln!(out, "         ALARM: {alarm}");
    }
    if let Some(flash) = &s.flash {
        out.push_str(&flash_in_words(flash));
    }
    let u = &s.uplink;
    let _ =
        writeln!(out, "hub      {}; {} pictures acknowledged, {} packets sent ({})", u.state, u.acknowledged, u.sent, about(u.sent_bytes));
    if let Some(error) = &u.error {
        let _ = writeln!(out, "         {error}");
    }
    if u.clone_seen {
        let _ = writeln!(out, "         ANOTHER AGENT USES THIS NODE'S NAME: a cloned card? Give each node its own [node] id");
    }
    for (id, camera) in &s.cameras {
        let last = camera.last_good.map_or_else(
            || "no picture yet".to_owned(),
            |t| format!("last picture {}", taken_in_words(t.quality.trusted().then_some(t.wall_ms), (None, None), &t)),
        );
        let state = serde_json::to_string(&camera.state).unwrap_or_default();
        let _ = writeln!(
            out,
            "camera   {id}: {}, {last}; {} taken, {} failed since start",
            state.trim_matches('"'),
            camera.captured,
            camera.failed
        );
        if let Some(on_time) = on_time_in_words(&camera.on_time) {
            let _ = writeln!(out, "         {on_time}");
        }
        if let Some(error) = &camera.error {
            let _ = writeln!(out, "         {} ({})", error.detail, error.code);
        }
    }
    out
}

/// What goes to the disk: our own count, then the disk's.
fn flash_in_words(flash: &Flash) -> String {
    let written = |w: Written| format!("{} in {} flushes", about(w.bytes), w.flushes);
    let WrittenFor { pictures, index } = flash.today.written;
    let today = if flash.today.unsure { "today, by a clock that is not trusted," } else { "today (UTC)" };
    let mut out = format!("flash    {today} {}: pictures {}, index {}\n", written(pictures + index), written(pictures), written(index));
    if let Some(Disk { name, since_boot, since_start, life, .. }) = &flash.disk {
        let counted = |w: &DiskWritten| match w.flushes {
            Some(flushes) => written(Written { bytes: w.bytes, flushes }),
            None => about(w.bytes),
        };
        let life = match life {
            Some(life) => life_in_words(life),
            None if name.starts_with("mmcblk") => "this card does not say how worn it is".to_owned(),
            None => "the kernel does not say how worn it is".to_owned(),
        };
        let (start, boot) = (counted(since_start), counted(since_boot));
        let _ = writeln!(out, "         disk {name}, whoever wrote: {start} since the agent's start, {boot} since boot; {life}");
    } else {
        out.push_str("         the filesystem of the data directory does not say which disk it is on\n");
    }
    if flash.loss_window_s > 0 {
        let window = flash.loss_window_s;
        let _ = writeln!(
            out,
            "         economy: a power cut may lose up to the last {window} s of pictures; each lost slot is on record as off(power)"
        );
    }
    out
}

pub fn erasure_in_words(e: &EraseAnswer) -> String {
    match e.erasure {
        Some(Erasure { done: true, removed, .. }) => {
            format!("camera {}: {removed} files removed from this node, nothing of before is left", e.camera)
        }
        Some(Erasure { removed, .. }) => format!("camera {}: {removed} removed, {} stored now", e.camera, e.stored),
        None => format!("camera {}: {} pictures, {}", e.camera, e.stored, about(e.stored_bytes)),
    }
}

pub fn explain_in_words(e: &ExplainAnswer) -> String {
    let Some(outcome) = &e.outcome else {
        return format!("nothing is on record for {} near that time", e.schedule);
    };
    let at = match (e.unsure, e.time_ms) {
        (true, said_ms) => between((e.earliest_ms, e.latest_ms)).or(said_ms.map(|ms| format!("≈ {}", local(ms)))),
        (false, ms) => ms.map(local),
    };
    let at = at.unwrap_or_default();
    let whose = e.camera.as_ref().map_or_else(|| e.schedule.to_string(), |camera| format!("{} at {camera}", e.schedule));
    let mut out = format!("{at} {whose}: {outcome}");
    if matches!(outcome, Outcome::Captured { .. }) {
        out.push_str(match e.picture {
            Some(SnapState::Acknowledged) => "; the hub has it, or there is no hub",
            Some(SnapState::Pending) => "; it waits for the hub",
            Some(SnapState::Ask) => "; the hub is being asked whether it has it",
            Some(SnapState::Corrupt) => "; its file was found damaged since",
            None => "; it is no longer stored here",
        });
        if let Some(ms) = e.erased_ms {
            let _ = write!(out, ": it was erased on request of {}", local(ms));
        }
        return out;
    }
    if let Some(range) = &e.range {
        let end = |at: &crate::protocol::Instant, ms: Option<i64>| {
            ms.map_or_else(|| format!("boot {} + {} s", at.boot, at.due_ms / 1000), |ms| near(ms, e.time_ms))
        };
        let count =
            range.count.map_or_else(|| "an unknown number of slots".to_owned(), |n| format!("{n} slot{}", if n == 1 { "" } else { "s" }));
        let _ = write!(out, "; {count} like it from {} to {}", end(&range.from, e.range_ms.0), end(&range.to, e.range_ms.1));
    }
    match (e.last_good_ms, e.next_good_ms) {
        (Some(last), Some(next)) => {
            _ = write!(out, "; the last picture before it was due at {}, the next one at {}", near(last, e.time_ms), near(next, e.time_ms))
        }
        (Some(last), None) => _ = write!(out, "; the last picture before it was due at {}, none since", near(last, e.time_ms)),
        (None, Some(next)) => _ = write!(out, "; the next picture was due at {}", near(next, e.time_ms)),
        (None, None) => {}
    }
    out
}

/// Completeness, a line for each schedule and one for all.
pub fn report_in_words(report: &ReportAnswer) -> String {
    let mut schedules: BTreeMap<&str, DayRow> = BTreeMap::new();
    let mut all = DayRow::new();
    for day in &report.days {
        for (label, count) in &day.slots {
            *schedules.entry(&day.schedule).or_default().entry(label.clone()).or_default() += count;
            *all.entry(label.clone()).or_default() += count;
        }
    }
    if report.days.is_empty() {
        return "no slot is on record since then".into();
    }
    let sure = report.days.iter().filter(|day| !day.unsure).map(|day| day.day.as_str()).min();
    let since = sure.map_or_else(|| "all that is on record".to_owned(), |day| format!("since {day} (days of UTC)"));
    let width = schedules.keys().map(|name| name.len()).max().unwrap_or(0).max("schedule".len());
    let mut out = format!("{since}\n{:<width$} {:>9} {:>9} {:>9}  without a picture\n", "schedule", "planned", "captured", "complete");
    for (name, slots) in schedules.iter().map(|(name, slots)| (*name, slots)).chain([("all", &all)]) {
        let (planned, captured, share) = share(slots);
        let share = share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2} %"));
        let counted = slots.iter().filter(|(label, _)| !label.starts_with(UNKNOWN));
        let mut reasons: Vec<_> = counted.filter(|(label, _)| *label != "captured").collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut without: Vec<String> = reasons.into_iter().map(|(label, count)| format!("{count} {label}")).collect();
        for (label, count) in slots.iter().filter_map(|(label, count)| Some((label.strip_prefix(UNKNOWN)?, count))) {
            without.push(format!("{count} stretch{} nobody could count ({label})", if *count == 1 { "" } else { "es" }));
        }
        let _ = writeln!(out, "{name:<width$} {planned:>9} {captured:>9} {share:>9}  {}", without.join(", "));
    }
    if report.days.iter().any(|day| day.unsure) {
        out.push_str("some of these slots fell due while the clock was not trusted: nobody knows their day\n");
    }
    out
}

/// Milliseconds since 1970 of a time in the local zone, or with its own.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    let spaced = text.replace('T', " ");
    let day = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"].iter().find_map(|f| NaiveDateTime::parse_from_str(&spaced, f).ok());
    let hour = || {
        let time = ["%H:%M:%S", "%H:%M"].iter().find_map(|f| NaiveTime::parse_from_str(text, f).ok())?;
        let today = DateTime::from_timestamp_millis(SystemClock.read().wall_ms)?.with_timezone(&Local).date_naive();
        Some(today.and_time(time))
    };
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN));
    let naive = day.or_else(hour).or_else(date).ok_or("use 12:05, 2026-11-22, 2026-11-22 12:05 or 2026-11-22T12:05:00Z")?;
    Local
        .from_local_datetime(&naive)
        .earliest()
        .map(|t| t.timestamp_millis())
        .ok_or_else(|| "that hour does not exist in the local zone".into())
}

pub fn device_in_words(device: &list::DeviceInfo) -> String {
    let mut out = format!("{}  {} ({}, {})", device.node.display(), device.card, device.driver, device.bus);
    if let Some(error) = &device.error {
        let _ = write!(out, "\n    cannot be asked: {error}");
    } else if !device.captures {
        out.push_str("\n    not a camera");
    }
    let usb = [("serial", &device.serial), ("port", &device.port)];
    let usb: Vec<_> = usb.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?))).collect();
    if !usb.is_empty() {
        let _ = write!(out, "\n    {}", usb.join(", "));
    }
    if let Some(source) = &device.source {
        let _ = write!(out, "\n    configure it as source = \"{source}\"");
    }
    for link in &device.links {
        let _ = write!(out, "\n    also {}", link.display());
    }
    for format in device.formats.iter().filter(|format| format.usable) {
        let _ = write!(out, "\n    {} {}: {}", format.fourcc, format.description, format.sizes.join(" "));
        if !format.rates.is_empty() {
            let _ = write!(out, "; at the largest {} frames a second", format.rates.join(", "));
        }
    }
    let others: Vec<_> = device.formats.iter().filter(|format| !format.usable).map(|format| format.fourcc.as_str()).collect();
    if !others.is_empty() {
        let _ = write!(out, "\n    of no use here: {}", others.join(", "));
    }
    for control in &device.controls {
        let _ = write!(out, "\n    control {control}");
    }
    if let Some(used) = &device.would_use {
        let _ = write!(out, "\n    used unless configured otherwise: {used}");
    }
    out
}

#[cfg(test)]
mod tests;
