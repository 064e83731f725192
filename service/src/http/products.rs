//! `/v1/products`.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use jiff::Timestamp;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::docs::{ReadProblems, SkuPath};
use super::extract::{Params, Segment};
use super::page::{self, Parameters};
use super::problem::Failure;
use crate::api::{Product, ProductPage, ProductQuery, Stock, StockQuery, StockRead};
use crate::change::ChangeError;
use crate::lock::Mode;
use crate::order::Sku;

pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(stock))
}

/// List the products, by SKU.
#[utoipa::path(
    get, path = "/v1/products", operation_id = "listProducts", tag = "products", params(ProductQuery),
    responses((status = 200, body = ProductPage, description = "A page of products"), ReadProblems),
)]
async fn list(
    State(shared): State<Arc<AppState>>,
    Params(query): Params<ProductQuery>,
) -> Result<Body<ProductPage>, Failure> {
    let mut parameters = Parameters::default();
    let after = parameters.cursor(query.cursor.as_deref(), Sku::parse);
    let limit = parameters.limit(query.limit.as_deref());
    parameters.finish().map_err(Failure::validation)?;
    let found = shared.store.products(after.as_ref(), limit + 1).await?;
    let (products, next_cursor) = page::cut(found, limit, |product| product.sku.clone());
    Ok(Body(ProductPage { products, next_cursor }))
}

/// Show a product.
#[utoipa::path(
    get, path = "/v1/products/{sku}", operation_id = "getProduct", tag = "products",
    params(SkuPath),
    responses((status = 200, body = Product, description = "The product"), ReadProblems),
)]
async fn show(State(shared): State<Arc<AppState>>, Segment(sku): Segment) -> Result<Body<Product>, Failure> {
    Ok(Body(find(&shared, &sku).await?))
}

/// Read a product's stock.
///
/// `latest` is the last committed value. `locked` waits until it has the product's lock in shared mode:
/// concurrently with other readers, never with a writer; for `lock.wait` or `server.request_timeout` at the
/// most, and with `server.locked_reads` others at the most. Under the strategies none, row and optimistic
/// there is no lock to take.
#[utoipa::path(
    get, path = "/v1/products/{sku}/stock", operation_id = "getStock", tag = "products",
    params(SkuPath, StockQuery),
    responses((status = 200, body = Stock, description = "The stock"), ReadProblems),
)]
async fn stock(
    State(shared): State<Arc<AppState>>,
    Segment(sku): Segment,
    Params(query): Params<StockQuery>,
) -> Result<Body<Stock>, Failure> {
    let read = match query.read.as_deref() {
        None | Some("latest") => StockRead::Latest,
        Some("locked") => StockRead::Locked,
        Some(_) => return Err(Failure::field("read", "must be latest or locked")),
    };
    // Found before it is locked: no request creates locks for products that do not exist.
    let mut as_of = Timestamp::now();
    let mut product = find(&shared, &sku).await?;
    if read == StockRead::Locked {
        let _permit = shared.locked_reads.try_acquire().map_err(|_| {
            ChangeError::overloaded("too many reads under the lock are under way (server.locked_reads)")
        })?;
        let deadline = Instant::now() + shared.lock_wait.min(shared.request_timeout);
        let lease = shared.lock.acquire(&product.sku, Mode::Shared, deadline).await?;
        as_of = Timestamp::now();
        product = find(&shared, &sku).await?;
        let held = lease.check();
        lease.release().await;
        held.map_err(|_| Failure::unavailable("the shared lock was lost while the stock was read".into()))?;
    }
    let Product { sku, stock, version, .. } = product;
    Ok(Body(Stock { sku, stock, version, as_of }))
}

async fn find(shared: &AppState, sku: &str) -> Result<Product, Failure> {
    let sku = Sku::parse(sku).map_err(|detail| Failure::field("sku", detail))?;
    shared.store.product(&sku).await?.ok_or_else(|| Failure::no_such_product(sku.as_str()))
}
