//! What is typed into fields, read.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use order_service::order::MAX_QUANTITY;

/// How long a run may be that a page starts, and anything in it.
const LONGEST: Duration = Duration::from_secs(3600);

pub(super) fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + ToString,
{
    let (least, most) = (range.start().to_string(), range.end().to_string());
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

pub(super) fn odd(text: &str) -> Result<usize, String> {
    let number = number(text, 1..=15).ok().filter(|number| number % 2 == 1);
    number.ok_or_else(|| "must be an odd number from 1 to 15".into())
}

pub(super) fn optional<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// A time, in seconds where no unit is given.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = seconds.or_else(|| humantime::parse_duration(text).ok());
    let time = time.map(|time| Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    time.filter(|time| *time <= LONGEST)
        .ok_or_else(|| "must be a time such as 10s, of an hour at most".into())
}

/// A time that is not nothing.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("must be longer than nothing, such as 10s".into()),
        time => Ok(time),
    }
}

pub(super) fn top_up(text: &str) -> Result<Duration, String> {
    if text == "always" { Ok(Duration::MAX) } else { time(text) }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("must be a number of orders per second".into()),
    }
}

/// A share, from percent.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse::<f64>() {
        // Without the digits that only the division makes.
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok((percent * 1e4).round() / 1e6),
        _ => Err("must be from 0 to 100 percent".into()),
    }
}

pub(super) fn quantity(text: &str) -> Result<RangeInclusive<i64>, String> {
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
    fn values_are_read_with_and_without_their_units() {
        let ms = Duration::from_millis;
        assert_eq!(
            ["10", "10s", "0.5", "500ms"].map(duration),
            [10_000, 10_000, 500, 500].map(|t| Ok(ms(t)))
        );
        for wrong in ["0", "soon", "-1", "2h", "1e300", "inf", "NaN", "0.1ms"] {
            duration(wrong).expect_err(wrong);
        }
        assert_eq!(["2", "2 %", "2.3%", "7"].map(share), [0.02, 0.02, 0.023, 0.07].map(Ok));
        for wrong in ["-1", "101", "NaN", ""] {
            share(wrong).expect_err(wrong);
        }
        assert_eq!((odd("5"), odd("4").is_err(), top_up("always")), (Ok(5), true, Ok(Duration::MAX)));
    }
}
