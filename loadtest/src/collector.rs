//! Collects the evidence after a run: waits until nothing more can be written, and reads what there is.

use std::time::Duration;

use jiff::Timestamp;
use order_service::api::{Clock, HoldRecord, LockStatus, Order, OrderStatus};
use order_service::clock::now_ns;
use tokio::time::sleep;

use crate::attempt::{Attempt, Outcome};
use crate::client::{CallError, Client};
use crate::evidence::{Database, Evidence, FaultEvidence};
use crate::holds::{Holds, Unseen};
use crate::record::Record;
use crate::runner;
use crate::side_operation::SideOutcome;

/// How often the database is read until two readings agree.
const READINGS: usize = 10;

/// How long nothing may be written any more after the last answer, before the database is read.
const QUIET: Duration = Duration::from_millis(500);

/// How long a commit may still be in flight after its replica has answered that the outcome is unknown.
const LATE_COMMIT: Duration = Duration::from_secs(5);

/// How long it is waited for orders to be paid or to expire, at the most.
const LONGEST_PAYMENT: Duration = Duration::from_secs(60);

/// How long an order may still await its payment when its time is over.
const LATE_EXPIRY: Duration = Duration::from_secs(12);

/// What the record of a run does not contain and the checks need.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The product that was sold.
    pub sku: String,
    /// Units in stock at the beginning, at version 0.
    pub initial_stock: i64,
    /// How long a buyer waits for an answer.
    pub timeout: Duration,
    /// How long a holder that has vanished may keep the lock, where locks have leases.
    pub lease: Option<Duration>,
    /// What was broken on purpose while the run went on.
    pub faults: FaultEvidence,
    /// What replicas that were killed had recorded shortly before.
    pub of_killed: Vec<HoldRecord>,
    /// How many replicas were killed whose record could not be read before.
    pub killed_unread: usize,
    /// Within which time an order has to be paid, where it has to be.
    pub payment_window: Option<Duration>,
}

/// Waits until nothing that the run began can still be written, sends again what has no answer, and reads the
/// database.
///
/// It never fails: what cannot be read is an `Err` in the evidence, and the checks that need it are unknown.
pub async fn collect(clients: &[Client], circumstances: Circumstances, mut record: Record) -> Evidence {
    let Circumstances {
        sku,
        initial_stock,
        timeout,
        lease,
        faults,
        of_killed,
        killed_unread,
        payment_window,
    } = circumstances;
    let sku = sku.as_str();
    sleep(quiet_time(&record, lease, &faults)).await;
    // What was written by now is answered as it was; and what is written from here on is answered.
    runner::resend(clients, sku, timeout, &mut record).await;
    let mut database = Err("no replica answers".into());
    let mut lock = Err("no replica answers".into());
    for client in clients {
        if let Some(window) = payment_window {
            until_paid_or_expired(client, sku, window).await;
        }
        database = settled(client, sku).await;
        lock = free(client, sku).await;
        if database.is_ok() {
            break;
        }
    }
    let records = holds(clients, sku).await;
    let holds = Holds { begun_ns: record.begun_ns, records, of_killed, killed_unread };
    let Record { attempts, side_operations, .. } = record;
    Evidence { attempts, side_operations, initial_stock, faults, lease, database, lock, holds }
}

/// The late-write window: how long something may still be written after the last answer. What was refused
/// counts, too, as the refusal may be wrong.
fn quiet_time(record: &Record, lease: Option<Duration>, faults: &FaultEvidence) -> Duration {
    let attempts = &record.attempts;
    let lease = lease.unwrap_or_default();
    let open = attempts.iter().any(|a| matches!(a.outcome, Outcome::Unknown { .. } | Outcome::Unanswered))
        || record
            .side_operations
            .iter()
            .any(|operation| matches!(operation.outcome, SideOutcome::Unknown(_)));
    if open {
        lease.max(LATE_COMMIT)
    } else if faults.any() || attempts.iter().any(Attempt::is_unknown) {
        lease + Duration::from_millis(100)
    } else if attempts.iter().any(|attempt| matches!(attempt.outcome, Outcome::Failed { .. })) {
        lease.max(QUIET)
    } else {
        QUIET
    }
}

/// What each replica has recorded, once its last hold has ended.
async fn holds(clients: &[Client], sku: &str) -> Vec<Result<HoldRecord, Unseen>> {
    let mut records = Vec::new();
    for client in clients {
        let mut record = comparable(client, sku).await;
        for _ in 1..READINGS {
            let ended = |record: &HoldRecord| record.holds.iter().all(|hold| hold.released_ns.is_some());
            if record.as_ref().map_or(true, ended) {
                break;
            }
            sleep(Duration::from_millis(200)).await;
            record = comparable(client, sku).await;
        }
        records.push(record);
    }
    records
}

/// A replica's record, if its clock is ours.
async fn comparable(client: &Client, sku: &str) -> Result<HoldRecord, Unseen> {
    let asked = now_ns();
    let record = client.holds(sku).await.map_err(|error| Unseen::NoAnswer(error.to_string()))?;
    let is_ours = record.clock == Clock::Host && (asked..=now_ns()).contains(&record.now_ns);
    if is_ours {
        return Ok(record);
    }
    Err(Unseen::OtherClock(format!("{} is on another host, with a clock of its own", client.base())))
}

/// Waits until no order awaits its payment any more: for as long as it may, and a while. Where that is long,
/// they are left as they are.
async fn until_paid_or_expired(client: &Client, sku: &str, window: Duration) {
    let patience = window.min(LONGEST_PAYMENT) + LATE_EXPIRY;
    let give_up = tokio::time::Instant::now() + patience;
    let awaits = |order: &Order| order.status == OrderStatus::AwaitingPayment;
    while tokio::time::Instant::now() < give_up {
        match client.orders(sku).await {
            Ok(orders) if !orders.iter().any(awaits) => return,
            // Whoever reads it next will say why it cannot be read.
            Err(_) => return,
            Ok(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Reads the database until two readings agree.
async fn settled(client: &Client, sku: &str) -> Result<Database, String> {
    let mut before = read(client, sku).await.map_err(|error| error.to_string())?;
    for _ in 1..READINGS {
        let after = read(client, sku).await.map_err(|error| error.to_string())?;
        if (Database { read_at: before.read_at, ..after.clone() }) == before {
            return Ok(after);
        }
        before = after;
        sleep(Duration::from_millis(200)).await;
    }
    Err("the database did not come to rest".into())
}

async fn read(client: &Client, sku: &str) -> Result<Database, CallError> {
    Ok(Database {
        audit: client.audit(sku).await?,
        orders: client.orders(sku).await?,
        adjustments: client.adjustments(sku).await?,
        read_at: Timestamp::now(),
    })
}

/// The state of the lock, once its last release, which no answer waits for, has had the time to arrive.
async fn free(client: &Client, sku: &str) -> Result<LockStatus, String> {
    let mut state = client.lock(sku).await.map_err(|error| error.to_string())?;
    for _ in 1..READINGS {
        if state.holders.is_empty() && state.waiting == 0 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
        state = client.lock(sku).await.map_err(|error| error.to_string())?;
    }
    Ok(state)
}
