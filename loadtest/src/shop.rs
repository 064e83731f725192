//! Does somebody else's shop oversell? A load test for services that are not ours: a file describes how to
//! buy in them, and where they say what was sold.
//!
//! A module uses only modules that stand below it in this table:
//!
//! | module | what it does |
//! |---|---|
//! | [`rehearsal`] | one purchase alone, with every step shown |
//! | [`run`](mod@run) | the same purchases by one buyer after the other, and by more and more at once |
//! | [`judge`] | the verdict: pure functions from what was answered and what the shop's record says |
//! | [`report`] | what was found, as a table and as JSON |
//! | [`truth`] | what the shop itself says of its stock |
//! | [`buyer`] | a session, and the steps of a purchase in it |
//! | [`database`] | statements for the shop's own database |
//! | [`answer`] | what is taken from an answer, and what it is like |
//! | [`description`] | the file |
//! | [`template`] | texts with variables |

mod rehearsal;
mod run;
mod judge;
mod report;
mod truth;
mod buyer;
mod database;
mod answer;
mod description;
mod template;

use std::net::IpAddr;

use anyhow::ensure;

pub use description::Description;
pub use rehearsal::{Rehearsal, rehearse};
pub use report::{ShopReport, ShopRun, StepLatency};
pub use run::{Load, RUNGS, run};

/// Refuses shops that are not on this machine, unless the one who asks says that the host is his own: the
/// load makes orders there, as many as it is large.
pub fn check_owner(shop: &Description, owned: &[String], purchases: usize) -> anyhow::Result<()> {
    for target in &shop.targets {
        let url: reqwest::Url = target.parse()?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_here =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        ensure!(
            is_here || owned.contains(&host),
            "{target} is not on this machine, and up to {purchases} orders would be made there: \
             if it is yours, say --i-own-this-target {host}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_this_machine_needs_an_owner() {
        let at = |target: &str| {
            let text = format!(
                "name = 'x'\ntargets = ['{target}']\n[[purchase]]\npath = '/'\n\
                 [truth.sold]\npath = '/'\njsonpath = '$'"
            );
            toml::from_str::<Description>(&text).expect("a description")
        };
        for here in ["http://127.0.0.1:80", "http://localhost", "https://[::1]:8443/shop"] {
            assert!(check_owner(&at(here), &[], 40).is_ok(), "{here}");
        }
        for elsewhere in ["http://shop.example", "http://127.0.0.1.example", "http://192.0.2.1"] {
            let refused = check_owner(&at(elsewhere), &[], 40).expect_err(elsewhere).to_string();
            assert!(refused.contains("--i-own-this-target") && refused.contains("40 orders"), "{refused}");
        }
        assert!(check_owner(&at("http://shop.example"), &["shop.example".into()], 40).is_ok());
    }
}
