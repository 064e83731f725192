//! Requests, parsed so that every refusal is a problem document that names what is wrong.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::AppState;
use super::problem::Failure;
use crate::api::{self, FieldError, as_integer};
use crate::order::IdempotencyKey;

/// The largest body that is read.
const MAX_BODY: usize = 64 * 1024;

/// How much of a larger body is taken and thrown away, so that its sender comes to read the answer.
const MAX_DISCARD: usize = 16 * 1024 * 1024;

/// The body of a request, as JSON.
pub struct Json<T>(pub T);

/// The body of a request that changes something.
pub trait Wire: DeserializeOwned {
    /// Its fields, all required.
    const FIELDS: &'static [(&'static str, Kind)];
}

/// What a field has to be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A string.
    Text,
    /// A number without a fraction.
    Integer,
}

impl Wire for api::NewOrder {
    const FIELDS: &'static [(&'static str, Kind)] =
        &[("sku", Kind::Text), ("quantity", Kind::Integer), ("buyer", Kind::Text)];
}

impl Wire for api::PutProduct {
    const FIELDS: &'static [(&'static str, Kind)] = &[("name", Kind::Text), ("stock", Kind::Integer)];
}

impl Wire for api::Restock {
    const FIELDS: &'static [(&'static str, Kind)] = &[("quantity", Kind::Integer), ("reason", Kind::Text)];
}

impl<T: Wire> FromRequest<Arc<AppState>> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Arc<AppState>) -> Result<Self, Failure> {
        let json = is_json(request.headers());
        let body = timeout(shared.request_timeout, read(request)).await.map_err(|_| {
            let title = "The request's body did not arrive in time";
            Failure::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", title, "send the whole body at once")
        })??;
        if !json {
            let title = "The request's body is of another type";
            let detail = "send the header Content-Type: application/json";
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                title,
                detail,
            ));
        }
        serde_json::from_slice(&body).map(Self).map_err(|error| explain::<T>(&body, &error))
    }
}

/// Whether the header says JSON: `application/json` or `application/…+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(content_type)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

async fn read(request: Request) -> Result<Vec<u8>, Failure> {
    let mut stream = request.into_body();
    let mut body = Vec::new();
    let mut length = 0;
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| Failure::malformed(format!("the body broke off: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= MAX_BODY {
            body.extend_from_slice(data);
        } else if length > MAX_DISCARD {
            break;
        }
    }
    if length <= MAX_BODY {
        return Ok(body);
    }
    let title = "The request's body is too large";
    let detail = format!("a body has at most {MAX_BODY} bytes");
    Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", title, detail))
}

/// Says what is wrong with a body: every field, where it is JSON at all.
fn explain<T: Wire>(body: &[u8], error: &serde_json::Error) -> Failure {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return Failure::malformed(format!("the body is not JSON: {error}"));
    };
    let Value::Object(fields) = value else {
        return Failure::malformed("the body must be a JSON object");
    };
    let mut errors = Vec::new();
    let mut wrong = |field: &str, detail: &str| {
        errors.push(FieldError { field: field.into(), detail: detail.into() });
    };
    for (name, kind) in T::FIELDS {
        match (fields.get(*name), kind) {
            (None, _) => wrong(name, "is missing"),
            (Some(Value::String(_)), Kind::Text) => {}
            (Some(Value::Number(number)), Kind::Integer) if as_integer(number).is_some() => {}
            (Some(_), Kind::Text) => wrong(name, "must be a string"),
            (Some(_), Kind::Integer) => wrong(name, "must be an integer"),
        }
    }
    for name in fields.keys().filter(|name| T::FIELDS.iter().all(|(known, _)| known != name)) {
        let known: Vec<_> = T::FIELDS.iter().map(|(name, _)| *name).collect();
        let name: String = name.chars().take(100).collect();
        wrong(&name, &format!("is not known; there are {}", known.join(", ")));
    }
    if errors.is_empty() { Failure::malformed(error.to_string()) } else { Failure::validation(errors) }
}

/// A parameter in the path.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|error| Failure::malformed(error.body_text()))
    }
}

/// The parameters in the query.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|error| Failure::malformed(error.body_text()))
    }
}

/// The header `Idempotency-Key`, if it was sent.
pub struct KeyHeader(pub Option<Result<IdempotencyKey, String>>);

impl<S: Send + Sync> FromRequestParts<S> for KeyHeader {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let mut keys = parts.headers.get_all(api::IDEMPOTENCY_KEY).iter();
        let key = keys.next().map(|value| IdempotencyKey::parse(value.as_bytes()));
        let twice = || Err("must be sent once".into());
        Ok(Self(if keys.next().is_some() { Some(twice()) } else { key }))
    }
}
