//! A majority of five Redis servers: what it survives, and what it does not.
//!
//! The algorithm, what is held against it and the answer to that: see the service's `lock/redis/redlock.rs`.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use lab::{INSTALL_FAKETIME, RedisServers, Server as _, ServerKind, can_step_clocks};
use order_service::config::StrategyName;
use tokio::time::sleep;

use super::event::{EventKind, Party};
use super::fixtures::{Aftermath, SKU, TwoAtOnce, order, seconds};
use super::redis_setnx::lock_key;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::client::Client;
use crate::fleet::{Fleet, FleetPlan};
use crate::problem::ProblemKind;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "redis-redlock",
    title: "Redlock: a majority of five servers",
    claim: "(The comment with the most votes:) Redis' makers advise against bare SETNX and for Redlock, \
        which asks a majority of independent servers, and is no less reliable than ZooKeeper.",
    setup: "five Redis servers that know nothing of each other, two replicas. Two servers are killed, then \
        a third. A wants 1 and B wants 2 of two, while A's replica is stopped (SIGSTOP) past its lease; \
        while the third of A's three servers is started again, empty, and the two that were down when she \
        took the lock are back; the same, but that server stays away until a lease is over; and while the \
        clock of her third server is stepped by a minute. Without and with the guard",
    advice: Advice::either(
        "No two held the lock this time. It still rests on clocks that do not jump and on servers that \
         do not come back empty, so keep the check at the write.",
        "Redlock survives the loss of servers, but not servers that forget nor clocks that jump. Where \
         two holders at once cost money, keep a check at the write, or use a lock that is on the disks \
         of a majority, as in ZooKeeper and etcd.",
    ),
    needs: &[ServerKind::Redis],
    run: |timeline| Box::pin(run(timeline)),
};

/// How many servers; two may be gone.
const SERVERS: usize = 5;

/// How many of A's three servers know of her lock when the third one's vote is gone.
const LEFT: usize = 2;

