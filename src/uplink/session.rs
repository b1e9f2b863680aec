//! The life of one connection: subscribe, say who is there, then send what the outbox decides and take what the hub answers.
//!
//! One loop, no lock, nothing awaited in it but the next thing to happen. Pictures are read, and acknowledgements committed,
//! in tasks beside it, so that a slow disk does not hold up a keep-alive.
//!
//! A fault of the store stops every picture and acknowledgement at once; the connection stays, to say `fault`.

use super::context::Context;
use super::jobs::{Done, Jobs};
use super::link::{CONNECT_TIMEOUT, Granted, Heard, Link, LinkError};
use super::retold::Retold;
use super::time::Time;
use super::words::{self, Words};
use crate::config::settings::Hub;
use crate::model::{CHUNK_BYTES, Hash8, OUTBOX_CANDIDATES_MAX, Session, SnapshotId, StoreId};
use crate::outbox::{self, Asks, Candidate, Gaps, Look, Outbox, Piece, Step, Token};
use crate::protocol::{
    AFTER_PROPERTY, Ack, Ask, HUB_TOPIC, HubPresence, Init, NodeState, RETIMED_REV, SESSION_PROPERTY, State, Topic, VERSION,
};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties};
use std::collections::{BTreeMap, BTreeSet};
use std::{future, time::Duration};
use tokio::sync::watch;

/// Counters reach the status at most this often.
const COUNT_MS: u64 = 1_000;

/// What outlives a connection.
#[derive(Default)]
pub struct Memory {
    /// The store that outbox and gaps speak of.
    store: Option<StoreId>,
    outbox: Outbox,
    gaps: Gaps,
    asks: Asks,
    retold: Retold,
    /// The hub accepted something on this connection.
    pub hub_acknowledged: bool,
}

/// How a connection ends.
pub enum End<'a> {
    Stopped(Box<Life<'a>>),
    Lost(LinkError),
}

/// A packet under way.
struct Sent {
    what: &'static str,
    picture: Option<(SnapshotId, Hash8)>,
    bytes: u64,
}

/// Why the loop turns.
enum Event {
    Heard(Result<Heard, LinkError>),
    Done(Result<Done, StoreError>),
    Status,
    Store,
    News,
    Time,
    Stop,
}

pub struct Life<'a> {
    context: &'a Context,
    memory: &'a mut Memory,
    link: Link,
    granted: Granted,
    session: Session,
    store: Option<Store>,
    /// Why the store cannot be used, if it said so itself.
    fault: Option<String>,
    subscribed: bool,
    under_way: BTreeMap<Token, Sent>,
    pictures: BTreeMap<SnapshotId, Bytes>,
    jobs: Jobs,
    words: Words,
    time: Time,
    sent: u64,
    sent_bytes: u64,
    counted_ms: u64,
    /// Reasons of the broker that were logged on this connection.
    complained: BTreeSet<String>,
}

impl<'a> Life<'a> {
    pub fn new(context: &'a Context, memory: &'a mut Memory, link: Link, granted: Granted, session: Session, time: Time) -> Self {
        Self {
            context,
            memory,
            link,
            granted,
            session,
            store: None,
            fault: None,
            subscribed: false,
            under_way: BTreeMap::new(),
            pictures: BTreeMap::new(),
            jobs: Jobs::default(),
            words: Words::default(),
            time,
            sent: 0,
            sent_bytes: 0,
            counted_ms: 0,
            complained: BTreeSet::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.context.clock.boottime_ms()
    }

    /// Runs until the link is lost or a stop is ordered. `trouble` is taken when the link is up, which is logged.
    pub async fn run(mut self, shutdown: &mut watch::Receiver<bool>, trouble: &mut Option<LinkError>) -> End<'a> {
        let ended = self.turn(shutdown, trouble).await;
        let now_ms = self.now_ms();
        self.memory.outbox.disconnected(now_ms);
        self.memory.gaps.restart();
        self.memory.asks.restart();
        self.memory.retold.restart();
        self.count();
        match ended {
            Ok(()) => End::Stopped(Box::new(self)),
            Err(error) => End::Lost(error),
        }
    }

