//! One suite that every lock has to pass, through the same trait. `none` is asserted not to exclude.
//!
//! Each participant is a lock of its own with connections of its own, as in another process; only `local`, which
//! promises nothing between processes, is one lock shared by all.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lab::{Postgres, Redis, Zookeeper};
use order_service::config::{Config, Sources, StoreSection};
use order_service::lock::{self, Lock, LockError, Mode, Strategy};
use order_service::store::{self, Store};
use order_service::telemetry::Metrics;
use rand::RngExt as _;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const KEY: &str = "hair-dryer";
const LEASE: Duration = Duration::from_secs(1);

/// A backend, and a way to take part in it.
struct Backend {
    name: &'static str,
    strategy: &'static str,
    url: String,
    shared: Option<Strategy>,
    _directory: TempDir,
    redis: Option<Redis>,
    zookeeper: Option<Zookeeper>,
    store: Arc<dyn Store>,
    _server: Option<Postgres>,
}

impl Backend {
    async fn new(name: &'static str) -> Self {
        let strategy = name.split(' ').next().expect("the strategy comes first");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let server = match name.ends_with("on PostgreSQL") {
            true => Some(Postgres::start().await.expect("PostgreSQL starts")),
            false => None,
        };
        let url = match &server {
            Some(server) => server.url("postgres"),
            None => format!("sqlite://{}", directory.path().join("locks.db").display()),
        };
        let redis = match strategy {
            "redis" => Some(Redis::start().await.expect("Redis starts")),
            _ => None,
        };
        let zookeeper = match strategy {
            "zookeeper" => Some(Zookeeper::start().await.expect("ZooKeeper starts")),
            _ => None,
        };
        let section = StoreSection { url: url.clone(), ..StoreSection::default() };
        let store = store::connect(&section).await.expect("the store opens");
        let _directory = directory;
        let mut backend =
            Self { name, strategy, url, shared: None, _directory, redis, zookeeper, store, _server: server };
        if name == "local" {
            backend.shared = Some(backend.connect().await);
        }
        backend
    }

    /// All that must keep the contract.
    async fn all() -> Vec<Self> {
        vec![
            Self::new("local").await,
            Self::new("database on SQLite").await,
            Self::new("database on PostgreSQL").await,
            Self::new("redis").await,
            Self::new("zookeeper").await,
        ]
    }

    fn config(&self) -> Config {
        let lease = format!("{}ms", LEASE.as_millis());
        let redis = self.redis.as_ref().map(Redis::url);
        let mut keys = vec![
            ("store.url", self.url.as_str()),
            ("lock.strategy", self.strategy),
            ("lock.database.lease", &lease),
        ];
        if let Some(url) = &redis {
            keys.extend([("lock.redis.url", url.as_str()), ("lock.redis.lease", &lease)]);
        }
        let servers = self.zookeeper.as_ref().map(Zookeeper::servers);
        if let Some(servers) = &servers {
            keys.extend([
                ("lock.zookeeper.servers", servers.as_str()),
                ("lock.zookeeper.session_timeout", &lease),
            ]);
        }
        let overrides = keys.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::load(&Sources { overrides, ..Sources::default() }).expect("a configuration")
    }

    async fn connect(&self) -> Strategy {
        lock::connect(&self.config(), &self.store, &Metrics::default()).await.expect("the lock connects")
    }

    async fn participant(&self) -> Arc<dyn Lock> {
        match &self.shared {
            Some(strategy) => Arc::clone(&strategy.lock),
            None => self.connect().await.lock,
        }
    }

    /// That nobody has or awaits the lock, as soon as what is under way in the background has ended.
    async fn assert_free(&self, lock: &dyn Lock) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let census = lock.census(KEY).await.expect("a census");
            if census.holders.is_empty() && census.waiting == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{}: left behind: {census:?}", self.name);
            sleep(Duration::from_millis(10)).await;
        }
        let lease = lock.acquire(KEY, Mode::Exclusive, after(500)).await;
        lease.unwrap_or_else(|error| panic!("{}: {error}", self.name)).release().await;
    }
}

