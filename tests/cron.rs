//! Cron expressions against a second implementation: PyPI's croniter, which many schedulers in Python use.
//!
//! 10,000 random expressions, each asked from a random instant for what comes next. Where the two mean different things, the
//! difference has a name and is counted; what has none fails.
//!
//! Needs Python's pip and the network (or the packages from an earlier run). Without them the test says so and passes, except where
//! `CI` is set.

use shutterd::config::{moments, zones};
use shutterd::schedule::{Calendar, Moment, Zone};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PYTHON: &str = "/usr/bin/python3";
const CRONITER: &str = "croniter==7.0.0";
const EXPRESSIONS: usize = 10_000;
/// 2000 to 2090: what croniter finds is at most 50 years later.
const FROM_S: u64 = 946_684_800;
const UNTIL_S: u64 = 3_786_912_000;
const SEED: u64 = 0x5EED_0C20;

/// Reads zone, expression, instant and the same expression in other words (see [`other_words`]), separated by tabs. Answers with the
/// next instant of the expression, and with that of the other words.
const SCRIPT: &str = r#"
import sys
from datetime import datetime
from zoneinfo import ZoneInfo
from croniter import croniter
def next_of(expression, start, **how):
    try:
        return str(int(croniter(expression, start, max_years_between_matches=45, **how).get_next(float)))
    except Exception as error:
        return type(error).__name__
for line in sys.stdin:
    zone, expression, instant, other_words = line.rstrip("\n").split("\t")
    start = datetime.fromtimestamp(int(instant), ZoneInfo(zone))
    others = [next_of(other, start, implement_cron_bug=True) for other in other_words.split(";")]
    print(next_of(expression, start), min(others, key=lambda other: int(other) if other.isdigit() else sys.maxsize), sep="\t")
"#;

/// Where croniter is, or why not.
fn croniter() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(CRONITER);
    if !dir.join("croniter").is_dir() {
        let pip = Command::new(PYTHON)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--target"])
            .arg(&dir)
            .arg(CRONITER)
            .status();
        if !pip.is_ok_and(|status| status.success()) {
            let why = format!("{CRONITER} cannot be fetched: it needs python3-pip and a package index");
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("\n*** SKIPPED: {why}\n");
            return None;
        }
    }
    Some(dir)
}

fn ask_croniter(dir: &Path, questions: &[(String, String, u64)]) -> Vec<(String, String)> {
    let mut child =
        Command::new(PYTHON).args(["-c", SCRIPT]).env("PYTHONPATH", dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String =
        questions.iter().map(|(zone, text, at)| format!("{zone}\t{text}\t{at}\t{}\n", other_words(text).join(";"))).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let answered = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let answers = String::from_utf8(answered.stdout).unwrap();
    answers.lines().map(|line| line.split_once('\t').unwrap()).map(|(plain, switched)| (plain.to_owned(), switched.to_owned())).collect()
}

/// Small and the same everywhere (Steele and Vigna's splitmix64).
struct Dice(u64);
impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }

    fn field(&mut self, least: u64, most: u64, names: &[&str]) -> String {
        let number = |dice: &mut Self| least + dice.roll(most - least + 1);
        let (a, b) = (number(self), number(self));
        let (low, high) = (a.min(b), a.max(b));
        let step = 1 + self.roll((most - least) / 2);
        match self.roll(12) {
            0..=3 => "*".to_owned(),
            4 => format!("*/{step}"),
            5 => format!("{low}-{high}"),
            6 => format!("{low}-{high}/{step}"),
            7 => format!("{low},{high}"),
            8 => format!("{a}/{step}"),
            9 if !names.is_empty() => names[(a - least) as usize % names.len()].to_owned(),
            _ => a.to_string(),
        }
    }

    fn expression(&mut self) -> String {
        let day = if self.roll(20) == 0 { "L".to_owned() } else { self.field(1, 31, &[]) };
        let weekdays = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let weekday = match self.roll(20) {
            0 => format!("{}#{}", weekdays[self.roll(7) as usize], 1 + self.roll(5)),
            _ => self.field(0, 6, &weekdays),
        };
        let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        format!("{} {} {day} {} {weekday}", self.field(0, 59, &[]), self.field(0, 23, &[]), self.field(1, 12, &months))
    }
}

