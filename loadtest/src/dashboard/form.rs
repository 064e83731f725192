//! What a person can choose, and the plan that it makes.

mod fault;
mod plan;
mod values;

use std::collections::BTreeMap;

use order_service::config::StrategyName;

pub(super) use fault::FaultMenu;

/// The fields of the form, strategies left out, with what they are at first.
const FIELDS: [(&str, &str); 25] = [
    ("store", "sqlite"),
    ("replicas", "3"),
    ("stock", "2000"),
    ("buyers", "64"),
    ("orders", ""),
    ("duration", ""),
    ("repeat", "1"),
    ("rate", ""),
    ("quantity", "1"),
    ("cancels", "0"),
    ("restocks", "0"),
    ("reads", "1"),
    ("replays", "2"),
    ("twins", "1"),
    ("payers", "100"),
    ("pay-within", "0s"),
    ("top-up", ""),
    ("timeout", "10s"),
    ("seed", "1"),
    ("faults", ""),
    ("batch", ""),
    ("guard", ""),
    ("control", ""),
    ("redis-servers", "1"),
    ("set", ""),
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
                *kept = value.trim().replace('\r', "");
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

    /// Whether a field is as at first.
    pub(super) fn is_usual(&self, name: &str) -> bool {
        FIELDS.iter().any(|(known, usual)| *known == name && *usual == self.value(name))
    }

    /// The fields, strategies left out, in which two forms differ.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let names = FIELDS.iter().map(|(name, _)| *name);
        names.filter(|name| self.value(name) != other.value(name)).collect()
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

    /// The form with one more fault at the end of its faults.
    pub(super) fn with_fault(mut self, fault: &str) -> Self {
        let faults = self.values.entry("faults").or_default();
        if !faults.is_empty() {
            faults.push(',');
        }
        faults.push_str(fault);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        assert_eq!(form.with_fault("kill@2s").value("faults"), "kill@1s,kill@2s");
    }

    fn command(text: &str) -> String {
        Form::parse(text).plan().unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}")).command_line()
    }

    #[test]
    fn a_command_is_of_the_same_load() {
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
    fn every_field_is_in_the_command() {
        let fields = [
            ("store=postgres", "--store postgres"),
            ("replicas=5", "--replicas 5"),
            ("stock=7", "--stock 7"),
            ("buyers=9", "--buyers 9"),
            ("orders=11", "--orders 11"),
            ("duration=12", "--duration 12s"),
            ("repeat=4", "--repeat 4"),
            ("rate=2.5", "--rate 2.5"),
            ("quantity=1..3", "--quantity 1..3"),
            ("cancels=5", "--cancels 0.05"),
            ("restocks=6", "--restocks 0.06"),
            ("reads=7", "--reads 0.07"),
            ("replays=8", "--replays 0.08"),
            ("twins=9", "--twins 0.09"),
            ("payers=50", "--payers 0.5"),
            ("pay-within=500ms", "--pay-within 500ms"),
            ("top-up=always", "--top-up always"),
            ("timeout=3", "--timeout 3s"),
            ("seed=3", "--seed 3"),
            ("faults=kill%401s", "--fault kill@1s"),
            ("batch=1", "--set checkout.max_batch=1"),
            ("guard=off", "--set checkout.guard=off"),
            ("control=off", "--no-control"),
            ("redis-servers=3", "--redis-servers 3"),
            ("set=failpoints.after_read%3D5%25%20abort", "--set 'failpoints.after_read=5% abort'"),
        ];
        let named = |pair: &str| pair.split_once('=').map(|(name, _)| name.to_owned());
        let shown: BTreeSet<_> = fields.iter().filter_map(|(pair, _)| named(pair)).collect();
        assert_eq!(shown, FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect());
        for (pair, words) in fields {
            let command = command(&format!("strategy=redis&{pair}"));
            assert!(command.contains(words), "{pair}: {command}");
        }
        let several = command("strategy=row&set=checkout.think_time%3D5ms%0D%0A%0D%0Alock.wait%3D1s");
        assert!(several.contains("--set checkout.think_time=5ms --set lock.wait=1s"), "{several}");
    }

    #[test]
    fn every_mistake_is_named_at_its_field() {
        let mistakes = Form::parse(
            "strategy=none&store=x&replicas=0&stock=-1&buyers=many&orders=0&duration=soon&rate=-1\
             &quantity=3..1&batch=0&guard=version&control=maybe&faults=flood&seed=-1&repeat=0&cancels=-1\
             &restocks=x&reads=101&replays=x&twins=x&payers=x&pay-within=x&top-up=x&timeout=0\
             &redis-servers=2&set=lock.strategy%3Drow",
        )
        .plan()
        .expect_err("mistakes");
        assert_eq!(mistakes.len(), FIELDS.len(), "{mistakes:?}");
        assert!(Form::parse("stock=1").plan().expect_err("no strategy").contains_key("strategy"));
    }

    #[test]
    fn a_run_has_a_number_of_orders_or_a_duration() {
        Form::parse("strategy=none&orders=&duration=10s").plan().expect("a duration alone");
        Form::parse("strategy=none&orders=10&duration=").plan().expect("orders alone");
        Form::parse("strategy=none&orders=&duration=").plan().expect("the usual length");
        let both = Form::parse("strategy=none&orders=10&duration=10s").plan().expect_err("both");
        assert_eq!(both.keys().collect::<Vec<_>>(), [&"duration"]);
    }

    #[test]
    fn two_forms_differ_where_they_say_different_things() {
        let (a, b) = (Form::parse("strategy=none&seed=2"), Form::parse("strategy=row&faults=kill"));
        assert_eq!(a.differences(&b), ["seed", "faults"]);
        assert!(a.is_usual("stock") && !a.is_usual("seed"));
    }
}
