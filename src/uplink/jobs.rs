//! Work with the store beside the loop: reading pictures, and what the hub says of them on its way into the index.

use crate::model::{Hash8, Seq, SnapshotId, StoreId};
use crate::protocol::{Ask, Record};
use crate::store::{Key, Store, StoreError};
use std::future;
use tokio::task::JoinSet;

/// Answers of the hub on their way into the store; more wait in the connection.
const ANSWERS_MAX: usize = 64;

pub enum Done {
    Read(SnapshotId, Option<Vec<u8>>),
    /// Acknowledgements the store accepted and ignored.
    Acknowledged {
        accepted: u64,
        ignored: u64,
    },
    /// The oldest picture of those that are to be sent again.
    WantedAgain(Option<Key>),
    /// The record of a picture that got its time later, to be sent alone.
    Record(Key, Option<Box<Record>>),
    /// The store knows that the hub has answered.
    Answered,
}

#[derive(Default)]
pub struct Jobs {
    reads: JoinSet<Result<Done, StoreError>>,
    answers: JoinSet<Result<Done, StoreError>>,
}

impl Jobs {
    /// Whether one more answer of the hub may be taken.
    pub fn has_room(&self) -> bool {
        self.answers.len() < ANSWERS_MAX
    }

    pub fn read(&mut self, store: Store, id: SnapshotId) {
        self.reads.spawn_blocking(move || Ok(Done::Read(id, store.read_picture(id)?)));
    }

    pub fn record(&mut self, store: Store, key: Key) {
        self.reads.spawn_blocking(move || Ok(Done::Record(key, store.retimed_record(key)?.map(Box::new))));
    }

    pub fn acknowledge(&mut self, store: Store, of: StoreId, have: Vec<(Seq, Hash8)>, gaps: u64) {
        self.answers.spawn(async move {
            let (accepted, ignored) = store.acknowledge(of, have, gaps).await?;
            Ok(Done::Acknowledged { accepted, ignored })
        });
    }

    pub fn want_again(&mut self, store: Store, ids: Vec<SnapshotId>) {
        self.answers.spawn(async move { store.want_again(ids).await.map(Done::WantedAgain) });
    }

    pub fn answered(&mut self, store: Store, ask: Ask) {
        self.answers.spawn(async move { store.answered(ask.store, ask.from, ask.to).await.map(|()| Done::Answered) });
    }

    /// Waits for one to end. Dropping the wait loses nothing.
    pub async fn next(&mut self) -> Result<Done, StoreError> {
        loop {
            let ended = tokio::select! {
                Some(ended) = self.reads.join_next() => ended,
                Some(ended) = self.answers.join_next() => ended,
                else => future::pending().await,
            };
            // One that panicked has ended the process through the panic hook.
            if let Ok(done) = ended {
                return done;
            }
        }
    }
}
