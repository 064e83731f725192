//! A fault that is put together from a menu.

use super::values::time;
use crate::faults::{Fault, Size};

/// The menu as it was filled in: not a part of the form, but what adds to one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::dashboard) struct FaultMenu {
    /// What breaks, with its usual size: `pause:2xlease`.
    pub(in crate::dashboard) what: String,
    /// When, in seconds.
    pub(in crate::dashboard) at: String,
    /// For how long, or by how much; empty: as usual.
    pub(in crate::dashboard) size: String,
    /// The unit of that: `xlease`, `s` or `ms`.
    pub(in crate::dashboard) unit: String,
}

impl FaultMenu {
    /// The menu from an address's query, where its button was pressed.
    pub(in crate::dashboard) fn pressed(query: &str) -> Option<Self> {
        let (mut menu, mut is_pressed) = (Self::default(), false);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim().to_owned();
            match name.as_ref() {
                "add-fault" => is_pressed = true,
                "fault-what" => menu.what = value,
                "fault-at" => menu.at = value,
                "fault-size" => menu.size = value,
                "fault-unit" => menu.unit = value,
                _ => {}
            }
        }
        is_pressed.then_some(menu)
    }

    /// The fault, or what is wrong with the menu.
    pub(in crate::dashboard) fn fault(&self) -> Result<Fault, String> {
        let usual: Fault = self.what.parse().map_err(|_| "choose what breaks".to_owned())?;
        let at = time(&self.at).map_err(|why| format!("when: {why}"))?;
        let what = match (self.size.as_str(), usual.what.size()) {
            ("", _) => usual.what,
            (_, Size::None) => return Err(format!("for how long: {}", Size::None)),
            (size, kind) => {
                let sized = usual.what.sized(&self.in_units(size));
                let name = if kind == Size::Span { "for how long" } else { "by how much" };
                sized.map_err(|why| format!("{name}: {why}"))?
            }
        };
        Ok(Fault { what, at })
    }

    /// A size as faults are written; fractions of seconds are in milliseconds there.
    fn in_units(&self, size: &str) -> String {
        match (self.unit.as_str(), size.parse::<f64>()) {
            ("s", Ok(seconds)) if seconds.fract() != 0.0 => format!("{}ms", (seconds * 1e3).round()),
            (unit, _) => format!("{size}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menu_makes_the_fault_that_it_says() {
        let made = |query: &str| {
            let menu = FaultMenu::pressed(&format!("add-fault=1&fault-at=1&{query}")).expect("it is pressed");
            menu.fault().map(|fault| fault.to_string())
        };
        for (query, text) in [
            ("fault-what=kill", "kill@1s"),
            ("fault-what=pause:2xlease&fault-at=0.5", "pause:2xlease@500ms"),
            ("fault-what=pause:2xlease&fault-size=1.5&fault-unit=xlease", "pause:1.5xlease@1s"),
            ("fault-what=pause:redis:2xlease&fault-size=1.5&fault-unit=s", "pause:redis:1s500ms@1s"),
            ("fault-what=latency:redis:50ms&fault-size=20&fault-unit=ms", "latency:redis:20ms@1s"),
            ("fault-what=clock:redis:%2B3s&fault-size=-5&fault-unit=s", "clock:redis:-5s@1s"),
        ] {
            assert_eq!(made(query), Ok(text.into()), "{query}");
        }
        for (query, words) in [
            ("fault-what=flood", "choose what breaks"),
            ("fault-what=kill&fault-at=soon", "when: "),
            ("fault-what=kill&fault-size=2&fault-unit=s", "no length of its own"),
            ("fault-what=latency:redis:50ms&fault-size=2&fault-unit=xlease", "by how much: "),
            ("fault-what=pause&fault-size=long&fault-unit=s", "for how long: "),
        ] {
            assert!(made(query).expect_err(query).contains(words), "{query}");
        }
        assert_eq!(FaultMenu::pressed("fault-what=kill&fault-at=1"), None);
    }
}
