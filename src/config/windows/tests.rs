//! What people write, and what they are told when it is something else.

use super::*;
use proptest::prelude::*;

const ALL: u8 = 0b111_1111;

fn read(text: &str) -> Result<(u8, Option<Dates>, Option<Hours>), String> {
    window(text).map(|window| (window.weekdays, window.dates, window.hours))
}
fn hours(from: Bound, to: Bound, overnight: bool) -> Option<Hours> {
    Some(Hours { from, to, overnight })
}

#[test]
fn windows_read_as_people_write_them() {
    let time = |hour: u32| Bound::Time(hour * 3_600);
    for (text, means) in [
        ("06:00..20:00", (ALL, None, hours(time(6), time(20), false))),
        ("22:00..6:00", (ALL, None, hours(time(22), time(6), true))),
        ("22:00 .. 24:00", (ALL, None, hours(time(22), time(24), false))),
        ("mon-fri", (0b011_1110, None, None)),
        ("sat,sun 10:00..12:00", (0b100_0001, None, hours(time(10), time(12), false))),
        ("sat, sun", (0b100_0001, None, None)),
        ("Fri-Mon", (0b110_0011, None, None)),
        ("04-01..10-31", (ALL, Some(Dates::Yearly((4, 1), (10, 31))), None)),
        ("02-29..02-29", (ALL, Some(Dates::Yearly((2, 29), (2, 29))), None)),
        ("1970-01-02..1970-01-11", (ALL, Some(Dates::Once(1, 10)), None)),
        (
            "sunrise-30m..sunset+30m",
            (ALL, None, hours(Bound::Sun(Event::Sunrise, -1_800_000), Bound::Sun(Event::Sunset, 1_800_000), false)),
        ),
        (
            "sunset - 1h..solar midnight + 5m mon",
            (2, None, hours(Bound::Sun(Event::Sunset, -3_600_000), Bound::Sun(Event::Midnight, 300_000), false)),
        ),
        ("solar noon..22:00", (ALL, None, hours(Bound::Sun(Event::Noon, 0), time(22), false))),
        // Whatever the offsets, a part of a day, and of a night.
        (
            "sunrise+6h..sunset-6h",
            (ALL, None, hours(Bound::Sun(Event::Sunrise, 21_600_000), Bound::Sun(Event::Sunset, -21_600_000), false)),
        ),
        (
            "sunset-12h..sunrise+11h",
            (ALL, None, hours(Bound::Sun(Event::Sunset, -43_200_000), Bound::Sun(Event::Sunrise, 39_600_000), true)),
        ),
        ("dusk..dawn", (ALL, None, hours(Bound::Sun(Event::Dusk, 0), Bound::Sun(Event::Dawn, 0), true))),
        ("sunset..06:00", (ALL, None, hours(Bound::Sun(Event::Sunset, 0), time(6), true))),
        ("sunset..23:00", (ALL, None, hours(Bound::Sun(Event::Sunset, 0), time(23), false))),
        ("sunrise..08:00", (ALL, None, hours(Bound::Sun(Event::Sunrise, 0), time(8), false))),
        ("20:00..sunset", (ALL, None, hours(time(20), Bound::Sun(Event::Sunset, 0), false))),
    ] {
        assert_eq!(read(text), Ok(means), "{text}");
    }
    assert_eq!(window("  mon-fri   06:00..20:00 ").map(|window| window.text), Ok("mon-fri 06:00..20:00".to_owned()));
}

#[test]
fn a_refused_window_says_how_to_write_it() {
    let example = "\"mon-fri 06:00..20:00\" or \"sunrise-30m..sunset+30m\"";
    for (text, says) in [
        ("", format!("is empty; write a window such as {example}")),
        ("06:00-20:00", format!("\"06:00-20:00\" is no range; write FROM..TO, such as {example}")),
        ("06:00", format!("\"06:00\" is no range; write FROM..TO, such as {example}")),
        ("06:00..", format!("a range has two ends; write it as {example}")),
        ("..06:00", format!("a range has two ends; write it as {example}")),
        ("25:00..06:00", "\"25:00\" is no time of day; it goes from \"00:00\" to \"23:59:59\"".to_owned()),
        ("24:00..06:00", "\"24:00\" is no time of day; it goes from \"00:00\" to \"23:59:59\"".to_owned()),
        ("8am..6pm", "\"8am\" is no time of day as it is written here; did you mean \"08:00\"?".to_owned()),
        ("sunries..sunset", "\"sunries\" is neither a time of day nor an event of the sun; did you mean \"sunrise\"?".to_owned()),
        ("06:00..06:00", "\"06:00..06:00\" begins where it ends; leave the hours out for the whole day".to_owned()),
        ("monday-fri", "\"monday\" is no day of the week; did you mean \"mon\"?".to_owned()),
        ("weekends", "\"weekends\" is no day of the week; did you mean \"wed\"?".to_owned()),
        ("mon tue", "\"tue\" is a second range of weekdays; write two windows, as [\"…\", \"…\"]".to_owned()),
        ("06:00..08:00 18:00..20:00", "\"18:00..20:00\" is a second range of hours; write two windows, as [\"…\", \"…\"]".to_owned()),
        ("04-01..05-01 07-01..08-01", "\"07-01..08-01\" is a second range of dates; write two windows, as [\"…\", \"…\"]".to_owned()),
        ("02-30..03-01", "\"02-30\" is a day that does not exist".to_owned()),
        ("2026-02-29..2026-03-01", "\"2026-02-29\" is a day that does not exist".to_owned()),
        ("2026-04-01..2026-03-01", "\"2026-03-01\" is before \"2026-04-01\"; write the earlier date first".to_owned()),
        ("2026-04-01..10-31", "\"2026-04-01\" and \"10-31\": write both with a year, or both without".to_owned()),
        ("04-01..june", "\"june\" is no date; write one such as \"04-01\", of each year, or \"2026-04-01\"".to_owned()),
    ] {
        assert_eq!(read(text), Err(says), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC*", near in "[0-9a-z:., +-]{0,40}") {
        for text in [text, near] {
            let _ = window(&text);
        }
    }
}
