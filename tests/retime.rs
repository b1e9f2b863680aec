//! A board without a clock takes pictures; its clock becomes trusted; the hub ends with the true time of each of them.
//!
//! The real store, the real uplink and the real hub, in one process: the clock says what the story wants, on the machine's own boot time.

#[path = "rig/board_clock.rs"]
mod board_clock;
#[path = "hub/node.rs"]
#[expect(dead_code, reason = "the hub of other tests, and its page")]
mod node;

use board_clock::BoardClock;
use node::{Dir, Running, options, start};
use shutterd::clock::{Clock, SystemClock};
use shutterd::config::settings::Hub;
use shutterd::model::{Quality, RETIMES_IN_FLIGHT_MAX, Slot};
use shutterd::protocol::Record;
use shutterd::status::Status;
use shutterd::store::{Configure, Place, Put, Rules, Store, Stored};
use shutterd::uplink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);
/// 2026-11-24T06:00:00Z.
const TRUE_MS: i64 = 1_795_500_000_000;

/// Everything of an agent that this needs.
struct Agent {
    dir: PathBuf,
    clock: BoardClock,
    store: Store,
    status: Status,
    uplink: Option<(tokio::task::JoinHandle<()>, watch::Sender<bool>)>,
    taken: Vec<Stored>,
}

