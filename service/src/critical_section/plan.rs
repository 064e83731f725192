//! The plan of a round: what to write for changes that were decided together, and the result of each. Pure.

use jiff::Timestamp;
use uuid::Uuid;

use crate::api::{Adjustment, LockEvidence, Order, OrderStatus, Product};
use crate::change::{Change, ChangeError, ChangeResult, KeptAnswer, Outcome};
use crate::config::{DecideBy, PaymentRule};
use crate::inventory::{Decision, Operation, StockLevel, decide};
use crate::order::units_taken;
use crate::store::{Transition, WriteBatch};

/// What to write, and the results once it is written.
pub(super) struct Plan {
    /// What to write; its orders are taken out again for the results.
    pub(super) batch: WriteBatch,
    /// The version that was decided on.
    before: i64,
    /// The level once the batch is written.
    pub(super) after: StockLevel,
    planned: Vec<Planned>,
    /// Whether a change is refused for want of stock.
    pub(super) refuses: bool,
}

/// The result of a change, once what was planned is written.
enum Planned {
    /// The next order of the batch.
    Order,
    /// This result, of which something has to be written.
    Result(ChangeResult),
    /// This, of which nothing has to be written.
    Refused(ChangeError),
}

/// What every order says about the hold under which it was written.
pub(super) struct Evidence<'a> {
    pub(super) strategy: &'static str,
    pub(super) token: Option<i64>,
    pub(super) replica: &'a str,
    pub(super) now: Timestamp,
    /// By when orders have to be paid, if at all.
    pub(super) payment: Option<PaymentRule>,
}

impl Plan {
    /// Decides changes on `level`. `batch` is empty, and says on what version it may be written.
    pub(super) fn new(
        batch: WriteBatch,
        level: StockLevel,
        changes: &[&Change],
        evidence: &Evidence<'_>,
    ) -> Self {
        let operations: Vec<_> = changes.iter().map(|change| operation(change, evidence.payment)).collect();
        let (decisions, after) = decide(level, &operations);
        let batch = WriteBatch {
            stock_after: after.stock,
            versions: after.version - level.version,
            payment_window: evidence.payment.map(|rule| rule.window),
            ..batch
        };
        let planned = Vec::with_capacity(changes.len());
        let mut plan = Self { batch, before: level.version, after, planned, refuses: false };
        for (change, decision) in changes.iter().zip(decisions) {
            plan.add(evidence, change, decision);
        }
        plan
    }

    fn add(&mut self, evidence: &Evidence<'_>, change: &Change, decision: Decision) {
        let (stock_before, stock_after, version) = match decision {
            Decision::Done { stock_before, stock_after, version } => (stock_before, stock_after, version),
            Decision::Insufficient { available, version } => {
                let (Operation::Sell(requested) | Operation::Check(requested)) =
                    operation(change, evidence.payment)
                else {
                    unreachable!("only those need stock")
                };
                self.refuses = true;
                let refused = ChangeError::InsufficientStock { requested, available, version };
                self.planned.push(Planned::Refused(refused));
                return;
            }
        };
        let adjustment = |sku: &str, delta: i64, reason: String| Adjustment {
            id: Uuid::now_v7(),
            sku: sku.into(),
            delta,
            reason,
            version,
            created_at: evidence.now,
        };
        let planned = match change {
            Change::Purchase(request) => {
                let order = Order {
                    id: Uuid::now_v7(),
                    sku: request.sku.as_str().into(),
                    buyer: request.buyer.as_str().into(),
                    quantity: request.quantity.units(),
                    status: match evidence.payment {
                        Some(_) => OrderStatus::AwaitingPayment,
                        None => OrderStatus::Confirmed,
                    },
                    // By the store's clock, when it is written.
                    pay_by: None,
                    stock_before,
                    stock_after,
                    version,
                    lock: LockEvidence { strategy: evidence.strategy.into(), fencing_token: evidence.token },
                    replica: evidence.replica.into(),
                    created_at: evidence.now,
                };
                self.batch.orders.push((order, request.key.clone()));
                Planned::Order
            }
            Change::Cancellation(order, _) | Change::Payment(order, _) | Change::Expiry(order) => {
                let (what, to) = match change {
                    Change::Payment(..) => ("paid", OrderStatus::Confirmed),
                    Change::Expiry(_) => ("expired", OrderStatus::Expired),
                    _ => ("cancelled", OrderStatus::Cancelled),
                };
                let changed = Order { status: to, ..order.clone() };
                self.batch.transitions.push(Transition {
                    order: order.id,
                    from: order.status,
                    to,
                    units_before: units_taken(order),
                    units_after: units_taken(&changed),
                });
                let (delta, reason) = (stock_after - stock_before, format!("{what} {}", order.id));
                self.batch.adjustments.push(adjustment(&order.sku, delta, reason));
                let outcome = match to {
                    OrderStatus::Confirmed => Outcome::Paid(changed),
                    OrderStatus::Expired => Outcome::Expired(changed),
                    _ => Outcome::Cancelled(changed),
                };
                self.made(change, outcome)
            }
            Change::Restock(restock) => {
                let units = restock.quantity.units();
                let adjustment = adjustment(restock.sku.as_str(), units, restock.reason.as_str().into());
                self.batch.supplied += units;
                self.batch.adjustments.push(adjustment.clone());
                self.made(change, Outcome::Restocked(adjustment))
            }
            Change::Reset(product) => {
                let product = Product {
                    sku: product.sku.as_str().into(),
                    name: product.name.as_str().into(),
                    stock: product.stock,
                    version,
                    supply: product.stock,
                    created_at: evidence.now,
                };
                self.batch.reset = Some(product.clone());
                self.made(change, Outcome::Reset(product))
            }
        };
        self.planned.push(planned);
    }

