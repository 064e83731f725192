//! What a run leaves for the verdict: the record of every attempt, and what the database says afterwards.

use std::time::Duration;

use jiff::Timestamp;
use order_service::api::{Adjustment, Audit, LockStatus, Order, OrderStatus, OrderTotals};
use order_service::order::units_taken;

use crate::attempt::Attempt;
use crate::holds::Holds;
use crate::side_operation::SideOperation;

/// Everything that the checks look at.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Every attempt, in the order of their indices.
    pub attempts: Vec<Attempt>,
    /// Cancellations, restocks and reads of the stock.
    pub side_operations: Vec<SideOperation>,
    /// Units in stock at the beginning, at version 0.
    pub initial_stock: i64,
    /// What was broken on purpose while the run went on.
    pub faults: FaultEvidence,
    /// How long a holder that has vanished may keep the lock, where locks have leases.
    pub lease: Option<Duration>,
    /// What the database says; `Err` says why that cannot be seen.
    pub database: Result<Database, String>,
    /// Who still has the lock afterwards; `Err` says why that cannot be seen.
    pub lock: Result<LockStatus, String>,
    /// Who had the lock when, as the replicas have recorded it.
    pub holds: Holds,
}

/// What was broken while a run went on.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultEvidence {
    /// Nothing was broken.
    None,
    /// Something may have been broken by others, at times that are not known here.
    Unknown,
    /// These faults were injected.
    Known {
        /// What was broken.
        broken: Vec<Broken>,
        /// What was to be broken and was not, and why.
        missed: Vec<String>,
    },
}

/// A fault, as far as the checks need to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// What was broken, for people.
    pub what: String,
    /// When it was injected, in nanoseconds from the start of the run.
    pub from: u64,
    /// When it was cleared, by the same clock; `None`: it lasted until the end.
    pub until: Option<u64>,
    /// Whether a holder may lose its lock by it.
    pub costs_leases: bool,
}

/// How long after a fault, and the leases that it has cost, its consequences may still show: what was broken
/// comes back, and connections are opened again.
const CONSEQUENCES: Duration = Duration::from_secs(1);

impl FaultEvidence {
    /// Whether anything may have been broken.
    pub fn any(&self) -> bool {
        match self {
            Self::None => false,
            Self::Unknown => true,
            Self::Known { broken, .. } => !broken.is_empty(),
        }
    }

    /// Whether something that happened from `from` to `until` may be the consequence of a fault that costs
    /// leases of this length.
    pub fn explain(&self, from: u64, until: u64, lease: Option<Duration>) -> bool {
        let after = u64::try_from((lease.unwrap_or_default() + CONSEQUENCES).as_nanos()).unwrap_or(u64::MAX);
        let explains = |broken: &Broken| {
            let end = broken.until.map_or(u64::MAX, |until| until.saturating_add(after));
            broken.costs_leases && broken.from <= until && from <= end
        };
        match self {
            Self::None => false,
            Self::Unknown => true,
            Self::Known { broken, .. } => broken.iter().any(explains),
        }
    }
}

/// What the database says.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// The totals of the product, read in one transaction.
    pub audit: Audit,
    /// All orders of the product.
    pub orders: Vec<Order>,
    /// Its restocks and cancellations, and what became of orders that had to be paid.
    pub adjustments: Vec<Adjustment>,
    /// When it was read.
    pub read_at: Timestamp,
}

impl Database {
    /// Units in confirmed orders. Counted here, as all totals are: an audit may say what the shop has
    /// counted.
    pub fn units_sold(&self) -> i64 {
        self.units_with(OrderStatus::Confirmed)
    }

    /// Units that are reserved for orders which are still to be paid.
    pub fn units_reserved(&self) -> i64 {
        self.units_with(OrderStatus::AwaitingPayment)
    }

    /// What the orders come to.
    pub fn totals(&self) -> OrderTotals {
        OrderTotals {
            orders: i64::try_from(self.orders.len()).expect("they are in memory"),
            units_sold: self.units_sold(),
            units_reserved: self.units_reserved(),
        }
    }

    /// Units that were sold or reserved, and had never been in stock.
    pub fn oversold_units(&self) -> i64 {
        (self.units_sold() + self.units_reserved() - self.audit.supply).max(0)
    }

    fn units_with(&self, status: OrderStatus) -> i64 {
        self.orders.iter().filter(|order| order.status == status).map(units_taken).sum()
    }
}
