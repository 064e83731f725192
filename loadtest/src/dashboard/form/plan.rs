//! The plan that a form makes, or what is wrong with which field.

use std::time::Duration;

use lab::ServerKind;
use order_service::config::GuardRule;

use super::values::{self, number, odd, optional, quantity, rate, share, time, top_up};
use super::{Form, Mistakes};
use crate::compare::{Length, Plan, setting};
use crate::faults::Schedule;
use crate::fleet::StoreKind;
use crate::scenario::Scenario;

impl Form {
    /// The plan that the form makes.
    pub(in crate::dashboard) fn plan(&self) -> Result<Plan, Mistakes> {
        let mut reader = Reader { form: self, mistakes: Mistakes::new() };
        let overrides = reader.overrides();
        let faults = reader.read("faults", Schedule::default(), |text| {
            Ok(optional(text, |text| Schedule::parse(&[text.into()]))?.unwrap_or_default())
        });
        let scenario = reader.scenario(&faults, &overrides);
        let plan = Plan {
            strategies: self.strategies.clone(),
            store: reader.read("store", StoreKind::Sqlite, store),
            replicas: reader.read("replicas", 1, |text| number(text, 1..=64)),
            redis_servers: reader.read("redis-servers", 1, odd),
            repeat: reader.read("repeat", 1, |text| number(text, 1..=100)),
            scenario,
            overrides,
            faults,
            control: reader.read("control", true, |text| match text {
                "" => Ok(true),
                "off" => Ok(false),
                _ => Err("must be off, or empty".into()),
            }),
        };
        if self.strategies.is_empty() {
            reader.mistakes.insert("strategy", "choose at least one".into());
        }
        if reader.mistakes.is_empty() { Ok(plan) } else { Err(reader.mistakes) }
    }

    fn guard(&self, text: &str) -> Result<&'static str, String> {
        let bound = |rule| self.strategies.iter().find(|strategy| strategy.guard_rule() == rule);
        match text {
            "" => Ok(""),
            "version" => match bound(GuardRule::Without) {
                Some(strategy) => Err(format!("{strategy} is always without a guard")),
                None => Ok("version"),
            },
            "off" => match bound(GuardRule::Always) {
                Some(strategy) => Err(format!("{strategy} is the guard")),
                None => Ok("off"),
            },
            _ => Err("must be version or off".into()),
        }
    }
}

fn store(text: &str) -> Result<StoreKind, String> {
    let named = StoreKind::ALL.into_iter().find(|store| store.as_str() == text);
    let store =
        named.ok_or_else(|| format!("must be {}", StoreKind::ALL.map(StoreKind::as_str).join(" or ")))?;
    match store.server().and_then(ServerKind::missing) {
        Some(missing) => Err(missing),
        None => Ok(store),
    }
}

/// Reads fields and notes what is wrong with them.
struct Reader<'a> {
    form: &'a Form,
    mistakes: Mistakes,
}

impl<'a> Reader<'a> {
    fn read<T>(
        &mut self,
        name: &'static str,
        otherwise: T,
        parse: impl Fn(&'a str) -> Result<T, String>,
    ) -> T {
        parse(self.form.value(name)).unwrap_or_else(|mistake| {
            self.mistakes.insert(name, mistake);
            otherwise
        })
    }

    fn scenario(&mut self, faults: &Schedule, overrides: &[(String, String)]) -> Scenario {
        let orders = self.read("orders", None, |text| optional(text, |text| number(text, 1..=10_000_000)));
        let duration = self.read("duration", None, |text| optional(text, values::duration));
        if orders.is_some() && duration.is_some() {
            self.mistakes.insert("duration", "either orders or a duration: empty one of them".into());
        }
        let top_up = self.read("top-up", None, |text| optional(text, top_up));
        let length = Length { orders, duration, top_up, stock_is_given: true };
        let (amount, topped_up) = length.with(faults, Plan::lease(overrides));
        Scenario {
            buyers: self.read("buyers", 1, |text| number(text, 1..=10_000)),
            amount,
            topped_up,
            rate: self.read("rate", None, |text| optional(text, rate)),
            stock: self.read("stock", 0, |text| number(text, 0..=1_000_000_000)),
            quantity: self.read("quantity", 1..=1, quantity),
            replays: self.read("replays", 0.0, share),
            twins: self.read("twins", 0.0, share),
            cancels: self.read("cancels", 0.0, share),
            payers: self.read("payers", 0.0, share),
            pay_within: self.read("pay-within", Duration::ZERO, time),
            restocks: self.read("restocks", 0.0, share),
            reads: self.read("reads", 0.0, share),
            timeout: self.read("timeout", Duration::ZERO, values::duration),
            seed: self.read("seed", 1, |text| text.parse().map_err(|_| "must be a whole number".into())),
        }
    }

    /// What the service is told besides: the last word of a key counts.
    fn overrides(&mut self) -> Vec<(String, String)> {
        let mut overrides = self.read("set", Vec::new(), |text| {
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(setting).collect()
        });
        let batch = self.read("batch", None, |text| optional(text, |text| number(text, 1..=10_000)));
        overrides.extend(batch.map(|batch: u64| ("checkout.max_batch".to_owned(), batch.to_string())));
        let form = self.form;
        let guard = self.read("guard", "", |text| form.guard(text));
        if !guard.is_empty() {
            overrides.push(("checkout.guard".into(), guard.into()));
        }
        overrides
    }
}
