//! The dashboard and its frozen page, in a real browser.

#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/dashboard.rs"]
mod dashboard;
#[path = "../support/shops.rs"]
mod shops;
#[path = "../support/mod.rs"]
mod support;

mod layout;
mod live;
mod pages;
mod pictures;
mod runs;
