//! The index is lost, old, or from the future: no picture goes with it, and none goes over the link twice.

#[path = "rig/agent.rs"]
mod agent;
#[path = "rig/books.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod books;
#[path = "rig/parts.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod parts;

use parts::{Agent, BROKER, Broker, Hub, Node, Scratch, installed};
use shutterd::clock::SystemClock;
use shutterd::model::Slot;
use shutterd::store::{Configure, Place, Put, Rules, Store};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const ARCHIVE: u64 = 5_000;

/// Pictures as a node takes them in weeks, from eight cameras' threads at once.
fn fill(data: &Path) {
    let place = Place { dir: data.to_owned(), board: "another board".into(), hub: true };
    let config = Configure { node: "river-1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
    let (store, past) = Store::open(&place, config, Arc::new(SystemClock), "a boot long ago").unwrap();
    thread::scope(|scope| {
        for n in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for due_ms in (0..ARCHIVE).filter(|i| i % 8 == n).map(|i| 1_000 + i) {
                    let slot = Slot { schedule: "gate-5m".parse().unwrap(), boot: past.boot, due_ms, plan_ms: None };
                    let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &due_ms.to_le_bytes(), &[0xFF, 0xD9]].concat();
                    let put = Put {
                        camera: "gate".parse().unwrap(),
                        slots: vec![slot],
                        jpeg,
                        width: 8,
                        height: 8,
                        taken_ms: due_ms,
                        source: "pattern",
                        flags: vec![],
                        priority: Default::default(),
                        window_ms: None,
                    };
                    store.put(put).unwrap();
                }
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.stop()).unwrap();
}

#[test]
fn a_rebuilt_archive_sends_nothing_that_the_hub_has_and_all_that_it_lacks() {
    if !installed(&[BROKER]) {
        return;
    }
    let scratch = Scratch::new("lost-index");
    let broker = Broker::start(&scratch);
    let hub = Hub::start(&scratch, Some(broker.port), &[], None);
    let node = Node { id: "river-1".into(), hub: Some(broker.port), cameras: vec![("gate".into(), "pattern:".into())], schedules: vec![] };
    let data = scratch.path("agent").join("data");
    fill(&data);
    let mut agent = Agent::start(&scratch, "agent", &node);
    let all_there = Duration::from_secs(120);
    agent.wait_status("the archive is at the hub", all_there, |now| now.pending == 0 && now.stored == ARCHIVE);
    agent.stop();

    // The index is damaged; one picture that it knew never reached the hub.
    fs::write(data.join("index.redb"), b"this was an index").unwrap();
    let mut gone = 0;
    let objects = hub.objects.join("img/river-1");
    let of_store = fs::read_dir(&objects).unwrap().next().unwrap().unwrap().path();
    drop(hub);
    for object in fs::read_dir(&of_store).unwrap().map(|e| e.unwrap().path()) {
        if object.file_name().unwrap().to_str().unwrap().starts_with("4321-") {
            fs::remove_file(object).unwrap();
            gone += 1;
        }
    }
    assert!(gone > 0, "the hub's files are laid out in another way than this test knows");
    let _hub = Hub::start(&scratch, Some(broker.port), &[], None);
    let mut agent = Agent::start(&scratch, "agent", &node);
    // What was sent is counted a second later.
    agent.wait_status("everything is back and at the hub", all_there, |now| {
        now.pending == 0 && now.stored == ARCHIVE && now.uplink.sent_bytes > 0
    });
    let uplink = agent.status().unwrap().uplink;
    eprintln!("rebuilt: {ARCHIVE} pictures back, {} messages with {} bytes of pictures sent", uplink.sent, uplink.sent_bytes);
    let one = fs::read_dir(&of_store).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("4321-")).count();
    assert!(one > 0, "what the hub lacked is there again");
    assert!(uplink.sent_bytes < 4_096, "one picture, not five thousand: {} bytes", uplink.sent_bytes);
    agent.stop();
}

#[test]
fn a_data_directory_of_the_first_version_opens_and_goes_on() {
    let node = agent::Node::new("format-1");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1.tar.gz");
    let dir = node.data.parent().unwrap();
    assert!(Command::new("tar").arg("-xzf").arg(fixture).arg("-C").arg(dir).status().unwrap().success());
    node.configure("[cameras.gate]\nsource = \"pattern:\"\n[schedules.gate-1s]\ncamera = \"gate\"\nevery = \"1s\"\n");
    let agent = node.start();
    assert!(node.data.join("index.redb.old").exists(), "the old index is kept until the next start");
    node.wait_for_pictures("gate", 2);
    let listed = node.pictures().snapshots;
    assert_eq!(listed.iter().filter(|s| s.id.seq.0 <= 10).count(), 10, "every picture of the first version");
    let mut complaints = Vec::new();
    assert!(books::pictures(&node.data, &mut complaints).len() >= 12);
    assert_eq!(complaints, [""; 0], "each is whole");
    assert!(agent.stop().0.success());
    let looked = node.command(&["fsck"]);
    assert!(looked.status.success(), "its tables agree: {}", String::from_utf8_lossy(&looked.stdout));
    let agent = node.start();
    assert!(!node.data.join("index.redb.old").exists());
    assert!(agent.stop().0.success());
}
