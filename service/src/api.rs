//! The bodies of requests and answers. The load generator reads the same types; there is no logic here.

mod integer;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

pub(crate) use integer::as_integer;

/// The name of the header that makes an order safe to send again.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The name of the header that marks an answer as the repetition of an earlier one.
pub const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";

/// The body of `POST /v1/orders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// The product to buy.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "hair-dryer")]
    pub sku: String,
    /// How many units to buy.
    #[serde(deserialize_with = "integer::deserialize")]
    #[schema(minimum = 1, maximum = 1_000_000, example = 1)]
    pub quantity: i64,
    /// Who buys; at most 100 characters, none of them a control character.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        example = "A"
    )]
    pub buyer: String,
}

/// An order as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// A UUID of version 7: orders of one replica sort by the time they were placed.
    pub id: Uuid,
    /// The product.
    pub sku: String,
    /// Who bought.
    pub buyer: String,
    /// Units bought.
    pub quantity: i64,
    /// Whether the units are sold.
    pub status: OrderStatus,
    /// Where an order has to be paid: until when, by the clock of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_by: Option<Timestamp>,
    /// The stock that this order read.
    pub stock_before: i64,
    /// The stock that this order wrote: the same, where only its payment takes the units.
    pub stock_after: i64,
    /// The version of the product that this order made: every change of stock makes the next one.
    pub version: i64,
    /// The lock under which it was written.
    pub lock: LockEvidence,
    /// The replica that wrote it.
    pub replica: String,
    /// When it was written, by the clock of that replica.
    pub created_at: Timestamp,
}

/// What has become of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// It is to be paid by its `pay_by`, or will expire. Its units are reserved, where the shop decides by
    /// order; where it decides by payment, they are not.
    AwaitingPayment,
    /// The units are sold: it is paid, or did not have to be.
    Confirmed,
    /// It is taken back, and so are its units.
    Cancelled,
    /// It was not paid in time. Units that were reserved for it are back in stock.
    Expired,
}

/// The lock under which an order was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockEvidence {
    /// The strategy's name in the configuration.
    pub strategy: String,
    /// The fencing token of the hold, where the strategy has one: it grows with every hold.
    pub fencing_token: Option<i64>,
}

/// The query of `GET /v1/orders`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OrderQuery {
    /// Only the orders of this product.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub sku: Option<String>,
    /// Where the previous page ended: its `next_cursor`.
    #[param(format = "uuid")]
    pub cursor: Option<String>,
    /// The greatest number of orders to answer with; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<String>,
}

/// A page of orders, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OrderPage {
    /// The orders.
    pub orders: Vec<Order>,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Product {
    /// The stock keeping unit: the product's identity.
    pub sku: String,
    /// What people call it.
    pub name: String,
    /// Units that can still be sold.
    pub stock: i64,
    /// How many changes the stock has seen.
    pub version: i64,
    /// Units ever put in stock.
    pub supply: i64,
    /// When it was created, or last reset.
    pub created_at: Timestamp,
}

/// The query of `GET /v1/products`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProductQuery {
    /// Where the previous page ended: its `next_cursor`.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub cursor: Option<String>,
    /// The greatest number of products to answer with; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<String>,
}

/// A page of products, by SKU.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProductPage {
    /// The products.
    pub products: Vec<Product>,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// How a stock is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StockRead {
    /// The last committed value, without any lock.
    #[default]
    Latest,
    /// Under a shared lock: concurrently with other readers, never with a writer.
    Locked,
}

/// The query of `GET /v1/products/{sku}/stock`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StockQuery {
    /// `latest` (the default) reads without a lock, `locked` under a shared one.
    #[param(value_type = Option<StockRead>)]
    pub read: Option<String>,
}

/// The stock of a product.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Stock {
    /// The product.
    pub sku: String,
    /// Units that can still be sold.
    pub stock: i64,
    /// How many changes the stock has seen.
    pub version: i64,
    /// When it was read, by the clock of the replica.
    pub as_of: Timestamp,
}

