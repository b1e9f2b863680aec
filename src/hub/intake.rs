//! What the hub does with each message of a node: make durable first, then say so.
//!
//! Messages are taken in batches of whatever has queued up. The pictures of a batch are written together; an ack names
//! only what has been flushed by then. A fault of the disk ends the hub: nothing is acknowledged after it.

use crate::clock::{Clock, SystemClock};
use crate::hub::nodes::{Alarm, Latest, Nodes, Seen, StateNews};
use crate::hub::objects::{Objects, Put, StorageFault};
use crate::hub::partials::{Key, Partials};
use crate::hub::shelves::{Shelves, picture_key};
use crate::image::meta;
use crate::model::{ACK_HAVE_MAX, CameraId, Hash8, NodeId, Seq, SnapshotId, StoreId};
use crate::protocol::{Ack, Ask, CameraState, Gap, Info, Init, Part, Record, Refused, State, Topic, VERSION};
use axum::body::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::task::JoinSet;

/// A message of a node, as the link brought it.
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    /// Which picture a chunk belongs to: its hash.
    pub correlation: Option<Bytes>,
    /// With a gap message: the node has none up to this number any more.
    pub after: Option<u64>,
}

/// Told of every picture that has become durable: node, camera, id, bytes.
pub type Report = Box<dyn Fn(&NodeId, &CameraId, SnapshotId, u64) + Send + Sync>;

pub struct Intake {
    objects: Arc<Objects>,
    nodes: Arc<Mutex<Nodes>>,
    shelves: Shelves,
    partials: Partials,
    report: Report,
}

/// A picture on its way to the disk.
struct Arrived {
    key: Key,
    bytes: Bytes,
    /// It came in chunks that an earlier run of the hub had partly received.
    resumed: bool,
    chunked: bool,
}

enum Judged {
    Stored { record: Box<Record>, put: Put },
    Refused(String),
}

/// Acks being gathered, per node and store.
#[derive(Default)]
struct Replies {
    open: BTreeMap<(NodeId, StoreId), Ack>,
    full: Vec<(NodeId, Ack)>,
}

impl Replies {
    fn to(&mut self, node: &NodeId, store: StoreId) -> &mut Ack {
        self.open.entry((node.clone(), store)).or_insert_with(|| Ack::of(store))
    }
    fn have(&mut self, node: &NodeId, store: StoreId, seq: Seq, hash8: Hash8) {
        let ack = self.to(node, store);
        ack.have.push((seq, hash8));
        if ack.have.len() >= ACK_HAVE_MAX {
            self.close(node, store);
        }
    }
    fn rev(&mut self, node: &NodeId, store: StoreId, seq: Seq, rev: u32) {
        let ack = self.to(node, store);
        ack.revs.push((seq, rev));
        if ack.revs.len() >= ACK_HAVE_MAX {
            self.close(node, store);
        }
    }
    fn close(&mut self, node: &NodeId, store: StoreId) {
        if let Some(ack) = self.open.remove(&(node.clone(), store)) {
            self.full.push((node.clone(), ack));
        }
    }
    fn refuse(&mut self, key: &Key, reason: String) {
        tracing::warn!(node = %key.node, id = %key.id, "refused a picture: {reason}");
        self.to(&key.node, key.id.store).refused.push(Refused { id: key.id, hash8: key.hash8, reason });
    }
}

impl Intake {
    pub fn new(objects: Arc<Objects>, nodes: Arc<Mutex<Nodes>>, partials: Partials, report: Report) -> Self {
        Self { objects, nodes, shelves: Shelves::default(), partials, report }
    }

