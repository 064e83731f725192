//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use loadtest::bench;
use loadtest::client::Client;
use loadtest::compare::{self, Faults, Length, Plan};
use loadtest::dashboard;
use loadtest::experiments;
use loadtest::faults::{FORMS, Schedule};
use loadtest::fleet::{LEASE, StoreKind};
use loadtest::laboratory::Laboratory;
use loadtest::progress::Progress;
use loadtest::report::{Conclusion, Report, Thresholds, comparison, details, html};
use loadtest::scenario::Scenario;
use loadtest::soak;
use order_service::app::{self, App, stop_signal};
use order_service::config::{Config, Sources, StrategyName};
use order_service::telemetry;
use tokio_util::sync::CancellationToken;

/// Fires concurrent purchases at an order service and proves whether any stock was oversold.
///
/// Exit codes: 0 every verdict is as expected; 1 something is violated; 2 inconclusive; 64 usage, or the run
/// could not be made; 99 a threshold was missed; 130 ended at once by a second Ctrl-C.
#[derive(Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Every strategy that can run here, on a private store: the verdict table (the default)
    Demo(Demo),
    /// One run against a deployment
    Run(Run),
    /// Strategies side by side, in a laboratory
    Compare(Compare),
    /// The claims of the course, tried
    Experiment(Experiment),
    /// A great many orders over a great many faults, on PostgreSQL, until something breaks or nothing has
    Soak(Soak),
    /// The speed of it all, in ratios to plain SQL, to doing nothing, and to another load generator
    Bench(Bench),
    /// The web page: choose a strategy, press Run, see whether anything is oversold
    Dashboard(Dashboard),
    /// Real servers and replicas to play with, until Ctrl-C
    Lab(Lab),
    /// One replica of the service: what the laboratory starts
    Serve(Serve),
}

impl Command {
    /// Whether it fires a load that can be stopped, and judged by what was done.
    pub fn is_load(&self) -> bool {
        matches!(self, Self::Demo(_) | Self::Run(_) | Self::Compare(_) | Self::Soak(_))
    }
}

impl Default for Command {
    fn default() -> Self {
        Self::Demo(Demo::parse_from(["demo"]))
    }
}

