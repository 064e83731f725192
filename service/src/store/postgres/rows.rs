//! Rows to values and back. Many rows go in as one array for each column: one statement, whatever the batch.

use jiff::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef, Postgres,
};
use sqlx::query::Query;
use sqlx::{Decode, Encode, Error, Row as _, Type};
use uuid::Uuid;

use crate::api::{Adjustment, LockEvidence, Order, OrderStatus, Product};
use crate::order::IdempotencyKey;

pub(super) const INSERT_ORDERS: &str = "insert into orders (
        id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version,
        lock_strategy, fencing_token, replica, created_at
    )
    select id, sku, buyer, quantity, 'confirmed', idempotency_key, stock_before, stock_after, version,
        lock_strategy, fencing_token, replica, created_at
    from unnest(
        $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::text[], $10::bigint[], $11::text[], $12::timestamptz[]
    ) as o (
        id, sku, buyer, quantity, idempotency_key, stock_before, stock_after, version,
        lock_strategy, fencing_token, replica, created_at
    )
    -- Keys are unique across products: batches that share some must meet them in one order, or could deadlock.
    order by o.idempotency_key";

pub(super) const SELL: &str = "with product as (
        update products set stock = $13, version = version + $14
        where sku = $15 and ($16::bigint is null or version = $16)
        returning sku
    )
    insert into orders (
        id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version,
        lock_strategy, fencing_token, replica, created_at
    )
    select o.id, o.sku, o.buyer, o.quantity, 'confirmed', o.idempotency_key, o.stock_before, o.stock_after,
        o.version, o.lock_strategy, o.fencing_token, o.replica, o.created_at
    from product, unnest(
        $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::text[], $10::bigint[], $11::text[], $12::timestamptz[]
    ) as o (
        id, sku, buyer, quantity, idempotency_key, stock_before, stock_after, version,
        lock_strategy, fencing_token, replica, created_at
    )
    -- Keys are unique across products: batches that share some must meet them in one order, or could deadlock.
    order by o.idempotency_key";

/// Orders, column by column.
pub(super) struct OrderColumns<'a> {
    id: Vec<Uuid>,
    sku: Vec<&'a str>,
    buyer: Vec<&'a str>,
    quantity: Vec<i64>,
    idempotency_key: Vec<Option<&'a str>>,
    stock_before: Vec<i64>,
    stock_after: Vec<i64>,
    version: Vec<i64>,
    lock_strategy: Vec<&'a str>,
    fencing_token: Vec<Option<i64>>,
    replica: Vec<&'a str>,
    created_at: Vec<Micros>,
}

impl<'a> OrderColumns<'a> {
    pub(super) fn of(orders: &'a [(Order, Option<IdempotencyKey>)]) -> Self {
        fn column<'a, T>(
            orders: &'a [(Order, Option<IdempotencyKey>)],
            value: impl Fn(&'a Order) -> T,
        ) -> Vec<T> {
            orders.iter().map(|(order, _)| value(order)).collect()
        }
        Self {
            id: column(orders, |order| order.id),
            sku: column(orders, |order| order.sku.as_str()),
            buyer: column(orders, |order| order.buyer.as_str()),
            quantity: column(orders, |order| order.quantity),
            idempotency_key: orders.iter().map(|(_, key)| key.as_ref().map(IdempotencyKey::as_str)).collect(),
            stock_before: column(orders, |order| order.stock_before),
            stock_after: column(orders, |order| order.stock_after),
            version: column(orders, |order| order.version),
            lock_strategy: column(orders, |order| order.lock.strategy.as_str()),
            fencing_token: column(orders, |order| order.lock.fencing_token),
            replica: column(orders, |order| order.replica.as_str()),
            created_at: column(orders, |order| Micros(order.created_at)),
        }
    }

    /// Binds the first twelve parameters.
    pub(super) fn bind(self, query: Query<'a, Postgres, PgArguments>) -> Query<'a, Postgres, PgArguments> {
        query
            .bind(self.id)
            .bind(self.sku)
            .bind(self.buyer)
            .bind(self.quantity)
            .bind(self.idempotency_key)
            .bind(self.stock_before)
            .bind(self.stock_after)
            .bind(self.version)
            .bind(self.lock_strategy)
            .bind(self.fencing_token)
            .bind(self.replica)
            .bind(self.created_at)
    }
}

pub(super) fn insert_adjustments(adjustments: &[Adjustment]) -> Query<'_, Postgres, PgArguments> {
    fn column<'a, T>(adjustments: &'a [Adjustment], value: impl Fn(&'a Adjustment) -> T) -> Vec<T> {
        adjustments.iter().map(value).collect()
    }
    sqlx::query(
        "insert into stock_adjustments (id, sku, delta, reason, version, created_at)
         select * from unnest(
             $1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::timestamptz[]
         )",
    )
    .bind(column(adjustments, |adjustment| adjustment.id))
    .bind(column(adjustments, |adjustment| adjustment.sku.as_str()))
    .bind(column(adjustments, |adjustment| adjustment.delta))
    .bind(column(adjustments, |adjustment| adjustment.reason.as_str()))
    .bind(column(adjustments, |adjustment| adjustment.version))
    .bind(column(adjustments, |adjustment| Micros(adjustment.created_at)))
}

pub(super) fn product(row: &PgRow) -> Result<Product, Error> {
    Ok(Product {
        sku: row.try_get("sku")?,
        name: row.try_get("name")?,
        stock: row.try_get("stock")?,
        version: row.try_get("version")?,
        supply: row.try_get("supply")?,
        created_at: row.try_get::<Micros, _>("created_at")?.0,
    })
}

pub(super) fn order(row: &PgRow) -> Result<Order, Error> {
    let cancelled = row.try_get::<&str, _>("status")? == "cancelled";
    Ok(Order {
        id: row.try_get("id")?,
        sku: row.try_get("sku")?,
        buyer: row.try_get("buyer")?,
        quantity: row.try_get("quantity")?,
        status: if cancelled { OrderStatus::Cancelled } else { OrderStatus::Confirmed },
        stock_before: row.try_get("stock_before")?,
        stock_after: row.try_get("stock_after")?,
        version: row.try_get("version")?,
        lock: LockEvidence {
            strategy: row.try_get("lock_strategy")?,
            fencing_token: row.try_get("fencing_token")?,
        },
        replica: row.try_get("replica")?,
        created_at: row.try_get::<Micros, _>("created_at")?.0,
    })
}

pub(super) fn adjustment(row: &PgRow) -> Result<Adjustment, Error> {
    Ok(Adjustment {
        id: row.try_get("id")?,
        sku: row.try_get("sku")?,
        delta: row.try_get("delta")?,
        reason: row.try_get("reason")?,
        version: row.try_get("version")?,
        created_at: row.try_get::<Micros, _>("created_at")?.0,
    })
}

/// A time stamp as PostgreSQL has it: microseconds since 2000, in 64 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Micros(pub(super) Timestamp);

/// The year 2000 in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_timestamptz")
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0.as_microsecond() - EPOCH, buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Micros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(Timestamp::from_microsecond(micros + EPOCH)?))
    }
}
