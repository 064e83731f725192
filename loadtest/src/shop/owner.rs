//! Whose shop it is: orders are made on this machine only, and where the one who asks says that it is his.

use std::net::IpAddr;

use anyhow::ensure;
use reqwest::Url;

/// The hosts at which orders may be made, besides this machine.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    hosts: Vec<String>,
}

impl Owner {
    /// The owner of these hosts.
    pub fn of(hosts: Vec<String>) -> Self {
        Self { hosts }
    }

    /// Those hosts.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Refuses a URL on somebody else's host.
    pub fn check(&self, url: &Url) -> anyhow::Result<()> {
        self.check_host(url.host_str().unwrap_or_default())
    }

    /// Refuses somebody else's host. One that begins with a slash is a directory of sockets.
    pub fn check_host(&self, host: &str) -> anyhow::Result<()> {
        let host = host.trim_matches(['[', ']']);
        let is_here = host == "localhost"
            || host.starts_with('/')
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        ensure!(
            is_here || self.hosts.iter().any(|owned| owned.eq_ignore_ascii_case(host)),
            "{host} is not this machine, and orders would be made there: if it is yours, say \
             --i-own-this-target {host}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_this_machine_needs_an_owner() {
        let check = |owner: &Owner, url: &str| owner.check(&url.parse().unwrap());
        let nobody = Owner::default();
        for here in ["http://127.0.0.1:80", "http://localhost", "https://[::1]:8443/shop"] {
            assert!(check(&nobody, here).is_ok(), "{here}");
        }
        assert!(nobody.check_host("/var/run/postgresql").is_ok());
        for elsewhere in ["http://shop.example", "http://127.0.0.1.example", "http://192.0.2.1"] {
            let refused = check(&nobody, elsewhere).expect_err(elsewhere).to_string();
            assert!(refused.contains("--i-own-this-target"), "{refused}");
        }
        let owner = Owner::of(vec!["shop.example".into()]);
        assert!(check(&owner, "http://Shop.Example").is_ok());
        assert!(check(&owner, "http://pay.shop.example").is_err());
    }
}
