//! What a person can choose, and the plan that it makes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use lab::ServerKind;
use order_service::config::{GuardRule, StrategyName};
use order_service::order::MAX_QUANTITY;

use crate::compare::{Length, Plan};
use crate::faults::Schedule;
use crate::fleet::{LEASE, StoreKind};
use crate::scenario::Scenario;

/// How long a run may be that a page starts.
const LONGEST: Duration = Duration::from_secs(3600);

/// The fields of the form, strategies left out, with what they are at first.
const FIELDS: [(&str, &str); 13] = [
    ("store", "sqlite"),
    ("replicas", "3"),
    ("stock", "2000"),
    ("buyers", "64"),
    ("orders", ""),
    ("duration", ""),
    ("rate", ""),
    ("quantity", "1"),
    ("batch", ""),
    ("guard", ""),
    ("control", ""),
    ("faults", ""),
    ("seed", "1"),
];

/// The form as it was filled in, well or badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    /// The strategies that are ticked.
    pub(super) strategies: Vec<StrategyName>,
    values: BTreeMap<&'static str, String>,
}

/// What is wrong with which field; `strategy` stands for the choice of strategies.
pub(super) type Mistakes = BTreeMap<&'static str, String>;

impl Default for Form {
    fn default() -> Self {
        let values = FIELDS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        // First that one can be wrong; the rest is a click away.
        Self { strategies: vec![StrategyName::None], values }
    }
}

impl Form {
    /// The form from an address's query or a request's body. What is not said is as at first.
    pub(super) fn parse(text: &str) -> Self {
        let mut form = Self::default();
        let mut strategies = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if name == "strategy" {
                strategies.extend(value.parse::<StrategyName>().ok());
            } else if let Some(kept) = form.values.get_mut(name.as_ref()) {
                *kept = value.trim().to_owned();
            }
        }
        if !strategies.is_empty() || text.contains("stock=") {
            form.strategies = StrategyName::ALL.into_iter().filter(|s| strategies.contains(s)).collect();
        }
        form
    }

    /// What is in a field.
    pub(super) fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// The form as an address's query.
    pub(super) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for strategy in &self.strategies {
            query.append_pair("strategy", strategy.as_str());
        }
        for (name, _) in FIELDS {
            query.append_pair(name, self.value(name));
        }
        query.finish()
    }

    /// The form with every strategy ticked; what cannot be run here will be reported so.
    pub(super) fn with_all_strategies(mut self) -> Self {
        self.strategies = StrategyName::ALL.to_vec();
        self
    }

    /// The plan that the form makes.
    pub(super) fn plan(&self) -> Result<Plan, Mistakes> {
        let mut reader = Reader { form: self, mistakes: Mistakes::new() };
        let store = reader.read("store", StoreKind::Sqlite, |text| {
            let named = StoreKind::ALL.into_iter().find(|store| store.as_str() == text);
            let store = named
                .ok_or_else(|| format!("must be {}", StoreKind::ALL.map(StoreKind::as_str).join(" or ")))?;
            match store.server().and_then(ServerKind::missing) {
                Some(missing) => Err(missing),
                None => Ok(store),
            }
        });
        let faults = reader.read("faults", Schedule::default(), |text| {
            Ok(optional(text, |text| Schedule::parse(&[text.into()]))?.unwrap_or_default())
        });
        let orders = reader.read("orders", None, |text| optional(text, |text| number(text, 1..=10_000_000)));
        let duration = reader.read("duration", None, |text| optional(text, duration));
        // A time is instead of orders.
        let orders = orders.filter(|_| duration.is_none());
        let length = Length { orders, duration, stock_is_given: true, ..Length::default() };
        let (amount, topped_up) = length.with(&faults, LEASE);
        let scenario = Scenario {
            buyers: reader.read("buyers", 1, |text| number(text, 1..=10_000)),
            amount,
            topped_up,
            rate: reader.read("rate", None, |text| optional(text, rate)),
            stock: reader.read("stock", 0, |text| number(text, 0..=1_000_000_000)),
            quantity: reader.read("quantity", 1..=1, quantity),
            seed: reader.read("seed", 1, |text| number(text, 0..=u64::MAX)),
            ..Scenario::default()
        };
        let replicas = reader.read("replicas", 1, |text| number(text, 1..=64));
        let mut overrides = Vec::new();
        let batch = reader.read("batch", None, |text| optional(text, |text| number(text, 1..=10_000)));
        overrides.extend(batch.map(|batch: u64| ("checkout.max_batch".to_owned(), batch.to_string())));
        let guard = reader.read("guard", "", |text| self.guard(text));
        if !guard.is_empty() {
            overrides.push(("checkout.guard".into(), guard.into()));
        }
        let control = reader.read("control", true, |text| match text {
            "" => Ok(true),
            "off" => Ok(false),
            _ => Err("must be off, or empty".into()),
        });
        if self.strategies.is_empty() {
            reader.mistakes.insert("strategy", "choose at least one".into());
        }
        let Reader { mistakes, .. } = reader;
        let strategies = self.strategies.clone();
        let (redis_servers, repeat) = (1, 1);
        let plan =
            Plan { strategies, store, replicas, redis_servers, repeat, scenario, overrides, faults, control };
        if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
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
}

