//! The board's clock is set, by an hour, a day and half a century, both ways; and a board that wakes up in 1970 finds the hub, and by
//! it the time.
//!
//! The machine's own clock is never touched: `date -s` runs on the emulated board. Nothing there keeps the time (no timesyncd), so
//! whether the kernel calls its clock synchronised is the test's to say.

use crate::board::{Images, PATIENCE};
use crate::evidence::Picture;
use crate::parts::{Hub, Scratch};
use crate::promises::{Form, has_a_date, pending, until};
use crate::stage::{HOST, NODE, Stage, Told, every};
use shutterd::api::{ListAnswer, StatusAnswer};
use shutterd::clock::{BUILD_UNIX_S, Clock, SystemClock};
use shutterd::model::{Quality, SnapshotId};
use shutterd::protocol::Record;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// More than what a command takes to reach the emulated board: a step of an hour is then never one of 59 minutes.
const MORE_S: i64 = 30;
/// Of the two grids: one counted from boot, one by the clock.
const PERIOD_MS: u64 = 2_000;
/// Between a command on the emulated board and its effect on a true clock beside it.
const SLACK_MS: u64 = 120_000;
/// From `date -s` to the agent's word of it, on two emulated processors.
const NOTICED_MAX_MS: u64 = 2_000;

/// What a time daemon tells the kernel: that its clock is synchronised (adjtimex, status without STA_UNSYNC).
const SYNCHRONISED: &str = "perl -e 'syscall(171, my $t = pack(\"I x4 q4 i x164\", 0x1c, 0, 0, 1000, 1000, 0)) >= 0 or die $!'";

pub fn true_ms() -> i64 {
    SystemClock.read().wall_ms
}

fn off_ms(wall_ms: i64) -> u64 {
    wall_ms.abs_diff(true_ms())
}

fn status(stage: &mut Stage) -> StatusAnswer {
    serde_json::from_str(&stage.board.ok("shutterd status --json")).unwrap()
}

/// Sets the board's clock so far off the true time, and waits until the agent says so. Returns how long that took.
fn set_clock(stage: &mut Stage, off_s: i64, words: &str) -> u64 {
    let lines = format!("journalctl -q -b -u shutterd -o short-monotonic | grep -E '{words}'");
    let count = |stage: &mut Stage| stage.board.run(&lines).text.lines().count();
    let before = count(stage);
    let at_ms = true_ms() + off_s * 1_000;
    let set_at = stage.board.ok(&format!("cut -d' ' -f1 /proc/uptime; date -s @{}.{:03} >/dev/null", at_ms / 1_000, at_ms % 1_000));
    until(&format!("the agent says that {words}"), PATIENCE, || count(stage) > before);
    // `[  123.456789] board shutterd[99]: …`; nothing sleeps here, so this is the time since boot.
    let said = stage.board.ok(&format!("{lines} | tail -n 1"));
    let said_at = said.trim_start_matches(['[', ' ']).split(']').next().and_then(|s| s.trim().parse::<f64>().ok());
    let said_at = said_at.unwrap_or_else(|| panic!("no time in {said:?}"));
    ((said_at - set_at.trim().parse::<f64>().unwrap()).max(0.0) * 1_000.0) as u64
}

/// Puts the clock right, as a time daemon does, and waits until the agent believes it.
pub fn put_right(stage: &mut Stage) {
    let at_ms = true_ms();
    stage.board.ok(&format!("date -s @{}.{:03} >/dev/null && {SYNCHRONISED}", at_ms / 1_000, at_ms % 1_000));
    until("the agent believes the clock", PATIENCE, || status(stage).clock == Quality::Ntp);
}

/// Waits until so many more pictures are stored.
fn stores(stage: &mut Stage, more: u64) {
    let before = status(stage).stored;
    until("pictures are taken while the clock is wrong", PATIENCE, || status(stage).stored >= before + more);
}

#[test]
#[ignore = "long form, for `make board-test`"]
fn a_clock_that_is_set_moves_nothing_but_the_times_of_day() {
    let Some(images) = Images::find() else { return };
    let told = Told::begin("a clock that is set");
    let mut stage = Stage::arm64(&images, "clock-set", "utc", |_| {});
    stage.board.ok("dpkg -i /opt/payload/shutterd.deb");
    is_set(&mut stage, &told, Form::Long);
}

