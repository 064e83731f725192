//! Replays: the results of changes whose idempotency keys were used before, found by these keys.

use std::collections::HashMap;

use crate::api::{Order, OrderStatus};
use crate::change::{Change, ChangeError, ChangeResult, KeptAnswer, Made, Outcome};
use crate::order::placed_status;
use crate::reader::Reader;

/// The results of those changes whose idempotency keys were used before.
pub(super) async fn find(
    reader: &Reader,
    changes: &[&Change],
) -> Result<Vec<Option<ChangeResult>>, ChangeError> {
    let keys =
        changes.iter().filter(|change| change.is_purchase()).filter_map(|change| change.key().cloned());
    let orders = reader.orders(keys.collect()).await?;
    let keys = changes.iter().filter(|change| !change.is_purchase()).filter_map(|change| change.key());
    let kept = reader.kept_answers(&keys.collect::<Vec<_>>()).await?;
    let found = |change: &&Change| match change.is_purchase() {
        true => order_replay(change, &orders),
        false => kept_replay(change, &kept),
    };
    Ok(changes.iter().map(found).collect())
}

/// Turns refusals for want of stock into replays, where the idempotency key has an order. A sale needs no
/// such search: the unique constraint on the key rejects it when it is written.
pub(super) async fn replace_refused(
    reader: &Reader,
    changes: &[&Change],
    results: &mut [ChangeResult],
) -> Result<(), ChangeError> {
    let refused = |result: &ChangeResult| matches!(result, Err(ChangeError::InsufficientStock { .. }));
    let keys = changes.iter().zip(&*results).filter(|(_, result)| refused(result));
    let keys = keys.filter_map(|(change, _)| change.key().cloned()).collect();
    let orders = reader.orders(keys).await?;
    for (change, result) in changes.iter().zip(results).filter(|(_, result)| refused(result)) {
        if let Some(replay) = order_replay(change, &orders) {
            *result = replay;
        }
        // It may be paid already, by the same request or by another.
        if change.changed_order().is_some()
            && let Some(ended) = find_changed(reader, change).await
        {
            *result = ended;
        }
    }
    Ok(())
}

/// The result of a change of an order that has another status by now, or is gone: perhaps by the same
/// request. `None` for other changes, and where the order can be changed after all.
pub(super) async fn find_changed(reader: &Reader, change: &Change) -> Option<ChangeResult> {
    let asked = change.changed_order()?;
    let id = asked.id;
    match reader.kept_answers(change.key().as_slice()).await {
        Ok(kept) if !kept.is_empty() => return kept_replay(change, &kept),
        Ok(_) => {}
        Err(error) => return Some(Err(error)),
    }
    let (status, is_overdue) = match reader.order_status(id).await {
        Ok(Some(found)) => found,
        Ok(None) => return Some(Err(ChangeError::NoSuchOrder(id))),
        Err(error) => return Some(Err(error)),
    };
    let error = match (change, status) {
        (Change::Payment(..), OrderStatus::AwaitingPayment) if is_overdue => {
            ChangeError::NotPayable(id, OrderStatus::Expired)
        }
        (Change::Expiry(_), OrderStatus::AwaitingPayment) if !is_overdue => {
            ChangeError::NotPayable(id, status)
        }
        (_, status) if status == asked.status => return None,
        (Change::Cancellation(..), OrderStatus::AwaitingPayment | OrderStatus::Confirmed) => {
            ChangeError::OrderChanged(id)
        }
        (Change::Cancellation(..), status) => ChangeError::NotCancellable(id, status),
        (_, status) => ChangeError::NotPayable(id, status),
    };
    Some(Err(error))
}

/// The result of a purchase whose idempotency key is among `orders`.
fn order_replay(change: &Change, orders: &HashMap<String, Order>) -> Option<ChangeResult> {
    let Change::Purchase(request) = change else { return None };
    let order = orders.get(request.key.as_ref()?.as_str())?;
    if !request.asked_for(order) {
        return Some(Err(ChangeError::KeyReused));
    }
    // The same result as the first time, whatever became of the order since.
    let outcome = Outcome::Ordered(Order { status: placed_status(order), ..order.clone() });
    Some(Ok(Made { outcome, replayed: true }))
}

/// The result of a change other than a purchase whose idempotency key is among `kept`.
fn kept_replay(change: &Change, kept: &[KeptAnswer]) -> Option<ChangeResult> {
    let key = change.key()?;
    kept.iter().find(|kept| kept.key == *key).map(|kept| change.replayed(kept))
}
