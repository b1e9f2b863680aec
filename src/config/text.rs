//! What a configuration means, in words: the answer of `shutterd check`, for a person to compare with what they meant.
//!
//! Shows no credential: addresses print without them, and passwords only as "with a password".

use super::{
    settings::{Camera, Hub, Mount, Profile, Schedule, Settings, WhenFull},
    thin,
    units::{InWords, SizeInWords},
    video,
};
use crate::model::{ECONOMY_GROUP_MAX, GROUP_BYTES_MAX, Quality};
use crate::schedule::{Align, When, default_phase_ms};
use chrono::{Local, TimeZone};
use std::fmt::{self, Write};

/// When a schedule is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub boottime_ms: u64,
    /// Known while the clock is trusted.
    pub wall_ms: Option<i64>,
}

/// The settings in words, a line for each thing. `next_due` tells the next instants of a schedule, soonest first.
pub fn in_words(settings: &Settings, clock: Quality, next_due: &dyn Fn(&Schedule) -> Vec<Due>) -> String {
    in_words_at(settings, clock, next_due, &Local)
}

fn in_words_at<Z: TimeZone<Offset: fmt::Display>>(
    settings: &Settings,
    clock: Quality,
    next_due: &dyn Fn(&Schedule) -> Vec<Due>,
    zone: &Z,
) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut say = |line: String| {
        let _ = writeln!(out, "{line}");
    };
    say(format!("node {}", settings.node));
    for camera in &settings.cameras {
        say(camera_in_words(camera));
    }
    if settings.cameras.is_empty() {
        say("no cameras".to_owned());
    }
    for schedule in &settings.schedules {
        say(schedule_in_words(&settings.node, schedule));
        if schedule.enabled {
            say(format!("    {}", due_in_words(&next_due(schedule), clock, zone)));
        }
    }
    match &settings.hub {
        Some(hub) => say(hub_in_words(hub)),
        None => say("no hub: pictures stay on this board and are kept as if a hub had acknowledged them".to_owned()),
    }
    let when_full = match (settings.store.when_full, &settings.hub) {
        (WhenFull::Stop, None) => "when full, no more pictures are taken",
        (WhenFull::Stop, Some(_)) => "when full, pictures that the hub has make room; without such, no more are taken",
        (WhenFull::DropOldest, None) => "when full, the oldest go",
        (WhenFull::DropOldest, Some(_)) => "when full, the oldest go, even those the hub has not got",
    };
    let mount = match &settings.store.require_mount {
        None => String::new(),
        Some(Mount::NotRoot) => ", only while it is on another disk than /".to_owned(),
        Some(Mount::At(at)) => format!(", only while a disk is mounted at {}", at.display()),
    };
    say(format!("store {}{mount}: {when_full}", settings.store.dir.display()));
    if settings.store.profile == Profile::Economy {
        let (window, bytes) = (InWords(settings.store.profile.window_ms()), SizeInWords(GROUP_BYTES_MAX as u64));
        say(format!(
            "profile economy: pictures are written together, after {window}, {ECONOMY_GROUP_MAX} pictures or {bytes}, or with a snap"
        ));
        say(format!("    a power cut may lose up to the last {window} of pictures; each lost slot is on record as off(power)"));
        say(format!("    pictures reach the hub up to {window} later"));
    }
    keep_in_words(settings).into_iter().for_each(&mut say);
    say(format!("log {:?}", settings.log.level).to_lowercase());
    say(format!("version {}", settings.version));
    out
}

fn camera_in_words(camera: &Camera) -> String {
    let login = match (&camera.source.user, &camera.source.password) {
        (Some(user), Some(_)) => format!(" as {}, with a password", user.escape_debug()),
        (Some(user), None) => format!(" as {}, without a password", user.escape_debug()),
        (None, _) => String::new(),
    };
    let Camera { id, source, quality, max_pixels, .. } = camera;
    let timeout = InWords(camera.timeout.as_millis() as u64);
    let video = video::in_words(&camera.video);
    format!("camera {id}: {source}{login}{video}, timeout {timeout}, quality {quality}, at most {max_pixels} pixels")
}

