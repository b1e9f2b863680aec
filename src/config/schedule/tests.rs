//! Schedules as a person writes them, what they become, and what is said of those that cannot be.

use crate::config::{
    checked,
    password::Surroundings,
    report::ConfigErrors,
    settings::{Profile, Settings, ZoneFrom},
    text,
};
use crate::model::{Priority, Quality};
use crate::schedule::{Event, Misfire, Moment, When};

/// Lines 1 to 6: a camera, and a node in Berlin.
const NODE: &str = "[cameras.gate]\nsource = \"v4l2:x\"\n[node]\nlatitude = 52.5\nlongitude = 13.4\nzone = \"Europe/Berlin\"\n";
/// Lines 1 and 2.
const NOWHERE: &str = "[cameras.gate]\nsource = \"v4l2:x\"\n";

fn check(text: &str) -> Result<(Settings, Vec<String>), ConfigErrors> {
    let around = Surroundings { serial: Some("n1".to_owned()), ..Surroundings::default() };
    let (settings, warnings) = checked::check(text, "f.toml", &around)?;
    Ok((settings, warnings.iter().map(ToString::to_string).collect()))
}

#[test]
fn a_complete_schedule_means_what_it_says() {
    let text = format!(
        r#"{NODE}
        [schedules.day]
        camera = "gate"
        at = ["06:00", "12:00:30", "sunrise - 30m"]
        zone = "America/New_York"
        during = ["mon-fri 05:00..20:00", "sat"]
        jitter = "10s"
        grace = "1h"
        misfire = "skip"
        burst = 3
        size = "640x480"
        quality = 60
        profile = "economy"
        priority = "high"
        [schedules.cron]
        camera = "gate"
        cron = "0 6 * * mon-fri"
        [schedules.grid]
        camera = "gate"
        every = "5m"
        misfire = "once"
        "#
    );
    let (settings, warnings) = check(&text).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((settings.home.zone.name(), settings.home.zone_from), ("Europe/Berlin", ZoneFrom::File));
    let day = &settings.schedules[0];
    let When::Calendar(calendar) = &day.rule.when else { panic!() };
    assert_eq!(calendar.moments(), [Moment::Time(21_600), Moment::Time(43_230), Moment::Sun(Event::Sunrise, -1_800_000)]);
    assert_eq!((calendar.zone().name(), calendar.place()), ("America/New_York", settings.home.place));
    let during = day.rule.during.as_ref().unwrap();
    assert_eq!((during.windows().len(), during.zone().name()), (2, "America/New_York"));
    assert_eq!((day.rule.jitter_ms, day.rule.grace_ms, day.rule.misfire, day.rule.burst), (10_000, 3_600_000, Misfire::Skip, 3));
    let wish = day.wish;
    assert_eq!(
        (wish.size, wish.quality, wish.profile, wish.priority),
        (Some((640, 480)), Some(60), Some(Profile::Economy), Priority::High)
    );
    let cron = &settings.schedules[1].rule;
    assert_eq!((cron.misfire, cron.grace_ms, cron.burst, cron.jitter_ms), (Misfire::Once, 600_000, 1, 0), "a calendar's slot may be late");
    assert_eq!(settings.schedules[2].rule.misfire, Misfire::Once);
}

