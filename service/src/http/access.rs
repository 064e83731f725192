//! Who may do what: the bearer tokens of those who run the shop.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::AppState;
use super::problem::Failure;
use crate::config::{Config, Secret};

/// The tokens of a replica, and whether it needs them.
pub struct Access {
    admin: Secret,
    server: Secret,
    /// Whether everybody may list and cancel orders.
    is_open: bool,
}

impl Access {
    /// As it is configured.
    pub fn new(config: &Config) -> Self {
        Self {
            admin: config.admin.token.clone(),
            server: config.server.token.clone(),
            is_open: config.server.is_open(),
        }
    }
}

/// The right to change products: the admin token.
pub struct Admin;

impl FromRequestParts<Arc<AppState>> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<AppState>) -> Result<Self, Failure> {
        let Access { admin, .. } = &shared.access;
        if admin.is_empty() {
            let title = "Admin calls are forbidden";
            let detail = "this replica has no admin.token";
            return Err(Failure::new(StatusCode::FORBIDDEN, "admin-disabled", title, detail));
        }
        if has(parts, admin) { Ok(Self) } else { Err(Failure::unauthorized("admin.token")) }
    }
}

/// The right to list orders, and to cancel them: the server's token, or the admin token.
pub struct OrderDesk;

impl FromRequestParts<Arc<AppState>> for OrderDesk {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<AppState>) -> Result<Self, Failure> {
        let Access { admin, server, is_open } = &shared.access;
        if (*is_open && is_from_here(&parts.headers)) || has(parts, server) || has(parts, admin) {
            return Ok(Self);
        }
        if server.is_empty() {
            let title = "Listing and cancelling orders is forbidden";
            let detail = "this replica can be reached from elsewhere, or the request comes from another site \
                          or through a proxy, and there is no server.token";
            return Err(Failure::new(StatusCode::FORBIDDEN, "order-desk-disabled", title, detail));
        }
        Err(Failure::unauthorized("server.token"))
    }
}

/// Whether a request was made to this machine by its own name, and by no page of another site: a browser here
/// would send it what such a page likes, also to a name that its owner has pointed to this machine.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_loopback = |host: &str| {
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let is_own = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host));
    text(header::HOST).is_some_and(is_loopback)
        && headers.get(header::ORIGIN).is_none_or(|origin| origin.to_str().is_ok_and(is_own))
}

/// Whether a request has a token, which no request has that is empty. Takes as long for a wrong one as for
/// the right one of the same length.
fn has(parts: &Parts, token: &Secret) -> bool {
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = authorization.and_then(|value| value.split_once(' '));
    given.is_some_and(|(scheme, given)| {
        let given = given.trim().as_bytes();
        scheme.eq_ignore_ascii_case("bearer")
            && !token.is_empty()
            && bool::from(given.ct_eq(token.reveal().as_bytes()))
    })
}
