//! What people write, and what they are told when it is something else.

use super::*;
use proptest::prelude::*;

#[test]
fn times_and_events_read_as_people_write_them() {
    for (text, means) in [
        ("06:00", Moment::Time(21_600)),
        ("6:00", Moment::Time(21_600)),
        ("06:00:30", Moment::Time(21_630)),
        ("23:59:59", Moment::Time(86_399)),
        ("sunrise", Moment::Sun(Event::Sunrise, 0)),
        ("sunrise-30m", Moment::Sun(Event::Sunrise, -1_800_000)),
        ("sunset + 1h15m", Moment::Sun(Event::Sunset, 4_500_000)),
        ("Sunset - 1 h 15 min", Moment::Sun(Event::Sunset, -4_500_000)),
        ("solar  noon", Moment::Sun(Event::Noon, 0)),
        ("solar midnight + 5m", Moment::Sun(Event::Midnight, 300_000)),
        ("dawn", Moment::Sun(Event::Dawn, 0)),
        (" dusk+90s ", Moment::Sun(Event::Dusk, 90_000)),
    ] {
        assert_eq!(moment(text), Ok(means), "{text}");
    }
}

#[test]
fn a_refused_time_says_how_to_write_it() {
    for (text, says) in [
        ("25:00", "\"25:00\" is no time of day; it goes from \"00:00\" to \"23:59:59\""),
        ("24:00", "\"24:00\" is no time of day; it goes from \"00:00\" to \"23:59:59\""),
        ("06:60", "\"06:60\" is no time of day; it goes from \"00:00\" to \"23:59:59\""),
        ("6:00pm", "\"6:00pm\" is no time of day as it is written here; did you mean \"18:00\"?"),
        ("6 p.m.", "\"6 p.m.\" is no time of day as it is written here; did you mean \"18:00\"?"),
        ("12am", "\"12am\" is no time of day as it is written here; did you mean \"00:00\"?"),
        ("6 Uhr", "\"6 Uhr\" is no time of day as it is written here; did you mean \"06:00\"?"),
        ("6.30 Uhr", "\"6.30 Uhr\" is no time of day as it is written here; did you mean \"06:30\"?"),
        ("0600", "\"0600\" is no time of day; write one such as \"06:00\" or \"06:00:30\""),
        ("06:00+01:00", "\"06:00+01:00\" is no time of day; write one such as \"06:00\" or \"06:00:30\""),
        ("sunries", "\"sunries\" is neither a time of day nor an event of the sun; did you mean \"sunrise\"?"),
        ("sunries-30m", "\"sunries-30m\" is neither a time of day nor an event of the sun; did you mean \"sunrise-30m\"?"),
        ("noon", "\"noon\" is neither a time of day nor an event of the sun; write \"12:00\", or \"solar noon\""),
        ("", "\"\" is neither a time of day nor an event of the sun; write one such as \"06:00\", \"sunset-30m\" or \"solar noon\""),
        ("sunset-30", "\"30\" has no unit; write one of ms, s, m, h, d after the number, such as \"30s\""),
        ("sunset-", "the duration is empty; write one such as \"5m\""),
        ("sunset+13h", "13 h is too far from sunset; write 12 h or less"),
    ] {
        assert_eq!(moment(text), Err(says.to_owned()), "{text}");
    }
}

