//! A buyer: orders, waits for the answer, and orders again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

use super::answer::{key, outcome};
use super::side::{actions_after, carry_out, settle};
use super::{Run, TURN};
use crate::attempt::{Attempt, Outcome};
use crate::client::{Client, OrderRequest, Session};
use crate::scenario::Draw;
use crate::side_operation::{SideAction, SideOperation, SideOutcome};

/// Orders until the run is over. Returns every attempt, and the side operations.
pub(super) async fn run(number: usize, run: Arc<Run>) -> (Vec<Attempt>, Vec<SideOperation>) {
    let (mut attempts, mut side_operations) = (Vec::new(), Vec::new());
    let mut paying = JoinSet::new();
    let mut sessions: Vec<_> = run.clients.iter().map(Client::session).collect();
    let mut target = number % sessions.len();
    while let Some((index, due)) = run.take() {
        let mut free = run.now();
        let mut intended = free;
        if let Some(due) = due {
            intended = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
            if intended > free {
                tokio::select! {
                    () = sleep_until((run.start + due).into()) => free = intended,
                    // This order was not sent yet.
                    () = run.progress.stop().cancelled() => break,
                }
            }
        }
        let draw = run.scenario.draw(index);
        let mut attempt = Attempt {
            index,
            replay: false,
            twin: draw.twin,
            quantity: draw.quantity,
            intended,
            free,
            sent: 0,
            received: 0,
            outcome: Outcome::Unanswered,
        };
        // Repetitions go to another replica, where there is one: the key is the database's, not a replica's.
        let other = |target: usize| (target + 1) % run.clients.len();
        if draw.twin {
            let mut twin = Attempt { replay: true, ..attempt.clone() };
            let mut session = run.clients[other(target)].session();
            tokio::join!(
                send(&run, &mut attempt, &mut sessions[target]),
                send(&run, &mut twin, &mut session)
            );
            attempts.push(twin);
        } else {
            send(&run, &mut attempt, &mut sessions[target]).await;
        }
        if attempt.is_unknown() || matches!(attempt.outcome, Outcome::Failed { .. }) {
            target = other(target);
            tokio::time::sleep(TURN).await;
        }
        // As a client does that got no answer; and some of those do that got one.
        if attempt.is_unknown() || (draw.replay && attempt.sale().is_some()) {
            let free = run.now();
            let mut again = Attempt { replay: true, twin: false, free, intended: free, ..attempt.clone() };
            send(&run, &mut again, &mut sessions[other(target)]).await;
            if attempt.is_unknown() {
                run.progress.count_late(&again);
            }
            attempts.push(again);
        }
        if let Some((sale, pay_by)) = attempt.sale().and_then(|sale| Some((sale, sale.pay_by?))) {
            let taken = sale.units_taken(attempt.quantity);
            match draw.pay_after {
                Some(after) => {
                    let order = Reserved { id: sale.id, quantity: attempt.quantity, taken, pay_by };
                    let payment = pay(Arc::clone(&run), order, after, draw, target);
                    if after.is_zero() {
                        side_operations.extend(payment.await);
                    } else {
                        paying.spawn(payment);
                    }
                }
                // One that is cancelled has put back its units.
                None if !draw.cancel => drop(tokio::spawn(expire(Arc::clone(&run), pay_by, taken, false))),
                None => {}
            }
        }
        for action in actions_after(&attempt, draw) {
            side_operations.push(follow_up(&run, &attempt, action, target).await);
        }
        attempts.push(attempt);
    }
    while let Some(paid) = paying.join_next().await {
        side_operations.extend(paid.expect("a payment does not panic"));
    }
    (attempts, side_operations)
}

