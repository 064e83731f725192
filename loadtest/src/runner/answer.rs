//! What the answer to an order says of it.

use std::borrow::Cow;

use hyper::StatusCode;
use jiff::Timestamp;
use order_service::api::{IDEMPOTENT_REPLAYED, OrderOutcome, Problem};
use serde::Deserialize;
use uuid::Uuid;

use crate::attempt::{FailureReason, Outcome, Sale};
use crate::client::{Answer, CallError};
use crate::problem::ProblemKind;

/// The idempotency key of an attempt.
pub(super) fn key(sku: &str, index: u64) -> String {
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
    #[serde(default)]
    pay_by: Option<Timestamp>,
    #[serde(borrow)]
    replica: Cow<'a, str>,
}

#[derive(Deserialize)]
struct LockToken {
    fencing_token: Option<i64>,
}

/// What an answer says of an attempt: `Failed` only when nothing can have been written.
pub(super) fn outcome(answer: Result<Answer, CallError>) -> Outcome {
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
                pay_by: order.pay_by,
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