    /// Takes in a batch. Everything the returned acks claim is durable.
    pub async fn take(&mut self, batch: Vec<Message>) -> Result<Vec<(NodeId, Ack)>, StorageFault> {
        let mut replies = Replies::default();
        let mut arrived = Vec::new();
        for message in batch {
            let Some((node, topic)) = Topic::parse(&message.topic) else { continue };
            match topic {
                Topic::Image(id) => {
                    arrived.push(Arrived {
                        key: Key { node, id, hash8: Hash8(0) },
                        bytes: message.payload,
                        resumed: false,
                        chunked: false,
                    });
                }
                Topic::Init(id) => self.init(node, id, &message.payload, &mut replies).await?,
                Topic::Chunk { id, offset, crc32c } => self.chunk(node, id, offset, crc32c, &message),
                Topic::Fin(id) => arrived.extend(self.fin(node, id, &message.payload, &mut replies).await?),
                Topic::Gap => self.gap(&node, &message, &mut replies).await?,
                Topic::Ask => self.ask(&node, &message.payload, &mut replies).await?,
                Topic::State => self.state(&node, &message.payload).await?,
                Topic::Info => self.info(&node, &message.payload).await?,
                Topic::Camera(camera) => self.camera(&node, camera, &message.payload).await?,
                Topic::Snap(camera) => self.snap(&node, &camera, &message.payload, &mut replies).await?,
                // The hub's own voice, and answers to commands, which go to whoever gave them.
                Topic::Ack | Topic::Cmd | Topic::Res => {}
            }
        }
        self.store(arrived, &mut replies).await?;
        let mut acks = replies.full;
        acks.extend(replies.open.into_iter().map(|((node, _), ack)| (node, ack)));
        for (node, ack) in &mut acks {
            ack.gaps = self.shelves.of(&self.objects, node, ack.store).await?.gaps();
        }
        Ok(acks)
    }

    async fn store(&mut self, arrived: Vec<Arrived>, replies: &mut Replies) -> Result<(), StorageFault> {
        let mut writing = JoinSet::new();
        for picture in arrived {
            let objects = self.objects.clone();
            writing.spawn(async move {
                let (picture, judged) = judge(picture).await;
                match judged {
                    Ok((record, hash8)) => keep(&objects, picture, record, hash8).await,
                    Err(reason) => Ok((picture, Judged::Refused(reason))),
                }
            });
        }
        let mut newest = BTreeSet::new();
        while let Some(done) = writing.join_next().await {
            let (picture, judged) = match done {
                Ok(done) => done?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            let key = &picture.key;
            match judged {
                Judged::Refused(_) if picture.resumed => {
                    // Bytes on record from before a power cut may be gone: all of it, please.
                    self.partials.forget(key);
                    self.tell_part(key, Vec::new(), replies);
                }
                Judged::Refused(reason) => {
                    if picture.chunked {
                        self.partials.forget(key);
                    }
                    replies.refuse(key, reason);
                }
                Judged::Stored { record, put } => {
                    if picture.chunked {
                        self.partials.forget(key);
                    }
                    let bytes = picture.bytes.len() as u64;
                    if put == Put::New {
                        (self.report)(&key.node, &record.camera, key.id, bytes);
                    }
                    let shelf = self.shelves.of(&self.objects, &key.node, key.id.store).await?;
                    let twins = shelf.hashes_of(key.id.seq).any(|h| h != key.hash8);
                    shelf.have.insert((key.id.seq, key.hash8));
                    replies.have(&key.node, key.id.store, key.id.seq, key.hash8);
                    if twins && put == Put::New {
                        let text = format!("two different pictures under the id {}; both are kept. Was a card or board cloned?", key.id);
                        self.alarm(&key.node, "two-pictures", text).await?;
                    }
                    if record.node != key.node {
                        self.renamed(&key.node, &record.node).await?;
                    }
                    let latest = Latest { id: key.id, hash8: key.hash8, taken: record.taken, received_ms: now_ms(), bytes };
                    if self.nodes().entry(&key.node).is_some_and(|n| n.hear_picture(&record.camera, latest)) {
                        newest.insert((key.node.clone(), record.camera.clone()));
                    }
                }
            }
        }
        for (node, camera) in newest {
            let latest = self.nodes().0.get(&node).and_then(|n| n.latest.get(&camera).cloned());
            self.objects.put(&format!("node/{node}/latest/{camera}.json"), json(&latest)).await?;
        }
        Ok(())
    }

    async fn init(&mut self, node: NodeId, id: SnapshotId, payload: &[u8], replies: &mut Replies) -> Result<(), StorageFault> {
        let Some(init) = parse::<Init>(&node, payload) else { return Ok(()) };
        let key = Key { node, id, hash8: init.hash8 };
        if self.already_here(&key, replies).await? {
            return Ok(());
        }
        match self.partials.init(&key, init.len) {
            Ok(Some(ranges)) => self.tell_part(&key, ranges, replies),
            Ok(None) => replies.refuse(&key, format!("{} bytes are no size of a picture", init.len)),
            Err(e) => self.drop_partial(&key, &e),
        }
        Ok(())
    }

    fn chunk(&mut self, node: NodeId, id: SnapshotId, offset: u64, crc32c: u32, message: &Message) {
        let named = message.correlation.as_deref().and_then(|b| Some(Hash8(u64::from_be_bytes(b.try_into().ok()?))));
        let Some(hash8) = named.or_else(|| self.partials.latest(&node, id)) else { return };
        let key = Key { node, id, hash8 };
        match self.partials.chunk(&key, offset, crc32c, &message.payload) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(node = %key.node, %id, offset, "ignored a chunk: damaged, or of no transfer"),
            Err(e) => self.drop_partial(&key, &e),
        }
    }

