//! A buyer: a session of his own, in which he takes the steps of a purchase.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, Url};
use rustls::ClientConfig;
use rustls::client::Resumption;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Answer, shortened};
use super::database;
use super::description::{Description, Matcher, ORDER, Step};
use super::owner::Owner;
use super::template::{Variables, text};
use super::trust::trusted;

/// How many redirections are followed, where a step follows them.
const MAX_REDIRECTIONS: usize = 10;

/// How an answer is called that no rule knows.
pub const NEITHER: &str = "neither ok nor refused";

/// What came of a purchase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
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

impl Outcome {
    /// Whether the shop has said what came of it.
    pub fn is_clear(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }
}

/// How an answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadAs {
    /// It lets the purchase go on; that of the last step makes it.
    Ok,
    /// It says that there is not enough in stock.
    Refused,
    /// It says neither.
    Unknown,
}

impl fmt::Display for ReadAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// A step that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// What it is called.
    pub step: String,
    /// What was sent, but for the values of headers, which may be secret.
    pub sent: String,
    /// What was captured.
    pub captured: Vec<(String, Value)>,
    /// What was received, or why nothing was.
    pub received: String,
    /// How it was read.
    pub read_as: ReadAs,
    /// How long it took.
    pub took: Duration,
}

/// The last step of a purchase, sent once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    /// How the answer was read.
    pub read_as: ReadAs,
    /// The order that it names, where the description captures one.
    pub order: Option<String>,
}

/// A purchase that was tried.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// What came of it.
    pub outcome: Outcome,
    /// Its steps, as far as it went.
    pub steps: Vec<Taken>,
    /// The order that the shop has confirmed, where the description captures it.
    pub order: Option<String>,
    /// What came of its last step, where that was sent again.
    pub resent: Option<Resent>,
    /// When the first request was sent.
    pub begun: Instant,
    /// When the step was sent that makes it, if it came to that.
    pub decided: Option<Instant>,
    /// When the last answer was there.
    pub ended: Instant,
}

impl Purchase {
    /// Whether the shop has confirmed it.
    pub fn is_confirmed(&self) -> bool {
        self.outcome == Outcome::Bought
    }

    /// The answer that was taken for a refusal, with its step.
    pub fn refusal(&self) -> Option<String> {
        let last = self.steps.last().filter(|_| self.outcome == Outcome::Refused)?;
        Some(format!("{}: {}", last.step, last.received))
    }
}

/// Whether the last step of a purchase is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// It is not.
    Never,
    /// After the answer, to the same process.
    Afterwards,
    /// At the same time, to another process of the shop, where there is one.
    AtOnce,
}

/// Sessions of a shop, all with the same limits.
#[derive(Debug, Clone)]
pub struct Door {
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// At which hosts orders may be made.
    pub owner: Owner,
    /// Whom they trust: read once, since it takes longer than many an order.
    tls: Arc<OnceLock<ClientConfig>>,
}

impl Door {
    /// A door of one shop.
    pub fn new(timeout: Duration, owner: Owner) -> Self {
        Self { timeout, owner, tls: Arc::default() }
    }

    /// A fresh session with the process number `index` of the shop, around and around.
    pub fn open(&self, shop: &Description, index: usize) -> anyhow::Result<Session> {
        let target = &shop.targets[index % shop.targets.len()];
        let base: Url = target.parse().with_context(|| format!("targets: {target:?}"))?;
        let tls = match self.tls.get() {
            Some(tls) => tls,
            None => {
                let read = trusted(shop)?;
                self.tls.get_or_init(|| read)
            }
        };
        let client = Client::builder().cookie_store(true).redirect(Policy::none()).timeout(self.timeout);
        // Sessions of TLS are a buyer's own.
        let mut tls = tls.clone();
        tls.resumption = Resumption::default();
        let client = client.tls_backend_preconfigured(tls);
        let client = client.build().context("cannot make an HTTP client")?;
        Ok(Session { client, base, door: self.clone() })
    }
}

/// A session: cookies, and the connections of one buyer to one process of the shop.
#[derive(Debug, Clone)]
pub struct Session {
    client: Client,
    base: Url,
    door: Door,
}

impl Session {
    /// How long an answer is waited for.
    pub fn timeout(&self) -> Duration {
        self.door.timeout
    }

    /// At which hosts orders may be made.
    pub fn owner(&self) -> &Owner {
        &self.door.owner
    }

    /// The same session, cookies and all, with another process of the shop.
    fn at(&self, target: &str) -> anyhow::Result<Self> {
        let base = target.parse().with_context(|| format!("targets: {target:?}"))?;
        Ok(Self { base, ..self.clone() })
    }

    /// Sends the request of one step.
    pub async fn send(
        &self,
        shop: &Description,
        step: &Step,
        variables: &Variables,
    ) -> anyhow::Result<Answer> {
        self.carry(self.request(shop, step, variables)?, step.follow).await
    }

