//! Decide by the time of the order, or by the time of payment?

use std::time::{Duration, Instant};

use order_service::config::{DecideBy, StrategyName};

use super::event::{EventKind, Party};
use super::fixtures::excerpt;
use super::timeline::Timeline;
use super::{Advice, Experiment, Finding, Observation};
use crate::fleet::{Fleet, FleetPlan};
use crate::payments::Payments;
use crate::report::RunReport;
use crate::run::{self, FaultSource};
use crate::scenario::{Amount, Scenario};
use crate::verdict::Verdict;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "payment-time",
    title: "Decide by the order, or by the payment?",
    claim: "Some shops decide by the time of the order, some by the time of payment. (A reader:) and if \
        somebody has ordered and does not pay?",
    setup: "two replicas with the lock table; 100 units, 150 orders a second for three seconds; seven of ten \
        buyers pay, within half a second; an order that is not paid within a second expires; once the order \
        reserves its units, once the payment takes them",
    advice: Advice::if_reproduced(
        "Neither oversells, so choose whom you disappoint. To reserve with the order and to give a \
         short time to pay suits most shops; to decide by payment suits a sale in which everything has \
         to go.",
    ),
    needs: &[],
    run: |timeline| Box::pin(run(timeline)),
};

const STOCK: i64 = 100;

async fn run(timeline: Timeline) -> anyhow::Result<Observation> {
    let mut observation = Observation::of(timeline);
    let timeline = &observation.timeline;
    let (order, reserved) = shop(DecideBy::Order, &timeline.scene("the order decides")).await?;
    let (payment, free) = shop(DecideBy::Payment, &timeline.scene("the payment decides")).await?;
    observation.table = vec![["decided by", "order", "payment"].map(String::from).to_vec()];
    let mut row = |what: &str, order: String, payment: String| {
        observation.table.push(vec![what.into(), order, payment]);
    };
    let left = |run: &RunReport| STOCK - run.units_sold.unwrap_or_default();
    row("paid", reserved.paid.to_string(), free.paid.to_string());
    row("left unsold", left(&order).to_string(), left(&payment).to_string());
    row("orders that expired", reserved.expired.to_string(), free.expired.to_string());
    row("turned away when they ordered", order.sold_out.to_string(), payment.sold_out.to_string());
    row(
        "of these, before units came back",
        reserved.turned_away_too_soon.to_string(),
        free.turned_away_too_soon.to_string(),
    );
    row("turned away when they paid", reserved.turned_away.to_string(), free.turned_away.to_string());
    let ms = |payments: &Payments| payments.last_paid_ms.map_or("–".into(), |ms| format!("{ms:.0} ms"));
    row("the last payment after", ms(&reserved), ms(&free));
    row("verdict", order.verdict.to_string(), payment.verdict.to_string());
    observation.observed = format!(
        "by order, nobody who had ordered was turned away, but {} were told \"sold out\" before units came \
         back, and {} expired; by payment, {} had ordered and were turned away when they paid; neither sold \
         more than there was",
        reserved.turned_away_too_soon, reserved.expired, free.turned_away
    );
    observation.explanation = Some(
        "Who orders and does not pay holds units that others want, until the window is over: what is sold \
         out now may be there again in a while, and the later units come back, the fewer ask for them still. \
         Who decides by payment sells at once to whoever pays, and disappoints those who believed that they \
         had ordered. The lock is the same for both; only where the units are taken differs. A short window \
         for the order is the compromise of most shops."
            .into(),
    );
    let correct = [&order, &payment].iter().all(|run| run.verdict == Verdict::Correct);
    let both_prices = reserved.turned_away_too_soon > 0 && reserved.expired > 0 && free.turned_away > 0;
    observation.finding = both_prices.then_some(if correct { Finding::Reproduced } else { Finding::Refuted });
    Ok(observation)
}

async fn shop(decide_by: DecideBy, timeline: &Timeline) -> anyhow::Result<(RunReport, Payments)> {
    let plan = FleetPlan::new(StrategyName::Database, 2)?
        .with("checkout.payment_window", "1s")
        .with("checkout.decide_by", decide_by.as_str());
    let fleet = Fleet::start(plan).await?;
    let scenario = Scenario {
        buyers: 64,
        amount: Amount::For(Duration::from_secs(3)),
        rate: Some(150.0),
        stock: STOCK,
        payers: 0.7,
        pay_within: Duration::from_millis(500),
        ..Scenario::default()
    };
    let begun = Instant::now();
    let report = run::fire(fleet.clients(), &scenario, &Default::default(), FaultSource::None).await?;
    fleet.stop().await?;
    excerpt(timeline, begun, &report);
    let payments = report.payments.unwrap_or_default();
    let parties = [&Party::holder("replicas"), &Party::buyer("buyers")];
    let told = |kind, count: u64, what: &str| {
        timeline.arrow(kind, parties, format!("{count} {what}"), format!("in all, {count} orders {what}"));
    };
    told(EventKind::Answered, payments.paid, "paid");
    told(EventKind::Refused, payments.expired, "expired");
    told(EventKind::Refused, payments.turned_away, "refused when they paid");
    Ok((report, payments))
}
