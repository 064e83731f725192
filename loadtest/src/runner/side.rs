//! Side operations: what goes along with the orders of a run.

use std::time::Duration;

use uuid::Uuid;

use super::{Run, TURN};
use crate::attempt::Attempt;
use crate::scenario::Draw;
use crate::side_operation::{SideAction, SideOperation, SideOutcome};

/// The side operations that follow an attempt.
pub(super) fn actions_after(attempt: &Attempt, draw: Draw) -> Vec<SideAction> {
    let mut actions = Vec::new();
    // One that is to be paid is taken back when it is paid.
    let is_settled = draw.pay_after.is_some() && attempt.sale().is_some_and(|sale| sale.pay_by.is_some());
    if let Some(sale) = attempt.sale().filter(|_| draw.cancel && !is_settled) {
        actions.push(SideAction::Cancel { order: sale.id });
    }
    if draw.restock {
        let reason = format!("after {}", Attempt::buyer(attempt.index));
        actions.push(SideAction::Restock { reason, quantity: attempt.quantity });
    }
    if draw.read {
        actions.push(SideAction::Read { locked: draw.locked });
    }
    actions
}

/// What a buyer does with an order that has to be paid: pays it, some twice at the same time, and some take
/// it back at the same moment.
pub(super) async fn settle(run: &Run, order: Uuid, draw: Draw, target: usize) -> Vec<SideOperation> {
    let timeout = run.scenario.timeout;
    let pay = |target| carry_out(run, SideAction::Pay { order }, target, timeout);
    let paid = async {
        if !draw.twin {
            return pay(target).await;
        }
        let (one, other) = tokio::join!(pay(target), pay(target + 1));
        first_of(one, other)
    };
    if !draw.cancel {
        return vec![paid.await];
    }
    let (paid, cancelled) =
        tokio::join!(paid, carry_out(run, SideAction::Cancel { order }, target + 2, timeout));
    vec![paid, cancelled]
}

/// One record of an operation that was sent twice at the same time under one key: what is known for certain,
/// from when it was first.
fn first_of(one: SideOperation, other: SideOperation) -> SideOperation {
    let sent = one.sent.min(other.sent);
    let certainty = |operation: &SideOperation| match operation.outcome {
        SideOutcome::Done => (0, operation.received),
        SideOutcome::Unknown(_) => (1, operation.received),
        SideOutcome::SoldOut { .. } | SideOutcome::Read { .. } => (2, operation.received),
        SideOutcome::Refused(_) => (3, operation.received),
    };
    let first = if certainty(&one) <= certainty(&other) { one } else { other };
    SideOperation { sent, ..first }
}

/// How often a side operation is sent until it is known what became of it.
const TRIES: usize = 5;

/// Carries out a side operation: sends it again, under the same key and to the next replica, while it is not
/// known what became of it.
pub(super) async fn carry_out(
    run: &Run,
    action: SideAction,
    target: usize,
    timeout: Duration,
) -> SideOperation {
    let sent = run.now();
    let mut outcome = send(run, &action, target, timeout).await;
    for turn in 1..TRIES {
        if !matches!(outcome, SideOutcome::Unknown(_)) {
            break;
        }
        tokio::time::sleep(TURN).await;
        match send(run, &action, target + turn, timeout).await {
            // Says nothing of the time before.
            SideOutcome::Refused(_) | SideOutcome::SoldOut { .. } | SideOutcome::Unknown(_) => {}
            known => outcome = known,
        }
    }
    SideOperation { action, sent, received: run.now(), outcome }
}

async fn send(run: &Run, action: &SideAction, target: usize, timeout: Duration) -> SideOutcome {
    let (sku, client) = (&run.sku, &run.clients[target % run.clients.len()]);
    let key = action.key(sku);
    match action {
        SideAction::Cancel { order } => SideOutcome::of_change(client.cancel(*order, &key, timeout).await),
        SideAction::Pay { order } => SideOutcome::of_change(client.pay(*order, &key, timeout).await),
        SideAction::Restock { reason, quantity } => {
            SideOutcome::of_change(client.restock(sku, *quantity, reason, &key, timeout).await)
        }
        SideAction::Read { locked: false } => SideOutcome::of_read(client.stock(sku).await),
        SideAction::Read { locked: true } => SideOutcome::of_read(client.locked_stock(sku).await),
    }
}
