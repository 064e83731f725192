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
    /// Headers of every request. They may have what a step captures; until then, such a header is left out.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What is done once before each run, by one who is no buyer: put `{{stock}}` units in stock, find ids.
    /// What it captures is known to all buyers.
    #[serde(default)]
    pub setup: Vec<Step>,
    /// What steps of `purchase` have that do not say otherwise: how their answers are read.
    #[serde(default)]
    pub defaults: Defaults,
    /// What a buyer does, in order. The first answer that is not ok is the last.
    pub purchase: Vec<Step>,
    /// Where the shop says what became of its stock.
    pub truth: Truth,
}

/// What steps of a purchase have that have no such key of their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// The path, where all steps have the same.
    pub path: Option<String>,
    /// The answers that let the purchase go on.
    pub ok: Option<Vec<Matcher>>,
    /// The answers that say that there is not enough in stock.
    pub refused: Option<Vec<Matcher>>,
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
    /// Instead of a request: statements for a database, such as those that reset the shop. In `setup` only.
    pub sql: Option<Sql>,
    /// Whether redirections are followed, so that the page at their end is the answer. Otherwise they are
    /// answers themselves.
    pub follow: bool,
    /// Whether this step makes the purchase, and not the last one. In `purchase` only.
    pub decides: bool,
    /// Whether the step that makes the purchase may be sent again, because it carries an idempotency key such
    /// as `{{key}}`, or what does as much: the shop has to answer with the same order, and sell nothing more.
    pub idempotent: bool,
    /// What is taken from the answer, as variables for the steps that follow.
    pub captures: BTreeMap<String, Query>,
    /// The answers that let the purchase go on, and that of the last step make it; any of status 200 to 299
    /// when absent.
    pub ok: Option<Vec<Matcher>>,
    /// The answers that say that there is not enough in stock; an empty list: none, whatever `defaults` says.
    pub refused: Option<Vec<Matcher>>,
}

/// A part of an answer: of its body by `jsonpath` or `css`, a `header`, or a `cookie`. With a `regex`, what
/// that matches in there; a `regex` alone looks into the body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// What a JSONPath (RFC 9535) finds in the body.
    pub jsonpath: Option<String>,
    /// The value of a header.
    pub header: Option<String>,
    /// The value of a cookie that the answer sets.
    pub cookie: Option<String>,
    /// What a CSS selector finds first in an HTML page: the `value` or `content` of an element, or its text.
    pub css: Option<String>,
    /// Instead of those, this attribute of the element that `css` finds.
    pub attribute: Option<String>,
    /// The first group of a regular expression's first match, or the match where it has no group.
    pub regex: Option<String>,
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
    /// Its URL: `postgres://USER:PASSWORD@HOST/DATABASE`, `mysql://…` (also MariaDB) or `sqlite://FILE`.
    pub database: String,
    /// The statements.
    pub statement: String,
}

/// The databases of which statements can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
}

impl DatabaseKind {
    /// The one of a URL.
    pub fn of(url: &str) -> Option<Self> {
        match url.split(':').next()? {
            "postgres" | "postgresql" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::Mysql),
            "sqlite" => Some(Self::Sqlite),
            _ => None,
        }
    }
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
    /// How many units another part of the shop counts as sold, such as reservations or allocations: it has to
    /// rise by as many as `sold`.
    #[serde(default)]
    pub reserved: Option<Reading>,
    /// The identities of all orders. Each that a buyer has captured as `order` has to be there, and no other.
    #[serde(default)]
    pub orders: Option<Reading>,
}

/// The variable by which a buyer's order is looked for among `truth.orders`.
pub const ORDER: &str = "order";

/// Numbers or identities, and where they are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reading {
    /// The answer to a request has it,
    pub path: Option<String>,
    /// with these headers,
    pub headers: BTreeMap<String, String>,
    /// at this JSONPath: a number, or several whose sum counts; of `orders`, the identities.
    pub jsonpath: Option<String>,
    /// Or it is the first column of a query: of its only row; of `orders`, of all rows.
    pub sql: Option<Sql>,
}

