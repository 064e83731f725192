//! The changes that came with an idempotency key which another one in the queue has: attached to that, they
//! get its result.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::change::{Change, ChangeError, ChangeResult, Made};
use crate::checkout::ticket::QueuedChange;
use crate::order::IdempotencyKey;

/// For each key of a change that waits in the queue or is being executed: those that came with the same.
#[derive(Debug, Default)]
pub(super) struct Copies {
    by_key: HashMap<CopyKey, Vec<QueuedChange>>,
}

/// By what copies are known: orders have keys of their own.
type CopyKey = (bool, IdempotencyKey);

impl Copies {
    /// Attaches a change to the one that has its key. Returns it where there is none.
    pub(super) fn attach(&mut self, waiting: QueuedChange) -> Option<QueuedChange> {
        match copy_key(&waiting.change).and_then(|key| self.by_key.get_mut(&key)) {
            Some(copies) => {
                copies.push(waiting);
                None
            }
            None => Some(waiting),
        }
    }

    /// Notes that a change waits in the queue, so that others with its key are attached to it.
    pub(super) fn wait_for(&mut self, change: &Change) {
        if let Some(key) = copy_key(change) {
            self.by_key.entry(key).or_default();
        }
    }

    /// The one that takes the place of a change which leaves the queue without a result: the next with the
    /// same key that is not over too. Those that are go to `over`.
    pub(super) fn promote(
        &mut self,
        gone: &QueuedChange,
        is_over: &dyn Fn(&QueuedChange) -> bool,
        over: &mut Vec<QueuedChange>,
    ) -> Option<QueuedChange> {
        let key = copy_key(&gone.change)?;
        let mut copies = self.by_key.remove(&key).into_iter().flatten();
        let next = loop {
            match copies.next()? {
                copy if copy.is_withdrawn() => {}
                copy if is_over(&copy) => over.push(copy),
                copy => break copy,
            }
        };
        self.by_key.insert(key, copies.collect());
        Some(next)
    }

    /// Settles those that are attached to one with a result: the same request gets the same, and another one
    /// with the same key is refused if the first was made, or else decided by itself. So is one that came
    /// after the first was `taken` from the queue, where that was refused for want of stock: more may have
    /// been put in stock before it came.
    ///
    /// Returns the one that is to be decided by itself. If there are several, the others are attached to it.
    pub(super) fn settle(
        &mut self,
        first: &QueuedChange,
        result: &ChangeResult,
        taken: Instant,
        settled: &mut Vec<(QueuedChange, ChangeResult)>,
    ) -> Option<QueuedChange> {
        let key = copy_key(&first.change)?;
        let copies = self.by_key.remove(&key)?;
        let mut undecided = Vec::new();
        for copy in copies {
            let is_same = first.change.request() == copy.change.request();
            match result {
                Ok(made) if is_same => settled.push((copy, Ok(Made { replayed: true, ..made.clone() }))),
                Ok(_) => settled.push((copy, Err(ChangeError::KeyReused))),
                Err(error) if is_same && (copy.since <= taken || !is_for_want_of_stock(error)) => {
                    settled.push((copy, Err(error.clone())));
                }
                Err(_) => undecided.push(copy),
            }
        }
        let mut undecided = undecided.into_iter();
        let next = undecided.next()?;
        self.by_key.insert(key, undecided.collect());
        Some(next)
    }

    /// Takes those that are attached to none of these.
    pub(super) fn take_orphans(&mut self, waiting: &VecDeque<QueuedChange>) -> Vec<QueuedChange> {
        let waits =
            |key: &CopyKey| waiting.iter().any(|waiting| copy_key(&waiting.change).as_ref() == Some(key));
        self.by_key.extract_if(|key, _| !waits(key)).flat_map(|(_, copies)| copies).collect()
    }
}

fn copy_key(change: &Change) -> Option<CopyKey> {
    change.key().map(|key| (change.is_purchase(), key.clone()))
}

fn is_for_want_of_stock(error: &ChangeError) -> bool {
    matches!(error, ChangeError::InsufficientStock { .. })
}
