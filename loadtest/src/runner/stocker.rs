//! The stocker of a run: it puts more units in stock whenever few are left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Run;
use super::side::carry_out;
use crate::side_operation::{SideAction, SideOperation, SideOutcome};

/// How often the stocker compares the stock with what is sold.
const INTERVAL: Duration = Duration::from_millis(10);

/// For how many intervals a buyer has the time to find what was put in stock.
const NOTICED: usize = 20;

/// The sales of how many intervals have to be in stock: what is sold within a second.
const AHEAD: usize = 100;

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time-out of a restock, after which it is sent to another replica: meanwhile the stock runs out.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps a stock of at least half of what there was at the beginning, and of what sells within a second,
/// until the scenario says that it is enough or all buyers have gone.
pub(super) async fn run(run: Arc<Run>) -> Vec<SideOperation> {
    let mut side_operations = Vec::new();
    let Some(end) = run.scenario.topped_up else { return side_operations };
    // Some ends are later than a clock can count.
    let end = end.min(FOREVER);
    let stop = async {
        tokio::select! {
            () = tokio::time::sleep_until((run.start + end).into()) => {}
            () = run.gone.cancelled() => {}
            () = run.progress.stop().cancelled() => {}
        }
    };
    tokio::pin!(stop);
    let mut sold = VecDeque::from([0]);
    loop {
        tokio::select! {
            // What was begun is carried through.
            () = &mut stop => return side_operations,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        sold.push_back(run.progress.sold());
        if sold.len() > AHEAD {
            sold.pop_front();
        }
        let orders = sold.back().zip(sold.front()).map_or(0, |(now, before)| now - before);
        let selling = i64::try_from(orders).unwrap_or(i64::MAX).saturating_mul(*run.scenario.quantity.end());
        let enough = selling.max(run.scenario.stock / 2).max(*run.scenario.quantity.end());
        let left = run.progress.left();
        if left >= enough {
            continue;
        }
        let number = side_operations.len();
        // As many as may be put in stock at once.
        let quantity = (2 * enough - left).clamp(1, order_service::order::MAX_STOCK);
        let action = SideAction::Restock { reason: format!("top-up {number}"), quantity };
        run.progress.expect(quantity);
        let operation = carry_out(&run, action, number, TIMEOUT).await;
        match operation.outcome {
            SideOutcome::Done => run.progress.count_restock(quantity),
            SideOutcome::Unknown(_) => {}
            _ => run.progress.count_refused(quantity),
        }
        side_operations.push(operation);
        // The next answer says how much there is now.
        let done = run.progress.done();
        for _ in 0..NOTICED {
            if run.progress.done() > done {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
