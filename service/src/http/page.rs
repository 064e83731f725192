//! Pages of a list: how long one is, and where it begins.

use crate::api::FieldError;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

/// Parameters of a list, parsed one after the other; every one that is wrong is remembered.
#[derive(Default)]
pub(super) struct Parameters {
    errors: Vec<FieldError>,
}

impl Parameters {
    /// The parameter `field`, if it was given and can be parsed.
    pub(super) fn parse<T>(
        &mut self,
        field: &str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let error = match text.map(parse)? {
            Ok(value) => return Some(value),
            Err(detail) => FieldError { field: field.into(), detail },
        };
        self.errors.push(error);
        None
    }

    /// What `cursor` says, where it is what a page had as its `next_cursor`.
    pub(super) fn cursor<T, E>(
        &mut self,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let parse = |text: &str| parse(text).map_err(|_| "must be the next_cursor of a page".into());
        self.parse("cursor", text, parse)
    }

    /// How long the page may be.
    pub(super) fn limit(&mut self, text: Option<&str>) -> u32 {
        let limit = self.parse("limit", text, |text| match text.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            _ => Err(format!("must be from 1 to {MAX_LIMIT}")),
        });
        limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// An error if any of them was wrong.
    pub(super) fn finish(self) -> Result<(), Vec<FieldError>> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }
}

/// The page, of `found` rows, which were asked for up to one more than `limit`, and the cursor of the next
/// page if there is one.
pub(super) fn cut<T>(
    mut found: Vec<T>,
    limit: u32,
    cursor: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(cursor);
    (found, next_cursor)
}
