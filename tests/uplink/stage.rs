//! The stage for the uplink's stories: a real broker, the real agent side, a hub that does what it is told, and bad links.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use shutterd::clock::{Clock, SystemClock};
use shutterd::config::settings::Hub;
use shutterd::model::{Hash8, NodeId, Seq, Session, Slot, StoreId};
use shutterd::protocol::{AFTER_PROPERTY, Ack, HUB_TOPIC, HubPresence, NodeState, State, Topic, VERSION};
use shutterd::status::Status;
use shutterd::store::{Configure, Place, Put, Rules, Store, Stored};
use shutterd::uplink;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

pub const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// Runs a story on a runtime like the agent's; says so aloud where there is no broker to run it against.
pub fn story<F: Future<Output = ()>>(name: &str, tell: impl FnOnce(Scratch) -> F) {
    if !Path::new(MOSQUITTO).exists() {
        assert!(std::env::var_os("CI").is_none(), "{MOSQUITTO} is needed");
        eprintln!("SKIPPED {name}: {MOSQUITTO} is not installed");
        return;
    }
    let scratch = Scratch::new(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), tell(scratch)).await.expect("the story hangs") });
}

pub struct Scratch(pub PathBuf);
impl Scratch {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("shutterd-uplink-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Broker {
    pub child: Child,
    pub port: u16,
    pub config: PathBuf,
}
impl Broker {
    pub async fn start(scratch: &Scratch, extra: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = scratch.0.join("mosquitto.conf");
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nuser root\nlog_dest none\nautosave_interval 0\n{extra}\n")).unwrap();
        let mut broker = Self { child: Self::spawn(&config), port, config };
        broker.up().await;
        broker
    }
    pub fn spawn(config: &Path) -> Child {
        Command::new(MOSQUITTO).arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
    pub async fn up(&mut self) {
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "mosquitto does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    pub async fn restart(&mut self) {
        self.child = Self::spawn(&self.config);
        self.up().await;
    }
}
impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn node() -> NodeId {
    "n1".parse().unwrap()
}

/// The agent: a real store and the real uplink.
pub struct Agent {
    pub store: Store,
    pub status: Status,
    pub stop: watch::Sender<bool>,
    pub task: tokio::task::JoinHandle<()>,
    pub _stores: watch::Sender<Option<Store>>,
}
impl Agent {
    pub fn start(scratch: &Scratch, hub: Hub) -> Self {
        Self::start_by(scratch, hub, Arc::new(SystemClock))
    }
    /// The same by another clock.
    pub fn start_by(scratch: &Scratch, hub: Hub, clock: Arc<dyn Clock>) -> Self {
        let place = Place { dir: scratch.0.join("data"), board: "board".into(), hub: true };
        let config = Configure { node: node(), hub: true, version: "0".into(), keep: Rules::default(), window_ms: 0 };
        let (store, _) = Store::open(&place, config, clock.clone(), "boot").unwrap();
        let status = Status::default();
        let (stores, store_now) = watch::channel(Some(store.clone()));
        let (stop, stopped) = watch::channel(false);
        let context = uplink::Context {
            node: node(),
            hub,
            cameras: vec!["gate".parse().unwrap()],
            schedules: vec![],
            store: store_now,
            status: status.clone(),
            clock,
            last_trusted_ms: 0,
        };
        Self { store, status, stop, task: tokio::spawn(uplink::run(context, stopped)), _stores: stores }
    }

    pub fn take_picture(&self, bytes: usize, fill: u8) -> Stored {
        let store = self.store.clone();
        let slot = Slot { schedule: "s".parse().unwrap(), boot: 1, due_ms: u64::from(fill) * 1_000 + 1, plan_ms: None };
        let jpeg = [&[0xFF, 0xD8, 0xFF, 0xDB][..], &vec![fill; bytes], &[0xFF, 0xD9]].concat();
        let put = Put {
            camera: "gate".parse().unwrap(),
            slots: vec![slot],
            jpeg,
            width: 8,
            height: 8,
            taken_ms: 1,
            source: "pattern",
            flags: vec![],
            priority: Default::default(),
            window_ms: None,
        };
        std::thread::spawn(move || store.put(put).unwrap()).join().unwrap()
    }