#[test]
fn the_zone_is_the_schedules_the_nodes_the_systems_or_utc() {
    let with = |node: &str, own: &str, system: Option<&str>| {
        let text = format!("{NOWHERE}[node]\nid = \"n\"\n{node}[schedules.a]\ncamera = \"gate\"\nat = \"06:00\"\n{own}");
        let around = Surroundings { zone: system.map(str::to_owned), ..Surroundings::default() };
        let (settings, _) = checked::check(&text, "f.toml", &around).unwrap();
        let When::Calendar(calendar) = &settings.schedules[0].rule.when else { panic!() };
        (calendar.zone().name().to_owned(), text::in_words(&settings, Quality::Ntp, &|_| vec![]).lines().next().unwrap().to_owned())
    };
    let pair = |zone: &str, said: &str| (zone.to_owned(), said.to_owned());
    let (node, own) = ("zone = \"Asia/Tehran\"\n", "zone = \"Asia/Tokyo\"\n");
    assert_eq!(with(node, own, Some("Europe/Berlin")), pair("Asia/Tokyo", "node n, zone Asia/Tehran"));
    assert_eq!(with(node, "", Some("Europe/Berlin")), pair("Asia/Tehran", "node n, zone Asia/Tehran"));
    let said = "node n, zone Europe/Berlin (the system's; write zone in [node] to be sure)";
    assert_eq!(with("", "", Some("Europe/Berlin")), pair("Europe/Berlin", said));
    assert_eq!(with("", "", None), pair("UTC", "node n, zone UTC (the system has none; write zone in [node])"));
    assert_eq!(with("", "", Some("Mars/Olympus")), pair("UTC", "node n, zone UTC (the system has none; write zone in [node])"));
}