    async fn fin(&mut self, node: NodeId, id: SnapshotId, payload: &[u8], replies: &mut Replies) -> Result<Option<Arrived>, StorageFault> {
        let Some(init) = parse::<Init>(&node, payload) else { return Ok(None) };
        let key = Key { node, id, hash8: init.hash8 };
        if self.already_here(&key, replies).await? {
            return Ok(None);
        }
        match self.partials.complete(&key) {
            Ok(Some(whole)) => return Ok(Some(Arrived { key, bytes: whole.bytes.into(), resumed: whole.resumed, chunked: true })),
            Ok(None) => self.tell_part(&key, self.partials.ranges(&key), replies),
            Err(e) => self.drop_partial(&key, &e),
        }
        Ok(None)
    }

    /// Acknowledges a picture that needs no transfer, because it is durable already.
    async fn already_here(&mut self, key: &Key, replies: &mut Replies) -> Result<bool, StorageFault> {
        let here = self.shelves.of(&self.objects, &key.node, key.id.store).await?.have.contains(&(key.id.seq, key.hash8));
        if here {
            self.partials.forget(key);
            replies.have(&key.node, key.id.store, key.id.seq, key.hash8);
        }
        Ok(here)
    }

    fn tell_part(&self, key: &Key, ranges: Vec<(u64, u64)>, replies: &mut Replies) {
        let part = Part { hash8: key.hash8, ranges };
        if replies.to(&key.node, key.id.store).part.insert(key.id, part).is_some_and(|former| former.hash8 != key.hash8) {
            tracing::warn!(node = %key.node, id = %key.id, "two transfers under one id; the later one was answered");
        }
    }

    /// A partial transfer may be lost: the node begins again.
    fn drop_partial(&mut self, key: &Key, error: &io::Error) {
        tracing::error!(node = %key.node, id = %key.id, "cannot keep a partial transfer: {error}");
        self.partials.forget(key);
    }

    async fn gap(&mut self, node: &NodeId, message: &Message, replies: &mut Replies) -> Result<(), StorageFault> {
        let payload = &message.payload;
        let Some(gap) = parse::<Gap>(node, payload) else { return Ok(()) };
        let key = format!("gap/{node}/{}/{}.json", gap.store, gap.no);
        let shelf = self.shelves.of(&self.objects, node, gap.store).await?;
        let mut put = self.objects.put_new(&key, payload.clone()).await?;
        // Its node deletes what is acknowledged: another message of the same number must not be lost over the first one.
        let twin = put == Put::Present && self.objects.get(&key).await?.is_none_or(|kept| kept != *payload);
        if twin {
            let key = format!("gap/{node}/{}/{}-{:08x}.json", gap.store, gap.no, crc32c::crc32c(payload));
            put = self.objects.put_new(&key, payload.clone()).await?;
        }
        // Nothing at or above its own number can be gone.
        if let Some(after) = message.after.filter(|after| *after < gap.no) {
            shelf.start_gaps_after(after);
        }
        shelf.add_gap(gap.no);
        replies.to(node, gap.store);
        if twin && put == Put::New {
            let text = format!(
                "two different messages of reasons under one number of store {}; both are kept. Was a card or board cloned?",
                gap.store
            );
            self.alarm(node, "two-reasons", text).await?;
        }
        if put == Put::New
            && let Some(known) = self.nodes().entry(node)
        {
            known.gap_messages += 1;
        }
        Ok(())
    }

    async fn ask(&mut self, node: &NodeId, payload: &[u8], replies: &mut Replies) -> Result<(), StorageFault> {
        let Some(ask) = parse::<Ask>(node, payload) else { return Ok(()) };
        let shelf = self.shelves.of(&self.objects, node, ask.store).await?;
        if ask.from <= ask.to {
            for &(seq, hash8) in shelf.have.range((ask.from, Hash8(0))..=(ask.to, Hash8(u64::MAX))) {
                replies.have(node, ask.store, seq, hash8);
            }
        }
        replies.to(node, ask.store).done = Some(ask);
        // Whatever follows must not come before it.
        replies.close(node, ask.store);
        Ok(())
    }

