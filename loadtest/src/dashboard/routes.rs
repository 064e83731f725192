//! All addresses of the dashboard: the pages, their files, and the buttons on them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use maud::html;
use serde_json::json;

use super::form::{FaultMenu, Form};
use super::pages::{experiments, past, run, shop, stories};
use super::shop::ShopForm;
use super::state::Dashboard;
use super::{events, guard, job};
use crate::experiments as claims;
use crate::report::html::{cursor, downloads, layout};

type Shared = State<Arc<Dashboard>>;

/// The router, for whoever serves it on an address of this machine.
pub(super) fn router(dashboard: Arc<Dashboard>) -> Router {
    Router::new()
        .route("/", get(show_first))
        .route("/start", get(show_stories))
        .route("/run", get(show_run).post(start))
        .route("/fault", get(fault))
        .route("/stop", post(stop))
        .route("/command", get(command))
        .route("/events", get(events::stream))
        .route("/experiments", get(show_experiments).post(try_all))
        .route("/experiments/{name}", get(show_claim).post(try_claim))
        .route("/shop", get(show_shop).post(start_shop))
        .route("/shop/stop", post(stop_shop))
        .route("/shop/command", get(shop_command))
        .route("/shops/{file}", get(show_kept_shop))
        .route("/runs", get(show_past))
        .route("/runs/delete", get(ask_to_delete).post(delete))
        .route("/runs/{file}", get(show_kept))
        .route("/runs/{file}/name", post(name))
        .route("/style.css", get(|| async { file("text/css", layout::STYLE) }))
        .route("/page.js", get(|| async { file("text/javascript", include_str!("page.js")) }))
        .route("/cursor.js", get(|| async { file("text/javascript", cursor::SCRIPT) }))
        .route("/form.js", get(|| async { file("text/javascript", include_str!("form.js")) }))
        .route("/icon.svg", get(icon))
        .layer(from_fn(guard::ours_only))
        .with_state(dashboard)
}

/// The run that goes on, or was the last, or that the address describes; or else the stories.
async fn show_first(State(dashboard): Shared, RawQuery(query): RawQuery) -> Response {
    let is_first = query.is_none() && dashboard.lock().suite.is_none();
    if is_first {
        show_stories(State(dashboard)).await
    } else {
        show_run(State(dashboard), RawQuery(query)).await
    }
}

async fn show_stories(State(dashboard): Shared) -> Response {
    page(stories::page(&dashboard.lock()))
}

async fn show_run(State(dashboard): Shared, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let inner = dashboard.lock();
    // Without a form in the address, the form of what goes on or was the last.
    let form = match &inner.suite {
        Some(suite) if !query.contains("stock=") => suite.form.clone(),
        _ => Form::parse(&query),
    };
    let mut mistakes = form.plan().err();
    if let Some(menu) = FaultMenu::pressed(&query) {
        match menu.fault() {
            Ok(fault) => return see_other(&format!("/run?{}", form.with_fault(&fault.to_string()).query())),
            Err(mistake) => {
                mistakes.get_or_insert_default().insert("faults", format!("the menu: {mistake}"));
            }
        }
    }
    page(run::page(&inner, &form, run::shown(&query).as_deref(), mistakes))
}

async fn start(State(dashboard): Shared, body: String) -> Response {
    let mut form = Form::parse(&body);
    let all = form_urlencoded::parse(body.as_bytes()).any(|(name, _)| name == "all");
    if all {
        form = form.with_all_strategies();
    }
    // Whatever came of it, the address is one that can be loaded again; it says what is wrong, too.
    let address = format!("/run?{}", form.query());
    match form.plan().map(|plan| job::run(&dashboard, form, plan)) {
        Ok(Ok(())) | Err(_) => see_other(&address),
        Ok(Err(job::Busy)) => busy(),
    }
}

async fn stop(State(dashboard): Shared, body: String) -> Response {
    job::stop(&dashboard);
    let back = form_urlencoded::parse(body.as_bytes()).any(|(name, _)| name == "experiments");
    see_other(&if back { "/experiments".into() } else { format!("/run?{}", Form::parse(&body).query()) })
}

/// The command line of a form; or what is wrong with which of its fields.
async fn command(RawQuery(query): RawQuery) -> Response {
    let form = Form::parse(&query.unwrap_or_default());
    let answer = match form.plan() {
        Ok(plan) => json!({ "command": plan.command_line(), "mistakes": {} }),
        Err(mistakes) => json!({ "command": null, "mistakes": mistakes }),
    };
    file("application/json", answer.to_string())
}

/// The fault of a menu as text; or what is wrong with the menu.
async fn fault(RawQuery(query): RawQuery) -> Response {
    let menu = FaultMenu::pressed(&format!("add-fault=1&{}", query.unwrap_or_default())).unwrap_or_default();
    let answer = match menu.fault() {
        Ok(fault) => json!({ "fault": fault.to_string() }),
        Err(mistake) => json!({ "mistake": mistake }),
    };
    file("application/json", answer.to_string())
}

async fn show_experiments(State(dashboard): Shared) -> Response {
    page(experiments::page(&dashboard.lock()))
}

/// Where it is tried, should the address of its button be opened.
async fn show_claim(Path(name): Path<String>) -> Response {
    let is_known = claims::all().into_iter().any(|experiment| experiment.name == name);
    if is_known { see_other(&format!("/experiments#{name}")) } else { StatusCode::NOT_FOUND.into_response() }
}

