//! An answer of the shop: what is taken from it, and what it is like.

use anyhow::{Context as _, bail};
use regex::Regex;
use reqwest::header::HeaderMap;
use scraper::{Html, Selector};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::description::{Matcher, Query, Status};

/// How much of a body is shown.
const SHOWN: usize = 300;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The cookies that it sets.
    pub cookies: Vec<(String, String)>,
    /// Its body, as text.
    pub body: String,
}

impl Answer {
    /// What a query finds, or an error that says what was looked for and what there is instead.
    pub fn capture(&self, query: &Query) -> anyhow::Result<Value> {
        if let Some(path) = &query.jsonpath {
            let found = self.find(path)?;
            let Some(one) = found.into_iter().next() else {
                bail!("jsonpath {path:?} finds nothing in {}", self.shown());
            };
            let Some(regex) = &query.regex else { return Ok(one) };
            let text = if let Value::String(text) = one { text } else { one.to_string() };
            return captured(regex, &text, || format!("what jsonpath {path:?} finds: {}", shortened(&text)));
        }
        let text = self.text(query)?;
        let Some(regex) = &query.regex else { return Ok(Value::String(text)) };
        captured(regex, &text, || match (&query.header, &query.cookie, &query.css) {
            (None, None, None) => self.shown(),
            _ => format!("what was found: {}", shortened(&text)),
        })
    }

    /// What a query that is not for JSON looks at: a header, a cookie, a part of the page, or the body.
    fn text(&self, query: &Query) -> anyhow::Result<String> {
        if let Some(name) = &query.header {
            return match self.header(name) {
                Some(value) => Ok(value.into()),
                None => bail!("there is no header {name:?}; there are {}", self.header_names()),
            };
        }
        if let Some(name) = &query.cookie {
            // The last one wins, as in a browser.
            return match self.cookies.iter().rev().find(|(cookie, _)| cookie == name) {
                Some((_, value)) => Ok(value.clone()),
                None => {
                    let set: Vec<_> = self.cookies.iter().map(|(name, _)| name.as_str()).collect();
                    let set = if set.is_empty() { "none".into() } else { set.join(", ") };
                    bail!("no cookie {name:?} is set, but {set}")
                }
            };
        }
        let Some(css) = &query.css else { return Ok(self.body.clone()) };
        let Ok(selector) = Selector::parse(css) else { bail!("css {css:?} is no selector") };
        let page = Html::parse_document(&self.body);
        let Some(element) = page.select(&selector).next() else {
            bail!("css {css:?} finds nothing in {}", self.shown());
        };
        if let Some(name) = &query.attribute {
            let value = element.attr(name);
            return value.map(str::to_owned).with_context(|| {
                let there: Vec<_> = element.value().attrs().map(|(name, _)| name).collect();
                format!("what css {css:?} finds has no attribute {name:?}, but {}", there.join(", "))
            });
        }
        let value = element.attr("value").or_else(|| element.attr("content"));
        Ok(value.map_or_else(|| element.text().collect::<String>().trim().to_owned(), str::to_owned))
    }

    /// All that a JSONPath finds in the body.
    pub fn find(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let path = JsonPath::parse(path).with_context(|| format!("{path:?}"))?;
        let json: Value =
            serde_json::from_str(&self.body).with_context(|| format!("not JSON but {}", self.shown()))?;
        Ok(path.query(&json).all().into_iter().cloned().collect())
    }