#[derive(Parser)]
pub struct Demo {
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Run {
    /// The address of a replica, such as http://127.0.0.1:8080; once for each
    #[arg(long, required = true, value_name = "URL", value_parser = target)]
    target: Vec<String>,
    /// The service's admin.token
    #[arg(long, env = "STOCKLOCK_ADMIN_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// What to burden the deployment with besides: slow-clients, which send their requests byte by byte
    #[arg(long = "fault", value_name = "FAULT", value_parser = fault)]
    faults: Vec<String>,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Compare {
    /// The strategies to compare, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = StrategyName::ALL)]
    strategies: Vec<StrategyName>,
    /// The store: a file, or a PostgreSQL server of the laboratory's own
    #[arg(long, value_enum, default_value_t = StoreKind::Sqlite)]
    store: StoreKind,
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// How often to run each strategy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// A key of the service's configuration with its value, such as checkout.max_batch=1; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    #[arg(long = "fault", help = format!("What to break meanwhile, separated by commas: {FORMS}, which goes on until the end"), value_name = "FAULT@TIME", value_parser = fault, action = clap::ArgAction::Append)]
    faults: Vec<String>,
    /// Do not fire the same load at a shop without a lock beside the others: whether it breaks that one says what their
    /// verdicts are worth
    #[arg(long)]
    no_control: bool,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Experiment {
    /// `list`, `all`, or names from the list
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Write what was observed to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write it as a page for people
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Args)]
pub struct Soak {
    /// The strategies, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [StrategyName::Database, StrategyName::Redis, StrategyName::Zookeeper])]
    strategies: Vec<StrategyName>,
    /// Orders that have to be sent under each strategy, repetitions left out
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    orders: u64,
    /// Faults that have to strike under each strategy
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    faults: u64,
    /// Orders of a round; each has servers and replicas of its own
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    round: u64,
    /// Orders per second
    #[arg(long, default_value_t = 1_000.0, allow_negative_numbers = true, value_parser = positive)]
    rate: f64,
    /// Buyers at the same time, at the most
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    buyers: u32,
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// A key of the service's configuration with its value, such as checkout.guard=off; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    /// What orders and faults are drawn from
    #[arg(long, default_value_t = 2026)]
    seed: u64,
    /// How long a round that fails is made smaller
    #[arg(long, default_value = "15m", value_name = "TIME", value_parser = humantime::parse_duration)]
    minimise_for: Duration,
    /// Write the report to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table to a file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Args)]
pub struct Bench {
    /// How often to measure everything, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How long each measurement is, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Groups such as hot, or rows such as hot/redis, separated by commas
    #[arg(long, value_name = "ROW", value_delimiter = ',', value_parser = bench_row)]
    only: Vec<String>,
    /// Write the report to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table to a file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Args)]
pub struct Lab {
    /// The locking strategy of the replicas
    #[arg(long, default_value_t = StrategyName::Database)]
    strategy: StrategyName,
    /// The store of the replicas
    #[arg(long, value_enum, default_value_t = StoreKind::Postgres)]
    store: StoreKind,
    /// Replicas of the service
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// A key of the service's configuration with its value, such as checkout.max_batch=1; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
}

#[derive(Args)]
pub struct Dashboard {
    /// Where to listen; an address of this machine only
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS", value_parser = dashboard::loopback)]
    listen: std::net::SocketAddr,
    /// The directory for past runs [default: $XDG_STATE_HOME/stocklock or ~/.local/state/stocklock]
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

#[derive(Args)]
pub struct Serve {
    /// End when standard input ends
    #[arg(long, hide = true)]
    die_with_parent: bool,
    #[command(flatten)]
    sources: Sources,
}

/// Units in stock, where nobody says how many.
const STOCK: i64 = 2_000;

/// The load.
#[derive(Args)]
struct Load {
    /// Buyers at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    buyers: u32,
    /// Stop after so many orders [default: 4000; with faults, until 5 s after the last]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    orders: Option<u64>,
    /// Stop after so long instead, such as 10s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "orders")]
    duration: Option<Duration>,
    /// Orders per second (open loop: latency is measured from the intended start)
    #[arg(long, allow_negative_numbers = true, value_parser = positive)]
    rate: Option<f64>,
    /// Units in stock at the beginning [default: 2000]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    stock: Option<i64>,
    /// Put more in stock whenever little is left, for so long, or always; 0s: not at all [default: until the faults are
    /// over; with --duration and without --stock, for four fifths of it]
    #[arg(long, value_name = "TIME", value_parser = top_up)]
    top_up: Option<Duration>,
    /// Units per order: a number, or a range such as 1..3
    #[arg(long, default_value = "1", value_name = "N or N..M", allow_hyphen_values = true, value_parser = quantity)]
    quantity: RangeInclusive<i64>,
    /// The share of confirmed orders that is sent again with the same idempotency key
    #[arg(long, default_value_t = 0.02, allow_negative_numbers = true, value_parser = share)]
    replays: f64,
    /// The share of confirmed orders that is given back
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    cancels: f64,
    /// The share of attempts after which as many units are put in stock as they asked for
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    restocks: f64,
    /// The share of orders that is sent twice at the same time, to two replicas, with the same idempotency key
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true, value_parser = share)]
    twins: f64,
    /// The share of attempts after which the buyer reads the stock, every second time under a shared lock
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true, value_parser = share)]
    looks: f64,
    /// How long a buyer waits for an answer
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// What the quantities are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Load {
    fn scenario(self, faults: &Schedule, lease: Duration) -> Scenario {
        let length = Length {
            orders: self.orders,
            duration: self.duration,
            top_up: self.top_up,
            stock_is_given: self.stock.is_some(),
        };
        let (amount, topped_up) = length.with(faults, lease);
        Scenario {
            buyers: self.buyers as usize,
            amount,
            rate: self.rate,
            stock: self.stock.unwrap_or(STOCK),
            quantity: self.quantity,
            replays: self.replays,
            cancels: self.cancels,
            restocks: self.restocks,
            reads: self.looks,
            twins: self.twins,
            topped_up,
            timeout: self.patience,
            seed: self.seed,
        }
    }
}

/// Where the report goes, and what it must not exceed.
#[derive(Args)]
struct Output {
    /// Write the report to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report to a file as a page, which needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with 99 when the p99 of confirmed orders is greater, such as 50ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_p99: Option<Duration>,
    /// Exit with 99 when fewer orders are confirmed per second
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = positive)]
    min_rate: Option<f64>,
}

