//! Sends the orders of a scenario, and records every attempt.

mod resend;
mod stocker;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use order_service::api::{IDEMPOTENT_REPLAYED, OrderOutcome, Problem};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::{Attempt, FailureReason, Outcome, Sale};
use crate::client::{Answer, CallError, Client, OrderRequest, Session};
use crate::pacer::Pacer;
use crate::problem::ProblemKind;
use crate::progress::Progress;
use crate::record::Record;
use crate::scenario::{Amount, Draw, Scenario};
use crate::side_operation::{SideAction, SideOperation, SideOutcome};

pub use resend::resend;

/// How long a buyer waits before it turns to the next replica when one cannot be reached.
const TURN: Duration = Duration::from_millis(10);

/// Sends the orders of `scenario` for the product `sku` to the replicas behind `clients`. Each buyer goes on
/// with the next replica when its own cannot be reached or breaks off. Dropping the future ends all buyers.
pub async fn run(clients: &[Client], sku: &str, scenario: &Scenario, progress: &Arc<Progress>) -> Record {
    warm_up(clients).await;
    let begun_ns = order_service::holds::now_ns();
    let shared = Arc::new(Shared {
        clients: clients.to_vec(),
        sku: sku.into(),
        scenario: scenario.clone(),
        pacer: Pacer::new(scenario.rate),
        next: AtomicU64::new(0),
        start: Instant::now(),
        progress: Arc::clone(progress),
        gone: CancellationToken::new(),
    });
    let processor_time_before = processor_time(UsageWho::RUSAGE_SELF);
    let mut buyers = JoinSet::new();
    for number in 0..scenario.buyers {
        buyers.spawn(buyer(number, Arc::clone(&shared)));
    }
    let stocking = tokio::spawn(stocker::run(Arc::clone(&shared)));
    // Also when this future is dropped.
    let buyers_gone = shared.gone.clone().drop_guard();
    let (mut attempts, mut side_operations) = (Vec::new(), Vec::new());
    for (bought, done) in buyers.join_all().await {
        attempts.extend(bought);
        side_operations.extend(done);
    }
    let took = shared.start.elapsed();
    drop(buyers_gone);
    // What it has begun is carried through, and must be on record.
    side_operations.extend(stocking.await.expect("the stocker does not panic"));
    let processor_time = processor_time(UsageWho::RUSAGE_SELF) - processor_time_before;
    let mut record =
        Record { attempts, side_operations, took, processor_time, begun_ns, start: shared.start };
    record.sort();
    record
}

/// The time that this process, or its children that have ended, spent on processors, for itself and in the
/// kernel.
pub(crate) fn processor_time(whose: UsageWho) -> Duration {
    let usage = getrusage(whose).expect("a process may read its own usage");
    let time = |value: TimeVal| Duration::from_micros(value.num_microseconds().unsigned_abs());
    time(usage.user_time()) + time(usage.system_time())
}

/// Opens connections, so that the first orders do not wait for them.
async fn warm_up(clients: &[Client]) {
    for client in clients {
        // A replica that is down is noticed by the buyers.
        client.info().await.ok();
    }
}

struct Shared {
    clients: Vec<Client>,
    sku: String,
    scenario: Scenario,
    pacer: Pacer,
    next: AtomicU64,
    start: Instant,
    progress: Arc<Progress>,
    /// When all buyers have gone.
    gone: CancellationToken,
}