impl Agent {
    fn open(dir: PathBuf, clock: BoardClock) -> Self {
        let place = Place { dir: dir.clone(), board: "board".into(), hub: true };
        let config = Configure { node: "n1".parse().unwrap(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
        let store = loop {
            match Store::open(&place, config.clone(), Arc::new(clock.clone()), "boot") {
                // The writer of before has not ended yet.
                Err(shutterd::store::OpenError::Locked { .. }) => std::thread::yield_now(),
                opened => break opened.unwrap().0,
            }
        };
        Self { dir, clock, store, status: Status::default(), uplink: None, taken: Vec::new() }
    }
    fn start(name: &Dir) -> Self {
        Self::open(name.0.join("node"), BoardClock::of_1970())
    }
    fn link(&mut self, port: u16) {
        let hub = Hub { host: "127.0.0.1".into(), port, user: None, password: None, tls: None, keep_alive: Duration::from_secs(5) };
        let (stop, stopped) = watch::channel(false);
        let (stores, store) = watch::channel(Some(self.store.clone()));
        let context = uplink::Context {
            node: "n1".parse().unwrap(),
            hub,
            cameras: vec!["gate".parse().unwrap()],
            schedules: vec![],
            store,
            status: self.status.clone(),
            clock: Arc::new(self.clock.clone()),
            last_trusted_ms: 0,
        };
        let task = tokio::spawn(async move {
            uplink::run(context, stopped).await;
            drop(stores);
        });
        self.uplink = Some((task, stop));
    }
    async fn unlink(&mut self) {
        if let Some((task, stop)) = self.uplink.take() {
            stop.send_replace(true);
            task.await.unwrap();
        }
    }
    /// As a kill and a new start: what was not committed is lost.
    async fn restart(mut self) -> Self {
        if let Some((task, _)) = self.uplink.take() {
            task.abort();
            let _ = task.await;
        }
        let Self { dir, clock, taken, store, .. } = self;
        drop(store);
        let mut again = Self::open(dir, clock);
        again.taken = taken;
        again
    }
    fn take(&mut self) -> Stored {
        let (store, n) = (self.store.clone(), self.taken.len() as u64);
        let slot = Slot { schedule: "s".parse().unwrap(), boot: 1, due_ms: n * 1_000 + 1, plan_ms: None };
        let put = Put {
            camera: "gate".parse().unwrap(),
            slots: vec![slot],
            jpeg: [&[0xFF, 0xD8, 0xFF, 0xDB][..], &n.to_le_bytes(), &[0x11; 900], &[0xFF, 0xD9]].concat(),
            width: 8,
            height: 8,
            taken_ms: SystemClock.boottime_ms(),
            source: "pattern",
            flags: vec![],
            priority: shutterd::model::Priority::Normal,
            window_ms: None,
        };
        let stored = std::thread::spawn(move || store.put(put).unwrap()).join().unwrap();
        self.taken.push(stored.clone());
        stored
    }
    fn told_all(&self) -> bool {
        let at = self.store.retimed().unwrap();
        let rest = self.store.to_retime(at, 1_000_000, 1).unwrap();
        rest.found.is_empty()
    }
}

/// What the hub has beside a picture.
fn at_hub(dir: &Dir, stored: &Stored) -> Option<Record> {
    let path = dir.0.join(format!("data/objects/img/n1/{}/{}-{}.json", stored.id.store, stored.id.seq, stored.hash8));
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Each picture stands at the hub with the time that the clock's first trusted reading gives it.
fn check(dir: &Dir, agent: &Agent, offset_ms: i64) {
    for stored in &agent.taken {
        let row = agent.store.snap(stored.id).unwrap().unwrap();
        let record = at_hub(dir, stored).unwrap();
        if row.taken.quality.trusted() {
            assert_eq!((record.rev, record.taken), (0, row.taken), "{}", stored.id);
        } else {
            let want_ms = offset_ms + row.taken.boottime_ms as i64;
            assert_eq!((record.rev, record.taken.wall_ms, record.taken.quality), (1, want_ms, Quality::Ntp), "{}", stored.id);
            assert_eq!((record.taken.boot, record.taken.boottime_ms), (row.taken.boot, row.taken.boottime_ms));
        }
        let file = dir.0.join(format!("data/objects/img/n1/{}/{}-{}.jpg", stored.id.store, stored.id.seq, stored.hash8));
        assert_eq!(std::fs::read(file).unwrap(), std::fs::read(&stored.path).unwrap(), "the file keeps what it said");
    }
}

async fn page(hub: &Running) -> String {
    String::from_utf8(hub.get("/", "").await.1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_a_board_without_a_clock_get_their_true_time_at_the_hub_once() {
    let dir = Dir::new("retime");
    let hub = start(options(&dir.0)).await;
    let port = hub.mqtt.port();
    let mut agent = Agent::start(&dir);
    agent.link(port);
    for _ in 0..5 {
        agent.take();
    }
    until("the pictures are at the hub", || agent.store.pending_totals().0 == 0).await;
    assert!(agent.taken.iter().all(|stored| at_hub(&dir, stored).is_some_and(|record| record.rev == 0)));
    assert!(page(&hub).await.contains("clock not set"), "{}", page(&hub).await);

    agent.clock.set(TRUE_MS, Quality::Ntp);
    let offset_ms = agent.clock.offset_ms();
    // What the agent does as soon as the clock is trusted; no picture comes.
    agent.store.flush().await.unwrap();
    until("the hub has every true time", || agent.taken.iter().all(|stored| at_hub(&dir, stored).is_some_and(|record| record.rev == 1)))
        .await;
    check(&dir, &agent, offset_ms);
    let shown = page(&hub).await;
    assert!(shown.contains("2026-11-24 0") && !shown.contains("clock not set"), "{shown}");

    // A step of the trusted clock moves no time; another picture carries its own.
    agent.clock.set(TRUE_MS + 3_600_000, Quality::Ntp);
    agent.take();
    until("the picture is at the hub", || agent.store.pending_totals().0 == 0).await;
    check(&dir, &agent, offset_ms);
    until("the node remembers what it told", || agent.told_all()).await;

    // What a kill makes it tell again changes nothing, and the hub keeps it over its own restart.
    agent.unlink().await;
    let mut agent = agent.restart().await;
    hub.stop().await;
    let hub = start(options(&dir.0)).await;
    agent.link(hub.mqtt.port());
    agent.take();
    until("the picture is at the hub", || agent.store.pending_totals().0 == 0).await;
    check(&dir, &agent, offset_ms);
    agent.unlink().await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_weeks_without_a_link_pictures_and_true_times_come_together_over_kills_of_both() {
    let dir = Dir::new("retime-backlog");
    let mut agent = Agent::start(&dir);
    let many = RETIMES_IN_FLIGHT_MAX * 3;
    for _ in 0..many {
        agent.take();
    }
    agent.clock.set(TRUE_MS, Quality::Ntp);
    let offset_ms = agent.clock.offset_ms();
    agent.store.flush().await.unwrap();
    // The hub is restarted, and the agent killed, in the middle of it.
    for part in [many / 4, many / 2, many] {
        let hub = start(options(&dir.0)).await;
        agent.link(hub.mqtt.port());
        let at_the_hub = |agent: &Agent| agent.taken.iter().filter(|stored| at_hub(&dir, stored).is_some_and(|r| r.rev == 1)).count();
        until("a part of it is at the hub", || at_the_hub(&agent) >= part).await;
        if part == many {
            until("the pictures too", || agent.store.pending_totals().0 == 0).await;
            check(&dir, &agent, offset_ms);
            agent.unlink().await;
        }
        hub.stop().await;
        agent = agent.restart().await;
    }
}

#[path = "rig/agent.rs"]
mod agent;

/// The whole agent on a machine that nobody synchronises: its clock is trusted as soon as a hub tells the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_never_synchronised_has_its_time_from_the_hub_and_so_have_the_pictures_taken_before() {
    if SystemClock.read().quality.trusted() {
        assert!(std::env::var_os("CI").is_none(), "this machine's clock is synchronised: the story needs one that is not");
        eprintln!("\n*** SKIPPED: this machine's clock is synchronised: the story needs one that is not\n");
        return;
    }
    let dir = Dir::new("retime-agent");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let node = agent::Node::new("retime-agent");
    let hub = format!("[hub]\nurl = \"mqtt://127.0.0.1:{port}\"\n");
    node.configure(&format!("{hub}[cameras.gate]\nsource = \"pattern:\"\n[schedules.gate-1s]\ncamera = \"gate\"\nevery = \"1s\"\n"));
    let running = node.start();
    node.wait_for_pictures("gate", 3);
    let early = node.pictures().snapshots;
    assert!(early.iter().all(|row| row.time_ms.is_none() && !row.taken.quality.trusted()), "nobody knows when they were taken");
    let shown = agent::text(&node.command(&["ls"]).stdout);
    assert!(shown.lines().all(|line| line.contains("≈")), "{shown}");
    let asked_ms = early[1].taken.wall_ms;
    let told = node.explain("gate-1s", asked_ms);
    assert!(told.unsure && told.latest_ms.is_none(), "{told:?}");
    // This program was built before it took them.
    assert!(told.earliest_ms.is_some_and(|earliest| earliest <= asked_ms), "{told:?}");

    let hub = start(node::HubOptions { mqtt: ([127, 0, 0, 1], port).into(), ..options(&dir.0) }).await;
    agent::wait_for("the clock is trusted", || node.status().clock.trusted());
    agent::wait_for("every picture has its time", || node.pictures().snapshots.iter().all(|row| row.time_ms.is_some()));
    let at_hub = |row: &shutterd::api::Row| {
        let of_store = dir.0.join(format!("data/objects/img/n1/{}", row.id.store));
        let start = format!("{}-", row.id.seq);
        let names = std::fs::read_dir(of_store).ok()?.map(|entry| entry.unwrap().path());
        let mut records = names.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        let record = records.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start))?;
        serde_json::from_slice::<Record>(&std::fs::read(record).ok()?).ok()
    };
    agent::wait_for("the hub has the true times", || early.iter().all(|row| at_hub(row).is_some_and(|record| record.rev == 1)));
    let now = node.pictures().snapshots;
    for row in &early {
        let (record, row) = (at_hub(row).unwrap(), now.iter().find(|known| known.id == row.id).unwrap());
        assert_eq!((Some(record.taken.wall_ms), record.taken.quality), (row.time_ms, Quality::Hub), "{}", row.id);
        // The hub runs on the same clock: what nobody believed was right all the time.
        assert!(record.taken.wall_ms.abs_diff(row.taken.wall_ms) < 2_000, "{record:?}");
    }
    let shown = agent::text(&node.command(&["ls"]).stdout);
    assert!(!shown.contains("≈"), "{shown}");
    let told = node.explain("gate-1s", asked_ms);
    let slot = told.slot.as_ref().unwrap();
    let synced_ms = early[1].taken.boottime_ms as i64 - now.iter().find(|row| row.id == early[1].id).unwrap().time_ms.unwrap();
    assert!(!told.unsure && told.time_ms == Some(slot.due_ms as i64 - synced_ms), "by the same reading: {told:?}");
    let shows = async {
        loop {
            let shown = page(&hub).await;
            if shown.contains("by the hub") && !shown.contains("≈") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shows).await.expect("the page never shows the true time");
    assert!(running.stop().0.success());
    let looked = node.command(&["fsck"]);
    assert!(looked.status.success(), "{}", agent::text(&looked.stdout));
    hub.stop().await;
}
