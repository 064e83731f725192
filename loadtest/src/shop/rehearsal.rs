//! One purchase alone, and one in an empty shop, with every step shown: a wrong description is found in a
//! minute.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::buyer::{self, Outcome, Purchase, Session};
use super::description::Description;
use super::run::{Load, variables_of};
use super::truth::{self, Stock};
use tokio::time::Instant;

/// What was seen.
#[derive(Debug)]
pub struct Rehearsal {
    /// The purchase of one buyer, with one unit in stock.
    pub first: Purchase,
    /// That of the next one, who finds nothing left.
    pub second: Purchase,
    /// What the shop said before, after the first and after the second.
    pub truth: [Stock; 3],
    /// What is wrong with the description, or with the shop; empty where all is well.
    pub faults: Vec<String>,
}

/// Puts one unit in stock, buys it, and tries to buy another.
pub async fn rehearse(shop: &Description, load: &Load) -> anyhow::Result<Rehearsal> {
    let session = Session::open(shop, 0, load.timeout)?;
    let one = Load { stock: load.quantity, ..load.clone() };
    let set_up = variables_of(shop, &one, "rehearsal", 0)?;
    let set_up = buyer::set_up(shop, &session, &set_up).await?;
    let before = truth::read(shop, &session, &set_up).await?;
    let mut purchases = Vec::new();
    let mut truths = vec![before];
    for number in 0..2 {
        let buyer = Session::open(shop, number, load.timeout)?;
        let mut variables = set_up.clone();
        for (name, value) in load.of_buyer("rehearsal", number) {
            variables.set(name, value);
        }
        purchases.push(buyer::purchase(shop, &buyer, variables).await);
        let deadline = Instant::now() + load.settle;
        truths.push(truth::settled(shop, &session, &set_up, deadline).await?);
    }
    let second = purchases.pop().context("two were tried")?;
    let first = purchases.pop().context("two were tried")?;
    let truth: [Stock; 3] = truths.try_into().expect("it was read three times");
    let faults = faults(&first, &second, &truth, load);
    Ok(Rehearsal { first, second, truth, faults })
}

fn faults(first: &Purchase, second: &Purchase, truth: &[Stock; 3], load: &Load) -> Vec<String> {
    let quantity = load.quantity;
    let mut faults = Vec::new();
    let [before, after, at_the_end] = truth;
    if let Some(left) = before.left
        && left != quantity
    {
        faults.push(format!(
            "setup: {quantity} should be in stock before the first purchase, and truth.left says {left}"
        ));
    }
    match &first.outcome {
        Outcome::Bought => {}
        Outcome::Refused => faults.push(format!(
            "purchase: the first buyer was refused, with {quantity} in stock: does setup put them there, or \
             does a rule under refused match too much?"
        )),
        Outcome::Unknown { why } => faults.push(format!("purchase: the first buyer's is unknown: {why}")),
    }
    let rise = after.sold - before.sold;
    if first.outcome == Outcome::Bought && rise != quantity {
        faults.push(format!(
            "truth.sold: it was {} before a purchase of {quantity} and {} after it",
            before.sold, after.sold
        ));
    }
    match &second.outcome {
        Outcome::Refused => {}
        Outcome::Bought if at_the_end.sold > after.sold => {
            faults.push("the shop sells to a single buyer what it has not: that needs no load test".into());
        }
        Outcome::Bought => faults.push(
            "purchase: the second buyer found nothing in stock, and a rule under ok says that he has bought"
                .into(),
        ),
        Outcome::Unknown { why } => {
            faults
                .push(format!("purchase: a refusal is not recognised: add a rule under refused for: {why}"));
        }
    }
    faults
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (who, purchase) in [("one buyer", &self.first), ("the next, in an empty shop", &self.second)] {
            let outcome = match &purchase.outcome {
                Outcome::Bought => "bought",
                Outcome::Refused => "refused",
                Outcome::Unknown { .. } => "UNKNOWN",
            };
            writeln!(f, "{who}: {outcome}")?;
            for step in &purchase.steps {
                let took = Duration::from_millis(step.took.as_millis() as u64);
                writeln!(f, "  {:8} {} ({})", step.read_as, step.step, humantime::format_duration(took))?;
                writeln!(f, "           {}", step.received)?;
                for (name, value) in &step.captured {
                    let value =
                        if let Value::String(text) = value { text.clone() } else { value.to_string() };
                    writeln!(f, "           {name} = {value}")?;
                }
            }
        }
        let [before, after, end] = self.truth.map(|stock| match stock.left {
            Some(left) => format!("{} sold, {left} left", stock.sold),
            None => format!("{} sold", stock.sold),
        });
        writeln!(f, "the shop's record: {before}; then {after}; then {end}")?;
        match &self.faults[..] {
            [] => write!(f, "The description fits the shop."),
            faults => write!(f, "The description does not fit the shop:\n  {}", faults.join("\n  ")),
        }
    }
}
