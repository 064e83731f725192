//! Who gets the lock how often, and in what order?

use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::{Etcd, Postgres, Redis, Server, ServerKind, Zookeeper};
use order_service::config::StrategyName;
use order_service::lock::{Lock, Mode};
use rand::RngExt as _;
use tokio::sync::{Barrier, Mutex};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fixtures::{Contenders, Participant, SKU, patiently};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "fairness",
    title: "Does everybody get a turn?",
    claim: "(A reader asks:) do those who compete for the lock get it fairly? (Not by themselves: somebody \
     has to \
        keep a queue.)",
    setup: "eight want the lock all the time: each takes it, keeps it for 2 ms, gives it back and asks \
     again at \
        once, until it was had 400 times; bare SET NX with retries every 1 to 10 ms, and this project's \
        locks \
        in Redis, in PostgreSQL's lock table, in ZooKeeper and in etcd",
    advice: Advice::if_reproduced(
        "Where nobody may wait for ever, use a lock with a queue. With plain retries, expect that some \
         wait many times as long as others.",
    ),
    needs: &[ServerKind::Postgres, ServerKind::Redis, ServerKind::Zookeeper, ServerKind::Etcd],
    run: |timeline| Box::pin(run(timeline)),
};

const CONTENDERS: usize = 8;

/// How often the lock is had in all.
const TURNS: usize = 400;

/// How many of these turns are recorded as they come.
const RECORDED: usize = 16;

/// How long it is kept.
const KEPT: Duration = Duration::from_millis(2);

/// Who had the lock, one after the other, with the longest that anybody waited.
struct Turns {
    owners: Vec<usize>,
    longest_wait: Duration,
}

