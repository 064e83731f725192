//! A load on a shop that is not ours: what a person can choose.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::shop::{Description, Load, LoadOptions, MAX_REQUESTS};

/// The fields of the form, with what they are at first.
const FIELDS: [(&str, &str); 10] = [
    ("file", ""),
    ("stock", "10"),
    ("orders", ""),
    ("rungs", "4,8,20,40"),
    ("repeat", "1"),
    ("rate", ""),
    ("quantity", "1"),
    ("timeout", "10s"),
    ("rendezvous", ""),
    ("hosts", ""),
];

/// The form as it was filled in, well or badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShopForm {
    values: BTreeMap<&'static str, String>,
}

impl ShopForm {
    /// The form from an address's query or a request's body. What is not said is as at first.
    pub(super) fn parse(text: &str) -> Self {
        let mut values: BTreeMap<_, _> =
            FIELDS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if let Some(kept) = values.get_mut(name.as_ref()) {
                *kept = value.trim().to_owned();
            }
        }
        Self { values }
    }

    /// What is in a field.
    pub(super) fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// The form as an address's query.
    pub(super) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, _) in FIELDS {
            query.append_pair(name, self.value(name));
        }
        query.finish()
    }

    /// The load that the form asks for, or what is wrong with it.
    pub(super) fn load(&self) -> anyhow::Result<Load> {
        let list = |name: &str| {
            let parts = self.value(name).split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect::<Vec<_>>()
        };
        let numbers = list("rungs").into_iter().map(|text| number("rungs", &text));
        let optional = |name: &str| match self.value(name) {
            "" => Ok(None),
            text => number(name, text).map(Some),
        };
        let rate = match self.value("rate") {
            "" => None,
            text => match text.parse::<f64>() {
                Ok(rate) if (0.001..=1e6).contains(&rate) => Some(rate),
                _ => bail!("rate: must be a number of purchases per second"),
            },
        };
        let timeout = humantime::parse_duration(self.value("timeout"));
        Load::of(LoadOptions {
            rungs: numbers.collect::<anyhow::Result<_>>()?,
            rate,
            repeat: number("repeat", self.value("repeat"))?,
            purchases: optional("orders")?,
            stock: Some(number("stock", self.value("stock"))?),
            quantity: number("quantity", self.value("quantity"))?,
            rendezvous: !self.value("rendezvous").is_empty(),
            timeout: timeout
                .ok()
                .filter(|time| *time >= Duration::from_millis(1))
                .context("timeout: must be a time such as 10s")?,
            owned_hosts: list("hosts"),
            ..LoadOptions::default()
        })
    }

    /// The description and the load, or what is wrong with them.
    pub(super) fn plan(&self) -> anyhow::Result<(Description, Load)> {
        let load = self.load()?;
        let file = self.value("file");
        if file.is_empty() {
            bail!("file: say where the description is, such as /home/me/shop.toml");
        }
        let description = Description::read(Path::new(file))?;
        load.check(&description, MAX_REQUESTS)?;
        Ok((description, load))
    }

    /// The same for a terminal, or what is wrong.
    pub(super) fn command(&self) -> String {
        match self.load() {
            Ok(load) => {
                let file = self.value("file");
                load.command_line(if file.is_empty() { "shop.toml" } else { file })
            }
            Err(error) => format!("{error:#}"),
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> anyhow::Result<T> {
    text.parse().ok().with_context(|| format!("{name}: must be a whole number, and not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_survives_its_address_and_names_its_mistakes() {
        let form = ShopForm::parse("file=%2Ftmp%2Fshop.toml&stock=7&rungs=3%2C%205&rendezvous=on&evil=1");
        assert_eq!(ShopForm::parse(&form.query()), form);
        let command = form.command();
        assert!(command.contains("--target-file /tmp/shop.toml --stock 7"), "{command}");
        assert!(command.contains("--rungs 3,5") && command.contains("--rendezvous"), "{command}");
        for (wrong, name) in [
            ("stock=x", "stock"),
            ("rungs=", "rungs"),
            ("rungs=1", "rungs"),
            ("rate=fast", "rate"),
            ("timeout=soon", "timeout"),
            ("quantity=0", "quantity"),
            ("file=", "file"),
        ] {
            let said = ShopForm::parse(wrong).plan().expect_err(wrong).to_string();
            assert!(said.starts_with(name), "{wrong}: {said}");
        }
    }
}
