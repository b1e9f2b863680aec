//! What to send next: a pure decision machine. It reads no clock, no file and no socket; the uplink performs its steps.
//!
//! Promises, each with a test:
//! - A picture leaves the machine only by an acknowledgement of the hub with its own id *and* hash. A PUBACK is the broker's
//!   word for one packet: it frees a place of the window, never a picture. Without an acknowledgement a picture is sent
//!   again after 30 s, doubling up to 10 min; one the hub refuses comes again after an hour.
//! - Two lanes share the bytes 1:1 while both have work: *live* (the newest picture of each camera) and *backlog* (commands
//!   first, then oldest first). Neither starves the other.
//! - Everything is bounded: candidates, packets under way, transfers open, bytes in memory.
//! - The window shrinks while the broker's answers are slow: a slow link would otherwise hold so many bytes that a keep-alive
//!   does not come through in time, and the connection would be cut again and again.
//! - While the hub is away one picture per 5 minutes goes out regardless, so that a lost presence message cannot stop the
//!   uploads for ever.

mod asks;
mod gaps;
mod retimes;
mod transfer;

#[cfg(test)]
mod tests;

pub use asks::Asks;
pub use gaps::Gaps;
pub use retimes::{Remember, Retimes};
pub use transfer::Piece;

use crate::model::{CAMERAS_MAX, Hash8, OUTBOX_ASIDE_MAX, OUTBOX_CANDIDATES_MAX, SnapshotId, TRANSFER_BYTES_MAX, TRANSFERS_OPEN_MAX};
use std::collections::BTreeMap;
use transfer::Transfer;

/// First wait for the hub's acknowledgement, and the longest.
pub const RESEND_MS: u64 = 30_000;
pub const RESEND_MAX_MS: u64 = 600_000;
/// A picture the hub refused is offered again after this time: the cause may be repaired, and nothing is lost silently.
pub const REFUSED_RETRY_MS: u64 = 3_600_000;
/// While the hub is away, one picture goes out this often.
pub const TRICKLE_MS: u64 = 300_000;
/// How long an acknowledged picture may still be listed by the store before it is offered again (acks are committed late).
const SETTLE_MS: u64 = 60_000;
/// Packets under way at first; each quick answer adds one.
const WINDOW_START: u16 = 2;

/// An unacknowledged picture of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Place in the backlog's order: class (0 is on command), then order of capture.
    pub key: (u8, u32, u64),
    pub id: SnapshotId,
    pub bytes: u64,
    pub hash8: Hash8,
}

/// What is to be looked up in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The backlog's front begins behind this place, because everything up to it is set aside; commands up to it are looked at
    /// all the same.
    pub after: Option<(u8, u32, u64)>,
    pub limit: usize,
}

/// What the connection allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Publishes under way at most.
    pub window: u16,
    /// Largest payload of one packet; a larger picture goes in chunks of this size.
    pub payload_max: u64,
    /// A broker's answer that takes longer means that too much is under way.
    pub patience_ms: u64,
}

/// Names one packet under way.
pub type Token = u64;

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read this picture and answer with [`Outbox::loaded`].
    Load(SnapshotId),
    Send {
        token: Token,
        id: SnapshotId,
        hash8: Hash8,
        len: u64,
        piece: Piece,
    },
    /// Nothing before this instant, unless something happens.
    Wait(Option<u64>),
}

#[derive(Debug)]
enum Stage {
    Queued {
        not_before_ms: u64,
    },
    Loading,
    Open(Transfer),
    /// The broker has all of it; the hub has not answered.
    Awaiting {
        until_ms: u64,
    },
    Refused {
        until_ms: u64,
    },
    /// Acknowledged; the store may still list it.
    Settled {
        until_ms: u64,
    },
}

#[derive(Debug)]
struct Entry {
    candidate: Candidate,
    live: bool,
    stage: Stage,
    /// Times it was sent in full without an acknowledgement, or failed.
    tries: u32,
    /// Order of opening: the older transfer is finished first.
    opened: u64,
}

