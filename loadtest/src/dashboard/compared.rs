//! Several past suites, put beside each other.

use order_service::config::StrategyName;

use super::archive::{Archive, Entry};
use super::form::Form;
use super::stories::told;
use crate::report::{RunReport, Strategy};

/// The most suites that are compared: as many as there are letters and colours to tell them by.
pub(super) const MOST: usize = 6;

/// A suite that is compared.
pub(super) struct Compared<'a> {
    /// The letter that it is called by.
    pub(super) letter: char,
    pub(super) id: &'a str,
    pub(super) entry: &'a Entry,
    /// What people call it.
    pub(super) title: String,
}

/// The repetitions of a strategy in a suite.
pub(super) struct Group<'a> {
    /// The letter of the suite.
    pub(super) letter: char,
    /// The number of the suite.
    pub(super) suite: usize,
    pub(super) strategy: &'a Strategy,
    pub(super) runs: Vec<&'a RunReport>,
}

/// What a suite is called: as somebody has called it, or else after its story or its strategies.
pub(super) fn title(archive: &Archive, id: &str, entry: &Entry) -> String {
    let named = archive.name(id);
    if !named.is_empty() {
        return named.into();
    }
    let form = Form::parse(&entry.form);
    match told(&form) {
        Some((story, act)) if story.acts.len() > 1 => format!("{}, {}", story.title, act.title),
        Some((story, _)) => story.title.into(),
        None => form.strategies.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// The suites of these ids, as far as they are known, each under a letter.
pub(super) fn suites<'a>(archive: &'a Archive, ids: &'a [String]) -> Vec<Compared<'a>> {
    let known = ids.iter().filter_map(|id| Some((id.as_str(), archive.entry(id)?)));
    let lettered = ('A'..='Z').zip(known).take(MOST);
    let suite = |(letter, (id, entry))| Compared { letter, id, entry, title: title(archive, id, entry) };
    lettered.map(suite).collect()
}

/// All that was asked for in the suites, strategy by strategy; `only` one, where one is given.
pub(super) fn groups<'a>(suites: &[Compared<'a>], only: Option<&str>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for strategy in
        strategies(suites).into_iter().filter(|name| only.is_none_or(|only| name.to_string() == only))
    {
        for (number, suite) in suites.iter().enumerate() {
            let runs = suite.entry.runs.iter().filter(|run| !run.is_control && run.strategy == *strategy);
            let runs: Vec<_> = runs.collect();
            if !runs.is_empty() {
                groups.push(Group { letter: suite.letter, suite: number, strategy, runs });
            }
        }
    }
    groups
}

/// The strategies of the suites, in the order in which all lists have them.
pub(super) fn strategies<'a>(suites: &[Compared<'a>]) -> Vec<&'a Strategy> {
    let mut strategies: Vec<&Strategy> = Vec::new();
    for run in suites.iter().flat_map(|suite| &suite.entry.runs).filter(|run| !run.is_control) {
        if !strategies.contains(&&run.strategy) {
            strategies.push(&run.strategy);
        }
    }
    let place = |strategy: &&Strategy| StrategyName::ALL.iter().position(|name| **strategy == *name);
    strategies.sort_by_key(|strategy| place(strategy).unwrap_or(usize::MAX));
    strategies
}

/// The group that another is compared with: the first of the same strategy, or else the first of all that may
/// be compared with; `None` for that one itself.
pub(super) fn baseline<'a, 'b>(groups: &'b [Group<'a>], group: &Group<'a>) -> Option<&'b Group<'a>> {
    let same = || groups.iter().filter(|other| other.strategy == group.strategy);
    let is_alone =
        groups.iter().all(|other| groups.iter().filter(|any| any.strategy == other.strategy).count() == 1);
    let is_whole = |other: &&Group<'_>| !super::change::is_broken(&other.runs);
    let first = if is_alone { groups.iter().find(is_whole) } else { same().next() };
    first.filter(|first| (first.suite, first.strategy) != (group.suite, group.strategy))
}

/// In which fields the forms of the suites differ, with what each says.
pub(super) fn differences(suites: &[Compared<'_>]) -> Vec<(&'static str, Vec<String>)> {
    let forms: Vec<_> = suites.iter().map(|suite| Form::parse(&suite.entry.form)).collect();
    let Some((first, rest)) = forms.split_first() else { return Vec::new() };
    let mut names: Vec<_> = rest.iter().flat_map(|other| first.differences(other)).collect();
    names.sort_unstable();
    names.dedup();
    // How often it was run, and beside what, is no part of the load.
    names.retain(|name| !["repeat", "control"].contains(name));
    let said = |form: &Form, name| match form.value(name) {
        "" => "–".to_owned(),
        value => value.replace('\n', " "),
    };
    names.into_iter().map(|name| (name, forms.iter().map(|form| said(form, name)).collect())).collect()
}
