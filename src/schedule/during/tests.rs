//! What is inside and what is not, over midnight, New Year and changes of clocks, in polar day and night; and that the next
//! opening is what minute by minute finds.

use super::*;
use crate::config::{windows::window, zones::zone};
use chrono::DateTime;
use proptest::prelude::*;

const BERLIN: Place = Place { latitude: 52.52, longitude: 13.405 };
const TROMSO: Place = Place { latitude: 69.65, longitude: 18.96 };
const MINUTE_MS: i64 = 60_000;

fn during(texts: &[&str], zone_name: &str, place: Place) -> During {
    During::new(texts.iter().map(|text| window(text).unwrap()).collect(), zone(zone_name).unwrap(), Some(place))
}
fn ms(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

/// Windows in Berlin: what is inside, what is not.
const TABLE: [(&[&str], &[&str], &[&str]); 12] = [
    (
        &["06:00..20:00"],
        &["2026-11-26T06:00:00+01:00", "2026-07-01T19:59:59+02:00"],
        &["2026-11-26T05:59:59+01:00", "2026-07-01T20:00:00+02:00"],
    ),
    (
        &["22:00..06:00"],
        &["2026-11-26T23:00:00+01:00", "2026-11-26T05:59:59+01:00"],
        &["2026-11-26T06:00:00+01:00", "2026-11-26T21:59:59+01:00"],
    ),
    (&["22:00..24:00"], &["2026-11-26T23:59:59+01:00"], &["2026-11-27T00:00:00+01:00"]),
    // A night belongs to the day on which it begins. The 27th is a Friday.
    (
        &["fri 22:00..06:00"],
        &["2026-11-27T22:00:00+01:00", "2026-11-28T05:59:00+01:00"],
        &["2026-11-27T05:59:00+01:00", "2026-11-28T22:00:00+01:00"],
    ),
    (
        &["mon-fri"],
        &["2026-11-27T00:00:00+01:00", "2026-11-27T23:59:59+01:00"],
        &["2026-11-28T00:00:00+01:00", "2026-11-29T12:00:00+01:00"],
    ),
    (&["fri-mon"], &["2026-11-27T12:00:00+01:00", "2026-11-30T12:00:00+01:00"], &["2026-12-01T12:00:00+01:00"]),
    (&["sat,sun 10:00..12:00"], &["2026-11-28T10:00:00+01:00"], &["2026-11-27T10:00:00+01:00", "2026-11-28T12:00:00+01:00"]),
    (
        &["04-01..10-31"],
        &["2026-04-01T00:00:00+02:00", "2027-10-31T23:59:59+01:00"],
        &["2026-03-31T23:59:59+02:00", "2026-11-01T00:00:00+01:00"],
    ),
    (
        &["12-20..01-06"],
        &["2026-12-31T23:59:59+01:00", "2027-01-06T23:59:59+01:00"],
        &["2027-01-07T00:00:00+01:00", "2026-12-19T23:59:59+01:00"],
    ),
    (&["2026-04-01..2026-10-31"], &["2026-10-31T23:00:00+01:00"], &["2027-05-01T12:00:00+02:00"]),
    (&["06:00..08:00", "18:00..20:00"], &["2026-11-26T07:00:00+01:00", "2026-11-26T19:00:00+01:00"], &["2026-11-26T12:00:00+01:00"]),
    // Sunrise at 7:47, sunset at 15:58.
    (
        &["sunrise-30m..sunset+30m"],
        &["2026-11-26T07:20:00+01:00", "2026-11-26T16:25:00+01:00"],
        &["2026-11-26T07:10:00+01:00", "2026-11-26T16:35:00+01:00"],
    ),
];

fn wrong(zone_name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (texts, inside, outside) in TABLE {
        let during = during(texts, zone_name, BERLIN);
        for (instant, expected) in inside.iter().map(|at| (at, true)).chain(outside.iter().map(|at| (at, false))) {
            if during.contains(ms(instant)) != expected {
                wrong.push(format!("{texts:?} {instant}: expected {expected}"));
            }
        }
    }
    wrong
}

#[test]
fn a_window_holds_what_it_says() {
    assert_eq!(wrong("Europe/Berlin"), Vec::<String>::new());
}

/// The slip that is easily made.
#[test]
fn windows_taken_as_utc_fail_the_table() {
    assert!(wrong("UTC").len() > 10, "{:?}", wrong("UTC"));
    assert!(wrong("America/New_York").len() > 10);
}

#[test]
fn a_window_in_the_night_of_a_change_of_clocks_ends_where_its_times_are() {
    let berlin = |text: &str| during(&[text], "Europe/Berlin", BERLIN);
    // In spring 02:30 is taken at three; a window wholly in the missing hour does not open.
    let spring = berlin("01:00..02:30");
    assert!(spring.contains(ms("2027-03-28T01:59:59+01:00")) && !spring.contains(ms("2027-03-28T03:00:00+02:00")));
    assert_eq!(berlin("02:10..02:40").open_from(ms("2027-03-28T00:00:00+01:00")), Some(ms("2027-03-29T02:10:00+02:00")));
    // In autumn from the first time on; 03:00 comes once.
    let autumn = berlin("02:30..03:00");
    let (from, to) = (ms("2026-10-25T02:30:00+02:00"), ms("2026-10-25T03:00:00+01:00"));
    assert_eq!((autumn.open_from(from - 3_600_000), to - from), (Some(from), 5_400_000));
    assert!(autumn.contains(to - 1) && !autumn.contains(to));
}

#[test]
fn a_day_window_is_open_in_polar_day_and_closed_in_polar_night_and_a_night_window_the_other_way_round() {
    let (day, night) = (during(&["sunrise-30m..sunset+30m"], "Europe/Oslo", TROMSO), during(&["sunset..sunrise"], "Europe/Oslo", TROMSO));
    for hour in 0..240 {
        let (summer, winter) = (ms("2026-06-20T00:00:00Z") + hour * 3_600_000, ms("2026-12-18T00:00:00Z") + hour * 3_600_000);
        assert!(day.contains(summer) && !night.contains(summer), "hour {hour} of summer");
        assert!(!day.contains(winter) && night.contains(winter), "hour {hour} of winter");
    }
    // Bright enough to see something, at noon, in the same night.
    let bright = during(&["dawn..dusk"], "Europe/Oslo", TROMSO);
    assert!(bright.contains(ms("2026-12-20T10:45:00Z")) && !bright.contains(ms("2026-12-20T20:00:00Z")));
    assert!((ms("2027-01-14T00:00:00Z")..ms("2027-01-17T00:00:00Z")).contains(&day.open_from(ms("2026-12-01T00:00:00Z")).unwrap()));
    // With a time of day at its other end: while the sun is up, but not after eight.
    let mixed = during(&["sunrise..20:00"], "Europe/Oslo", TROMSO);
    assert!(mixed.contains(ms("2026-06-20T00:30:00+02:00")) && !mixed.contains(ms("2026-06-20T20:30:00+02:00")));
    assert!(!mixed.contains(ms("2026-12-20T12:00:00+01:00")));
}

#[test]
fn a_range_by_the_sun_does_not_turn_into_a_night_when_the_sun_is_late() {
    let morning = during(&["sunrise..08:00"], "Europe/Berlin", BERLIN);
    // On 1 January the sun rises at 8:17.
    assert_eq!(morning.open_from(ms("2026-12-25T12:00:00+01:00")).map(|at| at > ms("2027-01-18T00:00:00+01:00")), Some(true));
    let evening = during(&["20:00..sunset"], "Europe/Berlin", BERLIN);
    assert!(evening.contains(ms("2026-06-21T21:00:00+02:00")) && !evening.contains(ms("2026-12-21T21:00:00+01:00")));
    let dusk = during(&["sunset..23:00"], "Europe/Berlin", BERLIN);
    assert!(dusk.contains(ms("2026-12-21T22:59:00+01:00")) && !dusk.contains(ms("2026-12-22T02:00:00+01:00")));
    let night = during(&["sunset+1h..06:00"], "Europe/Berlin", BERLIN);
    assert!(night.contains(ms("2026-12-22T02:00:00+01:00")) && !night.contains(ms("2026-12-22T06:00:00+01:00")));
}

/// Where the clock has little to do with the sun, each of its days still belongs to one date.
#[test]
fn the_suns_day_is_the_calendars_day_in_any_zone() {
    for (zone_name, place) in [
        ("Pacific/Kiritimati", Place { latitude: 1.9, longitude: -157.4 }),
        ("Pacific/Auckland", Place { latitude: -36.8, longitude: 174.8 }),
        ("America/Anchorage", Place { latitude: 61.2, longitude: -149.9 }),
        ("Asia/Shanghai", Place { latitude: 39.5, longitude: 76.0 }),
    ] {
        // Sunday's daylight is on Sunday by the wall there.
        let sunday = during(&["sun sunrise..sunset"], zone_name, place);
        let opens = sunday.open_from(ms("2026-03-04T00:00:00Z")).unwrap();
        let zone = zone(zone_name).unwrap();
        let local = zone.local_s(opens / 1_000);
        assert_eq!((weekday(local.div_euclid(DAY_S)), local.rem_euclid(DAY_S) / 3_600 < 12), (0, true), "{zone_name}");
    }
}

#[test]
fn what_lies_years_ahead_is_found_and_what_is_over_is_not() {
    let berlin = |text: &str| during(&[text], "Europe/Berlin", BERLIN);
    assert_eq!(berlin("02-29..02-29").open_from(ms("2096-03-01T00:00:00+01:00")), Some(ms("2104-02-29T00:00:00+01:00")));
    assert_eq!(berlin("2060-01-01..2060-01-02 06:00..07:00").open_from(0), Some(ms("2060-01-01T06:00:00+01:00")));
    assert_eq!(berlin("2020-01-01..2020-12-31").open_from(ms("2021-01-01T00:00:00+01:00")), None);
    // 2 May 2026 is a Saturday.
    assert_eq!(berlin("mon 2026-05-02..2026-05-03").open_from(0), None);
    assert_eq!(During::new(vec![window("sunrise..sunset").unwrap()], Zone::utc(), None).open_from(0), None, "no place, no sun");
    assert_eq!(During::new(vec![], Zone::utc(), None).open_from(0), None);
}

fn text() -> impl Strategy<Value = String> {
    let days = prop_oneof![Just(""), Just("mon-fri "), Just("sat,sun "), Just("wed "), Just("fri-mon ")];
    let dates = prop_oneof![Just(""), Just(""), Just("04-01..10-31 "), Just("12-20..01-06 "), Just("2027-02-01..2027-11-05 ")];
    let clock = || (0u32..24, 0u32..60).prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}"));
    let sun = || {
        let event = prop_oneof![Just("sunrise"), Just("sunset"), Just("dawn"), Just("dusk"), Just("solar noon"), Just("solar midnight")];
        (event, -719i64..720).prop_map(|(event, minutes)| format!("{event}{}{}m", if minutes < 0 { '-' } else { '+' }, minutes.abs()))
    };
    let bound = move || prop_oneof![clock(), sun()];
    (days, dates, bound(), bound()).prop_map(|(days, dates, from, to)| format!("{days}{dates}{from}..{to}"))
}

