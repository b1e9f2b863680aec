//! The board's life from the first installation to a power cut: what the package, the unit and the agent promise there.

use crate::bad_input;
use crate::board::{Images, PATIENCE};
use crate::clock;
use crate::faults;
use crate::feed::{wrong_bars, wrong_picture};
use crate::sandbox;
use crate::stage::{Stage, Told, every, keep};
use shutterd::api::{ListAnswer, StatusAnswer};
use shutterd::clock::{Clock, Deadline, SystemClock};
use shutterd::model::Quality;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// How much of it: the short form leaves out faults that look alike and waits where waiting is all there is.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Short,
    Long,
}

/// Pictures at the hub, and pictures that only the board has, before its power is cut.
const BEFORE_CUT: usize = 100;
/// How long the cable stays out.
const LINK_CUT: Duration = Duration::from_secs(180);
const LINK_CUT_SHORT: Duration = Duration::from_secs(15);
/// Of the cameras' schedules.
const PERIOD_MS: u64 = 2_000;
/// A picture's time may differ so much from this machine's when the file is looked at: the emulated board is slow.
const CLOCK_OFF_MAX_S: i64 = 120;

#[test]
fn the_life_of_a_board_in_short() {
    let Some(images) = Images::find() else { return };
    life(&images, Form::Short);
}

#[test]
#[ignore = "long form, for `make board-test`"]
fn the_life_of_a_board_with_every_fault() {
    let Some(images) = Images::find() else { return };
    life(&images, Form::Long);
}

fn cameras(left: &str, right: &str) -> String {
    let left = format!("[cameras.left]\nsource = \"v4l2:{left}\"\ntimeout = \"5s\"\n{}", every("left", "2s"));
    let right = format!("[cameras.right]\nsource = \"v4l2:{right}\"\nformat = \"YUYV\"\ntimeout = \"5s\"\n{}", every("right", "2s"));
    let bars = format!("[cameras.bars]\nsource = \"v4l2:/dev/video20\"\nsize = \"640x360\"\ntimeout = \"5s\"\n{}", every("bars", "2s"));
    // Two test cards a second: there is always something on its way, and a hundred pictures are soon together.
    let cards = ["card", "chip"].map(|id| format!("[cameras.{id}]\nsource = \"pattern:?size=320x240\"\n{}", every(id, "1s")));
    left + &right + &bars + &cards.concat()
}

fn life(images: &Images, form: Form) {
    let told = Told::begin("a board's life");
    let mut stage = Stage::arm64(images, "board", "utc", |feed| {
        for camera in ["left", "right"] {
            feed.frames(camera, "MJPG", (640, 480), (640, 480), 20);
            feed.frames(camera, "YUY2", (320, 240), (320, 240), 20);
        }
        bad_input::feed(feed);
    });
    told.shown("Debian's own kernel and systemd are up");
    let (left, right) = (format!("LEFT-{}", stage.feed.nonce), format!("RIGHT-{}", stage.feed.nonce));

    install_without_a_camera(&mut stage, &told);
    sandbox::the_unit_is_closed(&mut stage, &told);
    stage.configure(&cameras(&left, &right));
    plug_in_later(&mut stage, &told, &left, &right);
    swap_crosswise(&mut stage, &told, &left, &right);
    faults::each_ends_in_time(&mut stage, &told, form);
    if form == Form::Long {
        bad_input::each_is_refused_in_words(&mut stage, &told);
    }
    a_stopped_agent_is_restarted(&mut stage, &told, form);
    a_cable_out_delays_and_loses_nothing(&mut stage, &told, form);
    let mut stage = a_power_cut_loses_nothing_stored(stage, &told);
    a_wrong_clock_is_put_right(&mut stage, &told);
    if form == Form::Short {
        clock::is_set(&mut stage, &told, form);
    }
}

