//! Secrets, and what may be said about values that hold them.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The sections in which there are passwords, and keys that are some.
const SECTIONS: [&str; 6] = ["admin", "store", "lock.redis", "lock.zookeeper", "lock.etcd", "server.token"];

/// How many bytes a token has at least that nobody guesses.
const TOKEN_BYTES: usize = 32;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one that is short enough to be guessed.
    pub(super) fn is_weak(&self) -> bool {
        !self.is_empty() && self.0.len() < TOKEN_BYTES
    }

    /// Refuses what cannot stand in the header `Authorization` as it is.
    pub(super) fn check(&self, key: &str) -> Result<(), ConfigError> {
        if self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(());
        }
        Err(ConfigError::new(key, "must consist of visible ASCII characters, without spaces"))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "\"\"" } else { "[redacted]" })
    }
}

/// Reads a token from the file, if there is one, without the newline at its end. `key` is the file's.
pub(super) fn read_token(key: &str, file: Option<&Path>, token: &mut Secret) -> Result<(), ConfigError> {
    let Some(file) = file else { return Ok(()) };
    let refuse = |why: String| ConfigError::new(key, format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(refuse("is empty".into()));
    }
    *token = Secret::from(text);
    token.check(key).map_err(|error| refuse(error.why))
}

/// The password in a file, without the end of its line. `key` is the file's.
pub(super) fn read_password(key: &str, file: &Path) -> Result<String, ConfigError> {
    let refuse = |why: String| ConfigError::new(key, format!("{} {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let password = text.strip_suffix('\r').unwrap_or(text);
    match password.is_empty() {
        true => Err(refuse("is empty".into())),
        false => Ok(password.to_owned()),
    }
}

/// Whether it is not certain which part of a URL is the password: one with `/`, `?` or `#` has to be
/// percent-encoded.
pub(crate) fn is_ambiguous(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@'))
}

/// A URL without user, password and parameters. Where it is not certain which part is the password (one with
/// `@`, `/`, `?` or `#` that is not percent-encoded), nothing but its scheme.
pub(crate) fn address_of(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "…".into() };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if rest.contains('@') || authority.matches('@').count() > 1 {
        return format!("{scheme}://…");
    }
    let host = authority.rsplit('@').next().unwrap_or_default();
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// An error about the value of a key, without the value where that may be a password.
pub(super) fn without_value(key: &str, error: &str) -> String {
    let is_in = |section: &str| {
        key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // What stands where a section should may be meant for any of its keys.
    if key != "server" && !SECTIONS.into_iter().any(is_in) {
        return error.into();
    }
    match (error.find('"'), error.rfind('"')) {
        (Some(begin), Some(end)) if begin < end => format!("{}\"…\"{}", &error[..begin], &error[end + 1..]),
        _ => error.into(),
    }
}

/// An error about the text of a file, without the line that it quotes.
pub(super) fn without_quotation(error: &str) -> String {
    let is_quotation = |line: &&str| {
        let after_number = line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
        after_number.starts_with('|')
    };
    let lines = error.lines().map(str::trim).filter(|line| !line.is_empty() && !is_quotation(line));
    lines.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_no_password_however_it_is_spelt() {
        for (url, address) in [
            ("postgres://shop:secret@db:5432/shop", "postgres://db:5432/shop"),
            ("postgres://db/shop?user=shop&password=secret", "postgres://db/shop"),
            ("postgres://shop:sec@ret@db/shop", "postgres://…"),
            ("postgres://shop:12/secret@db/shop", "postgres://…"),
            ("postgres://shop:12?secret@db/shop", "postgres://…"),
            ("postgres://shop:12#secret@db/shop", "postgres://…"),
            ("postgres://shop:se%40cret@db/shop", "postgres://db/shop"),
            ("redis://:secret@[::1]:6379/0", "redis://[::1]:6379/0"),
            ("redis://db", "redis://db"),
            ("shop:secret@db/shop", "…"),
        ] {
            assert_eq!(address_of(url), address);
        }
    }

    #[test]
    fn errors_show_no_passwords() {
        let error = r#"invalid type: string "redis://:sec"ret@db", expected struct RedisSection"#;
        let shown = r#"invalid type: string "…", expected struct RedisSection"#;
        assert_eq!(without_value("lock.redis", error), shown);
        assert_eq!(without_value("lock.redis.url", error), shown);
        assert_eq!(without_value("lock.rediss", error), error);
        let error = "TOML parse error at line 2, column 7\n  |\n2 | url = \"postgres://shop:secret@db\n  \
                     |       ^\ninvalid basic string\n";
        assert_eq!(without_quotation(error), "TOML parse error at line 2, column 7: invalid basic string");
    }
}
