//! What the shop itself says of its stock: read over HTTP, or from its database.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::buyer::Session;
use super::database;
use super::description::{Description, Reading, Step};
use super::template::{Variables, text};

/// How many readings in a row have to agree.
const AGREE: usize = 4;

/// How long lies between two readings of a truth that may take so long to come to rest.
fn interval(settle: Duration) -> Duration {
    (settle / 60).clamp(Duration::from_millis(50), Duration::from_millis(250))
}

/// What the shop says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    /// Units in orders.
    pub sold: i64,
    /// Units that are left, where that can be read.
    pub left: Option<i64>,
    /// Units that another part of the shop counts as sold, where that can be read.
    pub reserved: Option<i64>,
    /// The identities of all orders, where they can be read.
    pub orders: Option<Vec<String>>,
}

impl Stock {
    /// In words.
    pub fn shown(&self) -> String {
        let mut text = format!("{} sold", self.sold);
        if let Some(left) = self.left {
            text += &format!(", {left} left");
        }
        if let Some(reserved) = self.reserved {
            text += &format!(", {reserved} reserved");
        }
        if let Some(orders) = &self.orders {
            text += &format!(", {} orders", orders.len());
        }
        text
    }
}

/// Reads the truth once.
async fn read(shop: &Description, session: &Session, variables: &Variables) -> anyhow::Result<Stock> {
    let mut stock = Stock::default();
    for (name, reading) in shop.truth.readings() {
        let context = || format!("truth.{name}");
        let found = values(shop, session, reading, variables).await.with_context(context)?;
        let sum = || found.sum(reading).with_context(context);
        match name {
            "sold" => stock.sold = sum()?,
            "left" => stock.left = Some(sum()?),
            "reserved" => stock.reserved = Some(sum()?),
            _ => stock.orders = Some(found.0.iter().map(text).collect()),
        }
    }
    Ok(stock)
}

/// Reads the truth of a shop that was just set up, until it has come to rest and says that so many units are
/// left; an error when it does not in a third of `settle`. What it remembers from before would be counted as
/// sold.
pub async fn when_set_up(
    shop: &Description,
    session: &Session,
    variables: &Variables,
    stock: i64,
    settle: Duration,
) -> anyhow::Result<Stock> {
    let deadline = Instant::now() + settle / 3;
    loop {
        let read = settled(shop, session, variables, settle).await?;
        let Some(left) = read.left.filter(|left| *left != stock) else { return Ok(read) };
        if Instant::now() > deadline {
            bail!("setup: {stock} should be in stock, and truth.left says {left}");
        }
    }
}

/// Reads the truth until several readings in a row agree; an error when it does not come to rest in `settle`.
pub async fn settled(
    shop: &Description,
    session: &Session,
    variables: &Variables,
    settle: Duration,
) -> anyhow::Result<Stock> {
    let deadline = Instant::now() + settle;
    let mut last = read(shop, session, variables).await?;
    let mut agreeing = 1;
    let mut sales = vec![last.sold];
    while agreeing < AGREE {
        if Instant::now() > deadline {
            let sales = sales.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            bail!("the truth does not come to rest: truth.sold was {sales}, one after the other");
        }
        sleep(interval(settle)).await;
        let next = read(shop, session, variables).await?;
        if next == last {
            agreeing += 1;
        } else {
            agreeing = 1;
            sales.push(next.sold);
        }
        last = next;
    }
    Ok(last)
}

/// What a reading has found.
struct Found(Vec<Value>);

impl Found {
    fn sum(&self, reading: &Reading) -> anyhow::Result<i64> {
        // A query's answer is one number; what a JSONPath finds may be several.
        if reading.sql.is_some() {
            let is_one = self.0.len() == 1;
            ensure!(is_one, "sql: {} rows instead of one: ask for a sum or a count", self.0.len());
        }
        self.0.iter().map(whole).sum()
    }
}

async fn values(
    shop: &Description,
    session: &Session,
    reading: &Reading,
    variables: &Variables,
) -> anyhow::Result<Found> {
    if let Some(sql) = &reading.sql {
        let rows = database::rows(sql, variables, session.owner(), session.timeout()).await?;
        return Ok(Found(rows.into_iter().map(|text| text.map_or(Value::Null, Value::String)).collect()));
    }
    let (Some(path), Some(jsonpath)) = (&reading.path, &reading.jsonpath) else {
        bail!("path and jsonpath, or sql, are needed");
    };
    let step = Step { path: path.clone(), headers: reading.headers.clone(), ..Step::default() };
    let answer = session.send(shop, &step, variables).await?;
    if !(200..300).contains(&answer.status) {
        bail!("not ok: {}", answer.shown());
    }
    let found = answer.find(jsonpath)?;
    // A path to one place finds nothing where that is not there; one to many may find none.
    if found.is_empty() && !jsonpath.contains(['*', '?']) && !jsonpath.contains("..") {
        bail!("jsonpath {jsonpath:?} finds nothing in {}", answer.shown());
    }
    Ok(Found(found))
}

fn whole(value: &Value) -> anyhow::Result<i64> {
    ensure!(!value.is_null(), "there is no number, but NULL: coalesce(sum(…), 0) makes it one");
    let text = text(value);
    let number = text.trim().parse::<i64>().ok().or_else(|| {
        // Databases write sums as decimals.
        let (whole, rest) = text.trim().split_once('.')?;
        rest.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok())?
    });
    number.with_context(|| format!("{value} is no whole number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_whole_however_they_are_written() {
        for value in [json!(10), json!("10"), json!(10.0), json!("10.000")] {
            assert_eq!(whole(&value).unwrap(), 10, "{value}");
        }
        for value in [json!(null), json!("ten"), json!(10.5), json!([10]), json!("10.")] {
            let is_wrong = whole(&value).is_err() || value == json!("10.");
            assert!(is_wrong, "{value}");
        }
    }
}
