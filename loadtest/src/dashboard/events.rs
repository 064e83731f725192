//! Brings what changes to open pages, as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::watch;

use super::pages::part::Part;
use super::pages::{experiments, run, shop};
use super::state::Dashboard;

/// When a page asks again that has lost the program.
const AGAIN: Duration = Duration::from_millis(500);

/// One open page.
struct Page {
    dashboard: Arc<Dashboard>,
    changed: watch::Receiver<u64>,
    query: String,
    /// What the page has of each part.
    has: HashMap<String, String>,
}

/// Which program this is, and the parts that have changed, whenever there are any. A page that is slow
/// misses what lies between, not the last.
pub(super) async fn stream(
    State(dashboard): State<Arc<Dashboard>>,
    RawQuery(query): RawQuery,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changed = dashboard.subscribe();
    // What has changed between the page and its first question.
    changed.mark_changed();
    let page = Page { dashboard, changed, query: query.unwrap_or_default(), has: HashMap::new() };
    let hello = Event::default().event("program").retry(AGAIN).data(&page.dashboard.program);
    let hello = stream::once(async { Ok(hello) });
    Sse::new(hello.chain(stream::unfold(page, next))).keep_alive(KeepAlive::default())
}

async fn next(mut page: Page) -> Option<(Result<Event, Infallible>, Page)> {
    loop {
        page.changed.changed().await.ok()?;
        let parts = page.news();
        if !parts.is_empty() {
            let data = serde_json::to_string(&parts).expect("texts can be written as JSON");
            return Some((Ok(Event::default().data(data)), page));
        }
    }
}

impl Page {
    /// The names, the marks and the new content of the parts that have changed.
    fn news(&mut self) -> Vec<[String; 3]> {
        let inner = self.dashboard.lock();
        let parts = if self.query.contains("page=experiments") {
            experiments::parts(&inner)
        } else if self.query.contains("page=shop") {
            shop::parts(&inner)
        } else {
            run::parts(&inner, run::shown(&self.query).as_deref())
        };
        drop(inner);
        let has = &mut self.has;
        let is_new =
            |part: &Part| has.insert(part.id.clone(), part.hash.clone()).as_ref() != Some(&part.hash);
        parts.into_iter().filter(is_new).map(|part| [part.id, part.hash, part.text]).collect()
    }
}
