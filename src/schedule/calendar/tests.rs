//! The nights on which clocks are changed, in five zones; leap days, polar nights; and that it is a function of the instant.

use super::*;
use crate::config::moments::{cron, moment};
use crate::config::zones::zone as zone_of;
use chrono::{DateTime, FixedOffset, TimeZone};
use proptest::prelude::*;

const BERLIN: Place = Place { latitude: 52.52, longitude: 13.405 };
const SVALBARD: Place = Place { latitude: 78.22, longitude: 15.65 };

fn zone(name: &str) -> Zone {
    zone_of(name).unwrap()
}

fn ms(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

/// By the wall of a zone, with its distance from UTC.
fn shown(zone: &Zone, at_ms: i64) -> String {
    let offset_s = zone.span(at_ms.div_euclid(1_000)).offset_s;
    FixedOffset::east_opt(offset_s as i32).unwrap().timestamp_millis_opt(at_ms).unwrap().format("%m-%d %H:%M:%S %:z").to_string()
}

fn at(texts: &[&str], zone: Zone) -> Calendar {
    Calendar::new(texts.iter().map(|text| moment(text).unwrap()).collect(), zone, Some(BERLIN))
}
fn by_cron(text: &str, zone: Zone) -> Calendar {
    Calendar::new(vec![Moment::Cron(cron(text).unwrap())], zone, None)
}

fn instants(calendar: &Calendar, after: &str, count: usize) -> Vec<i64> {
    let mut from = ms(after);
    let next = || {
        from = calendar.next_after(from)?;
        Some(from)
    };
    std::iter::from_fn(next).take(count).collect()
}
fn next(calendar: &Calendar, after: &str, count: usize) -> Vec<String> {
    instants(calendar, after, count).into_iter().map(|at| shown(calendar.zone(), at)).collect()
}

/// Zone, a time in the hour in question, an instant before that night, and what comes next.
type Night = (&'static str, &'static str, &'static str, [&'static str; 2]);

const MISSING: [Night; 5] = [
    ("Europe/Berlin", "02:30", "2027-03-27T12:00:00Z", ["03-28 03:00:00 +02:00", "03-29 02:30:00 +02:00"]),
    ("America/New_York", "02:30", "2027-03-13T12:00:00Z", ["03-14 03:00:00 -04:00", "03-15 02:30:00 -04:00"]),
    ("Australia/Lord_Howe", "02:15", "2026-10-03T00:00:00Z", ["10-04 02:30:00 +11:00", "10-05 02:15:00 +11:00"]),
    ("America/Santiago", "00:30", "2026-09-05T12:00:00Z", ["09-06 01:00:00 -03:00", "09-07 00:30:00 -03:00"]),
    ("Asia/Tehran", "00:30", "2022-03-21T12:00:00Z", ["03-22 01:00:00 +04:30", "03-23 00:30:00 +04:30"]),
];
const DOUBLED: [Night; 5] = [
    ("Europe/Berlin", "02:30", "2026-10-24T12:00:00Z", ["10-25 02:30:00 +02:00", "10-26 02:30:00 +01:00"]),
    ("America/New_York", "01:30", "2026-10-31T12:00:00Z", ["11-01 01:30:00 -04:00", "11-02 01:30:00 -05:00"]),
    ("Australia/Lord_Howe", "01:45", "2027-04-03T00:00:00Z", ["04-04 01:45:00 +11:00", "04-05 01:45:00 +10:30"]),
    ("America/Santiago", "23:30", "2027-04-03T12:00:00Z", ["04-03 23:30:00 -03:00", "04-04 23:30:00 -04:00"]),
    ("Asia/Tehran", "23:30", "2022-09-21T12:00:00Z", ["09-21 23:30:00 +04:30", "09-22 23:30:00 +03:30"]),
];

fn as_cron(time: &str) -> String {
    let (hour, minute) = time.split_once(':').unwrap();
    format!("{} {} * * *", minute.parse::<u32>().unwrap(), hour.parse::<u32>().unwrap())
}

