//! The servers that a URL names: one, or several of which one is the primary.

use std::net::IpAddr;

use sqlx::Error;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config::{ConfigError, is_ambiguous};

/// What a URL may have as parameters.
const PARAMETERS: [&str; 19] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    SESSION_ATTRIBUTES,
];

/// What libpq calls the choice of a server. Only the primary will do here.
const SESSION_ATTRIBUTES: &str = "target_session_attrs";

/// What a server is called in the list of its connections, unless the URL says something else.
const APPLICATION: &str = "order-service";

/// How to connect to each of the servers that `url` names.
pub(super) fn servers(url: &str) -> Result<Vec<PgConnectOptions>, ConfigError> {
    let refuse = |why: &str| Err(ConfigError::new("store.url", why));
    if is_ambiguous(url) {
        return refuse("a user or password with /, ? or # in it has to be percent-encoded");
    }
    let (rest, parameters) = url.split_once('?').unwrap_or((url, ""));
    let (attributes, parameters): (Vec<_>, Vec<_>) = parameters
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .partition(|parameter| parameter.split('=').next() == Some(SESSION_ATTRIBUTES));
    let is_primary = |parameter: &&str| matches!(value(parameter), "read-write" | "primary");
    if !attributes.iter().all(is_primary) {
        return refuse("target_session_attrs can be read-write or primary only: orders are written");
    }
    // What is not known would be ignored, and logged with its value.
    let is_known = |parameter: &&str| {
        let name = name(parameter);
        PARAMETERS.contains(&name) || name.starts_with("options[")
    };
    if !parameters.iter().all(is_known) {
        return refuse(&format!("has an unknown parameter; there are {}", PARAMETERS.join(", ")));
    }
    let says_mode = parameters.iter().any(|parameter| matches!(name(parameter), "sslmode" | "ssl-mode"))
        || std::env::var_os("PGSSLMODE").is_some();
    let parameters = parameters.join("&");
    let parse = |url: String| {
        let refused = |error: Error| ConfigError::new("store.url", error.to_string());
        let options: PgConnectOptions = format!("{url}?{parameters}").parse().map_err(refused)?;
        // Nothing here depends on it, and PgBouncer refuses it.
        let options = options.extra_float_digits(None);
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name(APPLICATION),
        };
        Ok(match says_mode || is_local(&options) {
            true => options,
            false => options.ssl_mode(PgSslMode::VerifyFull),
        })
    };
    urls(rest).into_iter().map(parse).collect()
}

/// A URL for each server of one that lists several.
fn urls(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return vec![url.into()] };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}")).collect()
}

fn name(parameter: &str) -> &str {
    parameter.split('=').next().unwrap_or_default()
}

fn value(parameter: &str) -> &str {
    parameter.split_once('=').map_or("", |(_, value)| value)
}

/// Whether the server is on this machine, where nobody else listens to what is said to it.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    options.get_socket().is_some() || host == "localhost" || host.starts_with('/') || is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(url: &str) -> PgConnectOptions {
        let mut servers = servers(url).expect(url);
        assert_eq!(servers.len(), 1, "{url}");
        servers.remove(0)
    }

    fn mode(url: &str) -> String {
        format!("{:?}", only(url).get_ssl_mode())
    }

    #[test]
    fn each_of_several_servers_has_the_user_and_the_database() {
        let servers = servers("postgres://shop:a%2Cb@one:5433,two,[::1]:5434/shop?sslmode=disable").unwrap();
        let seen = servers.iter().map(|server| {
            (server.get_host().to_owned(), server.get_port(), server.get_username().to_owned())
        });
        let user = || "shop".to_owned();
        let expected = [("one", 5433), ("two", 5432), ("[::1]", 5434)];
        assert!(seen.eq(expected.map(|(host, port)| (host.to_owned(), port, user()))));
        assert!(servers.iter().all(|server| server.get_database() == Some("shop")));
    }

    #[test]
    fn a_server_elsewhere_has_to_prove_who_it_is_unless_it_is_said_otherwise() {
        if std::env::var_os("PGSSLMODE").is_some() {
            return;
        }
        for url in
            ["postgres://u@db/d", "postgres://u@10.0.0.1/d?application_name=x", "postgres://u@db,db2/d"]
        {
            let all = servers(url).unwrap();
            assert!(all.iter().all(|one| matches!(one.get_ssl_mode(), PgSslMode::VerifyFull)), "{url}");
        }
        for url in ["postgres://u@localhost/d", "postgres://u@127.0.0.1/d", "postgres://u@[::1]:5432/d"] {
            assert_eq!(mode(url), "Prefer", "{url}");
        }
        assert_eq!(mode("postgres://u@db/d?sslmode=disable"), "Disable");
        assert_eq!(mode("postgres://u@db/d?sslmode=require"), "Require");
        assert_eq!(mode("postgres://u@localhost/d?sslmode=verify-ca"), "VerifyCa");
    }

    #[test]
    fn what_is_asked_of_a_server_is_that_it_can_be_written_to() {
        assert_eq!(only("postgres://u@db/d?target_session_attrs=read-write").get_host(), "db");
        let refused = servers("postgres://u@db/d?target_session_attrs=standby").unwrap_err().to_string();
        assert!(refused.contains("target_session_attrs"), "{refused}");
        let refused = servers("postgres://u:secret@db/d?passwort=secret").unwrap_err().to_string();
        assert!(refused.contains("unknown parameter") && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn the_application_has_the_name_that_the_url_gives_it() {
        assert_eq!(only("postgres://u@db/d").get_application_name(), Some(APPLICATION));
        assert_eq!(only("postgres://u@db/d?application_name=till").get_application_name(), Some("till"));
    }
}
