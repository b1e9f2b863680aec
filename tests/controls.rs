//! Shows that the checks of `spine.rs` can fail: agent and hub do their steps in a wrong order, and the same checks complain.
//!
//! Each story runs twice, as it should be and with a breaking switch (`SHUTTER_BREAK`, which only a build with the feature `break` knows);
//! it must end without complaint, and with the very complaint that belongs to the switch.

#[path = "rig/books.rs"]
#[expect(dead_code, reason = "the ledger is not looked at here")]
mod books;
#[path = "rig/parts.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod parts;
#[path = "rig/trace.rs"]
mod trace;

use books::{Schedule, compare, index, pictures, told};
use parts::{Agent, BROKER, Broker, Hub, Node, Scratch, breakable, installed, wait_for, wait_until};
use rustix::process::Signal;
use shutterd::clock::boottime_now_ms;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const STRACE: (&str, &str) = ("/usr/bin/strace", "strace");
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the hub stands still before the broker dies.
const FROZEN_MS: u64 = 10_000;

fn node(hub: Option<u16>) -> Node {
    Node {
        id: "control".into(),
        hub,
        cameras: vec![("card".into(), "pattern:?size=320x240".into())],
        schedules: vec![Schedule::new("card-1s", "card", 1_000, 0)],
    }
}

fn takes(agent: &mut Agent, count: u64) {
    agent.wait_status("pictures are taken", PATIENCE, |status| status.stored >= count);
}

fn assert_complains(complaints: &[String], of: &str) {
    assert!(complaints.iter().any(|c| c.contains(of)), "the check does not notice \"{of}\"; {}", told(complaints));
    println!("as it should, it complains: {}", told(complaints));
}

/// The agent dies while it stores pictures. Returns what the check says of its index and files.
fn killed_while_storing(switch: Option<&str>) -> Vec<String> {
    let scratch = Scratch::new(switch.unwrap_or("file_before_row"));
    let node = node(None);
    let mut agent = Agent::spawn(&scratch, "agent", &node, true, switch);
    match switch {
        // It ends itself between row and file.
        Some(_) => {
            let status = agent.process.wait(PATIENCE);
            assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
        }
        None => {
            agent.wait_up();
            takes(&mut agent, 5);
            agent.process.kill();
        }
    }
    index(&agent.data(), &node.id, None)
}

#[test]
fn a_row_written_before_its_file_is_noticed() {
    if !breakable() {
        return;
    }
    let complaints = killed_while_storing(None);
    assert!(complaints.is_empty(), "{}", told(&complaints));
    assert_complains(&killed_while_storing(Some("row_before_file")), "there is no such file");
}

/// The hub stands still, the broker takes pictures for it, then both die and the broker forgets.
fn broker_forgets(switch: Option<&str>) -> Vec<String> {
    let scratch = Scratch::new(switch.unwrap_or("ack_from_hub"));
    let mut broker = Broker::start(&scratch);
    let mut hub = Hub::start(&scratch, Some(broker.port), &[], None);
    let node = node(Some(broker.port));
    let mut agent = Agent::spawn(&scratch, "agent", &node, true, switch);
    agent.wait_up();
    agent.wait_status("pictures are handed over", PATIENCE, |status| status.uplink.acknowledged >= 2);
    hub.process.signal(Signal::STOP);
    wait_until(boottime_now_ms() + FROZEN_MS);
    broker.process.kill();
    hub.process.kill();
    broker.start_again();
    hub = Hub::start(&scratch, Some(broker.port), &[], None);
    agent.wait_status("the agent is back", PATIENCE, |status| status.uplink.state == "online");
    agent.stop();
    let mut agent = Agent::spawn(&scratch, "agent", &node, false, switch);
    agent.wait_up();
    agent.wait_status("nothing is pending", PATIENCE, |status| status.pending == 0);
    let data = agent.data();
    agent.stop();
    let mut complaints = Vec::new();
    let at_node = pictures(&data.join("snapshots"), &mut complaints);
    let at_hub = pictures(&hub.objects.join("img"), &mut complaints);
    complaints.extend(index(&data, &node.id, Some(&at_hub)));
    complaints.extend(compare(&[&at_node], &at_hub));
    complaints
}

#[test]
fn an_acknowledgement_taken_from_the_broker_is_noticed() {
    if !installed(&[BROKER]) || !breakable() {
        return;
    }
    let complaints = broker_forgets(None);
    assert!(complaints.is_empty(), "{}", told(&complaints));
    let complaints = broker_forgets(Some("ack_from_puback"));
    assert_complains(&complaints, "is marked as acknowledged by the hub, but the hub has not got it");
    assert_complains(&complaints, "is not at the hub");
}

/// The hub's system calls while it takes a few pictures in. Returns how many acks were looked at, and the complaints.
fn hub_traced(switch: Option<&str>) -> (usize, Vec<String>) {
    let scratch = Scratch::new(switch.unwrap_or("hub_with_fsync"));
    let broker = Broker::start(&scratch);
    let file = scratch.path("trace");
    let name = file.to_string_lossy().into_owned();
    let mut hub = Hub::start(&scratch, Some(broker.port), &trace::strace(&name), switch);
    let mut agent = Agent::start(&scratch, "agent", &node(Some(broker.port)));
    agent.wait_status("pictures are handed over", PATIENCE, |status| status.uplink.acknowledged >= 4);
    agent.stop();
    let pid = hub.process.id();
    hub.process.terminate();
    hub.process.wait(PATIENCE);
    let trace = wait_for("the trace is complete", PATIENCE, || {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
        let ended = text.lines().any(|line| line.starts_with(&format!("{pid} ")) && line.contains("+++ exited"));
        ended.then_some(text)
    });
    let mut complaints = Vec::new();
    let at_hub = pictures(&hub.objects.join("img"), &mut complaints);
    let (acknowledged, order) = trace::flushed_before_acknowledged(&trace, &at_hub);
    complaints.extend(order);
    (acknowledged, complaints)
}

#[test]
fn a_hub_that_acknowledges_before_it_flushes_is_noticed() {
    if !installed(&[BROKER, STRACE]) || !breakable() {
        return;
    }
    let (acknowledged, complaints) = hub_traced(None);
    assert!(complaints.is_empty(), "{}", told(&complaints));
    assert!(acknowledged >= 4, "only {acknowledged} acknowledgements were seen in the trace: this shows nothing");
    let (acknowledged, complaints) = hub_traced(Some("hub_no_fsync"));
    assert!(acknowledged >= 4, "only {acknowledged} acknowledgements were seen in the trace: this shows nothing");
    assert_complains(&complaints, "before its bytes were flushed");
    assert_complains(&complaints, "before its directory was flushed");
}
