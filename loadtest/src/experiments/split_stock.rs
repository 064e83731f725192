//! The stock in several rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::{Postgres, ServerKind};
use rand::RngExt as _;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use super::event::{EventKind, Party};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::spread::Spread;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "split-stock",
    title: "The stock of one product in several rows",
    claim: "(Readers:) if one row is not fast enough, keep the stock in several.",
    setup: "PostgreSQL, 32 buyers at once, each purchase one transaction of two milliseconds that takes \
        a unit from a row chosen at random where it has one; the stock in 1, 2, 4, 8 and 16 rows in turn, \
        three times; then 512 units and 768 buyers who look into one row only, and who look into the others \
        before they give up",
    advice: Advice::either(
        "Split the stock of a very hot product when one row is what limits you, and look into all rows \
         before you say \"sold out\". First try to write many orders in one commit, which leaves the \
         stock in one place.",
        "Here several rows gained little over one. Measure before you pay their price: no row knows of \
         the others, and the stock is a sum.",
    ),
    needs: &[ServerKind::Postgres],
    run: |timeline| Box::pin(run(timeline)),
};

const BUYERS: usize = 32;
const ROWS: [usize; 5] = [1, 2, 4, 8, 16];
const ROUNDS: usize = 3;

/// How long each is measured.
const MEASURED: Duration = Duration::from_millis(700);

/// Units that are sold out, and buyers who want one.
const STOCK: usize = 512;
const WANTED: usize = 768;

