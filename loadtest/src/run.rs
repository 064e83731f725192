//! One run: a scenario fired at replicas, at a product made for it, and what it left, judged.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use order_service::api::Info;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::Client;
use crate::collector::{self, Circumstances};
use crate::evidence::{Broken, FaultEvidence};
use crate::faults::{FaultMark, Injector, send_slowly};
use crate::metrics::LockFigures;
use crate::progress::Progress;
use crate::refusal::Refused;
use crate::report::RunReport;
use crate::runner;
use crate::scenario::Scenario;
use crate::series::Series;
use crate::verdict::{Check, CheckName, Status};

/// What the products' names begin with that are made for runs; a UUID follows.
const OWN: &str = "hair-dryer-";

/// What people call these products.
const NAME: &str = "Hair dryer";

/// Where the faults of a run come from.
pub enum FaultSource<'a, 'f> {
    /// Nothing.
    None,
    /// Elsewhere, at times that are not known here.
    Elsewhere,
    /// These, injected elsewhere.
    Declared(Vec<Broken>),
    /// Nothing, but slow clients come.
    SlowClients,
    /// From an injector.
    Injected(&'a mut Injector<'f>),
}

/// Fires a scenario at the replicas behind `clients`, at a product made for it, and judges what it left.
pub async fn fire(
    clients: &[Client],
    scenario: &Scenario,
    progress: &Arc<Progress>,
    faults: FaultSource<'_, '_>,
) -> anyhow::Result<RunReport> {
    let info = one_configuration(clients).await?;
    let sku = format!("{OWN}{}", Uuid::new_v4());
    create_product(clients, &sku, scenario.stock).await?;
    let mut before = metrics(clients).await;
    let lease = info.lease_ms.map(Duration::from_millis);
    let firing = runner::run(clients, &sku, scenario, progress);
    let (mut marks, mut spans, mut holds) = (Vec::new(), Vec::new(), Vec::new());
    let (mut killed_unread, mut crashed) = (0, None::<Vec<String>>);
    let mut broken = FaultEvidence::None;
    let record = match faults {
        FaultSource::None => firing.await,
        FaultSource::Elsewhere => {
            broken = FaultEvidence::Unknown;
            firing.await
        }
        FaultSource::Declared(declared) => {
            broken = FaultEvidence::Known { broken: declared, missed: Vec::new() };
            firing.await
        }
        FaultSource::SlowClients => {
            let mut slow_clients = JoinSet::new();
            clients.iter().for_each(|client| send_slowly(client, &mut slow_clients));
            firing.await
        }
        FaultSource::Injected(injector) => {
            let record = injector.during(&sku, lease, firing).await?;
            marks = injector.marks();
            broken = FaultEvidence::Known {
                broken: marks.iter().map(FaultMark::broken).collect(),
                // What a stopped run has not come to is not held against it.
                missed: injector.missed(progress.stop().is_cancelled()),
            };
            for incarnation in injector.incarnations() {
                // The next one counts from nothing.
                spans.push((std::mem::take(&mut before[incarnation.replica]), incarnation.metrics.clone()));
                killed_unread += usize::from(incarnation.holds.is_none());
                holds.extend(incarnation.holds.clone());
            }
            crashed = Some(injector.crashed().to_vec());
            record
        }
    };
    let seconds = record.took.as_secs_f64();
    let generator_seconds = record.processor_time.as_secs_f64();
    let circumstances = Circumstances {
        sku: sku.clone(),
        initial_stock: scenario.stock,
        timeout: scenario.timeout,
        lease,
        faults: broken,
        of_killed: holds,
        killed_unread,
        payment_window: info.payment_window_ms.map(Duration::from_millis),
    };
    let evidence = collector::collect(clients, circumstances, record).await;
    spans.extend(before.into_iter().zip(metrics(clients).await));
    let lock = LockFigures::between(&spans);
    let mut report = RunReport::new(scenario, clients.len(), &info, &evidence, lock, seconds);
    report.sku = sku;
    report.generator_seconds = generator_seconds;
    report.faults = marks;
    report.stopped = progress.stop().is_cancelled();
    report.series = Some(Series::of(&evidence, seconds));
    if let Some(crashed) = crashed {
        report.add(survived(&crashed));
    }
    Ok(report)
}

/// Takes the orders and the stock of a product away that was made for a run. The product itself stays, empty:
/// the service forgets none. Refuses one of any other name.
pub async fn clean(client: &Client, sku: &str) -> anyhow::Result<()> {
    let is_own = sku.strip_prefix(OWN).is_some_and(|rest| Uuid::try_parse(rest).is_ok());
    ensure!(is_own, Refused(format!("{sku} is no product that was made for a run ({OWN}UUID)")));
    client.product(sku).await.with_context(|| format!("there is no product {sku} to clean"))?;
    let emptied = client.empty_product(sku, NAME).await;
    emptied.with_context(|| format!("cannot clean {sku}, which takes admin.allow_reset")).map(drop)
}

/// Refuses to promise that the products of runs are cleaned where the service does not allow it.
pub async fn may_clean(client: &Client) -> anyhow::Result<()> {
    let may_reset = client.info().await?.allow_reset;
    ensure!(
        may_reset,
        Refused(format!("{} has admin.allow_reset = false: it takes no orders away", client.base()))
    );
    Ok(())
}

/// Whether all replicas lived, but for those that were killed, and stopped when they were asked to.
pub fn survived(crashed: &[String]) -> Check {
    let (status, detail) = match crashed.is_empty() {
        true => (Status::Pass, "no replica ended or fell silent by itself".into()),
        false => (Status::Fail, crashed.join("\n")),
    };
    Check { name: CheckName::ReplicasSurvived, status, detail }
}

/// Makes a product on the first replica, and sees to it that all the others sell the same one.
async fn create_product(clients: &[Client], sku: &str, stock: i64) -> anyhow::Result<()> {
    clients[0]
        .create_product(sku, NAME, stock)
        .await
        .context("cannot make a product to sell; the load generator needs the service's admin.token")?;
    for client in clients {
        let seen = client.product(sku).await;
        let same = seen.as_ref().is_ok_and(|product| product.stock == stock && product.version == 0);
        let what = seen.map_or_else(|error| error.to_string(), |product| format!("{product:?}"));
        ensure!(
            same,
            Refused(format!(
                "{} and {} do not share a store: what was made on the first is not on the second ({what})",
                clients[0].base(),
                client.base()
            ))
        );
    }
    Ok(())
}

/// What each replica has counted; empty for one that does not answer: what a dead one counted died with it.
async fn metrics(clients: &[Client]) -> Vec<String> {
    let mut metrics = Vec::new();
    for client in clients {
        metrics.push(client.metrics().await.unwrap_or_default());
    }
    metrics
}

/// The replicas must be of one configuration, or the verdict would be on none.
async fn one_configuration(clients: &[Client]) -> anyhow::Result<Info> {
    let mut infos = Vec::new();
    for client in clients {
        infos.push(client.info().await?);
    }
    let first = infos.first().context("there is no replica to fire at")?;
    for (client, info) in clients.iter().zip(&infos) {
        let alike = Info { replica: first.replica.clone(), ..info.clone() };
        ensure!(
            alike == *first,
            Refused(format!(
                "{} and {} are not of one configuration: {first:?} and {info:?}",
                clients[0].base(),
                client.base()
            ))
        );
    }
    Ok(first.clone())
}
