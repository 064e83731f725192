//! What is bought, by how many, and what that asks of the shop.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::buyer::Door;
use super::description::Description;
use super::owner::Owner;
use super::template::Variables;

/// How buyers come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// Closed loop: so many at the same time, each with the next purchase when the last one is over.
    Buyers(usize),
    /// Open loop: so many purchases begin in each second, whoever is still waiting.
    Rate(f64),
}

impl Arrival {
    /// One buyer after the other.
    pub const ALONE: Self = Self::Buyers(1);
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buyers(1) => f.pad("1 at a time"),
            Self::Buyers(buyers) => f.pad(&format!("{buyers} at once")),
            Self::Rate(rate) => f.pad(&format!("{rate}/s")),
        }
    }
}

/// How many buy at the same time where nothing else is asked for.
pub const RUNGS: [usize; 4] = [4, 8, 20, 40];

/// What one may ask for; what is left open gets what is usual.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// Buyers at the same time, in one run after the other.
    pub rungs: Vec<usize>,
    /// Purchases per second, instead of those.
    pub rate: Option<f64>,
    /// How often each.
    pub repeat: usize,
    /// Purchases in each run.
    pub purchases: Option<u64>,
    /// How long purchases begin, with a rate.
    pub duration: Option<Duration>,
    /// Units in stock.
    pub stock: Option<i64>,
    /// Units in each purchase.
    pub quantity: i64,
    /// The share of purchases whose last step is sent again.
    pub replays: Option<f64>,
    /// The share of those whose last step is sent twice at the same time.
    pub twins: Option<f64>,
    /// Whether buyers wait for each other before the last step.
    pub rendezvous: bool,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How long the shop's record may take to come to rest.
    pub settle: Duration,
    /// Hosts that are not this machine, and at which orders may be made.
    pub owned_hosts: Vec<String>,
}

/// How long an answer is waited for where nothing else is asked for.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the shop's record may take to come to rest where nothing else is asked for.
pub const SETTLE: Duration = Duration::from_secs(15);

/// How many requests are made without being asked for.
pub const MAX_REQUESTS: usize = 20_000;

/// Units in stock where no number is given.
const STOCK: i64 = 10;

/// How many times the stock is wanted, where no number of purchases is given.
const WANTED: i64 = 4;

/// The share of purchases whose last step is sent again, and of those that do so at once.
const RESENT: f64 = 0.2;

/// Most buyers at the same time, units or purchases.
const MOST: usize = 10_000;

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            rungs: RUNGS.to_vec(),
            rate: None,
            repeat: 1,
            purchases: None,
            duration: None,
            stock: None,
            quantity: 1,
            replays: None,
            twins: None,
            rendezvous: false,
            timeout: TIMEOUT,
            settle: SETTLE,
            owned_hosts: Vec::new(),
        }
    }
}

/// What is bought, by how many.
#[derive(Debug, Clone)]
pub struct Load {
    /// How buyers come, in one run after the other. A control of one buyer after the other comes first.
    pub arrivals: Vec<Arrival>,
    /// How often each.
    pub repeat: usize,
    /// Purchases in each run.
    pub purchases: usize,
    /// Units that the set-up puts in stock.
    pub stock: i64,
    /// Units in each purchase.
    pub quantity: i64,
    /// The share of purchases whose last step is sent again when it has been confirmed, if the description
    /// says that it may be.
    pub replays: f64,
    /// The share of those whose last step is sent twice at the same time.
    pub twins: f64,
    /// Whether buyers wait for each other before the last step.
    pub rendezvous: bool,
    /// How long an answer is waited for, and where orders may be made.
    pub door: Door,
    /// How long the shop's record may take to come to rest.
    pub settle: Duration,
}

