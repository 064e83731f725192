//! What is wrong with a value, in words for those who wrote it.

use super::{ConfigError, ConfigKey, keys, nearest, secrets};

/// An error of the parser about the value of a key, in words.
pub(super) fn refused(key: String, error: &str) -> ConfigError {
    let known = keys();
    let why = secrets::without_value(&key, error);
    let Some(known_key) = known.iter().find(|known| known.path == key) else {
        let is_section = known.iter().any(|known| known.path.starts_with(&format!("{key}.")));
        let is_unknown = !is_section && error.contains("unknown field");
        let why = if is_unknown { unknown(&key, &known) } else { without_key(&key, &without_types(&why)) };
        return ConfigError::new(key, why);
    };
    let why = if known_key.choices.is_empty() { without_types(&why) } else { not_among(known_key, &why) };
    ConfigError::new(key, why)
}

/// That there is no such key, and which one may be meant.
fn unknown(key: &str, known: &[ConfigKey]) -> String {
    // Within a list there are no names to choose from.
    if key.contains('[') {
        return "there is no such key".into();
    }
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

/// The error without the key, which is named already, of something in a list.
fn without_key(key: &str, error: &str) -> String {
    let missing = error.strip_prefix("missing configuration field \"");
    if let Some(field) = missing.and_then(|field| field.strip_suffix('"')) {
        let name = field.strip_prefix(key).unwrap_or(field).trim_start_matches('.');
        return format!("{name} is missing");
    }
    match error.split_once(" for key `") {
        Some((what, rest)) => format!("{what}{}", rest.split_once('`').map_or("", |(_, file)| file)),
        None => error.into(),
    }
}

/// The error without the names that types have in the program.
fn without_types(error: &str) -> String {
    match error.split_once(", expected struct ") {
        Some((found, _)) => format!("{found}, expected a section with keys"),
        None => error.into(),
    }
}
