//! 1 write, 2 read, 3 write, 4 write: 3 and 4 must not go together.

use std::time::{Duration, Instant};

use lab::{ServerKind, Zookeeper};
use order_service::config::StrategyName;
use order_service::lock::Mode;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::fixtures::{Contenders, Participant, SKU, until_census};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "herd-bug",
    title: "Whom does a writer have to watch?",
    claim: "The first edition had writers watch only the last read before them; with (1 write, 2 read, 3 \
        write, 4 write) both 3 and 4 watch 2 and go together. Later corrected: watch the last request \
        before.",
    setup: "four processes' locks on a real ZooKeeper ask in this order; each keeps the lock for 0.2 s",
    advice: Advice::if_reproduced(
        "A writer watches the last request before it, of whatever kind. If you build a read-write lock \
         yourself, test it with write, read, write, write.",
    ),
    needs: &[ServerKind::Zookeeper],
    run: |timeline| Box::pin(run(timeline)),
};

const REQUESTS: [Mode; 4] = [Mode::Exclusive, Mode::Shared, Mode::Exclusive, Mode::Exclusive];

/// When a request had the lock, and until when.
#[derive(Debug, Clone, Copy)]
struct Turn {
    number: usize,
    from: Instant,
    until: Instant,
}

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let server = Zookeeper::start().await?;
    let contenders = Contenders::new(StrategyName::Zookeeper, &server, &[]).await?;
    let observer = contenders.join("an observer").await?;
    let timeline = &observation.timeline;
    let at_the_gate = Participant::new(timeline, "an observer", "ZooKeeper");
    let gate = at_the_gate.acquire(&*observer, Mode::Exclusive).await?;
    let (done, mut turns) = mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for (number, mode) in (1..).zip(REQUESTS) {
        let lock = contenders.join(&format!("{number}")).await?;
        let done = done.clone();
        let kind = if mode == Mode::Shared { "read" } else { "write" };
        let participant = Participant::new(timeline, format!("{number} {kind}"), "ZooKeeper");
        waiting.spawn(async move {
            let lease = participant.acquire(&*lock, mode).await?;
            let from = Instant::now();
            sleep(Duration::from_millis(200)).await;
            // It ends with the beginning of the release: the next one may be in before that is answered.
            let until = Instant::now();
            participant.release(lease).await;
            done.send(Turn { number, from, until }).ok();
            anyhow::Ok(())
        });
        until_census(&*observer, 1, number as u64).await?;
    }
    drop(done);
    timeline.note("1 write, 2 read, 3 write and 4 write are in the directory, behind an observer");
    at_the_gate.release(gate).await;
    let mut most = 0;
    let mut served = Vec::new();
    let watched = async {
        loop {
            match observer.state(SKU).await {
                Ok(state) => most = most.max(state.holders.len()),
                Err(error) => return error,
            }
            sleep(Duration::from_millis(3)).await;
        }
    };
    let collected = async {
        while let Some(turn) = turns.recv().await {
            served.push(turn);
        }
    };
    tokio::select! {
        () = collected => {}
        error = watched => return Err(error.into()),
    }
    while let Some(waited) = waiting.join_next().await {
        waited??;
    }
    served.sort_by_key(|turn| turn.from);
    let order: Vec<_> = served.iter().map(|turn| turn.number).collect();
    let together = served.windows(2).any(|turns| turns[1].from < turns[0].until);
    observation.figure("served in the order", format!("{order:?}"));
    observation.figure("most holders at once, by the directory", most);
    observation.figure(
        "woken by the end of 2 under the rule of the first edition",
        format!("{:?}", woken_in_first_edition(2)),
    );
    observation.observed = format!(
        "this project's lock served them in the order {order:?}, {}",
        if together { "some of them together" } else { "never two together" }
    );
    observation.explanation = Some(
        "Under the first edition's rule 3 and 4 both watch 2, the last read before them, and nothing tells 4 \
         to wait for 3: when 2 goes, both go. A writer has to watch the last request before it, of whatever \
         kind, and to list again when it is woken."
            .into(),
    );
    let reproduced = order == [1, 2, 3, 4] && !together && most == 1 && woken_in_first_edition(2) == [3, 4];
    observation.finding = Some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// Which writers the end of request `ended` wakes if each watches the last read before it.
fn woken_in_first_edition(ended: usize) -> Vec<usize> {
    let is_read = |number: &usize| REQUESTS[number - 1] == Mode::Shared;
    let watched_by = |number: usize| (1..number).rev().find(is_read);
    (1..=REQUESTS.len()).filter(|number| !is_read(number) && watched_by(*number) == Some(ended)).collect()
}
