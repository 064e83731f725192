//! A plan as a command line: whatever a page can start, a terminal can.

use std::time::Duration;

use order_service::config::StrategyName;

use super::Plan;
use crate::scenario::{Amount, Scenario};

impl Plan {
    /// The command that carries the plan out.
    pub fn command_line(&self) -> String {
        let Scenario { buyers, amount, rate, stock, quantity, topped_up, pay_within, timeout, seed, .. } =
            &self.scenario;
        let defaults = Scenario::default();
        let strategies: Vec<_> = self.strategies.iter().map(ToString::to_string).collect();
        let store = self.store.as_str();
        let mut words = vec![format!("loadtest compare --strategies {}", strategies.join(","))];
        words.push(format!("--store {store} --replicas {} --buyers {buyers}", self.replicas));
        if self.redis_servers > 1 {
            words.push(format!("--redis-servers {}", self.redis_servers));
        }
        words.push(match amount {
            Amount::Orders(orders) => format!("--orders {orders}"),
            Amount::For(time) => format!("--duration {}", time_in_words(*time)),
        });
        words.push(format!("--stock {stock}"));
        words.extend(match *topped_up {
            Some(Duration::MAX) => Some("--top-up always".into()),
            Some(time) => Some(format!("--top-up {}", time_in_words(time))),
            // Otherwise it would be, until they are over.
            None if !self.faults.is_empty() => Some("--top-up 0s".into()),
            None => None,
        });
        if let Some(rate) = rate {
            words.push(format!("--rate {rate}"));
        }
        if quantity != &(1..=1) {
            words.push(format!("--quantity {}..{}", quantity.start(), quantity.end()));
        }
        type Share = (&'static str, fn(&Scenario) -> f64);
        let shares: [Share; 6] = [
            ("replays", |scenario| scenario.replays),
            ("cancels", |scenario| scenario.cancels),
            ("payers", |scenario| scenario.payers),
            ("restocks", |scenario| scenario.restocks),
            ("reads", |scenario| scenario.reads),
            ("twins", |scenario| scenario.twins),
        ];
        for (name, share) in shares {
            if share(&self.scenario) != share(&defaults) {
                words.push(format!("--{name} {}", share(&self.scenario)));
            }
        }
        if *pay_within != defaults.pay_within {
            words.push(format!("--pay-within {}", time_in_words(*pay_within)));
        }
        if *timeout != defaults.timeout {
            words.push(format!("--timeout {}", time_in_words(*timeout)));
        }
        if self.repeat != 1 {
            words.push(format!("--repeat {}", self.repeat));
        }
        words.extend(
            self.overrides.iter().map(|(key, value)| format!("--set {}", quoted(&format!("{key}={value}")))),
        );
        if !self.faults.is_empty() {
            words.push(format!("--fault {}", self.faults));
        }
        if !self.control && !self.strategies.contains(&StrategyName::None) {
            words.push("--no-control".into());
        }
        words.push(format!("--seed {seed}"));
        words.join(" ")
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "=._-:/,+@%".contains(c);
    if word.chars().all(is_plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A time as the command line reads it.
fn time_in_words(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}
