//! Throughput: what is measured in turn with what.

use std::time::Duration;

use order_service::config::StrategyName::{self, Database, Optimistic, Redis, Zookeeper};

use super::catalogue::Demand;
use super::report::GroupReport;
use super::row::{Bar, Row};
use super::testbed::{Deployment, Load, Testbed};
use super::{Plan, note};

/// How many products an ordinary shop has.
const SHOP: u32 = 1_000;

/// How many products a large one has, whose customers prefer some.
const LARGE_SHOP: u32 = 10_000;

/// How many connections make a service work as hard as it can.
const CONNECTIONS: u32 = 256;

/// A load, measured in turn with another.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// The row's name.
    pub(super) name: String,
    /// What the other is, in words.
    pub(super) beside: &'static str,
    /// What is measured.
    pub(super) load: Load,
    /// What it is compared with.
    pub(super) reference: Load,
    /// What is enough, for the ratio of the two.
    pub(super) bar: Option<Bar>,
}

/// Cases whose loads take turns. Each such set has a testbed of its own.
pub(super) type Set = Vec<Case>;

/// One client, and textbook mode: the path of one order, with a lock hold and a commit of its own.
pub(super) fn one_client() -> Vec<Set> {
    let strategies = [(Optimistic, 0.6), (Redis, 0.5), (Database, 0.4)];
    let one = |strategy| orders(Deployment::of(strategy), 1, Demand::One);
    let alone = strategies.map(|(strategy, enough)| Case {
        name: format!("one-client/{strategy}"),
        beside: "pgbench -c 1",
        load: one(strategy),
        reference: Load::Pgbench { clients: 1, products: 1 },
        bar: Bar::at_least(enough),
    });
    let textbook = strategies.map(|(strategy, enough)| Case {
        name: format!("one-client/{strategy}-textbook"),
        beside: "pgbench -c 1",
        load: orders(Deployment { textbook: true, ..Deployment::of(strategy) }, 64, Demand::One),
        reference: Load::Pgbench { clients: 1, products: 1 },
        bar: Bar::at_least(enough),
    });
    vec![alone.into_iter().chain(textbook).collect()]
}

/// One product that everybody wants.
pub(super) fn hot() -> Vec<Set> {
    let probes = Load::Probes { deployment: Deployment::of(Database), connections: CONNECTIONS };
    let pgbench = Load::Pgbench { clients: 64, products: 1 };
    let strategies = [Redis, Database, Zookeeper];
    let load = |strategy| orders(Deployment::of(strategy), CONNECTIONS, Demand::One);
    let against_sql = strategies.map(|strategy| Case {
        name: format!("hot/{strategy}"),
        beside: "pgbench -c 64 on one row",
        load: load(strategy),
        reference: pgbench,
        bar: Bar::at_least_or_stretch(15.0, 20.0),
    });
    let against_nothing = strategies.map(|strategy| Case {
        name: format!("hot/{strategy}-livez"),
        beside: "requests that do nothing (/livez)",
        load: load(strategy),
        reference: probes,
        bar: Bar::at_least_or_stretch(0.45, 0.5),
    });
    vec![against_sql.into_iter().chain(against_nothing).collect()]
}

/// Many products: uniformly, and some more than others.
pub(super) fn catalogue() -> Vec<Set> {
    let strategies = [(Redis, 1.0, 2.0), (Database, 1.0, 2.0), (Optimistic, 1.0, 2.0), (Zookeeper, 0.4, 0.4)];
    let ordered = |strategy, demand| orders(Deployment::of(strategy), CONNECTIONS, demand);
    let uniform = strategies.map(|(strategy, enough, stretch)| Case {
        name: format!("catalogue/{strategy}"),
        beside: "pgbench -c 64, uniformly over 1,000 rows",
        load: ordered(strategy, Demand::Uniform(SHOP)),
        reference: Load::Pgbench { clients: 64, products: SHOP },
        bar: if stretch > enough { Bar::at_least_or_stretch(enough, stretch) } else { Bar::at_least(enough) },
    });
    let zipf = strategies.map(|(strategy, ..)| Case {
        name: format!("catalogue/{strategy}-zipf"),
        beside: "one hot product (10,000 products, Zipf)",
        load: ordered(strategy, Demand::Zipf(LARGE_SHOP)),
        reference: ordered(strategy, Demand::One),
        bar: Bar::at_least(0.5),
    });
    vec![uniform.into_iter().chain(zipf).collect()]
}

/// Four replicas, and one: with the same connections between them, and with as many for each as the one has.
pub(super) fn replicas() -> Vec<Set> {
    let demands = [("hot", Demand::One), ("catalogue", Demand::Uniform(SHOP))];
    let connections = [
        ("", "one replica (four replicas, 64 connections each)", CONNECTIONS / 4),
        ("-each", "one replica (four replicas, 256 connections each)", CONNECTIONS),
    ];
    let set = |strategy: StrategyName| {
        let bar = if strategy == Optimistic { None } else { Bar::at_least(0.85) };
        let case = |(name, demand), (suffix, beside, connections)| Case {
            name: format!("replicas/{strategy}-{name}{suffix}"),
            beside,
            load: orders(Deployment { replicas: 4, ..Deployment::of(strategy) }, connections, demand),
            reference: orders(Deployment::of(strategy), CONNECTIONS, demand),
            bar,
        };
        demands.iter().flat_map(|demand| connections.map(|connections| case(*demand, connections))).collect()
    };
    [Redis, Database, Zookeeper, Optimistic].map(set).to_vec()
}

fn orders(deployment: Deployment, connections: u32, demand: Demand) -> Load {
    Load::Orders { deployment, connections, demand }
}

/// Measures a set: in each round every load once, so that whatever else the machine does falls on all.
pub(super) async fn measure(set: &Set, plan: &Plan, report: &mut GroupReport) -> anyhow::Result<()> {
    let loads = distinct(set);
    let mut testbed = Testbed::start(&loads).await?;
    let mut figures = vec![Vec::new(); loads.len()];
    for round in 1..=plan.rounds {
        for (load, figures) in loads.iter().zip(&mut figures) {
            let (figure, violations) = testbed.measure(*load, Duration::from_secs(plan.seconds)).await?;
            note(round, plan, &format!("{load}: {figure:.0}/s"));
            figures.push(figure);
            report.violations.extend(violations);
        }
    }
    testbed.stop().await?;
    let of = |wanted| &figures[loads.iter().position(|load| *load == wanted).expect("all were measured")];
    report.rows.extend(set.iter().map(|case| {
        let (load, reference) = (of(case.load), of(case.reference));
        Row::of_pairs(&case.name, case.beside, "orders/s", load, reference, case.bar)
    }));
    Ok(())
}

/// The loads of a set, each once, those that are compared next to each other.
fn distinct(set: &Set) -> Vec<Load> {
    let mut loads = Vec::new();
    for load in set.iter().flat_map(|case| [case.reference, case.load]) {
        if !loads.contains(&load) {
            loads.push(load);
        }
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_rows_are_compared_with_is_measured_once_a_round() {
        let [set] = &hot()[..] else { panic!("the hot product is one set") };
        let loads = distinct(set);
        assert_eq!((set.len(), loads.len()), (6, 5), "{loads:?}");
        assert_eq!(loads[0], Load::Pgbench { clients: 64, products: 1 });
    }
}
