//! What the shop itself says of its stock: read over HTTP, or from its database.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::buyer::Session;
use super::database;
use super::description::{Description, Reading, Step};
use super::template::Variables;

/// How often the truth is read until it has come to rest.
const INTERVAL: Duration = Duration::from_millis(250);

/// How many readings in a row have to agree.
const AGREE: usize = 4;

/// What the shop says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    /// Units in orders.
    pub sold: i64,
    /// Units that are left, where that can be read.
    pub left: Option<i64>,
}

/// Reads the truth once.
pub async fn read(shop: &Description, session: &Session, variables: &Variables) -> anyhow::Result<Stock> {
    let sold = number(shop, session, &shop.truth.sold, variables).await.context("truth.sold")?;
    let left = match &shop.truth.left {
        Some(reading) => Some(number(shop, session, reading, variables).await.context("truth.left")?),
        None => None,
    };
    Ok(Stock { sold, left })
}

/// Reads the truth until several readings in a row agree; an error when it does not come to rest before
/// `deadline`.
pub async fn settled(
    shop: &Description,
    session: &Session,
    variables: &Variables,
    deadline: Instant,
) -> anyhow::Result<Stock> {
    let mut last = read(shop, session, variables).await?;
    let mut agreeing = 1;
    while agreeing < AGREE {
        if Instant::now() > deadline {
            bail!("the truth does not come to rest: the last readings were different ({last:?} is the last)");
        }
        sleep(INTERVAL).await;
        let next = read(shop, session, variables).await?;
        agreeing = if next == last { agreeing + 1 } else { 1 };
        last = next;
    }
    Ok(last)
}

async fn number(
    shop: &Description,
    session: &Session,
    reading: &Reading,
    variables: &Variables,
) -> anyhow::Result<i64> {
    if let Some(sql) = &reading.sql {
        return database::query(sql, variables).await;
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
    if found.is_empty() && !jsonpath.contains(['*', '?']) && !jsonpath.contains("..") {
        bail!("jsonpath {jsonpath:?} finds nothing in {}", answer.shown());
    }
    let as_number = |value: &Value| {
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        number.with_context(|| format!("jsonpath {jsonpath:?} finds {value}, which is no whole number"))
    };
    found.iter().map(as_number).sum()
}