/// A section `[schedules.a]` on line 7 with camera on line 8, then these lines, and the messages that they earn.
const MISTAKES: [(&str, &str); 44] = [
    // Which kind.
    ("", "7: [schedules.a] every: is missing; write when: every = \"5m\", at = [\"06:00\", \"sunset\"] or cron = \"0 6 * * mon-fri\""),
    ("every = \"5m\"\nat = \"06:00\"\n", "10: [schedules.a] at: there is every as well; keep one of the two, or make two schedules"),
    ("at = \"06:00\"\ncron = \"0 6 * * *\"\n", "10: [schedules.a] cron: there is at as well; keep one of the two, or make two schedules"),
    ("at = \"06:00\"\nphase = \"1m\"\n", "10: [schedules.a] phase: belongs to every, and at says when already; delete this line"),
    ("cron = \"0 6 * * *\"\nalign = \"boot\"\n", "10: [schedules.a] align: belongs to every, and cron says when already; delete this line"),
    ("every = \"0s\"\n", "9: [schedules.a] every: 0 s is too short; write 1 s or more"),
    ("every = \"32d\"\n", "9: [schedules.a] every: 32 d is too long; write 31 d or less"),
    // Times.
    ("at = \"25:00\"\n", "9: [schedules.a] at: \"25:00\" is no time of day; it goes from \"00:00\" to \"23:59:59\""),
    ("at = \"6:00pm\"\n", "9: [schedules.a] at: \"6:00pm\" is no time of day as it is written here; did you mean \"18:00\"?"),
    ("at = \"6 Uhr\"\n", "9: [schedules.a] at: \"6 Uhr\" is no time of day as it is written here; did you mean \"06:00\"?"),
    ("at = \"sunries\"\n", "9: [schedules.a] at: \"sunries\" is neither a time of day nor an event of the sun; did you mean \"sunrise\"?"),
    (
        "at = [\n\"06:00\",\n\"24:00\",\n\"duskk\",\n]\n",
        "11: [schedules.a] at: \"24:00\" is no time of day; it goes from \"00:00\" to \"23:59:59\"
f.toml:12: [schedules.a] at: \"duskk\" is neither a time of day nor an event of the sun; did you mean \"dusk\"?",
    ),
    ("at = []\n", "9: [schedules.a] at: is an empty list; write a time such as \"06:00\" or \"sunset-30m\", or a list of them"),
    ("at = 6\n", "9: [schedules.a] at: expected a time such as \"06:00\" or \"sunset-30m\", or a list of them, got a number"),
    ("at = 06:00:00\n", "9: [schedules.a] at: expected a time such as \"06:00\" or \"sunset-30m\", or a list of them, got a date"),
    // Cron.
    (
        "cron = \"0 0 30 2 *\"\n",
        "9: [schedules.a] cron: never comes: there is no such day in the months named; for the last day of a month write L as the day",
    ),
    ("cron = \"61 * * * *\"\n", "9: [schedules.a] cron: \"61\" is no minute; it goes from 0 to 59"),
    (
        "cron = \"0 0 6 * * *\"\n",
        "9: [schedules.a] cron: has 6 fields; write five: minute, hour, day of month, month and day of week, such as \"0 6 * * mon-fri\"; there is none for seconds or years",
    ),
    // Zones.
    (
        "at = \"06:00\"\nzone = \"Europe/Berln\"\n",
        "10: [schedules.a] zone: there is no time zone \"Europe/Berln\"; did you mean \"Europe/Berlin\"?",
    ),
    (
        "every = \"5m\"\nzone = \"Europe/Paris\"\n",
        "10: [schedules.a] zone: is of no use here: every follows UTC in all zones; write at or cron, or delete this line",
    ),
    // Windows.
    (
        "every = \"5m\"\nduring = \"06:00-20:00\"\n",
        "10: [schedules.a] during: \"06:00-20:00\" is no range; write FROM..TO, such as \"mon-fri 06:00..20:00\" or \"sunrise-30m..sunset+30m\"",
    ),
    (
        "every = \"5m\"\nduring = \"mon 2026-05-02..2026-05-03\"\n",
        "10: [schedules.a] during: the window \"mon 2026-05-02..2026-05-03\" never opens; none of its weekdays is within its dates",
    ),
    ("every = \"5m\"\nduring = \"sunset..sunset-1h\"\n", ""),
    (
        "every = \"5m\"\nduring = \"10:00..sunrise\"\n",
        "10: [schedules.a] during: the window \"10:00..sunrise\" never opens; its end is never after its beginning here",
    ),
    (
        "at = \"06:00\"\nduring = \"08:00..20:00\"\n",
        "10: [schedules.a] during: none of the schedule's times falls into it within two years; widen the window, or change the times",
    ),
    (
        "cron = \"0 6 1 1 *\"\nduring = \"04-01..10-31\"\n",
        "10: [schedules.a] during: none of the schedule's times falls into it within two years; widen the window, or change the times",
    ),
    (
        "at = \"sunset\"\nduring = \"06:00..12:00\"\n",
        "10: [schedules.a] during: none of the schedule's times falls into it within two years; widen the window, or change the times",
    ),
    (
        "every = \"1d\"\nphase = \"3h\"\nduring = \"08:00..20:00\"\n",
        "11: [schedules.a] during: none of the slots every 1 d, with a phase of 3 h (UTC), falls into it within two years; set phase, or write at in place of every",
    ),
    (
        "every = \"5m\"\nduring = 5\n",
        "10: [schedules.a] during: expected a window such as \"mon-fri 06:00..20:00\", or a list of them, got a number",
    ),
    // Numbers that must fit.
    (
        "every = \"10m\"\njitter = \"5m\"\n",
        "10: [schedules.a] jitter: 5 min must be less than half of the time between two slots, which is 10 min at the shortest",
    ),
    (
        "at = [\"06:00\", \"06:10\"]\njitter = \"5m\"\n",
        "10: [schedules.a] jitter: 5 min must be less than half of the time between two slots, which is 10 min at the shortest",
    ),
    (
        "every = \"10s\"\nburst = 7\n",
        "10: [schedules.a] burst: 7 pictures, 1 s apart, last more than half of the time between two slots, which is 10 s at the shortest; write 6 or less",
    ),
    (
        "every = \"1s\"\nburst = 2\n",
        "10: [schedules.a] burst: 2 pictures, 1 s apart, last more than half of the time between two slots, which is 1 s at the shortest; delete this line",
    ),
    (
        "every = \"1m\"\nburst = 20\njitter = \"29s\"\n",
        "11: [schedules.a] jitter: the last of 20 pictures could come as late as the next slot; together they must fit into half of the time between two slots; write less of one of them",
    ),
    ("every = \"1h\"\nburst = 1\n", "10: [schedules.a] burst: 1 is out of range; write a whole number from 2 to 20"),
    ("every = \"1h\"\nburst = 21\n", "10: [schedules.a] burst: 21 is out of range; write a whole number from 2 to 20"),
    ("every = \"1h\"\ngrace = \"0s\"\n", "10: [schedules.a] grace: 0 s is too short; write 1 s or more"),
    ("every = \"1h\"\nmisfire = \"twice\"\n", "10: [schedules.a] misfire: \"twice\" is not one of \"skip\", \"once\""),
    ("every = \"1h\"\nsize = \"big\"\n", "10: [schedules.a] size: \"big\" is not a size in pixels; write one such as \"1920x1080\""),
    ("every = \"1h\"\nquality = 0\n", "10: [schedules.a] quality: 0 is out of range; write a whole number from 1 to 100"),
    ("every = \"1h\"\nprofile = \"eco\"\n", "10: [schedules.a] profile: \"eco\" is not one of \"prompt\", \"economy\""),
    ("every = \"1h\"\npriority = \"urgent\"\n", "10: [schedules.a] priority: \"urgent\" is not one of \"high\", \"normal\", \"low\""),
    // Twice.
    (
        "every = \"1h\"\nenabled = true\nenabled = true\n",
        "11: \"enabled\" is set a second time in this section; delete one of the two lines",
    ),
    (
        "every = \"1h\"\n[schedules.a]\ncamera = \"gate\"\nevery = \"1h\"\n",
        "10: a second section of the name \"a\" (the first is on line 7); give one of them another name, or delete it",
    ),
];