impl Entry {
    /// Occupies a place among the candidates: neither waiting for its turn nor set aside.
    fn active(&self) -> bool {
        matches!(self.stage, Stage::Loading | Stage::Open(_) | Stage::Awaiting { .. })
    }
    fn aside(&self) -> bool {
        matches!(self.stage, Stage::Refused { .. } | Stage::Settled { .. })
    }
    fn in_memory(&self) -> bool {
        matches!(self.stage, Stage::Loading | Stage::Open(_))
    }
    fn due(&self, now_ms: u64) -> bool {
        matches!(self.stage, Stage::Queued { not_before_ms } if now_ms >= not_before_ms)
    }
}

/// One packet the broker has not acknowledged; without a picture it is a small message.
#[derive(Debug)]
struct Flight {
    id: Option<SnapshotId>,
    at_ms: u64,
}

#[derive(Debug, Default)]
pub struct Outbox {
    link: Option<Link>,
    /// Packets that may be under way now; between 1 and the link's window.
    window: u16,
    hub_present: bool,
    trickle_ms: u64,
    entries: BTreeMap<SnapshotId, Entry>,
    under_way: BTreeMap<Token, Flight>,
    tokens: Token,
    openings: u64,
    /// Bytes the live lane got more than the backlog, while both had work.
    ahead_bytes: i64,
    rate: Option<u64>,
    /// The hub's rate allows nothing before this instant.
    rate_free_ms: u64,
    /// The store may have something that is not known here.
    stale: bool,
    /// The last look at the store did not reach the end of the backlog.
    more: bool,
    passed: Option<Passed>,
}

/// The front of the backlog that is passed over: more of it is set aside than is remembered one by one.
#[derive(Debug, Clone, Copy)]
struct Passed {
    upto: (u8, u32, u64),
    /// Then all of it is looked at again.
    until_ms: u64,
}

impl Outbox {
    /// A new connection: what was under way on the last one may be lost, and is sent again (the hub tells what it has of it).
    pub fn connected(&mut self, link: Link, now_ms: u64) {
        self.disconnected(now_ms);
        self.window = WINDOW_START.min(link.window).max(1);
        self.link = Some(link);
        self.rate = None;
    }

    pub fn disconnected(&mut self, now_ms: u64) {
        self.link = None;
        self.hub_present = false;
        self.under_way.clear();
        self.close_all(now_ms);
    }

    /// Whether the hub is there; until it is seen it counts as away.
    pub fn hub(&mut self, present: bool, now_ms: u64) {
        if present == self.hub_present {
            return;
        }
        self.hub_present = present;
        if !present {
            return self.close_all(now_ms);
        }
        for entry in self.entries.values_mut() {
            if let Stage::Awaiting { until_ms } = &mut entry.stage {
                *until_ms = (*until_ms).min(now_ms + RESEND_MS);
            }
        }
    }

    pub fn hub_present(&self) -> bool {
        self.hub_present
    }

    /// Bytes a second the hub would like at most.
    pub fn rate(&mut self, bytes_per_s: u64) {
        self.rate = Some(bytes_per_s).filter(|rate| *rate > 0);
    }

    /// Another store, or none: nothing known of pictures holds any more. What is under way still fills the window.
    pub fn forget(&mut self) {
        self.entries.clear();
        self.passed = None;
        self.stale = true;
    }

    /// Something new is in the store, or something became pending again.
    pub fn news(&mut self) {
        self.stale = true;
    }

    /// What of the backlog is to be looked up now, if anything. Pictures known already are among it: acknowledged ones leave the
    /// front, so that a place in the backlog is remembered only when too many refused ones stay there.
    pub fn wanted(&self) -> Option<Look> {
        let backlog = self.entries.values().filter(|e| !e.live && !e.aside()).count();
        let after = self.passed.map(|passed| passed.upto);
        let aside = self.entries.values().filter(|e| e.aside() && Some(e.candidate.key) > after).count();
        let room = OUTBOX_CANDIDATES_MAX.saturating_sub(backlog);
        let look = self.link.is_some() && (self.stale || (self.more && room > OUTBOX_CANDIDATES_MAX / 2));
        let limit = OUTBOX_CANDIDATES_MAX + aside.min(OUTBOX_ASIDE_MAX);
        look.then_some(Look { after, limit })
    }

