//! Rows to values and back. Many rows go in as one JSON parameter: one statement, whatever the batch.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Error, Row as _, SqliteConnection};
use uuid::Uuid;

use crate::api::{Adjustment, LockEvidence, Order, OrderTotals, Product};
use crate::change::KeptAnswer;
use crate::inventory::StockLevel;
use crate::order::{IdempotencyKey, Sku};
use crate::store::{Transition, status, status_name};

/// The second parameter is until when they have to be paid, or null.
pub(super) const INSERT_ORDERS: &str = "insert into orders (
        id, sku, buyer, quantity, status,
        idempotency_key, stock_before, stock_after, version,
        lock_strategy, fencing_token, replica, created_at, pay_by
    )
    select
        value ->> 'id', value ->> 'sku', value ->> 'buyer', value ->> 'quantity',
        case when ?2 is null then 'confirmed' else 'awaiting_payment' end,
        value ->> 'idempotency_key', value ->> 'stock_before', value ->> 'stock_after', value ->> 'version',
        value ->> 'lock_strategy', value ->> 'fencing_token', value ->> 'replica', value ->> 'created_at', ?2
    from json_each(?1) where true
    on conflict (idempotency_key) do nothing";

pub(super) const PRESENT: &str = "select id from orders where id in (select value from json_each(?1))";

pub(super) const DELETE_ORDERS: &str = "delete from orders where id in (select value from json_each(?1))";

/// The orders that are as a transition wants them at the time `?2`.
pub(super) const UNCHANGED_ORDERS: &str = "select o.id
    from json_each(?1) as t cross join orders as o on o.id = t.value ->> 'order'
    where o.status = t.value ->> 'from'
    and (t.value ->> 'overdue' is null or (o.pay_by <= ?2) = t.value ->> 'overdue')";

pub(super) const CHANGE_STATUS: &str = "update orders set status = t.value ->> 'to'
    from json_each(?1) as t where orders.id = t.value ->> 'order'";

pub(super) const UNCHANGED: &str = "select b.value ->> 'batch'
    from json_each(?1) as b cross join products as p on p.sku = b.value ->> 'sku'
    where b.value ->> 'version' is null or p.version = b.value ->> 'version'";

/// Without the guard, the stock that was decided is written over whatever stands there. The version still
/// only grows, so that such a writer cannot make another's guard believe that nothing happened.
pub(super) const UPDATE_PRODUCTS: &str = "update products set
        stock = b.value ->> 'stock', version = version + (b.value ->> 'versions'),
        supply = coalesce(b.value ->> 'reset_supply', supply) + (b.value ->> 'supplied'),
        name = coalesce(b.value ->> 'reset_name', name),
        created_at = coalesce(b.value ->> 'reset_at', created_at),
        order_count = (b.value ->> 'orders') + iif(b.value ->> 'reset_at' is null, order_count, 0),
        units_sold = (b.value ->> 'units_sold') + iif(b.value ->> 'reset_at' is null, units_sold, 0),
        units_reserved = (b.value ->> 'units_reserved')
            + iif(b.value ->> 'reset_at' is null, units_reserved, 0)
    from json_each(?1) as b where sku = b.value ->> 'sku'";

pub(super) const INSERT_ADJUSTMENTS: &str = "insert into stock_adjustments (
        id, sku, delta, reason, version, created_at
    )
    select
        value ->> 'id', value ->> 'sku', value ->> 'delta', value ->> 'reason', value ->> 'version',
        value ->> 'created_at'
    from json_each(?1)";

pub(super) const KEEP_ANSWERS: &str = "insert into kept_answers (idempotency_key, request, answer)
    select value ->> 'key', value ->> 'request', value ->> 'answer' from json_each(?1) where true
    on conflict do nothing
    returning idempotency_key";

pub(super) const FORGET_ANSWERS: &str =
    "delete from kept_answers where idempotency_key in (select value from json_each(?1))";

#[derive(Serialize)]
struct OrderRow<'a> {
    id: Uuid,
    sku: &'a str,
    buyer: &'a str,
    quantity: i64,
    idempotency_key: Option<&'a str>,
    stock_before: i64,
    stock_after: i64,
    version: i64,
    lock_strategy: &'a str,
    fencing_token: Option<i64>,
    replica: &'a str,
    created_at: i64,
}

#[derive(Serialize)]
struct AdjustmentRow<'a> {
    id: Uuid,
    sku: &'a str,
    delta: i64,
    reason: &'a str,
    version: i64,
    created_at: i64,
}

pub(super) fn answers_json(answers: &[&KeptAnswer]) -> String {
    let row = |kept: &&KeptAnswer| {
        let key = kept.key.as_str();
        serde_json::json!({"key": key, "request": kept.request, "answer": kept.answer})
    };
    json(&answers.iter().map(row).collect::<Vec<_>>())
}

