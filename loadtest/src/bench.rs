//! The speed of it all, in ratios: every measurement takes turns with what it is compared with, on real
//! servers, in one run. This is the only place where speed is asserted.
//!
//! | module | what it does |
//! |---|---|
//! | `throughput` | one client, one or many products, several replicas: the cases, measured in turn |
//! | `overload` | what is left when more is offered than can be done |
//! | `clients` | what those who keep connections and order nothing cost those who order |
//! | `generator` | what a request costs our own load generator |
//! | `memory` | the most memory that a replica ever had |
//! | `verdicts` | the full verdict on each strategy |
//! | `testbed` | the servers and deployments that a set of cases needs |
//! | `catalogue` | products to sell, and their audit afterwards |
//! | `wrk`, `pgbench`, `ours` | the kinds of load |
//! | `peers` | the programs that all this needs |
//! | `row`, `report`, `table` | what comes out, and what people read |

mod catalogue;
mod clients;
mod generator;
mod memory;
mod ours;
mod overload;
mod peers;
mod pgbench;
mod report;
mod row;
mod table;
mod testbed;
mod throughput;
mod verdicts;
mod wrk;

use std::collections::BTreeSet;

use lab::ServerKind;

use self::peers::Need;
use self::throughput::Set;

pub use report::{GroupReport, Report};
pub use row::{Bar, Row};
pub use table::{markdown, terminal};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How often everything is measured, in turn.
    pub rounds: u32,
    /// How long each measurement is, in seconds.
    pub seconds: u64,
    /// The names of the rows or groups to measure; all, where there is none.
    pub only: Vec<String>,
}

/// Rows that are about the same.
struct Group {
    name: &'static str,
    about: &'static str,
    needs: &'static [Need],
    work: Work,
}

/// How a group is measured.
enum Work {
    /// Sets of loads that take turns.
    Throughput(Vec<Set>),
    Overload,
    Clients,
    Generator,
    Memory,
    Verdicts,
}

fn groups() -> [Group; 9] {
    use Need::{Oha, Pgbench, Wrk};
    const POSTGRES: Need = Need::Server(ServerKind::Postgres);
    const REDIS: Need = Need::Server(ServerKind::Redis);
    const ZOOKEEPER: Need = Need::Server(ServerKind::Zookeeper);
    [
        Group {
            name: "one-client",
            about: "One connection orders one product; textbook mode has 64 connections, and one order per \
                lock hold.",
            needs: &[POSTGRES, Pgbench, REDIS, Wrk],
            work: Work::Throughput(throughput::one_client()),
        },
        Group {
            name: "hot",
            about: "256 connections order one product.",
            needs: &[POSTGRES, Pgbench, REDIS, ZOOKEEPER, Wrk],
            work: Work::Throughput(throughput::hot()),
        },
        Group {
            name: "catalogue",
            about: "256 connections order 1,000 products uniformly, or 10,000 of which some are preferred.",
            needs: &[POSTGRES, Pgbench, REDIS, ZOOKEEPER, Wrk],
            work: Work::Throughput(throughput::catalogue()),
        },
        Group {
            name: "replicas",
            about: "256 connections to four replicas, and to one; one hot product, and 1,000 products \
                uniformly.",
            needs: &[POSTGRES, Pgbench, REDIS, ZOOKEEPER, Wrk],
            work: Work::Throughput(throughput::replicas()),
        },
        Group {
            name: "overload",
            about: "Three and ten times the capacity are offered in an open loop, behind a slow network: \
                    Redis answers 10 ms later, in textbook mode, or PostgreSQL 20 ms. Then, with three times \
                    the capacity, from 2 s after another holder had the lock for 3 s.",
            needs: &[POSTGRES, REDIS],
            work: Work::Overload,
        },
        Group {
            name: "clients",
            about: "500 orders/s in an open loop, beside 200 idle connections, 200 on which a head comes \
                byte by byte, and 20 on which pages of orders are asked for and not read.",
            needs: &[POSTGRES, REDIS],
            work: Work::Clients,
        },
        Group {
            name: "generator",
            about: "Processor time for each request of 64 connections in a closed loop, on one replica.",
            needs: &[POSTGRES, REDIS, Oha],
            work: Work::Generator,
        },
        Group {
            name: "memory",
            about: "The most memory of a replica that takes the orders of 256 connections, for one product, \
                    1,000 and 10,000.",
            needs: &[POSTGRES, Pgbench, REDIS, Wrk],
            work: Work::Memory,
        },
        Group {
            name: "verdict",
            about: "4,000 orders for 2,000 units, on two replicas; the same load without a lock must \
                oversell.",
            needs: &[POSTGRES, REDIS, ZOOKEEPER],
            work: Work::Verdicts,
        },
    ]
}

