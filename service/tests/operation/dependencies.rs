//! What the dependencies say of themselves.

use std::process::Command;

use serde_json::Value;

/// A version of Rust, to compare by.
fn number(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().expect("a number")).collect()
}

/// TLS to ZooKeeper has it, and is built for those who ask for it, and for tests.
#[test]
fn no_second_library_of_cryptography_is_built_unless_it_is_asked_for() {
    let trees = |more: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none"])
            .args(more)
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let has = |tree: String| tree.lines().any(|line| line.starts_with("aws-lc-sys "));
    assert!(!has(trees(&[])), "by the demonstration");
    assert!(!has(trees(&["--package", "order-service"])), "by the service");
    assert!(has(trees(&["--package", "order-service", "--features", "zookeeper-tls"])));
}

#[test]
fn none_needs_a_later_rust_than_ours() {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours = number(env!("CARGO_PKG_RUST_VERSION"));
    let needs_later =
        |package: &&Value| package["rust_version"].as_str().is_some_and(|needed| number(needed) > ours);
    let later: Vec<_> = packages.iter().filter(needs_later).map(|package| &package["id"]).collect();
    assert!(packages.len() > 100 && later.is_empty(), "{later:?}");
}