    /// Whether the answer is as the matcher says, in all that it says.
    pub fn is(&self, matcher: &Matcher) -> bool {
        let status = match &matcher.status {
            None => true,
            Some(Status::Code(code)) => *code == self.status,
            Some(Status::Class(class)) => class.starts_with(&(self.status / 100).to_string()),
        };
        let body = matcher.body.as_ref().is_none_or(|text| self.body.contains(text));
        let location = |text: &String| self.header("location").is_some_and(|value| value.contains(text));
        let matches = |regex: &String| Regex::new(regex).is_ok_and(|regex| regex.is_match(&self.body));
        let json = |path: &String| {
            let found = self.find(path).unwrap_or_default();
            match &matcher.equals {
                None => !found.is_empty(),
                Some(value) => found.contains(value),
            }
        };
        status
            && body
            && matcher.location.as_ref().is_none_or(location)
            && matcher.matches.as_ref().is_none_or(matches)
            && matcher.jsonpath.as_ref().is_none_or(json)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The status and the beginning of the body, for people.
    pub fn shown(&self) -> String {
        let body = shortened(&self.body);
        let kind = self.header("content-type").unwrap_or("no content type");
        let location = self.header("location").map_or_else(String::new, |to| format!(", to {to}"));
        format!("{} ({kind}{location}): {body}", self.status)
    }

    fn header_names(&self) -> String {
        self.headers.keys().map(reqwest::header::HeaderName::as_str).collect::<Vec<_>>().join(", ")
    }
}

fn captured(regex: &str, text: &str, place: impl FnOnce() -> String) -> anyhow::Result<Value> {
    let parsed = Regex::new(regex).with_context(|| format!("{regex:?}"))?;
    let Some(found) = parsed.captures(text) else {
        bail!("regex {regex:?} matches nothing in {}", place());
    };
    let part = found.get(1).or_else(|| found.get(0)).expect("the whole match is there");
    Ok(Value::String(part.as_str().into()))
}

/// The beginning of a text, in a line.
pub fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let headers = [("location", "/thank-you"), ("content-type", "text/plain")];
        let headers =
            headers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        let cookies = vec![("session".into(), "s1".into()), ("session".into(), "s2".into())];
        Answer { status, headers: HeaderMap::from_iter(headers), cookies, body: body.into() }
    }

    #[test]
    fn captures_come_from_json_headers_text_and_forms() {
        let of = |query: &str, body: &str| answer(200, body).capture(&toml::from_str(query).unwrap());
        assert_eq!(of("jsonpath = '$.a[0].id'", r#"{"a": [{"id": 7}]}"#).unwrap(), json!(7));
        assert_eq!(of("header = 'Location'", "").unwrap(), json!("/thank-you"));
        assert_eq!(of("regex = 'no (\\d+)'", "order no 42").unwrap(), json!("42"));
        let form = r#"<form><input type="hidden" name="csrf" value="t1"></form><h1>Oh</h1>"#;
        assert_eq!(of("css = 'input[name=csrf]'", form).unwrap(), json!("t1"));
        assert_eq!(of("css = 'h1'", form).unwrap(), json!("Oh"));
        assert_eq!(of("css = 'input'\nattribute = 'name'", form).unwrap(), json!("csrf"));
        assert_eq!(of("cookie = 'session'", "").unwrap(), json!("s2"));
        assert_eq!(of("header = 'location'\nregex = 'thank-(.*)'", "").unwrap(), json!("you"));
        assert_eq!(of("jsonpath = '$.a'\nregex = '[0-9]+'", r#"{"a": "no 7"}"#).unwrap(), json!("7"));
        for (query, body, said) in [
            ("jsonpath = '$.b'", r#"{"a": 1}"#, "\"$.b\" finds nothing in 200"),
            ("jsonpath = '$.b'", "<html>Log in</html>", "not JSON but 200 (text/plain"),
            ("header = 'x-token'", "", "no header \"x-token\"; there are location, content-type"),
            ("css = 'input[name=x]'", form, "finds nothing"),
            ("css = 'input'\nattribute = 'href'", form, "no attribute \"href\", but"),
            ("cookie = 'csrf'", "", "no cookie \"csrf\" is set, but session, session"),
            ("header = 'location'\nregex = '/order/'", "", "matches nothing in what was found: /thank-you"),
            ("regex = '/order/'", "hello", "matches nothing in 200 (text/plain"),
        ] {
            let error = format!("{:#}", of(query, body).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_matcher_asks_for_all_that_it_says() {
        let graphql = answer(200, r#"{"errors": [{"code": "NO_STOCK"}]}"#);
        for (matcher, is) in [
            ("status = 200", true),
            ("status = '2xx'", true),
            ("status = '4xx'", false),
            ("jsonpath = '$.errors[*].code'\nequals = 'NO_STOCK'", true),
            ("jsonpath = '$.errors[*].code'\nequals = 'OTHER'", false),
            ("jsonpath = '$.data'", false),
            ("status = 200\nbody = 'NO_STOCK'\nlocation = 'thank'", true),
            ("status = 200\nbody = 'sold out'", false),
            ("matches = 'NO_\\w+'", true),
        ] {
            assert_eq!(graphql.is(&toml::from_str(matcher).unwrap()), is, "{matcher}");
        }
    }
}