impl Group {
    /// The names of all rows.
    fn rows(&self) -> Vec<String> {
        match &self.work {
            Work::Throughput(sets) => sets.iter().flatten().map(|case| case.name.clone()).collect(),
            Work::Overload => overload::rows(),
            Work::Clients => clients::rows(),
            Work::Generator => generator::rows(),
            Work::Memory => memory::rows(),
            Work::Verdicts => verdicts::rows(),
        }
    }

    /// Measures the rows that are wanted. What fails is in the report.
    async fn measure(&self, plan: &Plan) -> GroupReport {
        eprintln!("{}", self.name);
        let mut report = GroupReport::new(self.name, self.about);
        let measured = match &self.work {
            Work::Throughput(sets) => measure_sets(sets, plan, &mut report).await,
            Work::Overload => overload::measure(plan, &mut report).await,
            Work::Clients => clients::measure(plan, &mut report).await,
            Work::Generator => generator::measure(plan, &mut report).await,
            Work::Memory => memory::measure(plan, &mut report).await,
            Work::Verdicts => verdicts::measure(plan, &mut report).await,
        };
        if let Err(error) = measured {
            report.not_measured.push(format!("{error:#}"));
        }
        report.rows.retain(|row| plan.wants(&row.name));
        report
    }
}

async fn measure_sets(sets: &[Set], plan: &Plan, report: &mut GroupReport) -> anyhow::Result<()> {
    for set in sets {
        let wanted: Set = set.iter().filter(|case| plan.wants(&case.name)).cloned().collect();
        if !wanted.is_empty() {
            throughput::measure(&wanted, plan, report).await?;
        }
    }
    Ok(())
}

impl Plan {
    /// Whether a row is to be measured.
    fn wants(&self, row: &str) -> bool {
        let group = row.split('/').next().unwrap_or_default();
        self.only.is_empty() || self.only.iter().any(|name| name == row || name == group)
    }

    /// The groups of which anything is to be measured.
    fn groups(&self) -> Vec<Group> {
        groups().into_iter().filter(|group| group.rows().iter().any(|row| self.wants(row))).collect()
    }

    /// What is not installed of what the plan needs, each with the command that installs it.
    pub fn missing(&self) -> Vec<String> {
        let needs: BTreeSet<_> = self.groups().iter().flat_map(|group| group.needs).copied().collect();
        needs.into_iter().filter_map(Need::missing).collect()
    }
}

/// Whether there is a row or a group of this name; otherwise an error that lists the groups.
pub fn check_name(name: &str) -> Result<(), String> {
    let groups = groups();
    let is_known = |group: &Group| group.name == name || group.rows().iter().any(|row| row == name);
    if groups.iter().any(is_known) {
        return Ok(());
    }
    let names = groups.map(|group| group.name).join(", ");
    Err(format!("no row or group {name:?}; there are {names}, and rows such as hot/redis"))
}

/// Measures everything that the plan wants. Nothing may be [missing](Plan::missing).
pub async fn run(plan: &Plan) -> Report {
    let mut groups = Vec::new();
    for group in plan.groups() {
        groups.push(group.measure(plan).await);
    }
    Report::new(plan.rounds, plan.seconds, groups)
}

/// Tells whoever waits how far it has come.
fn note(round: u32, plan: &Plan, what: &str) {
    eprintln!("  {round} of {}: {what}", plan.rounds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_in_its_group() {
        let names: Vec<_> = groups().iter().flat_map(Group::rows).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        for group in groups() {
            assert!(group.rows().iter().all(|row| row.starts_with(&format!("{}/", group.name))));
        }
    }

    #[test]
    fn a_plan_wants_rows_and_whole_groups() {
        let only = vec!["hot/redis".into(), "memory".into()];
        let plan = Plan { rounds: 1, seconds: 1, only };
        assert!(plan.wants("hot/redis") && plan.wants("memory/redis-hot"));
        assert!(!plan.wants("hot/redis-livez") && !plan.wants("replicas/redis-hot"));
        let groups: Vec<_> = plan.groups().iter().map(|group| group.name).collect();
        assert_eq!(groups, ["hot", "memory"]);
        assert!(check_name("hot/redis").is_ok() && check_name("hot").is_ok() && check_name("cold").is_err());
    }
}