/// The levels of products, one entry for each.
pub(super) async fn levels(
    connection: &mut SqliteConnection,
    skus: &[Sku],
) -> Result<Vec<Option<StockLevel>>, Error> {
    let asked: Vec<_> = skus.iter().map(Sku::as_str).collect();
    let rows = sqlx::query(
        "select s.key as number, p.stock, p.version, p.supply
         from json_each(?1) as s cross join products as p on p.sku = s.value",
    )
    .bind(json(&asked))
    .fetch_all(connection)
    .await?;
    let mut levels = vec![None; skus.len()];
    for row in rows {
        let number: i64 = row.try_get("number")?;
        levels[usize::try_from(number).expect("indices are positive")] = Some(stock_level(&row)?);
    }
    Ok(levels)
}

pub(super) fn stock_level(row: &SqliteRow) -> Result<StockLevel, Error> {
    Ok(StockLevel {
        stock: row.try_get("stock")?,
        version: row.try_get("version")?,
        supply: row.try_get("supply")?,
    })
}

/// What a product's orders come to.
pub(super) fn totals(row: &SqliteRow) -> Result<OrderTotals, Error> {
    Ok(OrderTotals {
        orders: row.try_get("order_count")?,
        units_sold: row.try_get("units_sold")?,
        units_reserved: row.try_get("units_reserved")?,
    })
}

pub(super) fn orders_json(orders: &[(usize, &Order, Option<&IdempotencyKey>)]) -> String {
    json(&orders.iter().map(|(_, order, key)| order_row(order, *key)).collect::<Vec<_>>())
}

fn order_row<'a>(order: &'a Order, key: Option<&'a IdempotencyKey>) -> OrderRow<'a> {
    OrderRow {
        id: order.id,
        sku: &order.sku,
        buyer: &order.buyer,
        quantity: order.quantity,
        idempotency_key: key.map(IdempotencyKey::as_str),
        stock_before: order.stock_before,
        stock_after: order.stock_after,
        version: order.version,
        lock_strategy: &order.lock.strategy,
        fencing_token: order.lock.fencing_token,
        replica: &order.replica,
        created_at: order.created_at.as_microsecond(),
    }
}

pub(super) fn adjustments_json(adjustments: &[&Adjustment]) -> String {
    json(&adjustments.iter().map(|adjustment| adjustment_row(adjustment)).collect::<Vec<_>>())
}

pub(super) fn transitions_json(transitions: &[Transition]) -> String {
    let row = |transition: &Transition| {
        let [from, to] = [transition.from, transition.to].map(status_name);
        serde_json::json!({
            "order": transition.order, "from": from, "to": to, "overdue": transition.overdue(),
        })
    };
    json(&transitions.iter().map(row).collect::<Vec<_>>())
}

fn adjustment_row(adjustment: &Adjustment) -> AdjustmentRow<'_> {
    AdjustmentRow {
        id: adjustment.id,
        sku: &adjustment.sku,
        delta: adjustment.delta,
        reason: &adjustment.reason,
        version: adjustment.version,
        created_at: adjustment.created_at.as_microsecond(),
    }
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("rows can be written as JSON")
}

pub(super) fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

/// The moment that comes so long after now.
pub(super) fn now_and(time: Duration) -> Result<Timestamp, Error> {
    moment(now() + i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2))
}

pub(super) fn product(row: &SqliteRow) -> Result<Product, Error> {
    Ok(Product {
        sku: row.try_get("sku")?,
        name: row.try_get("name")?,
        stock: row.try_get("stock")?,
        version: row.try_get("version")?,
        supply: row.try_get("supply")?,
        created_at: timestamp(row)?,
    })
}

pub(super) fn order(row: &SqliteRow) -> Result<Order, Error> {
    let pay_by = row.try_get::<Option<i64>, _>("pay_by")?.map(moment).transpose()?;
    Ok(Order {
        id: uuid(row)?,
        sku: row.try_get("sku")?,
        buyer: row.try_get("buyer")?,
        quantity: row.try_get("quantity")?,
        status: status(row.try_get("status")?)?,
        pay_by,
        stock_before: row.try_get("stock_before")?,
        stock_after: row.try_get("stock_after")?,
        version: row.try_get("version")?,
        lock: LockEvidence {
            strategy: row.try_get("lock_strategy")?,
            fencing_token: row.try_get("fencing_token")?,
        },
        replica: row.try_get("replica")?,
        created_at: timestamp(row)?,
    })
}

pub(super) fn adjustment(row: &SqliteRow) -> Result<Adjustment, Error> {
    Ok(Adjustment {
        id: uuid(row)?,
        sku: row.try_get("sku")?,
        delta: row.try_get("delta")?,
        reason: row.try_get("reason")?,
        version: row.try_get("version")?,
        created_at: timestamp(row)?,
    })
}

fn uuid(row: &SqliteRow) -> Result<Uuid, Error> {
    row.try_get::<&str, _>("id")?.parse().map_err(|e: uuid::Error| Error::Decode(e.into()))
}

fn timestamp(row: &SqliteRow) -> Result<Timestamp, Error> {
    moment(row.try_get("created_at")?)
}

fn moment(micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|e| Error::Decode(e.into()))
}