#[test]
fn cron_reads_as_in_crontab() {
    let fields = |text: &str| cron(text).map(|cron| (cron.minutes, cron.hours, cron.days, cron.months));
    let (all_minutes, all_hours, all_days, all_months) = ((1 << 60) - 1, (1 << 24) - 1, u32::MAX - 1, 0b1_1111_1111_1110);
    assert_eq!(fields("* * * * *"), Ok((all_minutes, all_hours, all_days, all_months)));
    assert_eq!(fields("*/15 0,12 1-3 jan,DEC *"), Ok((1 | 1 << 15 | 1 << 30 | 1 << 45, 1 | 1 << 12, 0b1110, 1 << 1 | 1 << 12)));
    assert_eq!(
        fields("5/20 8-18/5 */10 * *").map(|found| (found.0, found.1, found.2)),
        Ok((1 << 5 | 1 << 25 | 1 << 45, 1 << 8 | 1 << 13 | 1 << 18, 1 << 1 | 1 << 11 | 1 << 21 | 1 << 31))
    );
    let weekdays = |text: &str| cron(&format!("0 0 * * {text}")).map(|cron| cron.weekdays);
    let (no, each) = (0, EACH_WEEK);
    assert_eq!(weekdays("mon-fri"), Ok([no, each, each, each, each, each, no]));
    assert_eq!(weekdays("5-7"), Ok([each, no, no, no, no, each, each]));
    assert_eq!(weekdays("0"), weekdays("7"));
    assert_eq!(weekdays("7-1"), weekdays("0-1"));
    assert_eq!(weekdays("*"), weekdays("0-6"));
    assert_eq!(weekdays("FRI#2,5L"), Ok([no, no, no, no, no, 1 << 2 | LAST_WEEK, no]));
    assert!(cron("0 0 L * *").is_ok_and(|cron| cron.last_day && cron.days == 0));
    let marks = |text: &str| cron(text).map(|cron| (cron.elapsed, cron.any_day, cron.any_weekday));
    assert_eq!(marks("0 6 * * mon"), Ok((false, true, false)));
    assert_eq!(marks("0 */2 1 * *"), Ok((true, false, true)));
    assert_eq!(cron("  0   6 * *  * ").map(|cron| cron.text), Ok("0 6 * * *".to_owned()));
}

#[test]
fn a_refused_expression_says_how_to_write_it() {
    let five = "write five: minute, hour, day of month, month and day of week, such as \"0 6 * * mon-fri\"";
    for (text, says) in [
        ("", format!("has 0 fields; {five}")),
        ("5", format!("has 1 field; {five}")),
        ("0 0 6 * * *", format!("has 6 fields; {five}; there is none for seconds or years")),
        ("@daily", "@daily is written \"0 0 * * *\" here".to_owned()),
        ("60 * * * *", "\"60\" is no minute; it goes from 0 to 59".to_owned()),
        ("0 24 * * *", "\"24\" is no hour; it goes from 0 to 23".to_owned()),
        ("0 6 0 * *", "\"0\" is no day of month; it goes from 1 to 31".to_owned()),
        ("0 6 * 13 *", format!("\"13\" is no month; it goes from 1 to 12 or {}", MONTHS.join(", "))),
        ("0 6 * * 8", "\"8\" is no day of week; it goes from 0 to 7 or sun, mon, tue, wed, thu, fri, sat".to_owned()),
        ("0 6 * * monday", "\"monday\" is no day of week; did you mean \"mon\"?".to_owned()),
        ("0 6 * * fri-mon", "\"fri-mon\" ends before it begins; write \"5-6,0-1\"".to_owned()),
        ("0 22-6 * * *", "\"22-6\" ends before it begins; write \"22-23,0-6\"".to_owned()),
        ("*/0 * * * *", "\"*/0\" has no step that fits a minute; write one such as \"*/5\"".to_owned()),
        ("*/x * * * *", "\"*/x\" has no step that fits a minute; write one such as \"*/5\"".to_owned()),
        ("0 6 ? * mon", "\"?\" is no day of month; write * for any".to_owned()),
        ("0 6 15W * *", "\"15W\" is no day of month; nearest weekdays (W) are not in this dialect; write the days".to_owned()),
        ("0 6 * * fri#6", "\"fri#6\" has no week 1 to 5 after #; write one such as \"fri#2\"".to_owned()),
        ("0,, * * * *", "\"\" is no minute; it goes from 0 to 59".to_owned()),
        ("-5 * * * *", "\"\" is no minute; it goes from 0 to 59".to_owned()),
    ] {
        assert_eq!(cron(text), Err(says), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC*", fields in "[0-9a-zL*,/#? -]{0,40}") {
        for text in [text, fields] {
            let _ = (moment(&text), cron(&text));
        }
    }

    #[test]
    fn what_we_say_we_can_read(later_s in -43_200i64..43_200, index in 0usize..6) {
        let event = EVENTS[index].1;
        prop_assert_eq!(moment(&in_words(event, later_s * 1_000)), Ok(Moment::Sun(event, later_s * 1_000)));
    }
}
