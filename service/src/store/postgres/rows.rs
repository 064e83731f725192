//! Rows to values and back. Many rows go in as one array for each column: one statement, whatever the batch.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef, Postgres,
};
use sqlx::query::{Query, QueryScalar};
use sqlx::{Decode, Encode, Error, PgConnection, Row as _, Type};
use uuid::Uuid;

use crate::api::{Adjustment, LockEvidence, Order, OrderTotals, Product};
use crate::change::KeptAnswer;
use crate::db::postgres::places;
use crate::inventory::StockLevel;
use crate::order::{IdempotencyKey, Sku};
use crate::store::flight::{Flight, ordinal};
use crate::store::{WriteBatch, status};

/// The same columns in every statement that inserts orders; the first thirteen parameters.
macro_rules! orders {
    () => {
        "unnest(
            $1::int[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[],
            $8::bigint[], $9::bigint[], $10::text[], $11::bigint[], $12::text[], $13::timestamptz[]
        ) as o (
            batch, id, sku, buyer, quantity, idempotency_key, stock_before, stock_after, version,
            lock_strategy, fencing_token, replica, created_at
        )"
    };
}

/// `$window` is the parameter that says within how many milliseconds they have to be paid, or null.
macro_rules! insert_orders {
    ($window:literal) => {
        concat!(
            "insert into orders (
                id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version,
                lock_strategy, fencing_token, replica, created_at, pay_by
            )
            select id, sku, buyer, quantity,
                case when ",
            $window,
            "::float8 is null then 'confirmed' else 'awaiting_payment' end,
                idempotency_key, stock_before, stock_after, version,
                lock_strategy, fencing_token, replica, created_at,
                statement_timestamp() + ",
            $window,
            " * interval '1 millisecond'
            from "
        )
    };
}

pub(super) const INSERT_ORDERS: &str = concat!(
    insert_orders!("$14"),
    orders!(),
    " on conflict (idempotency_key) do nothing returning id, pay_by"
);

/// The products' rows first: orders are inserted for those only that could be locked and are still what was
/// read. The form of the last condition makes a hash table of the few batches, where a join might compare
/// each with each.
pub(super) const SELL: &str = concat!(
    "with locked as materialized (
        select b.batch, b.stock, b.versions, b.orders, b.units_sold, b.units_reserved, p.sku
        from unnest(
            $14::int[], $15::text[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[],
            $20::bigint[], $21::bigint[]
        ) as b (batch, sku, stock, versions, orders, units_sold, units_reserved, read_version)
        join products as p on p.sku = b.sku
        where b.read_version is null or p.version = b.read_version
        for update of p skip locked
    ),
    updated as (
        update products as p set
            stock = l.stock, version = p.version + l.versions, order_count = p.order_count + l.orders,
            units_sold = p.units_sold + l.units_sold, units_reserved = p.units_reserved + l.units_reserved
        from locked as l where p.sku = l.sku
        returning l.batch
    ),
    inserted as (",
    insert_orders!("$22"),
    orders!(),
    " where (o.batch in (select batch from updated)) is true
    )
    select batch, statement_timestamp() + $22 * interval '1 millisecond' as pay_by from updated"
);