fn install_without_a_camera(stage: &mut Stage, told: &Told) {
    let board = &mut stage.board;
    assert_ne!(
        board.run("ls /dev/video* || grep -q ^videodev /proc/modules").code,
        0,
        "there is a camera, or its driver, before the test begins"
    );
    let said = board.run("dpkg -i /opt/payload/shutterd.deb");
    assert_eq!(said.code, 0, "{}", said.text);
    board.until("the service is up", "systemctl is-active shutterd");
    let version = board.ok("dpkg-query -W -f '${Package} ${Version} ${Architecture}' shutterd");
    assert_eq!(board.ok("systemctl is-enabled shutterd"), "enabled");
    told.shown(format!("installed from the package on a board without a camera ({version}); the service runs and will after a boot"));
    board.ok("shutterd status");
}

/// Cameras appear after the service, as does their driver; each is taken pictures of by its own name.
fn plug_in_later(stage: &mut Stage, told: &Told, left: &str, right: &str) {
    let reason = stage.evidence.wait_reason("a camera that is not there", "left", stage.boot, 0, PATIENCE);
    assert_eq!(reason.word(), "failed(unreachable)", "{reason:?}");
    told.shown(format!("a camera that is not there is on record at the hub: {}: {}", reason.word(), reason.detail()));
    stage.start_camera("left", left, 0);
    stage.start_camera("right", right, 1);
    stage.board.ok("modprobe vivid n_devs=4 node_types=0x101,0x1,0x1,0x1 input_types=0,0,0,0 vid_cap_nr=20,22,23,24 vid_out_nr=21");
    for camera in ["left", "right"] {
        let pictures = stage.sees(camera, 2);
        keep(&format!("{camera}.jpg"), &pictures[0].bytes());
        told.shown(format!("camera `{camera}`, plugged in later, is at the hub with this run's number in its picture"));
    }
    // The driver's own card: colour bars. Mirrored from now on: nobody could know that before.
    let now_ms = stage.now_ms();
    let bars = stage.evidence.wait("colour bars", "bars", stage.boot, now_ms, 1, PATIENCE);
    assert_eq!(wrong_bars(&bars[0].bytes(), false), None);
    stage.board.ok("v4l2-ctl -d /dev/video20 -c horizontal_flip=1");
    let now_ms = stage.now_ms();
    let mirrored = stage.evidence.wait("mirrored bars", "bars", stage.boot, now_ms, 1, PATIENCE);
    assert_eq!(wrong_bars(&mirrored[0].bytes(), true), None, "the picture was taken after the camera changed, and so must show it");
    keep("bars.jpg", &mirrored[0].bytes());
    told.shown("the raw pictures of the kernel's test driver show its bars in the right colours, and its change of them at once");
    keep("cameras.txt", stage.board.ok("shutterd cameras").as_bytes());
}

