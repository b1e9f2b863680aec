//! What a schedule means, in words: a line for when, further lines only for what was written.

use super::{
    moments,
    settings::{Home, Profile, Schedule, Settings, ZoneFrom},
    units::InWords,
};
use crate::model::{BURST_GAP_MS, Priority};
use crate::schedule::{Align, Calendar, Cron, DAY_S, Misfire, Moment, When, Zone, default_phase_ms};

/// Changes of clocks are looked for in the years from here on: 2026-01-01.
const CHANGES_FROM_S: i64 = 1_767_225_600;
const CHANGES_TO_S: i64 = CHANGES_FROM_S + 5 * 366 * DAY_S;

/// Zone and place of the node, if the file names them or a schedule depends on them.
pub(super) fn home(settings: &Settings) -> String {
    let Home { zone, zone_from, place } = &settings.home;
    let depends = |schedule: &Schedule| schedule.rule.during.is_some() || matches!(schedule.rule.when, When::Calendar(_));
    let zone = match zone_from {
        ZoneFrom::File => format!(", zone {}", zone.name()),
        _ if !settings.schedules.iter().any(depends) => String::new(),
        ZoneFrom::System => format!(", zone {} (the system's; write zone in [node] to be sure)", zone.name()),
        ZoneFrom::Unknown => ", zone UTC (the system has none; write zone in [node])".to_owned(),
    };
    let place = place.map(|place| {
        let side = |degrees: f64, positive, negative| format!("{} {}", degrees.abs(), if degrees < 0.0 { negative } else { positive });
        format!(", at {} {}", side(place.latitude, "N", "S"), side(place.longitude, "E", "W"))
    });
    zone + &place.unwrap_or_default()
}

/// In which its instants are shown.
pub(super) fn zone<'a>(settings: &'a Settings, schedule: &'a Schedule) -> &'a Zone {
    match (&schedule.rule.when, &schedule.rule.during) {
        (When::Calendar(calendar), _) => calendar.zone(),
        (When::Grid(_), Some(during)) => during.zone(),
        (When::Grid(_), None) => &settings.home.zone,
    }
}

pub(super) fn in_words(settings: &Settings, schedule: &Schedule) -> Vec<String> {
    let Schedule { id, camera, rule, wish, enabled } = schedule;
    let own_zone = Some(zone(settings, schedule)).filter(|zone| **zone != settings.home.zone);
    let in_zone = own_zone.map_or(String::new(), |zone| format!(", zone {}", zone.name()));
    let off = if *enabled { "" } else { ", disabled" };
    let when = match &rule.when {
        When::Grid(grid) => {
            let (every, own) = (InWords(grid.period_ms), default_phase_ms(&settings.node, id, grid.period_ms));
            let align = match grid.align {
                Align::Clock => "on the clock (UTC multiples, ",
                Align::Boot => "since boot (",
            };
            let phase = match grid.phase_ms {
                ms if ms == own => "phase of its own from node and schedule name".to_owned(),
                ms => format!("phase {}", InWords(ms)),
            };
            format!("every {every}, {align}{phase})")
        }
        When::Calendar(calendar) => {
            let each: Vec<String> = calendar.moments().iter().map(moment).collect();
            each.join(" and ")
        }
    };
    let mut lines = vec![format!("schedule {id}: camera {camera}, {when}{in_zone}{off}")];
    if let Some(during) = &rule.during {
        let each: Vec<String> = during
            .windows()
            .iter()
            .map(|window| {
                let overnight = window.hours.is_some_and(|hours| hours.overnight);
                format!("{}{}", window.text, if overnight { " (overnight)" } else { "" })
            })
            .collect();
        lines.push(format!("    only during {}", each.join(", or ")));
    }
    let mut rest = Vec::new();
    if rule.burst > 1 {
        rest.push(format!("{} pictures each time, {} apart", rule.burst, InWords(BURST_GAP_MS)));
    }
    if rule.jitter_ms > 0 {
        rest.push(format!("each slot later by its own part of {}", InWords(rule.jitter_ms)));
    }
    match (rule.misfire, &rule.when) {
        (Misfire::Skip, When::Grid(_)) => {}
        (Misfire::Skip, When::Calendar(_)) => rest.push("slots that were missed are skipped".to_owned()),
        (Misfire::Once, _) => rest.push(format!("of missed slots the last is served, if not later than {}", InWords(rule.grace_ms))),
    }
    rest.extend(wish.size.map(|(width, height)| format!("reduced to fit {width}x{height}")));
    rest.extend(wish.quality.map(|quality| format!("quality {quality}")));
    rest.extend(wish.profile.map(|profile| match profile {
        Profile::Prompt => "stored at once".to_owned(),
        Profile::Economy => "profile economy".to_owned(),
    }));
    match wish.priority {
        Priority::Normal => {}
        Priority::High => rest.push("priority high".to_owned()),
        Priority::Low => rest.push("priority low".to_owned()),
    }
    if !rest.is_empty() {
        lines.push(format!("    {}", rest.join("; ")));
    }
    if let When::Calendar(calendar) = &rule.when {
        lines.extend(changes(calendar).into_iter().map(|line| format!("    {line}")));
    }
    lines
}

fn moment(moment: &Moment) -> String {
    match moment {
        Moment::Time(second) => format!("at {}", time(i64::from(*second))),
        Moment::Cron(cron) => format!("cron {}", cron.text),
        Moment::Sun(event, later_ms) => format!("at {}", moments::in_words(*event, *later_ms)),
    }
}

fn time(second: i64) -> String {
    let seconds = if second % 60 == 0 { String::new() } else { format!(":{:02}", second % 60) };
    format!("{:02}:{:02}{seconds}", second / 3_600, second % 3_600 / 60)
}

/// What happens to its times in the nights when clocks are changed, if any of them is in the hour that is missing or doubled.
fn changes(calendar: &Calendar) -> Vec<String> {
    let (mut times, mut elapsed) = (None, None);
    let mut span = calendar.zone().span(CHANGES_FROM_S);
    while span.to_s < CHANGES_TO_S {
        let next = calendar.zone().span(span.to_s);
        let (a, b) = (span.to_s + span.offset_s, span.to_s + next.offset_s);
        let hour = a.min(b)..a.max(b);
        for moment in calendar.moments() {
            match moment {
                Moment::Time(second) => {
                    let second = i64::from(*second);
                    let on = |day: i64| hour.contains(&(day * DAY_S + second)).then(|| time(second));
                    times = times.or_else(|| on(hour.start.div_euclid(DAY_S))).or_else(|| on(hour.end.div_euclid(DAY_S)));
                }
                Moment::Cron(cron) if cron_in(cron, &hour) && cron.elapsed => elapsed = elapsed.or(Some(cron)),
                Moment::Cron(cron) if cron_in(cron, &hour) => times = times.or_else(|| Some(cron.text.clone())),
                Moment::Cron(_) | Moment::Sun(..) => {}
            }
        }
        span = next;
    }
    let times = times.map(|what| {
        format!("when clocks are changed: {what} in the missing hour is taken right after it, in the doubled hour once, the first time")
    });
    let elapsed = elapsed.map(|cron: &Cron| {
        format!(
            "when clocks are changed: {} follows the time that passes, so it has nothing in a missing hour and both of a doubled one",
            cron.text
        )
    });
    times.into_iter().chain(elapsed).collect()
}

fn cron_in(cron: &Cron, hour: &std::ops::Range<i64>) -> bool {
    cron.at_or_after(hour.start).is_some_and(|at| at < hour.end)
}