#[test]
fn a_time_in_the_missing_hour_is_taken_at_the_first_instant_after_it() {
    for (name, time, after, then) in MISSING {
        assert_eq!(next(&at(&[time], zone(name)), after, 2), then, "{name}");
        assert_eq!(next(&by_cron(&as_cron(time), zone(name)), after, 2), then, "cron in {name}");
    }
}

#[test]
fn a_time_in_the_doubled_hour_is_taken_once_the_first_time() {
    for (name, time, after, then) in DOUBLED {
        assert_eq!(next(&at(&[time], zone(name)), after, 2), then, "{name}");
        assert_eq!(next(&by_cron(&as_cron(time), zone(name)), after, 2), then, "cron in {name}");
    }
    // Asked within the second of the two hours, too.
    let berlin = at(&["02:30"], zone("Europe/Berlin"));
    assert_eq!(next(&berlin, "2026-10-25T01:10:00Z", 1), ["10-26 02:30:00 +01:00"]);
}

/// What is easily written: today's offset for tomorrow's time. Each night of the tables must find it wrong.
#[test]
fn a_calendar_that_ignores_changes_of_clocks_fails_each_of_these_nights() {
    for (name, time, after, then) in MISSING.into_iter().chain(DOUBLED) {
        let Moment::Time(second) = moment(time).unwrap() else { panic!() };
        let zone = zone(name);
        let from_s = ms(after) / 1_000;
        let offset_s = zone.span(from_s).offset_s;
        let day = (from_s + offset_s).div_euclid(DAY_S);
        let naive: Vec<String> = (day..day + 3)
            .map(|day| day * DAY_S + i64::from(second) - offset_s)
            .filter(|at| *at > from_s)
            .take(2)
            .map(|at| shown(&zone, at * 1_000))
            .collect();
        assert_ne!(naive, then, "{name}");
    }
}

#[test]
fn cron_with_a_star_in_minute_or_hour_follows_the_time_that_passes() {
    let berlin = by_cron("*/30 * * * *", zone("Europe/Berlin"));
    let spring = ["03-28 01:30:00 +01:00", "03-28 03:00:00 +02:00", "03-28 03:30:00 +02:00"];
    assert_eq!(next(&berlin, "2027-03-28T00:00:00Z", 3), spring, "nothing in the missing hour, and no gap in time");
    let autumn =
        ["10-25 02:00:00 +02:00", "10-25 02:30:00 +02:00", "10-25 02:00:00 +01:00", "10-25 02:30:00 +01:00", "10-25 03:00:00 +01:00"];
    assert_eq!(next(&berlin, "2026-10-24T23:30:00Z", 5), autumn, "both of the doubled hours");
    // A star in the minute alone is enough, and a list of hours is none.
    assert_eq!(next(&by_cron("*/30 2 * * *", zone("Europe/Berlin")), "2027-03-27T12:00:00Z", 1), ["03-29 02:00:00 +02:00"]);
    let list = by_cron("0,30 2,3 * * *", zone("Europe/Berlin"));
    assert_eq!(next(&list, "2027-03-27T12:00:00Z", 3), ["03-28 03:00:00 +02:00", "03-28 03:30:00 +02:00", "03-29 02:00:00 +02:00"]);
    let lord_howe = by_cron("*/15 * * * *", zone("Australia/Lord_Howe"));
    assert!(instants(&lord_howe, "2026-10-03T00:00:00Z", 300).windows(2).all(|pair| pair[1] - pair[0] == 900_000));
}

#[test]
fn a_day_keeps_its_times_through_the_year_whatever_its_offset() {
    for name in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca"] {
        let calendar = at(&["12:00"], zone(name));
        let noons = next(&calendar, "2027-01-01T15:00:00Z", 365);
        assert!(noons.iter().all(|noon| noon[6..].starts_with("12:00:00 ")), "{name}");
        let dates: std::collections::BTreeSet<_> = noons.iter().map(|noon| noon[..5].to_owned()).collect();
        assert_eq!(dates.len(), 365, "{name}: each date once");
    }
}

