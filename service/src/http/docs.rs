//! The OpenAPI description, made from the handlers, and the page that shows it.

use std::collections::BTreeMap;

use axum::{Json, Router};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder, Responses,
};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::problem::PROBLEM_JSON;
use crate::api::{Problem, StockRead};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "StockLock order service",
        description = "Sells the stock of a product under a locking strategy that is chosen in the \
            configuration.\n\n\
            Errors are problem documents (RFC 9457). Where something was to be changed, `outcome` says \
            whether it may have been: `not_executed` or `unknown`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem, StockRead)),
    modifiers(&BearerToken),
    tags(
        (name = "orders", description = "Place, pay, read and cancel orders"),
        (name = "products", description = "Read products and their stock"),
        (name = "admin", description = "Change products; with the bearer token of `admin.token`, at \
            `admin.listen` where that is configured"),
        (name = "operation", description = "Health, metrics and what a replica is"),
    ),
)]
struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        for (name, key) in [("admin", "admin.token"), ("server", "server.token")] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(key)).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// The description without its paths.
pub(super) fn description() -> Document {
    Description::openapi()
}

/// `/openapi.json` and the page at `/docs`.
pub(super) fn routes(document: Document) -> Router {
    let page = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    let document = Json(document);
    Router::new().route("/openapi.json", axum::routing::get(|| async { document })).merge(page)
}

/// The whole description as YAML: what `openapi.yaml` holds.
pub fn openapi_yaml() -> String {
    super::routes().into_openapi().to_yaml().expect("the description can be written as YAML")
}

/// The product in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it is for the description; the handlers parse the path by themselves")]
pub(super) struct SkuPath {
    /// The product
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sku: String,
}

/// The problems that any request may meet, and those in `STATUSES`.
fn problems(statuses: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let always = [
        ("400", "The request cannot be read: `malformed`"),
        ("429", "There are too many requests from this address (`server.rate_limit`): `rate-limited`"),
    ];
    let response = |(status, description): &(&str, &str)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(*description).content(PROBLEM_JSON, content);
        ((*status).to_owned(), RefOr::T(response.build()))
    };
    Responses::from_iter(always.iter().chain(statuses).map(response)).responses
}

const BODY: [(&str, &str); 4] = [
    ("408", "The body did not arrive in time: `request-timeout`"),
    ("413", "The body is too large: `payload-too-large`"),
    ("415", "The body is not JSON: `unsupported-media-type`"),
    ("422", "Fields are wrong: `validation`, which names every one; or `idempotency-key-reused`"),
];

const CHANGE: [(&str, &str); 3] = [
    ("404", "`no-such-product` or `no-such-order`"),
    (
        "503",
        "Nothing was written; try again: `lock-timeout`, `overloaded`, `dependency-down` or `shutting-down`",
    ),
    (
        "504",
        "It is not known what was written: `outcome-unknown`. With an idempotency key, send it again with \
         the same",
    ),
];

const KEY: (&str, &str) = ("422", "The key is wrong: `validation`; or `idempotency-key-reused`");

const ADMIN: [(&str, &str); 2] = [
    ("401", "The bearer token is missing or wrong: `unauthorized`"),
    ("403", "`admin-disabled` where no token is configured, `reset-not-allowed` where a reset is not"),
];

const DESK: [(&str, &str); 2] = [
    ("401", "The bearer token is missing or wrong: `unauthorized`"),
    ("403", "`order-desk-disabled` where no token is configured and one is needed"),
];

/// What an order may meet.
pub(super) struct OrderProblems;

impl IntoResponses for OrderProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let conflict = [("409", "`insufficient-stock` or `idempotency-in-flight`")];
        problems(&[&BODY[..], &CHANGE, &conflict].concat())
    }
}

/// What a payment may meet.
pub(super) struct PayProblems;

impl IntoResponses for PayProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let conflict = (
            "409",
            "The order does not await its payment, or not any more: `not-payable`; `insufficient-stock`, \
             where the payment takes the units; or `idempotency-in-flight`",
        );
        problems(&[&CHANGE[..], &[conflict, KEY]].concat())
    }
}

/// What a cancellation may meet.
pub(super) struct CancelProblems;

impl IntoResponses for CancelProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let conflict = ("409", "The order has ended already: `not-cancellable`; or `idempotency-in-flight`");
        problems(&[&CHANGE[..], &DESK, &[conflict, KEY]].concat())
    }
}

/// What a change of a product may meet.
pub(super) struct AdminProblems;

impl IntoResponses for AdminProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let conflict = [(
            "409",
            "`idempotency-in-flight`; or `too-many-orders`, for a reset of a product with more than 30,000 \
             orders or adjustments",
        )];
        problems(&[&BODY[..], &CHANGE, &ADMIN, &conflict].concat())
    }
}

/// What the audit of a product may meet.
pub(super) struct AuditProblems;

impl IntoResponses for AuditProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[&READ[..], &ADMIN].concat())
    }
}

const READ: [(&str, &str); 3] = [
    ("404", "`no-such-product` or `no-such-order`"),
    ("422", "Parameters are wrong: `validation`, which names every one"),
    ("503", "`dependency-down`, `lock-timeout`, or `overloaded` by too many reads under a lock"),
];

/// What a list of orders may meet.
pub(super) struct ListProblems;

impl IntoResponses for ListProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[&READ[..], &DESK].concat())
    }
}

/// What a call may meet that can fail in no other way.
pub(super) struct RateProblems;

impl IntoResponses for RateProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[])
    }
}

/// What a read may meet.
pub(super) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&READ)
    }
}
