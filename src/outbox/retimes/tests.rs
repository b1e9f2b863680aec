//! Stories and chance: whatever the link loses, each record comes to the hub, and the store remembers no place that the hub has not reached.

use super::*;
use crate::model::{RETIMES_IN_FLIGHT_MAX, Seq, StoreId};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn id(seq: u64) -> SnapshotId {
    SnapshotId { store: StoreId(7), seq: Seq(seq) }
}

/// What the store answers: rows 1 to `all`, of which every third needs no record.
fn look(retimes: &mut Retimes, all: u64) {
    let Some((after, room)) = retimes.wanted() else { return };
    let rows: Vec<u64> = (after.1 + 1..=all).take(RETIMES_LOOK_MAX).collect();
    let (mut found, mut upto, mut seen) = (Vec::new(), after, 0);
    for seq in &rows {
        if !seq.is_multiple_of(3) {
            found.push(((1, *seq), id(*seq)));
        }
        (upto, seen) = ((1, *seq), seen + 1);
        if found.len() == room {
            break;
        }
    }
    retimes.found(found, upto, seen, seen < rows.len() || rows.len() == RETIMES_LOOK_MAX);
}

fn needs(seq: u64) -> bool {
    !seq.is_multiple_of(3)
}

#[test]
fn one_record_at_a_time_paced_and_again_after_silence_that_grows() {
    let mut retimes = Retimes::from((0, 0));
    look(&mut retimes, 2);
    assert_eq!(retimes.wanted(), None, "nothing more is known of");
    assert_eq!(retimes.take(0), Some(((1, 1), id(1))));
    assert_eq!(retimes.take(0), None, "one is being read");
    retimes.sending(0);
    assert_eq!(retimes.take(PACE_MS - 1), None);
    assert_eq!(retimes.wake_ms(), Some(PACE_MS));
    assert_eq!(retimes.take(PACE_MS), Some(((1, 2), id(2))));
    retimes.sending(PACE_MS);
    retimes.confirmed(id(2), PACE_MS);
    assert_eq!(retimes.remember(), Some(Remember { upto: (1, 0), told: true }), "the first one is still open");
    let mut now = PACE_MS;
    for wait in [60_000, 120_000, 240_000, 480_000, 600_000, 600_000] {
        assert_eq!(retimes.wake_ms(), Some(now + wait));
        retimes.tick(now + wait - 1);
        assert_eq!(retimes.take(now + wait - 1), None);
        now += wait;
        retimes.tick(now);
        assert_eq!(retimes.take(now), Some(((1, 1), id(1))), "nobody answered");
        retimes.sending(now);
    }
    retimes.confirmed(id(1), now);
    assert_eq!(retimes.remember(), Some(Remember { upto: (1, 2), told: true }));
    assert_eq!((retimes.remember(), retimes.wake_ms()), (None, None), "all is told, once");
}

#[test]
fn a_hub_cannot_confirm_what_was_never_sent_and_a_deleted_picture_needs_no_record() {
    let mut retimes = Retimes::from((0, 0));
    look(&mut retimes, 4);
    retimes.confirmed(id(1), 0);
    retimes.confirmed(id(99), 0);
    assert_eq!(retimes.remember(), None);
    assert_eq!(retimes.take(0), Some(((1, 1), id(1))));
    retimes.gone((1, 1));
    assert_eq!(retimes.take(0), Some(((1, 2), id(2))), "the next one at once");
}

#[test]
fn what_was_only_passed_over_is_remembered_by_the_hundred() {
    let mut retimes = Retimes::from((0, 0));
    retimes.found([], (1, 200), 200, false);
    assert_eq!(retimes.remember(), None);
    retimes.news();
    retimes.found([], (1, 300), 100, false);
    assert_eq!(retimes.remember(), Some(Remember { upto: (1, 300), told: false }));
}

#[test]
fn a_hub_that_lost_pictures_is_told_again_from_the_oldest_of_them_on() {
    let mut retimes = Retimes::from((1, 50));
    retimes.go_back((1, 60));
    assert_eq!(retimes.wanted(), Some(((1, 50), RETIMES_IN_FLIGHT_MAX)), "what was not looked at yet is not told twice");
    retimes.go_back((1, 10));
    assert_eq!(retimes.wanted(), Some(((1, 9), RETIMES_IN_FLIGHT_MAX)));
}

