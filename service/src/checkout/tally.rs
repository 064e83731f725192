//! Counts what becomes of orders, whether or not their clients wait for it.

use super::ticket::Ticket;
use crate::api::OrderStatus;
use crate::change::{Change, ChangeError, ChangeResult, Outcome};
use crate::telemetry::OrderMetrics;

/// What is asked for about an order, until its outcome is counted. Its drop counts one whose client has gone.
pub(super) struct Tally<'a> {
    metrics: &'a OrderMetrics,
    /// `None` for a change of no order, and for what is counted.
    action: Option<&'static str>,
    ticket: Option<Ticket>,
}

impl<'a> Tally<'a> {
    /// Begins with a change that is asked for.
    pub(super) fn begin(metrics: &'a OrderMetrics, change: &Change) -> Self {
        let action = match change {
            Change::Purchase(_) => Some("place"),
            Change::Payment(..) => Some("pay"),
            Change::Cancellation(..) => Some("cancel"),
            Change::Expiry(_) => Some("expire"),
            Change::Restock(_) | Change::Reset(_) => None,
        };
        Self { metrics, action, ticket: None }
    }

    /// Keeps the client's end of the place in the queue.
    pub(super) fn ticket(&mut self, ticket: Ticket) -> &mut Ticket {
        self.ticket.insert(ticket)
    }

    /// Counts the outcome, and returns it.
    pub(super) fn end(mut self, result: ChangeResult) -> ChangeResult {
        if let Some(action) = self.action.take() {
            self.metrics.count(action, outcome(&result));
        }
        result
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let Some(action) = self.action.take() else { return };
        let withdrawn = self.ticket.as_ref().is_none_or(Ticket::withdraw);
        self.metrics.count(action, if withdrawn { "withdrawn" } else { "unanswered" });
    }
}

fn outcome(result: &ChangeResult) -> &'static str {
    match result {
        Ok(made) if made.replayed => "replayed",
        Ok(made) => match &made.outcome {
            Outcome::Ordered(order) if order.status == OrderStatus::AwaitingPayment => "awaiting_payment",
            Outcome::Ordered(_) => "confirmed",
            Outcome::Cancelled(_) => "cancelled",
            Outcome::Paid(_) => "paid",
            Outcome::Expired(_) => "expired",
            Outcome::Restocked(_) | Outcome::Created(_) | Outcome::Reset(_) => "made",
        },
        Err(error) => match error {
            ChangeError::InsufficientStock { .. } => "insufficient_stock",
            ChangeError::LockTimeout => "lock_timeout",
            ChangeError::Overloaded { .. } => "overloaded",
            ChangeError::DependencyDown(_) => "dependency_down",
            ChangeError::ShuttingDown => "shutting_down",
            ChangeError::OutcomeUnknown => "unknown",
            ChangeError::NoSuchProduct(_)
            | ChangeError::NoSuchOrder(_)
            | ChangeError::NotCancellable(..)
            | ChangeError::NotPayable(..)
            | ChangeError::OrderChanged(_)
            | ChangeError::KeyReused
            | ChangeError::KeyInFlight
            | ChangeError::ResetNotAllowed
            | ChangeError::TooManyOrders => "refused",
        },
    }
}
