//! The addresses of Redis servers.

use std::fmt;

use deadpool_redis::redis::{ConnectionInfo, IntoConnectionInfo as _};
use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::URL;
use crate::config::{ConfigError, address_of, is_ambiguous};

/// The addresses of Redis servers, at least one. As a text they are separated by commas.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct RedisUrls(Vec<String>);

impl RedisUrls {
    /// The addresses as they were given, passwords and all.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How to connect to each, as far as the addresses say.
    pub(super) fn connections(&self) -> Result<Vec<ConnectionInfo>, ConfigError> {
        let parse = |url: &str| {
            if is_ambiguous(url) {
                let why = "a user or password with /, ? or # in it has to be percent-encoded";
                return Err(ConfigError::new(URL, why));
            }
            url.into_connection_info().map_err(|error| ConfigError::new(URL, error.to_string()))
        };
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

    #[test]
    fn an_address_begins_with_its_scheme_and_may_have_commas() {
        let urls = |text: &str| RedisUrls::from(text).0;
        assert_eq!(urls("redis://a"), ["redis://a"]);
        assert_eq!(urls("redis://a, rediss://b:1,redis://c"), ["redis://a", "rediss://b:1", "redis://c"]);
        assert_eq!(urls("redis://:x,y@a,redis://:z@b"), ["redis://:x,y@a", "redis://:z@b"]);
        assert_eq!(urls(""), [""]);
    }

    #[test]
    fn addresses_are_shown_without_passwords() {
        let shown = format!("{:?}", RedisUrls::from("redis://:secret@a,redis://b"));
        assert_eq!(shown, r#"["redis://a", "redis://b"]"#);
    }
}