/// What the world does next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The link may carry something.
    Turn,
    /// The broker has taken the oldest record under way, and the hub gets it or never does.
    Puback {
        reaches_hub: bool,
    },
    /// An answer of the hub comes, or is lost.
    Answer {
        arrives: bool,
    },
    /// The connection ends: what is under way is lost.
    Cut,
    /// The agent is killed; the store has committed what it was told so far, or lost it.
    Kill {
        committed: bool,
    },
    Wait(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Turn),
        4 => any::<bool>().prop_map(|reaches_hub| Event::Puback { reaches_hub }),
        4 => any::<bool>().prop_map(|arrives| Event::Answer { arrives }),
        1 => Just(Event::Cut),
        1 => any::<bool>().prop_map(|committed| Event::Kill { committed }),
        3 => (1u32..400_000).prop_map(Event::Wait),
    ]
}

struct World {
    retimes: Retimes,
    now_ms: u64,
    all: u64,
    under_way: VecDeque<u64>,
    answers: VecDeque<u64>,
    hub: BTreeSet<u64>,
    /// What the writer holds, and what is on the disk.
    riding: Place,
    durable: Place,
    /// The control: the broker's word is taken for the hub's.
    puback_is_enough: bool,
}

impl World {
    fn new(all: u64, puback_is_enough: bool) -> Self {
        let (under_way, answers, hub) = Default::default();
        let retimes = Retimes::from((0, 0));
        Self { retimes, now_ms: 0, all, under_way, answers, hub, riding: (0, 0), durable: (0, 0), puback_is_enough }
    }

    fn turn(&mut self) {
        self.retimes.tick(self.now_ms);
        look(&mut self.retimes, self.all);
        if let Some((_, id)) = self.retimes.take(self.now_ms) {
            self.retimes.sending(self.now_ms);
            self.under_way.push_back(id.seq.0);
        }
        self.remember();
    }

    fn remember(&mut self) {
        if let Some(Remember { upto, .. }) = self.retimes.remember() {
            self.riding = upto;
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Turn => self.turn(),
            Event::Puback { reaches_hub } => {
                let Some(seq) = self.under_way.pop_front() else { return };
                if reaches_hub {
                    self.hub.insert(seq);
                    self.answers.push_back(seq);
                }
                if self.puback_is_enough {
                    self.retimes.confirmed(id(seq), self.now_ms);
                }
            }
            Event::Answer { arrives } => {
                let Some(seq) = self.answers.pop_front() else { return };
                if arrives {
                    self.retimes.confirmed(id(seq), self.now_ms);
                }
            }
            Event::Cut => {
                self.under_way.clear();
                self.retimes.restart();
            }
            Event::Kill { committed } => {
                if committed {
                    self.durable = self.riding;
                }
                self.under_way.clear();
                self.answers.clear();
                self.riding = self.durable;
                self.retimes = Retimes::from(self.durable);
            }
            Event::Wait(ms) => self.now_ms += u64::from(ms),
        }
        self.remember();
    }

    fn check(&self) -> Result<(), String> {
        let flights = self.retimes.flights.len();
        if flights > RETIMES_IN_FLIGHT_MAX {
            return Err(format!("{flights} under way"));
        }
        let missing = (1..=self.riding.1).find(|seq| needs(*seq) && !self.hub.contains(seq));
        missing.map_or(Ok(()), |seq| Err(format!("{:?} is remembered, and the hub has not got {seq}", self.riding)))
    }

    /// From here on nothing is lost.
    fn in_the_end(&mut self) -> Result<(), String> {
        self.happens(Event::Cut);
        for _ in 0..self.all * 4 + 8 {
            self.turn();
            while !self.under_way.is_empty() {
                self.happens(Event::Puback { reaches_hub: true });
            }
            while !self.answers.is_empty() {
                self.happens(Event::Answer { arrives: true });
            }
            self.check()?;
            self.now_ms += PACE_MS;
        }
        let all_there = (1..=self.all).filter(|seq| needs(*seq)).all(|seq| self.hub.contains(&seq));
        if all_there { Ok(()) } else { Err("records never came".into()) }
    }
}

fn tell(all: u64, events: &[Event], puback_is_enough: bool) -> Result<(), String> {
    let mut world = World::new(all, puback_is_enough);
    for event in events {
        world.happens(*event);
        world.check()?;
    }
    world.in_the_end()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn every_record_comes_to_the_hub_and_no_place_is_remembered_before(all in 0u64..90, events in prop::collection::vec(event(), 0..200)) {
        prop_assert_eq!(tell(all, &events, false), Ok(()));
    }
}

/// The control.
#[test]
fn a_puback_taken_for_the_hubs_word_is_found_out() {
    let lost = [Event::Turn, Event::Puback { reaches_hub: false }];
    assert!(tell(1, &lost, true).is_err());
    assert_eq!(tell(1, &lost, false), Ok(()));
}
