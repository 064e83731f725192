//! What an order costs apart from networks and databases: its parts, and the whole way from the checkout to
//! the commit over a store that is as fast as memory.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use order_service::api::{Adjustment, Audit, LockEvidence, NewOrder, Order, OrderStatus, Product};
use order_service::app::token_generations;
use order_service::change::KeptAnswer;
use order_service::checkout::Checkout;
use order_service::config::{Config, Sources};
use order_service::inventory::{Operation, StockLevel, decide};
use order_service::lock;
use order_service::order::{IdempotencyKey, OrderRequest, ProductRequest, Sku};
use order_service::store::{
    CommitError, Creation, Rejected, RowLevel, Store, StoreError, Transaction, WriteBatch, Written,
};
use order_service::telemetry::Metrics;
use order_service::token::{Generation, GenerationRequest};
use uuid::Uuid;

/// Orders that are placed at the same time.
const ORDERS: usize = 256;

/// A store that keeps levels only, and forgets the orders.
struct FakeStore {
    levels: Arc<Mutex<HashMap<Sku, StockLevel>>>,
}

struct FakeTransaction {
    levels: Arc<Mutex<HashMap<Sku, StockLevel>>>,
}

#[async_trait]
impl Transaction for FakeTransaction {
    async fn lock_rows(&mut self, _: &[Sku], _: bool) -> Result<Vec<RowLevel>, StoreError> {
        unreachable!("rows are not locked here")
    }

