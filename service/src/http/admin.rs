//! `/v1/admin`.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::Admin;
use super::docs::{AdminProblems, AuditProblems, SkuPath};
use super::extract::{Json, KeyHeader, Params, Segment};
use super::page::{self, Parameters};
use super::problem::Failure;
use super::{AppState, replayed};
use crate::api::{
    Adjustment, AdjustmentList, AdjustmentQuery, Audit, HoldQuery, HoldRecord, LockHolder, LockStatus,
    Product, PutProduct, Restock,
};
use crate::checkout::Put;
use crate::order::{ProductRequest, RestockRequest, Sku};

pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(put_product))
        .routes(routes!(restock))
        .routes(routes!(audit))
        .routes(routes!(adjustments))
        .routes(routes!(lock))
        .routes(routes!(holds))
}

/// Create a product, or reset it.
///
/// On a product that exists this deletes its orders and sets a fresh stock, and needs `admin.allow_reset`.
/// One with more than 30,000 orders or adjustments is not reset: these could not be deleted in time.
/// With an `Idempotency-Key`, it may be sent again whatever the first answer was: the orders that came since
/// are not deleted.
#[utoipa::path(
    put, path = "/v1/admin/products/{sku}", operation_id = "putProduct", tag = "admin",
    request_body = PutProduct, security(("admin" = [])),
    params(
        SkuPath,
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
            description = "The client's name for this attempt, with which it may be sent again; a reset does \
                not forget it"),
    ),
    responses(
        (status = 200, body = Product, description = "The product is reset", headers(
            ("Idempotent-Replayed" = Option<String>,
                description = "`true` when the same request was made before"),
        )),
        (status = 201, body = Product, description = "The product is created", headers(
            ("Idempotent-Replayed" = Option<String>,
                description = "`true` when the same request was made before"),
        )),
        AdminProblems,
    ),
)]
async fn put_product(
    _: Admin,
    State(shared): State<Arc<AppState>>,
    Segment(sku): Segment,
    KeyHeader(key): KeyHeader,
    Json(body): Json<PutProduct>,
) -> Result<impl IntoResponse, Failure> {
    let product = ProductRequest::parse(&sku, body, key).map_err(Failure::validation)?;
    let put = shared.checkout.put(product, shared.info.allow_reset).await?;
    let (status, product) = match put.value {
        Put::Created(product) => (StatusCode::CREATED, product),
        Put::Reset(product) => (StatusCode::OK, product),
    };
    Ok((status, replayed(put.replayed), Body(product)))
}

/// Add units to a product's stock.
///
/// With an `Idempotency-Key`, it may be sent again whatever the first answer was: the units are added once.
#[utoipa::path(
    post, path = "/v1/admin/products/{sku}/restock", operation_id = "restockProduct", tag = "admin",
    request_body = Restock, security(("admin" = [])),
    params(
        SkuPath,
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
            description = "The client's name for this attempt, with which it may be sent again; a reset does \
                not forget it"),
    ),
    responses((status = 201, body = Adjustment, description = "The units are in stock", headers(
        ("Idempotent-Replayed" = Option<String>,
                description = "`true` when the same request was made before"),
    )), AdminProblems),
)]
async fn restock(
    _: Admin,
    State(shared): State<Arc<AppState>>,
    Segment(sku): Segment,
    KeyHeader(key): KeyHeader,
    Json(body): Json<Restock>,
) -> Result<impl IntoResponse, Failure> {
    let restock = RestockRequest::parse(&sku, body, key).map_err(Failure::validation)?;
    let restocked = shared.checkout.restock(restock).await?;
    Ok((StatusCode::CREATED, replayed(restocked.replayed), Body(restocked.value)))
}

/// Audit a product.
///
/// Of a product with fewer than 100,000 orders these are counted, and compared with its counters. Of others
/// the latest 100,000 are read, and the counters say what all come to.
#[utoipa::path(
    get, path = "/v1/admin/products/{sku}/audit", operation_id = "auditProduct", tag = "admin",
    security(("admin" = [])),
    params(SkuPath),
    responses(
        (status = 200, body = Audit, description = "The audit, read in one transaction"),
        AuditProblems,
    ),
)]
async fn audit(
    _: Admin,
    State(shared): State<Arc<AppState>>,
    Segment(sku): Segment,
) -> Result<Body<Audit>, Failure> {
    let sku = parse(&sku)?;
    let audit = shared.store.audit(&sku).await?.ok_or_else(|| Failure::no_such_product(sku.as_str()))?;
    let is_right = audit.balanced && audit.oversold_units == 0;
    shared.metrics.operation.audited(is_right);
    if !is_right {
        let (sku, stock, supply, sold) = (sku.as_str(), audit.stock, audit.supply, audit.units_sold);
        tracing::warn!(sku, stock, supply, sold, "the audit does not balance");
    }
    if audit.counters_agree == Some(false) {
        shared.metrics.operation.miscounted();
        let (sku, counters) = (sku.as_str(), audit.counters);
        let (orders, sold, reserved) = (audit.orders, audit.units_sold, audit.units_reserved);
        tracing::warn!(sku, orders, sold, reserved, ?counters, "the counters are not what the orders say");
    }
    Ok(Body(audit))
}

