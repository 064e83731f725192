//! The stock as a number in Redis, without any lock.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use deadpool_redis::redis::{AsyncCommands as _, Client};
use lab::{Direction, Postgres, Redis, Server as _, ServerKind};
use order_service::config::StrategyName;
use order_service::lock::Mode;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::event::{EventKind, Party};
use super::fixtures::{Contenders, SKU, patiently};
use super::redis_failover::follow_through_proxy;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::spread::Spread;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-counter",
    title: "Stock counted down in Redis, without a lock",
    claim: "(Readers:) read the stock into Redis and count it down with DECR: Redis has one thread, so \
     requests \
        queue by themselves, and no lock is needed.",
    setup: "orders in PostgreSQL, the stock a number in a real Redis; first 16 buyers at once and twice as \
     many \
        purchases as units, beside the same under this project's Redis lock, in turn, both without HTTP; \
        then \
        three of ten buyers are ended by kill -9 between the counter and the order; then the primary is \
        killed \
        whose last decrements have not reached its replica",
    advice: Advice::either(
        "It held this time. There is still no transaction between the counter and the orders, so let \
         the database decide in the end.",
        "Use a counter in Redis as a fast gate in front of the shop, never as the truth: the database \
         decides, and the counter is corrected from the orders.",
    ),
    needs: &[ServerKind::Postgres, ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

const BUYERS: usize = 16;
const STOCK: usize = 300;
const ROUNDS: usize = 3;

/// How many purchases are recorded as they come.
const RECORDED: usize = 4;

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let (postgres, redis) = (Postgres::start().await?, Redis::start().await?);
    let (postgres, redis) = (Arc::new(postgres), Arc::new(redis));
    let pool = PgPool::connect(&postgres.url_of("postgres")).await?;
    sqlx::raw_sql("create table sale (buyer bigint); create table item (stock bigint)")
        .execute(&pool)
        .await?;
    let sold = undisturbed(&mut observation, &pool, &redis).await?;
    let unsold = crash(&mut observation, &pool, &postgres, &redis).await?;
    let (forgotten, oversold) = failover(&mut observation, &pool).await?;
    observation.observed = format!(
        "while nothing failed, {sold} were sold of {STOCK}; after three crashes between counter and order \
         the \
         shop was sold out with {unsold} of 10 unsold; after a fail-over that had missed {forgotten} \
         decrements, \
         {oversold} more were sold than there were"
    );
    observation.explanation = Some(
        "DECR is atomic and needs no lock: true. But the counter and the orders are two stores, and \
         between them \
         there is no transaction: whoever dies in between takes units with him that nobody has bought, and a \
         counter that is given back too eagerly sells them twice. And Redis answers before its replicas \
         know, so \
         a fail-over may forget what was counted. What remains is a fast gate before the database, which \
         has to \
         decide in the end, with a count that is mended from the orders."
            .into(),
    );
    let occurred = forgotten > 0;
    let only_while_nothing_fails = sold == STOCK && (unsold > 0 || oversold > 0);
    let finding = if only_while_nothing_fails { Finding::Refuted } else { Finding::Reproduced };
    observation.finding = occurred.then_some(finding);
    Ok(observation)
}

