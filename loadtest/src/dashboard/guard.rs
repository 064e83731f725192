//! Keeps other sites out. Any page in a browser can send requests to this machine; only the dashboard's own
//! page may have them answered.

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// What pages may load: what this server sends, and no more.
const OURS_ONLY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Answers only what the dashboard's own pages ask.
pub(super) async fn ours_only(request: Request, next: Next) -> Response {
    if let Err(why) = admit(request.method(), request.headers()) {
        return (StatusCode::FORBIDDEN, format!("{why}\n")).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, OURS_ONLY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Forms must be able to say where they come from.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn admit(method: &Method, headers: &HeaderMap) -> Result<(), &'static str> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // A name that another has pointed to this machine is not this machine's (DNS rebinding).
    let host = text(&HOST).filter(|host| is_loopback(host)).ok_or("the host is not this machine")?;
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let own = format!("http://{host}");
    if text(&ORIGIN) != Some(&own) {
        return Err("the request does not come from the dashboard's own page");
    }
    match text(&HeaderName::from_static("sec-fetch-site")) {
        None | Some("same-origin") => Ok(()),
        Some(_) => Err("the request comes from another site"),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(method: &Method, headers: &[(&'static str, &'static str)]) -> bool {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        admit(method, &pairs.collect()).is_ok()
    }

    #[test]
    fn only_the_own_page_has_control() {
        let host = ("host", "127.0.0.1:7070");
        let own = ("origin", "http://127.0.0.1:7070");
        let here = ("sec-fetch-site", "same-origin");
        assert!(admitted(&Method::GET, &[host]));
        assert!(admitted(&Method::GET, &[("host", "localhost:7070")]));
        assert!(admitted(&Method::GET, &[("host", "[::1]:7070")]));
        assert!(admitted(&Method::POST, &[host, own, here]));
        assert!(admitted(&Method::POST, &[host, own]));
        for refused in [
            &[host][..],
            &[host, here],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://127.0.0.1:8080"), here],
            &[host, ("origin", "http://evil.example")],
            &[host, own, ("sec-fetch-site", "same-site")],
            &[host, own, ("sec-fetch-site", "cross-site")],
            &[("host", "evil.example"), ("origin", "http://evil.example"), here],
        ] {
            assert!(!admitted(&Method::POST, refused), "{refused:?}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "evil.example:7070", "127.0.0.1:80x"] {
            assert!(!admitted(&Method::GET, &[("host", host)]), "{host}");
        }
        assert!(!admitted(&Method::GET, &[]));
    }
}