fn any_during() -> impl Strategy<Value = During> {
    let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Tehran", "Pacific/Kiritimati"];
    let place = (-90.0f64..=90.0, -180.0f64..=180.0).prop_map(|(latitude, longitude)| Place { latitude, longitude });
    (proptest::collection::vec(text(), 1..3), 0usize..zones.len(), place).prop_filter_map(
        "a range of nothing",
        move |(texts, index, place)| {
            let windows: Option<Vec<Window>> = texts.iter().map(|text| window(text).ok()).collect();
            Some(During::new(windows?, zone(zones[index]).unwrap(), Some(place)))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// For two days from anywhere in two years, nights of changes of clocks among them.
    #[test]
    fn the_next_opening_is_what_minute_by_minute_finds(during in any_during(), minute in 29_800_000i64..30_900_000, second in 0i64..60_000) {
        let from = minute * MINUTE_MS + second;
        let opens = during.open_from(from);
        if let Some(opens) = opens {
            prop_assert!(opens >= from && during.contains(opens));
            prop_assert!(opens == from || !during.contains(opens - 1));
            prop_assert_eq!(during.open_from(opens), Some(opens));
        }
        for at in (from..from + 2 * DAY_MS).step_by(MINUTE_MS as usize) {
            let before = opens.is_none_or(|opens| at < opens);
            prop_assert!(!(before && during.contains(at)), "open at {}, but not before {:?}", at, opens);
            if !before {
                break;
            }
        }
    }

    #[test]
    fn a_union_holds_what_one_of_its_windows_holds(during in any_during(), minute in 29_800_000i64..30_900_000) {
        let each = |window: &Window| During::new(vec![window.clone()], during.zone.clone(), during.place);
        for at in (0..200).map(|step| (minute + step * 17) * MINUTE_MS) {
            let one = during.windows.iter().any(|window| each(window).contains(at));
            prop_assert_eq!(during.contains(at), one);
        }
    }

    #[test]
    fn any_instant_is_answered(during in any_during(), at in any::<i64>(), year in -8_900i64..8_900) {
        for at in [at, year * 31_556_952_000, i64::MIN, i64::MAX] {
            prop_assert!(during.open_from(at).is_none_or(|opens| opens >= at));
            let _ = during.contains(at);
        }
    }
}
