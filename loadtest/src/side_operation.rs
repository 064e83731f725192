//! What happens to a product besides orders: payments, cancellations, restocks and reads of its stock.

use order_service::api::Stock;
use uuid::Uuid;

use crate::client::CallError;
use crate::problem::ProblemKind;

/// A call that is no order. Times are nanoseconds from the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct SideOperation {
    /// What was asked of the service.
    pub action: SideAction,
    /// When it was sent, the first time.
    pub sent: u64,
    /// When the last answer was there, or the time to wait for one was over.
    pub received: u64,
    /// What became of it.
    pub outcome: SideOutcome,
}

/// What a side operation asks of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideAction {
    /// To take an order back.
    Cancel {
        /// The order's id.
        order: Uuid,
    },
    /// To pay an order.
    Pay {
        /// The order's id.
        order: Uuid,
    },
    /// To put units in stock.
    Restock {
        /// A reason that no other restock of the run has.
        reason: String,
        /// Units to add.
        quantity: i64,
    },
    /// To read the stock.
    Read {
        /// Whether to do so under a shared lock.
        locked: bool,
    },
}

/// What became of a side operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideOutcome {
    /// The change was made.
    Done,
    /// The stock was read.
    Read {
        /// Units in stock.
        stock: i64,
        /// The version of the product at which there were so many.
        version: i64,
    },
    /// It was refused for want of stock: nothing was written.
    SoldOut {
        /// Units in stock.
        available: i64,
        /// The version of the product at which there were so many.
        version: i64,
    },
    /// It was refused, for this reason: nothing was written.
    Refused(String),
    /// It is not known whether something was written, for this reason.
    Unknown(String),
}

impl SideOperation {
    /// The reason of the adjustment that it makes in the database, which no other adjustment has; `None`
    /// where it makes none.
    pub fn reason(&self) -> Option<String> {
        match &self.action {
            SideAction::Cancel { order } => Some(format!("cancelled {order}")),
            SideAction::Pay { order } => Some(format!("paid {order}")),
            SideAction::Restock { reason, .. } => Some(reason.clone()),
            SideAction::Read { .. } => None,
        }
    }

    /// Whether it changed the stock, for certain.
    pub fn is_done(&self) -> bool {
        self.outcome == SideOutcome::Done
    }
}

impl SideAction {
    /// The idempotency key of a change; reads have no use for theirs.
    pub(crate) fn key(&self, sku: &str) -> String {
        match self {
            Self::Cancel { order } => format!("cancel-{order}"),
            Self::Pay { order } => format!("pay-{order}"),
            Self::Restock { reason, .. } => format!("{sku}-{reason}").replace(' ', "-"),
            Self::Read { .. } => String::new(),
        }
    }
}

impl SideOutcome {
    /// What the answer to a change says.
    pub(crate) fn of_change(answer: Result<(), CallError>) -> Self {
        match answer {
            Ok(()) => Self::Done,
            Err(CallError::NotExecuted(_, _, problem))
                if ProblemKind::of(&problem) == ProblemKind::InsufficientStock
                    && let (Some(available), Some(version)) = (problem.available, problem.version) =>
            {
                Self::SoldOut { available, version }
            }
            Err(error @ (CallError::NotSent(..) | CallError::NotExecuted(..))) => {
                Self::Refused(error.to_string())
            }
            Err(error @ CallError::Unexpected(_, status, _)) if !status.is_server_error() => {
                Self::Refused(error.to_string())
            }
            Err(error) => Self::Unknown(error.to_string()),
        }
    }

    /// What the answer to a read says.
    pub(crate) fn of_read(answer: Result<Stock, CallError>) -> Self {
        match answer {
            Ok(stock) => Self::Read { stock: stock.stock, version: stock.version },
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}