/// Both ways in turn. Returns how many the counter sold.
async fn undisturbed(
    observation: &mut Observation,
    pool: &PgPool,
    redis: &Arc<Redis>,
) -> anyhow::Result<usize> {
    let timeline = observation.timeline.scene("nothing fails");
    let contenders = Contenders::new(StrategyName::Redis, &**redis, &[]).await?;
    let client = Client::open(redis.url())?;
    let connection = client.get_multiplexed_async_connection().await?;
    let (mut counting, mut locking, mut sold) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        sqlx::raw_sql("truncate sale").execute(pool).await?;
        redis.command(&["SET", "stock", &STOCK.to_string()]).await?;
        let next = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let mut buyers = JoinSet::new();
        for _ in 0..BUYERS {
            let (next, mut redis, pool) = (Arc::clone(&next), connection.clone(), pool.clone());
            let timeline = timeline.clone();
            buyers.spawn(async move {
                loop {
                    let buyer = next.fetch_add(1, Ordering::Relaxed);
                    if buyer >= 2 * STOCK {
                        return anyhow::Ok(());
                    }
                    let left: i64 = redis.decr("stock", 1).await?;
                    let name = format!("buyer {}", buyer + 1);
                    // A few are enough to see how it goes.
                    if round == 0 && buyer < RECORDED {
                        counts(&timeline, &name, left);
                    }
                    if left >= 0 {
                        insert(&pool, buyer).await?;
                        if round == 0 && buyer < RECORDED {
                            has_ordered(&timeline, &name);
                        }
                    }
                }
            });
        }
        finish(buyers).await?;
        sold = sales(pool).await?;
        counting.push(sold as f64 / begun.elapsed().as_secs_f64());
        locking.push(under_lock(pool, &contenders).await?);
    }
    timeline.note(format!(
        "{sold} of {STOCK} are sold, each to one buyer; the first {RECORDED} purchases are recorded here"
    ));
    let (counting, locking) = (Spread::of(counting), Spread::of(locking));
    observation.figure("orders/s, DECR and an order", format!("{counting:.0}"));
    observation.figure("orders/s, one order per hold of the Redis lock", format!("{locking:.0}"));
    observation
        .figure("the counter's speed to the lock's", format!("{:.1}", counting.median / locking.median));
    Ok(sold)
}

/// The same under the lock, one order in each hold. Returns orders per second.
async fn under_lock(pool: &PgPool, contenders: &Contenders) -> anyhow::Result<f64> {
    sqlx::raw_sql("truncate sale; truncate item").execute(pool).await?;
    sqlx::query("insert into item values ($1)").bind(STOCK as i64).execute(pool).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut buyers = JoinSet::new();
    let lock = contenders.join("a shop").await?;
    let begun = Instant::now();
    for _ in 0..BUYERS {
        let (next, lock, pool) = (Arc::clone(&next), Arc::clone(&lock), pool.clone());
        buyers.spawn(async move {
            loop {
                let buyer = next.fetch_add(1, Ordering::Relaxed);
                if buyer >= 2 * STOCK {
                    return anyhow::Ok(());
                }
                let lease = lock.acquire(SKU, Mode::Exclusive, patiently()).await?;
                let stock: i64 = sqlx::query_scalar("select stock from item").fetch_one(&pool).await?;
                if stock > 0 {
                    sqlx::query("with item as (update item set stock = $1) insert into sale values ($2)")
                        .bind(stock - 1)
                        .bind(buyer as i64)
                        .execute(&pool)
                        .await?;
                }
                lease.release().await;
            }
        });
    }
    finish(buyers).await?;
    let sold = sales(pool).await?;
    ensure!(sold == STOCK, "{sold} were sold of {STOCK} under the lock");
    let rate = sold as f64 / begun.elapsed().as_secs_f64();
    lock.shutdown().await;
    Ok(rate)
}

/// Three buyers' processes are killed between counter and order. Returns what is left unsold when the counter
/// says that all is sold.
async fn crash(
    observation: &mut Observation,
    pool: &PgPool,
    postgres: &Postgres,
    redis: &Redis,
) -> anyhow::Result<usize> {
    const KILLED: usize = 3;
    let timeline = observation.timeline.scene("three shops are killed");
    sqlx::raw_sql("truncate sale").execute(pool).await?;
    redis.command(&["SET", "stock", "10"]).await?;
    let (_, port) = redis
        .address()
        .rsplit_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .context("an address has a port")?;
    // A shop's process: it counts, says so, and writes the order when it is told to go on.
    let script = format!(
        "left=$(redis-cli -p {port} DECR stock); echo $left; read go; \
         psql -q '{}' -c 'insert into sale values (0)'",
        postgres.url_of("postgres")
    );
    for number in 1..=KILLED {
        let mut shop = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = shop.stdout.take().context("it has an output")?;
        let left = BufReader::new(output).lines().next_line().await?.context("it says what is left")?;
        shop.kill().await?;
        let name = format!("shop {number}");
        counts(&timeline, &name, left.parse().context("a number is left")?);
        timeline.crashed(&name, format!("{name} is killed before it writes the order"));
    }
    // Everybody else comes until there is nothing left.
    let mut bought = 0;
    while redis.command(&["DECR", "stock"]).await?.parse::<i64>()? >= 0 {
        insert(pool, bought).await?;
        bought += 1;
    }
    let sold = sales(pool).await?;
    let others = Party::holder("who comes next");
    let (label, what) = (format!("{bought} buy"), format!("{bought} more buy"));
    timeline.arrow(EventKind::Written, [&others, &Party::database()], label, what);
    let what = "the next buyer is told that all is sold";
    timeline.arrow(EventKind::Refused, [&Party::lock("Redis"), &others], "sold out", what);
    let (label, what) = (format!("{sold} of 10 sold"), format!("there are {sold} orders of 10"));
    timeline.mark(EventKind::Note, &Party::database(), &label, what);
    observation.figure("crashes between counter and order", KILLED);
    observation.figure("sold of 10 when the counter said that all was sold", sold);
    Ok(10 - sold)
}

