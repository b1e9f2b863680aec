//! A hub on free ports, a node as the wire sees it, and pictures as the agent makes them.

use rumqttc::v5::mqttbytes::{QoS, v5::Packet, v5::PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
pub use shutterd::hub::HubOptions;
use shutterd::hub::{Hub, HubError};
use shutterd::image::meta;
use shutterd::model::*;
use shutterd::protocol::*;
use std::{net::SocketAddr, path::Path, path::PathBuf, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

pub const SOON: Duration = Duration::from_secs(15);
pub const STORE: &str = "00c0ffee00c0ffee";

/// A directory that goes when the test has passed.
pub struct Dir(pub PathBuf);
impl Dir {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shutter-hub-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

pub struct Running {
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), HubError>>,
}

pub fn options(dir: &Path) -> HubOptions {
    HubOptions {
        data: dir.join("data"),
        mqtt: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        broker: None,
        accounts: None,
        tls: None,
        with_fsync: true,
        report: Box::new(|_, _, _, _| {}),
    }
}

pub async fn start(options: HubOptions) -> Running {
    let hub = Hub::start(options).await.unwrap();
    let (mqtt, http) = (hub.mqtt.unwrap(), hub.http);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(hub.run(async move { drop(stopped.await) }));
    Running { mqtt, http, stop, task }
}

impl Running {
    pub async fn stop(self) {
        drop(self.stop);
        timeout(SOON, self.task).await.unwrap().unwrap().unwrap();
    }
    pub async fn get(&self, path: &str, auth: &str) -> (String, Vec<u8>) {
        get(self.http, path, auth).await
    }
}

pub async fn get(http: SocketAddr, path: &str, auth: &str) -> (String, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(http).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n{auth}\r\n").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let cut = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&all[..cut]).into_owned(), all[cut + 4..].to_vec())
}

/// A node as the wire sees it.
pub struct Node {
    pub name: NodeId,
    pub client: AsyncClient,
    pub packets: EventLoop,
}

pub fn node_options(mqtt: SocketAddr, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, mqtt.ip().to_string(), mqtt.port());
    options.set_max_packet_size(Some(HUB_PACKET_BYTES_MAX as u32));
    options
}

impl Node {
    pub async fn connect(mqtt: SocketAddr, name: &str) -> Self {
        Self::with(node_options(mqtt, name), name).await.unwrap()
    }
    /// Connected, subscribed, and the hub said that it is there.
    pub async fn with(options: MqttOptions, name: &str) -> Result<Self, String> {
        let (client, packets) = AsyncClient::new(options, 64);
        let name: NodeId = name.parse().unwrap();
        let mut node = Self { name, client, packets };
        node.client.subscribe(Topic::Ack.of(&node.name), QoS::AtLeastOnce).await.unwrap();
        node.client.subscribe(HUB_TOPIC, QoS::AtLeastOnce).await.unwrap();
        loop {
            let (topic, payload) = node.next().await?;
            if topic == HUB_TOPIC && serde_json::from_slice::<HubPresence>(&payload).unwrap().online {
                return Ok(node);
            }
        }
    }
    pub async fn next(&mut self) -> Result<(String, Vec<u8>), String> {
        loop {
            match timeout(SOON, self.packets.poll()).await.map_err(|_| "nothing came".to_owned())? {
                Ok(Event::Incoming(Packet::Publish(p))) => return Ok((String::from_utf8(p.topic.to_vec()).unwrap(), p.payload.to_vec())),
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }
    pub async fn send(&self, topic: Topic, payload: Vec<u8>) {
        self.client.publish(topic.of(&self.name), QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    /// A message of reasons of a node that has none up to `after` any more.
    pub async fn gap(&self, gap: &Gap, after: u64) {
        let properties = PublishProperties { user_properties: vec![(AFTER_PROPERTY.into(), after.to_string())], ..Default::default() };
        self.client.publish_with_properties(Topic::Gap.of(&self.name), QoS::AtLeastOnce, false, json(gap), properties).await.unwrap();
    }
    pub async fn ack(&mut self) -> Ack {
        loop {
            let (topic, payload) = self.next().await.unwrap();
            if topic == Topic::Ack.of(&self.name) {
                return serde_json::from_slice(&payload).unwrap();
            }
        }
    }
    pub async fn chunk(&self, id: SnapshotId, hash8: Hash8, offset: usize, bytes: &[u8], crc32c: u32) {
        let properties = PublishProperties { correlation_data: Some(hash8.0.to_be_bytes().to_vec().into()), ..Default::default() };
        let topic = Topic::Chunk { id, offset: offset as u64, crc32c }.of(&self.name);
        self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, bytes.to_vec(), properties).await.unwrap();
    }
}

pub fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

pub fn id(seq: u64) -> SnapshotId {
    format!("{STORE}-{seq}").parse().unwrap()
}

/// A picture as the agent makes it; `shade` and size tell pictures apart.
pub fn picture(node: &str, seq: u64, shade: u8, width: usize) -> (Vec<u8>, Hash8) {
    let (bytes, record) = picture_by(Quality::Ntp, node, seq, shade, width);
    (bytes, record.hash8.unwrap())
}

/// The same by a clock of this quality, with its record as it stands alone.
pub fn picture_by(quality: Quality, node: &str, seq: u64, shade: u8, width: usize) -> (Vec<u8>, Record) {
    let height = width / 2;
    let mut noise = u32::from(shade) + 1;
    let pixels: Vec<u8> = (0..width * height * 3)
        .map(|i| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = i / 3 % width;
            shade.wrapping_add((x * 255 / width) as u8 / 2).wrapping_add((noise >> 27) as u8)
        })
        .collect();
    let image = turbojpeg::Image { pixels: pixels.as_slice(), width, pitch: width * 3, height, format: turbojpeg::PixelFormat::RGB };
    let jpeg = turbojpeg::compress(image, 85, turbojpeg::Subsamp::Sub2x2).unwrap();
    let record = Record {
        v: 1,
        node: node.parse().unwrap(),
        id: id(seq),
        camera: "gate".parse().unwrap(),
        slots: vec![],
        taken: Stamp { boot: 1, boottime_ms: seq * 1000, wall_ms: 1_795_000_000_000 + seq as i64, quality, uncertainty_ms: Some(3) },
        width: width as u32,
        height: height as u32,
        source: "pattern".into(),
        flags: vec![],
        mask: 0,
        config: "00000000".into(),
        sha256: String::new(),
        rev: 0,
        hash8: None,
    };
    let made = meta::compose(record, &jpeg).unwrap();
    ([&made.head[..], &jpeg[2..]].concat(), Record { hash8: Some(made.hash8), ..made.record })
}

pub fn stored(dir: &Dir, node: &str) -> Vec<String> {
    let Ok(found) = std::fs::read_dir(dir.0.join(format!("data/objects/img/{node}/{STORE}"))) else { return vec![] };
    let mut names: Vec<_> = found.map(|f| f.unwrap().file_name().into_string().unwrap()).filter(|n| n.ends_with(".jpg")).collect();
    names.sort();
    names
}