/// The same for one product whose orders need not be paid: without tables of one row to join, in four fifths
/// of the time. It inserts either all orders or none. A row that another transaction has just changed is
/// passed over where nothing guards it, and then written by itself. `$17` is where the row may stand; returns
/// where it stands now.
const SELL_ONE: &str = "
    with updated as (
        update products set
            stock = $2, version = version + $3,
            order_count = order_count + cardinality($9::uuid[]), units_sold = units_sold + $16
        where ctid = coalesce(
            (
                select ctid from products
                where ctid = $17::text::tid and sku = $1 and ($4 is null or version = $4)
                for update skip locked
            ),
            (select ctid from products where sku = $1 and ($4 is null or version = $4) for update skip locked)
        )
        returning ctid
    ),
    inserted as (
        insert into orders (
            id, sku, buyer, quantity, status, idempotency_key, stock_before, stock_after, version,
            lock_strategy, fencing_token, replica, created_at
        )
        select id, $1, buyer, quantity, 'confirmed', idempotency_key, stock_before, stock_after, version,
            $5, $6, $7, $8
        from unnest(
            $9::uuid[], $10::text[], $11::bigint[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[]
        ) as o (id, buyer, quantity, idempotency_key, stock_before, stock_after, version)
        where exists (select from updated)
    )
    select ctid::text from updated";

macro_rules! lock_versions {
    () => {
        "select b.batch from unnest($1::int[], $2::text[], $3::bigint[]) as b (batch, sku, read_version)
        join products as p on p.sku = b.sku
        where b.read_version is null or p.version = b.read_version
        for update of p"
    };
}

pub(super) const LOCK_VERSIONS: &str = lock_versions!();
pub(super) const LOCK_FREE_VERSIONS: &str = concat!(lock_versions!(), " skip locked");

/// The orders that are as a transition wants them. The time at which the statement began counts, whatever it
/// has to wait for.
pub(super) const LOCK_UNCHANGED: &str = "select o.id
    from unnest($1::uuid[], $2::text[], $3::bool[]) as t (id, status, overdue)
    join orders as o on o.id = t.id
    where o.status = t.status and (t.overdue is null or (o.pay_by <= statement_timestamp()) = t.overdue)
    for update of o";

pub(super) const CHANGE_STATUS: &str = "update orders as o set status = t.status
    from unnest($1::uuid[], $2::text[]) as t (id, status) where o.id = t.id";

pub(super) const UPDATE_PRODUCTS: &str = "update products as p set
        stock = b.stock, version = p.version + b.versions,
        supply = coalesce(b.reset_supply, p.supply) + b.supplied,
        name = coalesce(b.reset_name, p.name), created_at = coalesce(b.reset_at, p.created_at),
        order_count = b.orders + case when b.reset_supply is null then p.order_count else 0 end,
        units_sold = b.units_sold + case when b.reset_supply is null then p.units_sold else 0 end,
        units_reserved = b.units_reserved + case when b.reset_supply is null then p.units_reserved else 0 end
    from unnest(
        $1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::timestamptz[],
        $8::bigint[], $9::bigint[], $10::bigint[]
    ) as b (
        sku, stock, versions, supplied, reset_supply, reset_name, reset_at, orders, units_sold, units_reserved
    )
    where p.sku = b.sku";

macro_rules! levels {
    () => {
        "select s.number, p.stock, p.version, p.supply
        from unnest($1::text[]) with ordinality as s (sku, number)
        join products as p on p.sku = s.sku"
    };
}

/// The levels of products, with their places in `skus`.
pub(super) fn levels(skus: &[Sku]) -> Query<'_, Postgres, PgArguments> {
    sqlx::query(levels!()).bind(skus.iter().map(Sku::as_str).collect::<Vec<_>>())
}

/// The same, and locks their rows; those that are locked are passed over unless they are to be waited for.
pub(super) fn lock_levels(skus: &[Sku], wait: bool) -> Query<'_, Postgres, PgArguments> {
    let sql = if wait {
        concat!(levels!(), " for update of p")
    } else {
        concat!(levels!(), " for update of p skip locked")
    };
    sqlx::query(sql).bind(skus.iter().map(Sku::as_str).collect::<Vec<_>>())
}

/// A level, and its place among those that were asked for.
pub(super) fn level(row: &PgRow) -> Result<(usize, StockLevel), Error> {
    let number: i64 = row.try_get("number")?;
    Ok((usize::try_from(number - 1).expect("ordinals begin with one"), stock_level(row)?))
}

pub(super) fn stock_level(row: &PgRow) -> Result<StockLevel, Error> {
    Ok(StockLevel {
        stock: row.try_get("stock")?,
        version: row.try_get("version")?,
        supply: row.try_get("supply")?,
    })
}

/// Those of the keys that have an order.
pub(super) async fn taken_keys(
    connection: &mut PgConnection,
    keys: &[&str],
) -> Result<HashSet<String>, Error> {
    let query = sqlx::query_scalar("select idempotency_key from orders where idempotency_key = any($1)");
    Ok(query.bind(keys).fetch_all(connection).await?.into_iter().collect())
}

/// Batches, column by column.
pub(super) struct BatchColumns<'a> {
    batch: Vec<i32>,
    sku: Vec<&'a str>,
    stock: Vec<i64>,
    versions: Vec<i64>,
    counted: Vec<OrderTotals>,
    read_version: Vec<Option<i64>>,
}

impl<'a> BatchColumns<'a> {
    pub(super) fn of(flight: &Flight<'a>) -> Self {
        let (batch, batches): (Vec<_>, Vec<_>) = flight.accepted().unzip();
        Self {
            batch: batch.into_iter().map(ordinal).collect(),
            sku: batches.iter().map(|batch| batch.sku.as_str()).collect(),
            stock: batches.iter().map(|batch| batch.stock_after).collect(),
            versions: batches.iter().map(|batch| batch.versions).collect(),
            counted: batches.iter().map(|batch| batch.counted()).collect(),
            read_version: batches.iter().map(|batch| batch.guarded).collect(),
        }
    }

    /// Binds all eight columns.
    pub(super) fn bind(self, query: Query<'a, Postgres, PgArguments>) -> Query<'a, Postgres, PgArguments> {
        let query = query.bind(self.batch).bind(self.sku).bind(self.stock);
        let query = query.bind(self.versions);
        let numbers = |of: fn(&OrderTotals) -> i64| self.counted.iter().map(of).collect::<Vec<_>>();
        query
            .bind(numbers(|counted| counted.orders))
            .bind(numbers(|counted| counted.units_sold))
            .bind(numbers(|counted| counted.units_reserved))
            .bind(self.read_version)
    }

    /// Binds the versions that were read.
    pub(super) fn bind_versions(
        self,
        query: Query<'a, Postgres, PgArguments>,
    ) -> Query<'a, Postgres, PgArguments> {
        query.bind(self.batch).bind(self.sku).bind(self.read_version)
    }
}

