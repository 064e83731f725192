//! Templates: texts with `{{variables}}`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// The name under which the environment is.
pub const ENV: &str = "env";

/// The values of variables.
#[derive(Debug, Clone, Serialize)]
pub struct Variables {
    #[serde(flatten)]
    values: BTreeMap<String, Value>,
    /// The environment of this process, as `env.NAME`.
    env: BTreeMap<String, String>,
}

impl Variables {
    /// The environment, and a random number.
    pub fn new() -> Self {
        let mut variables = Self { values: BTreeMap::new(), env: std::env::vars().collect() };
        variables.set("random", Value::String(Uuid::new_v4().simple().to_string()));
        variables
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.into(), value);
    }

    /// The value of a variable as a text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).map(text)
    }

    /// Whether all variables of a text are there.
    pub fn has_all_of(&self, text: &str) -> anyhow::Result<bool> {
        Ok(variables(text)?.iter().all(|name| name == ENV || self.values.contains_key(name)))
    }

    /// Fills a text.
    pub fn fill(&self, text: &str) -> anyhow::Result<String> {
        if !text.contains("{{") && !text.contains("{%") {
            return Ok(text.into());
        }
        environment().render_str(text, self).with_context(|| format!("cannot fill {text:?}"))
    }

    /// Fills all texts of a value. A text that is one variable and nothing else becomes what that is, also a
    /// number.
    pub fn fill_json(&self, value: &Value) -> anyhow::Result<Value> {
        Ok(match value {
            Value::String(text) => match alone(text).and_then(|name| self.values.get(name)) {
                Some(value) => value.clone(),
                None => Value::String(self.fill(text)?),
            },
            Value::Array(values) => {
                Value::Array(values.iter().map(|value| self.fill_json(value)).collect::<Result<_, _>>()?)
            }
            Value::Object(values) => {
                let filled = values.iter().map(|(key, value)| Ok((key.clone(), self.fill_json(value)?)));
                Value::Object(filled.collect::<anyhow::Result<_>>()?)
            }
            other => other.clone(),
        })
    }
}

impl Default for Variables {
    fn default() -> Self {
        Self::new()
    }
}

/// A text as it is, and anything else as JSON writes it.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The names of the variables in a text.
pub fn variables(text: &str) -> anyhow::Result<Vec<String>> {
    let environment = environment();
    let template = environment.template_from_str(text).with_context(|| format!("{text:?} is no template"))?;
    let mut names: Vec<_> = template.undeclared_variables(false).into_iter().collect();
    names.sort_unstable();
    Ok(names)
}

/// The variables of the environment that a text names and that are not there.
pub fn missing_in_environment(text: &str) -> anyhow::Result<Vec<String>> {
    let environment = environment();
    let template = environment.template_from_str(text).with_context(|| format!("{text:?} is no template"))?;
    let names = template.undeclared_variables(true).into_iter();
    let mut missing: Vec<_> = names
        .filter_map(|name| name.strip_prefix("env.").map(str::to_owned))
        .filter(|name| std::env::var_os(name).is_none())
        .collect();
    missing.sort_unstable();
    Ok(missing)
}

/// All texts in a value.
pub fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Object(values) => values.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// The variable that a text is.
fn alone(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
    name.chars().all(|c| c.is_alphanumeric() || c == '_').then_some(name)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_filled_and_numbers_stay_numbers() {
        let mut variables = Variables::new();
        variables.set("quantity", json!(2));
        variables.set("buyer", json!("A"));
        let filled = variables
            .fill_json(&json!({"n": "{{quantity}}", "who": "buyer {{buyer}}", "all": [true, "{{ buyer }}"]}));
        assert_eq!(filled.unwrap(), json!({"n": 2, "who": "buyer A", "all": [true, "A"]}));
        assert!(variables.fill("{{unknown}}").is_err());
        assert_eq!(super::variables("{{a}} and {{b.c}}").unwrap(), ["a", "b"]);
    }
}