    async fn state(&mut self, node: &NodeId, payload: &[u8]) -> Result<(), StorageFault> {
        let Some(state) = parse::<State>(node, payload) else { return Ok(()) };
        let (news, seen) = match self.nodes().entry(node) {
            Some(known) => (known.hear_state(state, now_ms()), known.state.clone()),
            None => return Ok(()),
        };
        let alarm = match news {
            StateNews::Known | StateNews::Foreign => return Ok(()),
            StateNews::Changed => None,
            StateNews::Flapping => {
                Some("it connects anew every few seconds: two agents of this name push each other out, or the link is very bad")
            }
        };
        self.objects.put(&format!("node/{node}/state.json"), json(&seen)).await?;
        if let Some(text) = alarm {
            self.alarm(node, "clone", text.into()).await?;
        }
        Ok(())
    }

    async fn info(&mut self, node: &NodeId, payload: &[u8]) -> Result<(), StorageFault> {
        let Some(said) = parse::<Info>(node, payload) else { return Ok(()) };
        let seen = Seen { since_ms: now_ms(), said };
        let clone = match self.nodes().entry(node) {
            // A retained message that is read again brings nothing new.
            Some(known) if known.info.as_ref().is_some_and(|i| i.said == seen.said) => return Ok(()),
            Some(known) => known.hear_info(seen.clone()),
            None => return Ok(()),
        };
        self.objects.put(&format!("node/{node}/info.json"), json(&seen)).await?;
        if clone {
            let text = "two agents use this node's name at the same time; was a card or board cloned?";
            self.alarm(node, "clone", text.into()).await?;
        }
        Ok(())
    }

    async fn camera(&mut self, node: &NodeId, camera: CameraId, payload: &[u8]) -> Result<(), StorageFault> {
        let Some(said) = parse::<CameraState>(node, payload) else { return Ok(()) };
        let seen = match self.nodes().entry(node) {
            Some(known) => match known.cameras.get(&camera) {
                Some(former) if former.said == said => return Ok(()),
                former => {
                    let since_ms = former.filter(|f| f.said.state == said.state).map_or(now_ms(), |f| f.since_ms);
                    let seen = Seen { since_ms, said };
                    known.cameras.insert(camera.clone(), seen.clone());
                    seen
                }
            },
            None => return Ok(()),
        };
        self.objects.put(&format!("node/{node}/cam/{camera}.json"), json(&seen)).await
    }

    /// A record alone: the clock was put right after its picture was taken. The picture may be still to come; then the record lies where
    /// it will stand beside it, and nothing else speaks of it.
    async fn snap(&mut self, node: &NodeId, camera: &CameraId, payload: &[u8], replies: &mut Replies) -> Result<(), StorageFault> {
        let Some(record) = parse::<Record>(node, payload) else { return Ok(()) };
        // As with pictures, the node may have had another name.
        if record.camera != *camera {
            tracing::warn!(%node, "ignored a record that names another camera");
            return Ok(());
        }
        let hashes: Vec<Hash8> = match record.hash8 {
            Some(hash8) => vec![hash8],
            // Of two pictures under one number, the one it speaks of.
            None => self.shelves.of(&self.objects, node, record.id.store).await?.hashes_of(record.id.seq).collect(),
        };
        for hash8 in hashes {
            let key = format!("{}.json", picture_key(node, record.id, hash8));
            // What is there already is flushed by this: its writer may have died before that.
            if self.objects.put_new(&key, json(&record)).await? == Put::Present {
                let known = self.objects.get(&key).await?.and_then(|b| serde_json::from_slice::<Record>(&b).ok());
                match known {
                    Some(known) if known.sha256 != record.sha256 => continue,
                    Some(known) if known.rev >= record.rev => {
                        replies.rev(node, record.id.store, record.id.seq, known.rev);
                        continue;
                    }
                    _ => self.objects.put(&key, json(&record)).await?,
                }
            }
            replies.rev(node, record.id.store, record.id.seq, record.rev);
            let retimed = self.nodes().0.get_mut(node).and_then(|n| n.latest.get_mut(camera)).and_then(|latest| {
                let same = latest.id == record.id && latest.hash8 == hash8;
                same.then(|| {
                    latest.taken = record.taken;
                    latest.clone()
                })
            });
            if let Some(latest) = retimed {
                self.objects.put(&format!("node/{node}/latest/{camera}.json"), json(&latest)).await?;
            }
        }
        Ok(())
    }

