//! The main job, end to end, with real parts as processes: RTSP cameras and test cards, agent, a link that slows down and breaks,
//! mosquitto, hub. They are unplugged, killed and started again, and in the end the files on both sides are counted.
//!
//! Takes three and a half minutes of waiting and little work. `tests/controls.rs` shows that the same checks complain of an
//! agent or hub that does its steps in a wrong order.

#[path = "rig/books.rs"]
mod books;
#[path = "rig/link.rs"]
mod link;
#[path = "rig/parts.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod parts;
#[expect(dead_code, reason = "the camera rig can do more than this test needs")]
mod rig;

use books::{Ledger, Picture, Schedule, compare, index, pictures, told};
use link::{Link, cut_every};
use parts::{Agent, BROKER, Broker, Hub, Node, Scratch, installed, wait_for, wait_until};
use shutterd::capture::pattern::read_label_jpeg;
use shutterd::clock::boottime_now_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;
/// 64 kbit/s.
const SLOW_BYTES_PER_S: u64 = 8_000;
const CUT_PERIOD_MS: u64 = 20 * SECOND_MS;
/// A camera whose pictures a slow link cannot carry between two cuts, and how large they are.
const LARGE: &str = "pattern:?size=960x540&noise=100";
const LARGE_BYTES: usize = 300_000;
/// How long the agent stays dead each time: long enough to miss slots of every schedule but the slowest.
const DEAD_MS: u64 = 3_300;
/// What the hub's alarms say.
const TWO_AGENTS: &str = "two agents use this node's name";
const TWO_PICTURES: &str = "two different pictures under the id";
/// After the link is good again, everything must have arrived within this time.
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// What happens when, in seconds from the start.
mod timetable {
    pub const FIRST_KILL: u64 = 15;
    pub const BROKER_DIES: u64 = 25;
    pub const SECOND_KILL: u64 = 35;
    pub const BROKER_BACK: u64 = 45;
    pub const HUB_KILL: u64 = 60;
    pub const HUB_BACK: u64 = 65;
    pub const UNPLUGGED: u64 = 80;
    pub const SLOW: u64 = 90;
    pub const THIRD_KILL: u64 = 120;
    pub const FAST: u64 = 175;
    pub const LAST_SLOTS: u64 = 190;
}