#[test]
fn a_leap_day_is_found_however_far_it_is() {
    let leap = by_cron("0 12 29 2 *", Zone::utc());
    assert_eq!(instants(&leap, "2096-03-01T00:00:00Z", 1), [ms("2104-02-29T12:00:00Z")]);
    // A Monday, too: the star makes both fields count.
    let monday = by_cron("0 12 */28 2 mon#5", Zone::utc());
    assert_eq!(instants(&monday, "2072-03-01T00:00:00Z", 1), [ms("2112-02-29T12:00:00Z")], "40 years over 2100");
    assert_eq!(by_cron("0 0 30 2 *", Zone::utc()).next_after(0), None);
    assert_eq!(by_cron("0 0 31 4,6,9,11 *", Zone::utc()).next_after(0), None);
}

#[test]
fn the_day_fields_mean_what_crontab_says() {
    for (text, after, days) in [
        // Either of two restricted fields.
        ("0 0 13 * fri", "2026-11-01T00:00:00Z", ["11-06", "11-13", "11-20"]),
        // One that begins with a star restricts, but does not choose.
        ("0 0 */10 * mon", "2026-11-01T00:00:00Z", ["12-21", "01-11", "02-01"]),
        ("0 0 * * 7", "2026-11-02T00:00:00Z", ["11-08", "11-15", "11-22"]),
        ("0 0 * * 5-7", "2026-11-02T00:00:00Z", ["11-06", "11-07", "11-08"]),
        ("0 0 L * *", "2027-01-15T00:00:00Z", ["01-31", "02-28", "03-31"]),
        ("0 0 * * friL", "2026-11-01T00:00:00Z", ["11-27", "12-25", "01-29"]),
        ("0 0 * * tue#2", "2026-11-01T00:00:00Z", ["11-10", "12-08", "01-12"]),
    ] {
        let found = next(&by_cron(text, Zone::utc()), after, 3);
        assert_eq!(found.iter().map(|at| &at[..5]).collect::<Vec<_>>(), days, "{text}");
    }
}

#[test]
fn two_moments_at_one_instant_are_one() {
    let calendar = at(&["06:00", "06:00:00", "18:00"], zone("Europe/Berlin"));
    assert_eq!(next(&calendar, "2026-11-26T00:00:00Z", 3), ["11-26 06:00:00 +01:00", "11-26 18:00:00 +01:00", "11-27 06:00:00 +01:00"]);
}

#[test]
fn events_of_the_sun_come_in_their_order_with_their_offsets() {
    let berlin = zone("Europe/Berlin");
    let one = |text: &str| instants(&at(&[text], berlin.clone()), "2026-11-26T00:00:00Z", 1)[0];
    assert_eq!(one("sunrise") - one("sunrise - 30m"), 1_800_000);
    assert_eq!(one("sunset + 1h15m") - one("sunset"), 4_500_000);
    let mixed = at(&["dawn", "sunrise", "solar noon", "sunset", "dusk", "solar midnight"], berlin.clone());
    let found = instants(&mixed, "2026-11-26T00:00:00Z", 6);
    assert_eq!(found, ["dawn", "sunrise", "solar noon", "sunset", "dusk", "solar midnight"].map(one));
    assert_eq!(Calendar::new(vec![moment("sunrise").unwrap()], Zone::utc(), None).next_after(0), None, "no place, no sun");
}

#[test]
fn what_does_not_happen_in_polar_night_waits_for_its_end() {
    let svalbard = |text: &str| Calendar::new(vec![moment(text).unwrap()], zone("Arctic/Longyearbyen"), Some(SVALBARD));
    let (before, after) = (ms("2026-11-15T12:00:00Z"), svalbard("sunrise").next_after(ms("2026-11-15T12:00:00Z")).unwrap());
    assert!((ms("2027-02-14T00:00:00Z")..ms("2027-02-18T00:00:00Z")).contains(&after), "{}", shown(&Zone::utc(), after));
    let summer = svalbard("sunset").next_after(ms("2027-05-01T00:00:00Z")).unwrap();
    assert!((ms("2027-08-22T00:00:00Z")..ms("2027-08-27T00:00:00Z")).contains(&summer), "{}", shown(&Zone::utc(), summer));
    // The sun has its highest point every day.
    let noons = std::iter::successors(Some(before), |at| svalbard("solar noon").next_after(*at)).skip(1).take(365);
    assert!(noons.collect::<Vec<_>>().windows(2).all(|pair| (pair[1] - pair[0] - 86_400_000).abs() < 60_000));
}