/// How many orders are sent while two servers are gone, and while three are.
const ORDERS: (usize, usize) = (10, 3);

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let outage = Outage::watch(&observation.timeline.scene("servers are lost")).await?;
    observation
        .figure("two of five gone", format!("{} of {} orders confirmed", outage.sold_without_two, ORDERS.0));
    observation.figure(
        "three of five gone",
        format!(
            "{} of {} orders confirmed, the first refused after {}",
            outage.sold_without_three,
            ORDERS.1,
            seconds(outage.refused_after)
        ),
    );
    observation.figure("sold in all, as the orders say", format!("{} of 100", outage.sold));
    let stopped = Pair::try_out(Trouble::Stopped, &observation.timeline).await?;
    let late = observation.timeline.scene("a server forgets and stays away for a lease, guard off");
    let (forgot, late) = tokio::join!(
        Pair::try_out(Trouble::Forgot, &observation.timeline),
        shop(Trouble::ForgotAndLate, "off", &late)
    );
    let (forgot, late) = (forgot?, late?);
    let clock = match can_step_clocks() {
        true => Some(Pair::try_out(Trouble::Clock, &observation.timeline).await?),
        false => None,
    };
    observation.figure("a server forgets and stays away for a lease, guard off", late.after.figure());
    if clock.is_none() {
        observation.figure("a clock is stepped", format!("not tried; {INSTALL_FAKETIME}"));
    }
    forgot.describe("a server forgets", &mut observation);
    if let Some(clock) = &clock {
        clock.describe("a clock is stepped", &mut observation);
    }
    // Last, since these are what any lock with a lease comes to.
    stopped.describe("the holder is stopped", &mut observation);
    observation.observed = format!(
        "without two of five servers {} of {} orders were confirmed, without three {} of {}; a holder that \
         stood still past its lease was not alone ({} sold of 2 without the guard, {} with it); when one \
         server had forgotten its vote, {}, and {} when it stayed away for a lease; when a clock was \
         stepped, {}",
        outage.sold_without_two,
        ORDERS.0,
        outage.sold_without_three,
        ORDERS.1,
        stopped.off.after.audit.units_sold,
        stopped.on.after.audit.units_sold,
        forgot.in_words(),
        if late.after.overlapped { "two held it all the same" } else { "one at a time" },
        clock.as_ref().map_or_else(|| "was not tried".into(), Pair::in_words),
    );
    observation.explanation = Some(
        "A majority does what it is for: no single server is needed, and too few sell nothing. But each \
         vote is kept by one server alone, in memory, until its own clock says that the lease is over. \
         Whoever forgets a vote or sees a minute pass at once gives it to the next, and where that vote \
         decided, two have a majority (Kleppmann, 2016). ZooKeeper has each lock on the disks of a \
         majority before it answers, and looks at no time of day. Redis' documentation knows of the first \
         and asks that a server that crashed stays away for as long as the longest lease: an \
         operator's promise, as is that of clocks that do not jump. A holder that stands \
         still is lost under every lock with a lease, ZooKeeper's too. So the stock relies on the guard, \
         which let no more be sold than there was."
            .into(),
    );
    let went_on = outage.sold_without_two == ORDERS.0 && outage.sold_without_three == 0;
    let tried: Vec<_> = [Some(&forgot), clock.as_ref()].into_iter().flatten().collect();
    let occurred = stopped.occurred() && tried.iter().all(|pair| pair.decided());
    let two_held = tried.iter().any(|pair| pair.two_held());
    let as_claimed = went_on && outage.sold == outage.sold_without_two + 1 && !two_held;
    observation.finding = occurred.then_some(if as_claimed { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

/// A shop on all servers, with further keys.
async fn open(keys: &[(&str, &str)], is_breakable: bool) -> anyhow::Result<Fleet> {
    let mut plan = FleetPlan::new(StrategyName::Redis, 2)?;
    (plan.setup.redis_servers, plan.setup.is_breakable) = (SERVERS, is_breakable);
    for (key, value) in keys {
        plan = plan.with(key, value);
    }
    Fleet::start(plan).await
}

fn servers(fleet: &mut Fleet) -> anyhow::Result<&mut RedisServers> {
    fleet.servers_mut().find_mut().context("the fleet has Redis servers")
}

/// What is sold while servers are gone.
struct Outage {
    sold_without_two: usize,
    sold_without_three: usize,
    refused_after: Duration,
    sold: usize,
}

impl Outage {
    async fn watch(timeline: &Timeline) -> anyhow::Result<Self> {
        let mut fleet = open(&[("lock.wait", "2s")], false).await?;
        let clients = fleet.clients().to_vec();
        clients[0].create_product(SKU, "Hair dryer", 100).await?;
        let (buyers, replicas) = (Party::buyer("A"), Party::holder("replicas"));
        let redis = Party::lock("five Redis");
        let send = |count: usize| {
            let what = format!("A sends {count} orders, one after the other");
            timeline.arrow(EventKind::Sent, [&buyers, &replicas], format!("{count} orders"), what);
        };
        let tell = |sold: usize, of: usize| {
            let kind = if sold > 0 { EventKind::Answered } else { EventKind::Refused };
            let what = format!("{sold} of {of} orders are confirmed");
            timeline.arrow(kind, [&replicas, &buyers], format!("{sold} of {of} confirmed"), what);
        };
        for server in 0..2 {
            servers(&mut fleet)?.all_mut()[server].kill().await?;
        }
        timeline.mark(EventKind::Crashed, &redis, "two killed", "two of five servers are killed");
        send(ORDERS.0);
        let (sold_without_two, _) = orders(&clients, ORDERS.0).await?;
        tell(sold_without_two, ORDERS.0);
        servers(&mut fleet)?.all_mut()[2].kill().await?;
        timeline.mark(EventKind::Crashed, &redis, "a third killed", "a third one is killed");
        send(ORDERS.1);
        let (sold_without_three, refused_after) = orders(&clients, ORDERS.1).await?;
        tell(sold_without_three, ORDERS.1);
        servers(&mut fleet)?.restart().await?;
        timeline.mark(EventKind::Mended, &redis, "all started again", "all are started again");
        let give_up = Instant::now() + Duration::from_secs(10);
        while order(&clients[0], "A", 1).await?.order().is_none() {
            anyhow::ensure!(Instant::now() < give_up, "nothing is sold although all servers are back");
        }
        let sold = usize::try_from(clients[1].audit(SKU).await?.units_sold)?;
        timeline.note(format!("the next order is confirmed; {sold} are sold in all"));
        fleet.stop().await?;
        Ok(Self { sold_without_two, sold_without_three, refused_after, sold })
    }
}

/// Orders one after the other, from both replicas. Returns how many are confirmed, and how long the first
/// took that was refused since the lock's servers are gone.
async fn orders(clients: &[Client], count: usize) -> anyhow::Result<(usize, Duration)> {
    let (mut confirmed, mut refused_after) = (0, None);
    for number in 0..count {
        let asked = Instant::now();
        let reply = order(&clients[number % clients.len()], "A", 1).await?;
        match reply.order() {
            Some(_) => confirmed += 1,
            None if reply.is(&ProblemKind::DependencyDown) => {
                refused_after.get_or_insert(reply.at - asked);
            }
            None => {}
        }
    }
    Ok((confirmed, refused_after.unwrap_or_default()))
}

/// What goes wrong while A has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Her replica is stopped until B has been answered.
    Stopped,
    /// One of her three servers is started again, empty.
    Forgot,
    /// The same, when a lease is over.
    ForgotAndLate,
    /// The time of day of one of her three servers is stepped.
    Clock,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Self::Stopped => "the holder is stopped",
            Self::Forgot | Self::ForgotAndLate => "a server forgets",
            Self::Clock => "a clock is stepped",
        }
    }
}