impl Output {
    fn finish(&self, report: &Report) -> anyhow::Result<ExitCode> {
        if let Some(file) = &self.json {
            write_json(file, report)?;
        }
        if let Some(file) = &self.html {
            let write = std::fs::write(file, html::page(report));
            write.with_context(|| format!("cannot write {}", file.display()))?;
        }
        let thresholds = Thresholds {
            max_p99_ms: self.max_p99.map(|max| max.as_secs_f64() * 1e3),
            min_rate: self.min_rate,
        };
        for missed in report.missed(&thresholds) {
            println!("threshold missed: {missed}");
        }
        Ok(ExitCode::from(report.conclude(&thresholds).exit_code()))
    }
}

/// Carries a command out.
///
/// When `stop` is cancelled, a load ends with what is under way, and is judged and reported by what was done.
pub async fn run(command: Command, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(demo) => demonstrate(demo, stop).await,
        Command::Run(run) => against(run, stop).await,
        Command::Compare(compare) => side_by_side(compare, stop).await,
        Command::Experiment(experiment) => try_claims(experiment).await,
        Command::Soak(soak) => endure(soak, stop).await,
        Command::Bench(bench) => measure(bench).await,
        Command::Dashboard(Dashboard { listen, data }) => {
            dashboard::serve(listen, data).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Lab(lab) => open_laboratory(lab).await,
        Command::Serve(_) => unreachable!("a replica has a runtime of its own"),
    }
}

async fn demonstrate(demo: Demo, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let plan = Plan {
        strategies: StrategyName::ALL.to_vec(),
        store: StoreKind::Sqlite,
        replicas: demo.replicas.into(),
        repeat: 1,
        scenario: demo.load.scenario(&Schedule::default(), LEASE),
        overrides: Vec::new(),
        faults: Schedule::default(),
        control: true,
    };
    println!(
        "{} buyers at once, {} replicas, {} hair dryers in stock: is any sold that is not there?\n",
        plan.scenario.buyers, plan.replicas, plan.scenario.stock
    );
    finish_comparison(&plan, &demo.output, stop).await
}

async fn side_by_side(arguments: Compare, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let faults = Schedule::parse(&arguments.faults).map_err(anyhow::Error::msg)?;
    let lease = Plan::lease(&arguments.overrides);
    let plan = Plan {
        strategies: arguments.strategies,
        store: arguments.store,
        replicas: arguments.replicas.into(),
        repeat: arguments.repeat as usize,
        scenario: arguments.load.scenario(&faults, lease),
        overrides: arguments.overrides,
        faults,
        control: !arguments.no_control,
    };
    finish_comparison(&plan, &arguments.output, stop).await
}

async fn finish_comparison(
    plan: &Plan,
    output: &Output,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let report = compare::compare_watched(plan, &(), stop).await?;
    println!("{}", comparison(&report));
    output.finish(&report)
}

async fn against(arguments: Run, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let clients: Vec<_> =
        arguments.target.iter().map(|target| Client::new(target, &arguments.token)).collect();
    // Slow clients come at once, and want no time of their own.
    let scenario = arguments.load.scenario(&Schedule::default(), LEASE);
    let schedule = Schedule::parse(&arguments.faults).map_err(anyhow::Error::msg)?;
    let faults = match schedule {
        schedule if schedule.is_empty() => Faults::None,
        schedule if schedule.is_slow_clients() => Faults::SlowClients,
        _ => bail!(
            "only a laboratory's replicas and servers can be broken (compare); a deployment can be given slow-clients"
        ),
    };
    let progress = Arc::new(Progress::until(stop.clone(), scenario.stock));
    let run = compare::run(&clients, &scenario, &progress, faults).await?;
    println!("{}", details(&run));
    let stopped = run.stopped;
    arguments.output.finish(&Report { stopped, ..Report::new(vec![run], Vec::new()) })
}

