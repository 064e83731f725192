//! What only a file can suffer.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use order_service::api::OrderStatus;
use order_service::app::App;
use order_service::config::{Config, Sources, StoreSection};
use order_service::order::{IdempotencyKey, Sku};
use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use tokio::process::Command;

use crate::helpers::{SKU, Shop, problem};

#[tokio::test]
async fn readiness_names_the_dependency_that_is_gone() {
    let shop = Shop::open("database", 1).await;
    let file = shop.directory().join("shop.db");
    std::fs::write(&file, b"this is no database").unwrap();
    // Whoever has found that out meanwhile, and was the last, has taken its log away.
    if let Err(error) = std::fs::remove_file(file.with_extension("db-wal")) {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let (status, slug, _) = problem(shop.replica().get("/readyz").await).await;
    assert_eq!((status, slug.as_str()), (503, "dependency-down"));
    assert_eq!(shop.replica().get("/livez").await.status(), 200);
}

#[tokio::test]
async fn readiness_is_a_write() {
    let shop = Shop::open("optimistic", 1).await;
    let options = SqliteConnectOptions::new().filename(shop.directory().join("shop.db"));
    let mut watching = SqliteConnection::connect_with(&options).await.expect("a connection");
    let version = sqlx::query_scalar::<_, i64>("pragma data_version");
    let before = version.fetch_one(&mut watching).await.expect("a version");
    assert_eq!(shop.replica().get("/readyz").await.status(), 200);
    let version = sqlx::query_scalar::<_, i64>("pragma data_version");
    assert_ne!(version.fetch_one(&mut watching).await.expect("a version"), before);
}

/// Takes a file away from under a shop, or puts another in its place.
type Loss = fn(&Path);

fn move_away(file: &Path) {
    std::fs::rename(file, file.with_extension("old")).expect("it is moved");
}

const LOSSES: [(&str, Loss); 6] = [
    ("the file deleted", |file| std::fs::remove_file(file).expect("it is deleted")),
    ("all of it deleted", |file| {
        for extension in ["db", "db-wal", "db-shm"] {
            std::fs::remove_file(file.with_extension(extension)).expect("it is deleted");
        }
    }),
    ("the file moved away", move_away),
    ("the file replaced", |file| {
        std::fs::copy(file, file.with_extension("new")).expect("it is copied");
        std::fs::rename(file.with_extension("new"), file).expect("it is replaced");
    }),
    ("the log deleted", |file| std::fs::remove_file(file.with_extension("db-wal")).expect("it is deleted")),
    ("the directory moved away", |file| {
        let directory = file.parent().expect("a directory");
        std::fs::rename(directory, directory.with_extension("moved")).expect("it is moved");
        std::fs::create_dir(directory).expect("a directory");
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_taken_away_ends_all_selling() {
    for strategy in ["database", "row", "optimistic", "none"] {
        for (what, lose) in LOSSES {
            let what = format!("{strategy}, {what}");
            let shop = Shop::open(strategy, 100).await;
            let replica = shop.replica();
            assert_eq!(replica.order("before", 1).await.status(), 201, "{what}");
            lose(&shop.directory().join("shop.db"));
            for buyer in ["first", "second"] {
                let (status, slug, outcome) = problem(replica.order(buyer, 1).await).await;
                assert_eq!((status, outcome.as_deref()), (503, Some("not_executed")), "{what}: {slug}");
                assert_eq!(slug, "dependency-down", "{what}");
            }
            assert_eq!(replica.get("/readyz").await.status(), 503, "{what}");
            // Nor does it say what is in a file that no replica will find.
            for path in
                [format!("/v1/products/{SKU}"), format!("/v1/products/{SKU}/stock"), "/v1/orders".into()]
            {
                assert_eq!(replica.get(&path).await.status(), 503, "{what}: {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_back_is_used_again_and_nothing_is_lost() {
    let shop = Shop::open("database", 100).await;
    let file = shop.directory().join("shop.db");
    assert_eq!(shop.replica().order("before", 1).await.status(), 201);
    move_away(&file);
    assert_eq!(shop.replica().order("meanwhile", 1).await.status(), 503);
    std::fs::rename(file.with_extension("old"), &file).expect("it is moved back");
    assert_eq!(shop.replica().order("after", 1).await.status(), 201);
    let audit = shop.audit().await;
    assert_eq!((audit.orders, audit.balanced), (2, true));
}

/// A replica in a process of its own that is not expected to start; what it says.
async fn refused(file: &Path) -> String {
    let mut replica = Command::new(env!("CARGO_BIN_EXE_order-service"));
    replica.args(["--server.listen", "127.0.0.1:0", "--store.url", &format!("sqlite://{}", file.display())]);
    let output = tokio::time::timeout(Duration::from_secs(20), replica.kill_on_drop(true).output()).await;
    let output = output.expect("it does not start").expect("it can be run");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("text")
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_not_opened_under_two_names() {
    let shop = Shop::open("database", 100).await;
    assert_eq!(shop.replica().order("before", 1).await.status(), 201);
    let elsewhere = tempfile::tempdir_in(shop.directory()).expect("a directory");
    let file = shop.directory().join("shop.db");
    for name in [shop.directory().join("other.db"), elsewhere.path().join("shop.db")] {
        std::fs::hard_link(&file, &name).expect("a second name");
        let error = refused(&name).await;
        assert!(error.contains("under another name") && error.contains(&*name.to_string_lossy()), "{error}");
        let overrides = vec![
            ("server.listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("store.url".to_owned(), format!("sqlite://{}", name.display())),
        ];
        let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration");
        let error = App::build(&config).await.err().expect("it does not start").to_string();
        assert!(error.contains("under another name"), "{error}");
    }
    // It harms no later order that one was refused.
    let body = json!({"sku": SKU, "quantity": 1, "buyer": "after"});
    assert_eq!(shop.replica().order_with(&body, None).await.status(), 201);
    assert_eq!(shop.audit().await.orders, 2);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_to_the_file_is_the_file() {
    let mut shop = Shop::open("database", 100).await;
    assert_eq!(shop.replica().order("before", 1).await.status(), 201);
    let link = shop.directory().join("link.db");
    std::os::unix::fs::symlink(shop.directory().join("shop.db"), &link).expect("a link");
    let url = format!("sqlite://{}", link.display());
    shop.add_replica("database", &[("store.url", &url)]).await;
    assert_eq!(shop.replicas[1].order("over the link", 1).await.status(), 201);
    assert_eq!(shop.audit().await.orders, 2);
}

#[tokio::test]
async fn the_orders_of_a_file_from_before_reservations_are_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("shop.db");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true).foreign_keys(true);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("a connection");
    let all = Migrator::new(Path::new("../migrations/sqlite")).await.expect("migrations");
    let before =
        all.migrations.iter().filter(|migration| migration.version <= 4).cloned().collect::<Vec<_>>();
    assert_eq!(before.len(), 4);
    Migrator { migrations: before.into(), ..all }.run(&mut connection).await.expect("the old tables");
    sqlx::raw_sql(
        "insert into products values ('hair-dryer', 'Hair dryer', 1, 2, 3, 1700000000000000);
         insert into orders values
             ('00000000-0000-7000-8000-000000000001', 'hair-dryer', 'A', 2, 'confirmed', 'key', 3, 1, 1,
                 'database', 7, 'a', 1700000000000001),
             ('00000000-0000-7000-8000-000000000002', 'hair-dryer', 'B', 1, 'cancelled', null, 1, 0, 2,
                 'none', null, 'b', 1700000000000002)",
    )
    .execute(&mut connection)
    .await
    .expect("old orders");
    connection.close().await.expect("the connection ends");
    let section = StoreSection { url: format!("sqlite://{}", file.display()), ..StoreSection::default() };
    let store = order_service::store::connect(&section).await.expect("the store opens");
    let orders = store.orders(None, None, 10).await.expect("orders");
    let seen: Vec<_> =
        orders.iter().map(|order| (order.buyer.as_str(), order.status, order.pay_by)).collect();
    assert_eq!(seen, [("A", OrderStatus::Confirmed, None), ("B", OrderStatus::Cancelled, None)]);
    assert_eq!((orders[0].lock.fencing_token, orders[1].lock.fencing_token), (Some(7), None));
    let key = IdempotencyKey::parse(b"key").expect("a key");
    let by_key = store.orders_by_key(&[&key]).await.expect("orders");
    assert_eq!(by_key, [("key".to_owned(), orders[0].clone())]);
    let sku = Sku::parse("hair-dryer").expect("a SKU");
    let audit = store.audit(&sku).await.expect("an audit").expect("the product");
    assert_eq!((audit.units_sold, audit.orders, audit.balanced), (2, 2, true));
    assert_eq!(audit.counters_agree, Some(true), "the migration has counted them");
}
