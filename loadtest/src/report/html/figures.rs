//! Numbers for people.

/// A whole number, its thousands apart.
pub fn whole(value: impl TryInto<i128>) -> String {
    let value: i128 = value.try_into().unwrap_or_default();
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "−" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Orders per second.
pub fn rate(per_second: f64) -> String {
    whole(per_second.round() as i64)
}

/// Milliseconds, to three digits or so.
pub fn ms(value: f64) -> String {
    if value >= 99.95 { whole(value.round() as i64) } else { format!("{value:.1}") }
}

/// Seconds from milliseconds.
pub fn seconds(ms: f64) -> String {
    format!("{:.2}", ms / 1e3)
}

/// How far a value is from another, in percent; empty where that says nothing.
pub fn difference(value: f64, baseline: f64) -> String {
    if baseline <= 0.0 {
        return String::new();
    }
    let percent = ((value / baseline - 1.0) * 100.0).round();
    match percent {
        0.0 => "±0%".into(),
        percent if percent < 0.0 => format!("−{:.0}%", -percent),
        percent => format!("+{percent:.0}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, -1_234_567].map(whole), ["0", "999", "1,000", "−1,234,567"]);
        assert_eq!([0.04, 12.34, 99.94, 99.96, 1234.5].map(ms), ["0.0", "12.3", "99.9", "100", "1,235"]);
        let differences = [(150.0, 100.0), (50.0, 100.0), (100.1, 100.0), (1.0, 0.0)];
        assert_eq!(differences.map(|(a, b)| difference(a, b)), ["+50%", "−50%", "±0%", ""]);
    }
}
