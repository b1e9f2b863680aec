//! The machine against a model of hub and broker, with time by argument.

use super::*;
use crate::model::{CHUNK_BYTES, Seq, StoreId};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

const STORE: StoreId = StoreId(7);
const LINK: Link = Link { window: 8, payload_max: CHUNK_BYTES as u64, patience_ms: 15_000 };

fn id(seq: u64) -> SnapshotId {
    SnapshotId { store: STORE, seq: Seq(seq) }
}
fn hash(seq: u64) -> Hash8 {
    Hash8(seq ^ 0xabcd)
}
fn picture(seq: u64, bytes: u64) -> Candidate {
    Candidate { key: (1, 0, seq), id: id(seq), bytes, hash8: hash(seq) }
}
fn online(now_ms: u64) -> Outbox {
    let mut outbox = Outbox::default();
    outbox.connected(LINK, now_ms);
    outbox.hub(true, now_ms);
    outbox.news();
    outbox
}

/// What the machine sends while the window has room; pictures load at once with the size they were offered with.
fn run(outbox: &mut Outbox, now_ms: u64) -> Vec<(Token, u64, Piece)> {
    let mut sent = Vec::new();
    loop {
        match outbox.next(now_ms) {
            Step::Load(id) => {
                let bytes = outbox.entries[&id].candidate.bytes;
                outbox.loaded(id, Some(bytes));
            }
            Step::Send { token, id, piece, .. } => sent.push((token, id.seq.0, piece)),
            Step::Wait(_) => return sent,
        }
    }
}

/// Runs and lets the broker take everything at once.
fn run_through(outbox: &mut Outbox, now_ms: u64) -> Vec<(u64, Piece)> {
    let mut all = Vec::new();
    loop {
        let sent = run(outbox, now_ms);
        if sent.is_empty() {
            return all;
        }
        for (token, seq, piece) in sent {
            outbox.delivered(token, now_ms);
            all.push((seq, piece));
        }
    }
}

#[test]
fn a_puback_frees_no_picture_and_silence_brings_it_again_ever_later() {
    let mut outbox = online(0);
    outbox.offer(&[], &[picture(1, 500)], false);
    let mut now = 0;
    for wait in [30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000] {
        assert_eq!(run_through(&mut outbox, now), [(1, Piece::Whole)], "at {now}");
        assert_eq!(outbox.next(now), Step::Wait(Some(now + wait)));
        assert!(run_through(&mut outbox, now + wait - 1).is_empty());
        now += wait;
    }
    assert!(outbox.have(id(1), hash(1), now));
    assert!(run_through(&mut outbox, now).is_empty());
}

#[test]
fn an_ack_with_another_hash_store_or_number_changes_nothing() {
    let mut outbox = online(0);
    outbox.offer(&[], &[picture(1, 500)], false);
    run_through(&mut outbox, 0);
    assert!(!outbox.have(id(1), Hash8(1), 0));
    assert!(!outbox.have(id(2), hash(2), 0));
    assert!(!outbox.have(SnapshotId { store: StoreId(8), seq: Seq(1) }, hash(1), 0));
    assert_eq!(run_through(&mut outbox, 30_000), [(1, Piece::Whole)]);
}

#[test]
fn commands_go_before_schedules_and_the_newest_picture_does_not_wait_for_the_backlog() {
    let mut outbox = online(0);
    let mut commanded = picture(50, 10);
    commanded.key.0 = 0;
    let front: Vec<_> = [commanded].into_iter().chain((1..10).map(|seq| picture(seq, 10))).collect();
    outbox.offer(&[picture(99, 10)], &front, true);
    let order: Vec<u64> = run_through(&mut outbox, 0).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(order[..4], [99, 50, 1, 2]);
}

