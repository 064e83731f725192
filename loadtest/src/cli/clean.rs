//! `loadtest clean`: what runs against a deployment have left there.

use std::process::ExitCode;

use clap::Args;
use loadtest::client::Client;
use loadtest::run;

use super::destination::People;
use super::values::target;

#[derive(Args)]
pub struct Clean {
    /// The address of a replica, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", value_parser = target)]
    target: String,
    /// The service's admin.token
    #[arg(long, env = "STOCKLOCK_ADMIN_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// The address of admin calls, where that is another: the service's admin.listen
    #[arg(long, value_name = "URL", value_parser = target)]
    admin_target: Option<String>,
    /// The products that runs have made, as they say it: hair-dryer-UUID
    #[arg(required = true, value_name = "PRODUCT")]
    products: Vec<String>,
}

pub(super) async fn run(arguments: Clean) -> anyhow::Result<ExitCode> {
    let Clean { target, token, admin_target, products } = arguments;
    let mut client = Client::new(&target, &token);
    if let Some(base) = &admin_target {
        client = client.with_admin_at(base);
    }
    run::may_clean(&client).await?;
    for product in &products {
        run::clean(&client, product).await?;
        People::Stdout.say(format!("{product}: its orders and its stock are gone"))?;
    }
    Ok(ExitCode::SUCCESS)
}
