//! Notes the commit that the service is built from, where there is one.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    if let Ok(output) = described
        && output.status.success()
    {
        println!("cargo::rustc-env=STOCKLOCK_COMMIT={}", String::from_utf8_lossy(&output.stdout).trim());
    }
}