#[test]
fn every_planned_picture_is_on_the_hub_or_there_is_a_reason_on_record() {
    if !installed(&[BROKER]) {
        return;
    }
    let (Some(door), Some(yard)) = (rig::Camera::start(&[]), rig::Camera::start(&[])) else { return };
    let scratch = Scratch::new("spine");
    let mut broker = Broker::start(&scratch);
    let link = Link::to(broker.port);
    let mut hub = Hub::start(&scratch, Some(broker.port), &[], None);
    let begin_ms = boottime_now_ms();
    let at = |seconds: u64| begin_ms + seconds * SECOND_MS;
    let last_ms = at(timetable::LAST_SLOTS);
    let node = spine_node(link.port, door.port, yard.port, last_ms);
    let schedules = &node.schedules;

    // Each stretch in which the agent was there.
    let mut up = Vec::new();
    let mut agent = Agent::start(&scratch, "agent", &node);
    let start_ms = agent.up_ms;
    let mut kill = |agent: &mut Agent| {
        up.push((agent.up_ms, boottime_now_ms()));
        agent.process.kill();
        wait_until(boottime_now_ms() + DEAD_MS);
        *agent = Agent::start(&scratch, "agent", &node);
    };

    wait_until(at(timetable::FIRST_KILL));
    kill(&mut agent);
    wait_until(at(timetable::BROKER_DIES));
    broker.process.kill();
    wait_until(at(timetable::SECOND_KILL));
    kill(&mut agent);
    wait_until(at(timetable::BROKER_BACK));
    broker.start_again();
    wait_until(at(timetable::HUB_KILL));
    hub.process.kill();
    wait_until(at(timetable::HUB_BACK));
    hub = Hub::start(&scratch, Some(broker.port), &[], None);
    wait_until(at(timetable::UNPLUGGED));
    let unplugged_ms = boottime_now_ms();
    drop(yard);

    wait_until(at(timetable::SLOW));
    let (slow_from, up_before, connections_before) = (boottime_now_ms(), link.bytes_up(), link.connections());
    link.limit(Some(SLOW_BYTES_PER_S));
    let cutting = cut_every(&link, CUT_PERIOD_MS, at(timetable::FAST));
    wait_until(at(timetable::THIRD_KILL));
    kill(&mut agent);
    wait_until(at(timetable::FAST));
    let cuts = cutting.join().unwrap();
    let slow_s = (boottime_now_ms() - slow_from).div_ceil(SECOND_MS);
    let slow_bytes = link.bytes_up() - up_before;
    link.limit(None);

    wait_until(last_ms + 500);
    let stop_ms = boottime_now_ms();
    up.push((agent.up_ms, stop_ms));
    agent.stop();
    let end_ms = boottime_now_ms();
    assert!((9_000..14_000).contains(&(end_ms - stop_ms)), "the stop waited {} ms for its cameras", end_ms - stop_ms);

    // It comes back only to hand over, and to account for the time until now.
    let mut agent = Agent::start_idle(&scratch, "agent", &node);
    agent.wait_status("all pictures are at the hub", DRAIN_MAX, |status| status.pending == 0);
    let drained_ms = boottime_now_ms() - agent.up_ms;
    wait_for("the reasons are at the hub", DRAIN_MAX, || {
        let ledger = Ledger::at_hub(&[], &hub.objects, &node.id, schedules, &mut Vec::new());
        // The last things told: what was due while the agent was stopping.
        let told = |s: &Schedule| s.slots(stop_ms, end_ms).last().is_none_or(|due_ms| !ledger.of(s, due_ms).is_empty());
        schedules.iter().all(told).then_some(())
    });
    let data = agent.data();
    agent.stop();
    drop(door);

    let mut complaints = Vec::new();
    let at_node = pictures(&data.join("snapshots"), &mut complaints);
    let at_hub = pictures(&hub.objects.join("img"), &mut complaints);
    complaints.extend(compare(&[&at_node], &at_hub));
    complaints.extend(index(&data, &node.id, Some(&at_hub)));
    let ledger = Ledger::at_hub(&at_hub, &hub.objects, &node.id, schedules, &mut complaints);
    complaints.extend(ledger.balance(schedules, start_ms, end_ms));
    complaints.extend(at_node.iter().filter(|p| p.meta.record.source == "pattern").filter_map(wrong_label));

    // Slots due while agent and camera were there. The camera that hangs on purpose is not there.
    let there = |schedule: &Schedule, due_ms: u64| {
        let plugged = schedule.camera != "stuck" && (schedule.camera != "yard" || due_ms < unplugged_ms);
        plugged && up.iter().any(|(from, to)| (*from..*to).contains(&due_ms))
    };
    let (mut possible, mut captured) = (0, 0);
    let mut lost: BTreeMap<String, usize> = BTreeMap::new();
    for schedule in schedules {
        for due_ms in schedule.slots(start_ms, end_ms).filter(|due_ms| there(schedule, *due_ms)) {
            possible += 1;
            match ledger.of(schedule, due_ms) {
                [outcome] if outcome == "captured" => captured += 1,
                other => *lost.entry(format!("{} {}", schedule.id, other.join("+"))).or_default() += 1,
            }
        }
    }
    let share = 100.0 * f64::from(captured) / f64::from(possible);

    print_table(&ledger, schedules, start_ms, end_ms);
    let shared = at_node.iter().filter(|p| p.meta.record.slots.len() > 1).count();
    let transfers = link.transfers();
    let repeated: usize = transfers.values().map(link::Transfer::repeated).sum();
    let chunks: usize = transfers.values().map(|transfer| transfer.chunks.len()).sum();
    let bytes: usize = at_node.iter().map(|p| p.bytes.len()).sum();
    println!("pictures {} at the node, {} at the hub, {bytes} bytes; {shared} serve two slots", at_node.len(), at_hub.len());
    println!("captured {captured} of {possible} slots due while agent and camera were there: {share:.1} %; the others: {lost:?}");
    println!("reasons in {} messages; drained {drained_ms} ms after the last start", ledger.messages);
    let connections = link.connections() - connections_before;
    println!(
        "slow link: {slow_bytes} bytes in {slow_s} s, {cuts} cuts, {connections} connections; {repeated} of {chunks} chunks arrived twice"
    );
    for (id, transfer) in transfers.iter().filter(|(_, transfer)| transfer.repeated() > 0) {
        println!("  {id}: chunks (connection, offset) {:?}", transfer.chunks);
    }

    assert!(complaints.is_empty(), "{}", told(&complaints));
    assert_eq!(alarms(&hub, &node, TWO_AGENTS), BTreeSet::new(), "an agent that died and is back is no clone");
    let outcome = |id: &str| schedules.iter().find(|s| s.id == id).map(|s| ledger.of(s, last_ms).to_vec()).unwrap();
    assert_eq!(outcome("stuck-1h"), ["off(stop)"], "its capture could not end in time");
    assert_eq!(outcome("slow-1h"), ["captured"], "its capture was under way when the stop was ordered");
    let crashed = ledger.outcomes.values().flatten().filter(|outcome| *outcome == "off(crash)").count();
    assert!(crashed >= 3 * 9, "an agent that was dead for 3.3 s three times gave only {crashed} reasons for it");
    assert!(shared >= 50, "only {shared} pictures serve two coinciding slots");
    assert!(captured >= 300, "only {captured} slots were captured");
    assert!(share >= 95.0, "only {share:.1} % of the slots due while agent and camera were there were captured: {lost:?}");
    let after: BTreeSet<_> =
        schedules[3].slots(unplugged_ms + 2 * SECOND_MS, stop_ms).flat_map(|due| ledger.of(&schedules[3], due)).collect();
    assert!(after.iter().all(|o| !o.starts_with("captured") && !o.is_empty()), "an unplugged camera cannot deliver: {after:?}");
    assert!(slow_bytes <= (slow_s + 5) * SLOW_BYTES_PER_S, "the slow link carried {slow_bytes} bytes in {slow_s} s");
    // What the broker took while the hub was dead comes again, and the hub holds a bounded number of unfinished pictures.
    assert!(repeated * 10 <= chunks, "{repeated} of {chunks} chunks were sent again although they had arrived");
    assert_books_can_complain(ledger, schedules, start_ms, &at_node, at_hub);
}