fn schedule_in_words(node: &crate::model::NodeId, schedule: &Schedule) -> String {
    let Schedule { id, camera, .. } = schedule;
    let When::Grid(grid) = &schedule.rule.when else { return format!("schedule {id}: camera {camera}") };
    let (every, own) = (InWords(grid.period_ms), default_phase_ms(node, id, grid.period_ms));
    let align = match grid.align {
        Align::Clock => "on the clock (UTC multiples, ",
        Align::Boot => "since boot (",
    };
    let phase = match grid.phase_ms {
        ms if ms == own => "phase of its own from node and schedule name".to_owned(),
        ms => format!("phase {}", InWords(ms)),
    };
    let off = if schedule.enabled { "" } else { ", disabled" };
    format!("schedule {id}: camera {camera}, every {every}, {align}{phase}){off}")
}

fn due_in_words<Z: TimeZone<Offset: fmt::Display>>(due: &[Due], clock: Quality, zone: &Z) -> String {
    let on_the_wall = |due: &Due| {
        let instant = zone.timestamp_millis_opt(due.wall_ms?).single()?;
        Some(instant.format("%Y-%m-%d %H:%M:%S %:z").to_string())
    };
    let since_boot = |due: &Due| format!("boot + {}", InWords(due.boottime_ms));
    let each: Vec<_> = due.iter().map(|due| on_the_wall(due).unwrap_or_else(|| since_boot(due))).collect();
    let mistrust = match clock {
        clock if clock.trusted() => "",
        Quality::Unset => "clock not trusted (unset): ",
        _ => "clock not trusted (saved from the last shutdown): ",
    };
    if each.is_empty() { format!("{mistrust}not due") } else { format!("{mistrust}next: {}", each.join(", ")) }
}

fn hub_in_words(hub: &Hub) -> String {
    let scheme = if hub.tls.is_some() { "mqtts" } else { "mqtt" };
    let host = if hub.host.contains(':') { format!("[{}]", hub.host) } else { hub.host.clone() };
    let mut text = format!("hub {scheme}://{host}:{}", hub.port);
    match (&hub.user, &hub.password) {
        (Some(user), Some(_)) => text += &format!(" as {}, with a password", user.escape_debug()),
        (Some(user), None) => text += &format!(" as {}, without a password", user.escape_debug()),
        (None, _) => text += ", no login",
    }
    match &hub.tls {
        None => text += ", not encrypted",
        Some(tls) => {
            text += ", TLS, ";
            text += &tls.ca_file.as_ref().map_or("the system's CAs".to_owned(), |file| format!("CA {}", file.display()));
            if let Some((certificate, _)) = &tls.client {
                text += &format!(", client certificate {}", certificate.display());
            }
        }
    }
    text + &format!(", keep-alive {}", InWords(hub.keep_alive.as_millis() as u64))
}

