//! A wall clock that cannot be trusted, shown on the real programs: one of 1970, one that is wrong and jumps, one that the hub puts right,
//! and a machine that has been up for longer than it has.
//!
//! The machine's own clock is never touched: `faketime` lies to one process about the wall clock and leaves CLOCK_BOOTTIME and timers
//! alone, and strace answers for the kernel whether its clock is synchronised. What a real step of the clock does is shown on the emulated
//! board (`tests/board`).

#[path = "rig/agent.rs"]
mod agent;
#[path = "rig/books.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod books;
#[path = "rig/parts.rs"]
#[expect(dead_code, reason = "one rig for several tests")]
mod parts;

use agent::Node;
use parts::{BROKER, Broker, Scratch, free_port, installed};
use shutterd::api::{Row, StatusAnswer};
use shutterd::clock::{BUILD_UNIX_S, Clock, SystemClock, boottime_now_ms};
use shutterd::model::{Quality, Session, Stamp};
use shutterd::protocol::{HUB_TOPIC, HubPresence, Info, VERSION};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const STRACE: (&str, &str) = ("/usr/bin/strace", "strace");
const UNSHARE: (&str, &str) = ("/usr/bin/unshare", "util-linux");
const OPENSSL: (&str, &str) = ("/usr/bin/openssl", "openssl");
const CARD: &str = "[cameras.card]\nsource = \"pattern:\"\n[schedules.card-1s]\ncamera = \"card\"\nevery = \"1s\"\n";
/// A minute into 1970, as a board without a clock chip begins.
const YEARS_56_MS: i64 = 56 * 31_556_952_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// By how much two clocks of one machine may differ that were read one after the other on a busy one, and what the hub's time may be off.
const CLOSE_MS: u64 = 2_000;
/// What adjtimex answers: nobody has synchronised the clock (TIME_ERROR), or somebody has.
const UNSYNCED: u32 = 5;
const SYNCED: u32 = 0;

/// A lie about the wall clock that can be changed while the process runs: by so much it is beside the truth.
struct Lie {
    file: PathBuf,
    library: PathBuf,
}