    /// The answer to [`Self::wanted`]: the newest picture of each camera, and the front of the backlog.
    pub fn offer(&mut self, live: &[Candidate], front: &[Candidate], more: bool) {
        self.stale = false;
        self.more = more;
        for entry in self.entries.values_mut() {
            entry.live = false;
        }
        // What the store no longer lists has been acknowledged or deleted; what it lists later comes with its turn.
        let listed = |id: &SnapshotId| live.iter().chain(front).any(|c| c.id == *id);
        self.entries.retain(|id, entry| entry.active() || listed(id));
        for (candidate, live) in front.iter().map(|c| (c, false)).chain(live.iter().take(CAMERAS_MAX).map(|c| (c, true))) {
            let fresh = || Entry { candidate: candidate.clone(), live, stage: Stage::Queued { not_before_ms: 0 }, tries: 0, opened: 0 };
            self.entries.entry(candidate.id).or_insert_with(fresh).live |= live;
        }
        if more {
            self.pass_over(front);
        }
    }

    /// When so many of a full page are set aside that a longer one would be needed, the next page begins behind them; else
    /// refused pictures would keep all others at the node.
    fn pass_over(&mut self, page: &[Candidate]) {
        let known = || page.iter().filter_map(|c| self.entries.get(&c.id));
        if known().filter(|e| e.aside()).count() < OUTBOX_ASIDE_MAX {
            return;
        }
        let done = known().take_while(|e| !matches!(e.stage, Stage::Queued { .. })).last().map(|e| e.candidate.key);
        let again_ms = known().filter_map(|e| match e.stage {
            Stage::Refused { until_ms } | Stage::Settled { until_ms } => Some(until_ms),
            _ => None,
        });
        if let (Some(upto), Some(until_ms)) = (done, again_ms.max())
            && self.passed.is_none_or(|passed| passed.upto < upto)
        {
            self.passed = Some(Passed { upto, until_ms });
            self.stale = true;
        }
    }

    /// Whether one more packet may be under way.
    pub fn has_room(&self) -> bool {
        self.link.is_some() && self.under_way.len() < usize::from(self.window)
    }

    /// Takes a place of the window for a small message; only while [`Self::has_room`].
    pub fn small(&mut self, now_ms: u64) -> Token {
        self.launch(None, now_ms)
    }

    /// The next step. Call it again after each step but `Wait`.
    pub fn next(&mut self, now_ms: u64) -> Step {
        if self.link.is_none() {
            return Step::Wait(None);
        }
        self.tick(now_ms);
        if let Some(id) = self.openable(now_ms) {
            self.openings += 1;
            let opened = self.openings;
            if let Some(entry) = self.entries.get_mut(&id) {
                (entry.stage, entry.opened) = (Stage::Loading, opened);
            }
            if !self.hub_present {
                self.trickle_ms = now_ms + TRICKLE_MS;
            }
            return Step::Load(id);
        }
        if self.has_room()
            && now_ms >= self.rate_free_ms
            && let Some(step) = self.send(now_ms)
        {
            return step;
        }
        Step::Wait(self.wake_ms(now_ms))
    }

    /// The picture was read and has this many bytes; `None`: the store has it no more.
    pub fn loaded(&mut self, id: SnapshotId, len: Option<u64>) {
        let (Some(link), Some(entry)) = (self.link, self.entries.get_mut(&id)) else { return };
        match (&entry.stage, len) {
            (Stage::Loading, Some(len)) => entry.stage = Stage::Open(Transfer::new(len, link.payload_max)),
            (Stage::Loading, None) => {
                self.entries.remove(&id);
            }
            _ => {}
        }
    }

    /// Whether the bytes of this picture are still needed.
    pub fn holds(&self, id: &SnapshotId) -> bool {
        self.entries.get(id).is_some_and(Entry::in_memory)
    }

    /// Whether a picture is being read or sent.
    pub fn in_hand(&self) -> bool {
        self.entries.values().any(Entry::in_memory)
    }

