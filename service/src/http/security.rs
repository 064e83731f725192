//! What browsers are told about every answer: that it is nothing but what it says, is for nobody else's page,
//! and is not kept.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};

/// For data, which loads nothing and stands in no frame.
const DATA: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// For the page of the description: its own scripts, which set styles and draw with images in their text.
const PAGE: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Whether a path is that of a page, and not of data.
pub fn is_page(path: &str) -> bool {
    path == "/docs" || path.starts_with("/docs/")
}

/// Adds the headers.
pub fn protect(headers: &mut HeaderMap, is_page: bool) {
    let ours: &[_] = if is_page { &PAGE } else { &DATA };
    headers.reserve(ours.len());
    for (name, value) in ours {
        headers.insert(name, value.clone());
    }
}