/// Orders, column by column.
pub(super) struct OrderColumns<'a> {
    batch: Vec<i32>,
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
    pub(super) fn of(orders: &[NumberedOrder<'a>]) -> Self {
        Self {
            batch: orders.iter().map(|(batch, ..)| ordinal(*batch)).collect(),
            id: column(orders, |order| order.id),
            sku: column(orders, |order| order.sku.as_str()),
            buyer: column(orders, |order| order.buyer.as_str()),
            quantity: column(orders, |order| order.quantity),
            idempotency_key: keys(orders),
            stock_before: column(orders, |order| order.stock_before),
            stock_after: column(orders, |order| order.stock_after),
            version: column(orders, |order| order.version),
            lock_strategy: column(orders, |order| order.lock.strategy.as_str()),
            fencing_token: column(orders, |order| order.lock.fencing_token),
            replica: column(orders, |order| order.replica.as_str()),
            created_at: column(orders, |order| Micros(order.created_at)),
        }
    }

    /// Binds the first thirteen parameters.
    pub(super) fn bind(self, query: Query<'a, Postgres, PgArguments>) -> Query<'a, Postgres, PgArguments> {
        query
            .bind(self.batch)
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

/// Sells one product: these orders, of which there is at least one.
pub(super) fn sell_one<'a>(
    batch: &'a WriteBatch,
    orders: &[NumberedOrder<'a>],
) -> QueryScalar<'a, Postgres, String, PgArguments> {
    let [(_, first, _), ..] = orders else { unreachable!("a sale has an order") };
    // What was decided together, under one lease.
    debug_assert!(orders.iter().all(|(_, order, _)| {
        let common = |order: &Order| (order.sku.clone(), order.lock.clone(), order.created_at);
        common(order) == common(first) && order.replica == first.replica
    }));
    sqlx::query_scalar(SELL_ONE)
        .bind(batch.sku.as_str())
        .bind(batch.stock_after)
        .bind(batch.versions)
        .bind(batch.guarded)
        .bind(&*first.lock.strategy)
        .bind(first.lock.fencing_token)
        .bind(&*first.replica)
        .bind(Micros(first.created_at))
        .bind(column(orders, |order| order.id))
        .bind(column(orders, |order| order.buyer.as_str()))
        .bind(column(orders, |order| order.quantity))
        .bind(keys(orders))
        .bind(column(orders, |order| order.stock_before))
        .bind(column(orders, |order| order.stock_after))
        .bind(column(orders, |order| order.version))
        .bind(batch.counted().units_sold)
        .bind(places::place_of(batch.sku.as_str()))
}

/// An order with the number of its batch and its idempotency key.
type NumberedOrder<'a> = (usize, &'a Order, Option<&'a IdempotencyKey>);

fn column<'a, T>(orders: &[NumberedOrder<'a>], value: impl Fn(&'a Order) -> T) -> Vec<T> {
    orders.iter().map(|(_, order, _)| value(order)).collect()
}

fn keys<'a>(orders: &[NumberedOrder<'a>]) -> Vec<Option<&'a str>> {
    orders.iter().map(|(.., key)| key.map(IdempotencyKey::as_str)).collect()
}

/// Keeps answers, but for those whose keys are taken; returns the keys of the others.
pub(super) fn keep_answers<'a>(answers: &[&'a KeptAnswer]) -> QueryScalar<'a, Postgres, String, PgArguments> {
    fn column<'a>(answers: &[&'a KeptAnswer], value: fn(&'a KeptAnswer) -> &'a str) -> Vec<&'a str> {
        answers.iter().map(|answer| value(answer)).collect()
    }
    sqlx::query_scalar(
        "insert into kept_answers (idempotency_key, request, answer)
         select key, request, answer
         from unnest($1::text[], $2::text[], $3::text[]) as kept (key, request, answer)
         on conflict do nothing
         returning idempotency_key",
    )
    .bind(column(answers, |answer| answer.key.as_str()))
    .bind(column(answers, |answer| &answer.request))
    .bind(column(answers, |answer| &answer.answer))
}

pub(super) fn insert_adjustments<'a>(adjustments: &[&'a Adjustment]) -> Query<'a, Postgres, PgArguments> {
    fn column<'a, T>(adjustments: &[&'a Adjustment], value: impl Fn(&'a Adjustment) -> T) -> Vec<T> {
        adjustments.iter().map(|adjustment| value(adjustment)).collect()
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
    Ok(Order {
        id: row.try_get("id")?,
        sku: row.try_get("sku")?,
        buyer: row.try_get("buyer")?,
        quantity: row.try_get("quantity")?,
        status: status(row.try_get("status")?)?,
        pay_by: row.try_get::<Option<Micros>, _>("pay_by")?.map(|micros| micros.0),
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