/// What a description may have, as a JSON Schema: editors complete and check a file with it.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Description).to_value();
    schema["title"] = "A shop, for loadtest run --target-file".into();
    schema
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
            let filled = check_template(target, &GIVEN).and_then(|()| Variables::new().fill(target));
            *target = filled.with_context(|| format!("in {}: targets", file.display()))?;
        }
        shop.apply_defaults();
        shop.check().with_context(|| format!("in {}", file.display()))?;
        Ok(shop)
    }

    fn apply_defaults(&mut self) {
        let defaults = &self.defaults;
        for step in &mut self.purchase {
            if step.path.is_empty() && step.sql.is_none() {
                step.path = defaults.path.clone().unwrap_or_default();
            }
            if step.ok.is_none() {
                step.ok.clone_from(&defaults.ok);
            }
            if step.refused.is_none() {
                step.refused.clone_from(&defaults.refused);
            }
        }
    }

    /// The number of the step that makes a purchase, from 0.
    pub fn deciding(&self) -> usize {
        let decides = self.purchase.iter().position(|step| step.decides);
        decides.unwrap_or(self.purchase.len().saturating_sub(1))
    }

    /// The step that makes a purchase.
    pub fn deciding_step(&self) -> Option<&Step> {
        self.purchase.get(self.deciding())
    }

    /// Whether that may be sent again.
    pub fn is_idempotent(&self) -> bool {
        self.deciding_step().is_some_and(|step| step.idempotent)
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
        let all_steps = self.setup.iter().chain(&self.purchase);
        let in_the_end: Vec<&str> = known
            .iter()
            .copied()
            .chain(all_steps.flat_map(|step| step.captures.keys().map(String::as_str)))
            .collect();
        for (name, text) in &self.headers {
            check_template(text, &in_the_end).with_context(|| format!("headers.{name}"))?;
        }
        for (part, steps) in [("setup", &self.setup), ("purchase", &self.purchase)] {
            for (number, step) in steps.iter().enumerate() {
                let context = || format!("{part}, step {}: {}", number + 1, step.title());
                step.check(&known).with_context(context)?;
                if part == "purchase" {
                    step.check_of_purchase(number == self.deciding()).with_context(context)?;
                } else {
                    let of_purchase = step.idempotent || step.decides || step.refused.is_some();
                    let which = "idempotent, decides, refused: only in a step of purchase";
                    ensure!(!of_purchase, "{}: {which}", context());
                }
                known.extend(step.captures.keys().map(String::as_str));
            }
        }
        if self.truth.orders.is_some() {
            let is_captured = self.purchase.iter().any(|step| step.captures.contains_key(ORDER));
            ensure!(
                is_captured,
                "truth.orders: a step of purchase has to capture the identity of the buyer's own as {ORDER:?}"
            );
        }
        // What buyers capture is not known to the truth, which is of all of them.
        let mut of_all: Vec<&str> = GIVEN.to_vec();
        of_all.extend(self.variables.keys().map(String::as_str));
        of_all.extend(self.setup.iter().flat_map(|step| step.captures.keys()).map(String::as_str));
        for (name, reading) in self.truth.readings() {
            reading.check(&of_all).with_context(|| format!("truth.{name}"))?;
        }
        Ok(())
    }
}

fn check_template(text: &str, known: &[&str]) -> anyhow::Result<()> {
    let unknown = template::variables(text)?.into_iter().find(|name| !known.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        bail!("{{{{{unknown}}}}} in {text:?} is not known here; there are {}", known.join(", "));
    }
    if let Some(missing) = template::missing_in_environment(text)?.first() {
        bail!("the environment has no {missing}, which {text:?} names");
    }
    Ok(())
}

impl Truth {
    /// All readings that there are, with their names.
    pub fn readings(&self) -> impl Iterator<Item = (&'static str, &Reading)> {
        let optional = [("left", &self.left), ("reserved", &self.reserved), ("orders", &self.orders)];
        let optional = optional.into_iter().filter_map(|(name, reading)| Some((name, reading.as_ref()?)));
        std::iter::once(("sold", &self.sold)).chain(optional)
    }
}

impl Step {
    /// The rules under `ok`; none, where any status of 200 to 299 is.
    pub fn ok(&self) -> &[Matcher] {
        self.ok.as_deref().unwrap_or_default()
    }

