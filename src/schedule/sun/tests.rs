//! Against tables that others published: those of the U.S. Naval Observatory (Astronomical Applications Department, "Rise and Set
//! for the Sun" for one year, aa.usno.navy.mil). Their minutes are rounded; a minute off is the most that is allowed here.

use super::*;
use crate::schedule::{Calendar, Date, Moment, Zone};
use proptest::prelude::*;

/// Latitude, longitude, year, hours of the table's clock ahead of UTC; then month, day, rise and set, as the table writes them:
/// `----` all day below the horizon, `****` all day above.
type Table = (&'static str, f64, f64, i64, i64, [(u32, u32, &'static str, &'static str); 4]);

const TABLES: [Table; 7] = [
    (
        "Fredonia, Arizona",
        36.95,
        -112.52,
        2023,
        -7,
        [(3, 20, "0634", "1842"), (6, 21, "0511", "1953"), (9, 23, "0619", "1826"), (12, 21, "0739", "1717")],
    ),
    (
        "San Francisco, California",
        37.0 + 46.0 / 60.0,
        -(122.0 + 26.0 / 60.0),
        2012,
        -8,
        [(3, 20, "0612", "1822"), (6, 21, "0448", "1935"), (9, 22, "0558", "1806"), (12, 21, "0722", "1655")],
    ),
    (
        "29 N 81 W",
        29.0,
        -81.0,
        2019,
        0,
        [(3, 20, "1128", "2335"), (6, 21, "1026", "0026"), (9, 23, "1113", "2320"), (12, 21, "1213", "2231")],
    ),
    ("60 N 0 E", 60.0, 0.0, 2019, 0, [(3, 20, "0603", "1814"), (6, 21, "0236", "2128"), (9, 23, "0546", "1758"), (12, 21, "0902", "1454")]),
    (
        "60 S 150 W",
        -60.0,
        -150.0,
        2019,
        0,
        [(3, 20, "1600", "0416"), (6, 21, "1906", "0058"), (9, 23, "1545", "0359"), (12, 21, "1232", "0724")],
    ),
    ("80 N 0 E", 80.0, 0.0, 2019, 0, [(1, 15, "----", "----"), (3, 20, "0555", "1825"), (6, 21, "****", "****"), (10, 21, "1103", "1223")]),
    (
        "80 S 150 W",
        -80.0,
        -150.0,
        2019,
        0,
        [(2, 25, "1037", "0952"), (3, 20, "1546", "0433"), (6, 21, "----", "----"), (10, 16, "1044", "0845")],
    ),
];

/// What is wrong with the reckoned times of all tables, with the places moved by so many degrees.
fn wrong(north: f64, east: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, latitude, longitude, year, ahead_h, rows) in TABLES {
        let place = Place { latitude: latitude + north, longitude: longitude + east };
        for (month, day, rise, set) in rows {
            let from_s = Date { year, month, day }.number() * DAY_S - ahead_h * 3_600;
            for (event, table) in [(Event::Sunrise, rise), (Event::Sunset, set)] {
                let calendar = Calendar::new(vec![Moment::Sun(event, 0)], Zone::utc(), Some(place));
                let found = calendar.next_after(from_s * 1_000 - 1).map(|at| at / 1_000 - from_s).filter(|at| *at < DAY_S);
                let minutes = table.parse::<i64>().ok().map(|hhmm| hhmm / 100 * 60 + hhmm % 100);
                let right = match (found, minutes) {
                    (Some(found), Some(minutes)) => (found - minutes * 60).abs() <= 60,
                    (None, None) => true,
                    _ => false,
                };
                if !right {
                    let found = found.map(|s| format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60));
                    wrong.push(format!("{name} {year}-{month:02}-{day:02} {event:?}: table {table}, here {found:?}"));
                }
                if minutes.is_none() {
                    let noon_day = from_s.div_euclid(DAY_S);
                    let (above, below) = (place.event(noon_day, event), Happening::Above);
                    assert_eq!(above == below, table == "****", "{name} {month}-{day}");
                }
            }
        }
    }
    wrong
}

#[test]
fn the_sun_rises_and_sets_when_the_naval_observatory_says() {
    assert_eq!(wrong(0.0, 0.0), Vec::<String>::new());
}

/// On the last day before polar night the sun only grazes the horizon, and what refraction does decides on minutes.
#[test]
fn on_the_last_day_before_polar_night_two_minutes_are_allowed() {
    let place = Place { latitude: -80.0, longitude: -150.0 };
    let day = Date { year: 2019, month: 4, day: 17 }.number();
    for (event, table) in [(Event::Sunrise, 21 * 60 + 11), (Event::Sunset, 22 * 60 + 46)] {
        let Happening::At(at) = place.event(day, event) else { panic!("{event:?}") };
        assert!((at - day * DAY_S - table * 60).abs() <= 120, "{event:?} {}", at - day * DAY_S);
    }
    assert_eq!(place.event(day + 1, Event::Sunrise), Happening::Below);
}

