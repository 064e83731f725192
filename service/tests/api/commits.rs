//! One commit for many products: who is written, and who is left out.

use jiff::Timestamp;
use order_service::api::{Adjustment, LockEvidence, Order, OrderStatus, PutProduct};
use order_service::change::KeptAnswer;
use order_service::order::{IdempotencyKey, ProductRequest, Sku};
use order_service::store::{Creation, Rejected, Store, Transition, WriteBatch};
use uuid::Uuid;

use crate::helpers::Shop;

fn sku(number: usize) -> Sku {
    Sku::parse(&format!("product-{number}")).expect("a SKU")
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text.as_bytes()).expect("a key")
}

/// Products with ten units each.
async fn create(store: &dyn Store, products: usize) {
    for number in 0..products {
        let body = PutProduct { name: "Product".into(), stock: 10 };
        let product = ProductRequest::parse(sku(number).as_str(), body, None).expect("a product");
        let creation = store.create_product(&product).await.expect("the store answers");
        assert!(matches!(creation, Creation::Created(_)));
    }
}

/// A sale of one unit, decided at version 0.
fn sale(number: usize, keys: &[&str]) -> WriteBatch {
    let orders = keys.iter().zip(1..).map(|(text, version)| {
        let order = Order {
            id: Uuid::now_v7(),
            sku: sku(number).as_str().into(),
            buyer: "A".into(),
            quantity: 1,
            status: OrderStatus::Confirmed,
            pay_by: None,
            stock_before: 11 - version,
            stock_after: 10 - version,
            version,
            lock: LockEvidence { strategy: "optimistic".into(), fencing_token: None },
            replica: "a".into(),
            created_at: Timestamp::from_microsecond(1_700_000_000_000_000).expect("a time"),
        };
        (order, Some(key(text)))
    });
    let sold = keys.len() as i64;
    WriteBatch {
        guarded: Some(0),
        stock_after: 10 - sold,
        versions: sold,
        orders: orders.collect(),
        ..WriteBatch::empty(sku(number))
    }
}

async fn commit(store: &dyn Store, batches: &[WriteBatch]) -> Vec<Result<(), Rejected>> {
    commit_if(store, batches, &|_| true).await
}

async fn commit_if(
    store: &dyn Store,
    batches: &[WriteBatch],
    may_write: &(dyn Fn(usize) -> bool + Sync),
) -> Vec<Result<(), Rejected>> {
    let transaction = store.begin().await.expect("the store answers");
    let batches: Vec<_> = batches.iter().collect();
    let results = transaction.commit(&batches, false, may_write).await.expect("it is committed");
    results.into_iter().map(|result| result.map(drop)).collect()
}

async fn stocks(store: &dyn Store, products: usize) -> Vec<(i64, i64)> {
    let skus: Vec<_> = (0..products).map(sku).collect();
    let levels = store.levels(&skus).await.expect("the store answers");
    levels
        .into_iter()
        .map(|level| level.expect("it is there"))
        .map(|level| (level.stock, level.version))
        .collect()
}

async fn units_sold(store: &dyn Store, number: usize) -> i64 {
    let audit = store.audit(&sku(number)).await.expect("the store answers").expect("an audit");
    assert_eq!(audit.counters_agree, Some(true), "{audit:?}");
    audit.units_sold
}

#[tokio::test]
async fn levels_are_read_together_and_what_is_not_there_is_nothing() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 2).await;
    let levels = store.levels(&[sku(1), sku(7), sku(0), sku(1)]).await.expect("the store answers");
    assert_eq!(
        levels.iter().map(|level| level.map(|level| level.stock)).collect::<Vec<_>>(),
        [Some(10), None, Some(10), Some(10)]
    );
}

#[tokio::test]
async fn a_product_whose_version_has_moved_is_rejected_alone() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 3).await;
    assert_eq!(commit(&*store, &[sale(1, &["first"])]).await, [Ok(())]);
    let batches = [sale(0, &["a"]), sale(1, &["b"]), sale(2, &["c", "d"])];
    assert_eq!(commit(&*store, &batches).await, [Ok(()), Err(Rejected::Stale), Ok(())]);
    assert_eq!(stocks(&*store, 3).await, [(9, 1), (9, 1), (8, 2)]);
    assert_eq!(units_sold(&*store, 1).await, 1);
    assert_eq!(units_sold(&*store, 2).await, 2);
}

