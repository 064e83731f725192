//! The description of somebody's shop: how to buy in it, how to read its answers, and where it says what was
//! sold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::template::{self, Variables};

/// A shop as a file describes it. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What the shop is called in reports.
    pub name: String,
    /// Where it is: the base URL of each of its processes, which may name variables of the environment:
    /// `{{env.SHOP}}`. Buyers take them in turn.
    pub targets: Vec<String>,
    /// A file with the certificates, in PEM, of those who vouch for the shop's own certificate.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Variables for all templates, whose values are templates in turn.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Headers of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What is done once before each run, by one who is no buyer: put `{{stock}}` units in stock, find ids.
    /// What it captures is known to all buyers.
    #[serde(default)]
    pub setup: Vec<Step>,
    /// What a buyer does, in order. The first answer that is not ok is the last.
    pub purchase: Vec<Step>,
    /// Where the shop says what became of its stock.
    pub truth: Truth,
}

/// One request, what is taken from its answer, and how that is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// What it is called in reports.
    pub name: String,
    /// The HTTP method; GET when absent, POST with a body.
    pub method: Option<String>,
    /// The path below the base URL, with its query; or a whole URL.
    pub path: String,
    /// Headers of this request.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON, whose texts are templates.
    pub json: Option<Value>,
    /// The body as the fields of a form.
    pub form: BTreeMap<String, String>,
    /// The body as it is.
    pub body: Option<String>,
    /// Instead of a request: statements for a database, such as those that reset the shop.
    pub sql: Option<Sql>,
    /// What is taken from the answer, as variables for the steps that follow.
    pub captures: BTreeMap<String, Query>,
    /// The answers that let the purchase go on, and that of the last step make it; any of status 200 to 299
    /// when absent.
    pub ok: Vec<Matcher>,
    /// The answers that say that there is not enough in stock.
    pub refused: Vec<Matcher>,
}

/// A part of an answer. One of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// What a JSONPath (RFC 9535) finds in the body.
    pub jsonpath: Option<String>,
    /// The value of a header.
    pub header: Option<String>,
    /// The first group of a regular expression's first match in the body, or the match where it has no group.
    pub regex: Option<String>,
    /// What a CSS selector finds in an HTML page: the `value` or `content` of an element, or its text.
    pub css: Option<String>,
}

/// What an answer is like, if all of this is so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Matcher {
    /// The status: 201, or a class such as "2xx".
    pub status: Option<Status>,
    /// A text in the body.
    pub body: Option<String>,
    /// A regular expression that matches the body.
    pub matches: Option<String>,
    /// A text in the header `location`, of a redirection.
    pub location: Option<String>,
    /// A JSONPath (RFC 9535) that finds something in the body,
    pub jsonpath: Option<String>,
    /// and what it has to find; anything, when absent.
    pub equals: Option<Value>,
}

/// A status, or a class of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Status {
    /// One status.
    Code(u16),
    /// A class: `2xx`.
    Class(String),
}

/// Statements for a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// Its URL: `postgres://USER:PASSWORD@HOST/DATABASE` or `sqlite://FILE`.
    pub database: String,
    /// The statements.
    pub statement: String,
}

/// Where the shop says what became of its stock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// How many units are in orders. What was sold in a run is the difference between before and after.
    pub sold: Reading,
    /// How many units are left, by the shop's own count.
    #[serde(default)]
    pub left: Option<Reading>,
}

/// A number, and where it is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reading {
    /// The answer to a request has it,
    pub path: Option<String>,
    /// with these headers,
    pub headers: BTreeMap<String, String>,
    /// at this JSONPath: a number, or several whose sum counts.
    pub jsonpath: Option<String>,
    /// Or it is the first column of the first row of a query.
    pub sql: Option<Sql>,
}

/// The variables that every template has.
const GIVEN: [&str; 6] = ["buyer", "key", "quantity", "stock", "env", "random"];

impl Description {
    /// Reads a description, and refuses what cannot work, naming the step and the key.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut shop: Self = toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
        for target in &mut shop.targets {
            *target =
                Variables::new().fill(target).with_context(|| format!("in {}: targets", file.display()))?;
        }
        shop.check().with_context(|| format!("in {}", file.display()))?;
        Ok(shop)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.name.trim().is_empty(), "name: must not be empty");
        ensure!(!self.targets.is_empty(), "targets: there must be one at least");
        for target in &self.targets {
            let url = reqwest::Url::parse(target).with_context(|| format!("targets: {target:?}"))?;
            ensure!(
                ["http", "https"].contains(&url.scheme()),
                "targets: {target:?} is neither http nor https"
            );
        }
        ensure!(!self.purchase.is_empty(), "purchase: there must be a step at least");
        let mut known: Vec<&str> = GIVEN.to_vec();
        known.extend(self.variables.keys().map(String::as_str));
        for (name, text) in &self.variables {
            check_template(text, &known).with_context(|| format!("variables.{name}"))?;
        }
        for (name, text) in &self.headers {
            check_template(text, &known).with_context(|| format!("headers.{name}"))?;
        }
        for (part, steps) in [("setup", &self.setup), ("purchase", &self.purchase)] {
            for (number, step) in steps.iter().enumerate() {
                step.check(&known)
                    .with_context(|| format!("{part}, step {}: {}", number + 1, step.title()))?;
                known.extend(step.captures.keys().map(String::as_str));
            }
        }
        // What buyers capture is not known to the truth, which is of all of them.
        let mut of_all: Vec<&str> = GIVEN.to_vec();
        of_all.extend(self.variables.keys().map(String::as_str));
        of_all.extend(self.setup.iter().flat_map(|step| step.captures.keys()).map(String::as_str));
        self.truth.sold.check(&of_all).context("truth.sold")?;
        if let Some(left) = &self.truth.left {
            left.check(&of_all).context("truth.left")?;
        }
        Ok(())
    }
}

