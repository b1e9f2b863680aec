//! `[schedules.NAME]`: when a camera takes pictures, and what kind; and where the node is, which zones and the sun depend on.
//!
//! What can never happen is refused here: a window that never opens, an expression that names no day, a window in which no slot
//! falls. Judged from a fixed date on and not from today, so that a file does not become wrong by waiting.

use super::{
    keys::{DURATION, choice, named, required, within},
    moments,
    raw::{self, At, Section},
    report::{Report, quoted},
    settings::{Home, Profile, Schedule, Wish, ZoneFrom},
    units::{self, InWords},
    video, windows,
    zones::Zones,
};
use crate::model::{BURST_GAP_MS, BURST_MAX, CameraId, GRACE_DEFAULT_MS, NodeId, PERIOD_MAX_MS, PERIOD_MIN_MS, Priority, ScheduleId};
use crate::schedule::{
    Align, Bound, Calendar, DAY_MS, Dates, During, Grid, Misfire, Moment, Place, Rule, When, Window, Zone, default_phase_ms, own_number,
};

pub(super) const KEYS: [&str; 17] = [
    "camera", "every", "at", "cron", "align", "phase", "during", "zone", "jitter", "grace", "misfire", "burst", "size", "quality",
    "profile", "priority", "enabled",
];
const KINDS: [&str; 3] = ["every", "at", "cron"];
const TIMES: &str = "a time such as \"06:00\" or \"sunset-30m\", or a list of them";
const WINDOWS: &str = "a window such as \"mon-fri 06:00..20:00\", or a list of them";
/// From where on it is judged what can happen: 2026-01-01.
const JUDGED_FROM_MS: i64 = 1_767_225_600_000;
/// A slot that comes less often than this is taken for a mistake.
const SLOT_WITHIN_MS: i64 = 2 * 366 * DAY_MS;
/// Windows tried for a slot: several a day, for that long.
const WINDOWS_TRIED: usize = 3_000;

/// What the schedules of a node have in common.
pub(super) struct Around<'a> {
    pub cameras: &'a [&'a str],
    pub node: Option<&'a NodeId>,
    pub home: &'a Home,
    /// There are coordinates, but they were refused; so those who need them are not blamed.
    pub place_refused: bool,
}

/// Zone and coordinates of `[node]`, and whether coordinates were refused.
pub(super) fn home(node: Option<&Section>, system: Option<&str>, zones: &mut Zones, report: &mut Report) -> (Home, bool) {
    let from_system = system.and_then(|name| zones.get(name).ok());
    let mut home = match from_system {
        Some(zone) => Home { zone, zone_from: ZoneFrom::System, place: None },
        None => Home { zone: Zone::utc(), zone_from: ZoneFrom::Unknown, place: None },
    };
    let Some(section) = node else { return (home, false) };
    if let Some(zone) = zone(section, zones, report) {
        (home.zone, home.zone_from) = (zone, ZoneFrom::File);
    }
    let latitude = section.decimal("latitude", -90.0..=90.0, report);
    let longitude = section.decimal("longitude", -180.0..=180.0, report);
    for (one, other) in [("latitude", "longitude"), ("longitude", "latitude")] {
        if section.has(one) && !section.has(other) {
            section.error(one, format!("{other} is missing; a place needs both, in degrees north and east"), report);
        }
    }
    home.place = latitude.zip(longitude).map(|(latitude, longitude)| Place { latitude, longitude });
    let refused = home.place.is_none() && (section.has("latitude") || section.has("longitude"));
    (home, refused)
}

fn zone(section: &Section, zones: &mut Zones, report: &mut Report) -> Option<Zone> {
    section.parsed("zone", "a time zone such as \"Europe/Berlin\"", report, |name| zones.get(name)).map(|zone| zone.value)
}

