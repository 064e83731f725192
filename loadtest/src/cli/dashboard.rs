//! `loadtest dashboard`: the web page.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use loadtest::dashboard;

#[derive(Args)]
pub struct Dashboard {
    /// Where to listen; an address of this machine only
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS", value_parser = dashboard::loopback)]
    listen: std::net::SocketAddr,
    /// The directory for past runs [default: $XDG_STATE_HOME/stocklock or ~/.local/state/stocklock]
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

pub(super) async fn run(arguments: Dashboard) -> anyhow::Result<ExitCode> {
    let Dashboard { listen, data } = arguments;
    dashboard::serve(listen, data).await.map(|()| ExitCode::SUCCESS)
}