/// The primary dies with decrements that its replica has not. Returns how many more were sold than there
/// were.
async fn failover(observation: &mut Observation, pool: &PgPool) -> anyhow::Result<(i64, usize)> {
    sqlx::raw_sql("truncate sale").execute(pool).await?;
    let mut primary = Redis::start().await?;
    primary.command(&["SET", "stock", "10"]).await?;
    let replica = Redis::start_replica_of(&primary).await?;
    let link = follow_through_proxy(&replica, &primary).await?;
    link.blackhole(Direction::ToClient);
    let timeline = observation.timeline.scene("Redis fails over");
    let server = Party::lock("Redis");
    let what = "nothing of the primary reaches its replica any more";
    timeline.mark(EventKind::Broken, &server, "replica cut off", what);
    for buyer in 0..4 {
        let left = primary.command(&["DECR", "stock"]).await?.parse::<i64>()?;
        ensure!(left >= 0, "there are ten");
        let name = format!("buyer {}", buyer + 1);
        counts(&timeline, &name, left);
        insert(pool, buyer).await?;
        has_ordered(&timeline, &name);
    }
    primary.kill().await?;
    link.cut();
    replica.promote().await?;
    let left: i64 = replica.command(&["GET", "stock"]).await?.parse()?;
    let what = format!("four are sold, the primary is killed; the new primary says {left} are left");
    let label = format!("killed; new primary: {left} left");
    timeline.mark(EventKind::Crashed, &server, &label, what);
    let mut buyer = 4;
    while replica.command(&["DECR", "stock"]).await?.parse::<i64>()? >= 0 {
        insert(pool, buyer).await?;
        buyer += 1;
    }
    let sold = sales(pool).await?;
    let what = format!("{} more buy, until the counter says that all is sold", buyer - 4);
    let parties = [&Party::holder("who comes next"), &Party::database()];
    timeline.arrow(EventKind::Written, parties, format!("{} buy", buyer - 4), what);
    let (label, what) = (format!("{sold} of 10 sold"), format!("there are {sold} orders for 10 units"));
    timeline.mark(EventKind::Note, &Party::database(), &label, what);
    observation.figure("sold of 10 over the fail-over", sold);
    Ok((left - 6, sold.saturating_sub(10)))
}

/// Records that somebody has counted down.
fn counts(timeline: &Timeline, who: &str, left: i64) {
    let (who, redis) = (Party::holder(who), Party::lock("Redis"));
    timeline.arrow(EventKind::Sent, [&who, &redis], "DECR", format!("{} counts down", who.name));
    let (kind, label) = match left {
        0.. => (EventKind::Answered, format!("{left} left")),
        _ => (EventKind::Refused, "sold out".into()),
    };
    timeline.arrow(kind, [&redis, &who], label, format!("the counter says {left}"));
}

/// Records that somebody's order is in the database.
fn has_ordered(timeline: &Timeline, who: &str) {
    let parties = [&Party::holder(who), &Party::database()];
    timeline.arrow(EventKind::Written, parties, "order", format!("the order of {who} is in the database"));
}

async fn insert(pool: &PgPool, buyer: usize) -> anyhow::Result<()> {
    sqlx::query("insert into sale values ($1)").bind(buyer as i64).execute(pool).await?;
    Ok(())
}

async fn sales(pool: &PgPool) -> anyhow::Result<usize> {
    let sales: i64 = sqlx::query_scalar("select count(*) from sale").fetch_one(pool).await?;
    Ok(usize::try_from(sales)?)
}

async fn finish(mut buyers: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(bought) = tokio::time::timeout(Duration::from_secs(60), buyers.join_next()).await? {
        bought??;
    }
    Ok(())
}
