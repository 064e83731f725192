//! `/v1/orders`.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::OrderDesk;
use super::docs::{CancelProblems, ListProblems, OrderProblems, PayProblems, ReadProblems};
use super::extract::{Json, KeyHeader, Params, Segment};
use super::page::{self, Parameters};
use super::problem::Failure;
use super::{AppState, replayed};
use crate::api::{NewOrder, Order, OrderPage, OrderQuery};
use crate::order::{OrderRequest, Sku};

pub(super) fn routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(place, list))
        .routes(routes!(show))
        .routes(routes!(pay))
        .routes(routes!(cancel))
}

/// Place an order.
///
/// First come, first served, as far as the stock goes. With an `Idempotency-Key`, the order may be sent again
/// whatever the first answer was: it is placed once, and once it is placed, a repetition is answered as the
/// first time, also when it has been cancelled since. A refusal is not kept: sent again, the order is decided
/// anew.
#[utoipa::path(
    post, path = "/v1/orders", operation_id = "placeOrder", tag = "orders", request_body = NewOrder,
    params(
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
            description = "The client's name for this attempt: 1 to 255 visible ASCII characters. All \
                clients share the names, so take random ones (UUIDs); a product that is reset forgets those \
                of its orders"),
    ),
    responses(
        (status = 201, body = Order, description = "The order is in the database", headers(
            ("Location" = String, description = "The order's address"),
            ("Idempotent-Replayed" = Option<String>, description = "`true` when the order was there before"),
        ), links(
            ("order" = (operation_id = "getOrder", parameters(("id" = "$response.body#/id")))),
            ("payment" = (operation_id = "payOrder", parameters(("id" = "$response.body#/id")))),
            ("cancellation" = (operation_id = "cancelOrder", parameters(("id" = "$response.body#/id")))),
        )),
        OrderProblems,
    ),
)]
async fn place(
    State(shared): State<Arc<AppState>>,
    KeyHeader(key): KeyHeader,
    Json(body): Json<NewOrder>,
) -> Result<impl IntoResponse, Failure> {
    let order = OrderRequest::parse(body, key).map_err(Failure::validation)?;
    let placed = shared.checkout.place(order).await?;
    let mut headers = replayed(placed.replayed);
    let location = HeaderValue::try_from(format!("/v1/orders/{}", placed.value.id));
    headers.insert(LOCATION, location.expect("an order's address is ASCII"));
    Ok((StatusCode::CREATED, headers, Body(placed.value)))
}

/// List orders, oldest first.
///
/// These are everybody's orders, so it needs the bearer token of `server.token`, or the admin token. Where
/// neither is configured and the service listens on a loopback address, it is open.
///
/// While orders are being placed, one that a replica with a slow clock writes may sort before a page that was
/// read already; when they have come to rest, the pages are complete.
#[utoipa::path(
    get, path = "/v1/orders", operation_id = "listOrders", tag = "orders", params(OrderQuery),
    security(("server" = []), ("admin" = [])),
    responses((status = 200, body = OrderPage, description = "A page of orders"), ListProblems),
)]
async fn list(
    _: OrderDesk,
    State(shared): State<Arc<AppState>>,
    Params(query): Params<OrderQuery>,
) -> Result<Body<OrderPage>, Failure> {
    let mut parameters = Parameters::default();
    let sku = parameters.parse("sku", query.sku.as_deref(), Sku::parse);
    let after = parameters.cursor(query.cursor.as_deref(), Uuid::try_parse);
    let limit = parameters.limit(query.limit.as_deref());
    parameters.finish().map_err(Failure::validation)?;
    let found = shared.store.orders(sku.as_ref(), after, limit + 1).await?;
    let (orders, next_cursor) = page::cut(found, limit, |order| order.id.to_string());
    Ok(Body(OrderPage { orders, next_cursor }))
}

/// Show an order.
///
/// Whoever knows its id may see it, and pay it: it is hard to guess, and no secret.
#[utoipa::path(
    get, path = "/v1/orders/{id}", operation_id = "getOrder", tag = "orders",
    params(("id" = Uuid, Path, description = "The order")),
    responses((status = 200, body = Order, description = "The order"), ReadProblems),
)]
async fn show(State(shared): State<Arc<AppState>>, Segment(id): Segment) -> Result<Body<Order>, Failure> {
    let id = order_id(&id)?;
    let order = shared.store.order(id).await?;
    order.map(Body).ok_or_else(|| crate::change::ChangeError::NoSuchOrder(id).into())
}

/// Pay an order.
///
/// Where `checkout.payment_window` is configured, an order awaits its payment, and this confirms it. Where
/// the shop decides by payment, this takes the units, or is answered with `insufficient-stock`; it may be
/// tried again until the order expires. What cannot be paid, or not any more, is answered with `not-payable`,
/// unless the `Idempotency-Key` is the same as that of the payment: then as the first time.
#[utoipa::path(
    post, path = "/v1/orders/{id}/pay", operation_id = "payOrder", tag = "orders",
    params(
        ("id" = Uuid, Path, description = "The order"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
            description = "The client's name for this attempt, with which it may be sent again"),
    ),
    responses((status = 200, body = Order, description = "The order is paid and confirmed", headers(
        ("Idempotent-Replayed" = Option<String>,
            description = "`true` when it was paid by the same request before"),
    )), PayProblems),
)]
async fn pay(
    State(shared): State<Arc<AppState>>,
    Segment(id): Segment,
    KeyHeader(key): KeyHeader,
) -> Result<impl IntoResponse, Failure> {
    let key = key.transpose().map_err(|detail| Failure::field("Idempotency-Key", detail))?;
    let paid = shared.checkout.pay(order_id(&id)?, key).await?;
    Ok((replayed(paid.replayed), Body(paid.value)))
}

/// Cancel an order.
///
/// Its units are back in stock. A second time, it is answered with `not-cancellable`, unless the
/// `Idempotency-Key` is the same: then as the first time. It may be anybody's order, so it needs the bearer
/// token of `server.token`, or the admin token. Where neither is configured and the service listens on a
/// loopback address, it is open.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", operation_id = "cancelOrder", tag = "orders",
    security(("server" = []), ("admin" = [])),
    params(
        ("id" = Uuid, Path, description = "The order"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,255}$",
            description = "The client's name for this attempt, with which it may be sent again"),
    ),
    responses((status = 200, body = Order, description = "The order is cancelled", headers(
        ("Idempotent-Replayed" = Option<String>,
            description = "`true` when it was cancelled by the same request before"),
    )), CancelProblems),
)]
async fn cancel(
    _: OrderDesk,
    State(shared): State<Arc<AppState>>,
    Segment(id): Segment,
    KeyHeader(key): KeyHeader,
) -> Result<impl IntoResponse, Failure> {
    let key = key.transpose().map_err(|detail| Failure::field("Idempotency-Key", detail))?;
    let cancelled = shared.checkout.cancel(order_id(&id)?, key).await?;
    Ok((replayed(cancelled.replayed), Body(cancelled.value)))
}

fn order_id(text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|_| Failure::malformed("id must be a UUID"))
}