async fn try_claim(State(dashboard): Shared, Path(name): Path<String>) -> Response {
    let Some(experiment) = claims::all().into_iter().find(|experiment| experiment.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match job::experiments(&dashboard, vec![experiment]) {
        Ok(()) => see_other(&format!("/experiments#{name}")),
        Err(job::Busy) => busy(),
    }
}

async fn try_all(State(dashboard): Shared) -> Response {
    match job::experiments(&dashboard, claims::all()) {
        Ok(()) => see_other("/experiments"),
        Err(job::Busy) => busy(),
    }
}

async fn show_shop(State(dashboard): Shared, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let inner = dashboard.lock();
    let form = match &inner.shop {
        Some(job) if !query.contains("file=") => job.form.clone(),
        _ => ShopForm::parse(&query),
    };
    page(shop::page(&inner, &form, None))
}

async fn start_shop(State(dashboard): Shared, body: String) -> Response {
    let form = ShopForm::parse(&body);
    let dry_run = form_urlencoded::parse(body.as_bytes()).any(|(name, _)| name == "dry-run");
    let plan = match form.plan() {
        Ok(plan) => plan,
        Err(mistake) => {
            let shown = page(shop::page(&dashboard.lock(), &form, Some(&format!("{mistake:#}"))));
            return (StatusCode::UNPROCESSABLE_ENTITY, shown).into_response();
        }
    };
    let query = form.query();
    match job::shop(&dashboard, form, plan, dry_run) {
        Ok(()) => see_other(&format!("/shop?{query}")),
        Err(job::Busy) => busy(),
    }
}

async fn stop_shop(State(dashboard): Shared, body: String) -> Response {
    job::stop(&dashboard);
    see_other(&format!("/shop?{}", ShopForm::parse(&body).query()))
}

async fn shop_command(RawQuery(query): RawQuery) -> Response {
    file("text/plain; charset=utf-8", ShopForm::parse(&query.unwrap_or_default()).command())
}

async fn show_kept_shop(State(dashboard): Shared, Path(file_name): Path<String>) -> Response {
    let (id, kind) = file_name.split_once('.').unwrap_or((&file_name, ""));
    let report = dashboard.lock().archive.shop(id);
    let Some(report) = report else { return StatusCode::NOT_FOUND.into_response() };
    match kind {
        "" => page(shop::one(id, &report)),
        "json" => attached(id, kind, serde_json::to_string_pretty(&report).expect("it can be written")),
        "html" => attached(id, kind, crate::shop::page::frozen(&report)),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn show_past(State(dashboard): Shared, RawQuery(query): RawQuery) -> Response {
    page(past::page(&dashboard.lock().archive, &query.unwrap_or_default()))
}

async fn show_kept(State(dashboard): Shared, Path(file_name): Path<String>) -> Response {
    let (id, kind) = file_name.split_once('.').unwrap_or((&file_name, ""));
    let inner = dashboard.lock();
    let Some(kept) = inner.archive.load(id) else { return StatusCode::NOT_FOUND.into_response() };
    let report = &kept.report;
    match kind {
        "" => page(past::one(&inner.archive, id, &kept)),
        "json" => attached(id, kind, serde_json::to_string_pretty(report).expect("it can be written")),
        "csv" => attached(id, kind, downloads::csv(report)),
        "html" => attached(id, kind, crate::report::html::page(report)),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn name(State(dashboard): Shared, Path(id): Path<String>, body: String) -> Response {
    let named = form_urlencoded::parse(body.as_bytes()).find(|(name, _)| name == "name");
    let name: String = named.map(|(_, value)| value.trim().chars().take(80).collect()).unwrap_or_default();
    let mut inner = dashboard.lock();
    match inner.archive.entry(&id).is_some().then(|| inner.archive.rename(&id, &name)) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Ok(())) => see_other(&format!("/runs/{id}")),
        Some(Err(error)) => failed(&error),
    }
}

async fn ask_to_delete(State(dashboard): Shared, RawQuery(query): RawQuery) -> Response {
    page(past::deletion(&dashboard.lock().archive, &query.unwrap_or_default()))
}

async fn delete(State(dashboard): Shared, body: String) -> Response {
    let mut inner = dashboard.lock();
    let deleted: Vec<_> = past::chosen(&body).into_iter().map(|id| inner.archive.delete(&id)).collect();
    match deleted.into_iter().find_map(Result::err) {
        None => see_other("/runs"),
        Some(error) => failed(&error),
    }
}

/// Something could not be done with the files of past runs.
fn failed(error: &anyhow::Error) -> Response {
    let body = html! {
        h1 { "That could not be done" }
        p.message { (format!("{error:#}")) }
        p { a href="/runs" { "Past runs" } }
    };
    (StatusCode::INTERNAL_SERVER_ERROR, page(layout::served("Failed", "", &body))).into_response()
}

/// A report as a file of its own.
fn attached(id: &str, kind: &str, text: String) -> Response {
    let content_type = match kind {
        "json" => "application/json",
        "csv" => "text/csv; charset=utf-8",
        _ => "text/html; charset=utf-8",
    };
    let attachment = format!("attachment; filename=\"stocklock-{id}.{kind}\"");
    ([(CONTENT_TYPE, content_type), (CONTENT_DISPOSITION, attachment.as_str())], text).into_response()
}

async fn icon() -> Response {
    let sign = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" color="#0b7ac4" { (layout::mark()) }
    };
    file("image/svg+xml", sign.into_string())
}

fn page(markup: maud::Markup) -> Response {
    file("text/html; charset=utf-8", markup.into_string())
}

fn file(content_type: &'static str, text: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

fn see_other(address: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, address)]).into_response()
}

fn busy() -> Response {
    let body = html! {
        h1 { "Something goes on already" }
        p { "One run at a time: two at once would spoil each other's figures. " a href="/run" { "See it" }
            " or stop it first." }
    };
    (StatusCode::CONFLICT, page(layout::served("Busy", "", &body))).into_response()
}