    /// A node sends what it took under another name: kept, and said once for ever, or a page of alarms would come of it.
    async fn renamed(&mut self, node: &NodeId, former: &NodeId) -> Result<(), StorageFault> {
        let told = format!("node/{node}/renamed/{former}.json");
        if self.objects.get(&told).await?.is_none() {
            let text = format!("it sends pictures that were taken as node {former}; they are kept with this node. Was it renamed?");
            self.alarm(node, "renamed", text).await?;
            self.objects.put(&told, json(&former)).await?;
        }
        Ok(())
    }

    async fn alarm(&mut self, node: &NodeId, kind: &str, text: String) -> Result<(), StorageFault> {
        let mut at_ms = now_ms();
        // The instant is the object's name: one that comes within the same millisecond must not replace the other.
        while self.nodes().0.get(node).is_some_and(|n| n.alarms.iter().any(|a| a.at_ms == at_ms)) {
            at_ms += 1;
        }
        let alarm = Alarm { at_ms, kind: kind.into(), text };
        if !self.nodes().entry(node).is_some_and(|n| n.hear_alarm(&alarm)) {
            return Ok(());
        }
        tracing::warn!(%node, kind, "ALARM: {}", alarm.text);
        self.objects.put(&format!("alarm/{node}/{}-{kind}.json", alarm.at_ms), json(&alarm)).await
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Checks that the bytes are a whole picture, under the id it was sent by. The node it was taken as may have had another name.
async fn judge(picture: Arrived) -> (Arrived, Result<(Box<Record>, Hash8), String>) {
    // Hashing 32 MiB would hold up everybody else.
    let bytes = picture.bytes.clone();
    let read = match tokio::task::spawn_blocking(move || meta::read(&bytes)).await {
        Ok(read) => read,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let key = &picture.key;
    let judged = match read {
        Err(e) => Err(e.to_string()),
        Ok(meta) if meta.record.id != key.id => Err(format!("it says that it is {}", meta.record.id)),
        Ok(meta) if picture.chunked && meta.hash8 != key.hash8 => Err(format!("its hash is {}, not what was announced", meta.hash8)),
        Ok(meta) => Ok((Box::new(meta.record), meta.hash8)),
    };
    (picture, judged)
}

async fn keep(objects: &Objects, mut picture: Arrived, record: Box<Record>, hash8: Hash8) -> Result<(Arrived, Judged), StorageFault> {
    picture.key.hash8 = hash8;
    let key = picture_key(&picture.key.node, picture.key.id, hash8);
    let name = format!("{key}.jpg");
    let put = objects.put_new(&name, picture.bytes.clone()).await?;
    // The key names the content: other bytes under it mean that the disk has damaged them since.
    if put == Put::Present && objects.get(&name).await?.is_none_or(|kept| kept != picture.bytes) {
        tracing::warn!(key = name, "found damaged on disk; replaced by the copy that came again");
        objects.put(&name, picture.bytes.clone()).await?;
    }
    let beside = format!("{key}.json");
    if objects.put_new(&beside, json(&record)).await? == Put::New {
        return Ok((picture, Judged::Stored { record, put }));
    }
    // One with a higher revision may be there already. One of another picture cannot be meant.
    let known = objects.get(&beside).await?.and_then(|b| serde_json::from_slice::<Record>(&b).ok());
    let known = known.filter(|known| (known.id, &known.camera, &known.sha256) == (record.id, &record.camera, &record.sha256));
    if known.is_none() {
        objects.put(&beside, json(&record)).await?;
    }
    Ok((picture, Judged::Stored { record: known.map_or(record, Box::new), put }))
}

fn parse<T: DeserializeOwned>(node: &NodeId, payload: &[u8]) -> Option<T> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let told = |what: String| tracing::warn!(%node, "ignored a message: {what}");
    match serde_json::from_slice::<Version>(payload) {
        Ok(Version { v: VERSION }) => {}
        Ok(Version { v }) => {
            told(format!("version {v} of the contract, this hub speaks {VERSION}"));
            return None;
        }
        Err(e) => {
            told(e.to_string());
            return None;
        }
    }
    serde_json::from_slice(payload).map_err(|e| told(e.to_string())).ok()
}

/// Our own types always have a JSON form.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

pub fn now_ms() -> i64 {
    SystemClock.read().wall_ms
}
