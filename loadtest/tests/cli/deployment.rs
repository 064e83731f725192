//! A load on a deployment.

use std::process::Output;

use crate::program::{code, deployment, deployment_with, loadtest, printed, said};
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_against_a_deployment_judges_what_it_finds() {
    let lab = lab::Lab::new().unwrap();
    for (strategy, expected, words) in [("none", 1, "OVERSOLD by"), ("row", 0, "CORRECT")] {
        let file = format!("{strategy}.db");
        let (_replicas, targets) = deployment(strategy, &[&file, &file], &lab).await;
        let load = ["--orders", "400", "--stock", "200", "--fault", "slow-clients"];
        let output = run_against(&targets, &load).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(code(&output), expected, "{printed}");
        assert!(printed.contains(words), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_do_not_share_a_store_are_no_deployment() {
    let lab = lab::Lab::new().unwrap();
    let (_replicas, targets) = deployment("row", &["a.db", "b.db"], &lab).await;
    let output = run_against(&targets, &["--orders", "10"]).await;
    assert_eq!(code(&output), 64);
    assert!(String::from_utf8_lossy(&output.stderr).contains("do not share a store"), "{output:?}");
}

/// Runs a load against a deployment.
async fn run_against(targets: &[String], arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(support::program());
    command.args(["run", "--token", "t"]).args(arguments);
    for target in targets {
        command.args(["--target", target]);
    }
    command.output().await.expect("the program runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_leaves_is_named_and_can_be_taken_away() {
    let lab = lab::Lab::new().unwrap();
    let (_replicas, targets) = deployment("row", &["a.db", "a.db"], &lab).await;
    let client = loadtest::client::Client::new(&targets[0], "t");
    let load = ["--orders", "60", "--stock", "30"];
    let output = run_against(&targets, &load).await;
    let said = said(&output);
    let product = said.split_whitespace().find(|word| word.starts_with("hair-dryer-")).expect("it is named");
    assert_eq!(client.orders(product).await.unwrap().len(), 30, "{said}");
    // It has to be allowed.
    let clean =
        |target: &str, product: &str| loadtest(&["clean", "--target", target, "--token", "t", product]);
    let output = clean(&targets[0], product);
    assert!(code(&output) == 64 && crate::program::said(&output).contains("admin.allow_reset"), "{output:?}");
    let output = run_against(&targets, &[&load[..], &["--cleanup"]].concat()).await;
    assert!(code(&output) == 64 && printed(&output).is_empty(), "before anything is sold: {output:?}");
    let more = ["--admin.allow_reset", "true"];
    let (_others, others) = deployment_with("none", &["a.db", "a.db"], &more, &lab).await;
    assert_eq!(code(&clean(&others[0], product)), 0);
    assert_eq!(client.orders(product).await.unwrap().len(), 0);
    assert_eq!(client.product(product).await.unwrap().stock, 0);
    // What is not a run's own is not touched, nor what is not there.
    client.create_product("hair-dryer-2000", "Hair dryer", 5).await.unwrap();
    assert_eq!(code(&clean(&others[0], "hair-dryer-2000")), 64);
    assert_eq!(client.product("hair-dryer-2000").await.unwrap().stock, 5);
    assert_eq!(code(&clean(&others[0], "hair-dryer-01a20168-0000-4000-8000-000000000000")), 64);
    // Where something is wrong, the evidence stays.
    let json = lab.file("report.json");
    let json_file = ["--json", json.to_str().unwrap(), "--cleanup"];
    let output =
        run_against(&others, &[&["--orders", "400", "--stock", "200"][..], &json_file].concat()).await;
    let report: loadtest::report::Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(client.orders(&report.runs[0].sku).await.unwrap().len() > 200);
    // Where all is well, it goes.
    let (_right, right) = deployment_with("row", &["b.db", "b.db"], &more, &lab).await;
    let output = run_against(&right, &[&load[..], &json_file].concat()).await;
    let report: loadtest::report::Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let right = loadtest::client::Client::new(&right[0], "t");
    assert_eq!(right.orders(&report.runs[0].sku).await.unwrap().len(), 0);
}