    async fn commit(
        self: Box<Self>,
        batches: &[&WriteBatch],
        _: bool,
        may_write: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Result<Written, Rejected>>, CommitError> {
        let mut levels = self.levels.lock().expect("no task panics");
        let write = |(number, batch): (usize, &&WriteBatch)| {
            let level = levels.get_mut(&batch.sku).expect("it is there");
            if !may_write(number) || batch.guarded.is_some_and(|version| version != level.version) {
                return Err(Rejected::Stale);
            }
            level.stock = batch.stock_after;
            level.version += batch.versions;
            Ok(Written::default())
        };
        Ok(batches.iter().enumerate().map(write).collect())
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn levels(&self, skus: &[Sku]) -> Result<Vec<Option<StockLevel>>, StoreError> {
        let levels = self.levels.lock().expect("no task panics");
        Ok(skus.iter().map(|sku| levels.get(sku).copied()).collect())
    }

    fn locking_at_once(&self) -> usize {
        2
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, StoreError> {
        Ok(Box::new(FakeTransaction { levels: Arc::clone(&self.levels) }))
    }

    async fn kept_answers(&self, _: &[&IdempotencyKey]) -> Result<Vec<KeptAnswer>, StoreError> {
        Ok(Vec::new())
    }

    async fn create_product(&self, _: &ProductRequest) -> Result<Creation, CommitError> {
        unreachable!("products are there")
    }

    async fn product(&self, sku: &Sku) -> Result<Option<Product>, StoreError> {
        let level = self.levels.lock().expect("no task panics").get(sku).copied();
        let now = jiff::Timestamp::now();
        Ok(level.map(|StockLevel { stock, version, supply }| Product {
            sku: sku.as_str().into(),
            name: "Hair dryer".into(),
            stock,
            version,
            supply,
            created_at: now,
        }))
    }

    async fn products(&self, _: Option<&Sku>, _: u32) -> Result<Vec<Product>, StoreError> {
        Ok(Vec::new())
    }

    async fn order(&self, _: Uuid) -> Result<Option<Order>, StoreError> {
        Ok(None)
    }

    async fn order_status(&self, _: Uuid) -> Result<Option<(OrderStatus, bool)>, StoreError> {
        Ok(None)
    }

    async fn overdue(&self, _: &str, _: Duration, _: &[Sku], _: u32) -> Result<Vec<Order>, StoreError> {
        Ok(Vec::new())
    }

    async fn next_overdue(&self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    async fn orders_by_key(&self, _: &[&IdempotencyKey]) -> Result<Vec<(String, Order)>, StoreError> {
        Ok(Vec::new())
    }

    async fn orders(&self, _: Option<&Sku>, _: Option<Uuid>, _: u32) -> Result<Vec<Order>, StoreError> {
        Ok(Vec::new())
    }

    async fn adjustments(
        &self,
        _: &Sku,
        _: Option<(i64, Uuid)>,
        _: u32,
    ) -> Result<Vec<Adjustment>, StoreError> {
        Ok(Vec::new())
    }

    async fn audit(&self, _: &Sku) -> Result<Option<Audit>, StoreError> {
        Ok(None)
    }

    async fn token_generations(&self, wanted: &[GenerationRequest]) -> Result<Vec<Generation>, StoreError> {
        Ok(vec![Generation { number: 0, is_new: false }; wanted.len()])
    }

    async fn try_commit(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) {}

    fn kind(&self) -> &'static str {
        "fake"
    }
}

fn sku(number: usize) -> Sku {
    Sku::parse(&format!("product-{number}")).expect("a SKU")
}

fn request(number: usize) -> OrderRequest {
    let body = NewOrder { sku: sku(number).as_str().into(), quantity: 1, buyer: "A".into() };
    let key = IdempotencyKey::parse(Uuid::new_v4().to_string().as_bytes());
    OrderRequest::parse(body, Some(key)).expect("an order")
}

/// A checkout under a strategy, with that many products.
async fn checkout(strategy: &str, products: usize) -> Checkout {
    let level = StockLevel { stock: i64::MAX / 2, version: 0, supply: i64::MAX / 2 };
    let levels = (0..products).map(|number| (sku(number), level)).collect();
    let store: Arc<dyn Store> = Arc::new(FakeStore { levels: Arc::new(Mutex::new(levels)) });
    let overrides = vec![("lock.strategy".into(), strategy.into())];
    let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
    let metrics = Metrics::new(config.lock.strategy);
    let lock = lock::connect(&config, token_generations(&store), &metrics).await.expect("the lock connects");
    Checkout::new(&config, store, lock, &metrics)
}

fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    let level = StockLevel { stock: 1_000, version: 0, supply: 1_000 };
    let operations = vec![Operation::Sell(1); ORDERS];
    group.throughput(Throughput::Elements(ORDERS as u64));
    group.bench_function("decide", |bencher| {
        bencher.iter(|| decide(black_box(level), black_box(&operations)));
    });
    group.throughput(Throughput::Elements(1));
    let body = br#"{"sku":"hair-dryer","quantity":1,"buyer":"A"}"#;
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            let body: NewOrder = serde_json::from_slice(black_box(body)).expect("an order");
            let key = IdempotencyKey::parse(black_box(b"0d8e6a3e-7a1c-4c7e-9a52-6d6a4a4c1f00"));
            OrderRequest::parse(body, Some(key)).expect("an order")
        });
    });
    let order = Order {
        id: Uuid::now_v7(),
        sku: "hair-dryer".into(),
        buyer: "A".into(),
        quantity: 1,
        status: OrderStatus::Confirmed,
        pay_by: None,
        stock_before: 2,
        stock_after: 1,
        version: 1,
        lock: LockEvidence { strategy: "redis".into(), fencing_token: Some(1) },
        replica: "replica-1".into(),
        created_at: jiff::Timestamp::now(),
    };
    group.bench_function("serialise", |bencher| {
        bencher.iter(|| serde_json::to_vec(black_box(&order)).expect("JSON"));
    });
    group.finish();
}

fn queue(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(ORDERS as u64));
    for (strategy, products) in [("local", 1), ("optimistic", 1), ("optimistic", ORDERS)] {
        let checkout = Arc::new(runtime.block_on(checkout(strategy, products)));
        group.bench_function(format!("{strategy}, {ORDERS} orders of {products} products"), |bencher| {
            bencher.to_async(&runtime).iter_batched(
                || (0..ORDERS).map(|number| request(number % products)).collect::<Vec<_>>(),
                |requests| {
                    let checkout = Arc::clone(&checkout);
                    async move {
                        let orders = requests.into_iter().map(|request| checkout.place(request));
                        assert!(join_all(orders).await.iter().all(Result::is_ok));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, parts, queue);
criterion_main!(benches);