/// Two cameras of one model are pulled and plugged into each other's ports, the second one first.
fn swap_crosswise(stage: &mut Stage, told: &Told, left: &str, right: &str) {
    let ports = "cd /sys/bus/usb/devices && grep -H . 1-*/serial";
    let before = stage.board.ok(ports);
    let now_ms = stage.now_ms();
    stage.board.ok("systemctl stop camera-left camera-right");
    for camera in ["left", "right"] {
        let reason = stage.evidence.wait_reason("an unplugged camera", camera, stage.boot, now_ms, PATIENCE);
        told.shown(format!("camera `{camera}` is pulled: {} {}", reason.word(), reason.detail()));
    }
    stage.start_camera("right", right, 0);
    stage.start_camera("left", left, 1);
    for camera in ["right", "left"] {
        stage.sees(camera, 3);
    }
    let after = stage.board.ok(ports);
    assert_ne!(before, after, "nothing was swapped: this shows nothing");
    told.shown(format!(
        "two cameras of one model, plugged in crosswise, keep their names; USB ports before: {}; after: {}",
        one_line(&before),
        one_line(&after)
    ));
    // Control: as after a swap of names, the camera called left is held against what right was fed.
    let picture = &stage.sees("left", 1)[0];
    assert!(wrong_picture(&picture.bytes(), &stage.feed.label("right")).is_some(), "swapped names would not be seen");
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn a_stopped_agent_is_restarted(stage: &mut Stage, told: &Told, form: Form) {
    if form == Form::Short {
        // As in the package, but sooner.
        stage.board.ok("mkdir -p /run/systemd/system/shutterd.service.d && printf '[Service]\\nWatchdogSec=15s\\n' \
             >/run/systemd/system/shutterd.service.d/soon.conf && systemctl daemon-reload && systemctl restart shutterd");
        stage.sees("left", 1);
    }
    let watchdog = stage.board.ok("systemctl show -P WatchdogUSec shutterd");
    let pid = stage.board.ok("systemctl show -P MainPID shutterd");
    stage.board.ok(&format!("kill -STOP {pid}"));
    // What systemd itself noted, by its own process.
    let noted = "journalctl -q -b _PID=1 UNIT=shutterd.service UNIT_RESULT=watchdog | grep .";
    stage.board.until("systemd's watchdog", noted);
    let after_ms = stage.now_ms();
    stage.sees_after("left", after_ms, 2);
    assert_ne!(stage.board.ok("systemctl show -P MainPID shutterd"), pid);
    told.shown(format!("an agent that stands still is ended by the watchdog after {watchdog} (Result=watchdog) and works again"));
}

/// How many pictures the agent still has to hand over.
pub fn pending(stage: &mut Stage) -> usize {
    let status = stage.board.ok("shutterd status --json");
    serde_json::from_str::<StatusAnswer>(&status).unwrap().pending as usize
}

/// Waits for a condition that needs no look at the board's log.
pub fn until(what: &str, at_most: Duration, mut done: impl FnMut() -> bool) {
    let patience = Deadline::after(at_most);
    while !done() {
        assert!(!patience.passed(), "waited {at_most:?} in vain: {what}");
        thread::sleep(Duration::from_millis(300));
    }
}

fn a_cable_out_delays_and_loses_nothing(stage: &mut Stage, told: &Told, form: Form) {
    let out = if form == Form::Long { LINK_CUT } else { LINK_CUT_SHORT };
    let from_ms = stage.now_ms();
    stage.board.cable(false);
    let end = Deadline::after(out);
    until("the cable is out long enough", PATIENCE, || end.passed());
    let to_ms = stage.now_ms();
    let backlog = pending(stage);
    let before = stage.evidence.of("left", stage.boot, from_ms).len();
    stage.board.cable(true);
    until("the backlog is at the hub", PATIENCE, || pending(stage) == 0);
    // A grid from boot: the slots are known by counting.
    let slots: Vec<u64> = (from_ms..to_ms).filter(|ms| ms % PERIOD_MS == 0).collect();
    let pictures = stage.evidence.of("left", stage.boot, from_ms);
    let reasons = stage.evidence.reasons("left");
    for due_ms in &slots {
        let taken = pictures.iter().flat_map(|p| &p.record.slots).any(|s| s.schedule.as_str() == "left" && s.due_ms == *due_ms);
        let told = reasons.iter().any(|r| r.boot == stage.boot && r.due_ms == *due_ms);
        assert!(taken || told, "the slot at {due_ms} ms is neither a picture nor a reason at the hub");
    }
    assert!(backlog > slots.len() / 2, "only {backlog} pictures had to wait: this shows nothing");
    let (ms, came) = (to_ms - from_ms, pictures.len() - before);
    told.shown(format!("cable out for {ms} ms: {backlog} pictures waited on the board and came; each of the {} slots of `left` is accounted for, {came} of its pictures came since", slots.len()));
}

/// The cable is pulled, pictures pile up, the power is cut: everything the agent had called stored must come.
fn a_power_cut_loses_nothing_stored<'i>(mut stage: Stage<'i>, told: &Told) -> Stage<'i> {
    until("enough pictures at the hub", PATIENCE, || stage.evidence.ids().len() >= BEFORE_CUT);
    stage.board.cable(false);
    until("enough pictures pile up", PATIENCE, || pending(&mut stage) >= BEFORE_CUT);
    let listed: ListAnswer = serde_json::from_str(&stage.board.ok("shutterd ls -n 1000 --json")).unwrap();
    // A board without a battery for its clock.
    let mut stage = stage.boots_again("2001-01-01T00:00:00");
    let at_hub: BTreeSet<_> = stage.evidence.ids().into_iter().collect();
    let only_there: Vec<_> = listed.snapshots.iter().map(|row| row.id).filter(|id| !at_hub.contains(id)).collect();
    assert!(only_there.len() >= BEFORE_CUT / 2, "only {} pictures are nowhere but on the board", only_there.len());
    told.shown(format!(
        "power cut with {} pictures at the hub and {} stored on the board only; it boots, without a clock",
        at_hub.len(),
        only_there.len()
    ));
    let mut missing = only_there.clone();
    until("what was stored before the power cut comes to the hub", PATIENCE, || {
        let at_hub: BTreeSet<_> = stage.evidence.ids().into_iter().collect();
        missing.retain(|id| !at_hub.contains(id));
        missing.is_empty()
    });
    assert_eq!(stage.evidence.complaints, Vec::<String>::new());
    told.shown(format!("nothing stored was lost: all {} came, each whole by its own hash", only_there.len()));
    stage
}

