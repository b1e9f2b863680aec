//! What is on record of each slot, asked as a user asks: `explain` tells one in a sentence, `report` sums them all up.

#[path = "rig/agent.rs"]
mod agent;

use agent::{Node, now_ms, wait_for};
use shutterd::api::{ListAnswer, ReportAnswer};
use shutterd::model::Outcome;
use std::collections::BTreeMap;

fn text(words: &[&str], node: &Node) -> String {
    let output = node.command(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn at(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).unwrap().to_rfc3339()
}

fn config(yard: &str) -> String {
    format!(
        "[cameras.gate]\nsource = \"pattern:?size=320x240\"\n[cameras.yard]\nsource = \"pattern:?size=320x240{yard}\"\n\
         [schedules.gate-1s]\ncamera = \"gate\"\nevery = \"1s\"\nalign = \"boot\"\n\
         [schedules.yard-1s]\ncamera = \"yard\"\nevery = \"1s\"\nalign = \"boot\"\n"
    )
}

#[test]
fn the_report_is_the_sum_of_all_slots_and_each_is_explained_with_its_evidence() {
    let node = Node::new("ledger");
    node.configure(&config(""));
    let agent = node.start();
    node.wait_for_pictures("yard", 3);
    // The camera dies, and comes back.
    let failed = || node.status().cameras[&"yard".parse().unwrap()].failed;
    node.configure(&config("&fault=fail"));
    agent.signal("HUP");
    wait_for("four failures", || failed() >= 4);
    let dead_ms = now_ms() - 1_000;
    node.configure(&config(""));
    agent.signal("HUP");
    node.wait_for_pictures("yard", 3);
    // The agent is away for a while.
    assert!(agent.stop().0.success());
    let away_ms = now_ms() + 1_000;
    agent::pause(3_000);
    let agent = node.start();
    node.wait_for_pictures("gate", 2);

    let report: ReportAnswer = serde_json::from_str(&text(&["report", "--json"], &node)).unwrap();
    let pictures: ListAnswer = node.pictures();
    let boottime_now = node.status().boottime_ms;
    for name in ["gate-1s", "yard-1s"] {
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for day in report.days.iter().filter(|day| day.schedule == name) {
            for (label, count) in &day.slots {
                *told.entry(label.clone()).or_default() += count;
            }
        }
        let mut slots: Vec<u64> =
            pictures.snapshots.iter().flat_map(|p| &p.slots).filter(|s| s.schedule.as_str() == name).map(|s| s.due_ms).collect();
        slots.sort_unstable();
        // Every second from the first picture on, each asked for by itself.
        let offset_ms = now_ms() - node.status().boottime_ms as i64;
        let planned: u64 = told.values().sum();
        let mut asked: BTreeMap<String, u64> = BTreeMap::new();
        for due_ms in (slots[0]..boottime_now).step_by(1_000).take(planned as usize) {
            let outcome = node.outcome(name, offset_ms + due_ms as i64).unwrap();
            *asked.entry(outcome.label()).or_default() += 1;
        }
        assert_eq!(asked, told, "{name}");
        assert!(told["off: stopped"] >= 2, "{told:?}");
        assert_eq!(told.contains_key("failed: broken"), name == "yard-1s");
        println!("{name}: {planned} slots, each explained: {told:?}");
    }

    let why = text(&["explain", "yard-1s", &at(dead_ms)], &node);
    for part in
        ["yard-1s at yard: no picture:", "(broken)", "slots like it from", "the last picture before it was due at", "the next one at"]
    {
        assert!(why.contains(part), "{why}");
    }
    let why = text(&["explain", "gate-1s", &at(away_ms)], &node);
    assert!(why.contains("the agent had been stopped") && why.contains("slots like it from"), "{why}");
    let table = text(&["report"], &node);
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("yard-1s").contains("failed: broken") && !line("gate-1s").contains("failed"), "{table}");
    assert!(!line("yard-1s").contains("100.00 %") && line("all  ").contains("off: stopped"), "{table}");
    println!("{table}{why}");
    assert!(matches!(node.outcome("gate-1s", now_ms()), Some(Outcome::Captured { .. })));
    drop(agent);
}
