//! How long after its slot a picture is taken, where the camera has to be opened for it: ahead of the slot, so that it is warm in time.
//!
//! The control opens it when the slot is due: the same checks see every picture late by the warm-up.

#[path = "rig/agent.rs"]
mod agent;
#[expect(dead_code, reason = "the camera rig can do more than this test needs")]
mod rig;

use agent::{Node, text, wait_for};
use shutterd::clock::boottime_now_ms;
use shutterd::protocol::Punctuality;

const WARM_UP_MS: u64 = 1_500;
/// Too long for a camera to be left open, and more than three warm-ups.
const PERIOD_MS: u64 = 11_000;
/// From now to the first slot: longer than an agent takes to start.
const FIRST_MS: u64 = 5_000;
const PICTURES: u64 = 2;

fn schedule(id: &str, camera: &str, phase_ms: u64) -> String {
    let phase_ms = phase_ms % PERIOD_MS;
    format!("[schedules.{id}]\ncamera = \"{camera}\"\nevery = \"{PERIOD_MS}ms\"\nphase = \"{phase_ms}ms\"\nalign = \"boot\"\n")
}

fn on_time(node: &Node, camera: &str) -> Punctuality {
    node.status().cameras[&camera.parse().unwrap()].on_time.clone()
}

/// Pictures that were later than most of the warm-up.
fn by_the_warm_up(on_time: &Punctuality) -> u64 {
    on_time.of - on_time.within_ms[&1_000]
}

fn configure(node: &Node, more: &str) {
    let card = format!("[cameras.card]\nsource = \"pattern:?size=320x240&warm_up={WARM_UP_MS}\"\n");
    node.configure(&(card + &schedule("card", "card", boottime_now_ms() + FIRST_MS) + more));
}

#[test]
fn a_camera_opened_ahead_takes_its_pictures_when_they_are_due_and_closes_in_between() {
    let node = Node::new("ahead");
    let series = rig::Camera::start(&[]);
    let mut more = String::new();
    if let Some(camera) = &series {
        let first_ms = boottime_now_ms() + FIRST_MS;
        more += &format!("[cameras.gate]\nsource = \"rtsp://127.0.0.1:{}/mjpeg\"\n", camera.port);
        more.extend((0..3).map(|n| schedule(&format!("series-{n}"), "gate", first_ms + n * 1_000)));
    }
    configure(&node, &more);
    let agent = node.start();
    if let Some(camera) = &series {
        wait_for("two series", || on_time(&node, "gate").of >= 6);
        camera.saw("SETUP", 2);
        println!("rtsp in series: {:?}", on_time(&node, "gate"));
    }
    wait_for("pictures", || on_time(&node, "card").of >= PICTURES);
    let ahead = on_time(&node, "card");
    println!("opened ahead: {ahead:?}");
    assert_eq!(by_the_warm_up(&ahead), 0, "the first slot too, though nothing was measured yet");
    let said = text(&node.command(&["status"]).stdout);
    assert!(said.contains("% within ") && said.contains(&format!("(of {})", ahead.of)), "{said}");
    if let Some(camera) = &series {
        // Within a series the session is left open, and after it closed.
        camera.saw("TEARDOWN", 2);
    }
    agent.stop();
}

#[test]
fn opened_when_it_is_due_every_picture_is_late_by_the_warm_up() {
    let node = Node::new("no-lead");
    configure(&node, "");
    let Some(agent) = node.start_broken("no_lead") else { return };
    wait_for("pictures", || on_time(&node, "card").of >= PICTURES);
    let late = on_time(&node, "card");
    println!("opened when due: {late:?}");
    assert_eq!(by_the_warm_up(&late), late.of);
    assert!(late.worst_ms >= WARM_UP_MS);
    agent.stop();
}

#[test]
fn a_camera_opened_for_a_slot_that_goes_away_is_closed_again() {
    let Some(camera) = rig::Camera::start(&[]) else { return };
    let node = Node::new("gone");
    let gate = format!("[cameras.gate]\nsource = \"rtsp://127.0.0.1:{}/mjpeg\"\n", camera.port);
    // Opened two seconds ahead as long as nothing was measured.
    let due_ms = boottime_now_ms() + FIRST_MS;
    node.configure(&format!("{gate}{}", schedule("s", "gate", due_ms)));
    let agent = node.start();
    wait_for("the opening", || camera.log.lock().unwrap().iter().any(|line| line.ends_with("SETUP")));
    assert!(boottime_now_ms() < due_ms, "it was opened ahead");
    node.configure(&gate);
    agent.signal("HUP");
    camera.saw("TEARDOWN", 1);
    assert_eq!(node.taken("gate"), 0, "a frame that is not due is not kept");
    agent.stop();
}