    /// A change other than an order that is made once the batch is written, and the answer that is kept for
    /// it.
    fn made(&mut self, change: &Change, outcome: Outcome) -> Planned {
        self.batch.answers.extend(KeptAnswer::of(change.key(), || change.request(), &outcome));
        Planned::Result(Ok(outcome.into()))
    }

    /// The batch, to be written; its place is taken by an empty one.
    pub(super) fn take_batch(&mut self) -> WriteBatch {
        let nothing = WriteBatch::empty(self.batch.sku.clone());
        std::mem::replace(&mut self.batch, nothing)
    }

    /// Nothing was written, or it is not known whether: gives every change that was to be written the result
    /// `failed`, and `undecided` to every one that was refused on account of those before it.
    pub(super) fn fail(&mut self, failed: &ChangeError, undecided: &ChangeError) {
        for planned in &mut self.planned {
            match planned {
                Planned::Refused(ChangeError::InsufficientStock { version, .. })
                    if *version == self.before => {}
                Planned::Refused(_) => *planned = Planned::Result(Err(undecided.clone())),
                Planned::Order | Planned::Result(_) => *planned = Planned::Result(Err(failed.clone())),
            }
        }
    }

    /// The result of each change, now that the batch is written.
    pub(super) fn into_results(self) -> Vec<ChangeResult> {
        let mut orders = self.batch.orders.into_iter().map(|(order, _)| order);
        let result = |planned| match planned {
            Planned::Order => {
                Ok(Outcome::Ordered(orders.next().expect("each has its order in the batch")).into())
            }
            Planned::Result(result) => result,
            Planned::Refused(error) => Err(error),
        };
        self.planned.into_iter().map(result).collect()
    }
}

fn operation(change: &Change, payment: Option<PaymentRule>) -> Operation {
    let decides = |by| payment.is_some_and(|rule| rule.decide_by == by);
    match change {
        Change::Purchase(order) if decides(DecideBy::Payment) => Operation::Check(order.quantity.units()),
        Change::Purchase(order) => Operation::Sell(order.quantity.units()),
        // By the order's own rule, which may be older than the configuration.
        Change::Payment(order, _) if units_taken(order) == 0 => Operation::Sell(order.quantity),
        Change::Payment(..) => Operation::Check(0),
        Change::Cancellation(order, _) | Change::Expiry(order) => Operation::Return(units_taken(order)),
        Change::Restock(restock) => Operation::Add(restock.quantity.units()),
        Change::Reset(product) => Operation::Reset(product.stock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Sku;

    #[test]
    fn a_refusal_for_what_was_not_written_is_not_told() {
        let refused = |version| {
            Planned::Refused(ChangeError::InsufficientStock { requested: 2, available: 1, version })
        };
        let sku = Sku::parse("comb").expect("a name");
        let after = StockLevel { stock: 0, version: 8, supply: 1 };
        for failed in [ChangeError::OutcomeUnknown, ChangeError::DependencyDown("failed".into())] {
            let undecided = ChangeError::DependencyDown("undecided".into());
            let mut plan = Plan {
                batch: WriteBatch::empty(sku.clone()),
                before: 7,
                after,
                // The first found too few; the third would have, had the second been written.
                planned: vec![refused(7), Planned::Order, refused(8)],
                refuses: true,
            };
            plan.fail(&failed, &undecided);
            let results: Vec<_> = plan.into_results().into_iter().map(|result| result.map(drop)).collect();
            let truly = ChangeError::InsufficientStock { requested: 2, available: 1, version: 7 };
            assert_eq!(results, [Err(truly), Err(failed), Err(undecided)]);
        }
    }
}