pub(super) fn schedule(name: &At<&str>, section: &Section, around: &Around, zones: &mut Zones, report: &mut Report) -> Option<Schedule> {
    let id = named::<ScheduleId>(name, "schedule", report);
    required(section, "camera", "the camera it is for, such as camera = \"gate\"", report);
    let camera = section.parsed("camera", "the name of a camera, such as \"gate\"", report, |text| {
        if !around.cameras.contains(&text) {
            let names = around.cameras.iter().copied().filter(|name| name.parse::<CameraId>().is_ok());
            return Err(format!("{} is no camera of this file; {}", quoted(text), raw::suggestion(text, names)));
        }
        // A camera with a wrong name was told of at its own line.
        Ok(text.parse::<CameraId>().ok())
    });
    let own_zone = if section.has("zone") { zone(section, zones, report) } else { Some(around.home.zone.clone()) };
    let when = when(section, id.as_ref(), own_zone.as_ref(), around, report);
    let during = match section.has("during") {
        true => during(section, own_zone.as_ref(), around, report).map(Some),
        false => Some(None),
    };
    if section.has("zone") && section.has("every") && !section.has("during") {
        section.error("zone", "is of no use here: every follows UTC in all zones; write at or cron, or delete this line", report);
    }
    if let (Some(when), Some(Some(during))) = (&when, &during)
        && !ever_falls(when, during)
    {
        section.error("during", never_falls(when), report);
    }
    let shortest_ms = when.as_ref().map(shortest_ms);
    let jitter_ms = jitter(section, shortest_ms, report);
    let burst = burst(section, shortest_ms, report);
    if let Some(shortest) = shortest_ms
        && burst > 1
        && jitter_ms > 0
        && u64::from(burst - 1) * BURST_GAP_MS + jitter_ms > shortest / 2
    {
        let advice = "together they must fit into half of the time between two slots; write less of one of them";
        section.error("jitter", format!("the last of {burst} pictures could come as late as the next slot; {advice}"), report);
    }
    let grace_ms = within(section, "grace", 1_000..=PERIOD_MAX_MS, report).unwrap_or(GRACE_DEFAULT_MS);
    let misfire = choice(section, "misfire", &[("skip", Misfire::Skip), ("once", Misfire::Once)], report);
    let wish = wish(section, report);
    let enabled = section.flag("enabled", report).unwrap_or(true);
    let when = when?;
    let misfire = misfire.unwrap_or(match when {
        When::Grid(_) => Misfire::Skip,
        When::Calendar(_) => Misfire::Once,
    });
    let id = id?;
    // Two schedules that mean the same are told as copies, so what is only theirs is not in them without need.
    let seed = if jitter_ms > 0 { own_number(around.node?, &id) } else { 0 };
    let rule = Rule { when, during: during?, jitter_ms, burst, misfire, grace_ms, seed, mark: 0 }.marked();
    Some(Schedule { id, camera: camera?.value?, enabled, rule, wish })
}

/// One of `every`, `at` and `cron`.
fn when(section: &Section, id: Option<&ScheduleId>, zone: Option<&Zone>, around: &Around, report: &mut Report) -> Option<When> {
    let mut kinds = KINDS.into_iter().filter(|kind| section.has(kind));
    let Some(kind) = kinds.next() else {
        section.error(
            "every",
            "is missing; write when: every = \"5m\", at = [\"06:00\", \"sunset\"] or cron = \"0 6 * * mon-fri\"",
            report,
        );
        return None;
    };
    let mut alone = true;
    for other in kinds {
        section.error(other, format!("there is {kind} as well; keep one of the two, or make two schedules"), report);
        alone = false;
    }
    if kind != "every" {
        for key in ["align", "phase"].into_iter().filter(|key| section.has(key)) {
            section.error(key, format!("belongs to every, and {kind} says when already; delete this line"), report);
        }
    }
    let when = match kind {
        "every" => grid(section, id, around, report).map(When::Grid),
        kind => calendar(section, kind, zone, around, report).map(When::Calendar),
    };
    when.filter(|_| alone)
}

fn grid(section: &Section, id: Option<&ScheduleId>, around: &Around, report: &mut Report) -> Option<Grid> {
    let every = within(section, "every", PERIOD_MIN_MS..=PERIOD_MAX_MS, report);
    let align = choice(section, "align", &[("clock", Align::Clock), ("boot", Align::Boot)], report);
    let phase = section.parsed("phase", DURATION, report, |text| {
        let phase = units::duration_ms(text)?;
        match every {
            Some(every) if phase >= every => Err(format!("{} must be shorter than the period of {}", InWords(phase), InWords(every))),
            _ => Ok(phase),
        }
    });
    let (id, period_ms) = (id?, every?);
    let phase_ms = phase.map_or_else(|| around.node.map(|node| default_phase_ms(node, id, period_ms)), |phase| Some(phase.value))?;
    Some(Grid { period_ms, phase_ms, align: align.unwrap_or(Align::Clock) })
}

