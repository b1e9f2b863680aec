//! The wheel and its peers, each as its own documentation uses it, behind what the bench asks of all.

use hierarchical_hash_wheel_timer::IdOnlyTimerEntry;
use hierarchical_hash_wheel_timer::wheels::{Skip, cancellable::QuadWheelWithOverflow};
use shutterd::model::WHEEL_CAPACITY;
use shutterd::wheel::{TimerId, Wheel};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    future::poll_fn,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::time::{DelayQueue, delay_queue::Key};

pub trait Timers {
    type Id;
    fn insert(&mut self, at_ms: u64, item: u32) -> Self::Id;
    fn cancel(&mut self, id: Self::Id);
    /// When the owner must look again.
    fn next_wake(&mut self) -> Option<u64>;
    /// The sum of the fired items.
    fn advance(&mut self, now_ms: u64) -> u64;
}

impl Timers for Box<Wheel<u32, WHEEL_CAPACITY>> {
    type Id = TimerId;
    fn insert(&mut self, at_ms: u64, item: u32) -> TimerId {
        Wheel::insert(self, at_ms, item).expect("the bench stays below the capacity")
    }
    fn cancel(&mut self, id: TimerId) {
        Wheel::cancel(self, id);
    }
    fn next_wake(&mut self) -> Option<u64> {
        Wheel::next_deadline(self)
    }
    fn advance(&mut self, now_ms: u64) -> u64 {
        let mut sum = 0;
        Wheel::advance(self, now_ms, &mut |_, _, item| sum += u64::from(item));
        sum
    }
}

pub struct Heap {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    cancelled: HashSet<u64>,
    inserted: u64,
}

impl Heap {
    pub fn new(capacity: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(capacity), cancelled: HashSet::with_capacity(capacity), inserted: 0 }
    }
}

impl Timers for Heap {
    type Id = u64;
    fn insert(&mut self, at_ms: u64, item: u32) -> u64 {
        self.inserted += 1;
        self.heap.push(Reverse((at_ms, self.inserted, item)));
        self.inserted
    }
    fn cancel(&mut self, id: u64) {
        self.cancelled.insert(id);
    }
    fn next_wake(&mut self) -> Option<u64> {
        while let Some(&Reverse((at_ms, id, _))) = self.heap.peek() {
            if !self.cancelled.remove(&id) {
                return Some(at_ms);
            }
            self.heap.pop();
        }
        None
    }
    fn advance(&mut self, now_ms: u64) -> u64 {
        let mut sum = 0;
        while self.next_wake().is_some_and(|at_ms| at_ms <= now_ms) {
            if let Some(Reverse((_, _, item))) = self.heap.pop() {
                sum += u64::from(item);
            }
        }
        sum
    }
}

/// The published wheel counts ticks of 1 ms, and jumps over those that it knows to be empty. It takes delays, not instants.
pub struct HashWheel {
    wheel: QuadWheelWithOverflow<IdOnlyTimerEntry<u64>>,
    now_ms: u64,
    inserted: u64,
}

impl Default for HashWheel {
    fn default() -> Self {
        Self { wheel: QuadWheelWithOverflow::new(), now_ms: 0, inserted: 0 }
    }
}

impl Timers for HashWheel {
    type Id = u64;
    /// Each timer counts as 1: its entry has room for a name only.
    fn insert(&mut self, at_ms: u64, _: u32) -> u64 {
        self.inserted += 1;
        let delay = Duration::from_millis(at_ms - self.now_ms);
        self.wheel.insert(IdOnlyTimerEntry::new(self.inserted, delay)).expect("the bench inserts nothing past");
        self.inserted
    }
    fn cancel(&mut self, id: u64) {
        self.wheel.cancel(&id).expect("the bench cancels what waits");
    }
    fn next_wake(&mut self) -> Option<u64> {
        match self.wheel.can_skip() {
            Skip::Empty => None,
            Skip::None => Some(self.now_ms + 1),
            Skip::Millis(ms) => Some(self.now_ms + u64::from(ms) + 1),
        }
    }
    fn advance(&mut self, now_ms: u64) -> u64 {
        let mut sum = 0;
        while self.now_ms < now_ms {
            let left_ms = now_ms - self.now_ms;
            match self.wheel.can_skip() {
                Skip::Empty => self.now_ms = now_ms,
                Skip::Millis(ms) => {
                    let ms = u64::from(ms).min(left_ms);
                    self.wheel.skip(ms as u32);
                    self.now_ms += ms;
                }
                Skip::None => {
                    sum += self.wheel.tick().len() as u64;
                    self.now_ms += 1;
                }
            }
        }
        sum
    }
}

/// Tokio's queue. Instants are milliseconds from its making; time passes by itself. Needs a runtime around it.
pub struct Queue {
    queue: DelayQueue<u32>,
    made: Instant,
}

impl Queue {
    pub fn new(capacity: usize) -> Self {
        Self { queue: DelayQueue::with_capacity(capacity), made: Instant::now() }
    }
    pub fn insert(&mut self, at_ms: u64, item: u32) -> Key {
        self.queue.insert_at(item, self.made + Duration::from_millis(at_ms))
    }
    pub fn cancel(&mut self, key: &Key) {
        self.queue.remove(key);
    }
    pub fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|key| self.queue.deadline(&key))
    }
    /// Waits for all; the sum of the fired items.
    pub async fn drain(&mut self) -> u64 {
        let mut sum = 0;
        while let Some(expired) = poll_fn(|cx| self.queue.poll_expired(cx)).await {
            sum += u64::from(expired.into_inner());
        }
        sum
    }
}