async fn try_claims(arguments: Experiment) -> anyhow::Result<ExitCode> {
    if arguments.names == ["list"] {
        for experiment in experiments::all() {
            println!("{:20} {}", experiment.name, experiment.claim);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = experiments::choose(&arguments.names)?;
    let mut reports = Vec::new();
    for experiment in chosen {
        let report = experiments::run(experiment).await?;
        println!("{report}\n");
        reports.push(report);
    }
    if let Some(file) = &arguments.json {
        write_json(file, &reports)?;
    }
    if let Some(file) = &arguments.html {
        let page = experiments::page(&reports);
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::from(experiments::conclude(&reports).exit_code()))
}

async fn measure(arguments: Bench) -> anyhow::Result<ExitCode> {
    let Bench { rounds, seconds, only, json, markdown } = arguments;
    let plan = bench::Plan { rounds, seconds, only };
    let missing = plan.missing();
    if !missing.is_empty() {
        eprintln!("loadtest: {}", missing.join("\nloadtest: "));
        return Ok(ExitCode::from(Conclusion::Inconclusive.exit_code()));
    }
    let report = bench::run(&plan).await;
    println!("{}", bench::terminal(&report));
    if let Some(file) = &json {
        write_json(file, &report)?;
    }
    if let Some(file) = &markdown {
        let table = bench::markdown(&report);
        std::fs::write(file, table).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::from(report.conclude().exit_code()))
}

async fn endure(arguments: Soak, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let Soak { json, markdown, .. } = &arguments;
    let (json, markdown) = (json.clone(), markdown.clone());
    let soak = soak::Soak {
        strategies: arguments.strategies,
        orders: arguments.orders,
        faults: arguments.faults,
        round: arguments.round,
        rate: arguments.rate,
        buyers: arguments.buyers as usize,
        replicas: arguments.replicas.into(),
        overrides: arguments.overrides,
        seed: arguments.seed,
        minimise_for: arguments.minimise_for,
    };
    let report = soak.run(stop).await?;
    println!("{}", report.markdown());
    if let Some(file) = &json {
        write_json(file, &report)?;
    }
    if let Some(file) = &markdown {
        let text = report.markdown();
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::from(report.conclude().exit_code()))
}

async fn open_laboratory(arguments: Lab) -> anyhow::Result<ExitCode> {
    let Lab { strategy, store, replicas, overrides } = arguments;
    let laboratory = Laboratory::open(strategy, store, replicas.into(), &overrides).await?;
    println!("{laboratory}");
    std::future::pending().await
}

/// One replica of the service, in a runtime of its own.
pub fn serve(arguments: &Serve) -> anyhow::Result<ExitCode> {
    if arguments.die_with_parent {
        lab::die_with_parent();
    }
    telemetry::start_logging();
    let config = Config::load(&arguments.sources)?;
    app::runtime(&config)?.block_on(async {
        let app = App::build(&config).await?;
        let stop = stop_signal();
        println!("listening on http://{}", app.address());
        app.run(stop).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn write_json(file: &PathBuf, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(value).expect("a report can be written as JSON");
    std::fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))
}

fn target(text: &str) -> Result<String, String> {
    let url: hyper::Uri = text.parse().map_err(|error| format!("{error}"))?;
    match url.scheme_str() {
        Some("http") if url.path() == "/" && url.query().is_none() => Ok(text.into()),
        Some("http") => Err("must have no path".into()),
        _ => Err("must begin with http://; put a proxy that ends TLS in front where it is needed".into()),
    }
}

fn quantity(text: &str) -> Result<RangeInclusive<i64>, String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let parse = |text: &str| text.parse::<i64>().map_err(|_| format!("{text:?} is not a number"));
    let (least, most) = (parse(least)?, parse(most.trim_start_matches('='))?);
    if 1 <= least && least <= most && most <= order_service::order::MAX_QUANTITY {
        Ok(least..=most)
    } else {
        Err(format!("must be from 1 to {}, the lesser first", order_service::order::MAX_QUANTITY))
    }
}

fn top_up(text: &str) -> Result<Duration, String> {
    match text {
        "always" => Ok(Duration::MAX),
        text => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.001..=1e9).contains(&value) => Ok(value),
        _ => Err("must be a number from 0.001 to 1000000000".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be from 0 to 1".into()),
    }
}

fn bench_row(text: &str) -> Result<String, String> {
    bench::check_name(text).map(|()| text.into())
}

fn fault(text: &str) -> Result<String, String> {
    Schedule::parse(&[text.into()]).map(|_| text.into())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if ["lock.strategy", "server.listen", "server.replica", "store.url", "admin.token"].contains(&key) {
        return Err(format!("{key} is set by the laboratory"));
    }
    let known = order_service::config::keys().into_iter().any(|known| known.path == key);
    if known { Ok((key.into(), value.into())) } else { Err(format!("there is no key {key:?}")) }
}