    async fn turn(&mut self, shutdown: &mut watch::Receiver<bool>, trouble: &mut Option<LinkError>) -> Result<(), LinkError> {
        let node = &self.context.node;
        self.link.subscribe([Topic::Ack.of(node), Topic::State.of(node), HUB_TOPIC.to_owned()])?;
        let mut stores = self.context.store.clone();
        let mut statuses = self.context.status.changes();
        let mut news = self.use_store(stores.borrow_and_update().clone());
        let link = outbox::Link {
            window: self.granted.window,
            payload_max: self.granted.payload_max.min(CHUNK_BYTES as u64),
            patience_ms: (self.context.hub.keep_alive.as_millis() as u64 / 4).max(1_000),
        };
        let began_ms = self.now_ms();
        let subscribe_by_ms = began_ms + CONNECT_TIMEOUT.as_millis() as u64;
        self.memory.outbox.connected(link, began_ms);
        loop {
            let wake_ms = if self.subscribed {
                self.send()?
            } else if self.now_ms() >= subscribe_by_ms {
                let Hub { host, port, .. } = &self.context.hub;
                return Err(LinkError::new("subscribe", format!("{host}:{port}: the broker does not answer to a subscription")));
            } else {
                Some(subscribe_by_ms)
            };
            let pause = wake_ms.map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
            self.context.status.uplink_waits(Some(pause.unwrap_or(CONNECT_TIMEOUT)));
            let event = tokio::select! {
                heard = self.link.heard(), if self.jobs.has_room() => Event::Heard(heard),
                done = self.jobs.next() => Event::Done(done),
                () = changed(Some(&mut statuses)) => Event::Status,
                () = changed(Some(&mut stores)) => Event::Store,
                () = changed(news.as_mut()) => Event::News,
                () = elapsed(pause) => Event::Time,
                () = stopped(shutdown) => Event::Stop,
            };
            match event {
                Event::Heard(heard) => self.hear(heard?, trouble),
                Event::Done(Ok(done)) => self.done(done),
                Event::Done(Err(error)) => self.store_failed(&error),
                Event::Status => self.words.notice_cameras(self.context),
                Event::Store => {
                    self.let_go();
                    news = self.use_store(stores.borrow_and_update().clone());
                }
                Event::News => {
                    self.forget_erased();
                    self.memory.outbox.news();
                    self.memory.gaps.news();
                    self.memory.asks.news();
                    self.memory.retold.news();
                }
                Event::Time => {}
                Event::Stop => return Ok(()),
            }
        }
    }