    /// The request of one step.
    fn request(&self, shop: &Description, step: &Step, variables: &Variables) -> anyhow::Result<Request> {
        let path = variables.fill(&step.path).context("path")?;
        let url = match Url::parse(&path) {
            Ok(url) => url,
            Err(_) => {
                let joined =
                    format!("{}/{}", self.base.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
                joined.parse().with_context(|| format!("path: {path:?}"))?
            }
        };
        // A path may be a whole URL, which the shop may have named.
        self.door.owner.check(&url)?;
        let has_body = step.json.is_some() || !step.form.is_empty() || step.body.is_some();
        let method = step.method.as_deref().unwrap_or(if has_body { "POST" } else { "GET" });
        let method = Method::from_bytes(method.to_uppercase().as_bytes())
            .with_context(|| format!("method: {method:?}"))?;
        let mut request = self.client.request(method, url.clone());
        // Those of the step win.
        for (name, text) in shop.headers.iter().filter(|(name, _)| !step.headers.contains_key(*name)) {
            // One of what is not captured yet is left out.
            if variables.has_all_of(text)? {
                request =
                    request.header(name, variables.fill(text).with_context(|| format!("headers.{name}"))?);
            }
        }
        for (name, text) in &step.headers {
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
        request.build().with_context(|| format!("cannot make a request for {url}"))
    }

    /// Sends a request, and follows redirections where that is asked for.
    async fn carry(&self, request: Request, follow: bool) -> anyhow::Result<Answer> {
        let mut url = request.url().clone();
        let mut response = self.client.execute(request).await.map_err(|error| self.explain(&url, error))?;
        let mut followed = 0;
        while follow
            && response.status().is_redirection()
            && let Some(location) = response.headers().get(LOCATION)
        {
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            ensure!(
                followed < MAX_REDIRECTIONS,
                "more than {MAX_REDIRECTIONS} redirections, the last to \
             {location}"
            );
            url = url.join(&location).with_context(|| format!("a redirection to {location:?}"))?;
            self.door.owner.check(&url)?;
            response =
                self.client.get(url.clone()).send().await.map_err(|error| self.explain(&url, error))?;
            followed += 1;
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let cookies = response.cookies().map(|cookie| (cookie.name().into(), cookie.value().into()));
        let cookies = cookies.collect();
        let body = response.text().await.map_err(|error| self.explain(&url, error))?;
        Ok(Answer { status, headers, cookies, body })
    }

    /// The innermost cause is what a person needs.
    fn explain(&self, url: &Url, error: reqwest::Error) -> anyhow::Error {
        if error.is_timeout() {
            return anyhow::anyhow!("{url}: no answer within {} s", self.door.timeout.as_secs_f64());
        }
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        anyhow::anyhow!("{url}: {cause}")
    }
}

/// Takes the steps of the set-up. Returns what they captured, with what there was before, and what was taken.
pub async fn set_up(
    shop: &Description,
    session: &Session,
    variables: &Variables,
) -> anyhow::Result<(Variables, Vec<Taken>)> {
    let mut variables = variables.clone();
    let mut steps = Vec::new();
    for (number, step) in shop.setup.iter().enumerate() {
        let context = || format!("setup, step {}: {}", number + 1, step.title());
        let sent = Instant::now();
        let mut taken = Taken {
            step: step.title().into(),
            sent: String::new(),
            captured: Vec::new(),
            received: String::new(),
            read_as: ReadAs::Ok,
            took: Duration::ZERO,
        };
        if let Some(sql) = &step.sql {
            let owner = session.owner();
            database::execute(sql, &variables, owner, session.timeout()).await.with_context(context)?;
            taken.received = "done".into();
        } else {
            let request = session.request(shop, step, &variables).with_context(context)?;
            taken.sent = shown(&request);
            let answer = session.carry(request, step.follow).await.with_context(context)?;
            if read(step, &answer) != ReadAs::Ok {
                let error = anyhow::anyhow!("not ok: {} (sent: {})", answer.shown(), taken.sent);
                return Err(error).with_context(context);
            }
            taken.captured = capture(step, &answer).with_context(context)?;
            taken.received = answer.shown();
        }
        for (name, value) in &taken.captured {
            variables.set(name, value.clone());
        }
        steps.push(Taken { took: sent.elapsed(), ..taken });
    }
    Ok((variables, steps))
}

/// All that a step takes from its answer.
fn capture(step: &Step, answer: &Answer) -> anyhow::Result<Vec<(String, Value)>> {
    let captures = step.captures.iter().map(|(name, query)| {
        let value = answer.capture(query).with_context(|| format!("captures.{name}"))?;
        Ok((name.clone(), value))
    });
    captures.collect()
}

/// Makes one purchase, as far as the shop lets it. The step that decides waits for `before_last`.
pub async fn purchase(
    shop: &Description,
    session: &Session,
    mut variables: Variables,
    resend: Resend,
    before_last: impl Future<Output = ()>,
) -> Purchase {
    let mut before_last = pin!(before_last);
    let begun = Instant::now();
    let mut purchase = Purchase {
        outcome: Outcome::Bought,
        steps: Vec::new(),
        order: None,
        resent: None,
        begun,
        decided: None,
        ended: begun,
    };
    for (number, step) in shop.purchase.iter().enumerate() {
        let is_deciding = number == shop.deciding();
        if is_deciding {
            before_last.as_mut().await;
            purchase.decided = Some(Instant::now());
        }
        let (taken, outcome) = if is_deciding && resend == Resend::AtOnce {
            let (first, twin) =
                tokio::join!(take(shop, session, step, &variables), twin(shop, session, step, &variables));
            purchase.resent = Some(twin);
            first
        } else {
            take(shop, session, step, &variables).await
        };
        for (name, value) in &taken.captured {
            variables.set(name, value.clone());
        }
        let is_over = outcome.is_some();
        purchase.steps.push(taken);
        purchase.outcome = outcome.unwrap_or(Outcome::Bought);
        if is_over {
            break;
        }
    }
    purchase.ended = Instant::now();
    let confirmed = purchase.outcome == Outcome::Bought;
    purchase.order = variables.text(ORDER).filter(|_| confirmed);
    // Either answer may be the one that tells of the order.
    if let Some(twin) = purchase.resent.as_ref().filter(|twin| !confirmed && twin.read_as == ReadAs::Ok) {
        purchase.outcome = Outcome::Bought;
        purchase.order.clone_from(&twin.order);
    }
    if confirmed
        && resend == Resend::Afterwards
        && let Some(step) = shop.deciding_step()
    {
        purchase.resent = Some(again(shop, session, step, &variables).await);
    }
    purchase
}

/// Takes one step. The outcome is there when it is the last that can be taken.
async fn take(
    shop: &Description,
    session: &Session,
    step: &Step,
    variables: &Variables,
) -> (Taken, Option<Outcome>) {
    let begun = Instant::now();
    let title = step.title().to_owned();
    let (answer, sent) = match session.request(shop, step, variables) {
        Ok(request) => {
            let sent = shown(&request);
            (session.carry(request, step.follow).await, sent)
        }
        Err(error) => (Err(error), String::new()),
    };
    let mut taken = Taken {
        step: title.clone(),
        sent,
        captured: Vec::new(),
        received: String::new(),
        read_as: ReadAs::Unknown,
        took: begun.elapsed(),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            taken.received = format!("{error:#}");
            let why = format!("{title}: {}", taken.received);
            return (taken, Some(Outcome::Unknown { why }));
        }
    };
    taken.received = answer.shown();
    taken.read_as = read(step, &answer);
    let outcome = match taken.read_as {
        ReadAs::Ok => match capture(step, &answer) {
            Ok(captured) => {
                taken.captured = captured;
                None
            }
            Err(error) => {
                taken.read_as = ReadAs::Unknown;
                Some(Outcome::Unknown { why: format!("{title}: {error:#}") })
            }
        },
        ReadAs::Refused => Some(Outcome::Refused),
        ReadAs::Unknown => Some(Outcome::Unknown { why: format!("{title}: {NEITHER}: {}", taken.received) }),
    };
    (taken, outcome)
}

/// Sends the last step to the process of the shop that comes after the session's.
async fn twin(shop: &Description, session: &Session, step: &Step, variables: &Variables) -> Resent {
    let here =
        shop.targets.iter().position(|target| target.parse().is_ok_and(|url: Url| url == session.base));
    let next = &shop.targets[here.map_or(0, |here| (here + 1) % shop.targets.len())];
    match session.at(next) {
        Ok(there) => again(shop, &there, step, variables).await,
        Err(_) => Resent { read_as: ReadAs::Unknown, order: None },
    }
}

/// Sends the last step once more.
async fn again(shop: &Description, session: &Session, step: &Step, variables: &Variables) -> Resent {
    let (taken, _) = take(shop, session, step, variables).await;
    let order = taken.captured.iter().find(|(name, _)| name == ORDER);
    let order = order.map(|(_, value)| text(value));
    Resent { read_as: taken.read_as, order }
}

/// A request for people: its method, where it goes, the names of its headers, and the beginning of its body.
fn shown(request: &Request) -> String {
    let headers: Vec<_> = request.headers().keys().map(reqwest::header::HeaderName::as_str).collect();
    let body = request.body().and_then(reqwest::Body::as_bytes).map(String::from_utf8_lossy);
    let mut text = format!("{} {}", request.method(), request.url());
    if !headers.is_empty() {
        text += &format!(" [{}]", headers.join(", "));
    }
    if let Some(body) = body {
        text += &format!(" {}", shortened(&body));
    }
    text
}

/// How an answer is read. What says both is refused: shops say "200, but".
fn read(step: &Step, answer: &Answer) -> ReadAs {
    let is = |matchers: &[Matcher]| matchers.iter().any(|matcher| answer.is(matcher));
    if is(step.refused()) {
        ReadAs::Refused
    } else if if step.ok().is_empty() { (200..300).contains(&answer.status) } else { is(step.ok()) } {
        ReadAs::Ok
    } else {
        ReadAs::Unknown
    }
}
