//! `loadtest serve`: one replica of the service.

use std::process::ExitCode;

use clap::Args;
use order_service::app::{self, App, stop_signal};
use order_service::config::{Config, Sources};
use order_service::telemetry;

#[derive(Args)]
pub struct Serve {
    /// End when standard input ends
    #[arg(long, hide = true)]
    die_with_parent: bool,
    #[command(flatten)]
    sources: Sources,
}

/// One replica of the service, in a runtime of its own.
pub fn run(arguments: &Serve) -> anyhow::Result<ExitCode> {
    if arguments.die_with_parent {
        lab::die_with_parent();
    }
    let config = Config::load(&arguments.sources)?;
    let _log = telemetry::start_logging(&config.log);
    app::runtime(&config)?.block_on(async {
        let app = App::build(&config).await?;
        let stop = stop_signal();
        if let Some(address) = app.admin_address() {
            println!("admin calls at http://{address}");
        }
        println!("listening on http://{}", app.address());
        app.run(stop).await;
        Ok(ExitCode::SUCCESS)
    })
}
