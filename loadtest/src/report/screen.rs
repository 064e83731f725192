//! What tables and texts for people are shown on.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, TableStyle};
use order_service::command_line::is_coloured;
use terminal_size::{Width, terminal_size_of};
use textwrap::Options;

/// What tables and texts for people are shown on: how wide it is, and whether it has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Screen {
    /// How many characters fit side by side; `None`: any number, as in a file.
    pub width: Option<u16>,
    /// Whether words may be coloured.
    pub is_coloured: bool,
}

impl Screen {
    /// The screen behind standard output or standard error. What is no terminal is as wide as `COLUMNS` says.
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let terminal = || terminal_size_of(stream).map(|(Width(width), _)| width);
        let said = || std::env::var("COLUMNS").ok()?.parse().ok();
        let width = if stream.is_terminal() { terminal() } else { said() };
        Self { width: width.filter(|width| *width > 0), is_coloured: is_coloured(stream) }
    }

    /// A table in Markdown, whose first column names the rows. Where it is too wide for the screen, it is
    /// several tables, each with that column; a row that is short is in those that it has cells for.
    pub fn markdown(self, titles: &[&str], rows: &[Vec<Cell>]) -> String {
        let of = |from: usize, to: usize| {
            let mut table = Self::table(ASCII_MARKDOWN);
            table.set_header([0].into_iter().chain(from..to).map(|column| titles[column]));
            for row in rows.iter().filter(|row| row.len() > from) {
                table.add_row(std::iter::once(&row[0]).chain(&row[from..to.min(row.len())]).cloned());
            }
            table.to_string()
        };
        let widest = |table: &str| table.lines().map(textwrap::core::display_width).max().unwrap_or_default();
        let (mut tables, mut from) = (Vec::new(), 1);
        while from < titles.len() {
            let fits = |to: &usize| self.width.is_none_or(|width| widest(&of(from, *to)) <= width.into());
            let to = (from + 1..=titles.len()).rev().find(fits).unwrap_or(from + 1);
            tables.push(of(from, to));
            from = to;
        }
        tables.join("\n\n")
    }

    /// A figure, at the right of its column.
    pub(crate) fn number(value: impl ToString) -> Cell {
        Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
    }

    /// A table in a style of comfy-table, which looks at no terminal itself.
    pub(super) fn table(style: TableStyle) -> Table {
        let mut table = Table::new();
        table.load_style(style).force_no_tty().enforce_styling();
        table
    }

    /// A word that stands out, where there are colours.
    pub(crate) fn word(self, word: &str, colour: Color) -> Cell {
        let cell = Cell::new(word);
        if self.is_coloured { cell.fg(colour).add_attribute(Attribute::Bold) } else { cell }
    }

    /// The text with its lines broken where they are too long; what follows is indented by two more than its
    /// line is.
    pub fn wrap(self, text: &str) -> String {
        let Some(width) = self.width else { return text.into() };
        let wrap = |line: &str| {
            let words = line.trim_start();
            let indent = &line[..line.len() - words.len()];
            let hanging = format!("{indent}  ");
            let options = Options::new(width.into()).break_words(false);
            textwrap::fill(words, options.initial_indent(indent).subsequent_indent(&hanging))
        };
        text.split('\n').map(wrap).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_wide_is_several_tables() {
        let row = |cells: &[&str]| cells.iter().map(Cell::new).collect::<Vec<_>>();
        let rows = [row(&["redis", "correct", "2000 of 2000", "12.5 ms"]), row(&["etcd", "not run"])];
        let titles = ["strategy", "verdict", "sold", "p99"];
        let narrow = Screen { width: Some(40), is_coloured: false }.markdown(&titles, &rows);
        let expected = "| strategy | verdict | sold         |\n|----------|---------|--------------|\n\
                        | redis    | correct | 2000 of 2000 |\n| etcd     | not run |              |\n\n\
                        | strategy | p99     |\n|----------|---------|\n| redis    | 12.5 ms |";
        assert_eq!(narrow, expected);
        assert_eq!(Screen::default().markdown(&titles, &rows).lines().count(), 4);
    }

    #[test]
    fn a_long_line_is_broken_between_words_and_what_follows_is_indented() {
        let screen = Screen { width: Some(20), is_coloured: false };
        let text = "short\n\n  both read 2000 and both wrote 1999";
        assert_eq!(screen.wrap(text), "short\n\n  both read 2000 and\n    both wrote 1999");
        assert_eq!(Screen::default().wrap(text), text);
    }
}
