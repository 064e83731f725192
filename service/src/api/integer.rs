//! Integers as JSON has them: `1.0` is one, too (RFC 8259 knows one kind of number; JSON Schema says the
//! same).

use serde::{Deserialize as _, Deserializer, de};
use serde_json::Number;

/// The greatest magnitude up to which a float is exact.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The number as an integer, if it is one.
pub(crate) fn as_integer(number: &Number) -> Option<i64> {
    let whole = |float: &f64| float.fract() == 0.0 && float.abs() <= MAX_EXACT;
    number.as_i64().or_else(|| number.as_f64().filter(whole).map(|float| float as i64))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = Number::deserialize(deserializer)?;
    as_integer(&number).ok_or_else(|| de::Error::custom(format_args!("{number} is not an integer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_float_is_an_integer_and_no_other_is() {
        let parse = |text: &str| as_integer(&serde_json::from_str(text).unwrap());
        assert_eq!((parse("1"), parse("1.0"), parse("-2e3")), (Some(1), Some(1), Some(-2000)));
        assert_eq!((parse("1.5"), parse("1e300"), parse("18446744073709551615")), (None, None, None));
    }
}