    /// The broker took a packet (PUBACK). Returns the picture if that was its last one; the hub has yet to answer.
    pub fn delivered(&mut self, token: Token, now_ms: u64) -> Option<SnapshotId> {
        let flight = self.under_way.remove(&token)?;
        self.pace(now_ms.saturating_sub(flight.at_ms));
        let entry = self.entries.get_mut(&flight.id?)?;
        let Stage::Open(transfer) = &mut entry.stage else { return None };
        if !transfer.delivered() {
            return None;
        }
        entry.stage = Stage::Awaiting { until_ms: now_ms + resend_after_ms(entry.tries) };
        entry.tries += 1;
        flight.id
    }

    /// The broker refused a packet: its picture is tried again later.
    pub fn undelivered(&mut self, token: Token, now_ms: u64) {
        let Some(id) = self.under_way.remove(&token).and_then(|flight| flight.id) else { return };
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.active()
        {
            entry.stage = Stage::Queued { not_before_ms: now_ms + resend_after_ms(entry.tries) };
            entry.tries += 1;
        }
    }

    /// The hub has this picture. False if it is not one of ours, or not with this hash; then nothing changes.
    pub fn have(&mut self, id: SnapshotId, hash8: Hash8, now_ms: u64) -> bool {
        match self.own(id, hash8) {
            Some(entry) => {
                entry.stage = Stage::Settled { until_ms: now_ms + SETTLE_MS };
                true
            }
            None => false,
        }
    }

    /// The hub says which bytes of a picture it holds.
    pub fn part(&mut self, id: SnapshotId, hash8: Hash8, ranges: &[(u64, u64)], now_ms: u64) {
        let Some(entry) = self.own(id, hash8) else { return };
        match &mut entry.stage {
            Stage::Open(transfer) => transfer.held(ranges),
            // After `fin`: it still lacks something, or this is a late copy of an earlier answer. A new `init` tells.
            Stage::Awaiting { until_ms } => *until_ms = (*until_ms).min(now_ms + 1_000),
            _ => {}
        }
    }

    /// The hub will not take this picture.
    pub fn refused(&mut self, id: SnapshotId, hash8: Hash8, now_ms: u64) {
        if let Some(entry) = self.own(id, hash8)
            && !matches!(entry.stage, Stage::Settled { .. })
        {
            entry.stage = Stage::Refused { until_ms: now_ms + REFUSED_RETRY_MS };
        }
    }

    fn own(&mut self, id: SnapshotId, hash8: Hash8) -> Option<&mut Entry> {
        self.entries.get_mut(&id).filter(|entry| entry.candidate.hash8 == hash8)
    }

    fn launch(&mut self, id: Option<SnapshotId>, now_ms: u64) -> Token {
        self.tokens += 1;
        self.under_way.insert(self.tokens, Flight { id, at_ms: now_ms });
        self.tokens
    }

    fn pace(&mut self, took_ms: u64) {
        let Some(link) = self.link else { return };
        if took_ms > link.patience_ms {
            self.window = self.window.saturating_sub(1).max(1);
        } else if took_ms < link.patience_ms / 2 {
            self.window = (self.window + 1).min(link.window.max(1));
        }
    }

    fn close_all(&mut self, now_ms: u64) {
        for entry in self.entries.values_mut().filter(|e| e.in_memory()) {
            entry.stage = Stage::Queued { not_before_ms: now_ms };
        }
    }

    fn tick(&mut self, now_ms: u64) {
        if self.passed.is_some_and(|passed| now_ms >= passed.until_ms) {
            self.passed = None;
            self.stale = true;
        }
        for entry in self.entries.values_mut() {
            match &mut entry.stage {
                Stage::Open(transfer) => transfer.tick(now_ms),
                Stage::Awaiting { until_ms } | Stage::Refused { until_ms } | Stage::Settled { until_ms } if now_ms >= *until_ms => {
                    entry.stage = Stage::Queued { not_before_ms: now_ms };
                }
                _ => {}
            }
        }
    }

    /// The lane that is behind comes first.
    fn lanes(&self) -> [bool; 2] {
        if self.ahead_bytes <= 0 { [true, false] } else { [false, true] }
    }

