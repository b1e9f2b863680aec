//! The central side: takes pictures in, makes them durable, and only then says so.
//!
//! ```text
//! node ══MQTT══▶ broker ──▶ link ──▶ intake ──▶ objects (fsync) ──▶ ack
//!              (embedded              │  partials (chunks)
//!             or external)            └▶ nodes ──▶ page (HTTP)
//! ```
//! One MQTT connection serves the embedded broker and an external one alike: fewer parts to move than a second,
//! in-process way in. A fault of the disk ends the process; systemd starts it anew.
//! Commands and configuration overlays are not sent by this hub.

pub mod accounts;
mod broker;
mod fault;
mod intake;
mod link;
mod nodes;
mod objects;
mod page;
mod partials;
mod shelves;

pub use broker::TlsFiles;
pub use fault::HubError;
pub use intake::Report;
pub use link::Target;
pub use objects::StorageFault;

use crate::clock::{Clock, SystemClock};
use crate::model::{HUB_QUEUE_MAX, Quality, Session};
use crate::protocol::{AFTER_PROPERTY, HUB_TOPIC, HubPresence, Topic};
use crate::secret::Secret;
use accounts::{Accounts, HUB_USER};
use intake::{Intake, Message};
use link::presence;
use rumqttc::v5::{AsyncClient, mqttbytes::QoS, mqttbytes::v5::Publish};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

/// How often the retained presence is said anew.
const PRESENCE_PERIOD: Duration = Duration::from_secs(60);
/// How long each part of an ordered stop may take.
const STOP_MAX: Duration = Duration::from_secs(3);

pub struct HubOptions {
    pub data: PathBuf,
    /// Where the embedded broker listens, unless `broker` names another one.
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    /// An external broker instead of the embedded one.
    pub broker: Option<Target>,
    pub accounts: Option<PathBuf>,
    pub tls: Option<TlsFiles>,
    /// Flush to disk before acknowledging. False only to show that a test notices.
    pub with_fsync: bool,
    pub report: Report,
}

/// A hub at work.
pub struct Hub {
    /// Where nodes connect; `None` with an external broker.
    pub mqtt: Option<SocketAddr>,
    pub http: SocketAddr,
    worker: Session,
    intake: Intake,
    events: mpsc::Receiver<link::Event>,
    link: JoinHandle<()>,
    page: JoinHandle<()>,
    broker: Option<broker::Embedded>,
    /// Held for as long as the hub runs.
    _lock: std::fs::File,
}

impl Hub {
    /// Opens the data directory and the listeners.
    ///
    /// # Errors
    /// Says which file, directory or address cannot be used, and why.
    pub async fn start(options: HubOptions) -> Result<Self, HubError> {
        for (what, addr) in [("MQTT", options.mqtt), ("HTTP", options.http)] {
            let embedded = what == "HTTP" || options.broker.is_none();
            if embedded && !addr.ip().is_loopback() && options.accounts.is_none() {
                return Err(HubError::Exposed { what, addr });
            }
        }
        let accounts = options.accounts.as_deref().map(Accounts::read).transpose()?.map(Arc::new);
        let lock = lock(&options.data)?;
        let objects = Arc::new(objects::Objects::open(&options.data.join("objects"), options.with_fsync)?);
        let nodes = Arc::new(Mutex::new(nodes::Nodes::load(&objects).await?));
        let partials = options.data.join("partials");
        let partials = partials::Partials::open(partials.clone()).map_err(|source| StorageFault::Directory { path: partials, source })?;

        let unbound = |source| HubError::Bind { what: "HTTP", addr: options.http, source };
        let listener = TcpListener::bind(options.http).await.map_err(unbound)?;
        let http = listener.local_addr().map_err(unbound)?;
        let readers = if http.ip().is_loopback() { None } else { accounts.clone() };
        let page = tokio::spawn(page::serve(listener, page::View { nodes: nodes.clone(), objects: objects.clone(), readers }));

        let worker = Session(random());
        let (target, broker) = match options.broker {
            Some(target) => (target, None),
            None => {
                let password = format!("{:016x}{:016x}", random(), random());
                let dir = options.data.join("broker");
                let broker = broker::start(options.mqtt, &dir, accounts, Secret::new(password.clone()), options.tls.as_ref()).await?;
                let target = Target {
                    host: broker.inner_addr.ip().to_string(),
                    port: broker.inner_addr.port(),
                    user: Some((HUB_USER.into(), Secret::new(password))),
                    ca_file: None,
                    client_id: format!("{HUB_USER}-{worker}"),
                };
                (target, Some(broker))
            }
        };
        let (sender, events) = mpsc::channel(HUB_QUEUE_MAX);
        let link = tokio::spawn(link::run(target, worker, sender));
        let intake = Intake::new(objects, nodes, partials, options.report);
        Ok(Self { mqtt: broker.as_ref().map(|b| b.addr), http, worker, intake, events, link, page, broker, _lock: lock })
    }