/// `date -s`, there and back again: noticed at once, and nothing else happens.
pub fn is_set(stage: &mut Stage, told: &Told, form: Form) {
    // With what would go by age, were the clock believed.
    let grid =
        |name: &str, align: &str| format!("[schedules.{name}]\ncamera = \"tick\"\nevery = \"2s\"\nphase = \"0s\"\nalign = \"{align}\"\n");
    let tick = "[cameras.tick]\nsource = \"pattern:?size=320x240\"\n[keep]\nage = \"12h\"\n";
    stage.configure(&(tick.to_owned() + &grid("boot", "boot") + &grid("clock", "clock")));
    put_right(stage);
    let from_ms = stage.now_ms();
    stores(stage, 2);
    // The hub would put the clock right before it has been wrong for long.
    stage.board.cable(false);

    let steps = [(HOUR_S, "1 h 0 min"), (DAY_S, "1 days? 0 h"), (56 * 365 * DAY_S, "56 years")];
    let both_ways = steps.into_iter().flat_map(|(off_s, span)| [(off_s + MORE_S, span), (-off_s - MORE_S, span)]);
    // In short: an hour forward, and back to 1970.
    let there_and_back = both_ways.enumerate().filter(|(i, _)| form == Form::Long || [0, 5].contains(i));
    let mut noticed = Vec::new();
    for (_, (off_s, span)) in there_and_back {
        let [there, back] = if off_s > 0 { ["forward", "back"] } else { ["back", "forward"] };
        noticed.push(set_clock(stage, off_s, &format!("the clock was set {there} by {span}")));
        stores(stage, 4);
        noticed.push(set_clock(stage, 0, &format!("the clock was set {back} by {span}")));
        stores(stage, 2);
    }
    put_right(stage);
    stores(stage, 4);
    let to_ms = stage.now_ms();
    let slowest = noticed.iter().max().copied().unwrap_or(0);
    assert!(slowest <= NOTICED_MAX_MS, "noticed after {noticed:?} ms: a look every ten seconds would do as well");
    told.shown(format!(
        "the clock is set {} times, by an hour to 56 years both ways; the agent says so after {noticed:?} ms",
        noticed.len()
    ));

    stage.board.cable(true);
    until("the backlog is at the hub", PATIENCE, || pending(stage) == 0);
    nothing_else_happened(stage, told, from_ms, to_ms);
    if form == Form::Long {
        times_of_day_follow_the_clock(stage, told);
    }
}

/// Everything between two instants of the boot is as if nobody had touched the clock.
fn nothing_else_happened(stage: &mut Stage, told: &Told, from_ms: u64, to_ms: u64) {
    let boot = stage.boot;
    let pictures = stage.evidence.of("tick", boot, from_ms);
    let dues = |schedule: &str| -> Vec<(u64, bool)> {
        let slots = pictures.iter().flat_map(|p| &p.record.slots).filter(|s| s.schedule.as_str() == schedule && s.boot == boot);
        let mut dues: Vec<(u64, bool)> = slots.map(|s| (s.due_ms, true)).collect();
        dues.extend(stage.evidence.reasons(schedule).iter().filter(|r| r.boot == boot).map(|r| (r.due_ms, false)));
        dues.retain(|(due_ms, _)| (from_ms + PERIOD_MS..=to_ms - PERIOD_MS).contains(due_ms));
        dues.sort_unstable();
        dues
    };
    let told_of = |dues: &[(u64, bool)]| dues.iter().filter(|(_, taken)| *taken).count();

    let by_boot = dues("boot");
    let expected: Vec<u64> = (from_ms + PERIOD_MS..=to_ms - PERIOD_MS).filter(|ms| ms % PERIOD_MS == 0).collect();
    assert_eq!(by_boot.iter().map(|(due_ms, _)| *due_ms).collect::<Vec<_>>(), expected, "slots twice, missing, or off their grid");
    let by_clock = dues("clock");
    let gaps: BTreeSet<u64> = by_clock.windows(2).map(|w| w[1].0 - w[0].0).collect();
    assert!(
        gaps.iter().all(|gap| (PERIOD_MS / 2..=PERIOD_MS * 3 / 2).contains(gap)),
        "slots by the clock are {gaps:?} ms apart: {by_clock:?}"
    );
    assert!(by_clock.len() + 2 >= expected.len(), "only {} slots by the clock: this shows nothing", by_clock.len());
    for (what, dues) in [("from boot", &by_boot), ("by the clock", &by_clock)] {
        assert!(told_of(dues) * 10 >= dues.len() * 8, "{} of {} slots {what} have a picture", told_of(dues), dues.len());
    }
    told.shown(format!(
        "{} slots counted from boot: each once, 2 s apart, {} of them pictures; {} by the clock, {gaps:?} ms apart, {} pictures",
        by_boot.len(),
        told_of(&by_boot),
        by_clock.len(),
        told_of(&by_clock)
    ));

    // In the order of their numbers they are in the order in which they were taken, whatever the clock said.
    let taken: Vec<u64> = pictures.iter().map(|p| p.record.taken.boottime_ms).collect();
    assert!(taken.windows(2).all(|w| w[1] >= w[0]), "the order of numbers is not that of time: {taken:?}");
    let wrong = pictures.iter().filter(|p| off_ms(p.record.taken.wall_ms) > SLACK_MS + (to_ms - from_ms)).count();
    assert!(wrong > 0, "no picture was stamped by the wrong clock: this shows nothing");
    let listed: ListAnswer = serde_json::from_str(&stage.board.ok("shutterd ls --camera tick -n 1000 --json")).unwrap();
    let there: BTreeSet<SnapshotId> = listed.snapshots.iter().map(|row| row.id).collect();
    let gone: Vec<_> = pictures.iter().map(|p| p.record.id).filter(|id| !there.contains(id)).collect();
    assert_eq!(gone, [], "deleted, by an age that the wrong clock gave them");
    for row in &listed.snapshots {
        assert!(row.time_ms.is_some_and(|ms| off_ms(ms) < SLACK_MS + 600_000), "{} is listed at {:?}", row.id, row.time_ms);
    }
    at_the_hub_with_their_time(stage, &pictures);
    told.shown(format!(
        "none of {} pictures was deleted by age (limit 12 h), all are listed in the order of their numbers, and the {wrong} stamped by a wrong clock \
         have the true time there and at the hub",
        pictures.len()
    ));
}