    pub fn pending(&self) -> usize {
        self.store.pending_after(None, 1_000).unwrap().len()
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&shutterd::status::UplinkStatus) -> bool) {
        let mut changes = self.status.changes();
        let wait = async {
            while !holds(&self.status.read().uplink) {
                changes.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(45), wait).await.is_err() {
            panic!("never {what}: {:?}", self.status.read().uplink);
        }
    }

    pub async fn until_pending(&self, count: usize) {
        let mut news = self.status.changes();
        let wait = async {
            while self.pending() != count {
                let _ = tokio::time::timeout(Duration::from_millis(200), news.changed()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(45), wait).await.unwrap_or_else(|_| panic!("{} pending", self.pending()));
    }
}

pub fn hub_at(port: u16) -> Hub {
    Hub { host: "127.0.0.1".into(), port, user: None, password: None, tls: None, keep_alive: Duration::from_secs(5) }
}

/// A hub that only does what it is told.
pub struct StubHub {
    pub client: AsyncClient,
    pub heard: mpsc::UnboundedReceiver<(Topic, Bytes)>,
    /// What the latest message said that the node has no more.
    pub after: Arc<Mutex<Option<u64>>>,
}
impl StubHub {
    pub async fn start(port: u16, present: bool) -> Self {
        let mut options = MqttOptions::new("hub", "127.0.0.1", port);
        options.set_max_packet_size(Some(4 << 20));
        let (client, mut events) = AsyncClient::new(options, 64);
        let (sender, heard) = mpsc::unbounded_channel();
        let after = Arc::new(Mutex::new(None));
        let latest = after.clone();
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Incoming::Publish(publish)) = event
                    && let Some((_, topic)) = Topic::parse(std::str::from_utf8(&publish.topic).unwrap())
                {
                    let said = publish.properties.into_iter().flat_map(|p| p.user_properties).find(|(name, _)| name == AFTER_PROPERTY);
                    if let Some((_, no)) = said {
                        *latest.lock().unwrap() = Some(no.parse().unwrap());
                    }
                    let _ = sender.send((topic, publish.payload));
                }
            }
        });
        client.subscribe("shutter/v1/n1/#", QoS::AtLeastOnce).await.unwrap();
        let hub = Self { client, heard, after };
        if present {
            hub.say_present(true).await;
        }
        hub
    }
    pub async fn say_present(&self, online: bool) {
        let presence = HubPresence { v: VERSION, online, time_ms: None, worker: Session(1) };
        self.say(HUB_TOPIC, true, &presence).await;
    }
    pub async fn say(&self, topic: &str, retain: bool, payload: &impl serde::Serialize) {
        self.client.publish(topic, QoS::AtLeastOnce, retain, serde_json::to_vec(payload).unwrap()).await.unwrap();
    }
    pub async fn ack(&self, ack: Ack) {
        self.say(&Topic::Ack.of(&node()), false, &ack).await;
    }
    pub async fn next(&mut self) -> (Topic, Bytes) {
        tokio::time::timeout(Duration::from_secs(45), self.heard.recv()).await.expect("the node is silent").unwrap()
    }
    pub async fn next_of<T>(&mut self, pick: impl Fn(&Topic, &Bytes) -> Option<T>) -> T {
        loop {
            let (topic, payload) = self.next().await;
            if let Some(found) = pick(&topic, &payload) {
                return found;
            }
        }
    }
    pub async fn state(&mut self, wanted: NodeState) -> State {
        self.next_of(|topic, payload| {
            let state = (*topic == Topic::State).then(|| serde_json::from_slice::<State>(payload).unwrap())?;
            (state.state == wanted).then_some(state)
        })
        .await
    }
}