    /// Works until `stop` ends, then says good-bye and closes everything.
    ///
    /// # Errors
    /// The disk failed: nothing was acknowledged after that.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), HubError> {
        let mut stop = std::pin::pin!(stop);
        let mut clock = tokio::time::interval(PRESENCE_PERIOD);
        let mut client: Option<AsyncClient> = None;
        let mut batch = Vec::new();
        let ended = loop {
            tokio::select! {
                () = &mut stop => break Ok(()),
                _ = clock.tick() => self.assert_presence(client.as_ref()).await,
                count = self.events.recv_many(&mut batch, HUB_QUEUE_MAX) => {
                    if count == 0 {
                        break Ok(());
                    }
                    if let Err(fault) = self.handle(std::mem::take(&mut batch), &mut client).await {
                        break Err(fault.into());
                    }
                }
            }
        };
        self.close(client).await;
        ended
    }

    async fn handle(&mut self, events: Vec<link::Event>, client: &mut Option<AsyncClient>) -> Result<(), StorageFault> {
        let (mut messages, mut done) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                link::Event::Up(new) => {
                    tracing::info!("link to the broker is up");
                    *client = Some(new);
                    self.assert_presence(client.as_ref()).await;
                }
                link::Event::Down => *client = None,
                link::Event::Message(publish, from) => {
                    if publish.topic == HUB_TOPIC {
                        self.hear_presence(&publish, client.as_ref()).await;
                    } else {
                        messages.push(message(&publish));
                    }
                    done.push((publish, from));
                }
            }
        }
        let acks = self.intake.take(messages).await?;
        for (node, mut ack) in acks {
            // As late as can be: whoever asked takes it for the time between its question and this answer.
            ack.time_ms = ack.done.and_then(|_| time_ms());
            let Ok(payload) = serde_json::to_vec(&ack) else { continue };
            if let Some(client) = client.as_ref() {
                // A lost ack does no harm: the node sends again, and is told again.
                let _ = client.publish(Topic::Ack.of(&node), QoS::AtLeastOnce, false, payload).await;
            }
        }
        // Only now may the broker send more.
        for (publish, from) in done {
            let _ = from.ack(&publish).await;
        }
        Ok(())
    }

    /// A worker that went away must not leave "offline" behind while this one works.
    async fn hear_presence(&self, publish: &Publish, client: Option<&AsyncClient>) {
        let said = serde_json::from_slice::<HubPresence>(&publish.payload);
        if said.is_ok_and(|p| p.worker != self.worker && !p.online) {
            self.assert_presence(client).await;
        }
    }

    async fn assert_presence(&self, client: Option<&AsyncClient>) {
        if let Some(client) = client {
            let _ = client.publish(HUB_TOPIC, QoS::AtLeastOnce, true, presence(self.worker, true)).await;
        }
    }

    async fn close(self, client: Option<AsyncClient>) {
        if let Some(client) = client {
            let _ = client.publish(HUB_TOPIC, QoS::AtLeastOnce, true, presence(self.worker, false)).await;
            let _ = client.disconnect().await;
            if tokio::time::timeout(STOP_MAX, self.link).await.is_err() {
                tracing::warn!("the broker did not take the good-bye within {STOP_MAX:?}");
            }
        } else {
            self.link.abort();
        }
        self.page.abort();
        if let Some(broker) = self.broker {
            broker.stop(STOP_MAX).await;
        }
    }
}

/// What the hub tells its nodes; nothing, if nobody ever set this machine's clock.
fn time_ms() -> Option<i64> {
    let now = SystemClock.read();
    (now.quality > Quality::Unset).then_some(now.wall_ms)
}

fn message(publish: &Publish) -> Message {
    let properties = publish.properties.as_ref();
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.clone(),
        correlation: properties.and_then(|p| p.correlation_data.clone()),
        after: properties.and_then(|p| {
            let after = p.user_properties.iter().find(|(name, _)| name == AFTER_PROPERTY);
            after.and_then(|(_, no)| no.parse().ok())
        }),
    }
}

/// One hub per data directory; the file says which process that is.
fn lock(data: &std::path::Path) -> Result<std::fs::File, HubError> {
    use std::io::{Read, Write};
    let wrong = |source| StorageFault::Directory { path: data.into(), source };
    std::fs::create_dir_all(data).map_err(wrong)?;
    let path = data.join("lock");
    let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(wrong)?;
    if file.try_lock().is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        let pid = pid.trim().parse::<u32>().map_or(String::new(), |pid| format!(" (process {pid})"));
        return Err(HubError::InUse { path: data.into(), pid });
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(wrong)?;
    Ok(file)
}

/// 64 bits from the kernel, which must not fail once it is up.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    while rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) != Ok(bytes.len()) {}
    u64::from_ne_bytes(bytes)
}