fn check_template(text: &str, known: &[&str]) -> anyhow::Result<()> {
    let unknown = template::variables(text)?.into_iter().find(|name| !known.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        bail!("{{{{{unknown}}}}} in {text:?} is not known here; there are {}", known.join(", "));
    }
    Ok(())
}

impl Step {
    /// Its name, or what it requests.
    pub fn title(&self) -> &str {
        match (self.name.as_str(), &self.sql) {
            ("", Some(_)) => "sql",
            ("", None) => &self.path,
            (name, _) => name,
        }
    }

    fn check(&self, known: &[&str]) -> anyhow::Result<()> {
        let bodies = [self.json.is_some(), !self.form.is_empty(), self.body.is_some()];
        ensure!(
            bodies.iter().filter(|is_there| **is_there).count() <= 1,
            "json, form, body: only one of them"
        );
        match &self.sql {
            Some(sql) => {
                ensure!(self.path.is_empty(), "path, sql: only one of them");
                sql.check(known)?;
            }
            None => ensure!(!self.path.is_empty(), "path: must not be empty"),
        }
        check_template(&self.path, known).context("path")?;
        for (name, text) in &self.headers {
            check_template(text, known).with_context(|| format!("headers.{name}"))?;
        }
        for (name, text) in &self.form {
            check_template(text, known).with_context(|| format!("form.{name}"))?;
        }
        for text in self.body.iter() {
            check_template(text, known).context("body")?;
        }
        for text in self.json.iter().flat_map(template::texts) {
            check_template(text, known).context("json")?;
        }
        for (name, query) in &self.captures {
            query.check().with_context(|| format!("captures.{name}"))?;
        }
        for (what, matchers) in [("ok", &self.ok), ("refused", &self.refused)] {
            for matcher in matchers {
                matcher.check().context(what)?;
            }
        }
        Ok(())
    }
}

impl Sql {
    fn check(&self, known: &[&str]) -> anyhow::Result<()> {
        check_template(&self.database, known).context("sql.database")?;
        check_template(&self.statement, known).context("sql.statement")?;
        let scheme = self.database.split(':').next().unwrap_or_default();
        let is_known =
            ["postgres", "postgresql", "sqlite"].contains(&scheme) || self.database.starts_with("{{");
        ensure!(is_known, "sql.database: must be postgres://… or sqlite://…");
        Ok(())
    }
}

impl Query {
    fn check(&self) -> anyhow::Result<()> {
        let parts = [&self.jsonpath, &self.header, &self.regex, &self.css];
        let count = parts.iter().filter(|part| part.is_some()).count();
        ensure!(count == 1, "jsonpath, header, regex, css: exactly one of them");
        check_jsonpath(self.jsonpath.as_deref())?;
        check_regex("regex", self.regex.as_deref())?;
        if let Some(css) = &self.css {
            let parsed = scraper::Selector::parse(css);
            ensure!(parsed.is_ok(), "css: {css:?} is no selector");
        }
        Ok(())
    }
}

impl Matcher {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(*self != Self::default(), "a rule that says nothing matches everything");
        ensure!(self.equals.is_none() || self.jsonpath.is_some(), "equals: needs a jsonpath");
        if let Some(Status::Class(class)) = &self.status {
            let is_class =
                class.len() == 3 && class.ends_with("xx") && matches!(class.as_bytes()[0], b'1'..=b'5');
            ensure!(is_class, "status: {class:?} is neither a number nor a class such as \"2xx\"");
        }
        check_regex("matches", self.matches.as_deref())?;
        check_jsonpath(self.jsonpath.as_deref())
    }
}

impl Reading {
    fn check(&self, known: &[&str]) -> anyhow::Result<()> {
        match (&self.path, &self.sql) {
            (Some(path), None) => {
                check_template(path, known).context("path")?;
                ensure!(self.jsonpath.is_some(), "jsonpath: says where in the answer the number is");
                check_jsonpath(self.jsonpath.as_deref())
            }
            (None, Some(sql)) => sql.check(known),
            _ => bail!("path, sql: exactly one of them"),
        }
    }
}

fn check_jsonpath(path: Option<&str>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let parsed = serde_json_path::JsonPath::parse(path);
    parsed.map(drop).with_context(|| format!("jsonpath: {path:?} is no JSONPath (RFC 9535)"))
}

fn check_regex(key: &str, regex: Option<&str>) -> anyhow::Result<()> {
    let Some(regex) = regex else { return Ok(()) };
    regex::Regex::new(regex).map(drop).with_context(|| format!("{key}: {regex:?} is no regular expression"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_a_description_that_can_be_read() {
        let page = include_str!("../../docs/your-shop.md");
        let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let shop: Description = toml::from_str(block.expect("an example")).expect("it can be read");
        shop.check().expect("it can work");
        assert_eq!(shop.purchase.len(), 2);
    }
}