pub fn ack(store: StoreId, have: Vec<(Seq, Hash8)>) -> Ack {
    Ack { have, ..Ack::of(store) }
}

/// Carries bytes to the broker until so many have passed, then cuts; afterwards it carries everything.
pub async fn cutting_proxy(to: u16, cut_after: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut budget = cut_after;
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
            let down = tokio::spawn(async move { tokio::io::copy(&mut far_in, &mut near_out).await });
            let mut buffer = vec![0; 4_096];
            while let Ok(n @ 1..) = near_in.read(&mut buffer).await {
                if far_out.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
                budget = budget.saturating_sub(n as u64);
                if budget == 0 {
                    budget = u64::MAX;
                    break;
                }
            }
            down.abort();
        }
    });
    port
}

/// A listener that is no broker: it answers each connection with some bytes, half a second apart, and then neither reads nor closes.
#[expect(unsafe_code, reason = "a socket option without a safe wrapper")]
pub async fn no_broker(answers: Vec<Vec<u8>>, then_close: bool) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    // Small segments keep the sender's buffer small: on loopback it would otherwise swallow megabytes, and no flush would block.
    let segment_bytes: libc::c_int = 536;
    let size = size_of_val(&segment_bytes) as libc::socklen_t;
    // SAFETY: passes a live integer and its size to a descriptor we own.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG, (&raw const segment_bytes).cast(), size) };
    assert_eq!(set, 0);
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let kept = Mutex::new(Vec::new());
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut connect = [0; 14];
            peer.read_exact(&mut connect).await.unwrap();
            for answer in &answers {
                peer.write_all(answer).await.unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            if !then_close {
                kept.lock().unwrap().push(peer);
            }
        }
    });
    port
}

/// A link of 10 Mbit/s with 50 ms each way.
pub async fn slow_link(to: u16, bytes_per_s: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(delayed(near_in, far_out, bytes_per_s));
            tokio::spawn(delayed(far_in, near_out, bytes_per_s));
        }
    });
    port
}

pub async fn delayed(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, bytes_per_s: u64) {
    const DELAY_MS: u64 = 50;
    let (sender, mut on_the_way) = mpsc::channel::<(u64, Vec<u8>)>(1_000);
    tokio::spawn(async move {
        while let Some((due_ms, bytes)) = on_the_way.recv().await {
            tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(SystemClock.boottime_ms()))).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 1_460];
    let mut free_us = 0;
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let now_us = SystemClock.boottime_ms() * 1_000;
        // A sleep is late by up to 2 ms: what was not used in the last 20 ms may be caught up with.
        free_us = free_us.max(now_us.saturating_sub(20_000)) + n as u64 * 1_000_000 / bytes_per_s;
        tokio::time::sleep(Duration::from_millis(free_us.saturating_sub(now_us) / 1_000)).await;
        if sender.send((free_us.max(now_us) / 1_000 + DELAY_MS, buffer[..n].to_vec())).await.is_err() {
            return;
        }
    }
}

/// What the same link needs for bytes without any protocol: the yardstick, as machine and timers allow it.
pub async fn bare_transfer_ms(bytes: usize, bytes_per_s: u64) -> u64 {
    let sink = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = slow_link(sink.local_addr().unwrap().port(), bytes_per_s).await;
    let source = tokio::spawn(async move { TcpStream::connect(("127.0.0.1", port)).await.unwrap().write_all(&vec![0; bytes]).await });
    let (mut peer, _) = sink.accept().await.unwrap();
    let mut first = [0; 1];
    peer.read_exact(&mut first).await.unwrap();
    let began_ms = SystemClock.boottime_ms();
    peer.read_to_end(&mut Vec::new()).await.unwrap();
    source.await.unwrap().unwrap();
    SystemClock.boottime_ms() - began_ms
}