    /// The rules under `refused`.
    pub fn refused(&self) -> &[Matcher] {
        self.refused.as_deref().unwrap_or_default()
    }

    /// Its name, or what it requests.
    pub fn title(&self) -> &str {
        match (self.name.as_str(), &self.sql) {
            ("", Some(_)) => "sql",
            ("", None) => &self.path,
            (name, _) => name,
        }
    }

    fn check_of_purchase(&self, is_deciding: bool) -> anyhow::Result<()> {
        ensure!(self.sql.is_none(), "sql: buyers have no access to a shop's database; only setup may");
        let which = "only the step that makes the purchase, which is the last one, or one that decides";
        ensure!(!self.idempotent || is_deciding, "idempotent: {which}");
        ensure!(!self.decides || is_deciding, "decides: another step does");
        Ok(())
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
            for matcher in matchers.iter().flatten() {
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
        let is_known =
            DatabaseKind::of(&self.database).is_some() || self.database.trim_start().starts_with("{{");
        ensure!(is_known, "sql.database: must be postgres://…, mysql://… or sqlite://…");
        Ok(())
    }
}

impl Query {
    fn check(&self) -> anyhow::Result<()> {
        let parts = [&self.jsonpath, &self.header, &self.cookie, &self.css];
        let count = parts.iter().filter(|part| part.is_some()).count();
        let is_one = count == 1 || count == 0 && self.regex.is_some();
        ensure!(is_one, "jsonpath, header, cookie, css, or regex alone: exactly one of them");
        ensure!(self.attribute.is_none() || self.css.is_some(), "attribute: needs a css");
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
            let is_class = class.len() == 3
                && class.to_lowercase().ends_with("xx")
                && matches!(class.as_bytes()[0], b'1'..=b'5');
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
                for (name, text) in &self.headers {
                    check_template(text, known).with_context(|| format!("headers.{name}"))?;
                }
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
    ensure!(path.starts_with('$'), "jsonpath: {path:?} must begin with $, which is the whole body");
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
    fn the_schema_for_editors_is_that_of_the_code() {
        let written: Value = serde_json::from_str(include_str!("../../docs/shop.schema.json")).unwrap();
        assert_eq!(written, schema(), "`make schema` writes it anew");
        let described = |schema: &Value| {
            schema["properties"].as_object().is_some_and(|properties| {
                properties.values().all(|property| property["description"].is_string())
            })
        };
        let definitions = written["$defs"].as_object().expect("there are definitions");
        let objects = definitions.values().filter(|definition| definition["type"] == "object");
        assert!(described(&written) && objects.clone().all(described), "every key has its help text");
        assert!(objects.clone().all(|object| object["additionalProperties"] == false));
    }

    #[test]
    fn the_page_shows_a_description_that_can_be_read() {
        let page = include_str!("../../docs/your-shop.md");
        let mut blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let whole = blocks.next().expect("an example");
        let shop: Description = toml::from_str(whole).expect("it can be read");
        shop.check().expect("it can work");
        assert_eq!(shop.purchase.len(), 2);
        // The others are parts, each of which can stand in that one.
        let (head, truth) = whole.split_once("[truth.sold]").expect("it has a truth");
        let (top, purchase) = head.split_once("[[setup]]").expect("it has a set-up");
        let mut parts = 0;
        for part in blocks {
            let text = match part {
                part if part.starts_with("[[setup]]") => format!("{head}{part}[truth.sold]{truth}"),
                part if part.starts_with("captures") => format!("{head}{part}[truth.sold]{truth}"),
                part if part.starts_with("[truth") => format!("{head}captures.order.regex = '.'\n{part}"),
                part => format!("{top}{part}[[setup]]{purchase}[truth.sold]{truth}"),
            };
            let mut shop: Description = toml::from_str(&text).unwrap_or_else(|why| panic!("{why}: {part}"));
            shop.apply_defaults();
            shop.check().unwrap_or_else(|why| panic!("{why:#}: {part}"));
            parts += 1;
        }
        assert_eq!(parts, 4);
        let readme = include_str!("../../../README.md");
        let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let shop: Description = toml::from_str(block.expect("an example")).expect("it can be read");
        shop.check().expect("it can work");
    }
}
