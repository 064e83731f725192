//! One purchase alone, and one in an empty shop, with every step shown: a wrong description is found in a
//! minute.

use std::fmt;
use std::future::ready;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::buyer::{self, NEITHER, Outcome, Purchase, Resend, Taken};
use super::description::{Description, ORDER, Step};
use super::load::Load;
use super::template::text;
use super::truth::{self, Stock};

/// What was seen.
#[derive(Debug)]
pub struct Rehearsal {
    /// How the shop was set up.
    pub setup: Vec<Taken>,
    /// The purchase of one buyer, with one unit in stock.
    pub first: Purchase,
    /// That of the next one, who finds nothing left.
    pub second: Purchase,
    /// That of one who comes to the last step before another has bought the last units, and what was sold to
    /// both; absent where a purchase has one step only, or the others were unclear.
    pub interleaved: Option<Interleaved>,
    /// What the shop said before, after the first and after the second.
    pub truth: [Stock; 3],
    /// What is wrong with the description, or with the shop; empty where all is well.
    pub faults: Vec<String>,
}

/// Two purchases that were under way together, one step after the other.
#[derive(Debug)]
pub struct Interleaved {
    /// The one that came to its last step first, and took it first.
    pub first: Purchase,
    /// The other one.
    pub last: Purchase,
    /// What was sold to both.
    pub sold: i64,
}

/// Puts one unit in stock, buys it, and tries to buy another.
pub async fn rehearse(shop: &Description, load: &Load) -> anyhow::Result<Rehearsal> {
    let session = load.door.open(shop, 0)?;
    let one = Load { stock: load.quantity, ..load.clone() };
    let (set_up, setup) = buyer::set_up(shop, &session, &one.variables(shop, "rehearsal")?).await?;
    let before = truth::when_set_up(shop, &session, &set_up, one.stock, load.settle).await?;
    let mut purchases = Vec::new();
    let mut truths = vec![before];
    for number in 0..2 {
        let buyer = load.door.open(shop, number)?;
        let mut variables = set_up.clone();
        for (name, value) in Load::of_buyer("rehearsal", number) {
            variables.set(name, value);
        }
        purchases.push(buyer::purchase(shop, &buyer, variables, Resend::Never, ready(())).await);
        truths.push(truth::settled(shop, &session, &set_up, load.settle).await?);
    }
    let interleaved =
        if shop.purchase.len() > 1 && purchases.iter().all(|purchase| purchase.outcome.is_clear()) {
            Some(interleaved(shop, load, &one).await?)
        } else {
            None
        };
    let second = purchases.pop().context("two were tried")?;
    let first = purchases.pop().context("two were tried")?;
    let truth: [Stock; 3] = truths.try_into().expect("it was read three times");
    let mut faults = faults(shop, &first, &second, &truth, load);
    // What is wrong already needs no more words.
    if let Some(together) = interleaved.as_ref().filter(|_| faults.is_empty()) {
        faults.extend(together.fault(load.quantity));
    }
    Ok(Rehearsal { setup, first, second, interleaved, truth, faults })
}

/// Two buyers of the last units, one step after the other: both go as far as the last step, and only then the
/// first takes it, and then the second.
async fn interleaved(shop: &Description, load: &Load, one: &Load) -> anyhow::Result<Interleaved> {
    let operator = load.door.open(shop, 0)?;
    let (set_up, _) = buyer::set_up(shop, &operator, &one.variables(shop, "interleaved")?).await?;
    let before = truth::when_set_up(shop, &operator, &set_up, one.stock, load.settle).await?;
    let of_buyer = |number: usize| {
        let mut variables = set_up.clone();
        for (name, value) in Load::of_buyer("interleaved", number) {
            variables.set(name, value);
        }
        Ok::<_, anyhow::Error>((load.door.open(shop, number)?, variables))
    };
    let ((first, first_variables), (second, second_variables)) = (of_buyer(0)?, of_buyer(1)?);
    // Each waits for the other's word; one who is gone has given it.
    let (first_is_there, await_first) = oneshot::channel::<()>();
    let (second_is_there, await_second) = oneshot::channel::<()>();
    let (first_is_done, await_done) = oneshot::channel::<()>();
    let first = async {
        let before_last = async move {
            drop(first_is_there);
            await_second.await.ok();
        };
        let purchase = buyer::purchase(shop, &first, first_variables, Resend::Never, before_last).await;
        drop(first_is_done);
        purchase
    };
    let second = async {
        await_first.await.ok();
        let before_last = async move {
            drop(second_is_there);
            await_done.await.ok();
        };
        buyer::purchase(shop, &second, second_variables, Resend::Never, before_last).await
    };
    let (first, last) = tokio::join!(first, second);
    let after = truth::settled(shop, &operator, &set_up, load.settle).await?;
    Ok(Interleaved { first, last, sold: after.sold - before.sold })
}

impl Interleaved {
    /// What does not fit.
    fn fault(&self, quantity: i64) -> Option<String> {
        if let Outcome::Unknown { why } = &self.last.outcome {
            return Some(unrecognised("a refusal that comes late is not recognised", why));
        }
        // What came of the first is not what is looked at here.
        if !self.first.outcome.is_clear() {
            return None;
        }
        let confirmed = [&self.first, &self.last].iter().filter(|purchase| purchase.is_confirmed()).count();
        let expected = confirmed as i64 * quantity;
        (self.sold != expected).then(|| {
            format!(
                "truth.sold: it rose by {} when {expected} were confirmed to two buyers: does it count \
                 more than \
                 orders, such as carts?",
                self.sold
            )
        })
    }
}

