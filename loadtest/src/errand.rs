//! What buyers do besides buying: give an order back, look at the stock; and the shop fills its shelves.

use order_service::api::Stock;
use uuid::Uuid;

use crate::client::CallError;

/// A call that is no purchase. Times are nanoseconds from the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Errand {
    /// What was asked.
    pub what: What,
    /// When it was sent.
    pub sent: u64,
    /// When the answer was there, or hope was given up.
    pub received: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// To take an order back.
    Cancel {
        /// Which.
        order: Uuid,
    },
    /// To put units in stock.
    Restock {
        /// Under this reason, which no other has.
        reason: String,
        /// How many.
        quantity: i64,
    },
    /// To say how many there are.
    Look {
        /// Whether under a shared lock.
        locked: bool,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// So many were there, at this version.
    Saw {
        /// Units.
        stock: i64,
        /// Of the product.
        version: i64,
    },
    /// It was refused: nothing was written.
    Refused(String),
    /// Whether something was written is not known.
    Unknown(String),
}

impl Errand {
    /// The reason that the adjustment has which it made; no other has it.
    pub fn reason(&self) -> Option<String> {
        match &self.what {
            What::Cancel { order } => Some(format!("cancelled {order}")),
            What::Restock { reason, .. } => Some(reason.clone()),
            What::Look { .. } => None,
        }
    }
}

impl What {
    /// The idempotency key of a change; looks have no use for theirs.
    pub(crate) fn key(&self, sku: &str) -> String {
        match self {
            Self::Cancel { order } => format!("cancel-{order}"),
            Self::Restock { reason, .. } => format!("{sku}-{reason}").replace(' ', "-"),
            Self::Look { .. } => String::new(),
        }
    }
}

impl Outcome {
    /// What a call that changes something came to.
    pub(crate) fn of_a_change(answer: Result<(), CallError>) -> Self {
        match answer {
            Ok(()) => Self::Done,
            Err(error @ (CallError::NotSent(..) | CallError::NotExecuted(..))) => {
                Self::Refused(error.to_string())
            }
            Err(error @ CallError::Unexpected(_, status, _)) if !status.is_server_error() => {
                Self::Refused(error.to_string())
            }
            Err(error) => Self::Unknown(error.to_string()),
        }
    }

    /// What a look at the stock came to.
    pub(crate) fn of_a_look(answer: Result<Stock, CallError>) -> Self {
        match answer {
            Ok(stock) => Self::Saw { stock: stock.stock, version: stock.version },
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}