impl Load {
    /// The load that was asked for, or what is wrong with it.
    pub fn of(options: LoadOptions) -> anyhow::Result<Self> {
        let quantity = options.quantity;
        ensure!(quantity >= 1, "quantity: must be 1 at least");
        let stock = options.stock.unwrap_or(STOCK);
        ensure!(stock >= quantity, "stock: must be enough for one purchase");
        ensure!((1..=1_000).contains(&options.repeat), "repeat: must be from 1 to 1000");
        let purchases = match (options.purchases, options.duration, options.rate) {
            (Some(purchases), ..) => purchases,
            (None, Some(duration), Some(rate)) => (duration.as_secs_f64() * rate).ceil() as u64,
            (None, Some(_), None) => bail!("duration: only with a rate, where a shop is described"),
            (None, None, _) => (stock * WANTED / quantity).unsigned_abs(),
        };
        let fits = |buyers: &usize| (2..=MOST).contains(buyers);
        ensure!(
            options.rungs.iter().all(fits) && !options.rungs.is_empty(),
            "rungs: must be from 2 to {MOST}; one buyer after the other comes first in any case"
        );
        let arrivals = match options.rate {
            Some(rate) => vec![Arrival::Rate(rate)],
            None => options.rungs.iter().map(|buyers| Arrival::Buyers(*buyers)).collect(),
        };
        Ok(Self {
            arrivals,
            repeat: options.repeat,
            purchases: usize::try_from(purchases)?,
            stock,
            quantity,
            replays: options.replays.unwrap_or(RESENT),
            twins: options.twins.unwrap_or(RESENT),
            rendezvous: options.rendezvous,
            door: Door::new(options.timeout, Owner::of(options.owned_hosts)),
            settle: options.settle,
        })
    }

    /// The command that fires the same.
    pub fn command_line(&self, file: &str) -> String {
        let usual = LoadOptions::default();
        let mut line =
            format!("loadtest run --target-file {file} --stock {} --orders {}", self.stock, self.purchases);
        let rungs: Vec<_> = self
            .arrivals
            .iter()
            .filter_map(|arrival| match arrival {
                Arrival::Buyers(buyers) => Some(buyers.to_string()),
                Arrival::Rate(rate) => {
                    line += &format!(" --rate {rate}");
                    None
                }
            })
            .collect();
        if !rungs.is_empty() {
            line += &format!(" --rungs {}", rungs.join(","));
        }
        let mut unless = |is_usual: bool, text: String| {
            if !is_usual {
                line += &text;
            }
        };
        unless(self.quantity == usual.quantity, format!(" --quantity {}", self.quantity));
        unless(self.repeat == usual.repeat, format!(" --repeat {}", self.repeat));
        unless(self.replays == RESENT, format!(" --replays {}", self.replays));
        unless(self.twins == RESENT, format!(" --twins {}", self.twins));
        unless(!self.rendezvous, " --rendezvous".into());
        let time = humantime::format_duration;
        unless(self.door.timeout == TIMEOUT, format!(" --timeout {}", time(self.door.timeout)));
        unless(self.settle == SETTLE, format!(" --settle {}", time(self.settle)));
        for host in self.door.owner.hosts() {
            unless(false, format!(" --i-own-this-target {host}"));
        }
        line
    }

    /// How many runs there are, with the control.
    pub fn runs(&self) -> usize {
        1 + self.arrivals.len() * self.repeat
    }

    /// How many purchases there may be in all, with the four of the rehearsal.
    pub fn all_purchases(&self) -> usize {
        4 + self.purchases * self.runs()
    }

    /// How many requests all purchases may take.
    pub fn requests(&self, shop: &Description) -> usize {
        let of_one =
            shop.purchase.len() + usize::from(shop.is_idempotent() && self.replays + self.twins > 0.0);
        self.all_purchases() * of_one + (2 + self.runs()) * shop.setup.len()
    }