    /// A stop, ordered or forced by a fault: tells the hub which, waits until the broker has it, and leaves.
    pub async fn goodbye(mut self: Box<Self>) {
        let token = self.memory.outbox.small(self.now_ms());
        // What ended the agent stays on the hub's page until it is back.
        let fault = self.context.status.read().fault;
        let state = if fault.is_some() { NodeState::Fault } else { NodeState::Stopped };
        let payload = words::state(state, self.session, fault);
        let topic = Topic::State.of(&self.context.node);
        if self.link.publish(token, topic, true, payload.into(), PublishProperties::default()).is_err() {
            return;
        }
        loop {
            match self.link.heard().await {
                Ok(Heard::Delivered(delivered)) if delivered == token => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.link.close().await;
    }

    /// Takes a store into use, or none; what was known of another one is forgotten.
    fn use_store(&mut self, store: Option<Store>) -> Option<watch::Receiver<u64>> {
        let id = store.as_ref().map(Store::id);
        if id.is_some() && id != self.memory.store {
            self.memory.outbox.forget();
            self.memory.gaps = Gaps::default();
            self.memory.retold = Retold::of(store.as_ref());
            self.memory.store = id;
        }
        self.fault = None;
        self.store = store;
        self.words.say_state();
        self.words.say_info();
        self.memory.outbox.news();
        self.memory.gaps.restart();
        self.memory.asks.restart();
        self.memory.retold.restart();
        self.store.as_ref().map(Store::news)
    }

    /// The store said that it cannot be relied upon: nothing more is read from it or told to it.
    fn store_failed(&mut self, error: &StoreError) {
        tracing::error!("nothing more is sent or acknowledged: {error}");
        self.fault = Some(error.to_string());
        self.store = None;
        self.let_go();
        self.words.say_state();
        self.words.say_info();
    }

    /// Drops all work with the present store. Answers of the hub that were on their way into it come again.
    fn let_go(&mut self) {
        self.jobs = Jobs::default();
        self.memory.outbox.forget();
        self.memory.retold.restart();
        self.pictures.clear();
    }

    // ---- out ----

    /// Sends what may go now: small messages first, then reasons, then pictures. Returns when to look again.
    fn send(&mut self) -> Result<Option<u64>, LinkError> {
        let now_ms = self.now_ms();
        self.time.look(self.context, &mut self.words)?;
        self.words.repeat(self.context, now_ms);
        while self.memory.outbox.has_room()
            && let Some((what, topic, payload)) = self.words.next(self.context, self.session, self.store.as_ref(), self.fault.as_deref())
        {
            let token = self.memory.outbox.small(now_ms);
            self.publish(token, Sent { what, picture: None, bytes: 0 }, topic, true, payload.into(), PublishProperties::default())?;
        }
        let mut wake_ms = Some(self.words.repeat_ms());
        if self.memory.outbox.hub_present() && self.memory.outbox.has_room() {
            if let Some(ask) = self.time.ask(self.context, self.store.as_ref().map(Store::id), now_ms) {
                self.send_question("question of the time", ask)?;
            }
            wake_ms = wake_ms.min(Some(self.time.wake_ms(now_ms)));
        }
        if self.store.is_some() {
            match self.send_from_store(now_ms) {
                Ok(at) => {
                    wake_ms = [wake_ms, at, self.memory.gaps.wake_ms(), self.memory.asks.wake_ms()].into_iter().flatten().min();
                }
                Err(Trouble::Link(error)) => return Err(error),
                Err(Trouble::Store(error)) => {
                    self.store_failed(&error);
                    wake_ms = Some(now_ms);
                }
            }
        }
        if self.sent > 0 {
            if now_ms >= self.counted_ms + COUNT_MS {
                self.count();
            } else {
                wake_ms = wake_ms.min(Some(self.counted_ms + COUNT_MS));
            }
        }
        Ok(wake_ms)
    }

    /// Reasons, questions, records of their own, and pictures. Returns when one of the last two is to be looked at again.
    fn send_from_store(&mut self, now_ms: u64) -> Result<Option<u64>, Trouble> {
        self.send_gaps(now_ms)?;
        self.send_ask(now_ms)?;
        // Records are small and may be many, pictures large: they take turns, and a record uses what pictures leave free.
        if !self.memory.retold.turn_over() {
            self.send_retimed(now_ms)?;
        }
        let at = self.send_pictures(now_ms)?;
        // What happens to the picture in hand wakes, too.
        if self.memory.retold.turn_over() && self.memory.outbox.in_hand() {
            return Ok(at);
        }
        self.send_retimed(now_ms)?;
        let retold_ms = self.memory.retold.wake_ms().filter(|_| self.memory.outbox.hub_present());
        Ok(at.into_iter().chain(retold_ms).min())
    }

    /// Tells the hub of pictures that got their time after they were taken.
    fn send_retimed(&mut self, now_ms: u64) -> Result<(), Trouble> {
        let Some(store) = self.store.as_ref().filter(|_| self.memory.outbox.hub_present()) else { return Ok(()) };
        self.memory.retold.look(store, &mut self.jobs, now_ms)?;
        if !self.memory.outbox.has_room() {
            return Ok(());
        }
        let Some(record) = self.memory.retold.next(now_ms) else { return Ok(()) };
        let token = self.memory.outbox.small(now_ms);
        let topic = Topic::Snap(record.camera.clone()).of(&self.context.node);
        let sent = Sent { what: "record", picture: record.hash8.map(|hash8| (record.id, hash8)), bytes: 0 };
        Ok(self.publish(token, sent, topic, false, words::json(&record).into(), PublishProperties::default())?)
    }

    fn send_gaps(&mut self, now_ms: u64) -> Result<(), Trouble> {
        self.memory.gaps.tick(now_ms);
        while self.memory.outbox.hub_present()
            && self.memory.outbox.has_room()
            && let Some(after) = self.memory.gaps.wanted_after()
            && let Some(store) = &self.store
        {
            let Some((no, payload)) = store.gaps_after(after, 1)?.pop() else {
                self.memory.gaps.none_left();
                return Ok(());
            };
            self.memory.gaps.sending(no, now_ms);
            let token = self.memory.outbox.small(now_ms);
            let topic = Topic::Gap.of(&self.context.node);
            let first = store.gaps_after(0, 1)?.pop().map_or(no, |(first, _)| first);
            let mut with = PublishProperties::default();
            with.user_properties.push((AFTER_PROPERTY.to_owned(), first.saturating_sub(1).to_string()));
            self.publish(token, Sent { what: "gap", picture: None, bytes: 0 }, topic, false, payload.into(), with)?;
        }
        Ok(())
    }

    /// Asks what the hub has of the pictures that came back after a lost index.
    fn send_ask(&mut self, now_ms: u64) -> Result<(), Trouble> {
        self.memory.asks.tick(now_ms);
        if !(self.memory.asks.wanted() && self.memory.outbox.hub_present() && self.memory.outbox.has_room()) {
            return Ok(());
        }
        let Some(store) = &self.store else { return Ok(()) };
        let Some((store, from, to)) = store.to_ask()? else {
            self.memory.asks.none_left();
            return Ok(());
        };
        let ask = Ask { v: VERSION, store, from, to };
        self.memory.asks.sending(ask, now_ms);
        Ok(self.send_question("question", ask)?)
    }

    fn send_question(&mut self, what: &'static str, ask: Ask) -> Result<(), LinkError> {
        let token = self.memory.outbox.small(self.now_ms());
        let topic = Topic::Ask.of(&self.context.node);
        self.publish(token, Sent { what, picture: None, bytes: 0 }, topic, false, words::json(&ask).into(), PublishProperties::default())
    }

    fn send_pictures(&mut self, now_ms: u64) -> Result<Option<u64>, Trouble> {
        loop {
            let Some(store) = self.store.clone() else { return Ok(None) };
            if let Some(Look { after, limit }) = self.memory.outbox.wanted() {
                let page = store.pending_after(after, limit)?;
                let more = page.len() == limit;
                // A command given meanwhile comes before the place that the backlog has got to.
                let mut front = if after.is_some() { store.pending_after(None, OUTBOX_CANDIDATES_MAX)? } else { Vec::new() };
                front.retain(|(key, _)| key.0 == 0 && Some(*key) <= after);
                front.extend(page);
                let mut live = Vec::new();
                for camera in &self.context.cameras {
                    live.extend(store.newest_pending(camera)?);
                }
                let candidates = |rows: Vec<_>| -> Vec<Candidate> { rows.into_iter().map(candidate).collect() };
                self.memory.outbox.offer(&candidates(live), &candidates(front), more);
                self.forget_unneeded();
            }
            match self.memory.outbox.next(now_ms) {
                Step::Load(id) => self.jobs.read(store, id),
                Step::Send { token, id, hash8, len, piece } => {
                    self.memory.retold.picture_sent();
                    self.send_piece(token, id, hash8, len, piece)?;
                }
                Step::Wait(at) => return Ok(at),
            }
        }
    }

    fn send_piece(&mut self, token: Token, id: SnapshotId, hash8: Hash8, len: u64, piece: Piece) -> Result<(), LinkError> {
        let Some(picture) = self.pictures.get(&id).filter(|bytes| bytes.len() as u64 == len).cloned() else {
            let now_ms = self.now_ms();
            self.memory.outbox.undelivered(token, now_ms);
            return Ok(());
        };
        let mut with = PublishProperties::default();
        if matches!(piece, Piece::Whole | Piece::Init) {
            with.user_properties.push((SESSION_PROPERTY.to_owned(), self.session.to_string()));
        }
        if piece != Piece::Whole {
            with.correlation_data = Some(Bytes::copy_from_slice(&hash8.0.to_be_bytes()));
        }
        let bounds = || Bytes::from(words::json(&Init { v: VERSION, hash8, len }));
        let (what, topic, payload) = match piece {
            Piece::Whole => ("picture", Topic::Image(id), picture),
            Piece::Init => ("picture", Topic::Init(id), bounds()),
            Piece::Fin => ("picture", Topic::Fin(id), bounds()),
            Piece::Chunk { from, to } => {
                let chunk = picture.slice(from as usize..to as usize);
                ("picture", Topic::Chunk { id, offset: from, crc32c: crc32c::crc32c(&chunk) }, chunk)
            }
        };
        let bytes = payload.len() as u64;
        self.publish(token, Sent { what, picture: Some((id, hash8)), bytes }, topic.of(&self.context.node), false, payload, with)
    }

    fn publish(
        &mut self,
        token: Token,
        sent: Sent,
        topic: String,
        retain: bool,
        payload: Bytes,
        with: PublishProperties,
    ) -> Result<(), LinkError> {
        if payload.len() as u64 > self.granted.payload_max {
            // The library would end the connection over it. Only info and reasons can be this large; both come again.
            self.complain(format!("{topic} has {} bytes, more than the broker takes; raise its maximum packet size", payload.len()));
            let now_ms = self.now_ms();
            self.memory.outbox.undelivered(token, now_ms);
            return Ok(());
        }
        self.under_way.insert(token, sent);
        self.link.publish(token, topic, retain, payload, with)
    }

    fn complain(&mut self, text: String) {
        if self.complained.len() < 32 && self.complained.insert(text.clone()) {
            tracing::warn!("{text}");
        }
    }

    // ---- in ----

    fn hear(&mut self, heard: Heard, trouble: &mut Option<LinkError>) {
        let now_ms = self.now_ms();
        match heard {
            Heard::Subscribed => {
                self.subscribed = true;
                self.greet(trouble);
            }
            Heard::Delivered(token) => {
                let complete = self.memory.outbox.delivered(token, now_ms);
                let Some(sent) = self.under_way.remove(&token) else { return };
                self.sent += 1;
                self.sent_bytes += sent.bytes;
                if complete.is_some() {
                    self.forget_unneeded();
                }
                self.acknowledge_falsely(&sent, complete.is_some());
            }
            Heard::Refused { token, reason } => {
                self.memory.outbox.undelivered(token, now_ms);
                let what = self.under_way.remove(&token).map_or("message", |sent| sent.what);
                self.forget_unneeded();
                let advice = match reason {
                    PubAckReason::NotAuthorized => "allow this node's user to write below its own root",
                    PubAckReason::QuotaExceeded => "the broker's quota is used up; raise it, or let the hub catch up",
                    _ => "see the broker's log",
                };
                self.complain(format!("the broker refuses a {what} ({reason:?}); it is tried again later: {advice}"));
            }
            Heard::Message { topic, payload, retained } => self.receive(&topic, &payload, retained),
        }
    }

    fn greet(&mut self, trouble: &mut Option<LinkError>) {
        match trouble.take() {
            None => tracing::info!(session = %self.session, "linked to {}:{}", self.context.hub.host, self.context.hub.port),
            Some(_) => tracing::info!(session = %self.session, "linked to {}:{} again", self.context.hub.host, self.context.hub.port),
        }
        let session = self.session;
        self.context.status.edit(|now| {
            now.uplink.state = "waiting".into();
            now.uplink.session = Some(session);
            now.uplink.error = None;
            now.uplink.connects += 1;
        });
    }

    fn receive(&mut self, topic: &str, payload: &[u8], retained: bool) {
        if topic == HUB_TOPIC {
            // A cleared topic is an absent hub.
            let presence = serde_json::from_slice::<HubPresence>(payload).ok();
            let online = presence.is_some_and(|presence| presence.online);
            let now_ms = self.now_ms();
            Time::believe_falsely(self.context, presence.and_then(|presence| presence.time_ms), now_ms);
            self.memory.outbox.hub(online, now_ms);
            self.forget_unneeded();
            self.context.status.edit(|now| now.uplink.state = if online { "online" } else { "waiting" }.into());
        } else if topic == Topic::Ack.of(&self.context.node) {
            match serde_json::from_slice::<Ack>(payload) {
                Ok(ack) if ack.v == VERSION => self.take_ack(ack),
                Ok(ack) => {
                    self.complain(format!("the hub sends acks of version {}, this agent knows {VERSION}; update one of them", ack.v))
                }
                Err(error) => self.complain(format!("an ack of the hub cannot be read: {error}")),
            }
        } else if topic == Topic::State.of(&self.context.node)
            && let Ok(state) = serde_json::from_slice::<State>(payload)
        {
            self.see_state(&state, retained);
        }
    }

    /// Our own topic, seen from outside. A retained message may be of our own earlier life; a fresh one of another session is
    /// the will of such a life (then ours is said again over it), or a second board with our name.
    fn see_state(&mut self, state: &State, retained: bool) {
        if retained || state.session == self.session {
            return;
        }
        if state.state != NodeState::Online {
            self.words.say_state();
            return;
        }
        if !self.context.status.read().uplink.clone_seen {
            tracing::error!(
                "another agent calls itself {} too: a copied card? give each board its own node id; nothing is lost, both send their pictures",
                self.context.node
            );
            self.context.status.edit(|now| now.uplink.clone_seen = true);
            self.words.say_info();
        }
    }

    fn take_ack(&mut self, ack: Ack) {
        let now_ms = self.now_ms();
        self.time.answered(self.context, &ack, now_ms);
        let Some(store) = self.store.clone() else { return };
        for (seq, hash8) in &ack.have {
            self.memory.outbox.have(SnapshotId { store: ack.store, seq: *seq }, *hash8, now_ms);
        }
        for (id, part) in &ack.part {
            self.memory.outbox.part(*id, part.hash8, &part.ranges, now_ms);
        }
        for refused in &ack.refused {
            self.memory.outbox.refused(refused.id, refused.hash8, now_ms);
            tracing::warn!("the hub does not take {}: {}; it is offered again in an hour", refused.id, refused.reason);
        }
        if let Some(rate) = ack.rate {
            self.memory.outbox.rate(rate);
        }
        self.forget_unneeded();
        self.memory.retold.confirmed(&store, ack.store, &ack.revs, now_ms);
        let gaps = if ack.store == store.id() { self.memory.gaps.confirmed(ack.gaps, now_ms) } else { 0 };
        if !ack.refused.is_empty() {
            let refused = ack.refused.len() as u64;
            self.context.status.edit(|now| now.uplink.refused += refused);
        }
        if !ack.have.is_empty() || gaps > 0 {
            self.jobs.acknowledge(store.clone(), ack.store, ack.have, gaps);
        }
        if !ack.want.is_empty() {
            self.jobs.want_again(store.clone(), ack.want);
        }
        // The acks before this one have named all the hub has: they are on their way into the store, in front of this.
        if let Some(done) = ack.done.filter(|done| self.memory.asks.answered(done)) {
            self.jobs.answered(store, done);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Read(id, picture) => {
                self.memory.outbox.loaded(id, picture.as_ref().map(|bytes| bytes.len() as u64));
                if let Some(bytes) = picture.filter(|_| self.memory.outbox.holds(&id)) {
                    self.pictures.insert(id, bytes.into());
                }
            }
            Done::Acknowledged { accepted, ignored } => {
                self.memory.hub_acknowledged |= accepted > 0;
                self.memory.outbox.news();
                self.context.status.edit(|now| {
                    now.uplink.acknowledged += accepted;
                    now.uplink.acks_ignored += ignored;
                });
            }
            Done::WantedAgain(oldest) => {
                self.memory.outbox.news();
                if let Some(oldest) = oldest {
                    self.memory.retold.go_back(oldest);
                }
            }
            Done::Record(key, record) => self.memory.retold.read(key, record),
            Done::Answered => self.memory.asks.settled(),
        }
    }

    /// What the store has no more is not sent on from memory: somebody may have wanted it gone.
    fn forget_erased(&mut self) {
        if let Some(store) = &self.store {
            self.pictures.retain(|id, _| !matches!(store.snap(*id), Ok(None)));
        }
    }

    fn forget_unneeded(&mut self) {
        self.pictures.retain(|id, _| self.memory.outbox.holds(id));
    }

    fn count(&mut self) {
        self.counted_ms = self.now_ms();
        let (sent, bytes) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.sent_bytes));
        self.context.status.edit(|now| {
            now.uplink.sent += sent;
            now.uplink.sent_bytes += bytes;
        });
    }