#[test]
fn both_lanes_get_the_same_bytes_while_both_have_work() {
    let mut outbox = online(0);
    let mut bytes = [0u64; 2];
    let mut newest: Vec<u64> = (0..6).map(|camera| 1_000_000 + camera).collect();
    let mut oldest = 1;
    for round in 0..400 {
        let front: Vec<_> = (oldest..oldest + 20).map(|seq| picture(seq, 90_000)).collect();
        let live: Vec<_> = newest.iter().map(|seq| picture(*seq, 100_000 * (1 + seq % 6))).collect();
        outbox.offer(&live, &front, true);
        for (token, seq, piece) in run(&mut outbox, round) {
            bytes[usize::from(seq >= 1_000_000)] += match piece {
                Piece::Whole => 90_000,
                Piece::Chunk { from, to } => to - from,
                Piece::Init | Piece::Fin => 0,
            };
            outbox.delivered(token, round);
            match piece {
                Piece::Init => outbox.part(id(seq), hash(seq), &[], round),
                Piece::Whole | Piece::Fin => {
                    outbox.have(id(seq), hash(seq), round);
                    oldest += u64::from(seq < 1_000_000);
                    newest.iter_mut().filter(|newest| **newest == seq).for_each(|newest| *newest += 6);
                }
                Piece::Chunk { .. } => {}
            }
        }
    }
    let share = bytes[1] as f64 / (bytes[0] + bytes[1]) as f64;
    assert!((0.45..0.55).contains(&share), "{bytes:?}");
}

#[test]
fn the_next_init_travels_while_chunks_flow() {
    let mut outbox = online(0);
    outbox.offer(&[], &[picture(1, 900_000), picture(2, 900_000)], false);
    let sent = run(&mut outbox, 0);
    assert_eq!(sent.iter().map(|(_, seq, piece)| (*seq, *piece)).collect::<Vec<_>>(), [(1, Piece::Init), (2, Piece::Init)]);
}

#[test]
fn nothing_waits_behind_a_full_window_and_slow_answers_shrink_it() {
    let mut outbox = online(0);
    outbox.offer(&[], &(1..60).map(|seq| picture(seq, 90_000)).collect::<Vec<_>>(), false);
    let first = run(&mut outbox, 0);
    assert_eq!(first.len(), usize::from(WINDOW_START));
    for (token, ..) in first {
        outbox.delivered(token, 100);
    }
    let second = run(&mut outbox, 100);
    assert_eq!(second.len(), 4, "each quick answer adds a place");
    for (token, ..) in second {
        outbox.delivered(token, 20_000);
    }
    assert_eq!(run(&mut outbox, 20_000).len(), 1, "each slow one takes one");
}

#[test]
fn an_absent_hub_gets_one_picture_in_five_minutes() {
    let mut outbox = Outbox::default();
    outbox.connected(LINK, 0);
    outbox.offer(&[], &(1..20).map(|seq| picture(seq, 10)).collect::<Vec<_>>(), false);
    assert_eq!(run_through(&mut outbox, 0), [(1, Piece::Whole)]);
    assert!(run_through(&mut outbox, TRICKLE_MS - 1).is_empty());
    assert_eq!(run_through(&mut outbox, TRICKLE_MS).len(), 1);
    outbox.hub(true, TRICKLE_MS);
    assert_eq!(run_through(&mut outbox, TRICKLE_MS).len(), 18);
}

#[test]
fn a_refused_picture_does_not_hold_up_the_others_and_comes_again() {
    let mut outbox = online(0);
    let front: Vec<_> = (1..=100).map(|seq| picture(seq, 10)).collect();
    outbox.offer(&[], &front[..64], true);
    run_through(&mut outbox, 0);
    for seq in 1..=64 {
        outbox.refused(id(seq), hash(seq), 0);
    }
    assert_eq!(outbox.wanted().map(|look| look.limit), Some(128), "looks past those set aside");
    outbox.offer(&[], &front, false);
    assert_eq!(run_through(&mut outbox, 0).len(), 36);
    for seq in 65..=100 {
        outbox.have(id(seq), hash(seq), 0);
    }
    outbox.offer(&[], &front[..64], false);
    assert!(run_through(&mut outbox, REFUSED_RETRY_MS - 1).is_empty());
    assert_eq!(run_through(&mut outbox, REFUSED_RETRY_MS).len(), 64);
}

