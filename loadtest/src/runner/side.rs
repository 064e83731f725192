//! Side operations: what goes along with the orders of a run.

use std::time::Duration;

use super::{Run, TURN};
use crate::attempt::Attempt;
use crate::scenario::Draw;
use crate::side_operation::{SideAction, SideOperation, SideOutcome};

/// The side operations that follow an attempt.
pub(super) fn actions_after(attempt: &Attempt, draw: Draw) -> Vec<SideAction> {
    let mut actions = Vec::new();
    if let Some(sale) = attempt.sale().filter(|_| draw.cancel) {
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
            SideOutcome::Refused(_) | SideOutcome::Unknown(_) => {}
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
        SideAction::Restock { reason, quantity } => {
            SideOutcome::of_change(client.restock(sku, *quantity, reason, &key, timeout).await)
        }
        SideAction::Read { locked: false } => SideOutcome::of_read(client.stock(sku).await),
        SideAction::Read { locked: true } => SideOutcome::of_read(client.locked_stock(sku).await),
    }
}
