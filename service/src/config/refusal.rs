//! What is wrong with a value, in words for those who wrote it.

use super::{ConfigError, ConfigKey, keys, nearest, secrets};

/// An error of the parser about the value of a key, in words.
pub(super) fn refused(key: String, error: &str) -> ConfigError {
    let known = keys();
    let why = secrets::without_value(&key, error);
    let Some(known_key) = known.iter().find(|known| known.path == key) else {
        let is_section = known.iter().any(|known| known.path.starts_with(&format!("{key}.")));
        let is_unknown = !is_section && error.contains("unknown field");
        let why = if is_unknown { unknown(&key, &known) } else { without_types(&why) };
        return ConfigError::new(key, why);
    };
    let why = if known_key.choices.is_empty() { without_types(&why) } else { not_among(known_key, &why) };
    ConfigError::new(key, why)
}

/// That there is no such key, and which one may be meant.
fn unknown(key: &str, known: &[ConfigKey]) -> String {
    let paths = known.iter().map(|known| known.path.as_str()).chain(["catalog"]);
    format!("there is no such key{}", nearest::did_you_mean(key, paths))
}

/// That a value is none of those that there are, and which one may be meant.
fn not_among(key: &ConfigKey, error: &str) -> String {
    let choices = key.choices.join(", ");
    match error.rsplit_once("does not have variant constructor ") {
        Some((_, given)) => {
            // The key is named already, and where it stands is said by who shows the error.
            let given = given.split(" for key `").next().unwrap_or(given);
            let suggestion = nearest::did_you_mean(given, key.choices.iter().map(String::as_str));
            format!("must be one of {choices}, not {given:?}{suggestion}")
        }
        None => format!("must be one of {choices}"),
    }
}

/// The error without the names that types have in the program.
fn without_types(error: &str) -> String {
    match error.split_once(", expected struct ") {
        Some((found, _)) => format!("{found}, expected a section with keys"),
        None => error.into(),
    }
}