#[tokio::test]
async fn a_lease_that_is_lost_rejects_its_own_product() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 2).await;
    let batches = [sale(0, &["a"]), sale(1, &["b"])];
    let results = commit_if(&*store, &batches, &|number| number == 1).await;
    assert_eq!(results, [Err(Rejected::Stale), Ok(())]);
    assert_eq!(stocks(&*store, 2).await, [(10, 0), (9, 1)]);
}

#[tokio::test]
async fn a_taken_key_rejects_its_own_product_whole_and_no_other() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 4).await;
    assert_eq!(commit(&*store, &[sale(3, &["taken"])]).await, [Ok(())]);
    // Twice: the second time, the store has noticed that keys are sent again.
    for [own, other] in [["a", "b"], ["c", "d"]] {
        let mut batches = [sale(0, &[own]), sale(1, &["free", "taken"]), sale(2, &[other])];
        if own == "c" {
            batches[0].guarded = Some(1);
            batches[2].guarded = Some(1);
        }
        assert_eq!(commit(&*store, &batches).await, [Ok(()), Err(Rejected::KeyTaken), Ok(())]);
    }
    assert_eq!(stocks(&*store, 2).await, [(9, 2), (10, 0)]);
    assert_eq!(units_sold(&*store, 1).await, 0);
    assert!(store.orders_by_key(&[&key("free")]).await.expect("the store answers").is_empty());
}

#[tokio::test]
async fn one_key_on_two_products_is_given_to_one_of_them() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 3).await;
    let batches = [sale(0, &["same"]), sale(1, &["same"]), sale(2, &["other"])];
    let results = commit(&*store, &batches).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2, "{results:?}");
    assert_eq!(results[2], Ok(()));
    assert_eq!(units_sold(&*store, 0).await + units_sold(&*store, 1).await, 1);
}

#[tokio::test]
async fn an_order_that_is_cancelled_already_rejects_its_own_product() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 3).await;
    let sales = [sale(0, &["a"]), sale(1, &["b"])];
    assert_eq!(commit(&*store, &sales).await, [Ok(()), Ok(())]);
    let cancel = |number: usize, version: i64| {
        let order = sales[number].orders[0].0.clone();
        let adjustment = Adjustment {
            id: Uuid::now_v7(),
            sku: order.sku,
            delta: 1,
            reason: "cancelled".into(),
            version: version + 1,
            created_at: order.created_at,
        };
        WriteBatch {
            guarded: Some(version),
            stock_after: 10,
            versions: 1,
            transitions: vec![Transition {
                order: order.id,
                from: OrderStatus::Confirmed,
                to: OrderStatus::Cancelled,
                units_before: 1,
                units_after: 0,
            }],
            adjustments: vec![adjustment],
            ..WriteBatch::empty(sku(number))
        }
    };
    assert_eq!(commit(&*store, &[cancel(0, 1)]).await, [Ok(())]);
    let again = WriteBatch { guarded: Some(2), ..cancel(0, 2) };
    let results = commit(&*store, &[again, cancel(1, 1), sale(2, &["c"])]).await;
    assert_eq!(results, [Err(Rejected::OrderChanged), Ok(()), Ok(())]);
    assert_eq!(stocks(&*store, 3).await, [(10, 2), (10, 2), (9, 1)]);
    assert_eq!(store.adjustments(&sku(0), None, 10).await.expect("the store answers").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_the_same_products_in_any_order_never_wait_for_each_other() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 40).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4_usize {
        let store = std::sync::Arc::clone(&store);
        tasks.spawn(async move {
            let mut sold = 0;
            for round in 0..30 {
                let mut numbers: Vec<_> = (0..40).collect();
                numbers.rotate_left(task * 10);
                if task % 2 == 1 {
                    numbers.reverse();
                }
                let skus: Vec<_> = numbers.iter().map(|number| sku(*number)).collect();
                let levels = store.levels(&skus).await.expect("the store answers");
                let batches = numbers.iter().zip(levels).map(|(number, level)| {
                    let level = level.expect("it is there");
                    // Keys meet too, in another order than the products do.
                    let mut batch = sale(*number, &[&format!("{}-{round}", (number * 7) % 40)]);
                    batch.guarded = Some(level.version);
                    batch.stock_after = level.stock - 1;
                    batch
                });
                let batches: Vec<_> = batches.filter(|batch| batch.stock_after >= 0).collect();
                let results = commit(&*store, &batches).await;
                sold += results.iter().filter(|result| result.is_ok()).count();
            }
            sold
        });
    }
    let sold: usize = tasks.join_all().await.into_iter().sum();
    let mut units = 0;
    for number in 0..40 {
        let audit = store.audit(&sku(number)).await.expect("the store answers").expect("an audit");
        assert!(audit.balanced && audit.oversold_units == 0, "{audit:?}");
        units += audit.units_sold;
    }
    assert_eq!(units, sold as i64);
    assert!(units > 0);
}