#[test]
fn each_mistake_has_a_message_that_says_what_to_do() {
    for (lines, says) in MISTAKES {
        let said = match check(&format!("{NODE}[schedules.a]\ncamera = \"gate\"\n{lines}")) {
            Err(errors) => errors.to_string(),
            Ok(_) => String::new(),
        };
        assert_eq!(said.strip_prefix("f.toml:").unwrap_or(&said), says, "for:\n{lines}");
    }
}

#[test]
fn the_sun_needs_a_place() {
    let advice = "write both into [node], in degrees north and east, such as latitude = 52.5 and longitude = 13.4";
    for (key, lines) in [
        ("at", "at = [\"06:00\", \"sunrise\"]\n"),
        ("during", "every = \"5m\"\nduring = [\"sat\", \"sunrise..sunset\"]\n"),
        ("at", "at = \"solar noon\"\n"),
    ] {
        let line = if key == "at" { 5 } else { 6 };
        let said = check(&format!("{NOWHERE}[schedules.a]\ncamera = \"gate\"\n{lines}")).unwrap_err().to_string();
        assert_eq!(said, format!("f.toml:{line}: [schedules.a] {key}: the sun needs the node's latitude and longitude; {advice}"));
    }
    let at = "[schedules.a]\ncamera = \"gate\"\nat = \"sunrise\"\n";
    for (node, says) in [
        ("latitude = 91\nlongitude = 13.4\n", "4: [node] latitude: 91 is out of range; write a number from -90 to 90"),
        ("latitude = 52.5\nlongitude = -180.5\n", "5: [node] longitude: -180.5 is out of range; write a number from -180 to 180"),
        ("latitude = nan\nlongitude = 0\n", "4: [node] latitude: nan is out of range; write a number from -90 to 90"),
        ("latitude = \"52 N\"\nlongitude = 0\n", "4: [node] latitude: expected a number from -90 to 90, got a text"),
        ("latitude = 52.5\n", "4: [node] latitude: longitude is missing; a place needs both, in degrees north and east"),
        ("longitude = 13\n", "4: [node] longitude: latitude is missing; a place needs both, in degrees north and east"),
        (
            "zone = \"Mars/Olympus\"\nlatitude = 1\nlongitude = 1\n",
            "4: [node] zone: there is no time zone \"Mars/Olympus\"; write the name of a place, such as \"Europe/Berlin\"; `timedatectl list-timezones` lists them",
        ),
    ] {
        // Blamed once, and not again at each schedule.
        assert_eq!(check(&format!("{NOWHERE}[node]\n{node}{at}")).unwrap_err().to_string(), format!("f.toml:{says}"));
    }
}