fn number<T: FromStr + PartialOrd + ToString>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let (least, most) = (range.start().to_string(), range.end().to_string());
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        _ => Err("must be a time such as 10s, of an hour at most".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("must be a number of orders per second".into()),
    }
}

fn quantity(text: &str) -> Result<RangeInclusive<i64>, String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    match (least.parse(), most.trim_start_matches('=').parse()) {
        (Ok(least), Ok(most)) if 1 <= least && least <= most && most <= MAX_QUANTITY => Ok(least..=most),
        _ => Err(format!("must be a number such as 1, or a range such as 1..3, up to {MAX_QUANTITY}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_survives_its_address() {
        let form =
            Form::parse("strategy=row&strategy=none&faults=kill%401s&quantity=1..3&stock=7&evil=%3Cb%3E");
        assert_eq!(form.strategies, [StrategyName::None, StrategyName::Row]);
        assert_eq!((form.value("faults"), form.value("replicas"), form.value("evil")), ("kill@1s", "3", ""));
        assert_eq!(Form::parse(&form.query()), form);
        let plan = form.plan().unwrap();
        assert_eq!((plan.scenario.quantity, plan.scenario.stock), (1..=3, 7));
        let command = form.plan().unwrap().command_line();
        assert!(command.contains("--strategies none,row"), "{command}");
        assert!(command.contains("--quantity 1..3") && command.contains("--fault kill@1s"), "{command}");
    }

    #[test]
    fn a_command_is_of_the_same_load() {
        let command = |text: &str| Form::parse(text).plan().unwrap().command_line();
        let with_faults = command("strategy=row&faults=kill%401s");
        assert!(
            with_faults.contains("--duration 9s") && with_faults.contains("--top-up 4s"),
            "{with_faults}"
        );
        let mut plan = Form::parse("strategy=row&faults=kill%401s").plan().unwrap();
        plan.scenario.topped_up = None;
        assert!(plan.command_line().contains("--top-up 0s"), "it would be topped up otherwise");
        assert!(!command("strategy=row&orders=7").contains("--top-up"));
    }

    #[test]
    fn every_mistake_is_named_at_its_field() {
        let mistakes = Form::parse(
            "strategy=none&store=x&replicas=0&stock=-1&buyers=many&orders=0&duration=soon&rate=-1\
             &quantity=3..1&batch=0&guard=version&control=maybe&faults=flood&seed=-1",
        )
        .plan()
        .expect_err("mistakes");
        assert_eq!(mistakes.len(), FIELDS.len(), "{mistakes:?}");
        assert!(Form::parse("stock=1").plan().expect_err("no strategy").contains_key("strategy"));
    }
}
