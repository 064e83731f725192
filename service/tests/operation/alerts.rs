//! The alerts and the dashboard: what they ask for exists, and each alert says what to do.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::metrics::names;

const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// A file of the folder `deploy`.
pub fn deploy(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy")).join(path)
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// The alerts, each with the lines of its rule.
fn alerts() -> Vec<(String, String)> {
    let text = read("prometheus/alerts.yml");
    let rules = text.split("- alert: ").skip(1);
    rules.map(|rule| (rule.lines().next().unwrap_or_default().trim().to_owned(), rule.to_owned())).collect()
}

/// The words in a query that can only be metrics of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_ours = |word: &&str| word.starts_with("stocklock_") || word.starts_with("process_");
    words.filter(is_ours).map(str::to_owned).collect()
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").current_dir(deploy("prometheus")).args(arguments).output();
    let output = output.expect("promtool, of Debian's package prometheus, can be run");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn the_rules_can_be_read_and_each_alert_fires_where_it_should() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"]);
    let cases = read("prometheus/alerts.test.yml");
    let alerts = alerts();
    assert!(alerts.len() > 5);
    for (name, _) in &alerts {
        assert!(
            cases.contains(&format!("alertname: {name}}}")),
            "{name} has no case where it must be silent"
        );
    }
    let firing = format!("value: {}\n", alerts.len());
    assert!(cases.contains(&firing), "all {} alerts are to fire together in one case", alerts.len());
}

#[test]
fn each_alert_has_its_entry_in_the_runbook_and_each_entry_its_alert() {
    let entries: BTreeSet<_> = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    let named: BTreeSet<_> = alerts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(entries, named);
    for (name, rule) in &alerts {
        let url = format!("runbook_url: service/docs/runbook.md#{}\n", name.to_lowercase());
        assert!(rule.contains(&url), "{name}: {url}");
        assert!(rule.contains("severity: "), "{name}");
    }
}

#[test]
fn alerts_dashboard_and_runbook_use_metrics_that_exist() {
    let names = names();
    // In prose, a histogram is named without a suffix.
    let families: BTreeSet<_> =
        names.iter().filter_map(|name| name.strip_suffix("_bucket")).map(str::to_owned).collect();
    for (name, rule) in alerts() {
        let used = metrics_in(&rule);
        assert!(used.is_subset(&names), "{name}: {:?}", used.difference(&names));
    }
    let used = metrics_in(RUNBOOK);
    let known = names.union(&families).cloned().collect();
    assert!(used.is_subset(&known), "{:?}", used.difference(&known));
    for query in queries(&dashboard()) {
        let used = metrics_in(&query);
        assert!(used.is_subset(&names), "{query}: {:?}", used.difference(&names));
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/dashboard.json")).expect("JSON")
}

fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].is_u64() && dashboard["uid"].is_string());
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an identity")), "{panel}");
        assert!(panel["title"].is_string() && panel["type"].is_string(), "{panel}");
        let grid = &panel["gridPos"];
        assert!(grid["x"].as_u64().expect("x") + grid["w"].as_u64().expect("w") <= 24, "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        }
    }
    let queries = queries(&dashboard);
    assert!(queries.len() > 10);
    // Rules are the one thing in which promtool reads queries.
    let rules: String = queries
        .iter()
        .map(|query| query.replace("$__rate_interval", "5m").replace("$strategy", ".*").replace("$job", ".*"))
        .enumerate()
        .map(|(n, query)| format!("  - record: query:{n}\n    expr: {}\n", Value::from(query)))
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("queries.yml");
    std::fs::write(&file, format!("groups:\n- name: dashboard\n  rules:\n{rules}")).expect("a file");
    promtool(&["check", "rules", file.to_str().expect("a path")]);
}
