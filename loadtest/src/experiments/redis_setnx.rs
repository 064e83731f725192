//! One server is answered 1, the others 0, and they try again.

use std::time::Duration;

use lab::{Redis, ServerKind};
use order_service::config::StrategyName;
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::fixtures::{HoldWatch, Participant, SKU, order, until_holds, until_waiting};
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-setnx",
    title: "One gets the key, the others try again",
    claim: "setnx answers 1 to one server and 0 to the others, who try again until the key is deleted. A \
        (Server2), then B (Server1), then C (Server3) buy in turn.",
    setup: "first three bare clients of a Redis server; then three replicas of the service that need 0.3 s \
        for an order, and the key looked at on the server itself",
    advice: Advice::if_reproduced(
        "Set the key only if it is absent, with an expiry and an owner in the same command (SET key \
         owner NX PX time), and delete it only while it is still yours. A library that is tested does \
         both.",
    ),
    needs: &[ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let plan = FleetPlan::new(StrategyName::Redis, 3)?
        .with("checkout.think_time", "300ms")
        .with("checkout.max_batch", "1");
    let fleet = Fleet::start(plan).await?;
    let clients = fleet.clients().to_vec();
    let [server_1, server_2, server_3] = &clients[..] else { unreachable!("three replicas were started") };
    let redis: &Redis = fleet.servers().find().expect("the strategy needs one");
    let answers = bare(redis, &observation.timeline.scene("bare clients")).await?;
    let timeline = observation.timeline.scene("the service");

    server_1.create_product(SKU, "Hair dryer", 5).await?;
    let holds = HoldWatch::start(&timeline, &clients).await?;
    let script = async {
        timeline.orders("A", 1, "replica-2");
        let a = order(server_2, "A", 1);
        let b = async {
            until_holds(server_1, "replica-2").await?;
            timeline.orders("B", 1, "replica-1");
            order(server_1, "B", 1).await
        };
        let c = async {
            until_waiting(server_3, 1).await?;
            timeline.orders("C", 1, "replica-3");
            order(server_3, "C", 1).await
        };
        tokio::join!(a, b, c)
    };
    let mut seen = Vec::new();
    let (a, b, c) = tokio::select! {
        told = script => told,
        error = watch(redis, &mut seen, &timeline) => return Err(error),
    };
    let (a, b, c) = (a?, b?, c?);
    holds.look().await;
    for (who, told) in [("A", &a), ("B", &b), ("C", &c)] {
        timeline.note_reply(who, told);
    }
    fleet.stop().await?;

    let left: Vec<_> = [&a, &b, &c].iter().filter_map(|told| Some(told.order()?.stock_after)).collect();
    observation.figure("answers to setnx", answers.join(", "));
    observation.figure("holders of the key, in order", seen.join(", "));
    observation.figure("left after A, B and C", format!("{left:?}"));
    let turns: Vec<_> = seen.iter().filter_map(|holder| holder.split(' ').next()).collect();
    let in_turn = turns == ["replica-2", "replica-1", "replica-3"];
    let one_wins = answers == ["1", "0", "0", "1"];
    observation.observed = format!(
        "{} of three was answered 1 and the others 0, until the key was deleted; {}",
        if one_wins { "one" } else { "not just one" },
        if left == [4, 3, 2] { "A, B and C bought in turn" } else { "they did not buy in turn" },
    );
    observation.explanation = Some(
        "The service does not send setnx itself but one script that does the same and more: it sets the key \
         only when it is absent, with an expiry, an owner and a token, and it queues those who come too late."
            .into(),
    );
    let reproduced = one_wins && in_turn && left == [4, 3, 2];
    observation.finding = Some(if reproduced { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// What three clients are answered, and the second again when the first has deleted the key.
async fn bare(redis: &Redis, timeline: &Timeline) -> anyhow::Result<Vec<String>> {
    let mut answers = Vec::new();
    let redis_itself = Party::lock("Redis");
    let told = |server: &str, answer: &str| {
        let participant = Party::holder(server);
        let what = format!("{server} sends setnx");
        timeline.arrow(EventKind::Asked, [&participant, &redis_itself], "setnx", what);
        let kind = if answer == "1" { EventKind::Granted } else { EventKind::Refused };
        let what = format!("{server} is answered {answer}");
        timeline.arrow(kind, [&redis_itself, &participant], answer, what);
    };
    for server in ["Server2", "Server1", "Server3"] {
        let answer = redis.command(&["SETNX", "bare", server]).await?;
        told(server, &answer);
        answers.push(answer);
    }
    redis.command(&["DEL", "bare"]).await?;
    Participant::new(timeline, "Server2", "Redis").leaves();
    let answer = redis.command(&["SETNX", "bare", "Server1"]).await?;
    told("Server1", &answer);
    answers.push(answer);
    Ok(answers)
}

/// Looks at the key until the future is dropped; ends only with an error.
async fn watch(redis: &Redis, seen: &mut Vec<String>, timeline: &Timeline) -> anyhow::Error {
    let key = lock_key();
    loop {
        let fields = match redis.command(&["HMGET", &key, "holder", "token"]).await {
            Ok(fields) => fields,
            Err(error) => return error.into(),
        };
        let holder = fields.replace('\n', " with token ");
        if !holder.starts_with("(nil)") && seen.last() != Some(&holder) {
            let (label, what) = (format!("of {holder}"), format!("Redis says: the key is of {holder}"));
            timeline.mark(EventKind::Note, &Party::lock("Redis"), &label, what);
            seen.push(holder);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// The key of the product's lock in Redis.
pub(super) fn lock_key() -> String {
    format!("stocklock:{{{SKU}}}:lock")
}