/// The rules, and in which order they bite.
fn keep_in_words(settings: &Settings) -> Vec<String> {
    let keep = &settings.keep;
    let count = |n: u64| format!("{n} picture{}", if n == 1 { "" } else { "s" });
    let most = |bytes: Option<u64>, number: Option<u64>| {
        let parts: Vec<_> = bytes.map(|b| format!("{} of pictures", SizeInWords(b))).into_iter().chain(number.map(count)).collect();
        (!parts.is_empty()).then(|| format!("{} at most", parts.join(" and ")))
    };
    let age = keep.age.map(|age| format!("acknowledged pictures for {}", InWords(age.as_millis() as u64)));
    let thin = (!keep.thin.is_empty()).then(|| thin::in_words(&keep.thin));
    let rules: Vec<_> = age.into_iter().chain(thin).chain(most(keep.bytes, keep.count)).collect();
    let mut lines = match rules.is_empty() {
        true => vec!["keep: everything, until the disk is full".to_owned()],
        false => vec![format!("keep: {}", rules.join("; "))],
    };
    lines.extend(keep.cameras.iter().filter_map(|(camera, (bytes, number))| Some(format!("keep of {camera}: {}", most(*bytes, *number)?))));
    let floor = keep.free.map(|b| SizeInWords(b).to_string()).into_iter().chain(keep.free_inodes.map(|n| format!("{n} inodes")));
    let floor: Vec<_> = floor.collect();
    if !floor.is_empty() {
        lines.push(format!(
            "keep free on the disk: {}; if something else fills it, pictures give half of their room at most",
            floor.join(" and ")
        ));
    }
    let by_time = keep.age.is_some() || !keep.thin.is_empty();
    let by_room = keep.bytes.is_some() || keep.count.is_some() || !floor.is_empty() || !keep.cameras.is_empty();
    if by_time {
        lines.push("    by age only while the clock is trusted, and only pictures whose time is known".to_owned());
    }
    if by_room {
        lines.push("    for room the oldest go first, from the camera that has most".to_owned());
    }
    if by_time || by_room {
        lines.push("    pinned pictures stay until they are unpinned".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::FixedOffset;

    const FILE: &str = r#"
[node]
id = "river-07"
[hub]
url = "mqtts://river-07:hunter2@hub.example"
ca_file = "/etc/shutterd/ca.pem"
[keep]
age = "30d"
bytes = "20 GiB"
[cameras.gate]
source = "rtsp://admin:hunter2@10.0.0.5/stream?token=hunter2"
[schedules.gate-5m]
camera = "gate"
every = "5m"
phase = "1m12s"
[schedules.night]
camera = "gate"
every = "1h"
align = "boot"
enabled = false
"#;

    #[test]
    fn check_says_in_words_what_it_understood_and_no_secret() {
        let (settings, _) = crate::config::parse(FILE, "f.toml").unwrap();
        let next = |_: &Schedule| vec![Due { boottime_ms: 7_500_000, wall_ms: Some(1_795_381_500_000) }];
        let zone = FixedOffset::east_opt(3600).unwrap();
        let said = in_words_at(&settings, Quality::Ntp, &next, &zone);
        let expected = format!(
            "node river-07
camera gate: rtsp://10.0.0.5/stream as admin, with a password, timeout 10 s, quality 85, at most 33177600 pixels
schedule gate-5m: camera gate, every 5 min, on the clock (UTC multiples, phase 1 min 12 s)
    next: 2026-11-22 22:05:00 +01:00
schedule night: camera gate, every 1 h, since boot (phase of its own from node and schedule name), disabled
hub mqtts://hub.example:8883 as river-07, with a password, TLS, CA /etc/shutterd/ca.pem, keep-alive 30 s
store /var/lib/shutterd: when full, pictures that the hub has make room; without such, no more are taken
keep: acknowledged pictures for 30 d; 20 GiB of pictures at most
    by age only while the clock is trusted, and only pictures whose time is known
    for room the oldest go first, from the camera that has most
    pinned pictures stay until they are unpinned
log info
version {}
",
            settings.version
        );
        assert_eq!(said, expected);
        assert!(!format!("{said}{settings:?}").contains("hunter2"));
    }

    #[test]
    fn every_rule_of_keep_is_told() {
        let text = "[node]\nid = \"n\"\n[store]\nprofile = \"economy\"\nrequire_mount = true\n[keep]\nfree = \"1 GiB\"\nfree_inodes = 500\ncount = 1000
thin = \"all for 2d, daily for ever\"\n[cameras.gate]\nsource = \"v4l2:x\"\nkeep_bytes = \"2 GiB\"\nkeep_count = 100\n";
        let (settings, _) = crate::config::parse(text, "f.toml").unwrap();
        let said = in_words(&settings, Quality::Ntp, &|_| vec![]);
        let expected = "store /var/lib/shutterd, only while it is on another disk than /: when full, no more pictures are taken
profile economy: pictures are written together, after 1 min, 32 pictures or 4 MiB, or with a snap
    a power cut may lose up to the last 1 min of pictures; each lost slot is on record as off(power)
    pictures reach the hub up to 1 min later
keep: all until 2 d old, then the first of each day (UTC) for ever; 1000 pictures at most
keep of gate: 2 GiB of pictures and 100 pictures at most
keep free on the disk: 1 GiB and 500 inodes; if something else fills it, pictures give half of their room at most
    by age only while the clock is trusted, and only pictures whose time is known
    for room the oldest go first, from the camera that has most
    pinned pictures stay until they are unpinned
";
        assert!(said.contains(expected), "{said}");
        let (settings, warnings) = crate::config::parse(&text.replace("count = 1000", "age = \"1d\""), "f.toml").unwrap();
        assert!(settings.keep.age.is_some());
        assert!(warnings.iter().any(|w| w.to_string().contains("thin: its last step is never reached")), "{warnings:?}");
    }

    #[test]
    fn without_a_trusted_clock_instants_count_from_boot() {
        let (settings, _) = crate::config::parse(FILE, "f.toml").unwrap();
        let next = |_: &Schedule| vec![Due { boottime_ms: 7_500_000, wall_ms: None }, Due { boottime_ms: 7_800_000, wall_ms: None }];
        let said = in_words(&settings, Quality::Saved, &next);
        let line = "    clock not trusted (saved from the last shutdown): next: boot + 2 h 5 min, boot + 2 h 10 min\n";
        assert!(said.contains(line), "{said}");
    }
}
