//! The files to deploy with.

use std::process::Command;

use order_service::config::keys;

use crate::alerts::{deploy, read};

/// The unit, with the program of this build.
fn unit() -> (tempfile::TempDir, std::path::PathBuf) {
    let text = read("systemd/order-service.service");
    let installed = "/usr/local/bin/order-service ";
    assert_eq!(text.matches(&format!("ExecStart={installed}")).count(), 1);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("order-service.service");
    let program = concat!(env!("CARGO_BIN_EXE_order-service"), " ");
    std::fs::write(&file, text.replace(&format!("ExecStart={installed}"), &format!("ExecStart={program}")))
        .expect("a file");
    (directory, file)
}

fn systemd_analyze(arguments: &[&str], file: &std::path::Path) -> String {
    let output = Command::new("systemd-analyze").args(arguments).arg(file).output();
    let output = output.expect("systemd-analyze, of Debian's package systemd, can be run");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn systemd_takes_the_unit_and_finds_it_hardened() {
    let (_directory, file) = unit();
    let said = systemd_analyze(&["verify", "--man=no"], &file);
    assert!(!said.contains("order-service.service:"), "{said}");
    // Of 100, 0 the safest: without any hardening it is 96.
    systemd_analyze(&["security", "--no-pager", "--offline=true", "--threshold=20"], &file);
}

/// The variables of the environment that a text sets, as keys of the configuration.
fn keys_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter_map(|word| word.strip_prefix("STOCKLOCK__"));
    ours.map(|name| name.to_lowercase().replace("__", ".")).collect()
}

#[test]
fn every_key_that_the_files_set_exists() {
    let known: Vec<_> = keys().into_iter().map(|key| key.path).collect();
    let compose = std::fs::read_to_string(deploy("../../docker-compose.yml")).expect("a file");
    let kubernetes = ["order-service.yaml", "secret.yaml.example", "network-policy.yaml"];
    let mut texts: Vec<_> = kubernetes.map(|file| read(&format!("kubernetes/{file}"))).to_vec();
    texts.extend([compose, read("systemd/order-service.service")]);
    let named: Vec<_> = texts.iter().flat_map(|text| keys_in(text)).collect();
    assert!(named.len() > 8);
    for key in named {
        assert!(known.contains(&key), "{key}");
    }
}

#[test]
fn the_configuration_in_the_kubernetes_example_is_one() {
    let text = read("kubernetes/order-service.yaml");
    let (_, text) = text.split_once("order-service.toml: |\n").expect("the file");
    let (text, _) = text.split_once("\n---").expect("its end");
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("order-service.toml");
    std::fs::write(&file, text).expect("a file");
    use order_service::config::{Config, Sources};
    let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).expect("it is one");
    assert_eq!(config.catalog.len(), 1);
}