/// The advice for an answer that is neither ok nor refused; for none, there is no rule to add.
fn unrecognised(what: &str, why: &str) -> String {
    match why.contains(NEITHER) {
        true => format!("purchase: {what}: add a rule under refused for: {why}"),
        false => format!("purchase: the second buyer's is unknown: {why}"),
    }
}

fn faults(
    shop: &Description,
    first: &Purchase,
    second: &Purchase,
    truth: &[Stock; 3],
    load: &Load,
) -> Vec<String> {
    let quantity = load.quantity;
    let mut faults = Vec::new();
    let [before, after, at_the_end] = truth;
    match &first.outcome {
        Outcome::Bought => faults.extend(after_first(first, before, after, quantity)),
        Outcome::Refused => faults.push(format!(
            "purchase: the first buyer was refused, with {quantity} in stock: does setup put them there, or \
             does a rule under refused match too much?"
        )),
        Outcome::Unknown { why } => faults.push(format!("purchase: the first buyer's is unknown: {why}")),
    }
    match &second.outcome {
        // Nothing was sold that he could have found gone.
        _ if !first.is_confirmed() => {}
        Outcome::Refused => {}
        Outcome::Bought if at_the_end.sold > after.sold => faults.push(format!(
            "setup: the second buyer could buy, too: does it leave exactly {quantity} in stock (a restock \
             that adds \
             leaves what was there before)? If it does, the shop sells to a single buyer what it has not, \
             which \
             needs no load test"
        )),
        Outcome::Bought => {
            let without: Vec<_> =
                shop.purchase.iter().filter(|step| step.ok().is_empty()).map(Step::title).collect();
            let why = match without.is_empty() {
                true => "the rules under ok say that he has bought".into(),
                false => {
                    format!("without rules under ok, any status of 200 to 299 is ({})", without.join(", "))
                }
            };
            faults.push(format!(
                "purchase: the second buyer found nothing in stock, and is taken for one who has bought: \
                 {why}"
            ));
        }
        Outcome::Unknown { why } => faults.push(unrecognised("a refusal is not recognised", why)),
    }
    faults
}

/// What the record has to say after one purchase.
fn after_first(first: &Purchase, before: &Stock, after: &Stock, quantity: i64) -> Vec<String> {
    let mut faults = Vec::new();
    if after.sold - before.sold != quantity {
        let hint = match after.sold == before.sold {
            true => ": does it count what was bought, is it a page that is full, or a cache that is old?",
            false => "",
        };
        faults.push(format!(
            "truth.sold: it was {} before a purchase of {quantity} and {} after it{hint}",
            before.sold, after.sold
        ));
    }
    if let (Some(was), Some(is)) = (before.left, after.left)
        && was - is != quantity
    {
        faults.push(format!("truth.left: it was {was} before a purchase of {quantity} and {is} after it"));
    }
    if let (Some(was), Some(is)) = (before.reserved, after.reserved)
        && is - was != quantity
    {
        faults
            .push(format!("truth.reserved: it was {was} before a purchase of {quantity} and {is} after it"));
    }
    if let Some(orders) = &after.orders {
        match &first.order {
            Some(order) if orders.contains(order) => {}
            Some(order) => {
                let last = orders.last().map_or("none".into(), |order| format!("{order:?} and the like"));
                faults.push(format!(
                    "truth.orders: the captured {ORDER} is {order:?}, which is not there; there is {last}"
                ));
            }
            None => faults.push(format!("purchase: no step captured {ORDER:?}, which truth.orders needs")),
        }
    }
    faults
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.setup.is_empty() {
            writeln!(f, "setup")?;
            self.setup.iter().try_for_each(|taken| show(f, taken))?;
        }
        let next = if self.first.is_confirmed() { "the next, in an empty shop" } else { "the next" };
        for (who, purchase) in [("one buyer", &self.first), (next, &self.second)] {
            writeln!(f, "{who}: {}", word(&purchase.outcome))?;
            purchase.steps.iter().try_for_each(|taken| show(f, taken))?;
        }
        if let Some(Interleaved { first, last, sold }) = &self.interleaved {
            writeln!(f, "one who came to the last step before another had bought: {}", word(&last.outcome))?;
            last.steps.iter().try_for_each(|taken| show(f, taken))?;
            writeln!(f, "           {sold} sold to both of them")?;
            // Where also one after the other can buy, it is the set-up.
            if first.is_confirmed() && last.is_confirmed() && !self.second.is_confirmed() {
                writeln!(
                    f,
                    "           It needs no race to sell twice: the last step does not look at the \
                 stock."
                )?;
            }
        }
        let [before, after, end] = &self.truth;
        writeln!(
            f,
            "the shop's record: {}; after the first {}; after the next {}",
            before.shown(),
            after.shown(),
            end.shown()
        )?;
        match &self.faults[..] {
            [] => write!(f, "The description fits the shop."),
            faults => write!(f, "The description does not fit the shop:\n  {}", faults.join("\n  ")),
        }
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Bought => "bought",
        Outcome::Refused => "refused",
        Outcome::Unknown { .. } => "UNKNOWN",
    }
}

fn show(f: &mut fmt::Formatter<'_>, taken: &Taken) -> fmt::Result {
    let took = Duration::from_millis(taken.took.as_millis() as u64);
    writeln!(f, "  {:8} {} ({})", taken.read_as, taken.step, humantime::format_duration(took))?;
    if !taken.sent.is_empty() {
        writeln!(f, "           {}", taken.sent)?;
    }
    writeln!(f, "           {}", taken.received)?;
    for (name, value) in &taken.captured {
        writeln!(f, "           {name} = {}", text(value))?;
    }
    Ok(())
}