/// How many purchases, and how many refusals, are recorded as they come.
const RECORDED: usize = 4;

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let postgres = Postgres::start().await?;
    let pool =
        PgPoolOptions::new().max_connections(BUYERS as u32).connect(&postgres.url_of("postgres")).await?;
    sqlx::raw_sql("create table part (number int primary key, stock bigint) with (fillfactor = 50)")
        .execute(&pool)
        .await?;
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); ROWS.len()];
    for _ in 0..ROUNDS {
        for (rows, rates) in ROWS.iter().zip(&mut rates) {
            rates.push(rate(&pool, *rows).await?);
        }
    }
    observation.timeline.note("throughput from 1, 2, 4, 8 and 16 rows is measured");
    let rates: Vec<_> = rates.into_iter().map(Spread::of).collect();
    for (rows, rate) in ROWS.iter().zip(&rates) {
        let ratio = rate.median / rates[0].median;
        observation
            .figure(format!("{rows} rows"), format!("{rate:.0} purchases/s, {ratio:.1} times one row"));
    }
    let timeline = observation.timeline.scene("16 rows, a buyer looks into one");
    let (alone, alone_left) = sold_out(&pool, 16, false, &timeline).await?;
    let timeline = observation.timeline.scene("16 rows, a buyer looks into all");
    let (everywhere, everywhere_left) = sold_out(&pool, 16, true, &timeline).await?;
    observation.figure("told \"sold out\" while another row had stock, looking into one", alone);
    observation.figure("left unsold of 512, looking into one", alone_left);
    observation.figure("told so, looking into all", everywhere);
    observation.figure("left unsold of 512, looking into all", everywhere_left);
    let most = rates.iter().map(|rate| rate.median).fold(0.0, f64::max) / rates[0].median;
    observation.observed = format!(
        "in several rows the stock sold up to {most:.1} times as fast; {alone} of {WANTED} buyers who looked \
         into one row of 16 were told \"sold out\" while another had stock, and {everywhere} of those who \
         looked into all"
    );
    observation.explanation = Some(
        "A row is locked from its update until the commit, so purchases of one row wait for each other for \
         as long as a transaction takes; of several rows, they go on side by side. The price is that no row \
         knows of the others: near the end a buyer is turned away by an empty one, or has to look into all, \
         and the number that is left is a sum. One commit for many orders, as this project's queue makes it, \
         gets more from a single row."
            .into(),
    );
    let is_faster = most > 1.5;
    observation.finding = Some(if is_faster { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Fills so many rows with as much as is shared out among them.
async fn fill(pool: &PgPool, rows: usize, stock: usize) -> anyhow::Result<()> {
    sqlx::raw_sql("truncate part").execute(pool).await?;
    sqlx::query("insert into part select number, $2 from generate_series(0, $1 - 1) number")
        .bind(rows as i32)
        .bind((stock / rows) as i64)
        .execute(pool)
        .await?;
    Ok(())
}

/// Takes a unit from a row, if it has one. The transaction has other things to do, too, while it has the row.
async fn take(pool: &PgPool, row: usize) -> anyhow::Result<bool> {
    let taken: i64 = sqlx::query_scalar(
        "with taken as (
             update part set stock = stock - 1 where number = $1 and stock > 0 returning number
         ), work as (
             select pg_sleep(case when exists (select from taken) then 0.002 else 0 end)
         )
         select (select count(*) from taken) + (select 0 from work)",
    )
    .bind(row as i32)
    .fetch_one(pool)
    .await?;
    Ok(taken == 1)
}

/// Purchases per second from so many rows that never run out.
async fn rate(pool: &PgPool, rows: usize) -> anyhow::Result<f64> {
    fill(pool, rows, 1_000_000_000).await?;
    let begun = Instant::now();
    let mut buyers = JoinSet::new();
    for _ in 0..BUYERS {
        let pool = pool.clone();
        buyers.spawn(async move {
            let mut bought = 0_u64;
            while begun.elapsed() < MEASURED {
                let row = rand::rng().random_range(0..rows);
                bought += u64::from(take(&pool, row).await?);
            }
            anyhow::Ok(bought)
        });
    }
    let mut bought = 0;
    while let Some(done) = buyers.join_next().await {
        bought += done??;
    }
    Ok(bought as f64 / begun.elapsed().as_secs_f64())
}

/// Sells out. Returns how many were told "sold out" while there was stock, and how much was left.
async fn sold_out(
    pool: &PgPool,
    rows: usize,
    looks_everywhere: bool,
    timeline: &Timeline,
) -> anyhow::Result<(usize, i64)> {
    fill(pool, rows, STOCK).await?;
    let (next, wrongly) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut buyers = JoinSet::new();
    for _ in 0..BUYERS {
        let (pool, next, wrongly) = (pool.clone(), Arc::clone(&next), Arc::clone(&wrongly));
        let timeline = timeline.clone();
        buyers.spawn(async move {
            loop {
                let buyer = next.fetch_add(1, Ordering::Relaxed);
                if buyer >= WANTED {
                    return anyhow::Ok(());
                }
                let first = rand::rng().random_range(0..rows);
                let looked_into = if looks_everywhere { rows } else { 1 };
                let mut has_bought = false;
                for row in (first..first + looked_into).map(|row| row % rows) {
                    has_bought = take(&pool, row).await?;
                    if has_bought {
                        break;
                    }
                }
                if has_bought && buyer < RECORDED {
                    buys(&timeline, buyer, first);
                }
                if has_bought {
                    continue;
                }
                let left = left(&pool).await?;
                if left > 0 && wrongly.fetch_add(1, Ordering::Relaxed) < RECORDED {
                    is_turned_away(&timeline, buyer, first, left);
                }
            }
        });
    }
    while let Some(done) = buyers.join_next().await {
        done??;
    }
    let (wrongly, left) = (wrongly.load(Ordering::Relaxed), left(pool).await?);
    timeline.note(format!(
        "of {WANTED} buyers, {wrongly} were told \"sold out\" while another row had stock; {left} are left. \
         The first {RECORDED} of either kind are recorded here"
    ));
    Ok((wrongly, left))
}

/// Records that a buyer has a unit.
fn buys(timeline: &Timeline, buyer: usize, row: usize) {
    let (rows, who) = (Party::database(), Party::buyer(format!("buyer {}", buyer + 1)));
    let what = format!("{} looks into row {row} first, and buys", who.name);
    timeline.arrow(EventKind::Answered, [&rows, &who], format!("row {row}: sold"), what);
}

/// Records that a buyer has none, although there are some.
fn is_turned_away(timeline: &Timeline, buyer: usize, row: usize, left: i64) {
    let (rows, who) = (Party::database(), Party::buyer(format!("buyer {}", buyer + 1)));
    let what = format!("{} is told that row {row} is empty, while {left} are left in others", who.name);
    timeline.arrow(EventKind::Refused, [&rows, &who], format!("row {row} empty, {left} in others"), what);
}

async fn left(pool: &PgPool) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("select sum(stock)::bigint from part").fetch_one(pool).await?)
}
