//! The batches that one commit is to write, and which of them it has to leave out.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Rejected, Transition, WriteBatch, Written};
use crate::api::{Adjustment, Order};
use crate::change::KeptAnswer;
use crate::order::IdempotencyKey;

/// Batches on their way into the database.
pub(super) struct Flight<'a> {
    batches: &'a [&'a WriteBatch],
    results: Vec<Result<(), Rejected>>,
    pay_by: Option<Timestamp>,
}

impl<'a> Flight<'a> {
    /// All batches, none of them rejected.
    pub(super) fn new(batches: &'a [&'a WriteBatch]) -> Self {
        Self { batches, results: vec![Ok(()); batches.len()], pay_by: None }
    }

    /// The batches that are not rejected, with their numbers.
    pub(super) fn accepted(&self) -> impl Iterator<Item = (usize, &'a WriteBatch)> {
        let numbered = self.batches.iter().copied().enumerate();
        numbered.filter(|(number, _)| self.results[*number].is_ok())
    }

    /// Rejects those of the accepted batches that `why` gives a reason for.
    pub(super) fn reject(&mut self, mut why: impl FnMut(usize, &WriteBatch) -> Option<Rejected>) {
        for (number, batch) in self.batches.iter().enumerate() {
            if self.results[number].is_ok()
                && let Some(rejected) = why(number, batch)
            {
                self.results[number] = Err(rejected);
            }
        }
    }

    /// Rejects as stale the batches that may not be written any more.
    pub(super) fn reject_expired(&mut self, may_write: &(dyn Fn(usize) -> bool + Sync)) {
        self.reject(|number, _| (!may_write(number)).then_some(Rejected::Stale));
    }

    /// Rejects the batches whose products are not among those that could be written.
    pub(super) fn reject_unwritten(&mut self, written: &HashSet<i32>) {
        self.reject(|number, batch| {
            let unwritten = !written.contains(&ordinal(number));
            unwritten.then_some(if batch.guarded.is_some() { Rejected::Stale } else { Rejected::Busy })
        });
    }

    /// Rejects the batches that change an order which is not among those that are as they must be.
    pub(super) fn reject_changed(&mut self, unchanged: &HashSet<Uuid>) {
        self.reject(|_, batch| {
            let all = batch.transitions.iter().all(|transition| unchanged.contains(&transition.order));
            (!all).then_some(Rejected::OrderChanged)
        });
    }

    /// Rejects the batches that reset one of these products, which have too many orders for it.
    pub(super) fn reject_resets(&mut self, many: &[String]) {
        self.reject(|_, batch| {
            let is_one = batch.reset.is_some() && many.iter().any(|sku| sku == batch.sku.as_str());
            is_one.then_some(Rejected::TooManyOrders)
        });
    }

    /// Rejects the batches that have an idempotency key among `taken`.
    pub(super) fn reject_keys(&mut self, taken: &HashSet<String>) {
        self.reject(|_, batch| {
            let mut keys = batch.orders.iter().filter_map(|(_, key)| key.as_ref());
            keys.any(|key| taken.contains(key.as_str())).then_some(Rejected::KeyTaken)
        });
    }

    /// Whether a batch is to do something before its orders, which would have to be undone if these were
    /// rejected.
    pub(super) fn is_mixed(&self) -> bool {
        self.accepted().any(|(_, batch)| !batch.orders.is_empty() && does_more_before_orders(batch))
    }

    /// Rejects the batches of which not all orders are among `inserted`.
    pub(super) fn reject_uninserted(&mut self, inserted: &HashSet<Uuid>) -> Uninserted {
        let mut partly = Vec::new();
        let mut left_traces = false;
        self.reject(|_, batch| {
            let ids = || batch.orders.iter().map(|(order, _)| order.id);
            if ids().all(|id| inserted.contains(&id)) {
                return None;
            }
            partly.extend(ids().filter(|id| inserted.contains(id)));
            left_traces |= does_more_before_orders(batch);
            Some(Rejected::KeyTaken)
        });
        if left_traces { Uninserted::All } else { Uninserted::Orders(partly) }
    }

    /// The orders to insert, with the numbers of their batches, in the order of their keys: keys are unique
    /// across products, and two commits that share some must meet them in one order, or could wait for each
    /// other.
    pub(super) fn orders(&self) -> Vec<(usize, &'a Order, Option<&'a IdempotencyKey>)> {
        let of = |(number, batch): (usize, &'a WriteBatch)| {
            batch.orders.iter().map(move |(order, key)| (number, order, key.as_ref()))
        };
        let mut orders: Vec<_> = self.accepted().flat_map(of).collect();
        orders.sort_unstable_by(|(_, _, one), (_, _, other)| {
            one.map(IdempotencyKey::as_str).cmp(&other.map(IdempotencyKey::as_str))
        });
        orders
    }

    /// The idempotency keys of the orders to insert.
    pub(super) fn keys(&self) -> Vec<&'a str> {
        let orders = self.accepted().flat_map(|(_, batch)| &batch.orders);
        orders.filter_map(|(_, key)| key.as_ref()).map(IdempotencyKey::as_str).collect()
    }

    /// The changes of orders, in the order of their ids: two commits that share some must meet them in one
    /// order, or could wait for each other.
    pub(super) fn transitions(&self) -> Vec<Transition> {
        let mut transitions: Vec<_> =
            self.accepted().flat_map(|(_, batch)| &batch.transitions).copied().collect();
        transitions.sort_unstable_by_key(|transition| transition.order);
        transitions
    }

    /// Within which time the orders have to be paid.
    pub(super) fn payment_window(&self) -> Option<Duration> {
        let window = self.accepted().next().and_then(|(_, batch)| batch.payment_window);
        debug_assert!(self.accepted().all(|(_, batch)| batch.payment_window == window));
        window
    }

    /// Notes until when the orders that were written have to be paid.
    pub(super) fn note_pay_by(&mut self, pay_by: Option<Timestamp>) {
        self.pay_by = pay_by.or(self.pay_by);
    }

    /// The adjustments to insert.
    pub(super) fn adjustments(&self) -> Vec<&'a Adjustment> {
        self.accepted().flat_map(|(_, batch)| &batch.adjustments).collect()
    }

    /// The answers to keep, in the order of their keys, as [orders](Self::orders) are.
    pub(super) fn answers(&self) -> Vec<&'a KeptAnswer> {
        let mut answers: Vec<_> = self.accepted().flat_map(|(_, batch)| &batch.answers).collect();
        answers.sort_unstable_by_key(|answer| answer.key.as_str());
        answers
    }

    /// Rejects the batches of which not all answers are kept: of two with the same key, the one of the first
    /// is. Returns the keys of those of their answers that are kept nevertheless.
    pub(super) fn reject_unkept(&mut self, kept: &HashSet<String>) -> Vec<String> {
        let mut partly = Vec::new();
        let mut given = HashSet::new();
        self.reject(|_, batch| {
            let keys = || batch.answers.iter().map(|answer| answer.key.as_str());
            let is_free = |key: &str| kept.contains(key) && !given.contains(key);
            if keys().all(is_free) {
                given.extend(keys().map(str::to_owned));
                return None;
            }
            partly.extend(keys().filter(|key| is_free(key)).map(str::to_owned));
            Some(Rejected::KeyTaken)
        });
        partly
    }

    /// The products to reset.
    pub(super) fn resets(&self) -> Vec<&'a str> {
        let resets = self.accepted().filter(|(_, batch)| batch.reset.is_some());
        resets.map(|(_, batch)| batch.sku.as_str()).collect()
    }

    /// Whether there is nothing but orders.
    pub(super) fn is_only_orders(&self) -> bool {
        self.accepted().all(|(_, batch)| batch.is_only_orders())
    }

    /// The batch that is not rejected, where there is only one.
    pub(super) fn only(&self) -> Option<(usize, &'a WriteBatch)> {
        let mut accepted = self.accepted();
        accepted.next().filter(|_| accepted.next().is_none())
    }

    /// Whether every batch is rejected.
    pub(super) fn is_empty(&self) -> bool {
        self.accepted().next().is_none()
    }

    /// What became of each batch, once those that are not rejected are committed.
    pub(super) fn results(self) -> Vec<Result<Written, Rejected>> {
        let written = Written { pay_by: self.pay_by };
        self.results.into_iter().map(|result| result.map(|()| written)).collect()
    }
}

/// What has to be undone of batches whose orders could not all be inserted.
pub(super) enum Uninserted {
    /// These orders.
    Orders(Vec<Uuid>),
    /// All that was done in the flight so far: answers are kept already, or orders deleted.
    All,
}

/// Whether something is done for a batch before its orders are inserted.
fn does_more_before_orders(batch: &WriteBatch) -> bool {
    !batch.answers.is_empty() || batch.reset.is_some()
}

/// A batch's number, as the databases have it.
pub(super) fn ordinal(number: usize) -> i32 {
    i32::try_from(number).expect("a flight has fewer than two billion batches")
}
