//! The link between agent and broker: fast, or as slow as told, or cut. It reads along what the agent publishes.

use shutterd::clock::boottime_now_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// What a radio modem holds: bytes that are on their way when the link is cut are lost.
const MODEM_BYTES: libc::c_int = 16 << 10;
/// Bytes carried at once over a slow link.
const MORSEL: usize = 400;

/// One message of the agent that passed, or began to pass.
#[derive(Debug, Clone)]
pub struct Sent {
    pub connection: usize,
    pub topic: String,
    /// All of it reached the broker.
    pub complete: bool,
    /// Payload and properties.
    pub bytes: usize,
}

#[derive(Default)]
struct Inside {
    bytes_per_s: Option<u64>,
    open: Vec<TcpStream>,
    connections: usize,
    /// Bytes from the agent, ever.
    up: u64,
    sent: Vec<Sent>,
}

#[derive(Clone)]
pub struct Link {
    pub port: u16,
    inside: Arc<Mutex<Inside>>,
}

impl Link {
    pub fn to(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let buffer = MODEM_BYTES;
        #[expect(unsafe_code, reason = "a socket option that std does not offer")]
        // SAFETY: passes one int by address and length to a socket that is open; accepted ones inherit it.
        let set = unsafe {
            let len = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(listener.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const buffer).cast(), len)
        };
        assert_eq!(set, 0);
        let link = Self { port: listener.local_addr().unwrap().port(), inside: Arc::default() };
        let accepting = link.clone();
        thread::spawn(move || {
            for agent in listener.incoming().map_while(Result::ok) {
                // A dead broker: the agent finds its connection closed.
                if let Ok(broker) = TcpStream::connect(("127.0.0.1", broker)) {
                    accepting.carry(agent, broker);
                }
            }
        });
        link
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    fn carry(&self, agent: TcpStream, broker: TcpStream) {
        let number = {
            let mut inside = self.lock();
            inside.open.extend([agent.try_clone().unwrap(), broker.try_clone().unwrap()]);
            inside.connections += 1;
            inside.connections
        };
        let ways = [(agent.try_clone().unwrap(), broker.try_clone().unwrap(), true), (broker, agent, false)];
        for (mut from, mut to, up) in ways {
            let link = self.clone();
            thread::spawn(move || {
                let mut reader = Reader::default();
                let mut buffer = [0; 16 << 10];
                loop {
                    let limit = link.lock().bytes_per_s;
                    let most = if limit.is_some() { MORSEL } else { buffer.len() };
                    let Ok(len @ 1..) = from.read(&mut buffer[..most]) else { break };
                    if let Some(bytes_per_s) = limit {
                        thread::sleep(Duration::from_micros(len as u64 * 1_000_000 / bytes_per_s));
                    }
                    if to.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                    if up {
                        let mut inside = link.lock();
                        inside.up += len as u64;
                        reader.read(&buffer[..len], number, &mut inside.sent);
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            });
        }
    }

    /// Bytes a second, each way; `None`: as fast as it goes.
    pub fn limit(&self, bytes_per_s: Option<u64>) {
        self.lock().bytes_per_s = bytes_per_s;
    }
    pub fn cut(&self) {
        for stream in self.lock().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    pub fn bytes_up(&self) -> u64 {
        self.lock().up
    }
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// What passed of each chunked picture: per connection, which chunks arrived whole.
    pub fn transfers(&self) -> BTreeMap<String, Transfer> {
        let mut all: BTreeMap<String, Transfer> = BTreeMap::new();
        for sent in &self.lock().sent {
            let levels: Vec<&str> = sent.topic.split('/').collect();
            let [_, _, _, "x", id, what, ..] = levels[..] else { continue };
            let transfer = all.entry(id.to_owned()).or_default();
            transfer.bytes += sent.bytes as u64;
            if let (Ok(offset), true) = (what.parse(), sent.complete) {
                transfer.chunks.push((sent.connection, offset));
            }
        }
        all
    }
}

/// One chunked picture on the link.
#[derive(Debug, Default, Clone)]
pub struct Transfer {
    /// Connection and offset of each chunk that arrived whole, in order.
    pub chunks: Vec<(usize, u64)>,
    /// All that it cost on the link, broken pieces included.
    pub bytes: u64,
}

impl Transfer {
    /// Connections that carried a whole chunk of it.
    pub fn connections(&self) -> usize {
        self.chunks.iter().map(|(connection, _)| connection).collect::<BTreeSet<_>>().len()
    }
    /// Chunks that arrived whole more than once.
    pub fn repeated(&self) -> usize {
        self.chunks.len() - self.chunks.iter().map(|(_, offset)| offset).collect::<BTreeSet<_>>().len()
    }
}

/// Follows the packets of one MQTT connection: type, remaining length, and for a PUBLISH its topic.
#[derive(Default)]
struct Reader {
    head: Vec<u8>,
    /// Of the packet under way, after what `head` holds.
    left: usize,
    /// The message under way has an entry at this place.
    place: Option<usize>,
}

impl Reader {
    fn read(&mut self, mut bytes: &[u8], connection: usize, sent: &mut Vec<Sent>) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let len = self.left.min(bytes.len());
                self.left -= len;
                bytes = &bytes[len..];
                if let Some(place) = self.place {
                    sent[place].bytes += len;
                    sent[place].complete = self.left == 0;
                }
                continue;
            }
            self.place = None;
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            self.look(connection, sent);
        }
    }

    /// Whether the head is complete: then the rest of the packet is only counted.
    fn look(&mut self, connection: usize, sent: &mut Vec<Sent>) {
        let Some(end) = self.head.iter().skip(1).position(|b| b & 0x80 == 0).map(|at| at + 2) else { return };
        let length = self.head[1..end].iter().rev().fold(0usize, |n, b| n << 7 | usize::from(b & 0x7F));
        let body = &self.head[end..];
        if self.head[0] >> 4 == 3 {
            let Some(topic_len) = body.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len))) else { return };
            if body.len() < 2 + topic_len {
                return;
            }
            let topic = String::from_utf8_lossy(&body[2..]).into_owned();
            self.place = Some(sent.len());
            sent.push(Sent { connection, topic, complete: false, bytes: 0 });
        }
        self.left = length - body.len();
        self.head.clear();
    }
}

/// Cuts the link every so often until an instant.
pub fn cut_every(link: &Link, period_ms: u64, until_ms: u64) -> thread::JoinHandle<u32> {
    let link = link.clone();
    let first_ms = boottime_now_ms() + period_ms;
    thread::spawn(move || {
        let mut cuts = 0;
        for at_ms in (first_ms..=until_ms).step_by(period_ms as usize) {
            super::parts::wait_until(at_ms);
            link.cut();
            cuts += 1;
        }
        cuts
    })
}