/// A clock that a time daemon moves moves the times of day with it, at once.
fn times_of_day_follow_the_clock(stage: &mut Stage, told: &Told) {
    let plan_ms = (true_ms() / 1_000 + HOUR_S + 45) * 1_000;
    let of_day = plan_ms.div_euclid(1_000).rem_euclid(DAY_S);
    let time = format!("{:02}:{:02}:{:02}", of_day / HOUR_S, of_day % HOUR_S / 60, of_day % 60);
    stage.configure(&format!(
        "[cameras.tick]\nsource = \"pattern:?size=320x240\"\n[schedules.daily]\ncamera = \"tick\"\nat = [\"{time}\"]\nzone = \"UTC\"\n"
    ));
    let from_ms = stage.now_ms();
    let at_ms = true_ms() + HOUR_S * 1_000;
    stage.board.ok(&format!("date -s @{}.{:03} >/dev/null && {SYNCHRONISED}", at_ms / 1_000, at_ms % 1_000));
    let picture =
        stage.evidence.wait("the picture of a time of day that the clock was set close to", "tick", stage.boot, from_ms, 1, PATIENCE);
    let slot = &picture[0].record.slots[0];
    assert_eq!((slot.schedule.as_str(), slot.plan_ms), ("daily", Some(plan_ms)));
    told.shown(format!(
        "a picture planned for {time} was an hour away; a time daemon sets the clock forward by that hour, and it is taken {} s later",
        (slot.due_ms - from_ms) / 1_000
    ));
    put_right(stage);
}

/// The record of each of these at the hub has its true time.
pub fn at_the_hub_with_their_time(stage: &mut Stage, pictures: &[Picture]) {
    let record = |picture: &Picture| -> Option<Record> {
        let text = fs::read(picture.path.with_extension("json")).ok()?;
        serde_json::from_slice(&text).ok()
    };
    let now_ms = stage.now_ms();
    let right = |picture: &Picture| {
        record(picture).is_some_and(|record| {
            let age_ms = (now_ms - record.taken.boottime_ms) as i64;
            off_ms(record.taken.wall_ms + age_ms) < SLACK_MS
        })
    };
    until("the hub has the true time of all pictures", PATIENCE, || pictures.iter().all(right));
    for picture in pictures {
        let (before, after) = (&picture.record, record(picture).unwrap());
        assert_eq!((before.rev, after.id, after.taken.boottime_ms), (0, before.id, before.taken.boottime_ms));
        let told_again = !before.taken.quality.trusted();
        assert_eq!(after.rev > 0, told_again, "{}: taken by a clock that was {:?}, at the hub {after:?}", before.id, before.taken.quality);
    }
}