    /// The breaking switch `ack_from_puback`: takes the broker's word for the hub's, as a careless agent would.
    fn acknowledge_falsely(&mut self, sent: &Sent, complete: bool) {
        let broken = cfg!(feature = "break") && std::env::var_os("SHUTTER_BREAK").is_some_and(|switch| switch == "ack_from_puback");
        let (true, Some((id, hash8)), Some(store)) = (broken, sent.picture, self.store.clone()) else { return };
        if complete {
            self.jobs.acknowledge(store, id.store, vec![(id.seq, hash8)], 0);
        } else if sent.what == "record" {
            let now_ms = self.now_ms();
            self.memory.retold.confirmed(&store, id.store, &[(id.seq, RETIMED_REV)], now_ms);
        }
    }
}

/// What can go wrong while sending.
enum Trouble {
    Link(LinkError),
    Store(StoreError),
}
impl From<LinkError> for Trouble {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}
impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn candidate((key, pending): (crate::store::PendingKey, crate::store::Pending)) -> Candidate {
    Candidate { key, id: pending.id, bytes: pending.bytes, hash8: pending.hash8 }
}

/// Waits for a change; for ever, if nobody is left who could make one.
async fn changed<T>(watched: Option<&mut watch::Receiver<T>>) {
    if let Some(watched) = watched
        && watched.changed().await.is_ok()
    {
        return;
    }
    future::pending().await
}

/// Waits for the order to stop; an agent that is gone orders it too.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn elapsed(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => future::pending().await,
    }
}
