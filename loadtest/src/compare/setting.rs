//! Keys of the service's configuration that a plan sets.

use order_service::config::did_you_mean;

/// What the laboratory says itself.
const OURS: [&str; 7] = [
    "lock.strategy",
    "server.listen",
    "server.replica",
    "store.url",
    "admin.token",
    "admin.token_file",
    "admin.listen",
];

/// A key with its value, from `KEY=VALUE`. The value is for the service to judge.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if OURS.contains(&key) {
        return Err(format!("{key} is set by the laboratory"));
    }
    let known = order_service::config::keys();
    if known.iter().any(|known| known.path == key) {
        return Ok((key.into(), value.into()));
    }
    let suggestion = did_you_mean(key, known.iter().map(|known| known.path.as_str()));
    Err(format!("there is no key {key:?}{suggestion}"))
}