/// The same checks on books that somebody has cooked: a reason less, an outcome more, a picture less, one that was touched.
fn assert_books_can_complain(mut ledger: Ledger, schedules: &[Schedule], from_ms: u64, at_node: &[Picture], mut at_hub: Vec<Picture>) {
    let to_ms = from_ms + 5 * SECOND_MS;
    let key = (schedules[0].id.clone(), schedules[0].slots(from_ms, to_ms).next().unwrap());
    let complains = |ledger: &Ledger| !ledger.balance(schedules, from_ms, to_ms).is_empty();
    assert!(!complains(&ledger));
    let outcome = ledger.outcomes.remove(&key).unwrap();
    assert!(complains(&ledger), "a slot without outcome goes unnoticed");
    ledger.outcomes.insert(key, [outcome.clone(), outcome].concat());
    assert!(complains(&ledger), "a slot with two outcomes goes unnoticed");
    let lost = at_hub.pop().unwrap();
    assert_eq!(compare(&[at_node], &at_hub).len(), 1, "a picture less goes unnoticed");
    *at_hub[0].bytes.last_mut().unwrap() ^= 1;
    at_hub.push(lost);
    assert_eq!(compare(&[at_node], &at_hub).len(), 1, "a changed byte goes unnoticed");
}

/// Test cards and two RTSP cameras. All slots of the last two schedules but the one at `last_ms` lie outside of the test: for the
/// ordered stop, a capture that takes three seconds and one that never ends.
fn spine_node(hub: u16, door: u16, yard: u16, last_ms: u64) -> Node {
    let schedules = vec![
        Schedule::new("card-1s", "card", SECOND_MS, 0),
        // Coincides with every other slot of the one above.
        Schedule::new("card-2s", "card", 2 * SECOND_MS, 0),
        Schedule::new("door-1s", "door", SECOND_MS, 400),
        Schedule::new("yard-2s", "yard", 2 * SECOND_MS, 700),
        Schedule::new("large-10s", "large", 10 * SECOND_MS, 250),
        Schedule::new("slow-1h", "slow", HOUR_MS, last_ms % HOUR_MS),
        Schedule::new("stuck-1h", "stuck", HOUR_MS, last_ms % HOUR_MS),
    ];
    let cameras = [
        ("card", "pattern:".to_owned()),
        ("door", format!("rtsp://127.0.0.1:{door}/mjpeg")),
        ("yard", format!("rtsp://127.0.0.1:{yard}/h264")),
        ("large", LARGE.to_owned()),
        ("slow", "pattern:?fault=late:3000".to_owned()),
        ("stuck", "pattern:?fault=stuck:60000".to_owned()),
    ];
    let cameras = cameras.map(|(camera, source)| (camera.to_owned(), source)).into();
    Node { id: "spine".into(), hub: Some(hub), cameras, schedules }
}

/// A test card must show one of the slots that its file speaks of.
fn wrong_label(picture: &Picture) -> Option<String> {
    let record = &picture.meta.record;
    let names: Vec<_> = record.slots.iter().map(|s| format!("{}/{}/{}/{}", record.camera, s.schedule, s.boot, s.due_ms)).collect();
    let shown = read_label_jpeg(&picture.bytes);
    let right = shown.as_ref().is_some_and(|label| names.contains(label));
    (!right).then(|| format!("{} shows {shown:?}, but says that it is {names:?}", picture.path.display()))
}

