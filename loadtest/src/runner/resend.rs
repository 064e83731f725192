//! Sends again, after a run, what is still without an answer that says what became of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::answer::{key, outcome};
use super::nanoseconds;
use crate::attempt::{Attempt, Outcome};
use crate::client::{Client, OrderRequest};
use crate::record::Record;

/// How often an order is sent again, at the most.
const TRIES: usize = 5;

/// How long after an answer that says nothing of the order it is sent again.
const PAUSE: Duration = Duration::from_millis(200);

/// How many orders are sent again at a time.
const AT_A_TIME: usize = 16;

/// Sends the open orders of a run again, some of them to two replicas at the same time, and adds the answers
/// to its record. What had been written is answered as it was; what had not is ordered now.
pub async fn resend(clients: &[Client], sku: &str, timeout: Duration, record: &mut Record) {
    let is_open = |sendings: &[Attempt]| sendings.iter().all(Attempt::is_unknown);
    let open = record.attempts.chunk_by(|a, b| a.index == b.index).filter(|sendings| is_open(sendings));
    let open: Vec<_> = open.map(|sendings| sendings[0].clone()).collect();
    let resender =
        Arc::new(Resender { clients: clients.to_vec(), sku: sku.into(), timeout, start: record.start });
    let mut resending = JoinSet::new();
    for (number, attempt) in open.into_iter().enumerate() {
        if resending.len() >= AT_A_TIME {
            let ended = resending.join_next().await;
            record.attempts.extend(ended.into_iter().flat_map(Result::unwrap_or_default));
        }
        let resender = Arc::clone(&resender);
        resending.spawn(async move {
            let is_twin = number % 3 == 0;
            let attempt = Attempt { replay: true, twin: false, ..attempt };
            let one = resender.until_answered(number, &attempt);
            if !is_twin {
                return vec![one.await];
            }
            let (one, other) = tokio::join!(one, resender.until_answered(number + 1, &attempt));
            vec![one, other]
        });
    }
    record.attempts.extend(resending.join_all().await.into_iter().flatten());
    record.sort();
}

struct Resender {
    clients: Vec<Client>,
    sku: String,
    timeout: Duration,
    start: Instant,
}

impl Resender {
    /// Sends an order until there is an answer that says something of it, to one replica after the other,
    /// beginning with that of number `first`.
    async fn until_answered(&self, first: usize, attempt: &Attempt) -> Attempt {
        let Self { clients, sku, timeout, start } = self;
        let now = || nanoseconds(start.elapsed());
        let mut again = attempt.clone();
        (again.free, again.intended, again.sent) = (now(), now(), now());
        let order = OrderRequest { sku, quantity: attempt.quantity, buyer: &Attempt::buyer(attempt.index) };
        for number in 0..TRIES {
            let mut session = clients[(first + number) % clients.len()].session();
            again.outcome = outcome(session.order(&order, &key(sku, attempt.index), *timeout).await);
            again.received = now();
            if again.sale().is_some() || matches!(again.outcome, Outcome::SoldOut { .. }) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        again
    }
}