fn calendar(section: &Section, kind: &str, zone: Option<&Zone>, around: &Around, report: &mut Report) -> Option<Calendar> {
    let place = around.home.place;
    let moments = match kind {
        "at" => section.each_parsed("at", TIMES, report, moments::moment),
        _ => section.each_parsed("cron", "five fields such as \"0 6 * * mon-fri\", or a list of them", report, |text| {
            let cron = Moment::Cron(moments::cron(text)?);
            if cron.next_after(JUDGED_FROM_MS, &Zone::utc(), None).is_none() {
                return Err(never_comes(text));
            }
            Ok(cron)
        }),
    }?;
    if moments.iter().any(|moment| matches!(moment, Moment::Sun(..))) && place.is_none() {
        return no_coordinates(section, kind, around, report);
    }
    for moment in &moments {
        if let Moment::Sun(event, later_ms) = moment
            && moment.next_after(JUDGED_FROM_MS, &Zone::utc(), place).is_none()
        {
            let name = moments::in_words(*event, *later_ms);
            let advice = "delete it, or look at latitude and longitude in [node]";
            section.error(kind, format!("\"{name}\" does not happen at this place within a year; {advice}"), report);
            return None;
        }
    }
    Some(Calendar::new(moments, zone?.clone(), place))
}

fn no_coordinates<T>(section: &Section, key: &str, around: &Around, report: &mut Report) -> Option<T> {
    if !around.place_refused {
        let advice = "write both into [node], in degrees north and east, such as latitude = 52.5 and longitude = 13.4";
        section.error(key, format!("the sun needs the node's latitude and longitude; {advice}"), report);
    }
    None
}

fn never_comes(text: &str) -> String {
    let advice = match text.split_whitespace().nth(2) {
        Some("31") => "for the last day of each month write L in place of 31",
        _ => "for the last day of a month write L as the day",
    };
    format!("never comes: there is no such day in the months named; {advice}")
}

fn during(section: &Section, zone: Option<&Zone>, around: &Around, report: &mut Report) -> Option<During> {
    let mut needs_sun = false;
    let place = around.home.place;
    let windows = section.each_parsed("during", WINDOWS, report, |text| {
        let window = windows::window(text)?;
        let by_sun = window.hours.is_some_and(|hours| [hours.from, hours.to].iter().any(|bound| matches!(bound, Bound::Sun(..))));
        needs_sun |= by_sun;
        if by_sun && place.is_none() {
            return Ok(window);
        }
        let alone = During::new(vec![window.clone()], zone.cloned().unwrap_or_else(Zone::utc), place);
        match alone.open_from(judged_from_ms(&window)) {
            Some(_) => Ok(window),
            None => Err(format!("the window {} never opens; {}", quoted(text), never_opens(&window))),
        }
    })?;
    if needs_sun && place.is_none() {
        return no_coordinates(section, "during", around, report);
    }
    Some(During::new(windows, zone?.clone(), place))
}

fn never_opens(window: &Window) -> &'static str {
    match (&window.dates, &window.hours) {
        (_, Some(hours)) if !hours.overnight => "its end is never after its beginning here",
        (Some(Dates::Once(..)), _) => "none of its weekdays is within its dates",
        _ => "its parts never hold on the same day",
    }
}

/// A window of fixed dates is judged from its first one on.
fn judged_from_ms(window: &Window) -> i64 {
    match window.dates {
        Some(Dates::Once(from, _)) => (from - 2) * DAY_MS,
        _ => JUDGED_FROM_MS,
    }
}