/// What came of A and B.
struct Outcome {
    after: Aftermath,
    /// How many servers knew of A's lock when B ordered.
    known: usize,
}

/// The same trouble without and with the guard.
struct Pair {
    off: Outcome,
    on: Outcome,
}

impl Pair {
    /// Both at the same time, in shops that have nothing in common.
    async fn try_out(trouble: Trouble, timeline: &Timeline) -> anyhow::Result<Self> {
        let of = |guard: &str| timeline.scene(format!("{}, {guard}", trouble.name()));
        let (of_off, of_on) = (of("guard off"), of("guard on"));
        let (off, on) = tokio::join!(shop(trouble, "off", &of_off), shop(trouble, "version", &of_on));
        Ok(Self { off: off?, on: on? })
    }

    fn describe(&self, name: &str, observation: &mut Observation) {
        observation.figure(format!("{name}, guard off"), self.off.after.figure());
        observation.figure(format!("{name}, guard on"), self.on.after.figure());
    }

    /// Whether two were at work at once, in both.
    fn occurred(&self) -> bool {
        self.off.after.occurred() && self.on.after.occurred()
    }

    /// Whether the vote that went was the one that decided, in both: A had bought it with three, of which two
    /// are left.
    fn decided(&self) -> bool {
        [&self.off, &self.on]
            .iter()
            .all(|outcome| outcome.known == LEFT && (!outcome.after.overlapped || outcome.after.occurred()))
    }

    fn two_held(&self) -> bool {
        self.off.after.overlapped || self.on.after.overlapped
    }

    fn in_words(&self) -> String {
        match self.two_held() {
            true => format!(
                "two held it ({} sold of 2 without the guard, {} with it)",
                self.off.after.audit.units_sold, self.on.after.audit.units_sold
            ),
            false => "one at a time".into(),
        }
    }
}