#[test]
fn the_shortest_distance_is_that_of_a_year() {
    let berlin = zone("Europe/Berlin");
    assert_eq!(by_cron("* * * * *", berlin.clone()).shortest_ms(), 60_000);
    assert_eq!(by_cron("0 9-17 * * mon-fri", berlin.clone()).shortest_ms(), 3_600_000);
    assert_eq!(at(&["06:00", "06:10", "18:00"], berlin.clone()).shortest_ms(), 600_000);
    // In spring the day has 23 hours.
    assert_eq!(at(&["12:00"], berlin.clone()).shortest_ms(), 82_800_000);
    // On the night of the change 02:30 is taken at three.
    assert_eq!(at(&["02:30", "03:01"], berlin.clone()).shortest_ms(), 60_000);
    assert!(at(&["06:00", "sunrise"], berlin).shortest_ms() < 600_000, "the sun rises at about six, once");
    assert_eq!(Calendar::new(vec![], Zone::utc(), None).shortest_ms(), u64::MAX);
}

fn any_calendar() -> impl Strategy<Value = Calendar> {
    let one = prop_oneof![
        (0u32..86_400).prop_map(Moment::Time),
        prop_oneof![
            Just("*/7 * * * *"),
            Just("0,30 1-3 * * *"),
            Just("15 2 * * sun"),
            Just("* 2 * * *"),
            Just("0 0 29 2 *"),
            Just("5 */5 L * *"),
            Just("30 2 13 * fri"),
        ]
        .prop_map(|text| Moment::Cron(cron(text).unwrap())),
        (prop_oneof![Just(Event::Dawn), Just(Event::Sunrise), Just(Event::Noon), Just(Event::Sunset)], -43_200_000i64..43_200_000)
            .prop_map(|(event, later_ms)| Moment::Sun(event, later_ms)),
    ];
    let zone = prop_oneof![
        Just("Europe/Berlin"),
        Just("America/New_York"),
        Just("Australia/Lord_Howe"),
        Just("America/Santiago"),
        Just("Africa/Casablanca"),
        Just("Asia/Tehran"),
    ]
    .prop_map(zone);
    let place = (-90.0f64..=90.0, -180.0f64..=180.0).prop_map(|(latitude, longitude)| Place { latitude, longitude });
    (proptest::collection::vec(one, 1..4), zone, place).prop_map(|(moments, zone, place)| Calendar {
        moments,
        zone,
        place: Some(place),
        shortest_ms: 0,
    })
}

proptest! {
    /// Strictly later; and whoever asks from anywhere before it gets the same.
    #[test]
    fn the_next_instant_is_the_same_from_everywhere_before_it(
        calendar in any_calendar(),
        from in 1_600_000_000_000i64..2_500_000_000_000,
        part in 0.0f64..1.0,
    ) {
        if let Some(next) = calendar.next_after(from) {
            prop_assert!(next > from);
            let between = from + ((next - from) as f64 * part) as i64;
            prop_assert_eq!(calendar.next_after(between.min(next - 1)), Some(next));
            prop_assert_eq!(calendar.next_after(next - 1), Some(next));
            prop_assert!(calendar.next_after(next).is_none_or(|after| after > next));
        }
    }

    #[test]
    fn any_instant_is_answered(calendar in any_calendar(), at in any::<i64>(), year in -8_900i64..8_900) {
        let near = year * 31_556_952_000;
        for at in [at, near, i64::MIN, i64::MAX] {
            prop_assert!(calendar.next_after(at).is_none_or(|next| next > at));
        }
    }
}
