//! Schemathesis (https://schemathesis.io) makes up requests from the service's own description and looks for
//! server errors, undocumented statuses, and answers that do not fit the description.

use std::path::PathBuf;

use order_service::app::App;
use order_service::config::{Config, Sources};
use tokio::process::Command;

/// Where `make tools` installs it; `SCHEMATHESIS` names another place.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv/bin/st");

/// A good order may still be refused: with an idempotency key that belongs to another order.
const EXCEPTIONS: &str = r#"
[[operations]]
include-operation-id = "placeOrder"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "cancelOrder"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "payOrder"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "restockProduct"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "putProduct"
checks.positive_data_acceptance.enabled = false
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_made_up_request_meets_an_undocumented_answer() {
    let program = std::env::var_os("SCHEMATHESIS").map_or_else(|| PathBuf::from(INSTALLED), PathBuf::from);
    assert!(
        program.exists(),
        "schemathesis is not installed: run `make tools`, or set SCHEMATHESIS to its `st`"
    );

    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("shop.db").display());
    let keys = [
        ("server.listen", "127.0.0.1:0"),
        ("store.url", &url),
        ("admin.token", "secret"),
        ("server.token", "secret"),
        ("admin.allow_reset", "true"),
    ];
    let overrides = keys.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let mut config = Config::load(&Sources { overrides, ..Sources::default() }).unwrap();
    config.catalog.push(order_service::config::CatalogEntry {
        sku: "hair-dryer".into(),
        name: "Hair dryer".into(),
        stock: 1_000,
    });
    let app = App::build(&config).await.unwrap();
    let address = app.address();
    let running = tokio::spawn(app.run(std::future::pending()));

    std::fs::write(directory.path().join("schemathesis.toml"), EXCEPTIONS).unwrap();
    let output = Command::new(program)
        .args(["run", &format!("http://{address}/openapi.json")])
        .args(["--header", "Authorization: Bearer secret"])
        .args(["--seed", "1", "--max-examples", "60", "--continue-on-failure"])
        .current_dir(directory.path())
        .env("NO_COLOR", "1")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("generated"), "{said}");
    running.abort();
}
