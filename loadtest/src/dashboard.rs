//! The dashboard: a page on which a person picks a strategy, presses Run, and sees whether anything was
//! oversold.
//!
//! A run belongs to the [`state`], not to a page: pages come and go, and each shows what there is. The parts
//! of the pages are those of the [report](crate::report::html), which is the same page, frozen.
//!
//! | module | what it does |
//! |---|---|
//! | [`routes`] | all addresses |
//! | [`guard`] | keeps other sites out |
//! | [`events`] | brings what changes to open pages |
//! | [`pages`] | the pages |
//! | [`job`] | carries one plan or experiment out at a time |
//! | [`follow`] | asks who has the lock while a run goes on |
//! | [`state`] | what goes on, and what has come of it |
//! | [`compared`] | past runs put beside each other, and how far apart they are ([`change`]) |
//! | [`archive`] | keeps past runs |
//! | [`stories`] | what a newcomer can click on |
//! | [`form`] | what a person can choose, and the plan it makes |
//! | [`shop`] | the same for shops that are not ours |

mod archive;
mod change;
mod compared;
mod events;
mod follow;
mod form;
mod guard;
mod job;
mod pages;
mod routes;
mod shop;
mod state;
mod stories;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use tokio::net::TcpListener;

use self::archive::Archive;
use self::state::Dashboard;

/// Serves the dashboard until its future is dropped, which ends what goes on. Past runs are kept in `data`.
pub async fn serve(listen: SocketAddr, data: Option<PathBuf>) -> anyhow::Result<()> {
    ensure!(listen.ip().is_loopback(), "{listen} is not an address of this machine only");
    let data =
        data.or_else(archive::usual_place).context("there is no home directory; say --data DIRECTORY")?;
    let archive = Archive::open(&data).with_context(|| format!("cannot use {}", data.display()))?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let dashboard = Arc::new(Dashboard::new(archive));
    let _job = job::StopOnDrop(Arc::clone(&dashboard));
    println!("dashboard on http://{}", listener.local_addr()?);
    axum::serve(listener, routes::router(dashboard)).await.context("the dashboard broke off")
}

/// An address of this machine only.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error| format!("{error}"))?;
    let refused =
        "the dashboard starts processes for whoever asks: it listens on an address such as 127.0.0.1 only";
    if address.ip().is_loopback() { Ok(address) } else { Err(refused.into()) }
}
