//! Pictures that got their time after they were taken, on their way to the hub: what the store finds, one record at a time.

use super::jobs::Jobs;
use crate::model::{RETIMES_LOOK_MAX, Seq, SnapshotId, StoreId};
use crate::outbox::{Remember, Retimes};
use crate::protocol::{RETIMED_REV, Record};
use crate::store::{Key, Store, StoreError};

#[derive(Default)]
pub struct Retold {
    retimes: Retimes,
    /// Read, and waits for a place of the window.
    record: Option<Box<Record>>,
}

impl Retold {
    /// From where this store has got to. What cannot be read now is told again.
    pub fn of(store: Option<&Store>) -> Self {
        let upto = store.and_then(|store| store.retimed().ok()).unwrap_or_default();
        Self { retimes: Retimes::from(upto), record: None }
    }

    pub fn news(&mut self) {
        self.retimes.news();
    }
    /// The connection or the store's handle is another one.
    pub fn restart(&mut self) {
        self.retimes.restart();
        self.record = None;
    }
    pub fn go_back(&mut self, oldest: Key) {
        self.retimes.go_back(oldest);
        self.record = None;
    }

    /// Looks for more, and has the next record read.
    pub fn look(&mut self, store: &Store, jobs: &mut Jobs, now_ms: u64) -> Result<(), StoreError> {
        self.retimes.tick(now_ms);
        if let Some((after, room)) = self.retimes.wanted() {
            let untold = store.to_retime(after, RETIMES_LOOK_MAX, room)?;
            let found = untold.found.iter().filter_map(|key| Some((*key, store.id_of(*key)?)));
            self.retimes.found(found, untold.upto, untold.rows, untold.more);
            self.remember(store);
        }
        if let Some((key, _)) = self.retimes.take(now_ms) {
            jobs.record(store.clone(), key);
        }
        Ok(())
    }
    pub fn read(&mut self, key: Key, record: Option<Box<Record>>) {
        if record.is_none() {
            self.retimes.gone(key);
        }
        self.record = record.or(self.record.take());
    }

    /// The record that goes now.
    pub fn next(&mut self, now_ms: u64) -> Option<Box<Record>> {
        let record = self.record.take()?;
        self.retimes.sending(now_ms);
        Some(record)
    }
    pub fn turn_over(&self) -> bool {
        self.retimes.turn_over()
    }
    pub fn picture_sent(&mut self) {
        self.retimes.picture_sent();
    }

    /// The hub says which revisions it durably has.
    pub fn confirmed(&mut self, store: &Store, of: StoreId, revs: &[(Seq, u32)], now_ms: u64) {
        for (seq, _) in revs.iter().filter(|(_, rev)| *rev >= RETIMED_REV) {
            self.retimes.confirmed(SnapshotId { store: of, seq: *seq }, now_ms);
        }
        self.remember(store);
    }

    fn remember(&mut self, store: &Store) {
        if let Some(Remember { upto, told }) = self.retimes.remember() {
            store.set_retimed(upto, told);
        }
    }

    /// A look that ended at its limit goes on at once; else when the next record is due.
    pub fn wake_ms(&self) -> Option<u64> {
        self.retimes.wanted().map(|_| 0).into_iter().chain(self.retimes.wake_ms()).min()
    }
}