/// List a product's restocks and cancellations, by version.
#[utoipa::path(
    get, path = "/v1/admin/products/{sku}/adjustments", operation_id = "listAdjustments", tag = "admin",
    security(("admin" = [])),
    params(SkuPath, AdjustmentQuery),
    responses(
        (status = 200, body = AdjustmentList, description = "A page of the adjustments, by version"),
        AuditProblems,
    ),
)]
async fn adjustments(
    _: Admin,
    State(shared): State<Arc<AppState>>,
    Segment(sku): Segment,
    Params(query): Params<AdjustmentQuery>,
) -> Result<Body<AdjustmentList>, Failure> {
    let mut parameters = Parameters::default();
    let after = parameters.cursor(query.cursor.as_deref(), adjustment_cursor);
    let limit = parameters.limit(query.limit.as_deref());
    parameters.finish().map_err(Failure::validation)?;
    let sku = find(&shared, &sku).await?;
    let found = shared.store.adjustments(&sku, after, limit + 1).await?;
    let (adjustments, next_cursor) =
        page::cut(found, limit, |adjustment| format!("{}_{}", adjustment.version, adjustment.id));
    Ok(Body(AdjustmentList { adjustments, next_cursor }))
}

/// The version and the identity of the last adjustment of a page.
fn adjustment_cursor(text: &str) -> Result<(i64, Uuid), ()> {
    let (version, id) = text.split_once('_').ok_or(())?;
    Ok((version.parse().map_err(drop)?, Uuid::try_parse(id).map_err(drop)?))
}

/// See who has a product's lock and how many wait for it.
#[utoipa::path(
    get, path = "/v1/admin/products/{sku}/lock", operation_id = "getLock", tag = "admin",
    security(("admin" = [])),
    params(SkuPath),
    responses(
        (status = 200, body = LockStatus, description = "As far as this replica's lock can see"),
        AuditProblems,
    ),
)]
async fn lock(
    _: Admin,
    State(shared): State<Arc<AppState>>,
    Segment(sku): Segment,
) -> Result<Body<LockStatus>, Failure> {
    let state = shared.lock.state(parse(&sku)?.as_str()).await?;
    let holders = state.holders.into_iter().map(|holder| LockHolder {
        mode: holder.mode.name().into(),
        fencing_token: holder.token.map(|token| token.0),
        replica: holder.replica,
        expired: holder.expired,
    });
    Ok(Body(LockStatus { holders: holders.collect(), waiting: state.waiting }))
}

/// See this replica's latest exclusive holds of a product's lock.
///
/// Holds are recorded for the latest `checkout.holds_kept` that ended, and all that last. With the records of
/// all replicas on a host it can be checked that no two holds overlapped.
#[utoipa::path(
    get, path = "/v1/admin/products/{sku}/holds", operation_id = "listHolds", tag = "admin",
    security(("admin" = [])),
    params(SkuPath, HoldQuery),
    responses((status = 200, body = HoldRecord, description = "The holds, oldest first"), AuditProblems),
)]
async fn holds(
    _: Admin,
    State(shared): State<Arc<AppState>>,
    Segment(sku): Segment,
    Params(query): Params<HoldQuery>,
) -> Result<Body<HoldRecord>, Failure> {
    let parsed = |text: String| text.parse::<u64>().ok().filter(|ns| i64::try_from(*ns).is_ok());
    let must_be = || Failure::field("after_ns", "must be a whole number from 0 to 9223372036854775807");
    let after_ns = query.after_ns.map(|text| parsed(text).ok_or_else(must_be)).transpose()?;
    let sku = parse(&sku)?;
    // Whoever follows the holds takes nothing from the store.
    if after_ns.is_none() {
        find(&shared, sku.as_str()).await?;
    }
    Ok(Body(shared.checkout.holds().after(&sku, after_ns.unwrap_or_default())))
}

async fn find(shared: &AppState, sku: &str) -> Result<Sku, Failure> {
    let sku = parse(sku)?;
    let product = shared.store.product(&sku).await?;
    product.map(|_| sku.clone()).ok_or_else(|| Failure::no_such_product(sku.as_str()))
}

fn parse(sku: &str) -> Result<Sku, Failure> {
    Sku::parse(sku).map_err(|detail| Failure::field("sku", detail))
}