/// A board without a clock chip does not know the time, and says so, until it is told: by the hub at first, then by a time daemon.
fn a_wrong_clock_is_put_right(stage: &mut Stage, told: &Told) {
    let off_s = |wall_ms: i64| (wall_ms - SystemClock.read().wall_ms).abs() / 1_000;
    let boot = stage.boot;
    let all = stage.evidence.wait("pictures of this boot", "card", boot, 0, 2, PATIENCE);
    let early: Vec<_> = all.into_iter().filter(|p| p.record.taken.quality == Quality::Unset).collect();
    let before = early.first().expect("each picture of this boot has a clock that was set: this shows nothing");
    assert!(off_s(before.record.taken.wall_ms) > 30 * 86_400, "the board's clock was never wrong: this shows nothing");
    assert!(!has_a_date(&before.bytes()), "a picture is dated by a clock that nobody set");
    told.shown(format!(
        "the board's clock is {} days off: its pictures go to the hub without a date, marked as {:?}",
        off_s(before.record.taken.wall_ms) / 86_400,
        before.record.taken.quality
    ));
    let dated_by = |stage: &mut Stage, quality: Quality| {
        let patience = Deadline::after(PATIENCE);
        loop {
            let after = stage.sees_cards(3);
            if after.iter().all(|p| p.record.taken.quality == quality) {
                for picture in &after {
                    let taken = picture.record.taken;
                    assert!(off_s(taken.wall_ms) < CLOCK_OFF_MAX_S && has_a_date(&picture.bytes()), "{taken:?}");
                }
                break;
            }
            assert!(!patience.passed(), "the agent does not see that the clock is right: {:?}", after[0].record.taken);
        }
    };
    dated_by(stage, Quality::Hub);
    clock::at_the_hub_with_their_time(stage, &early);
    let listed: ListAnswer = serde_json::from_str(&stage.board.ok("shutterd ls -n 1000 --json")).unwrap();
    let of_it = listed.snapshots.iter().find(|row| row.id == before.record.id).and_then(|row| row.time_ms);
    assert!(of_it.is_some_and(|ms| off_s(ms) < CLOCK_OFF_MAX_S + 300), "a picture from before has no true time now: {of_it:?}");
    told.shown(format!(
        "the hub tells the time: pictures are dated, and the {} from before have their time at the hub and in the list",
        early.len()
    ));

    clock::put_right(stage);
    dated_by(stage, Quality::Ntp);
    let cards = stage.evidence.of("card", boot, 0);
    let dues: Vec<u64> = cards.iter().flat_map(|p| &p.record.slots).map(|slot| slot.due_ms).collect();
    assert!(dues.windows(2).all(|w| w[1] > w[0] && w[0] % 1_000 == 0), "slots out of order, twice, or off their grid: {dues:?}");
    told.shown(format!("a time daemon puts the clock right: pictures are dated by it, and none of {} slots was served twice", dues.len()));
}

/// Whether EXIF gives the picture a date, such as `2026:11:26`.
pub fn has_a_date(jpeg: &[u8]) -> bool {
    let pattern = |text: &[u8]| text.iter().zip(b"dddd:dd:dd").all(|(c, p)| if *p == b'd' { c.is_ascii_digit() } else { c == p });
    jpeg.windows(10).take(4_096).any(pattern)
}
