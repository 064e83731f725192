//! Values on the command line that clap does not know.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lab::ServerKind;
use loadtest::bench;
use loadtest::compare;
use loadtest::experiments;
use loadtest::faults::Schedule;
use order_service::config::StrategyName;

/// The name of a strategy. What is near to one is suggested, and shells complete it.
pub(super) fn strategy() -> impl TypedValueParser<Value = StrategyName> {
    let names = StrategyName::ALL.map(|name| PossibleValue::new(name.as_str()).help(name.summary()));
    PossibleValuesParser::new(names).try_map(|name| name.parse::<StrategyName>())
}

/// The name of a kind of server.
pub(super) fn server() -> impl TypedValueParser<Value = ServerKind> {
    PossibleValuesParser::new(ServerKind::ALL.map(ServerKind::as_str))
        .try_map(|name| name.parse::<ServerKind>())
}

/// The name of an experiment, or one of the words that stand for several.
pub(super) fn experiment() -> impl TypedValueParser<Value = String> {
    let names = experiments::all().into_iter().map(|experiment| experiment.name);
    PossibleValuesParser::new(["list", "all"].into_iter().chain(names))
}

pub(super) fn target(text: &str) -> Result<String, String> {
    let url: hyper::Uri = text.parse().map_err(|error| format!("{error}"))?;
    match url.scheme_str() {
        Some("http") if url.path() == "/" && url.query().is_none() => Ok(text.into()),
        Some("http") => Err("must have no path".into()),
        _ => Err("must begin with http://; put a proxy that ends TLS in front where it is needed".into()),
    }
}

pub(super) fn quantity(text: &str) -> Result<RangeInclusive<i64>, String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let parse = |text: &str| text.parse::<i64>().map_err(|_| format!("{text:?} is not a number"));
    let (least, most) = (parse(least)?, parse(most.trim_start_matches('='))?);
    if 1 <= least && least <= most && most <= order_service::order::MAX_QUANTITY {
        Ok(least..=most)
    } else {
        Err(format!("must be from 1 to {}, the lesser first", order_service::order::MAX_QUANTITY))
    }
}

pub(super) fn top_up(text: &str) -> Result<Duration, String> {
    match text {
        "always" => Ok(Duration::MAX),
        text => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.001..=1e9).contains(&value) => Ok(value),
        _ => Err("must be a number from 0.001 to 1000000000".into()),
    }
}

pub(super) fn odd(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(value) if (1..=15).contains(&value) && !value.is_multiple_of(2) => Ok(value),
        _ => Err("must be an odd number from 1 to 15".into()),
    }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be from 0 to 1".into()),
    }
}

pub(super) fn bench_row(text: &str) -> Result<String, String> {
    bench::check_name(text).map(|()| text.into())
}

pub(super) fn fault(text: &str) -> Result<String, String> {
    Schedule::parse(&[text.into()]).map(|_| text.into())
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    compare::setting(text)
}
