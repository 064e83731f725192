//! Does Redis keep the order of those who wait?

use std::sync::Arc;
use std::time::Duration;

use lab::{Redis, ServerKind};
use order_service::config::StrategyName;
use order_service::lock::Mode;
use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fixtures::{Contenders, Participant, SKU, patiently, until_census};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-queue",
    title: "Does Redis serve in order those who wait?",
    claim: "Redis keeps the order of the waiting processes by a queue. (Readers doubt it: it has none; \
        whoever retries first wins.)",
    setup: "eight wait for a key, each having come after the one before; bare clients that retry SET NX \
        every 10 to 30 ms on a real server, three times over; then eight of this project's locks",
    advice: Advice::either(
        "Nobody was overtaken this time, but retries do not promise it. Keep a queue where the order \
         matters.",
        "Do not expect first come, first served of a key that is tried again. Where the order matters \
         keep a queue: a sorted set beside the key, or the numbered nodes of ZooKeeper and etcd.",
    ),
    needs: &[ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

const WAITERS: usize = 8;

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let redis = Arc::new(Redis::start().await?);
    let mut out_of_order = 0;
    for round in 1..=3 {
        let timeline = observation.timeline.scene(format!("bare SET NX, round {round}"));
        let winners = bare(&redis, &format!("bare-{round}"), &timeline).await?;
        out_of_order += inversions(&winners);
        observation.figure(format!("bare SET NX, round {round}: winners by their arrival"), list(&winners));
    }
    let timeline = observation.timeline.scene("this project's lock");
    let winners = with_queue(&redis, &timeline).await?;
    let pairs = WAITERS * (WAITERS - 1) / 2;
    observation.figure("this project's lock: winners by their arrival", list(&winners));
    observation.figure(
        "pairs served in the wrong order",
        format!("{out_of_order} of {} bare, {} of {pairs} here", 3 * pairs, inversions(&winners)),
    );
    observation.observed = format!(
        "with bare SET NX {out_of_order} of {} pairs were served in the wrong order; with the queue that \
         this project's lock keeps in Redis, {} of {pairs}",
        3 * pairs,
        inversions(&winners)
    );
    observation.explanation = Some(
        "A Redis server does not know that a client waits: SET NX answers nil and the client goes away. \
         Whoever happens to try first after the deletion wins, however long the others have been trying, and \
         one may be passed over for ever. A queue has to be built. The lock of this project keeps one in a \
         sorted set beside the key, joined and served by the same script that takes the lock, in which a \
         place lapses whose waiter stopped looking."
            .into(),
    );
    observation.finding = Some(if out_of_order == 0 { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Who has the key after whom, by number of arrival, where everybody retries.
async fn bare(redis: &Arc<Redis>, key: &str, timeline: &Timeline) -> anyhow::Result<Vec<usize>> {
    redis.command(&["SET", key, "holder"]).await?;
    let (won, mut winners) = mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for number in 1..=WAITERS {
        let (has_tried, first_try) = oneshot::channel();
        let retry = Retry { redis: Arc::clone(redis), key: key.to_owned(), number };
        let participant = Participant::new(timeline, format!("waiter {number}"), "Redis");
        waiting.spawn(retry.until_won(participant, has_tried, won.clone()));
        anyhow::ensure!(first_try.await?, "the key was free before it was deleted");
    }
    timeline
        .note(format!("{WAITERS} have tried in vain, one after the other, and go on; the key is deleted"));
    redis.command(&["DEL", key]).await?;
    while let Some(tried) = waiting.join_next().await {
        tried??;
    }
    drop(won);
    let mut order = Vec::new();
    while let Some(number) = winners.recv().await {
        order.push(number);
    }
    timeline.note(format!("they had it in the order {}", list(&order)));
    Ok(order)
}

/// A bare client that tries again.
struct Retry {
    redis: Arc<Redis>,
    key: String,
    number: usize,
}

impl Retry {
    /// Tries until it has the key, keeps it for a moment and deletes it. Tells first whether its first try
    /// was in vain.
    async fn until_won(
        self,
        participant: Participant,
        has_tried: oneshot::Sender<bool>,
        won: mpsc::UnboundedSender<usize>,
    ) -> anyhow::Result<()> {
        let Self { redis, key, number } = self;
        let name = number.to_string();
        let mut has_tried = Some(has_tried);
        loop {
            let is_won = redis.command(&["SET", &key, &name, "NX"]).await? == "OK";
            if let Some(has_tried) = has_tried.take() {
                if !is_won {
                    participant.is_kept_out();
                }
                has_tried.send(!is_won).ok();
            }
            if is_won {
                break;
            }
            let pause = rand::rng().random_range(10..=30);
            sleep(Duration::from_millis(pause)).await;
        }
        participant.has(Mode::Exclusive);
        won.send(number).ok();
        sleep(Duration::from_millis(20)).await;
        participant.leaves();
        redis.command(&["DEL", &key]).await?;
        Ok(())
    }
}

/// The same with locks of this project.
async fn with_queue(redis: &Redis, timeline: &Timeline) -> anyhow::Result<Vec<usize>> {
    let contenders = Contenders::new(StrategyName::Redis, redis, &[]).await?;
    let holder = contenders.join("the holder").await?;
    let held = holder.acquire(SKU, Mode::Exclusive, patiently()).await?;
    let (won, mut winners) = mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for number in 1..=WAITERS {
        let lock = contenders.join(&format!("waiter {number}")).await?;
        let won = won.clone();
        let participant = Participant::new(timeline, format!("waiter {number}"), "Redis");
        waiting.spawn(async move {
            let lease = participant.acquire(&*lock, Mode::Exclusive).await?;
            won.send(number).ok();
            sleep(Duration::from_millis(20)).await;
            participant.release(lease).await;
            anyhow::Ok(())
        });
        until_census(&*holder, 1, number as u64).await?;
    }
    timeline.note(format!("{WAITERS} wait, each having come after the one before; the holder leaves"));
    held.release().await;
    while let Some(waited) = waiting.join_next().await {
        waited??;
    }
    drop(won);
    let mut order = Vec::new();
    while let Some(number) = winners.recv().await {
        order.push(number);
    }
    timeline.note(format!("they had it in the order {}", list(&order)));
    Ok(order)
}

/// Pairs of which the one that came later was served first.
fn inversions(winners: &[usize]) -> usize {
    let later_first =
        |(i, first): (usize, &usize)| winners[i + 1..].iter().filter(|next| *next < first).count();
    winners.iter().enumerate().map(later_first).sum()
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_in_the_wrong_order_are_counted() {
        assert_eq!(inversions(&[1, 2, 3, 4]), 0);
        assert_eq!(inversions(&[4, 3, 2, 1]), 6);
        assert_eq!(inversions(&[2, 1, 3, 4]), 1);
    }
}
