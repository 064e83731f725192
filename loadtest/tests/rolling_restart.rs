//! A rolling restart under load: three replicas stop and start again, one after the other, behind a balancer
//! that asks for their readiness. No order fails, but for those that are told to go to another replica, and
//! do.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::StatusCode;
use loadtest::client::{CallError, Client};
use loadtest::fleet::{Fleet, StoreKind};
use order_service::api::NewOrder;
use order_service::config::StrategyName;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const SKU: &str = "comb";

/// How often the balancer asks: ten times as often as the one in docker-compose.yml.
const ASK: Duration = Duration::from_millis(100);

/// How long a replica goes on after it says that it stops: long enough for the balancer to have asked.
const DRAIN: &str = "2s";

/// What a client of a balancer sees: an order goes to a replica that is ready, and to another when it is sure
/// that the first has not executed it.
struct Balancer {
    replicas: Vec<Client>,
    ready: Vec<AtomicBool>,
    next: AtomicU64,
    /// Orders that another replica had to take.
    healed: AtomicU64,
    stop: AtomicBool,
}

impl Balancer {
    fn pick(&self) -> usize {
        let all = self.replicas.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let is_ready = |index: &usize| self.ready[*index].load(Ordering::Relaxed);
        (0..all).map(|step| (first + step) % all).find(is_ready).unwrap_or(first % all)
    }

    /// Asks one replica whether it is ready, for as long as there are orders.
    async fn watch(&self, index: usize) {
        let http = reqwest::Client::new();
        let url = format!("{}/readyz", self.replicas[index].base());
        while !self.stop.load(Ordering::Relaxed) {
            let answer = timeout(Duration::from_secs(2), http.get(&url).send()).await;
            let is_ready = answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == 200));
            self.ready[index].store(is_ready, Ordering::Relaxed);
            sleep(ASK).await;
        }
    }

    async fn until_ready(&self, index: usize) {
        let ready = async {
            while !self.ready[index].load(Ordering::Relaxed) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), ready).await.expect("the replica is ready again");
    }

    /// Places an order. The error says what a client would not know how to go on from.
    async fn order(&self, key: &str) -> Result<(), String> {
        let order = NewOrder { sku: SKU.into(), quantity: 1, buyer: "A".into() };
        for _ in 0..20 {
            let replica = &self.replicas[self.pick()];
            match replica.order(&order, Some(key), Duration::from_secs(10)).await {
                Ok(answer) if answer.status == StatusCode::CREATED => return Ok(()),
                Ok(answer) => match answer.problem() {
                    Some(problem) if problem.kind == "/problems/shutting-down" => {}
                    _ => return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body))),
                },
                // It has stopped, and the balancer does not know it yet.
                Err(CallError::NotSent(..)) => {}
                Err(error) => return Err(error.to_string()),
            }
            self.healed.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!("{key} was sent 20 times"))
    }
}

/// Restarts all replicas, one after the other, under load.
async fn roll(strategy: StrategyName, drain: &str) -> Result<u64, String> {
    let mut plan = support::plan(strategy, 3).with("server.drain", drain);
    plan.store = StoreKind::Postgres;
    let mut fleet = Fleet::start(plan).await.expect("the replicas start");
    let replicas = fleet.clients().to_vec();
    replicas[0].create_product(SKU, "Comb", 1_000_000).await.expect("a product");
    let balancer = Arc::new(Balancer {
        ready: replicas.iter().map(|_| AtomicBool::new(true)).collect(),
        replicas,
        next: AtomicU64::new(0),
        healed: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    for index in 0..3 {
        let balancer = Arc::clone(&balancer);
        tasks.spawn(async move { balancer.watch(index).await });
    }
    let (placed, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    for buyer in 0..16 {
        let (balancer, placed, failed) = (Arc::clone(&balancer), Arc::clone(&placed), Arc::clone(&failed));
        tasks.spawn(async move {
            for number in 0.. {
                if balancer.stop.load(Ordering::Relaxed) {
                    break;
                }
                match balancer.order(&format!("{buyer}-{number}")).await {
                    Ok(()) => drop(placed.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failed.lock().expect("nothing panics while it holds this").push(error),
                }
            }
        });
    }
    for index in 0..3 {
        let before = placed.load(Ordering::Relaxed);
        fleet.roll(index).await.expect("the replica stops well, and starts again");
        let more = async {
            while placed.load(Ordering::Relaxed) == before {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), more).await.expect("orders go on");
        // The balancer may have missed that it was away.
        balancer.ready[index].store(false, Ordering::Relaxed);
        balancer.until_ready(index).await;
    }
    balancer.stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    let audit = balancer.replicas[0].audit(SKU).await.expect("an audit");
    let failed = failed.lock().expect("nothing panics while it holds this").clone();
    let placed = placed.load(Ordering::Relaxed);
    assert!(audit.balanced && audit.oversold_units == 0, "{strategy}: {audit:?}");
    if let Some(first) = failed.first() {
        return Err(format!("{strategy}: {} of {placed} failed, such as: {first}", failed.len()));
    }
    assert_eq!(audit.orders, placed as i64, "{strategy}: every order is there once");
    fleet.stop().await.expect("the replicas stop well");
    Ok(balancer.healed.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_fails_while_three_replicas_restart_one_after_the_other() {
    rustls::crypto::ring::default_provider().install_default().ok();
    for strategy in [StrategyName::Database, StrategyName::Redis, StrategyName::Zookeeper] {
        let healed = roll(strategy, DRAIN).await.unwrap_or_else(|failed| panic!("{failed}"));
        println!("{strategy}: {healed} orders went to another replica");
    }
}
