//! Which pictures the hub is asked about next: one range at a time, again after silence.
//!
//! After an index was lost nobody knows here what the hub has. Sending an archive twice over a cellular link would cost its owner
//! dearly, so each picture waits until the hub has said what it has of its range.

use crate::protocol::Ask;

/// Silence after which a question is asked again.
pub const RESEND_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub struct Asks {
    open: Option<Open>,
    /// Nothing to ask, as far as is known.
    dry: bool,
}

#[derive(Debug)]
struct Open {
    ask: Ask,
    until_ms: u64,
    /// The answer is on its way into the store.
    answered: bool,
}

impl Asks {
    /// Whether the store is to be looked at for something to ask.
    pub fn wanted(&self) -> bool {
        self.open.is_none() && !self.dry
    }
    pub fn sending(&mut self, ask: Ask, now_ms: u64) {
        self.open = Some(Open { ask, until_ms: now_ms + RESEND_MS, answered: false });
    }
    pub fn none_left(&mut self) {
        self.dry = true;
    }
    pub fn news(&mut self) {
        self.dry = false;
    }
    /// The hub has answered. Returns whether that was the question.
    pub fn answered(&mut self, done: &Ask) -> bool {
        let Some(open) = self.open.as_mut().filter(|open| open.ask == *done && !open.answered) else { return false };
        open.answered = true;
        true
    }
    /// The answer is in the store.
    pub fn settled(&mut self) {
        self.open = None;
        self.dry = false;
    }
    /// Nothing asked so far can be relied upon.
    pub fn restart(&mut self) {
        self.settled();
    }
    pub fn tick(&mut self, now_ms: u64) {
        if self.wake_ms().is_some_and(|at| now_ms >= at) {
            self.restart();
        }
    }
    pub fn wake_ms(&self) -> Option<u64> {
        self.open.as_ref().filter(|open| !open.answered).map(|open| open.until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Seq, StoreId};

    fn ask(from: u64) -> Ask {
        Ask { v: 1, store: StoreId(7), from: Seq(from), to: Seq(from + 9) }
    }

    #[test]
    fn one_question_at_a_time_again_after_silence_and_only_its_own_answer_counts() {
        let mut asks = Asks::default();
        assert!(asks.wanted());
        asks.sending(ask(1), 0);
        assert!(!asks.wanted());
        assert!(!asks.answered(&ask(2)));
        asks.tick(RESEND_MS - 1);
        assert!(!asks.wanted());
        asks.tick(RESEND_MS);
        assert!(asks.wanted(), "nobody answered");
        asks.sending(ask(1), RESEND_MS);
        assert!(asks.answered(&ask(1)) && !asks.answered(&ask(1)), "an answer counts once");
        asks.tick(10 * RESEND_MS);
        assert!(!asks.wanted(), "until it is in the store");
        asks.settled();
        assert!(asks.wanted());
    }
}
