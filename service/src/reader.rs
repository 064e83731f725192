//! The reader: what the holders of many products' locks want to read goes into one statement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use crate::api::Order;
use crate::change::ChangeError;
use crate::combine::{Combiner, Limits};
use crate::inventory::StockLevel;
use crate::order::{IdempotencyKey, Sku};
use crate::store::{Store, StoreError};

/// Statements at the same time, of either kind.
const FLIGHTS: usize = 2;

/// The most products, or requests for keys, in one statement.
const JOBS: usize = 512;

/// Reads together what is wanted at the same time.
pub(crate) struct Reader {
    levels: Combiner<LevelJob>,
    orders: Combiner<KeysJob>,
    store: Arc<dyn Store>,
    timeout: Duration,
}

struct LevelJob {
    sku: Sku,
    done: oneshot::Sender<Result<Option<StockLevel>, StoreError>>,
}

struct KeysJob {
    keys: Vec<IdempotencyKey>,
    done: oneshot::Sender<Result<HashMap<String, Order>, StoreError>>,
}

impl Reader {
    /// A reader of `store`, each of whose statements may take as long as `timeout`.
    pub(crate) fn new(store: &Arc<dyn Store>, timeout: Duration) -> Self {
        let limits = Limits { flights: FLIGHTS, jobs: JOBS };
        let of_levels = Arc::clone(store);
        let levels = Combiner::new(limits, move |jobs| read_levels(Arc::clone(&of_levels), timeout, jobs));
        let of_orders = Arc::clone(store);
        let orders = Combiner::new(limits, move |jobs| find_orders(Arc::clone(&of_orders), timeout, jobs));
        Self { levels, orders, store: Arc::clone(store), timeout }
    }

    /// The stock level of a product, read after this was called.
    pub(crate) async fn level(&self, sku: &Sku) -> Result<StockLevel, ChangeError> {
        let (done, level) = oneshot::channel();
        self.levels.submit(LevelJob { sku: sku.clone(), done });
        let level = self.in_time(level).await?;
        level.ok_or_else(|| ChangeError::NoSuchProduct(sku.clone()))
    }

    /// The orders that were placed with these keys, by key.
    pub(crate) async fn orders(
        &self,
        keys: Vec<IdempotencyKey>,
    ) -> Result<HashMap<String, Order>, ChangeError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let (done, orders) = oneshot::channel();
        self.orders.submit(KeysJob { keys, done });
        self.in_time(orders).await
    }

    /// An order.
    pub(crate) async fn order(&self, id: Uuid) -> Result<Option<Order>, ChangeError> {
        let order = timeout(self.timeout, self.store.order(id)).await;
        Ok(order.unwrap_or_else(|_| Err(no_answer()))?)
    }

    async fn in_time<T>(&self, answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, ChangeError> {
        match timeout(self.timeout, answer).await {
            Ok(Ok(result)) => Ok(result?),
            // The statement's task has panicked.
            Ok(Err(_)) => Err(ChangeError::DependencyDown("the store's reader failed".into())),
            Err(_) => Err(no_answer().into()),
        }
    }
}

async fn read_levels(store: Arc<dyn Store>, limit: Duration, jobs: Vec<LevelJob>) {
    let (skus, waiting): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.sku, job.done)).unzip();
    match timeout(limit, store.levels(&skus)).await.unwrap_or_else(|_| Err(no_answer())) {
        Ok(levels) => waiting.into_iter().zip(levels).for_each(|(done, level)| drop(done.send(Ok(level)))),
        Err(error) => waiting.into_iter().for_each(|done| drop(done.send(Err(error.clone())))),
    }
}

async fn find_orders(store: Arc<dyn Store>, limit: Duration, jobs: Vec<KeysJob>) {
    let keys: Vec<_> = jobs.iter().flat_map(|job| &job.keys).collect();
    match timeout(limit, store.orders_by_key(&keys)).await.unwrap_or_else(|_| Err(no_answer())) {
        Ok(orders) => {
            let orders: HashMap<String, Order> = orders.into_iter().collect();
            for KeysJob { keys, done } in jobs {
                let own = keys.iter().filter_map(|key| orders.get_key_value(key.as_str()));
                let own = own.map(|(key, order)| (key.clone(), order.clone())).collect();
                drop(done.send(Ok(own)));
            }
        }
        Err(error) => jobs.into_iter().for_each(|job| drop(job.done.send(Err(error.clone())))),
    }
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("no answer in time".into())
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::DependencyDown(error.to_string())
    }
}