#[test]
fn any_number_of_refused_pictures_at_the_front_lets_the_next_one_through_and_comes_again() {
    const REFUSED: u64 = 1_000;
    let mut outbox = online(0);
    let mut sent = BTreeMap::new();
    let mut through = |outbox: &mut Outbox, last: u64, now_ms: u64| {
        loop {
            let look = outbox.wanted();
            if let Some(Look { after, limit }) = look {
                let from = after.map_or(1, |(_, _, seq)| seq + 1);
                let page: Vec<_> = (from..=last).take(limit).map(|seq| picture(seq, 10)).collect();
                outbox.offer(&[], &page, page.len() == limit);
            }
            let news = run_through(outbox, now_ms);
            if look.is_none() && news.is_empty() {
                break;
            }
            for (seq, _) in news {
                *sent.entry(seq).or_insert(0) += 1;
                if seq <= REFUSED {
                    outbox.refused(id(seq), hash(seq), now_ms);
                } else {
                    outbox.have(id(seq), hash(seq), now_ms);
                }
            }
            assert!(outbox.entries.len() <= 2 * (OUTBOX_CANDIDATES_MAX + OUTBOX_ASIDE_MAX), "bounded");
        }
        (sent.len() as u64, sent.values().max().copied())
    };
    assert_eq!(through(&mut outbox, REFUSED + 1, 0), (REFUSED + 1, Some(1)), "the good one behind them, and each refused one once");
    outbox.news();
    assert_eq!(through(&mut outbox, REFUSED + 2, 1_000), (REFUSED + 2, Some(1)), "later ones follow");
    assert!(matches!(outbox.next(2_000), Step::Wait(Some(_))));
    outbox.tick(REFUSED_RETRY_MS);
    assert_eq!(through(&mut outbox, REFUSED + 2, REFUSED_RETRY_MS).1, Some(2), "all are offered again");
}

#[test]
fn a_packet_the_broker_refuses_is_never_counted_as_sent() {
    let mut outbox = online(0);
    outbox.offer(&[], &[picture(1, 150_000)], false);
    let sent = run(&mut outbox, 0);
    outbox.part(id(1), hash(1), &[], 0);
    outbox.delivered(sent[0].0, 0);
    for (token, ..) in run(&mut outbox, 0) {
        outbox.undelivered(token, 0);
    }
    assert!(run(&mut outbox, 29_999).is_empty(), "no fin after a refused chunk");
    assert_eq!(run(&mut outbox, 30_000)[0].2, Piece::Init);
}

#[test]
fn a_rate_of_the_hub_is_kept() {
    let mut outbox = online(0);
    outbox.rate(1_000);
    outbox.offer(&[], &[picture(1, 5_000), picture(2, 5_000)], false);
    assert_eq!(run(&mut outbox, 0).len(), 1);
    assert_eq!(outbox.next(10), Step::Wait(Some(5_000)));
    assert_eq!(run(&mut outbox, 5_000).len(), 1);
}

/// A hub behind a link that loses packets, answers and whole connections.
struct World {
    outbox: Outbox,
    pending: BTreeMap<u64, u64>,
    broker: VecDeque<(Token, u64, Piece)>,
    held: BTreeMap<u64, BTreeSet<(u64, u64)>>,
    durable: BTreeSet<u64>,
    now_ms: u64,
}

impl World {
    fn refresh(&mut self) {
        if let Some(Look { after, limit }) = self.outbox.wanted() {
            assert_eq!(after, None, "nothing is refused here");
            let front: Vec<_> = self.pending.iter().take(limit).map(|(seq, bytes)| picture(*seq, *bytes)).collect();
            let live: Vec<_> = self.pending.iter().next_back().map(|(seq, bytes)| picture(*seq, *bytes)).into_iter().collect();
            self.outbox.offer(&live, &front, front.len() == limit);
        }
    }