fn after(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Adds one to a counter in two steps that only a lock can keep together.
async fn add_one_slowly(counter: &AtomicU64) {
    let read = counter.load(Ordering::Relaxed);
    let pause = rand::rng().random_range(0..300);
    sleep(Duration::from_micros(pause)).await;
    counter.store(read + 1, Ordering::Relaxed);
}

/// 32 contenders, in 4 participants, who each count to 10.
async fn count_together(backend: &Backend) -> (u64, Vec<Option<i64>>) {
    let counter = Arc::new(AtomicU64::new(0));
    let tokens = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut contenders = JoinSet::new();
    for _ in 0..4 {
        let lock = backend.participant().await;
        for _ in 0..8 {
            let (lock, counter, tokens) = (Arc::clone(&lock), Arc::clone(&counter), Arc::clone(&tokens));
            contenders.spawn(async move {
                for _ in 0..10 {
                    let lease = lock.acquire(KEY, Mode::Exclusive, after(60_000)).await.expect("a lease");
                    add_one_slowly(&counter).await;
                    tokens.lock().expect("nobody panics").push(lease.token().map(|token| token.0));
                    lease.release().await;
                }
            });
        }
    }
    contenders.join_all().await;
    let tokens = tokens.lock().expect("nobody panics").clone();
    (counter.load(Ordering::Relaxed), tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn excludes_and_counts_up_its_tokens() {
    for backend in Backend::all().await {
        let (counted, tokens) = count_together(&backend).await;
        assert_eq!(counted, 320, "{}", backend.name);
        if tokens[0].is_some() {
            assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{}: {tokens:?}", backend.name);
        }
        backend.assert_free(&*backend.participant().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lock_does_not_exclude() {
    let backend = Backend::new("none").await;
    assert!(count_together(&backend).await.0 < 320);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_and_writers_do_not() {
    for backend in Backend::all().await {
        let (a, b) = (backend.participant().await, backend.participant().await);
        let reader = a.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap();
        let beside = b.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap();
        let writer = b.acquire(KEY, Mode::Exclusive, after(100)).await;
        assert!(matches!(writer, Err(LockError::Timeout)), "{}", backend.name);
        reader.release().await;
        beside.release().await;
        let writer = b.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        assert!(matches!(a.acquire(KEY, Mode::Shared, after(100)).await, Err(LockError::Timeout)));
        writer.release().await;
        backend.assert_free(&*a).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_writer_is_not_starved_by_readers() {
    for backend in Backend::all().await {
        let mut readers = JoinSet::new();
        let reads = Arc::new(AtomicI64::new(0));
        for _ in 0..4 {
            let (lock, reads) = (backend.participant().await, Arc::clone(&reads));
            readers.spawn(async move {
                loop {
                    let lease = lock.acquire(KEY, Mode::Shared, after(10_000)).await.expect("a lease");
                    reads.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(20)).await;
                    lease.release().await;
                }
            });
        }
        while reads.load(Ordering::Relaxed) < 20 {
            sleep(Duration::from_millis(1)).await;
        }
        let writer = backend.participant().await;
        let lease = writer.acquire(KEY, Mode::Exclusive, after(2_000)).await;
        assert!(lease.is_ok(), "{}: the readers kept the writer out", backend.name);
        readers.shutdown().await;
        lease.unwrap().release().await;
        backend.assert_free(&*writer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_deadline() {
    for backend in Backend::all().await {
        let (holder, waiter) = (backend.participant().await, backend.participant().await);
        let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        for ms in [0, 50, 300, 1_500] {
            let asked = Instant::now();
            let refused = waiter.acquire(KEY, Mode::Exclusive, after(ms)).await;
            assert!(matches!(refused, Err(LockError::Timeout)), "{}", backend.name);
            let late = asked.elapsed().as_millis().abs_diff(u128::from(ms));
            assert!(late <= 100, "{}: {late} ms off a deadline of {ms} ms", backend.name);
        }
        // The lease was renewed all the while.
        assert_eq!(lease.check(), Ok(()), "{}", backend.name);
        lease.release().await;
        backend.assert_free(&*waiter).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_waiters_leave_nothing_behind() {
    for backend in Backend::all().await {
        let lock = backend.participant().await;
        let mut cancelled = JoinSet::new();
        for i in 0..500 {
            let lock = Arc::clone(&lock);
            let (pause, patience) = (rand::rng().random_range(0..500), rand::rng().random_range(0..20_000));
            let mode = if i % 3 == 0 { Mode::Shared } else { Mode::Exclusive };
            cancelled.spawn(async move {
                sleep(Duration::from_millis(pause)).await;
                let attempt = lock.acquire(KEY, mode, after(10_000));
                // A lease that was got in time is dropped, too: that releases it.
                drop(timeout(Duration::from_micros(patience), attempt).await);
            });
        }
        cancelled.join_all().await;
        backend.assert_free(&*lock).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_entered_again_ends_with_its_last_handle() {
    for backend in Backend::all().await {
        let (holder, other) = (backend.participant().await, backend.participant().await);
        let outer = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        let inner = outer.enter();
        outer.release().await;
        assert!(other.acquire(KEY, Mode::Exclusive, after(50)).await.is_err(), "{}", backend.name);
        drop(inner);
        backend.assert_free(&*other).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_participant_starves() {
    for backend in Backend::all().await {
        let mut participants = JoinSet::new();
        let until = after(3_000);
        for _ in 0..4 {
            let lock = backend.participant().await;
            participants.spawn(async move {
                let mut holds = 0_u32;
                while Instant::now() < until {
                    let lease = lock.acquire(KEY, Mode::Exclusive, after(10_000)).await.expect("a lease");
                    holds += 1;
                    sleep(Duration::from_millis(2)).await;
                    lease.release().await;
                }
                holds
            });
        }
        let holds = participants.join_all().await;
        let (least, most) = (holds.iter().min().unwrap(), holds.iter().max().unwrap());
        assert!(*most <= 2 * least, "{}: {holds:?}", backend.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_learns_that_its_record_is_gone() {
    for backend in [Backend::new("database on SQLite").await, Backend::new("database on PostgreSQL").await] {
        let store = backend.config().store;
        let lease = order_service::config::LeaseTime::For(LEASE);
        let operator = lock::DatabaseLock::connect(&store, lease, "operator").await.unwrap();
        let holder = backend.participant().await;
        let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        let record = operator.holders().await.unwrap().remove(0);
        assert!(operator.delete_record(record.token.unwrap()).await.unwrap());
        timeout(LEASE, lease.lost()).await.expect("the holder learns it within a lease");
        assert!(lease.check().is_err());
        // Its release does not touch whoever has the lock now.
        let next = operator.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
        lease.release().await;
        assert_eq!(operator.holders().await.unwrap().len(), 1);
        next.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_record_is_taken_over_and_one_without_expiry_is_not() {
    use order_service::config::LeaseTime;
    for (lease, taken_over, name) in [
        (LeaseTime::For(LEASE), true, "database on SQLite"),
        (LeaseTime::Never, false, "database on SQLite"),
        (LeaseTime::For(LEASE), true, "database on PostgreSQL"),
        (LeaseTime::Never, false, "database on PostgreSQL"),
    ] {
        let backend = Backend::new(name).await;
        let store = backend.config().store;
        // A runtime that ends takes its renewals with it and releases nothing: a crash, for the table.
        let crashing = store.clone();
        let crash = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let held = runtime.block_on(async {
                let lock = lock::DatabaseLock::connect(&crashing, lease, "crashing").await.unwrap();
                let held = lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
                (held, lock)
            });
            runtime.shutdown_background();
            std::mem::forget(held);
        });
        crash.join().unwrap();
        let crashed = Instant::now();
        let next = lock::DatabaseLock::connect(&store, lease, "next").await.unwrap();
        let got = next.acquire(KEY, Mode::Exclusive, crashed + LEASE + Duration::from_secs(1)).await;
        assert_eq!(got.is_ok(), taken_over, "{name}: {lease:?}");
        if let Ok(got) = got {
            assert!(crashed.elapsed() >= LEASE * 9 / 10, "taken over after {:?}", crashed.elapsed());
            assert!(got.token().unwrap().0 > 1);
            got.release().await;
        }
    }
}

/// What Redis was asked since its statistics were last reset, and resets them.
async fn commands(redis: &Redis) -> Vec<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = redis.url().strip_prefix("redis://").expect("the scheme").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"INFO commandstats\r\nCONFIG RESETSTAT\r\nQUIT\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let stats = answer.lines().filter_map(|line| line.strip_prefix("cmdstat_"));
    stats.filter_map(|line| line.split(",usec=").next()).map(Into::into).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncontended_cycle_is_two_commands_on_redis() {
    let backend = Backend::new("redis").await;
    let lock = backend.participant().await;
    let cycle = async || lock.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap().release().await;
    cycle().await; // loads the scripts and begins the tokens
    let redis = backend.redis.as_ref().unwrap();
    commands(redis).await;
    for _ in 0..100 {
        cycle().await;
    }
    let commands = commands(redis).await;
    let scripts: Vec<_> = commands.iter().filter(|command| command.starts_with("eval")).collect();
    assert_eq!(scripts, ["evalsha:calls=200"], "{commands:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_token_counter_is_left_in_redis() {
    let backend = Backend::new("redis").await;
    let (a, b) = (backend.participant().await, backend.participant().await);
    let held = a.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
    assert!(b.acquire(KEY, Mode::Exclusive, after(50)).await.is_err());
    assert!(b.acquire(KEY, Mode::Shared, after(50)).await.is_err());
    held.release().await;
    a.acquire(KEY, Mode::Shared, after(1_000)).await.unwrap().release().await;
    backend.assert_free(&*b).await;
    let url = backend.redis.as_ref().unwrap().url();
    let address = url.strip_prefix("redis://").unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"KEYS *\r\nQUIT\r\n").await.unwrap();
    let mut keys = String::new();
    stream.read_to_string(&mut keys).await.unwrap();
    let keys: Vec<_> = keys.lines().filter(|line| line.starts_with("stocklock")).collect();
    assert_eq!(keys, ["stocklock:{hair-dryer}:token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_has_lost_its_data_goes_on_counting_above_the_orders() {
    let mut backend = Backend::new("redis").await;
    let sources = [
        ("store.url", backend.url.clone()),
        ("server.listen", "127.0.0.1:0".into()),
        ("lock.strategy", "redis".into()),
        ("lock.redis.url", backend.redis.as_ref().unwrap().url()),
        ("lock.redis.lease", "1s".into()),
    ];
    let overrides = sources.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut config = Config::load(&Sources { overrides, ..Sources::default() }).unwrap();
    config.catalog.push(order_service::config::CatalogEntry {
        sku: KEY.into(),
        name: "Hair dryer".into(),
        stock: 100,
    });
    let app = order_service::app::App::build(&config).await.unwrap();
    let url = format!("http://{}/v1/orders", app.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { drop(stopped.await) }));
    let order = async || {
        let body = serde_json::json!({"sku": KEY, "quantity": 1, "buyer": "A"});
        let answer = reqwest::Client::new().post(&url).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let mut last = 0;
    for _ in 0..3 {
        let (status, order) = order().await;
        assert_eq!(status, 201, "{order}");
        last = order["lock"]["fencing_token"].as_i64().unwrap();
    }
    assert_eq!(last, 3);
    let redis = backend.redis.as_mut().unwrap();
    redis.kill().await.unwrap();
    let (status, refused) = order().await;
    assert_eq!((status, &refused["outcome"]), (503, &"not_executed".into()), "{refused}");
    redis.restart().await.unwrap();
    let give_up = after(5_000);
    let order = loop {
        // The connection comes back by itself, in its own time.
        let (status, order) = order().await;
        if status == 201 {
            break order;
        }
        assert_eq!(order["outcome"], "not_executed", "{order}");
        assert!(Instant::now() < give_up, "{order}");
    };
    assert_eq!(order["lock"]["fencing_token"], 4);
    drop(stop);
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_in_a_redis_that_lost_its_data_learns_it() {
    let mut backend = Backend::new("redis").await;
    let (holder, other) = (backend.participant().await, backend.participant().await);
    let lease = holder.acquire(KEY, Mode::Exclusive, after(1_000)).await.unwrap();
    let waiting = tokio::spawn(async move { other.acquire(KEY, Mode::Exclusive, after(20_000)).await });
    let redis = backend.redis.as_mut().unwrap();
    redis.kill().await.unwrap();
    redis.restart().await.unwrap();
    timeout(LEASE * 2, lease.lost()).await.expect("the holder learns it by the end of its lease");
    lease.release().await;
    // Who waited meanwhile was either told that Redis was gone, or has the lock now.
    if let Ok(next) = waiting.await.unwrap() {
        next.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_zookeeper_client_s_lock_is_free_after_its_session() {
    let mut backend = Backend::new("zookeeper").await;
    let zookeeper = backend.zookeeper.take().unwrap();
    let servers = zookeeper.servers();
    let config = |session: &str| {
        let keys = [
            ("store.url", backend.url.as_str()),
            ("lock.strategy", "zookeeper"),
            ("lock.zookeeper.servers", &servers),
            ("lock.zookeeper.session_timeout", session),
        ];
        let overrides = keys.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Config::load(&Sources { overrides, ..Sources::default() }).unwrap()
    };
    let connect = async |session: &str| {
        lock::connect(&config(session), &backend.store, &Metrics::default()).await.unwrap().lock
    };
    let other = connect("30s").await;
    let crashing = config("3s");
    let store = Arc::clone(&backend.store);
    let crashed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = runtime.block_on(async {
            let lock = lock::connect(&crashing, &store, &Metrics::default()).await.unwrap().lock;
            let held = lock.acquire("comb", Mode::Exclusive, after(1_000)).await.unwrap();
            (held, lock)
        });
        runtime.shutdown_background();
        std::mem::forget(held);
        Instant::now()
    })
    .join()
    .unwrap();
    let next = other.acquire("comb", Mode::Exclusive, after(5_000)).await.unwrap();
    let waited = crashed.elapsed();
    assert!((1_500..4_000).contains(&waited.as_millis()), "freed {waited:?} after the crash");
    next.release().await;
}
