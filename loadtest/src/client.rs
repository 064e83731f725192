//! The HTTP client. It never sends a request twice on its own once a byte of it may have left, and
//! distinguishes a request that was not sent from one whose fate is not known.

mod session;

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use order_service::api::{
    Adjustment, AdjustmentList, Audit, HoldRecord, IDEMPOTENCY_KEY, Info, LockStatus, NewOrder, Order,
    OrderOutcome, OrderPage, Problem, Product, PutProduct, Restock, Stock,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub use session::{OrderRequest, Session};

/// A client of one replica. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    admin_base: String,
    admin_token: String,
    server_token: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request was not sent: nothing was written.
    #[error("{0} cannot be reached: {1}")]
    NotSent(String, String),
    /// The connection broke: whether something was written is not known.
    #[error("{0} broke off: {1}")]
    Broken(String, String),
    /// No answer in time: whether something was written is not known.
    #[error("{0} did not answer within {1:?}")]
    Unanswered(String, Duration),
    /// An answer that is not the one expected.
    #[error("{0} answered {1}: {2}")]
    Unexpected(String, StatusCode, String),
    /// An answer that says that nothing was done.
    #[error("{0} refused with {1}: {title} ({detail})", title = .2.title, detail = .2.detail)]
    NotExecuted(String, StatusCode, Box<Problem>),
}