    fn send(&mut self) {
        self.refresh();
        loop {
            match self.outbox.next(self.now_ms) {
                Step::Load(id) => self.outbox.loaded(id, self.pending.get(&id.seq.0).copied()),
                Step::Send { token, id, piece, .. } => self.broker.push_back((token, id.seq.0, piece)),
                Step::Wait(wake) => {
                    if self.broker.is_empty() {
                        self.now_ms = wake.unwrap_or(self.now_ms + 1_000).max(self.now_ms + 1);
                    }
                    break;
                }
            }
            let held: u64 = self.outbox.entries.values().filter(|e| e.in_memory()).map(|e| e.candidate.bytes).sum();
            assert!(held <= TRANSFER_BYTES_MAX + 2 * 400_000, "{held} bytes in memory");
            assert!(self.outbox.under_way.len() <= usize::from(LINK.window));
            assert!(self.outbox.entries.values().filter(|e| e.active()).count() <= OUTBOX_CANDIDATES_MAX + CAMERAS_MAX);
        }
    }

    fn acknowledge(&mut self, seq: u64) {
        assert!(self.durable.contains(&seq));
        self.outbox.have(id(seq), hash(seq), self.now_ms);
        self.pending.remove(&seq);
        self.outbox.news();
    }

    /// The hub gets a packet; its answer may be lost.
    fn arrive(&mut self, seq: u64, piece: Piece, answer: bool) {
        let len = if let Some(len) = self.pending.get(&seq) { *len } else { return };
        let parts = self.held.entry(seq).or_default();
        match piece {
            Piece::Whole => {
                self.durable.insert(seq);
            }
            Piece::Chunk { from, to } => {
                parts.insert((from, to));
            }
            Piece::Init | Piece::Fin if parts.iter().map(|(from, to)| to - from).sum::<u64>() == len => {
                self.durable.insert(seq);
            }
            Piece::Init | Piece::Fin if answer => {
                let ranges: Vec<_> = parts.iter().copied().collect();
                self.outbox.part(id(seq), hash(seq), &ranges, self.now_ms);
            }
            Piece::Init | Piece::Fin => {}
        }
        if answer && self.durable.contains(&seq) {
            self.acknowledge(seq);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_link_loses_everything_is_acknowledged_in_the_end(
        sizes in prop::collection::vec(1u64..400_000, 1..150),
        fates in prop::collection::vec(0u8..12, 100..600),
    ) {
        let pending = sizes.iter().enumerate().map(|(n, bytes)| (n as u64, *bytes)).collect();
        let mut world =
            World { outbox: online(0), pending, broker: VecDeque::new(), held: BTreeMap::new(), durable: BTreeSet::new(), now_ms: 0 };
        let mut fates = fates.into_iter().chain(std::iter::repeat(11));
        for _ in 0..200_000 {
            if world.pending.is_empty() {
                break;
            }
            world.send();
            let Some((token, seq, piece)) = world.broker.pop_front() else { continue };
            world.now_ms += 20;
            match fates.next().unwrap_or(11) {
                // The connection breaks: what is under way may or may not have arrived.
                0 => {
                    world.arrive(seq, piece, false);
                    world.broker.clear();
                    world.outbox.connected(LINK, world.now_ms);
                    world.outbox.hub(true, world.now_ms);
                }
                // The broker takes it and then loses it.
                1 => { world.outbox.delivered(token, world.now_ms); }
                2 => world.outbox.undelivered(token, world.now_ms),
                // It arrives, the hub's answer does not.
                3 => { world.outbox.delivered(token, world.now_ms); world.arrive(seq, piece, false); }
                // The hub answers before the broker does.
                4 => { world.arrive(seq, piece, true); world.outbox.delivered(token, world.now_ms); }
                _ => { world.outbox.delivered(token, world.now_ms); world.arrive(seq, piece, true); }
            }
        }
        prop_assert!(world.pending.is_empty(), "{} left", world.pending.len());
    }
}
