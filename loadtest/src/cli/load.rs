//! The load: what the commands that fire orders have in common.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use loadtest::compare::Length;
use loadtest::faults::Schedule;
use loadtest::scenario::Scenario;

use super::values::{positive, quantity, share, top_up};

/// Units in stock, where no number is given.
const STOCK: i64 = 2_000;

/// Buyers at the same time, where no number is given.
const BUYERS: u32 = 64;

/// The seed, where none is given.
const SEED: u64 = 1;

/// The load.
#[derive(Args)]
pub(super) struct Load {
    /// Buyers at the same time
    #[arg(long, default_value_t = BUYERS, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    buyers: u32,
    /// Stop after so many orders [default: 4000; with faults, until 5 s after the last]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) orders: Option<u64>,
    /// Stop after so long instead, such as 10s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "orders")]
    pub(super) duration: Option<Duration>,
    /// Orders per second (open loop: latency is measured from the intended start)
    #[arg(long, allow_negative_numbers = true, value_parser = positive)]
    pub(super) rate: Option<f64>,
    /// Units in stock at the beginning [default: 2000]
    #[arg(
        long,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(0..=1_000_000_000)
    )]
    pub(super) stock: Option<i64>,
    /// Put more in stock whenever little is left, for so long, or always; 0s: not at all [default: until the
    /// faults are over; with --duration and without --stock, for four fifths of it]
    #[arg(long, value_name = "TIME", value_parser = top_up)]
    top_up: Option<Duration>,
    /// Units per order: a number, or a range such as 1..3
    #[arg(
        long,
        default_value = "1",
        value_name = "N or N..M",
        allow_hyphen_values = true,
        value_parser = quantity
    )]
    pub(super) quantity: RangeInclusive<i64>,
    /// The share of confirmed orders that is sent again with the same idempotency key [default: 0.02]
    #[arg(long, allow_negative_numbers = true, value_parser = share)]
    pub(super) replays: Option<f64>,
    /// The share of confirmed orders that is given back
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    cancels: f64,
    /// The share of orders that are paid, where they have to be (--set checkout.payment_window=2s)
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_parser = share)]
    payers: f64,
    /// How long after its order a payer pays, at the most; drawn evenly
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pay_within: Duration,
    /// The share of attempts after which as many units are put in stock as they asked for
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    restocks: f64,
    /// The share of orders that is sent twice at the same time, to two replicas, with the same idempotency
    /// key [default: 0.01]
    #[arg(long, allow_negative_numbers = true, value_parser = share)]
    pub(super) twins: Option<f64>,
    /// The share of attempts after which the buyer reads the stock, every second time under a shared lock
    /// [default: 0.01]
    #[arg(long, alias = "looks", allow_negative_numbers = true, value_parser = share)]
    reads: Option<f64>,
    /// How long a buyer waits for an answer
    #[arg(
        long,
        alias = "patience",
        default_value = "10s",
        value_name = "TIME",
        value_parser = humantime::parse_duration
    )]
    pub(super) timeout: Duration,
    /// What the quantities are drawn from
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

impl Load {
    /// What was asked for that has no meaning for a shop that is not ours.
    pub(super) fn only_for_ours(&self) -> Option<&'static str> {
        [
            (self.buyers != BUYERS, "--buyers: say --rungs, for one number of buyers after the other"),
            (self.top_up.is_some(), "--top-up"),
            (self.cancels != 0.0, "--cancels"),
            (self.payers != 1.0, "--payers"),
            (!self.pay_within.is_zero(), "--pay-within"),
            (self.restocks != 0.0, "--restocks"),
            (self.reads.is_some(), "--reads"),
            (self.seed != SEED, "--seed"),
        ]
        .into_iter()
        .find_map(|(is_given, name)| is_given.then_some(name))
    }

    /// The scenario, in a laboratory with these faults and leases.
    pub(super) fn scenario(self, faults: &Schedule, lease: Duration) -> Scenario {
        let length = Length {
            orders: self.orders,
            duration: self.duration,
            top_up: self.top_up,
            stock_is_given: self.stock.is_some(),
        };
        let (amount, topped_up) = length.with(faults, lease);
        Scenario {
            buyers: self.buyers as usize,
            amount,
            rate: self.rate,
            stock: self.stock.unwrap_or(STOCK),
            quantity: self.quantity,
            replays: self.replays.unwrap_or(0.02),
            cancels: self.cancels,
            payers: self.payers,
            pay_within: self.pay_within,
            restocks: self.restocks,
            reads: self.reads.unwrap_or(0.01),
            twins: self.twins.unwrap_or(0.01),
            topped_up,
            timeout: self.timeout,
            seed: self.seed,
        }
    }
}