impl Turns {
    /// How often each had it, the least and the most.
    fn shares(&self) -> (usize, usize) {
        let counts = (0..CONTENDERS).map(|who| self.owners.iter().filter(|owner| **owner == who).count());
        let counts: Vec<_> = counts.collect();
        (counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0))
    }

    /// How often whoever had just had it had it again, although all others were waiting.
    fn again_at_once(&self) -> usize {
        self.owners.windows(2).filter(|pair| pair[0] == pair[1]).count()
    }

    /// The most turns of others that anybody had to let pass; in turn it is all the others' one.
    fn most_passed_over(&self) -> usize {
        let longest = (0..CONTENDERS).map(|who| {
            self.owners.split(|owner| *owner == who).map(<[usize]>::len).max().unwrap_or(self.owners.len())
        });
        longest.max().unwrap_or(0)
    }

    fn figure(&self) -> String {
        let (least, most) = self.shares();
        format!(
            "{least} to {most} turns each; {} times the same again; up to {} turns of others passed over; \
             longest \
             wait {} ms",
            self.again_at_once(),
            self.most_passed_over(),
            self.longest_wait.as_millis()
        )
    }

    /// Nobody waits much longer than all others take once. What is left for who is late in the queue, since
    /// he has to ask again first, is one more round.
    fn is_fair(&self) -> bool {
        self.most_passed_over() <= 2 * CONTENDERS
    }
}

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let (redis, postgres, zookeeper) =
        (Redis::start().await?, Postgres::start().await?, Zookeeper::start().await?);
    let etcd = Etcd::start().await?;
    let redis = Arc::new(redis);
    let timeline = observation.timeline.scene("bare SET NX");
    let bare = bare(&redis, &timeline).await?;
    timeline.note(summary());
    observation.figure("bare SET NX", bare.figure());
    let mut are_fair = Vec::new();
    let servers: [(StrategyName, &dyn Server); 4] = [
        (StrategyName::Redis, &*redis),
        (StrategyName::Database, &postgres),
        (StrategyName::Zookeeper, &zookeeper),
        (StrategyName::Etcd, &etcd),
    ];
    for (strategy, server) in servers {
        let timeline = observation.timeline.scene(format!("this project's lock: {strategy}"));
        let turns = ours(strategy, server, &timeline).await?;
        timeline.note(summary());
        observation.figure(strategy.to_string(), turns.figure());
        are_fair.push((strategy, turns.is_fair()));
    }
    let unfair: Vec<_> =
        are_fair.iter().filter(|(_, fair)| !fair).map(|(name, _)| name.to_string()).collect();
    observation.observed = format!(
        "with bare SET NX somebody had to let {} turns of others pass, where {} would be his turn; {}",
        bare.most_passed_over(),
        CONTENDERS - 1,
        match unfair.is_empty() {
            true => "under this project's four locks nobody waited for more than two rounds".into(),
            false => format!("so had they under {}", unfair.join(", ")),
        }
    );
    observation.explanation = Some(
        "Fairness is a queue, and somebody has to keep it. A key that is tried again has none: whoever \
         happens to \
         try first wins, most of all the one who has just given it back. ZooKeeper's sequential nodes are \
         a queue, \
         and so are etcd's keys by their creation; \
         this project's lock in Redis keeps one in a sorted set, and its lock table lets those who wait take \
         numbers. Fair is not fast: each hand-over has to reach another process, which a barging lock saves."
            .into(),
    );
    let as_expected = !bare.is_fair() && unfair.is_empty();
    observation.finding = Some(if as_expected { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

fn summary() -> String {
    format!("{TURNS} turns are over; the first {RECORDED} are recorded here")
}

/// What all contenders write into.
#[derive(Default)]
struct Record {
    owners: Vec<usize>,
    longest_wait: Duration,
}

impl Record {
    /// Notes a turn, and returns which one it is.
    fn note(&mut self, who: usize, waited: Duration) -> usize {
        self.owners.push(who);
        self.longest_wait = self.longest_wait.max(waited);
        self.owners.len()
    }
}

async fn bare(redis: &Arc<Redis>, timeline: &Timeline) -> anyhow::Result<Turns> {
    let (record, start) = (Arc::new(Mutex::new(Record::default())), Arc::new(Barrier::new(CONTENDERS)));
    let mut contenders = JoinSet::new();
    for who in 0..CONTENDERS {
        let (redis, record, start) = (Arc::clone(redis), Arc::clone(&record), Arc::clone(&start));
        let participant = Participant::new(timeline, format!("contender {}", who + 1), "Redis");
        contenders.spawn(async move {
            start.wait().await;
            let mut asked = Instant::now();
            while record.lock().await.owners.len() < TURNS {
                if redis.command(&["SET", "bare", &who.to_string(), "NX"]).await? != "OK" {
                    let pause = rand::rng().random_range(1..=10);
                    sleep(Duration::from_millis(pause)).await;
                    continue;
                }
                let turn = record.lock().await.note(who, asked.elapsed());
                if turn <= RECORDED {
                    participant.has(Mode::Exclusive);
                }
                sleep(KEPT).await;
                if turn <= RECORDED {
                    participant.leaves();
                }
                redis.command(&["DEL", "bare"]).await?;
                asked = Instant::now();
            }
            anyhow::Ok(())
        });
    }
    turns(contenders, &record).await
}

async fn ours(strategy: StrategyName, server: &dyn Server, timeline: &Timeline) -> anyhow::Result<Turns> {
    let all = Contenders::new(strategy, server, &[]).await?;
    let (record, start) = (Arc::new(Mutex::new(Record::default())), Arc::new(Barrier::new(CONTENDERS)));
    let mut contenders = JoinSet::new();
    let mut locks: Vec<Arc<dyn Lock>> = Vec::new();
    for who in 0..CONTENDERS {
        let lock = all.join(&format!("contender {who}")).await?;
        locks.push(Arc::clone(&lock));
        let (record, start) = (Arc::clone(&record), Arc::clone(&start));
        let name = format!("contender {}", who + 1);
        let participant = Participant::new(timeline, name, server.kind().title());
        contenders.spawn(async move {
            start.wait().await;
            loop {
                let asked = Instant::now();
                let lease = lock.acquire(SKU, Mode::Exclusive, patiently()).await?;
                let turn = record.lock().await.note(who, asked.elapsed());
                if turn <= RECORDED {
                    participant.has(Mode::Exclusive);
                }
                sleep(KEPT).await;
                if turn <= RECORDED {
                    participant.leaves();
                }
                lease.release().await;
                if turn >= TURNS {
                    return anyhow::Ok(());
                }
            }
        });
    }
    let turns = turns(contenders, &record).await?;
    for lock in locks {
        lock.shutdown().await;
    }
    Ok(turns)
}

async fn turns(mut contenders: JoinSet<anyhow::Result<()>>, record: &Mutex<Record>) -> anyhow::Result<Turns> {
    while let Some(done) = contenders.join_next().await {
        done??;
    }
    let mut record = record.lock().await;
    // The last ones only brought it to its end.
    record.owners.truncate(TURNS);
    Ok(Turns { owners: std::mem::take(&mut record.owners), longest_wait: record.longest_wait })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_passed_over_is_seen() {
        let turns = |owners: Vec<usize>| Turns { owners, longest_wait: Duration::ZERO };
        let in_turn = turns((0..CONTENDERS).cycle().take(TURNS).collect());
        assert_eq!((in_turn.shares(), in_turn.again_at_once()), ((50, 50), 0));
        assert_eq!(in_turn.most_passed_over(), CONTENDERS - 1);
        let barging = turns([vec![0; 390], vec![1; 10]].concat());
        assert_eq!((barging.shares(), barging.again_at_once()), ((0, 390), 398));
        assert!(in_turn.is_fair() && !barging.is_fair());
    }
}