/// How croniter is to be asked for what crontab(5) says. With its switch for day fields that begin with a star; without ranges of one
/// number; and for each of the two day fields alone where it would want both: the earlier answer is meant.
fn other_words(text: &str) -> Vec<String> {
    let one_number = |item: &str| {
        let (range, _) = item.split_once('/').unwrap_or((item, ""));
        range.split_once('-').filter(|(from, to)| from == to).map_or(item.to_owned(), |(from, _)| from.to_owned())
    };
    let fields: Vec<String> = text.split(' ').map(one_number).collect();
    let [minute, hour, day, month, weekday] = &fields[..] else { panic!("{text}") };
    if weekday.contains('#') && !day.starts_with('*') {
        return vec![format!("{minute} {hour} {day} {month} *"), format!("{minute} {hour} * {month} {weekday}")];
    }
    vec![fields.join(" ")]
}

/// Why croniter may mean something else.
fn class(text: &str) -> &'static str {
    let fields: Vec<&str> = text.split(' ').collect();
    let (day, weekday) = (fields[2], fields[4]);
    if weekday.contains('#') && !day.starts_with('*') {
        "a day of the month beside fri#2: crontab(5) wants one of two day fields to match, croniter both"
    } else if other_words(text) != [text] {
        "a range of one number, such as 5-5: croniter takes it for any number"
    } else if (day.starts_with("*/") && weekday != "*") || (weekday.starts_with("*/") && day != "*") {
        "a day field that begins with */: crontab(5) wants both to match, croniter one; its switch says as crontab(5)"
    } else {
        "nothing that is known"
    }
}

/// Compares `count` expressions here in one zone with croniter in another; what differs without an explanation.
fn compare(here: &str, there: &str, count: usize, dir: &Path, dice: &mut Dice) -> Vec<String> {
    let zone: Zone = zones::zone(here).unwrap();
    let questions: Vec<_> = (0..count).map(|_| (there.to_owned(), dice.expression(), FROM_S + dice.roll(UNTIL_S - FROM_S))).collect();
    let answers = ask_croniter(dir, &questions);
    assert_eq!(answers.len(), questions.len());
    let (mut same, mut never, mut near, mut unexplained) = (0, 0, 0, Vec::new());
    let mut classes: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for ((_, text, at), (plain, others)) in questions.iter().zip(&answers) {
        let calendar = Calendar::new(vec![Moment::Cron(moments::cron(text).unwrap())], zone.clone(), None);
        let ours = calendar.next_after(*at as i64 * 1_000).map(|ms| ms / 1_000);
        let said = ours.map_or("CroniterBadDateError".to_owned(), |at| at.to_string());
        let span = zone.span(*at as i64);
        if zone.name() != "UTC" && ours.is_none_or(|ours| ours + 7_200 >= span.to_s || (*at as i64) < span.from_s + 7_200) {
            near += 1;
        } else if said == *plain {
            same += 1;
            never += usize::from(ours.is_none());
        } else if said == *others {
            let (count, _) = classes.entry(class(text)).or_insert((0, format!("{text} from {at}: here {said}, there {plain}")));
            *count += 1;
        } else {
            unexplained.push(format!("{text} from {at}: here {said}, there {plain} (in other words: {others})"));
        }
    }
    println!(
        "{here}: {count} expressions, {same} alike (of which {never} never come), {near} not compared: a change of clocks lies between"
    );
    for (class, (count, example)) in &classes {
        println!("    {count} alike in other words only: {class}. Such as {example}");
    }
    if here == there {
        assert!(same > count / 2, "too few were compared");
        assert_eq!(classes.len(), 3, "what is known to differ, and nothing else: {classes:?}");
    }
    unexplained
}

#[test]
fn expressions_mean_what_croniter_says() {
    let Some(dir) = croniter() else { return };
    println!("seed {SEED:#x}");
    let mut dice = Dice(SEED);
    for zone in ["UTC", "Europe/Berlin"] {
        let unexplained = compare(zone, zone, EXPRESSIONS, &dir, &mut dice);
        let some = &unexplained[..unexplained.len().min(20)];
        assert!(unexplained.is_empty(), "{} differ and nobody knows why:\n{}", unexplained.len(), some.join("\n"));
    }
    // The comparison sees an error of an hour.
    let unexplained = compare("Europe/Berlin", "UTC", 500, &dir, &mut dice);
    assert!(unexplained.len() > 100, "{}", unexplained.len());
}
