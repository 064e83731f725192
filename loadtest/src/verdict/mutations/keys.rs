//! Idempotency keys, and orders that are sent again.

use uuid::Uuid;

use super::{STOCK, assert_caught, attempt, failing, sale};
use crate::attempt::Outcome;
use crate::evidence::{Database, Evidence};
use crate::problem::ProblemKind;
use crate::verdict::CheckName;

#[test]
fn a_cloned_order_is_twice_per_key() {
    assert_caught(CheckName::OncePerKey, |_, database| {
        let mut clone = database.orders[2].clone();
        clone.id = Uuid::from_u128(99);
        database.orders.push(clone);
    });
}

#[test]
fn a_replay_with_another_order_is_not_once_per_key() {
    assert_caught(CheckName::OncePerKey, |evidence, _| {
        let Outcome::Sold(sale) = &mut evidence.attempts[1].outcome else { unreachable!() };
        sale.id = Uuid::from_u128(99);
    });
    assert_caught(CheckName::OncePerKey, |evidence, _| {
        evidence.attempts[1].outcome = Outcome::SoldOut { available: 0, version: STOCK };
    });
}

#[test]
fn a_repetition_that_is_refused_is_not_once_per_key() {
    let refuse = |why: ProblemKind| {
        move |evidence: &mut Evidence, _: &mut Database| {
            evidence.attempts[1].outcome = Outcome::Failed { why: why.into() };
        }
    };
    assert_caught(CheckName::OncePerKey, refuse(ProblemKind::IdempotencyKeyReused));
    assert_eq!(failing(refuse(ProblemKind::Overloaded)), []);
}

#[test]
fn a_key_that_was_lost_with_its_answer_is_noticed() {
    // Attempt 2 bought, and its answer was lost; sent again, it bought once more.
    assert_caught(CheckName::OncePerKey, |evidence, database| {
        let mut second = database.orders[2].clone();
        (second.id, second.version) = (Uuid::from_u128(99), STOCK + 1);
        evidence.attempts[3].outcome = Outcome::Broken { why: "reset".into() };
        let again = attempt(2, true, (900, 990), Outcome::Sold(sale(&second, false)));
        evidence.attempts.insert(4, again);
        database.orders.push(second);
    });
    // Twins that bought one each.
    assert_caught(CheckName::OncePerKey, |evidence, database| {
        let mut twin = attempt(2, true, (201, 280), Outcome::Sold(sale(&database.orders[2], false)));
        twin.twin = true;
        evidence.attempts[3].twin = true;
        evidence.attempts.insert(4, twin);
    });
}

#[test]
fn twins_and_repetitions_of_what_had_no_answer_are_part_of_the_history() {
    let good_again = failing(|evidence, database| {
        // The second of two that were sent at the same time was the first to be served.
        let mut twin = attempt(2, true, (201, 280), Outcome::Sold(sale(&database.orders[2], false)));
        twin.twin = true;
        evidence.attempts[3].twin = true;
        evidence.attempts[3].outcome = Outcome::Sold(sale(&database.orders[2], true));
        evidence.attempts.insert(4, twin);
        // One without an answer had bought; another had not, and was then sold out.
        evidence.attempts[5].outcome = Outcome::Unanswered;
        let again = attempt(3, true, (900, 990), Outcome::Sold(sale(&database.orders[3], true)));
        evidence.attempts.insert(6, again);
    });
    assert_eq!(good_again, [CheckName::AllAnswered]);
}