/// Counts of outcomes, a line for each schedule.
fn print_table(ledger: &Ledger, schedules: &[Schedule], from_ms: u64, to_ms: u64) {
    println!("\n{:<10} {:>5} {:>5}  outcomes", "schedule", "slots", "sum");
    let (mut slots, mut sums) = (0, 0);
    for schedule in schedules {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let due: Vec<u64> = schedule.slots(from_ms, to_ms).collect();
        for outcome in due.iter().flat_map(|due_ms| ledger.of(schedule, *due_ms)) {
            *counts.entry(outcome).or_default() += 1;
        }
        let sum: usize = counts.values().sum();
        (slots, sums) = (slots + due.len(), sums + sum);
        let counts: Vec<_> = counts.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        println!("{:<10} {:>5} {sum:>5}  {}", schedule.id, due.len(), counts.join(", "));
    }
    println!("{:<10} {slots:>5} {sums:>5}", "all");
}

#[test]
fn a_picture_larger_than_a_link_can_carry_between_two_cuts_goes_on_where_it_was_cut() {
    if !installed(&[BROKER]) {
        return;
    }
    let scratch = Scratch::new("slow");
    let broker = Broker::start(&scratch);
    let link = Link::to(broker.port);
    link.limit(Some(SLOW_BYTES_PER_S));
    let hub = Hub::start(&scratch, Some(broker.port), &[], None);
    // The agent must be up by then.
    let due_ms = boottime_now_ms() + 5 * SECOND_MS;
    let schedules = vec![Schedule::new("large-1h", "large", HOUR_MS, due_ms % HOUR_MS)];
    let node = Node { id: "slow".into(), hub: Some(link.port), cameras: vec![("large".into(), LARGE.into())], schedules };
    let mut agent = Agent::start(&scratch, "agent", &node);
    let limit = Duration::from_secs(180);
    let cutting = cut_every(&link, CUT_PERIOD_MS, boottime_now_ms() + limit.as_millis() as u64);
    agent.wait_status("the picture is at the hub", limit, |status| status.stored == 1 && status.pending == 0);
    let took_ms = boottime_now_ms() - due_ms;
    let data = agent.data();
    agent.process.kill();
    drop(cutting);

    let mut complaints = Vec::new();
    let at_node = pictures(&data.join("snapshots"), &mut complaints);
    let at_hub = pictures(&hub.objects.join("img"), &mut complaints);
    complaints.extend(compare(&[&at_node], &at_hub));
    assert!(complaints.is_empty(), "{}", told(&complaints));
    let size = at_node[0].bytes.len();
    let transfers = link.transfers();
    let transfer = &transfers[&at_node[0].meta.record.id.to_string()];
    println!(
        "{size} bytes took {took_ms} ms and {} bytes on the link; chunks that arrived (connection, offset): {:?}",
        transfer.bytes, transfer.chunks
    );
    assert!(size >= LARGE_BYTES && size as u64 * SECOND_MS > SLOW_BYTES_PER_S * CUT_PERIOD_MS, "{size} bytes are no large picture");
    assert!(transfer.connections() >= 3, "it outlived fewer than two cuts: {transfer:?}");
    assert_eq!(transfer.repeated(), 0, "what had arrived was sent again: {transfer:?}");
}

/// A node with one card a second, on a hub with its own broker.
fn card_node(hub: &Hub) -> Node {
    Node {
        id: "twin".into(),
        hub: hub.mqtt,
        cameras: vec![("card".into(), "pattern:?size=320x240".into())],
        schedules: vec![Schedule::new("card-1s", "card", SECOND_MS, 0)],
    }
}

/// Waits until an agent has taken and handed over so many pictures more.
fn takes(agent: &mut Agent, count: u64) {
    let before = agent.status().map_or(0, |status| status.stored);
    agent.wait_status("more pictures", Duration::from_secs(60), |status| status.stored >= before + count);
}

