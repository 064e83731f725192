//! The shop's own hands: they put more units in stock whenever few are left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Shared, run_errand};
use crate::errand::{self, Errand, What};

/// How often the stock is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How many looks a buyer has the time to find what was put in stock.
const NOTICED: usize = 20;

/// How many looks' sales have to be in stock: what is sold within a second.
const AHEAD: usize = 100;

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long an answer is waited for, before another replica is asked: meanwhile the stock runs out.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a stock of at least half of what there was at the beginning, and of what sells within a second, until the
/// scenario says that it is enough or all buyers have gone.
pub(super) async fn run(shared: Arc<Shared>) -> Vec<Errand> {
    let mut errands = Vec::new();
    let Some(end) = shared.scenario.topped_up else { return errands };
    // Some ends are later than any clock can tell.
    let end = end.min(FOREVER);
    let stop = async {
        tokio::select! {
            () = tokio::time::sleep_until((shared.start + end).into()) => {}
            () = shared.gone.cancelled() => {}
            () = shared.progress.stop().cancelled() => {}
        }
    };
    tokio::pin!(stop);
    let mut sold = VecDeque::from([0]);
    loop {
        tokio::select! {
            // What was begun is carried through.
            () = &mut stop => return errands,
            () = tokio::time::sleep(LOOK) => {}
        }
        sold.push_back(shared.progress.sold());
        if sold.len() > AHEAD {
            sold.pop_front();
        }
        let orders = sold.back().zip(sold.front()).map_or(0, |(now, before)| now - before);
        let selling =
            i64::try_from(orders).unwrap_or(i64::MAX).saturating_mul(*shared.scenario.quantity.end());
        let enough = selling.max(shared.scenario.stock / 2).max(*shared.scenario.quantity.end());
        let left = shared.progress.left();
        if left >= enough {
            continue;
        }
        let number = errands.len();
        // As many as may be put in stock at once.
        let quantity = (2 * enough - left).clamp(1, order_service::order::MAX_STOCK);
        let what = What::Restock { reason: format!("top-up {number}"), quantity };
        let errand = run_errand(&shared, what, number, PATIENCE).await;
        if errand.outcome == errand::Outcome::Done {
            shared.progress.count_restock(quantity);
        }
        errands.push(errand);
        // How much there is now, the next answer tells.
        let done = shared.progress.done();
        for _ in 0..NOTICED {
            if shared.progress.done() > done {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
