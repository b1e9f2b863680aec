//! The machine goes down and comes up: the slots in between have their reason, and nothing of the old boot is mistaken for the new.
//!
//! A boot is made by giving the agent another boot id in a mount namespace of its own; the boot clock runs on, as it may.

#[path = "rig/agent.rs"]
mod rig;

use rig::{Node, now_ms, pause};
use shutterd::model::{Off, Outcome};

const CARD: &str = "[cameras.card]\nsource = \"pattern:\"\n[schedules.card-1s]\ncamera = \"card\"\nevery = \"1s\"\n";

#[test]
fn what_a_lost_index_knew_is_on_record_as_lost_and_the_pictures_are_back() {
    let node = Node::new("lost");
    node.configure(CARD);
    let agent = node.start();
    node.wait_for_pictures("card", 3);
    assert!(agent.stop().0.success());
    let stored = node.data.join("index.redb");
    std::fs::write(&stored, vec![0x55; 100_000]).unwrap();
    pause(3_000);
    let lost_ms = now_ms() - 1_500;

    let agent = node.start();
    assert!(node.pictures().snapshots.len() >= 3, "the pictures are taken into the new index");
    assert_eq!(node.outcome("card-1s", lost_ms), Some(Outcome::Off { reason: Off::IndexLost }));
    assert!(node.data.join("index.redb.bad").exists(), "the old index is kept aside");
    assert!(agent.stop().0.success());
}

#[test]
fn what_was_due_while_the_machine_was_off_is_on_record_with_why() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
        eprintln!("SKIPPED: another boot can only be shown as root");
        return;
    }
    let node = Node::new("reboot");
    node.configure(CARD);
    let mut agent = node.start_in_boot("11111111-0000-0000-0000-000000000001\n");
    node.wait_for_pictures("card", 2);
    agent.child.kill().unwrap();
    agent.ended();
    pause(3_000);
    let power_ms = now_ms() - 1_500;

    let agent = node.start_in_boot("22222222-0000-0000-0000-000000000002\n");
    node.wait_for_pictures("card", 2);
    let why = node.explain("card-1s", power_ms);
    assert_eq!(why.outcome, Some(Outcome::Off { reason: Off::Power }), "the agent ran, and then the machine was another boot");
    let range = why.range.expect("one range, not a row for each slot");
    assert_eq!((range.from.boot, range.to.boot), (1, 2));
    assert!(range.count.is_none() || node.status().clock.trusted(), "without a trusted clock nobody can count what was lost");
    assert!(agent.stop().0.success());
    pause(3_000);
    let stop_ms = now_ms() - 1_500;

    let agent = node.start_in_boot("33333333-0000-0000-0000-000000000003\n");
    node.wait_for_pictures("card", 2);
    assert_eq!(node.outcome("card-1s", stop_ms), Some(Outcome::Off { reason: Off::Stop }));
    let boots: Vec<u32> = node.pictures().snapshots.iter().map(|row| row.taken.boot).collect();
    assert!(boots.is_sorted_by(|a, b| a >= b) && boots.contains(&1) && boots.contains(&3), "newest first over all boots: {boots:?}");
    assert!(agent.stop().0.success());
}

#[test]
fn a_reboot_between_two_slots_is_explained_too() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
        eprintln!("SKIPPED: another boot can only be shown as root");
        return;
    }
    let node = Node::new("short");
    node.configure("[cameras.card]\nsource = \"pattern:\"\n[schedules.card-1d]\ncamera = \"card\"\nevery = \"1d\"\n");
    let mut agent = node.start_in_boot("11111111-0000-0000-0000-000000000001\n");
    assert!(node.command(&["snap", "card", "-o", "-"]).status.success());
    node.explain("card-1d", now_ms());
    agent.child.kill().unwrap();
    agent.ended();

    // The open range of the time between the boots begins with a slot that is still to come.
    let agent = node.start_in_boot("22222222-0000-0000-0000-000000000002\n");
    assert_eq!(node.outcome("card-1d", now_ms()), Some(Outcome::Off { reason: Off::Power }));
    assert!(agent.stop().0.success());
}