/// Keys and a certificate that began after the agent was built, for the machine that runs the test as the board sees it.
fn certificates(dir: &Path) {
    let make = |arguments: &str| {
        let run = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
        assert!(run.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&run.stderr));
    };
    fs::write(dir.join("san"), format!("basicConstraints=CA:FALSE\nsubjectAltName=IP:{HOST}\n")).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    make(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=authority"));
    make(&format!("req {key} -keyout hub.key -out hub.csr -subj /CN=hub"));
    make("x509 -req -in hub.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -days 30 -out hub.pem");
}

#[test]
#[ignore = "long form, for `make board-test`"]
fn a_board_that_wakes_up_in_1970_gets_the_time_from_the_hub() {
    let Some(images) = Images::find() else { return };
    let told = Told::begin("1970, no NTP, and a hub with TLS");
    let with_tls = |scratch: &Scratch| {
        certificates(&scratch.0);
        let [cert, key] = ["hub.pem", "hub.key"].map(|name| scratch.path(name).display().to_string());
        let more = format!("exec \"$@\" --tls-cert {cert} --tls-key {key}");
        Hub::start(scratch, None, &["sh", "-c", &more, "sh"], None)
    };
    let mut stage = Stage::with_hub(&images, "clock-1970", "1970-01-01T00:00:00", with_tls, |feed| {
        let ca = feed.path("").with_file_name("ca.pem");
        feed.add(&ca, "ca.pem");
    });
    stage
        .board
        .ok("dpkg -i /opt/payload/shutterd.deb && systemctl stop shutterd && install -m 644 /opt/payload/ca.pem /etc/shutterd/ca.pem");
    // systemd itself puts a clock that is older than it forward. What no systemd has touched says 1970.
    stage.board.ok("date -s '1970-01-01 01:00:00'");
    assert!(true_ms() / 1_000 > BUILD_UNIX_S, "the certificate is older than the program: this shows nothing");
    stage.board.cable(false);
    let text = format!(
        "[node]\nid = \"{NODE}\"\n[hub]\nurl = \"mqtts://{HOST}:{}\"\nca_file = \"/etc/shutterd/ca.pem\"\n\
         [cameras.tick]\nsource = \"pattern:?size=320x240\"\n{}",
        stage.hub.mqtt.unwrap(),
        every("tick", "2s")
    );
    stage.configure_as(&text);
    stores(&mut stage, 5);
    let before = status(&mut stage);
    assert_eq!(before.clock, Quality::Unset);
    assert!(before.wall_ms < 86_400_000, "it is not 1970 on the board");
    told.shown(format!("it is 1970 on the board ({} s after), {} pictures are stored", before.wall_ms / 1_000, before.stored));

    stage.board.cable(true);
    until("the agent has the hub's time", PATIENCE, || status(&mut stage).clock == Quality::Hub);
    let after = status(&mut stage);
    assert!(off_ms(after.wall_ms) < SLACK_MS, "the agent's clock says {}", after.wall_ms);
    let system = stage.board.ok("date +%s").parse::<i64>().unwrap();
    assert!(system < DAY_S, "the agent has set the system's clock");
    until("the hub's certificate is checked by that time", PATIENCE, || status(&mut stage).uplink.tls_clock.as_deref() == Some("checked"));
    // Only a connection that began without knowing the time comes to this.
    stage.board.ok("journalctl -q -b -u shutterd | grep 'certificate is valid by the clock too'");
    told.shown(format!(
        "it connects over TLS with the certificate unchecked, has the hub's time, and then the flag clears; the system's clock is left at {system} s"
    ));

    until("the backlog is at the hub", PATIENCE, || pending(&mut stage) == 0);
    let boot = stage.boot;
    let pictures = stage.evidence.of("tick", boot, 0);
    let early: Vec<Picture> = pictures.into_iter().filter(|p| p.record.taken.quality == Quality::Unset).collect();
    assert!(early.len() >= 5, "{} pictures of 1970", early.len());
    assert!(early.iter().all(|p| !has_a_date(&p.bytes())), "a picture is dated 1970");
    at_the_hub_with_their_time(&mut stage, &early);
    told.shown(format!("{} pictures of 1970, undated in their files, have their true time at the hub, told once (rev 1)", early.len()));
    let now_ms = stage.now_ms();
    let late = stage.evidence.wait("pictures by the hub's time", "tick", boot, now_ms, 2, PATIENCE);
    for picture in &late {
        let taken = picture.record.taken;
        assert!(taken.quality == Quality::Hub && off_ms(taken.wall_ms) < SLACK_MS && has_a_date(&picture.bytes()), "{taken:?}");
    }
    told.shown("pictures from then on are dated");
}
