//! Replays: the results of changes whose idempotency keys were used before, found by these keys.

use std::collections::HashMap;

use crate::api::{Order, OrderStatus};
use crate::change::{Change, ChangeError, ChangeResult, KeptAnswer, Made, Outcome};
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
    }
    Ok(())
}

/// The result of a cancellation whose order is cancelled or gone: perhaps by the same request. `None` for
/// other changes, and where the order can be cancelled after all.
pub(super) async fn find_cancelled(reader: &Reader, change: &Change) -> Option<ChangeResult> {
    let Change::Cancellation(Order { id, .. }, ref key) = *change else { return None };
    match reader.kept_answers(key.as_ref().as_slice()).await {
        Ok(kept) if !kept.is_empty() => return kept_replay(change, &kept),
        Ok(_) => {}
        Err(error) => return Some(Err(error)),
    }
    match reader.order(id).await {
        Ok(Some(order)) if order.status == OrderStatus::Confirmed => None,
        Ok(Some(_)) => Some(Err(ChangeError::NotCancellable(id))),
        Ok(None) => Some(Err(ChangeError::NoSuchOrder(id))),
        Err(error) => Some(Err(error)),
    }
}

/// The result of a purchase whose idempotency key is among `orders`.
fn order_replay(change: &Change, orders: &HashMap<String, Order>) -> Option<ChangeResult> {
    let Change::Purchase(request) = change else { return None };
    let order = orders.get(request.key.as_ref()?.as_str())?;
    if !request.asked_for(order) {
        return Some(Err(ChangeError::KeyReused));
    }
    // The same result as the first time, whatever became of the order since.
    let outcome = Outcome::Ordered(Order { status: OrderStatus::Confirmed, ..order.clone() });
    Some(Ok(Made { outcome, replayed: true }))
}

/// The result of a change other than a purchase whose idempotency key is among `kept`.
fn kept_replay(change: &Change, kept: &[KeptAnswer]) -> Option<ChangeResult> {
    let key = change.key()?;
    kept.iter().find(|kept| kept.key == *key).map(|kept| change.replayed(kept))
}