/// The body of `PUT /v1/admin/products/{sku}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutProduct {
    /// What people call it.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        example = "Hair dryer"
    )]
    pub name: String,
    /// Units in stock.
    #[serde(deserialize_with = "integer::deserialize")]
    #[schema(minimum = 0, maximum = 1_000_000_000, example = 100)]
    pub stock: i64,
}

/// The body of `POST /v1/admin/products/{sku}/restock`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restock {
    /// Units to add.
    #[serde(deserialize_with = "integer::deserialize")]
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 10)]
    pub quantity: i64,
    /// Why; at most 200 characters.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        example = "delivery"
    )]
    pub reason: String,
}

/// A change of stock that is not an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adjustment {
    /// A UUID of version 7.
    pub id: Uuid,
    /// The product.
    pub sku: String,
    /// Units added to the stock.
    pub delta: i64,
    /// Why: the restock's reason, or `cancelled <order id>`, `paid <order id>` or `expired <order id>`.
    pub reason: String,
    /// The version of the product that this change made.
    pub version: i64,
    /// When it was written, by the clock of the replica.
    pub created_at: Timestamp,
}

/// The query of `GET /v1/admin/products/{sku}/adjustments`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AdjustmentQuery {
    /// Where the previous page ended: its `next_cursor`.
    #[param(pattern = "^[0-9]{1,18}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    pub cursor: Option<String>,
    /// The greatest number of adjustments to answer with; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<String>,
}

/// A page of the adjustments of a product.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AdjustmentList {
    /// The adjustments, by version.
    pub adjustments: Vec<Adjustment>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Who has a product's lock and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockStatus {
    /// Who has it.
    pub holders: Vec<LockHolder>,
    /// How many wait.
    pub waiting: u64,
}

/// A holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockHolder {
    /// `exclusive` or `shared`.
    pub mode: String,
    /// The hold's fencing token, where the lock has one.
    pub fencing_token: Option<i64>,
    /// The replica, where the lock knows it.
    pub replica: Option<String>,
    /// Whether the lease is over and the lock free for whoever asks next.
    pub expired: bool,
}

/// The query of `GET /v1/admin/products/{sku}/holds`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HoldQuery {
    /// The `now_ns` of an earlier record: holds that were released before it are left out. Whoever asks again
    /// and again gets each hold once, and meanwhile those that last.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub after_ns: Option<String>,
}

/// What a replica remembers of its latest exclusive holds of a product's lock.
///
/// The records of replicas on one host can be compared: where the clock is `host`, all times are of one
/// clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldRecord {
    /// The name of the replica.
    pub replica: String,
    /// Whose clock the times are of.
    pub clock: Clock,
    /// Every hold that was released after this is in the record; `now_ns` where nothing is recorded.
    pub since_ns: u64,
    /// How many older holds, of any product, were dropped to keep the record bounded.
    pub dropped: u64,
    /// When this answer was made: every time in it is earlier.
    pub now_ns: u64,
    /// The holds, oldest first. Strategies without a lock have none.
    pub holds: Vec<LockHold>,
}

/// Whose monotonic clock a time in nanoseconds is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The host's: times of all its processes can be compared.
    Host,
    /// The process's own, where there is no such clock.
    Process,
}

/// One exclusive hold of a product's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockHold {
    /// The product.
    pub sku: String,
    /// The hold's fencing token, where the lock has one.
    pub fencing_token: Option<i64>,
    /// When the lock was asked for.
    pub asked_ns: u64,
    /// When it was acquired.
    pub acquired_ns: u64,
    /// When its release was sent; null while it is held.
    pub released_ns: Option<u64>,
    /// The first and the last version of every run of versions that was committed under the hold, in the
    /// order of the commits. A commit whose outcome is not known is not among them. Of very many runs, the
    /// last covers the rest.
    pub written: Vec<[i64; 2]>,
    /// How many writes under the hold the guard refused.
    pub stale: u32,
    /// Whether the lease was over before its release; false while it is held.
    pub lost: bool,
}

