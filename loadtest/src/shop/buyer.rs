//! A buyer: a session of his own, in which he takes the steps of a purchase.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Url};
use serde_json::Value;

use super::answer::Answer;
use super::database;
use super::description::{Description, Step};
use super::template::Variables;

/// What came of a purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The shop says that it is made.
    Bought,
    /// The shop says that there is not enough in stock.
    Refused,
    /// The answer says neither, or there is none: the units may be sold or not.
    Unknown {
        /// The step at which it ended, and what was received.
        why: String,
    },
}

/// A step that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// What it is called.
    pub step: String,
    /// What was captured.
    pub captured: Vec<(String, Value)>,
    /// What was received, or why nothing was.
    pub received: String,
    /// How it was read: `ok`, `refused` or `unknown`.
    pub read_as: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// A purchase that was tried.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// What came of it.
    pub outcome: Outcome,
    /// Its steps, as far as it went.
    pub steps: Vec<Taken>,
    /// When the first request was sent.
    pub begun: Instant,
    /// When the last answer was there.
    pub ended: Instant,
}

/// A session: cookies, and the connections of one buyer to one process of the shop.
pub struct Session {
    client: Client,
    base: Url,
    timeout: Duration,
}

impl Session {
    /// A fresh session with the process number `index` of the shop, around and around.
    pub fn open(shop: &Description, index: usize, timeout: Duration) -> anyhow::Result<Self> {
        let target = &shop.targets[index % shop.targets.len()];
        // Whoever was first has chosen: an error says no more.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut client = Client::builder().cookie_store(true).redirect(Policy::none()).timeout(timeout);
        if let Some(file) = &shop.ca_file {
            let pem =
                std::fs::read(file).with_context(|| format!("ca_file: cannot read {}", file.display()))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("ca_file: {} has no certificate", file.display()))?;
            client = client.tls_certs_merge(certificates);
        }
        let base = target.parse().with_context(|| format!("targets: {target:?}"))?;
        Ok(Self { client: client.build().context("cannot make an HTTP client")?, base, timeout })
    }

    /// Takes one step.
    pub async fn send(
        &self,
        shop: &Description,
        step: &Step,
        variables: &Variables,
    ) -> anyhow::Result<Answer> {
        let path = variables.fill(&step.path)?;
        let url = match Url::parse(&path) {
            Ok(url) => url,
            Err(_) => {
                let joined =
                    format!("{}/{}", self.base.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
                joined.parse().with_context(|| format!("path: {path:?}"))?
            }
        };
        let has_body = step.json.is_some() || !step.form.is_empty() || step.body.is_some();
        let method = step.method.as_deref().unwrap_or(if has_body { "POST" } else { "GET" });
        let method = Method::from_bytes(method.to_uppercase().as_bytes())
            .with_context(|| format!("method: {method:?}"))?;
        let mut request = self.client.request(method, url.clone());
        // Those of the step win.
        for (name, text) in
            shop.headers.iter().filter(|(name, _)| !step.headers.contains_key(*name)).chain(&step.headers)
        {
            request = request.header(name, variables.fill(text).with_context(|| format!("headers.{name}"))?);
        }
        if let Some(json) = &step.json {
            request = request.json(&variables.fill_json(json).context("json")?);
        } else if !step.form.is_empty() {
            let mut fields = form_urlencoded::Serializer::new(String::new());
            for (name, text) in &step.form {
                fields.append_pair(name, &variables.fill(text).with_context(|| format!("form.{name}"))?);
            }
            request =
                request.header("content-type", "application/x-www-form-urlencoded").body(fields.finish());
        } else if let Some(body) = &step.body {
            request = request.body(variables.fill(body).context("body")?);
        }
        let response = request.send().await.map_err(|error| self.explain(&url, error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.map_err(|error| self.explain(&url, error))?;
        Ok(Answer { status, headers, body })
    }

    /// The innermost cause is what a person needs.
    fn explain(&self, url: &Url, error: reqwest::Error) -> anyhow::Error {
        if error.is_timeout() {
            return anyhow::anyhow!("{url}: no answer within {} s", self.timeout.as_secs_f64());
        }
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        anyhow::anyhow!("{url}: {cause}")
    }
}

/// Takes the steps of the set-up. Returns what they captured, with what there was before.
pub async fn set_up(
    shop: &Description,
    session: &Session,
    variables: &Variables,
) -> anyhow::Result<Variables> {
    let mut variables = variables.clone();
    for (number, step) in shop.setup.iter().enumerate() {
        let context = || format!("setup, step {}: {}", number + 1, step.title());
        if let Some(sql) = &step.sql {
            database::execute(sql, &variables).await.with_context(context)?;
            continue;
        }
        let answer = session.send(shop, step, &variables).await.with_context(context)?;
        if read(step, &answer) != "ok" {
            return Err(anyhow::anyhow!("not ok: {}", answer.shown())).with_context(context);
        }
        for (name, query) in &step.captures {
            let value =
                answer.capture(query).with_context(|| format!("captures.{name}")).with_context(context)?;
            variables.set(name, value);
        }
    }
    Ok(variables)
}

/// Makes one purchase, as far as the shop lets it.
pub async fn purchase(shop: &Description, session: &Session, mut variables: Variables) -> Purchase {
    let begun = Instant::now();
    let mut steps = Vec::new();
    let mut outcome = Outcome::Bought;
    for step in &shop.purchase {
        let sent = Instant::now();
        let answer = session.send(shop, step, &variables).await;
        let took = sent.elapsed();
        let title = step.title().to_owned();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let received = format!("{error:#}");
                outcome = Outcome::Unknown { why: format!("{title}: {received}") };
                steps.push(Taken { step: title, captured: Vec::new(), received, read_as: "unknown", took });
                break;
            }
        };
        let read_as = read(step, &answer);
        let mut taken = Taken { step: title, captured: Vec::new(), received: answer.shown(), read_as, took };
        let mut missing = None;
        if read_as == "ok" {
            for (name, query) in &step.captures {
                match answer.capture(query) {
                    Ok(value) => {
                        variables.set(name, value.clone());
                        taken.captured.push((name.clone(), value));
                    }
                    Err(error) => missing = Some(format!("captures.{name}: {error:#}")),
                }
            }
        }
        let step = taken.step.clone();
        let received = taken.received.clone();
        if missing.is_some() {
            taken.read_as = "unknown";
        }
        steps.push(taken);
        outcome = match (read_as, missing) {
            (_, Some(missing)) => Outcome::Unknown { why: format!("{step}: {missing}") },
            ("ok", None) => continue,
            ("refused", None) => Outcome::Refused,
            _ => Outcome::Unknown { why: format!("{step}: neither ok nor refused: {received}") },
        };
        break;
    }
    Purchase { outcome, steps, begun, ended: Instant::now() }
}

/// How an answer is read. What says both is refused: shops say "200, but".
fn read(step: &Step, answer: &Answer) -> &'static str {
    let is = |matchers: &[super::description::Matcher]| matchers.iter().any(|matcher| answer.is(matcher));
    if is(&step.refused) {
        "refused"
    } else if if step.ok.is_empty() { (200..300).contains(&answer.status) } else { is(&step.ok) } {
        "ok"
    } else {
        "unknown"
    }
}