/// The answer to a call, of any status.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// The time-out of opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time-out of calls that are not orders.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Client {
    /// A client of the replica at `base`, such as `http://127.0.0.1:8080`, with the token for admin calls,
    /// which is good for listing and cancelling orders, too.
    pub fn new(base: &str, token: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(usize::MAX)
            .build(connector);
        let base = base.trim_end_matches('/').to_owned();
        let (admin_base, admin_token) = (base.clone(), token.to_owned());
        Self { base, admin_base, admin_token, server_token: token.into(), pool }
    }

    /// The same with another token for listing and cancelling orders.
    pub fn with_server_token(self, token: &str) -> Self {
        Self { server_token: token.into(), ..self }
    }

    /// The same where admin calls and metrics have an address of their own.
    pub fn with_admin_at(self, base: &str) -> Self {
        Self { admin_base: base.trim_end_matches('/').into(), ..self }
    }

    /// The replica's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A connection of a buyer's own, who orders again and again.
    pub fn session(&self) -> Session {
        Session::new(&self.base)
    }

    /// Places an order; any answer is an answer.
    pub async fn order(
        &self,
        order: &NewOrder,
        key: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        self.call(Method::POST, "/v1/orders", Some(order), key, timeout).await
    }

    /// Creates a product that must not exist yet.
    pub async fn create_product(&self, sku: &str, name: &str, stock: i64) -> Result<Product, CallError> {
        let body = PutProduct { name: name.into(), stock };
        let path = format!("/v1/admin/products/{sku}");
        let answer = self.call(Method::PUT, &path, Some(&body), None, TIMEOUT).await?;
        self.expect(StatusCode::CREATED, answer)
    }

    /// Takes a product's orders and its stock away. The replica has to allow it (`admin.allow_reset`).
    pub async fn empty_product(&self, sku: &str, name: &str) -> Result<Product, CallError> {
        let body = PutProduct { name: name.into(), stock: 0 };
        let path = format!("/v1/admin/products/{sku}");
        let answer = self.call(Method::PUT, &path, Some(&body), None, TIMEOUT).await?;
        self.expect(StatusCode::OK, answer)
    }

    /// Cancels an order; any number of times under one key is once.
    pub async fn cancel(&self, order: Uuid, key: &str, timeout: Duration) -> Result<(), CallError> {
        self.change_order(order, "cancel", key, timeout).await
    }

    /// Pays an order; any number of times under one key is once.
    pub async fn pay(&self, order: Uuid, key: &str, timeout: Duration) -> Result<(), CallError> {
        self.change_order(order, "pay", key, timeout).await
    }

    async fn change_order(
        &self,
        order: Uuid,
        what: &str,
        key: &str,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let path = format!("/v1/orders/{order}/{what}");
        let answer = self.call(Method::POST, &path, None::<&()>, Some(key), timeout).await?;
        self.expect::<Order>(StatusCode::OK, answer).map(drop)
    }

    /// Puts units in stock; any number of times under one key is once.
    pub async fn restock(
        &self,
        sku: &str,
        quantity: i64,
        reason: &str,
        key: &str,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let body = Restock { quantity, reason: reason.into() };
        let path = format!("/v1/admin/products/{sku}/restock");
        let answer = self.call(Method::POST, &path, Some(&body), Some(key), timeout).await?;
        self.expect::<Adjustment>(StatusCode::CREATED, answer).map(drop)
    }

    /// How many units of a product there are.
    pub async fn stock(&self, sku: &str) -> Result<Stock, CallError> {
        self.get(&format!("/v1/products/{sku}/stock")).await
    }

    /// What the replica is.
    pub async fn info(&self) -> Result<Info, CallError> {
        self.get("/v1/info").await
    }

    /// A product.
    pub async fn product(&self, sku: &str) -> Result<Product, CallError> {
        self.get(&format!("/v1/products/{sku}")).await
    }

    /// A product's stock, read under a shared lock.
    pub async fn locked_stock(&self, sku: &str) -> Result<Stock, CallError> {
        self.get(&format!("/v1/products/{sku}/stock?read=locked")).await
    }

    /// The totals of a product, read in one transaction.
    pub async fn audit(&self, sku: &str) -> Result<Audit, CallError> {
        self.get(&format!("/v1/admin/products/{sku}/audit")).await
    }

    /// Who has a product's lock.
    pub async fn lock(&self, sku: &str) -> Result<LockStatus, CallError> {
        self.get(&format!("/v1/admin/products/{sku}/lock")).await
    }

    /// The record of a product's lock holds that the replica keeps.
    pub async fn holds(&self, sku: &str) -> Result<HoldRecord, CallError> {
        self.get(&format!("/v1/admin/products/{sku}/holds")).await
    }

    /// The same without the holds that were released before `after_ns`, the `now_ns` of an earlier record.
    pub async fn holds_after(&self, sku: &str, after_ns: u64) -> Result<HoldRecord, CallError> {
        self.get(&format!("/v1/admin/products/{sku}/holds?after_ns={after_ns}")).await
    }

    /// The restocks and cancellations of a product.
    pub async fn adjustments(&self, sku: &str) -> Result<Vec<Adjustment>, CallError> {
        let page = |list: AdjustmentList| (list.adjustments, list.next_cursor);
        self.pages(&format!("/v1/admin/products/{sku}/adjustments?limit=1000"), page).await
    }

    /// All orders of a product.
    pub async fn orders(&self, sku: &str) -> Result<Vec<Order>, CallError> {
        let page = |page: OrderPage| (page.orders, page.next_cursor);
        self.pages(&format!("/v1/orders?sku={sku}&limit=1000"), page).await
    }

    /// All that a list has, page by page; `open` says what is on a page, and where the next one begins.
    async fn pages<P: DeserializeOwned, T>(
        &self,
        path: &str,
        open: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>, CallError> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let (rows, next) = open(self.get(&format!("{path}{after}")).await?);
            all.extend(rows);
            let Some(cursor) = next else { return Ok(all) };
            after = format!("&cursor={cursor}");
        }
    }

    /// The replica's metrics, as text.
    pub async fn metrics(&self) -> Result<String, CallError> {
        let answer = self.call(Method::GET, "/metrics", None::<&()>, None, TIMEOUT).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let answer = self.call(Method::GET, path, None::<&()>, None, TIMEOUT).await?;
        self.expect(StatusCode::OK, answer)
    }

    fn expect<T: DeserializeOwned>(&self, status: StatusCode, answer: Answer) -> Result<T, CallError> {
        let unexpected = |detail: String| CallError::Unexpected(self.base.clone(), answer.status, detail);
        if answer.status != status {
            let Some(problem) = answer.problem() else {
                return Err(unexpected(String::from_utf8_lossy(&answer.body).into_owned()));
            };
            return Err(match problem.outcome {
                Some(OrderOutcome::NotExecuted) => {
                    CallError::NotExecuted(self.base.clone(), answer.status, Box::new(problem))
                }
                _ => unexpected(format!("{} ({})", problem.title, problem.detail)),
            });
        }
        serde_json::from_slice(&answer.body).map_err(|error| unexpected(error.to_string()))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        key: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let is_admin = path.starts_with("/v1/admin/");
        let base = if is_admin || path == "/metrics" { &self.admin_base } else { &self.base };
        let token = match is_admin {
            true => &self.admin_token,
            false if path.starts_with("/v1/orders?") || path.ends_with("/cancel") => &self.server_token,
            false => "",
        };
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| {
            serde_json::to_vec(body).expect("a body can be written as JSON").into()
        });
        let not_sent = |why: String| CallError::NotSent(base.clone(), why);
        let request = request.body(Full::new(body)).map_err(|error| not_sent(error.to_string()))?;
        let broken = |error: hyper::Error| CallError::Broken(base.clone(), chain(&error));
        let exchange = async {
            let response = self.pool.request(request).await.map_err(|error| {
                if error.is_connect() {
                    not_sent(chain(&error))
                } else {
                    CallError::Broken(base.clone(), chain(&error))
                }
            })?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(broken)?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        let unanswered = || CallError::Unanswered(base.clone(), timeout);
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(unanswered()))
    }
}

impl Answer {
    /// The problem document, if it is one.
    pub fn problem(&self) -> Option<Problem> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