impl Shared {
    fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// The next attempt and when it is due; `None` when the run is over.
    fn take(&self) -> Option<(u64, Option<Duration>)> {
        if self.progress.stop().is_cancelled() {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.pacer.due(index);
        let goes_on = match self.scenario.amount {
            Amount::Orders(orders) => index < orders,
            Amount::For(time) => due.unwrap_or_else(|| self.start.elapsed()) < time,
        };
        goes_on.then_some((index, due))
    }
}

async fn buyer(number: usize, shared: Arc<Shared>) -> (Vec<Attempt>, Vec<SideOperation>) {
    let (mut attempts, mut side_operations) = (Vec::new(), Vec::new());
    let mut sessions: Vec<_> = shared.clients.iter().map(Client::session).collect();
    let mut target = number % sessions.len();
    while let Some((index, due)) = shared.take() {
        let mut free = shared.now();
        let mut intended = free;
        if let Some(due) = due {
            intended = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
            if intended > free {
                tokio::select! {
                    () = sleep_until((shared.start + due).into()) => free = intended,
                    // This order was not sent yet.
                    () = shared.progress.stop().cancelled() => break,
                }
            }
        }
        let draw = shared.scenario.draw(index);
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
        let other = |target: usize| (target + 1) % shared.clients.len();
        if draw.twin {
            let mut twin = Attempt { replay: true, ..attempt.clone() };
            let mut session = shared.clients[other(target)].session();
            tokio::join!(
                fire(&shared, &mut attempt, &mut sessions[target]),
                fire(&shared, &mut twin, &mut session)
            );
            attempts.push(twin);
        } else {
            fire(&shared, &mut attempt, &mut sessions[target]).await;
        }
        if attempt.is_unknown() || matches!(attempt.outcome, Outcome::Failed { .. }) {
            target = other(target);
            tokio::time::sleep(TURN).await;
        }
        // As a client does that got no answer; and some of those do that got one.
        if attempt.is_unknown() || (draw.replay && attempt.sale().is_some()) {
            let free = shared.now();
            let mut again = Attempt { replay: true, twin: false, free, intended: free, ..attempt.clone() };
            fire(&shared, &mut again, &mut sessions[other(target)]).await;
            if attempt.is_unknown() {
                shared.progress.count_late(&again);
            }
            attempts.push(again);
        }
        for action in actions_after(&attempt, draw) {
            let operation = carry_out(&shared, action, target, shared.scenario.timeout).await;
            if operation.is_done() {
                match &operation.action {
                    SideAction::Cancel { .. } => shared.progress.count_cancel(attempt.quantity),
                    SideAction::Restock { quantity, .. } => shared.progress.count_restock(*quantity),
                    SideAction::Read { .. } => {}
                }
            }
            side_operations.push(operation);
        }
        attempts.push(attempt);
    }
    (attempts, side_operations)
}

/// The side operations that follow an attempt.
fn actions_after(attempt: &Attempt, draw: Draw) -> Vec<SideAction> {
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
async fn carry_out(shared: &Shared, action: SideAction, target: usize, timeout: Duration) -> SideOperation {
    let sent = shared.now();
    let mut outcome = send_side_operation(shared, &action, target, timeout).await;
    for turn in 1..TRIES {
        if !matches!(outcome, SideOutcome::Unknown(_)) {
            break;
        }
        tokio::time::sleep(TURN).await;
        match send_side_operation(shared, &action, target + turn, timeout).await {
            // Says nothing of the time before.
            SideOutcome::Refused(_) | SideOutcome::Unknown(_) => {}
            known => outcome = known,
        }
    }
    SideOperation { action, sent, received: shared.now(), outcome }
}

async fn send_side_operation(
    shared: &Shared,
    action: &SideAction,
    target: usize,
    timeout: Duration,
) -> SideOutcome {
    let (sku, client) = (&shared.sku, &shared.clients[target % shared.clients.len()]);
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

async fn fire(shared: &Shared, attempt: &mut Attempt, session: &mut Session) {
    let (sku, index) = (&shared.sku, attempt.index);
    let order = OrderRequest { sku, quantity: attempt.quantity, buyer: &Attempt::buyer(index) };
    let key = key(sku, index);
    shared.progress.count_sent();
    attempt.sent = shared.now();
    let answer = session.order(&order, &key, shared.scenario.timeout).await;
    attempt.received = shared.now();
    attempt.outcome = outcome(answer);
    if !attempt.replay {
        shared.progress.count_done(attempt);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a run ends before five centuries have passed")
}

/// The idempotency key of an attempt.
fn key(sku: &str, index: u64) -> String {
    format!("{sku}-{index}")
}

/// What an order's answer says of its sale: as much of the service's `Order` as the record has.
#[derive(Deserialize)]
struct Confirmation<'a> {
    id: Uuid,
    stock_before: i64,
    stock_after: i64,
    version: i64,
    lock: LockToken,
    #[serde(borrow)]
    replica: Cow<'a, str>,
}

#[derive(Deserialize)]
struct LockToken {
    fencing_token: Option<i64>,
}

/// What an answer says of an attempt: `Failed` only when nothing can have been written.
fn outcome(answer: Result<Answer, CallError>) -> Outcome {
    let unreadable = |what: String| Outcome::Unknown { why: FailureReason::Other(what) };
    let answer = match answer {
        Ok(answer) => answer,
        Err(CallError::NotSent(_, why)) => return Outcome::Failed { why: FailureReason::NotSent(why) },
        Err(CallError::Unanswered(..)) => return Outcome::Unanswered,
        Err(error) => return Outcome::Broken { why: error.to_string() },
    };
    if answer.status == StatusCode::CREATED {
        let replayed = answer.headers.contains_key(IDEMPOTENT_REPLAYED);
        return match serde_json::from_slice::<Confirmation>(&answer.body) {
            Ok(order) => Outcome::Sold(Sale {
                id: order.id,
                stock_before: order.stock_before,
                stock_after: order.stock_after,
                version: order.version,
                token: order.lock.fencing_token,
                replica: order.replica.into_owned(),
                replayed,
            }),
            Err(error) => unreadable(format!("201 with a body that is no order: {error}")),
        };
    }
    let Some(problem) = answer.problem() else {
        return unreadable(format!("{} without a problem document", answer.status));
    };
    let kind = ProblemKind::of(&problem);
    match problem {
        Problem { available: Some(available), version: Some(version), .. }
            if answer.status == StatusCode::CONFLICT && kind == ProblemKind::InsufficientStock =>
        {
            Outcome::SoldOut { available, version }
        }
        Problem { outcome: Some(OrderOutcome::NotExecuted), .. } => Outcome::Failed { why: kind.into() },
        _ if answer.status.is_client_error() => Outcome::Failed { why: kind.into() },
        _ => Outcome::Unknown { why: kind.into() },
    }
}
