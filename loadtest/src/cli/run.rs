//! `loadtest run`: a load on a deployment.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use loadtest::client::Client;
use loadtest::faults::Schedule;
use loadtest::fleet::LEASE;
use loadtest::progress::Progress;
use loadtest::refusal::Refused;
use loadtest::report::Report;
use loadtest::run::{self, FaultSource};
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::load::Load;
use super::output::Output;
use super::shop;
use super::values::{fault, target};

#[derive(Args)]
pub struct Run {
    /// The address of a replica, such as http://127.0.0.1:8080; once for each
    #[arg(long, required_unless_present = "target_file", value_name = "URL", value_parser = target)]
    target: Vec<String>,
    #[command(flatten)]
    shop: shop::Shop,
    /// The service's admin.token
    #[arg(long, env = "STOCKLOCK_ADMIN_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// The service's server.token, with which orders are listed and cancelled; the admin token unless given
    #[arg(long, env = "STOCKLOCK_SERVER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    server_token: Option<String>,
    /// The service's admin.listen, where it has one, such as http://127.0.0.1:9090; once for each target, in
    /// their order
    #[arg(long, requires = "target", value_name = "URL", value_parser = target)]
    admin_target: Vec<String>,
    /// What to burden the deployment with besides: slow-clients, which send their requests byte by byte
    #[arg(long = "fault", value_name = "FAULT", value_parser = fault)]
    faults: Vec<String>,
    /// Take the orders and the stock of the product away that is made for the run, unless something is
    /// wrong; the service has to allow it (admin.allow_reset). Otherwise they stay, as evidence, for
    /// `loadtest clean`
    #[arg(long, conflicts_with = "target_file")]
    cleanup: bool,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

fn clients(arguments: &Run) -> anyhow::Result<Vec<Client>> {
    let Run { target, admin_target, token, server_token, .. } = arguments;
    if !admin_target.is_empty() && admin_target.len() != target.len() {
        bail!(Refused(format!(
            "--admin-target: there must be one for each of {} targets, not {}",
            target.len(),
            admin_target.len()
        )));
    }
    let mut clients: Vec<_> = target.iter().map(|target| Client::new(target, token)).collect();
    if let Some(token) = server_token.as_ref().filter(|token| !token.is_empty()) {
        clients = clients.into_iter().map(|client| client.with_server_token(token)).collect();
    }
    if !admin_target.is_empty() {
        let pairs = clients.into_iter().zip(admin_target);
        clients = pairs.map(|(client, base)| client.with_admin_at(base)).collect();
    }
    Ok(clients)
}

pub(super) async fn run(arguments: Run, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    if let Some(file) = &arguments.shop.target_file {
        return shop::run(file, &arguments.shop, &arguments.load, &arguments.output, stop).await;
    }
    arguments.output.check()?;
    let clients = clients(&arguments)?;
    // Slow clients come at once, and want no time of their own.
    let scenario = arguments.load.scenario(&Schedule::default(), LEASE);
    let schedule = Schedule::parse(&arguments.faults).map_err(Refused)?;
    let faults = match schedule {
        schedule if schedule.is_empty() => FaultSource::None,
        schedule if schedule.is_slow_clients() => FaultSource::SlowClients,
        _ => bail!(Refused(
            "only a laboratory's replicas and servers can be broken (compare); a deployment can be given \
             slow-clients"
                .into()
        )),
    };
    let progress = Arc::new(Progress::until(stop.clone(), scenario.stock));
    if arguments.cleanup {
        run::may_clean(&clients[0]).await?;
    }
    let live = Live::new(arguments.output.quiet);
    live.show("run", &scenario, &progress);
    let run = run::fire(&clients, &scenario, &progress, faults).await?;
    live.clear();
    let (sku, stopped, is_wrong) = (run.sku.clone(), run.stopped, !run.is_as_expected());
    let code = arguments.output.finish(&Report { stopped, ..Report::new(vec![run], Vec::new()) })?;
    if arguments.cleanup && !is_wrong {
        run::clean(&clients[0], &sku).await?;
    } else if !arguments.output.quiet {
        eprintln!("\nThe product {sku} and its orders stay there; loadtest clean takes them away.");
    }
    Ok(code)
}