/// Whether a slot lies in one of the windows, at least once in two years.
fn ever_falls(when: &When, during: &During) -> bool {
    let next_after = |at: i64| match when {
        When::Calendar(calendar) => calendar.next_after(at),
        When::Grid(Grid { period_ms, phase_ms, .. }) => {
            let (period, phase) = (*period_ms as i64, *phase_ms as i64);
            Some((at - phase).div_euclid(period) * period + period + phase)
        }
    };
    // What is counted from boot falls anywhere.
    matches!(when, When::Grid(Grid { align: Align::Boot, .. }))
        || during.windows().iter().any(|window| {
            let from_ms = judged_from_ms(window);
            let alone = During::new(vec![window.clone()], during.zone().clone(), during.place());
            let mut at = from_ms;
            for _ in 0..WINDOWS_TRIED {
                let Some(slot) = alone.open_from(at).and_then(|opens| next_after(opens - 1)) else { return false };
                if alone.contains(slot) {
                    return true;
                }
                if slot - from_ms > SLOT_WITHIN_MS {
                    return false;
                }
                at = slot;
            }
            false
        })
}

fn never_falls(when: &When) -> String {
    match when {
        When::Grid(Grid { period_ms, phase_ms, .. }) => format!(
            "none of the slots every {}, with a phase of {} (UTC), falls into it within two years; set phase, or write at in place of every",
            InWords(*period_ms),
            InWords(*phase_ms)
        ),
        When::Calendar(_) => {
            "none of the schedule's times falls into it within two years; widen the window, or change the times".to_owned()
        }
    }
}

fn shortest_ms(when: &When) -> u64 {
    match when {
        When::Grid(grid) => grid.period_ms,
        When::Calendar(calendar) => calendar.shortest_ms(),
    }
}

fn jitter(section: &Section, shortest_ms: Option<u64>, report: &mut Report) -> u64 {
    let jitter = section.parsed("jitter", DURATION, report, |text| {
        let jitter = units::duration_ms(text)?;
        match shortest_ms {
            // Two slots must never change places.
            Some(shortest) if jitter >= shortest.div_ceil(2) => Err(format!(
                "{} must be less than half of the time between two slots, which is {} at the shortest",
                InWords(jitter),
                InWords(shortest)
            )),
            _ if jitter > PERIOD_MAX_MS => Err(format!("{} is too long; write {} or less", InWords(jitter), InWords(PERIOD_MAX_MS))),
            _ => Ok(jitter),
        }
    });
    jitter.map_or(0, |jitter| jitter.value)
}

fn burst(section: &Section, shortest_ms: Option<u64>, report: &mut Report) -> u32 {
    let Some(burst) = section.number("burst", 2..=BURST_MAX, report) else { return 1 };
    let lasts_ms = (burst - 1) * BURST_GAP_MS;
    if let Some(shortest) = shortest_ms.filter(|shortest| lasts_ms > shortest / 2) {
        let most = shortest / 2 / BURST_GAP_MS + 1;
        let advice = if most < 2 { "delete this line".to_owned() } else { format!("write {most} or less") };
        section.error(
            "burst",
            format!(
                "{burst} pictures, {} apart, last more than half of the time between two slots, which is {} at the shortest; {advice}",
                InWords(BURST_GAP_MS),
                InWords(shortest)
            ),
            report,
        );
    }
    burst as u32
}

fn wish(section: &Section, report: &mut Report) -> Wish {
    let profiles = [("prompt", Profile::Prompt), ("economy", Profile::Economy)];
    let priorities = [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];
    Wish {
        size: section.parsed("size", "a size in pixels such as \"640x480\"", report, video::size).map(|size| size.value),
        quality: section.number("quality", 1..=100, report).map(|quality| quality as u8),
        profile: choice(section, "profile", &profiles, report),
        priority: choice(section, "priority", &priorities, report).unwrap_or_default(),
    }
}

/// Two enabled schedules of one camera that mean the same are a copy that somebody forgot.
pub(super) fn warn_of_copies(schedules: &[(usize, &Schedule)], report: &mut Report) {
    for (index, (at, schedule)) in schedules.iter().enumerate() {
        let same = |other: &Schedule| {
            other.enabled && other.camera == schedule.camera && (&other.rule, other.wish) == (&schedule.rule, schedule.wish)
        };
        if let Some((_, other)) = schedules[..index].iter().find(|(_, other)| schedule.enabled && same(other)) {
            let what = format!("[schedules.{}] means the same as [schedules.{}]", schedule.id, other.id);
            report.warning(*at, format!("{what}; delete one of them, or write enabled = false in it"));
        }
    }
}

#[cfg(test)]
mod tests;