    /// Refuses a load on somebody else's shop, and one of more requests than `most`.
    pub fn check(&self, shop: &Description, most: usize) -> anyhow::Result<()> {
        for target in &shop.targets {
            let url = target.parse().with_context(|| format!("targets: {target:?}"))?;
            self.door.owner.check(&url).with_context(|| format!("targets: {target}"))?;
        }
        let requests = self.requests(shop);
        ensure!(
            requests <= most,
            "up to {requests} requests would be made, and {most} are allowed: say --max-requests \
             {requests}, or \
             fewer purchases"
        );
        Ok(())
    }

    /// What will be done to the shop, for the one who asked.
    pub fn announcement(&self, shop: &Description) -> String {
        let mut text = format!(
            "{} at {}: up to {} purchases of {} (up to {} requests) will be made there, in {} runs.",
            shop.name,
            shop.targets.join(", "),
            self.all_purchases(),
            if self.quantity == 1 { "1 unit".into() } else { format!("{} units", self.quantity) },
            self.requests(shop),
            self.runs(),
        );
        let statements = shop.setup.iter().filter_map(|step| Some((step.title(), step.sql.as_ref()?)));
        let written: Vec<_> = statements
            .map(|(title, sql)| {
                let statement = sql.statement.split_whitespace().collect::<Vec<_>>().join(" ");
                format!("\n  {title}: {}", statement.replace("{{stock}}", &self.stock.to_string()))
            })
            .collect();
        if !written.is_empty() {
            text += "\nBefore each run its database is changed:";
            text += &written.concat();
        }
        text
    }

    /// The variables of one buyer.
    pub(super) fn of_buyer(run: &str, number: usize) -> [(&'static str, Value); 2] {
        [("buyer", json!(format!("{run}-{number}"))), ("key", json!(Uuid::new_v4().to_string()))]
    }

    /// What all of a run know.
    pub(super) fn variables(&self, shop: &Description, run: &str) -> anyhow::Result<Variables> {
        let mut variables = Variables::new();
        variables.set("stock", json!(self.stock));
        variables.set("quantity", json!(self.quantity));
        for (name, value) in Self::of_buyer(run, 0) {
            variables.set(name, value);
        }
        for (name, text) in &shop.variables {
            let value = variables.fill(text).with_context(|| format!("variables.{name}"))?;
            variables.set(name, Value::String(value));
        }
        Ok(variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_gets_what_is_usual_and_what_cannot_be_is_named() {
        let load = Load::of(LoadOptions { stock: Some(20), quantity: 2, ..LoadOptions::default() }).unwrap();
        assert_eq!((load.purchases, load.arrivals.len(), load.runs()), (40, 4, 5));
        let open = LoadOptions {
            rate: Some(50.0),
            duration: Some(Duration::from_secs(3)),
            ..LoadOptions::default()
        };
        assert_eq!(Load::of(open).unwrap().purchases, 150);
        let wrong = |change: fn(&mut LoadOptions)| {
            let mut options = LoadOptions::default();
            change(&mut options);
            Load::of(options).expect_err("it cannot be").to_string()
        };
        for (said, name) in [
            (wrong(|options| options.quantity = 0), "quantity"),
            (wrong(|options| options.stock = Some(0)), "stock"),
            (wrong(|options| options.repeat = 0), "repeat"),
            (wrong(|options| options.rungs = vec![1]), "rungs"),
            (wrong(|options| options.rungs = Vec::new()), "rungs"),
            (wrong(|options| options.duration = Some(SETTLE)), "duration"),
        ] {
            assert!(said.starts_with(name), "{said}");
        }
    }

    #[test]
    fn a_command_line_is_of_the_same_load() {
        let options = LoadOptions {
            rungs: vec![5, 50],
            stock: Some(7),
            purchases: Some(30),
            rendezvous: true,
            timeout: Duration::from_secs(3),
            owned_hosts: vec!["shop.example".into()],
            ..LoadOptions::default()
        };
        assert_eq!(
            Load::of(options).unwrap().command_line("shop.toml"),
            "loadtest run --target-file shop.toml --stock 7 --orders 30 --rungs 5,50 --rendezvous \
             --timeout 3s \
             --i-own-this-target shop.example"
        );
    }
}