    /// A picture whose turn has come and for which there is room in memory.
    fn openable(&self, now_ms: u64) -> Option<SnapshotId> {
        let link = self.link?;
        let held = || self.entries.values().filter(|e| e.in_memory());
        let allowed = self.hub_present || (now_ms >= self.trickle_ms && held().next().is_none());
        if !allowed {
            return None;
        }
        let active = self.entries.values().filter(|e| e.active()).count();
        self.lanes().into_iter().find_map(|live| {
            // Live has places of its own, so that a backlog nobody acknowledges cannot keep it out.
            let places = if live { OUTBOX_CANDIDATES_MAX + CAMERAS_MAX } else { OUTBOX_CANDIDATES_MAX };
            let of_lane = |e: &&Entry| e.live == live;
            if active >= places || held().filter(of_lane).any(|e| matches!(e.stage, Stage::Loading)) {
                return None;
            }
            let queued = self.entries.values().filter(|e| e.live == live && e.due(now_ms));
            let next = &queued.min_by_key(|e| e.candidate.key)?.candidate;
            let chunked = |bytes: u64| bytes > link.payload_max;
            let open_max = if chunked(next.bytes) { TRANSFERS_OPEN_MAX } else { usize::from(link.window).max(2) };
            let same_kind = || held().filter(|e| chunked(e.candidate.bytes) == chunked(next.bytes));
            // The last place of each kind is kept for the other lane.
            let place = same_kind().count() < open_max && same_kind().filter(of_lane).count() < open_max - 1;
            let bytes: u64 = held().map(|e| e.candidate.bytes).sum();
            let memory = bytes + next.bytes <= TRANSFER_BYTES_MAX || !held().any(|e| of_lane(&e));
            (place && memory).then_some(next.id)
        })
    }

    /// The next packet: `init` and `fin` first, being tiny and waited for; then bytes, of the lane that is behind.
    fn send(&mut self, now_ms: u64) -> Option<Step> {
        let mut small = None;
        let mut heavy = [None, None];
        for (id, entry) in &self.entries {
            let Stage::Open(transfer) = &entry.stage else { continue };
            let best = match transfer.ready() {
                Some(Piece::Init | Piece::Fin) => &mut small,
                Some(_) => &mut heavy[usize::from(entry.live)],
                None => continue,
            };
            if best.is_none_or(|(opened, _)| entry.opened < opened) {
                *best = Some((entry.opened, *id));
            }
        }
        let [first, second] = self.lanes();
        let (_, id) = small.or(heavy[usize::from(first)]).or(heavy[usize::from(second)])?;
        let token = self.launch(Some(id), now_ms);
        let contested = [true, false].map(|live| self.entries.values().any(|e| e.live == live && (e.in_memory() || e.due(now_ms))));
        let entry = self.entries.get_mut(&id)?;
        let Stage::Open(transfer) = &mut entry.stage else { return None };
        let piece = transfer.ready()?;
        transfer.sending(piece, now_ms);
        let bytes = match piece {
            Piece::Whole => transfer.len(),
            Piece::Chunk { from, to } => to - from,
            Piece::Init | Piece::Fin => 0,
        };
        let owed = if entry.live { bytes as i64 } else { -(bytes as i64) };
        self.ahead_bytes = if contested == [true, true] { self.ahead_bytes + owed } else { 0 };
        if let Some(rate) = self.rate {
            self.rate_free_ms = self.rate_free_ms.max(now_ms) + bytes * 1000 / rate;
        }
        Some(Step::Send { token, id, hash8: entry.candidate.hash8, len: transfer.len(), piece })
    }

    /// The next instant at which something becomes due by itself.
    fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let of_entries = self.entries.values().filter_map(|entry| match &entry.stage {
            Stage::Queued { not_before_ms } => Some(*not_before_ms),
            Stage::Loading => None,
            Stage::Open(transfer) => transfer.wake_ms(),
            Stage::Awaiting { until_ms } | Stage::Refused { until_ms } | Stage::Settled { until_ms } => Some(*until_ms),
        });
        let trickle = (!self.hub_present).then_some(self.trickle_ms);
        let passed = self.passed.map(|passed| passed.until_ms);
        of_entries.chain(trickle).chain(passed).chain([self.rate_free_ms]).filter(|at| *at > now_ms).min()
    }
}

/// 30 s, doubling with each try, at most 10 min.
fn resend_after_ms(tries: u32) -> u64 {
    RESEND_MS.saturating_mul(1 << tries.min(10)).min(RESEND_MAX_MS)
}
