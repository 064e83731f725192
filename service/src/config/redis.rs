//! Redis, for strategy "redis": one server, or several of which a majority decides.

use std::fmt;
use std::time::Duration;

use deadpool_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ConfigError, address_of};

/// The key of the addresses.
const URL: &str = "lock.redis.url";

/// Redis, for strategy "redis".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSection {
    /// The address of the server; or those of an odd number of servers that know nothing of each other,
    /// separated by commas (in the file, also a list), of which a majority has to grant the lock (Redlock).
    pub url: RedisUrls,
    /// How long a crashed holder's key keeps others out.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lease: Duration,
    /// Whether a holder renews its lease; "false" shows what a lock does that ends under its holder.
    pub renew: bool,
}

impl Default for RedisSection {
    fn default() -> Self {
        let url = RedisUrls(vec!["redis://127.0.0.1:6379".into()]);
        Self { url, lease: Duration::from_secs(10), renew: true }
    }
}

impl RedisSection {
    /// Refuses servers of which there is no majority: an even number, where half of them is none, and the
    /// same one twice, which would have two votes.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |why: String| Err(ConfigError::new(URL, why));
        let servers = &self.url.0;
        if servers.len() == 1 {
            return Ok(());
        }
        if servers.len().is_multiple_of(2) {
            return refuse(format!(
                "must list one server or an odd number of them, not {}: a majority of an even number is no \
                 smaller than that of one more",
                servers.len()
            ));
        }
        let mut known: Vec<String> = Vec::new();
        for (url, info) in servers.iter().zip(self.url.connections()?) {
            let host = host_of(info.addr());
            if host.contains(',') {
                return refuse("each of several servers needs a URL of its own: redis://a,redis://b".into());
            }
            if known.contains(&host) {
                return refuse(format!("lists {} twice: it would have two votes", address_of(url)));
            }
            known.push(host);
        }
        Ok(())
    }
}

/// The server that an address leads to, whichever of its databases is meant.
fn host_of(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            format!("{}:{port}", host.to_lowercase())
        }
        other => other.to_string(),
    }
}

/// The addresses of Redis servers, at least one. As a text they are separated by commas.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct RedisUrls(Vec<String>);

impl RedisUrls {
    /// The addresses as they were given, passwords and all.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How to connect to each.
    pub(crate) fn connections(&self) -> Result<Vec<ConnectionInfo>, ConfigError> {
        let parse =
            |url: &str| url.into_connection_info().map_err(|error| ConfigError::new(URL, error.to_string()));
        self.iter().map(parse).collect()
    }
}

impl From<&str> for RedisUrls {
    /// Another address begins where a comma is followed by a scheme: a password may have commas, too.
    fn from(text: &str) -> Self {
        let mut urls: Vec<String> = Vec::new();
        for part in text.split(',') {
            match urls.last_mut() {
                Some(last) if !has_scheme(part) => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => urls.push(part.to_owned()),
            }
        }
        Self(urls.iter().map(|url| url.trim().to_owned()).collect())
    }
}

fn has_scheme(text: &str) -> bool {
    let scheme = text.trim_start().split_once("://").map_or("", |(scheme, _)| scheme);
    !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+')
}

impl fmt::Debug for RedisUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(address_of)).finish()
    }
}

impl Serialize for RedisUrls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.join(","))
    }
}

impl<'de> Deserialize<'de> for RedisUrls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrList;

        impl<'de> Visitor<'de> for TextOrList {
            type Value = RedisUrls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the address of a Redis server, or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RedisUrls, E> {
                Ok(RedisUrls::from(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RedisUrls, A::Error> {
                let mut urls = Vec::new();
                while let Some(url) = list.next_element::<String>()? {
                    urls.push(url);
                }
                if urls.is_empty() {
                    return Err(serde::de::Error::custom("must list a server"));
                }
                Ok(RedisUrls(urls))
            }
        }

        deserializer.deserialize_any(TextOrList)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<(), String> {
        let section = RedisSection { url: url.into(), ..RedisSection::default() };
        section.check().map_err(|error| {
            assert_eq!(error.key, URL);
            error.why
        })
    }

    #[test]
    fn an_address_begins_with_its_scheme_and_may_have_commas() {
        let urls = |text: &str| RedisUrls::from(text).0;
        assert_eq!(urls("redis://a"), ["redis://a"]);
        assert_eq!(urls("redis://a, rediss://b:1,redis://c"), ["redis://a", "rediss://b:1", "redis://c"]);
        assert_eq!(urls("redis://:x,y@a,redis://:z@b"), ["redis://:x,y@a", "redis://:z@b"]);
        assert_eq!(urls(""), [""]);
    }

    #[test]
    fn a_majority_needs_an_odd_number_of_different_servers() {
        assert_eq!(check("redis://a"), Ok(()));
        assert_eq!(check("redis://a,redis://b,redis://c:6380"), Ok(()));
        for (url, why) in [
            ("redis://a,redis://b", "an odd number of them, not 2"),
            ("redis://a,redis://b,redis://c,redis://d", "not 4"),
            ("redis://a,redis://b,redis://:x@A:6379/1", "lists redis://A:6379/1 twice"),
            ("redis://a,redis://b,c,redis://d", "a URL of its own"),
            ("redis://a,redis://b,http://c", "URL"),
        ] {
            let refused = check(url).expect_err(url);
            assert!(refused.contains(why), "{url}: {refused}");
        }
    }

    #[test]
    fn addresses_are_shown_without_passwords() {
        let shown = format!("{:?}", RedisUrls::from("redis://:secret@a,redis://b"));
        assert_eq!(shown, r#"["redis://a", "redis://b"]"#);
    }
}