#[test]
fn an_address_in_the_wrong_place_does_not_show_its_password() {
    for key in ["at", "cron", "during", "zone", "jitter", "grace", "misfire", "size", "profile", "priority"] {
        for value in [
            "rtsp://u:hunter2@h/s",
            "sunries-hunter2@h",
            "rtsp://u:hunter2 * * * *",
            "hunter2@h..hunter2@h",
            "hunter2@h * * * fri#hunter2@h",
        ] {
            let every = if ["at", "cron"].contains(&key) { "" } else { "every = \"5m\"\n" };
            let said = check(&format!("{NODE}[schedules.a]\ncamera = \"gate\"\n{every}{key} = \"{value}\"\n")).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn two_schedules_that_mean_the_same_are_warned_of() {
    let both = |second: &str| {
        let text = format!("{NODE}[schedules.a]\ncamera = \"gate\"\nat = \"06:00\"\n[schedules.b]\ncamera = \"gate\"\n{second}");
        check(&text).unwrap().1
    };
    let says = "f.toml:10: [schedules.b] means the same as [schedules.a]; delete one of them, or write enabled = false in it";
    assert_eq!(both("at = [\"06:00\"]\n"), [says]);
    for other in
        ["at = \"06:00\"\nenabled = false\n", "at = \"06:01\"\n", "at = \"06:00\"\nquality = 50\n", "at = \"06:00\"\nzone = \"UTC\"\n"]
    {
        assert_eq!(both(other), Vec::<String>::new(), "{other}");
    }
}

#[test]
fn check_says_in_words_when_and_what() {
    let text = format!(
        r#"{NODE}id = "n"
        [schedules.a]
        camera = "gate"
        at = ["02:30", "sunset + 15m"]
        during = ["mon-fri 22:00..06:00", "04-01..10-31"]
        burst = 3
        jitter = "30s"
        size = "640x480"
        quality = 60
        profile = "economy"
        priority = "low"
        [schedules.b]
        camera = "gate"
        cron = "*/30 * * * *"
        zone = "America/New_York"
        misfire = "skip"
        [schedules.c]
        camera = "gate"
        every = "5m"
        phase = "1m"
        during = "sunrise..sunset"
        misfire = "once"
        grace = "1m"
        [schedules.d]
        camera = "gate"
        cron = "0 12 * * *"
        enabled = false
        "#
    );
    let (settings, _) = check(&text).unwrap();
    let next = |_: &_| vec![text::Due { boottime_ms: 0, wall_ms: Some(1_795_678_200_000) }];
    let said = text::in_words(&settings, Quality::Ntp, &next);
    let schedules: Vec<&str> = said.lines().skip(2).take_while(|line| !line.starts_with("no hub")).collect();
    assert_eq!(
        schedules.join("\n"),
        "schedule a: camera gate, at 02:30 and at sunset + 15 min
    only during mon-fri 22:00..06:00 (overnight), or 04-01..10-31
    3 pictures each time, 1 s apart; each slot later by its own part of 30 s; of missed slots the last is served, if not later than 10 min; reduced to fit 640x480; quality 60; profile economy; priority low
    when clocks are changed: 02:30 in the missing hour is taken right after it, in the doubled hour once, the first time
    next: 2026-11-26 08:30:00 +01:00
schedule b: camera gate, cron */30 * * * *, zone America/New_York
    slots that were missed are skipped
    when clocks are changed: */30 * * * * follows the time that passes, so it has nothing in a missing hour and both of a doubled one
    next: 2026-11-26 02:30:00 -05:00
schedule c: camera gate, every 5 min, on the clock (UTC multiples, phase 1 min)
    only during sunrise..sunset
    of missed slots the last is served, if not later than 1 min
    next: 2026-11-26 08:30:00 +01:00
schedule d: camera gate, cron 0 12 * * *, disabled
    of missed slots the last is served, if not later than 10 min"
    );
    assert!(said.starts_with("node n, zone Europe/Berlin, at 52.5 N 13.4 E\n"), "{said}");
}