impl Lie {
    /// `None` after saying what is missing.
    fn new(node: &Node, beside_ms: i64) -> Option<Self> {
        let library = ["x86_64", "aarch64", "arm"].iter().flat_map(|cpu| [format!("{cpu}-linux-gnu"), format!("{cpu}-linux-gnueabihf")]);
        let library = library.map(|place| Path::new("/usr/lib").join(place).join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let Some(library) = library else {
            assert!(std::env::var_os("CI").is_none(), "apt-get install faketime");
            eprintln!("\n*** SKIPPED: apt-get install faketime\n");
            return None;
        };
        let lie = Self { file: node.root.join("lie"), library };
        lie.tell(beside_ms);
        Some(lie)
    }
    fn tell(&self, beside_ms: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{:+.3}\n", beside_ms as f64 / 1_000.0)).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
    fn variables(&self) -> Vec<String> {
        let (library, file) = (self.library.display(), self.file.display());
        let named = [format!("LD_PRELOAD={library}"), format!("FAKETIME_TIMESTAMP_FILE={file}")];
        named.into_iter().chain(["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1", "NO_FAKE_STAT=1"].map(str::to_owned)).collect()
    }
    /// What goes before the agent's command line, with the kernel's answer. Strace steps aside: the process is the agent's.
    fn before_agent(&self, kernel: u32) -> Vec<String> {
        let calls = "adjtimex,clock_adjtime";
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:retval={kernel}"));
        let strace = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", trace.as_str(), "-e", inject.as_str()];
        let told = self.variables().into_iter().flat_map(|variable| ["-E".to_owned(), variable]);
        strace.map(str::to_owned).into_iter().chain(told).collect()
    }
}

/// A hub as a process; it is killed with this value.
struct Hub {
    child: Child,
    port: u16,
    objects: PathBuf,
}

impl Hub {
    fn start(node: &Node, arguments: &[&str], variables: &[String]) -> Self {
        let data = node.root.join("hub");
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutter-hub"));
        command.arg("--data").arg(&data).args(["--http", "127.0.0.1:0"]).args(arguments);
        command.envs(variables.iter().filter_map(|variable| variable.split_once('=')));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(node.root.join("hub.log")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mqtt = lines.find_map(|line| Some(line.strip_prefix("mqtt ")?.to_owned()));
        let mqtt = mqtt.unwrap_or_else(|| panic!("no hub: {}", std::fs::read_to_string(node.root.join("hub.log")).unwrap()));
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port: mqtt.rsplit_once(':').unwrap().1.parse().unwrap(), objects: data.join("objects") }
    }
}

impl Hub {
    fn start_tls(node: &Node, port: u16, variables: &[String]) -> Self {
        let file = |name: &str| node.root.join(name).display().to_string();
        let (place, cert, key) = (format!("127.0.0.1:{port}"), file("hub.pem"), file("hub.key"));
        Self::start(node, &["--mqtt", &place, "--tls-cert", &cert, "--tls-key", &key], variables)
    }
}

/// An authority, and a certificate for a hub on this machine that is younger than the program: valid from so many days on, for 30.
fn certificate(node: &Node, from_day: i64) {
    let make = |arguments: &str| {
        let run = Command::new("openssl").args(arguments.split(' ')).current_dir(&node.root).output().unwrap();
        assert!(run.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&run.stderr));
    };
    let now_s = SystemClock.read().wall_ms / 1_000;
    assert!(now_s > BUILD_UNIX_S);
    let date = |day: i64| chrono::DateTime::from_timestamp(now_s + day * 86_400, 0).unwrap().format("%Y%m%d%H%M%SZ").to_string();
    let config = "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n\
                  [leaf]\nbasicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";
    for (name, text) in [("ca.cnf", config), ("index", ""), ("serial", "01\n")] {
        std::fs::write(node.root.join(name), text).unwrap();
    }
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    make(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=authority"));
    make(&format!("req {key} -keyout hub.key -out hub.csr -subj /CN=hub"));
    let (from, to) = (date(from_day), date(from_day + 30));
    make(&format!(
        "ca -batch -config ca.cnf -extensions leaf -cert ca.pem -keyfile ca.key -startdate {from} -enddate {to} -in hub.csr -out hub.pem -notext"
    ));
}

/// A camera, and a hub that is known by that authority.
fn mqtts(node: &Node, port: u16) -> String {
    format!("{CARD}[hub]\nurl = \"mqtts://127.0.0.1:{port}\"\nca_file = \"{}\"\n", node.root.join("ca.pem").display())
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How far a stamp is from this machine's own clock, which is the truth here.
fn off_ms(boottime_ms: u64, wall_ms: i64) -> u64 {
    (SystemClock.read().offset_ms() + boottime_ms as i64).abs_diff(wall_ms)
}
fn stamp_off_ms(taken: &Stamp) -> u64 {
    off_ms(taken.boottime_ms, taken.wall_ms)
}

fn wait_status(node: &Node, what: &str, holds: impl Fn(&StatusAnswer) -> bool) -> StatusAnswer {
    let mut last = None;
    agent::wait_for(&format!("{what}: {}", node.root.display()), || {
        last = Some(node.status());
        last.as_ref().is_some_and(&holds)
    });
    last.unwrap()
}

/// Pictures from the oldest on.
fn taken(node: &Node) -> Vec<Row> {
    let mut rows = node.pictures().snapshots;
    rows.reverse();
    rows
}

/// Instants of the boot clock at which the pictures of a camera on a grid of a second were due: none twice, none left out.
fn assert_even(rows: &[Row]) {
    let due: Vec<u64> = rows.iter().flat_map(|row| row.slots.iter().map(|slot| slot.due_ms)).collect();
    assert!(due.len() >= 8, "{due:?}");
    assert!(due.windows(2).all(|two| two[1] - two[0] == 1_000), "not each second: {due:?}");
}

#[test]
fn a_board_of_1970_reaches_its_hub_over_tls_and_learns_the_time_from_it() {
    let node = Node::new("clock-1970");
    if !installed(&[STRACE, OPENSSL]) {
        return;
    }
    let Some(lie) = Lie::new(&node, -YEARS_56_MS) else { return };
    certificate(&node, 0);
    let port = free_port();
    node.configure(&mqtts(&node, port));

    let agent = node.start_under(&lie.before_agent(UNSYNCED));
    node.wait_for_pictures("card", 2);
    let lost = node.status();
    assert_eq!((lost.clock, lost.uncertainty_ms), (Quality::Unset, None));
    assert!(lost.wall_ms < BUILD_UNIX_S * 1_000 && off_ms(lost.boottime_ms, lost.wall_ms) > 50 * 365 * 86_400_000, "{}", lost.wall_ms);
    assert_eq!(lost.uplink.tls_clock.as_deref(), Some("unchecked"));
    assert!(taken(&node).iter().all(|row| row.taken.quality == Quality::Unset));

    let hub = Hub::start_tls(&node, port, &[]);
    let found = wait_status(&node, "the hub's time", |now| now.clock == Quality::Hub);
    assert!(off_ms(found.boottime_ms, found.wall_ms) < CLOSE_MS, "{found:?}");
    assert!(found.uncertainty_ms.is_some_and(|ms| u64::from(ms) < CLOSE_MS), "{:?}", found.uncertainty_ms);
    wait_status(&node, "the certificate judged by it", |now| now.uplink.tls_clock.as_deref() == Some("checked"));
    assert_eq!(node.status().uplink.connects, 1, "on the connection that was made without a clock");
    let words = agent::text(&node.command(&["status"]).stdout);
    assert!(words.contains(" (hub, within "), "{words}");
    assert_eq!(node.logged("the clock was set forward by 5"), 1, "{}", node.log());

    let before_ms = boottime_now_ms();
    node.wait_for_pictures("card", 3);
    let rows = taken(&node);
    let late: Vec<_> = rows.iter().filter(|row| row.taken.boottime_ms > before_ms).collect();
    assert!(late.len() >= 2 && late.iter().all(|row| row.taken.quality == Quality::Hub && stamp_off_ms(&row.taken) < CLOSE_MS), "{late:?}");
    agent::wait_for("the hub to show it", || {
        let seen = std::fs::read(hub.objects.join("node/n1/info.json")).unwrap_or_default();
        let said = serde_json::from_slice::<serde_json::Value>(&seen).ok().and_then(|seen| seen.get("said").cloned());
        said.and_then(|said| serde_json::from_value::<Info>(said).ok())
            .is_some_and(|info| info.clock == Quality::Hub && info.tls_clock.as_deref() == Some("checked"))
    });
    drop(hub);
    assert!(agent.stop().0.success());

    // Its time is on record with the boot: an agent that starts again needs no hub for it.
    let agent = node.start_under(&lie.before_agent(UNSYNCED));
    let again = wait_status(&node, "the time on record", |now| now.clock == Quality::Hub);
    assert!(off_ms(again.boottime_ms, again.wall_ms) < CLOSE_MS, "{again:?}");
    assert!(agent.stop().0.success());
}

#[test]
fn a_hub_with_a_wrong_clock_and_an_old_message_of_it_are_not_believed() {
    let (node, scratch) = (Node::new("clock-wrong-hub"), Scratch::new("clock-wrong-hub"));
    if !installed(&[STRACE, BROKER]) {
        return;
    }
    let Some(lie) = Lie::new(&node, 0) else { return };
    // A hub whose clock is twenty years ahead.
    let hubs = Lie { file: node.root.join("hubs-lie"), library: lie.library.clone() };
    hubs.tell(20 * 31_556_952_000);
    let hub = Hub::start(&node, &["--mqtt", "127.0.0.1:0"], &hubs.variables());
    node.configure(&format!("{CARD}[hub]\nurl = \"mqtt://127.0.0.1:{}\"\n", hub.port));
    let agent = node.start_under(&lie.before_agent(UNSYNCED));
    agent::wait_for("a word about it", || node.logged("which cannot be: its time is not used; set the hub's clock") == 1);
    assert_eq!(node.status().clock, Quality::Saved);
    // The same hub, put right.
    hubs.tell(0);
    drop(hub);
    let hub = Hub::start(&node, &["--mqtt", "127.0.0.1:0"], &[]);
    node.configure(&format!("{CARD}[hub]\nurl = \"mqtt://127.0.0.1:{}\"\n", hub.port));
    agent.signal("HUP");
    wait_status(&node, "the hub's time", |now| now.clock == Quality::Hub);
    drop(hub);
    assert!(agent.stop().0.success());

    // It is a month later, for what is older than the program is disproved by that, and a message is there that a hub left on its broker ten
    // days ago; no hub is there any more.
    let (node, broker) = (Node::new("clock-old-presence"), Broker::start(&scratch));
    let Some(lie) = Lie::new(&node, 30 * DAY_MS) else { return };
    leave_presence(broker.port, SystemClock.read().wall_ms + 20 * DAY_MS);
    node.configure(&format!("{CARD}[hub]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port));
    let agent = node.start_under(&lie.before_agent(UNSYNCED));
    let linked = wait_status(&node, "the old message", |now| now.uplink.state == "online");
    node.wait_for_pictures("card", 2);
    let later = node.status();
    assert_eq!((linked.clock, later.clock), (Quality::Saved, Quality::Saved));
    assert!(taken(&node).iter().all(|row| stamp_off_ms(&row.taken).abs_diff(30 * DAY_MS as u64) < CLOSE_MS));
    assert!(agent.stop().0.success());

    // The control: an agent that believes it is ten days late, and this test sees that.
    let node = Node::new("clock-believes");
    node.configure(&format!("{CARD}[hub]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port));
    if let Some(agent) = node.start_broken("believe_presence") {
        let wrong = wait_status(&node, "the time of an old message", |now| now.clock == Quality::Hub);
        // The message has grown older meanwhile.
        let off_ms = off_ms(wrong.boottime_ms, wrong.wall_ms);
        assert!((19 * DAY_MS as u64..20 * DAY_MS as u64 + CLOSE_MS).contains(&off_ms), "{off_ms}");
        drop(agent);
    }
}

#[test]
fn what_was_accepted_without_a_clock_is_judged_again_by_the_first_right_one() {
    if !installed(&[STRACE, OPENSSL]) {
        return;
    }
    // A daemon sets a clock of 1970 right, on a link that stands: the certificate is good, or of the future.
    for (name, from_day) in [("clock-good", 0), ("clock-future", 10)] {
        let node = Node::new(name);
        let Some(lie) = Lie::new(&node, -YEARS_56_MS) else { return };
        certificate(&node, from_day);
        // The hub's clock is two years ahead, which its own certificate disproves.
        let hubs = Lie { file: node.root.join("hubs-lie"), library: lie.library.clone() };
        hubs.tell(2 * 31_556_952_000);
        let port = free_port();
        let hub = Hub::start_tls(&node, port, &hubs.variables());
        node.configure(&mqtts(&node, port));
        let agent = node.start_under(&lie.before_agent(SYNCED));
        agent::wait_for("a word about the hub's time", || node.logged("its own certificate is not valid") == 1);
        let now = node.status();
        assert_eq!((now.clock, now.uplink.state.as_str(), now.uplink.tls_clock.as_deref()), (Quality::Unset, "online", Some("unchecked")));
        lie.tell(0);
        if from_day == 0 {
            let now = wait_status(&node, "the certificate judged", |now| now.uplink.tls_clock.as_deref() == Some("checked"));
            assert_eq!((now.clock, now.uplink.connects), (Quality::Ntp, 1));
        } else {
            let now = wait_status(&node, "the link dropped", |now| now.uplink.error.is_some());
            let why = now.uplink.error.unwrap();
            assert!(why.contains("its certificate is not valid yet; check the clocks of this node and of the hub"), "{why}");
        }
        drop(hub);
        assert!(agent.stop().0.success());
    }
}

/// Says that a hub is there, as one did at an instant, and leaves it with the broker.
fn leave_presence(port: u16, time_ms: i64) {
    use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions, mqttbytes::QoS};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let presence = HubPresence { v: VERSION, online: true, time_ms: Some(time_ms), worker: Session(7) };
    runtime.block_on(async {
        let (client, mut events) = AsyncClient::new(MqttOptions::new("old-hub", "127.0.0.1", port), 4);
        client.publish(HUB_TOPIC, QoS::AtLeastOnce, true, serde_json::to_vec(&presence).unwrap()).await.unwrap();
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Incoming::PubAck(_))) {}
    });
}

#[test]
fn a_clock_that_is_wrong_and_jumps_moves_no_picture_and_purges_none() {
    let node = Node::new("clock-jumps");
    if !installed(&[STRACE]) {
        return;
    }
    // Never back to before the program was built, which is another story, but for once.
    let Some(lie) = Lie::new(&node, 3 * HOUR_MS) else { return };
    node.configure(&format!("[keep]\nage = \"1m\"\n{CARD}"));
    let agent = node.start_under(&lie.before_agent(UNSYNCED));
    node.wait_for_pictures("card", 2);
    let wrong = node.status();
    assert_eq!(wrong.clock, Quality::Saved, "a wrong clock that nobody vouches for");
    assert!(off_ms(wrong.boottime_ms, wrong.wall_ms).abs_diff(3 * HOUR_MS as u64) < CLOSE_MS, "the lie does not reach the agent");
    let words = agent::text(&node.command(&["status"]).stdout);
    assert!(words.contains(" (saved: not trusted)"), "{words}");
    for beside_ms in [2 * HOUR_MS, 30 * DAY_MS, -YEARS_56_MS, HOUR_MS] {
        lie.tell(beside_ms);
        node.wait_for_pictures("card", 2);
        let quality = if beside_ms == -YEARS_56_MS { Quality::Unset } else { Quality::Saved };
        assert_eq!(node.status().clock, quality, "{beside_ms} ms beside the truth");
    }
    let rows = taken(&node);
    assert_even(&rows);
    assert_eq!(rows.len() as u64, node.taken("card"), "one was purged");
    assert!(rows.is_sorted_by_key(|row| row.id.seq), "by number, whatever the clock said");
    assert!(agent.stop().0.success());
}

#[test]
fn a_synchronised_clock_that_steps_is_followed_without_a_burst_or_a_hole() {
    let node = Node::new("clock-steps");
    if !installed(&[STRACE]) {
        return;
    }
    let Some(lie) = Lie::new(&node, 0) else { return };
    node.configure(CARD);
    let agent = node.start_under(&lie.before_agent(SYNCED));
    node.wait_for_pictures("card", 3);
    assert_eq!((node.status().clock, node.status().uncertainty_ms), (Quality::Ntp, Some(0)));
    // Not by whole periods, so that a grid by the wall clock must move.
    for beside_ms in [2 * HOUR_MS + 400, HOUR_MS] {
        lie.tell(beside_ms);
        node.wait_for_pictures("card", 3);
        let now = node.status();
        assert_eq!(now.clock, Quality::Ntp);
        assert!((now.wall_ms - now.boottime_ms as i64 - SystemClock.read().offset_ms() - beside_ms).unsigned_abs() < CLOSE_MS);
    }
    let rows = taken(&node);
    let due: Vec<u64> = rows.iter().flat_map(|row| row.slots.iter().map(|slot| slot.due_ms)).collect();
    let apart: Vec<u64> = due.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(apart.iter().filter(|ms| **ms != 1_000).count(), 2, "the grid moves once with each step: {apart:?}");
    assert!(apart.iter().all(|ms| (500..=1_500).contains(ms)), "half a period to one and a half at a change-over: {apart:?}");
    assert!(rows.is_sorted_by_key(|row| row.id.seq));
    assert!(agent.stop().0.success());
}

#[test]
fn a_machine_that_has_been_up_for_ten_days_longer_plans_and_captures_on_its_own_boot_clock() {
    let node = Node::new("clock-namespace");
    if !installed(&[UNSHARE]) {
        return;
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/proc/self/timens_offsets").exists() {
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root, on a kernel with time namespaces");
        eprintln!("\n*** SKIPPED: a time namespace can only be made as root, on Linux 5.6 or later\n");
        return;
    }
    const UP_S: u64 = 864_000;
    // Boot and monotonic clock differ, as after five days of suspend.
    let enter = format!("exec unshare -T --fork --kill-child --boottime {UP_S} --monotonic 432000 \"$@\"");
    node.configure(CARD);
    let before_ms = boottime_now_ms();
    let mut agent = node.start_under(&["sh", "-c", &enter, "sh"]);
    node.wait_for_pictures("card", 9);
    let (now, here_ms) = (node.status(), boottime_now_ms());
    let shifted = before_ms + UP_S * 1_000..=here_ms + UP_S * 1_000;
    assert!(shifted.contains(&now.boottime_ms), "up for {} ms, in {shifted:?}", now.boottime_ms);
    assert!(off_ms(now.boottime_ms - UP_S * 1_000, now.wall_ms) < CLOSE_MS, "the wall clock is the same one");
    let rows = taken(&node);
    assert_even(&rows);
    for row in &rows {
        let late_ms = row.taken.boottime_ms - row.slots[0].due_ms;
        assert!(late_ms < 900, "taken {late_ms} ms after it was due: {row:?}");
        assert!(shifted.contains(&row.taken.boottime_ms), "{row:?}");
    }
    // Unshare stays before the agent, and hears no TERM.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.child.id())).unwrap();
    assert!(Command::new("kill").args(["-TERM", children.trim()]).status().unwrap().success());
    assert!(agent.ended().success(), "{}", node.log());
}