fn drain(scratch: &Scratch, name: &str, node: &Node) {
    let mut agent = Agent::start_idle(scratch, name, node);
    agent.wait_status("all pictures are at the hub", DRAIN_MAX, |status| status.pending == 0);
    agent.stop();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Texts of the alarms at the hub that speak of this.
fn alarms(hub: &Hub, node: &Node, of: &str) -> BTreeSet<String> {
    let files = fs::read_dir(hub.objects.join("alarm").join(&node.id)).into_iter().flatten().flatten();
    let texts = files.map(|entry| String::from_utf8(fs::read(entry.path()).unwrap()).unwrap());
    texts.filter(|text| text.contains(of)).collect()
}

/// Ids that carry more than one picture at the hub.
fn reused(at_hub: &[Picture]) -> usize {
    let mut hashes: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for picture in at_hub {
        hashes.entry(picture.meta.record.id).or_default().insert(picture.meta.hash8);
    }
    hashes.values().filter(|h| h.len() > 1).count()
}

#[test]
fn a_copied_and_a_restored_data_directory_lose_no_picture_and_raise_alarms() {
    let scratch = Scratch::new("twins");
    let hub = Hub::start(&scratch, None, &[], None);
    let node = card_node(&hub);
    let mut original = Agent::start(&scratch, "original", &node);
    takes(&mut original, 4);
    original.stop();
    drain(&scratch, "original", &node);
    copy(&scratch.path("original/data"), &scratch.path("restored/data"));
    let mut original = Agent::start(&scratch, "original", &node);
    takes(&mut original, 4);
    original.stop();
    drain(&scratch, "original", &node);
    for alarm in [TWO_AGENTS, TWO_PICTURES] {
        assert_eq!(alarms(&hub, &node, alarm), BTreeSet::new(), "nothing is wrong so far");
    }

    // Yesterday's backup begins again at numbers that were given since.
    let mut restored = Agent::start(&scratch, "restored", &node);
    takes(&mut restored, 6);
    restored.stop();
    drain(&scratch, "restored", &node);
    let after_restore = alarms(&hub, &node, TWO_PICTURES);
    let mut complaints = Vec::new();
    let of_restored = reused(&pictures(&hub.objects.join("img"), &mut complaints));
    assert!(of_restored >= 4, "only {of_restored} numbers were given twice: this shows nothing");
    assert_eq!(after_restore.len(), of_restored, "an alarm for each number: {after_restore:?}");

    copy(&scratch.path("restored/data"), &scratch.path("clone/data"));
    let mut restored = Agent::start(&scratch, "restored", &node);
    let mut clone = Agent::start(&scratch, "clone", &node);
    takes(&mut restored, 4);
    takes(&mut clone, 4);
    restored.stop();
    clone.stop();
    for name in ["restored", "clone"] {
        drain(&scratch, name, &node);
    }

    let kept: Vec<_> =
        ["original", "restored", "clone"].map(|name| pictures(&scratch.path(name).join("data/snapshots"), &mut complaints)).into();
    let at_hub = pictures(&hub.objects.join("img"), &mut complaints);
    complaints.extend(compare(&kept.iter().map(Vec::as_slice).collect::<Vec<_>>(), &at_hub));
    for name in ["original", "restored", "clone"] {
        complaints.extend(index(&scratch.path(name).join("data"), &node.id, Some(&at_hub)));
    }
    let (raised, met) = (alarms(&hub, &node, TWO_PICTURES), alarms(&hub, &node, TWO_AGENTS));
    let twice = reused(&at_hub);
    println!("{} pictures at the hub, {twice} numbers given twice or more, {} alarms for them, {met:?}", at_hub.len(), raised.len());
    assert!(complaints.is_empty(), "{}", told(&complaints));
    assert!(twice >= of_restored + 4, "the clone gave no number twice: this shows nothing");
    assert_eq!(raised.len(), twice, "an alarm for each number: {raised:?}");
    assert_eq!(met.len(), 1, "two agents at a time are one alarm: {met:?}");
}

#[test]
fn a_camera_is_left_alone_only_when_the_process_died_in_it_twice_in_a_row() {
    let scratch = Scratch::new("deaths");
    let node = Node {
        id: "deaths".into(),
        hub: None,
        cameras: vec![("slow".into(), "pattern:?size=320x240&fault=late:1000".into())],
        schedules: vec![Schedule::new("slow-2s", "slow", 2 * SECOND_MS, 0)],
    };
    let note = scratch.path("agent/run/grab-slow");
    let die = |mut agent: Agent| {
        wait_for("a capture is under way", Duration::from_secs(30), || note.exists().then_some(()));
        agent.process.kill();
        Agent::start(&scratch, "agent", &node)
    };
    let mut agent = die(Agent::start(&scratch, "agent", &node));
    takes(&mut agent, 1);
    let mut agent = die(die(agent));
    agent.wait_status("the camera is left alone", Duration::from_secs(30), |status| {
        status.cameras.values().any(|camera| camera.error.as_ref().is_some_and(|error| error.code == "crashed"))
    });
}