async fn shop(trouble: Trouble, guard: &str, timeline: &Timeline) -> anyhow::Result<Outcome> {
    // Except where it is to end under A, it outlasts her work.
    let lease = Duration::from_secs(if trouble == Trouble::Stopped { 1 } else { 3 });
    let keys = [
        ("lock.redis.lease", &*humantime::format_duration(lease).to_string()),
        ("lock.wait", "20s"),
        ("server.request_timeout", "25s"),
        ("checkout.think_time", if trouble == Trouble::Stopped { "1s" } else { "1500ms" }),
        ("checkout.guard", guard),
    ];
    let mut fleet = open(&keys, trouble == Trouble::Clock).await?;
    let [first, second] = fleet.clients() else { unreachable!("two replicas were started") };
    let (first, second) = (first.clone(), second.clone());
    let (redis, holder) = (Party::lock("Redis"), Party::holder("replica-1"));
    let breaks = |label: &str, what: &str| timeline.mark(EventKind::Broken, &redis, label, what);
    if trouble != Trouble::Stopped {
        for server in 3..SERVERS {
            servers(&mut fleet)?.all_mut()[server].kill().await?;
        }
        breaks("two of five down", "two of five servers are down");
    }
    let mut stage = TwoAtOnce::begin(&first, &second, timeline).await?;
    match trouble {
        Trouble::Stopped => {
            fleet.replicas()[0].pause()?;
            timeline.mark(EventKind::Paused, &holder, "stopped", "replica-1 is stopped in its tracks");
        }
        Trouble::Forgot => {
            servers(&mut fleet)?.all_mut()[2].kill().await?;
            servers(&mut fleet)?.restart().await?;
            let what = "the third is started again, empty; and the two that were down";
            breaks("one forgets, two are back", what);
        }
        Trouble::ForgotAndLate => {
            for server in 3..SERVERS {
                servers(&mut fleet)?.all_mut()[server].restart().await?;
            }
            servers(&mut fleet)?.all_mut()[2].kill().await?;
            let what = "the third is killed and stays away; the two that were down are started again";
            breaks("one is killed, two are back", what);
        }
        Trouble::Clock => {
            servers(&mut fleet)?.restart().await?;
            servers(&mut fleet)?.all()[2].set_clock(60)?;
            let what =
                "the two that were down are started again, and the third's clock is stepped by a minute";
            breaks("a clock jumps, two are back", what);
        }
    }
    let known = known_on(servers(&mut fleet)?).await?;
    let what = format!("{known} of five servers know of A's lock");
    timeline.mark(EventKind::Note, &redis, &format!("{known} of five know of A"), what);
    let third = async {
        if trouble == Trouble::ForgotAndLate {
            sleep(lease).await;
            servers(&mut fleet)?.restart().await?;
        }
        anyhow::Ok(Instant::now())
    };
    let (ordered, back) = tokio::join!(stage.b_orders(timeline), third);
    ordered?;
    let back = back?;
    match trouble {
        Trouble::Stopped => {
            fleet.replicas()[0].resume()?;
            timeline.mark(EventKind::Resumed, &holder, "goes on", "replica-1 goes on");
        }
        Trouble::ForgotAndLate => {
            let what = "a lease is over, and the third is started again";
            timeline.mark_at(back, EventKind::Mended, &redis, "third is back", what);
        }
        Trouble::Forgot | Trouble::Clock => {}
    }
    let aftermath = stage.end(timeline).await?;
    fleet.stop().await?;
    Ok(Outcome { after: aftermath, known })
}

/// How many servers know of a lock.
async fn known_on(servers: &RedisServers) -> anyhow::Result<usize> {
    let mut known = 0;
    for server in servers.all() {
        // One that is killed knows of none.
        let exists = server.command(&["EXISTS", &lock_key()]).await;
        known += usize::from(exists.is_ok_and(|answer| answer == "1"));
    }
    Ok(known)
}
