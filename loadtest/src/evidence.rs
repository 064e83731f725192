//! What a run leaves for the verdict: the record of every attempt, and what the database says afterwards.

use std::time::Duration;

use order_service::api::{Adjustment, Audit, Clock, HoldRecord, LockCensus, Order};
use order_service::holds::now_ns;
use tokio::time::sleep;

use crate::attempt::{Attempt, Outcome};
use crate::client::{CallError, Client};
use crate::errand::{self, Errand};
use crate::runner::Record;

/// How often the database is read until two readings agree.
const READINGS: usize = 10;

/// How long a commit may still be under way whose replica lives and has said that it does not know.
const LATE_COMMIT: Duration = Duration::from_secs(5);

/// Everything that the checks look at.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Every attempt, in the order of their indices.
    pub attempts: Vec<Attempt>,
    /// What was done besides.
    pub errands: Vec<Errand>,
    /// Units in stock at the beginning, at version 0.
    pub initial_stock: i64,
    /// Whether anything was broken on purpose, or broke.
    pub faults: bool,
    /// What the database says; `Err` says why that cannot be seen.
    pub database: Result<Database, String>,
    /// Who still has the lock afterwards; `Err` says why that cannot be seen.
    pub lock: Result<LockCensus, String>,
    /// Who had it when.
    pub holds: Holds,
}

/// Who had the lock when.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// When the run began, by this host's monotonic clock.
    pub begun_ns: u64,
    /// What each replica has recorded; `Err` says why that is not to be had.
    pub records: Vec<Result<HoldRecord, Unseen>>,
    /// What replicas had recorded that were killed since, shortly before.
    pub of_ended_lives: Vec<HoldRecord>,
}

/// Why a record of holds is not to be had.
#[derive(Debug, Clone)]
pub enum Unseen {
    /// The replica reads another clock than ours: its times cannot be compared.
    OtherClock(String),
    /// It does not answer.
    NoAnswer(String),
}

/// What the database says.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// The books.
    pub audit: Audit,
    /// All orders of the product.
    pub orders: Vec<Order>,
    /// Its restocks and cancellations.
    pub adjustments: Vec<Adjustment>,
}

/// Waits until nothing that the run began can still be written, and reads what there is.
///
/// `lease` is how long a holder that has vanished may keep the lock; it is waited for where an answer is missing.
pub async fn collect(
    clients: &[Client],
    sku: &str,
    initial_stock: i64,
    record: Record,
    lease: Option<Duration>,
    faults: bool,
    of_ended_lives: Vec<HoldRecord>,
) -> Evidence {
    let attempts = &record.attempts;
    let open = attempts.iter().any(|a| matches!(a.outcome, Outcome::Unknown { .. } | Outcome::Unanswered))
        || record.errands.iter().any(|errand| matches!(errand.outcome, errand::Outcome::Unknown(_)));
    if open {
        sleep(lease.unwrap_or_default().max(LATE_COMMIT)).await;
    } else if faults || attempts.iter().any(Attempt::is_unknown) {
        sleep(lease.unwrap_or_default() + Duration::from_millis(100)).await;
    }
    let mut database = Err("no replica answers".into());
    let mut lock = Err("no replica answers".into());
    for client in clients {
        database = settled(client, sku).await;
        lock = free(client, sku).await;
        if database.is_ok() {
            break;
        }
    }
    let records = holds(clients, sku).await;
    let holds = Holds { begun_ns: record.begun_ns, records, of_ended_lives };
    let Record { attempts, errands, .. } = record;
    Evidence { attempts, errands, initial_stock, faults, database, lock, holds }
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

/// Reads the database until two readings agree.
async fn settled(client: &Client, sku: &str) -> Result<Database, String> {
    let mut before = read(client, sku).await.map_err(|error| error.to_string())?;
    for _ in 1..READINGS {
        let after = read(client, sku).await.map_err(|error| error.to_string())?;
        if after == before {
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
    })
}

/// Who has the lock, once its last release, which no answer waits for, has had the time to arrive.
async fn free(client: &Client, sku: &str) -> Result<LockCensus, String> {
    let mut census = client.lock(sku).await.map_err(|error| error.to_string())?;
    for _ in 1..READINGS {
        if census.holders.is_empty() && census.waiting == 0 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
        census = client.lock(sku).await.map_err(|error| error.to_string())?;
    }
    Ok(census)
}