/// The answer to a restock, as it is kept under this key.
fn answer(text: &str) -> KeptAnswer {
    KeptAnswer { key: key(text), request: "{}".into(), answer: "{}".into() }
}

/// A batch that puts one unit more in stock, too, and keeps an answer to it.
fn with_restock(batch: WriteBatch, text: &str) -> WriteBatch {
    let version = batch.versions + 1;
    let adjustment = Adjustment {
        id: Uuid::now_v7(),
        sku: batch.sku.as_str().into(),
        delta: 1,
        reason: text.into(),
        version,
        created_at: Timestamp::from_microsecond(1_700_000_000_000_000).expect("a time"),
    };
    WriteBatch {
        stock_after: batch.stock_after + 1,
        versions: version,
        supplied: 1,
        adjustments: vec![adjustment],
        answers: vec![answer(text)],
        ..batch
    }
}

async fn kept(store: &dyn Store, text: &str) -> usize {
    store.kept_answers(&[&key(text)]).await.expect("the store answers").len()
}

#[tokio::test]
async fn a_taken_key_leaves_nothing_of_what_else_its_batch_was_to_change() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 3).await;
    assert_eq!(commit(&*store, &[sale(2, &["taken"])]).await, [Ok(())]);
    // A restock that is answered as done must have been done: neither is.
    let mixed = with_restock(sale(1, &["free", "taken"]), "restock");
    assert_eq!(commit(&*store, &[sale(0, &["a"]), mixed]).await, [Ok(()), Err(Rejected::KeyTaken)]);
    assert_eq!(stocks(&*store, 2).await, [(9, 1), (10, 0)]);
    assert_eq!(kept(&*store, "restock").await, 0);
    // A reset that is not made deletes no orders.
    assert_eq!(commit(&*store, &[sale(1, &["sold"])]).await, [Ok(())]);
    let reset = store.product(&sku(1)).await.expect("the store answers");
    let mixed = WriteBatch { guarded: Some(1), reset, ..sale(1, &["taken"]) };
    let other = WriteBatch { guarded: Some(1), ..sale(0, &["b"]) };
    assert_eq!(commit(&*store, &[other, mixed]).await, [Ok(()), Err(Rejected::KeyTaken)]);
    assert_eq!(units_sold(&*store, 1).await, 1);
}

#[tokio::test]
async fn one_key_of_two_restocks_is_given_to_one_of_them() {
    let shop = Shop::open("optimistic", 1).await;
    let store = shop.connect().await;
    create(&*store, 2).await;
    let restock = |number| {
        let nothing = WriteBatch { guarded: Some(0), stock_after: 10, ..WriteBatch::empty(sku(number)) };
        with_restock(nothing, "same")
    };
    let results = commit(&*store, &[restock(0), restock(1)]).await;
    assert_eq!(results, [Ok(()), Err(Rejected::KeyTaken)]);
    assert_eq!(stocks(&*store, 2).await, [(11, 1), (10, 0)]);
    assert_eq!(kept(&*store, "same").await, 1);
}