/// Carries out what follows an attempt, and counts the units that come back.
async fn follow_up(run: &Arc<Run>, attempt: &Attempt, action: SideAction, target: usize) -> SideOperation {
    let sale = attempt.sale();
    let units = match &action {
        SideAction::Cancel { .. } => sale.map_or(0, |sale| sale.units_taken(attempt.quantity)),
        SideAction::Restock { quantity, .. } => *quantity,
        SideAction::Pay { .. } | SideAction::Read { .. } => 0,
    };
    run.progress.expect(units);
    let operation = carry_out(run, action, target, run.scenario.timeout).await;
    match (&operation.outcome, &operation.action, sale.and_then(|sale| sale.pay_by)) {
        (SideOutcome::Done, SideAction::Restock { .. }, _) => run.progress.count_restock(units),
        (SideOutcome::Done, ..) => run.progress.count_cancel(units),
        (SideOutcome::Unknown(_), ..) => {}
        (_, SideAction::Cancel { .. }, Some(pay_by)) => {
            tokio::spawn(expire(Arc::clone(run), pay_by, units, true));
        }
        _ => run.progress.count_refused(units),
    }
    operation
}

/// An order that has to be paid.
struct Reserved {
    id: Uuid,
    quantity: i64,
    /// Units that it took from the stock when it was placed.
    taken: i64,
    /// When it puts them back, unless it is paid.
    pay_by: Timestamp,
}

/// Pays an order so long after it was placed, and counts the units that it takes or that come back.
async fn pay(
    run: Arc<Run>,
    order: Reserved,
    after: Duration,
    draw: Draw,
    target: usize,
) -> Vec<SideOperation> {
    let Reserved { id, quantity, mut taken, pay_by } = order;
    let is_due = tokio::time::Instant::now() + after;
    if after > until(pay_by) {
        expire(Arc::clone(&run), pay_by, taken, false).await;
        taken = 0;
    }
    sleep_until(is_due).await;
    run.progress.expect(taken);
    let operations = settle(&run, id, draw, target).await;
    let is_done = |is_it: fn(&SideAction) -> bool| {
        operations.iter().any(|operation| operation.is_done() && is_it(&operation.action))
    };
    let is_open = operations.iter().any(|operation| matches!(operation.outcome, SideOutcome::Unknown(_)));
    let is_paid = is_done(|action| matches!(action, SideAction::Pay { .. }));
    if is_paid {
        run.progress.count_taken(quantity - taken);
    }
    if is_done(|action| matches!(action, SideAction::Cancel { .. })) {
        let back = if is_paid { quantity } else { taken };
        run.progress.expect(back - taken);
        run.progress.count_cancel(back);
    } else if is_paid {
        run.progress.count_refused(taken);
    } else if !is_open {
        tokio::spawn(expire(run, pay_by, taken, true));
    }
    operations
}

/// How far the clocks of two hosts may be apart: so much earlier the units of an order that expires are
/// expected back.
const EARLY: Duration = Duration::from_secs(1);

/// Counts the units of an order that nobody has paid as back in stock when its time is over, unless the run
/// is over before. Says from when on they may be there, unless they are expected already.
async fn expire(run: Arc<Run>, pay_by: Timestamp, taken: i64, is_expected: bool) {
    if taken == 0 {
        return;
    }
    let back = async {
        if !is_expected {
            sleep(until(pay_by).saturating_sub(EARLY)).await;
            run.progress.expect(taken);
        }
        sleep(until(pay_by)).await;
        run.progress.count_cancel(taken);
    };
    tokio::select! {
        () = back => {}
        () = run.gone.cancelled() => {}
    }
}

fn until(moment: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default()
}

/// Sends an attempt, and notes when, and what was answered.
async fn send(run: &Run, attempt: &mut Attempt, session: &mut Session) {
    let (sku, index) = (&run.sku, attempt.index);
    let order = OrderRequest { sku, quantity: attempt.quantity, buyer: &Attempt::buyer(index) };
    let key = key(sku, index);
    run.progress.count_sent();
    attempt.sent = run.now();
    let answer = session.order(&order, &key, run.scenario.timeout).await;
    attempt.received = run.now();
    attempt.outcome = outcome(answer);
    if !attempt.replay {
        run.progress.count_done(attempt);
    }
}
