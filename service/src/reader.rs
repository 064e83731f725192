//! The reader: what the holders of many products' locks want to read goes into one statement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use crate::api::{Order, OrderStatus};
use crate::change::{ChangeError, KeptAnswer};
use crate::combine::{FlightLimits, FlightLost, Requests};
use crate::inventory::StockLevel;
use crate::order::{IdempotencyKey, Sku};
use crate::store::{Store, StoreError};

/// One statement of either kind at a time, and the most products, or requests for keys, in it.
const LIMITS: FlightLimits = FlightLimits { flights: 1, jobs: 512 };

/// Orders by their idempotency keys.
type OrdersByKey = HashMap<String, Order>;

/// Reads together what is wanted at the same time.
pub(crate) struct Reader {
    levels: Requests<Sku, Option<StockLevel>, StoreError>,
    /// What whoever has no lock wants to know: however much that is, holders do not wait for it.
    found: Requests<Sku, Option<StockLevel>, StoreError>,
    orders: Requests<Vec<IdempotencyKey>, OrdersByKey, StoreError>,
    store: Arc<dyn Store>,
    timeout: Duration,
}

impl Reader {
    /// A reader of `store`, each of whose reads may take as long as `timeout`.
    pub(crate) fn new(store: &Arc<dyn Store>, timeout: Duration) -> Self {
        let levels = || {
            let store = Arc::clone(store);
            Requests::new(LIMITS, move |skus: Vec<Sku>| {
                let store = Arc::clone(&store);
                async move { in_time(timeout, store.levels(&skus)).await }
            })
        };
        let (levels, found) = (levels(), levels());
        let of_orders = Arc::clone(store);
        let orders = Requests::new(LIMITS, move |keys| find_orders(Arc::clone(&of_orders), timeout, keys));
        Self { levels, found, orders, store: Arc::clone(store), timeout }
    }

    /// The stock level of a product, read after this was called.
    pub(crate) async fn level(&self, sku: &Sku) -> Result<StockLevel, ChangeError> {
        let level = in_time(self.timeout, self.levels.submit(sku.clone())).await?;
        level.ok_or_else(|| ChangeError::NoSuchProduct(sku.clone()))
    }

    /// Sees to it that there is such a product.
    pub(crate) async fn find(&self, sku: &Sku) -> Result<(), ChangeError> {
        let level = in_time(self.timeout, self.found.submit(sku.clone())).await?;
        level.map(drop).ok_or_else(|| ChangeError::NoSuchProduct(sku.clone()))
    }

    /// The orders that were placed with these keys.
    pub(crate) async fn orders(&self, keys: Vec<IdempotencyKey>) -> Result<OrdersByKey, ChangeError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        Ok(in_time(self.timeout, self.orders.submit(keys)).await?)
    }

    /// What was answered to changes with these keys.
    pub(crate) async fn kept_answers(
        &self,
        keys: &[&IdempotencyKey],
    ) -> Result<Vec<KeptAnswer>, ChangeError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        Ok(in_time(self.timeout, self.store.kept_answers(keys)).await?)
    }

    /// The status of the order with this identity, and whether its time to pay is over; `None` where there is
    /// no such order.
    pub(crate) async fn order_status(&self, id: Uuid) -> Result<Option<(OrderStatus, bool)>, ChangeError> {
        Ok(in_time(self.timeout, self.store.order_status(id)).await?)
    }
}

async fn find_orders(
    store: Arc<dyn Store>,
    limit: Duration,
    requests: Vec<Vec<IdempotencyKey>>,
) -> Result<Vec<OrdersByKey>, StoreError> {
    let keys: Vec<_> = requests.iter().flatten().collect();
    let orders: OrdersByKey = in_time(limit, store.orders_by_key(&keys)).await?.into_iter().collect();
    let of = |keys: Vec<IdempotencyKey>| {
        let found = keys.iter().filter_map(|key| orders.get_key_value(key.as_str()));
        found.map(|(key, order)| (key.clone(), order.clone())).collect()
    };
    Ok(requests.into_iter().map(of).collect())
}

async fn in_time<T>(
    limit: Duration,
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let read = timeout(limit, read).await;
    read.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".into())))
}

impl From<FlightLost> for StoreError {
    fn from(error: FlightLost) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::DependencyDown(error.to_string())
    }
}