/// What the orders of a product come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderTotals {
    /// Orders, cancelled and expired ones too.
    pub orders: i64,
    /// Units in confirmed orders.
    pub units_sold: i64,
    /// Units that are reserved for orders which are still to be paid.
    pub units_reserved: i64,
}

/// What an audit has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CountedFrom {
    /// The orders, every one of them.
    #[default]
    Orders,
    /// Nothing: there are too many orders, and the product's own counters are believed. They are changed by
    /// the statement that writes the orders.
    Counters,
}

/// The audit of a product: what was put in stock, sold, reserved and left, read in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// Units ever put in stock.
    pub supply: i64,
    /// Units that the product row says are left.
    pub stock: i64,
    /// How many changes the stock has seen.
    pub version: i64,
    /// Units in confirmed orders.
    pub units_sold: i64,
    /// Units that are reserved for orders which are still to be paid.
    #[serde(default)]
    pub units_reserved: i64,
    /// Orders, cancelled and expired ones too.
    pub orders: i64,
    /// `max(0, units_sold + units_reserved - supply)`.
    pub oversold_units: i64,
    /// Whether `stock = supply - units_sold - units_reserved`.
    pub balanced: bool,
    /// Orders that read the same stock at the same version: each is a lost update. At most ten, among the
    /// orders that were read.
    pub duplicate_reads: Vec<DuplicateRead>,
    /// Where `orders`, `units_sold` and `units_reserved` come from: `orders` of a product with fewer than
    /// 100,000.
    #[serde(default)]
    pub counted_from: CountedFrom,
    /// How many orders were read: all, or the latest 100,000 by version.
    #[serde(default)]
    pub orders_read: i64,
    /// What the product's counters say; null where there are none.
    #[serde(default)]
    pub counters: Option<OrderTotals>,
    /// Whether the counters say what the orders do; null where not all orders were read, and nothing
    /// contradicts.
    #[serde(default)]
    pub counters_agree: Option<bool>,
}

/// Orders that read the same stock at the same version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DuplicateRead {
    /// What they read.
    pub stock_before: i64,
    /// The version they all made.
    pub version: i64,
    /// The orders.
    pub orders: Vec<Uuid>,
}

/// What a replica is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// The version of the service.
    pub version: String,
    /// The commit it was built from, where that is known.
    pub commit: Option<String>,
    /// The name of the replica.
    pub replica: String,
    /// The locking strategy.
    pub strategy: String,
    /// Whether a write is refused when what it read has changed: `version` or `off`.
    pub guard: String,
    /// The most orders that one lock hold's transaction takes.
    pub max_batch: usize,
    /// The store: `sqlite` or `postgres`.
    pub store: String,
    /// The lease of the lock in milliseconds; absent where locks have none.
    pub lease_ms: Option<u64>,
    /// Whether the load generator may reset a product.
    pub allow_reset: bool,
    /// What takes the units: the `order`, or its `payment`.
    #[serde(default)]
    pub decide_by: String,
    /// Within how many milliseconds an order has to be paid; absent where it need not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_window_ms: Option<u64>,
}

/// The answer of `/livez` and `/readyz`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// What is known of an order that was not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderOutcome {
    /// Nothing was written.
    NotExecuted,
    /// It may have been written; the same idempotency key may be sent again to find out.
    Unknown,
}

/// An error, as RFC 9457 says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `/problems/<slug>`: what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// The request's identity, as in the header `x-request-id` and in the log.
    #[serde(default)]
    pub request_id: String,
    /// For changes of stock: whether anything may have been written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OrderOutcome>,
    /// For `insufficient-stock`: the units asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<i64>,
    /// For `insufficient-stock`: the units there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<i64>,
    /// For `insufficient-stock`: the version of the product at which there were so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// For `not-cancellable` and `not-payable`: what has become of the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_status: Option<OrderStatus>,
    /// For `validation`: every field that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The field's name.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}