/// Half a degree is 55 km.
#[test]
fn at_another_place_the_tables_are_wrong() {
    for (north, east) in [(0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)] {
        assert!(wrong(north, east).len() > 10, "{:?}", wrong(north, east));
    }
}

/// Civil dawn and dusk from PyEphem 4.2.1 (XEphem's libastro): the sun's centre at -6 degrees, no refraction. `None`: bright all night.
#[test]
fn civil_twilight_begins_and_ends_when_another_implementation_says() {
    type Clock = Option<(i64, i64, i64)>;
    type Row = ((i64, u32, u32), Clock, Clock);
    let (berlin, tromso, sydney) = ((52.52, 13.405), (69.65, 18.96), (-33.87, 151.21));
    let rows: [((f64, f64), Row); 9] = [
        (berlin, ((2026, 3, 20), Some((4, 35, 14)), Some((17, 53, 34)))),
        (berlin, ((2026, 6, 21), Some((1, 52, 51)), Some((20, 23, 30)))),
        (berlin, ((2026, 12, 21), Some((6, 33, 13)), Some((15, 35, 37)))),
        (tromso, ((2026, 3, 20), Some((3, 43, 48)), Some((18, 2, 4)))),
        (tromso, ((2026, 6, 21), None, None)),
        (tromso, ((2026, 12, 21), Some((8, 31, 15)), Some((12, 53, 7)))),
        // The evening of the day of the sun that began on the evening before, by UTC.
        (sydney, ((2026, 3, 20), Some((19 - 24, 33, 1)), Some((8, 31, 50)))),
        (sydney, ((2026, 6, 21), Some((20 - 24, 32, 14)), Some((7, 21, 32)))),
        (sydney, ((2026, 12, 21), Some((18 - 24, 11, 29)), Some((9, 34, 34)))),
    ];
    for ((latitude, longitude), ((year, month, day), dawn, dusk)) in rows {
        let day = Date { year, month, day }.number();
        for (event, clock) in [(Event::Dawn, dawn), (Event::Dusk, dusk)] {
            let found = Place { latitude, longitude }.event(day, event);
            match clock {
                None => assert_eq!(found, Happening::Above),
                Some((hour, minute, second)) => {
                    let Happening::At(at) = found else { panic!("{latitude} {year}-{month} {event:?}") };
                    let off_s = at - (day * DAY_S + hour * 3_600 + minute * 60 + second);
                    assert!(off_s.abs() <= 60, "{latitude} {year}-{month} {event:?}: {off_s} s off");
                }
            }
        }
    }
}

#[test]
fn noon_lies_between_rise_and_set_and_the_sun_is_highest() {
    let place = Place { latitude: 52.5, longitude: 13.4 };
    for day in 20_000..20_400 {
        let at = |event| match place.event(day, event) {
            Happening::At(at) => at,
            other => panic!("{event:?}: {other:?}"),
        };
        let order = [Event::Dawn, Event::Sunrise, Event::Noon, Event::Sunset, Event::Dusk, Event::Midnight].map(at);
        assert!(order.is_sorted_by(|a, b| a + 600 < *b), "{order:?}");
        let noon = order[2] as f64;
        assert!(
            place.altitude_sine(noon) > place.altitude_sine(noon - 900.0) && place.altitude_sine(noon) > place.altitude_sine(noon + 900.0)
        );
        assert!((order[2] - place.mean_noon_s(day)).abs() < 1_020, "the equation of time is at most 17 minutes");
    }
}

proptest! {
    /// An event is where the sun has its elevation, it is on its side of noon, and each day has its own.
    #[test]
    fn an_event_is_where_the_sun_has_its_elevation(latitude in -90.0f64..=90.0, longitude in -180.0f64..=180.0, day in -400_000i64..400_000) {
        let place = Place { latitude, longitude };
        for event in [Event::Dawn, Event::Sunrise, Event::Sunset, Event::Dusk] {
            if let Happening::At(at) = place.event(day, event) {
                let elevation = place.altitude_sine(at as f64).asin().to_degrees();
                prop_assert!((elevation - event.elevation().unwrap()).abs() < 0.01, "{elevation} {event:?}");
                let from_noon = at - place.mean_noon_s(day);
                prop_assert!(from_noon.abs() <= DAY_S / 2 + 1_200 && (from_noon < 1_200) == event.is_morning() || from_noon.abs() < 1_200);
            }
        }
    }

    #[test]
    fn any_place_and_day_is_answered(latitude in -90.0f64..=90.0, longitude in -180.0f64..=180.0, day in -3_260_000i64..3_260_000) {
        let place = Place { latitude, longitude };
        for event in [Event::Dawn, Event::Sunrise, Event::Noon, Event::Sunset, Event::Dusk, Event::Midnight] {
            if let Happening::At(at) = place.event(day, event) {
                prop_assert!((at - place.mean_noon_s(day)).abs() < 2 * DAY_S);
            }
        }
    }
}
