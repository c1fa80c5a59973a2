//! Printing: one JSON value for programs, tables for people. Data goes to standard output only.

use super::args::Format;
use super::failure::Failure;
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Where answers go and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    colour: bool,
}

impl Output {
    /// Colour is for terminals whose owner did not set `NO_COLOR` (no-color.org).
    pub(crate) fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { format, colour: wanted && std::io::stdout().is_terminal() }
    }

    /// Prints `value`, or for people what `text` makes of it.
    pub(crate) fn print(self, value: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        let all = match self.format {
            Format::Json => format!("{value:#}\n"),
            Format::Text => text(value),
        };
        self.raw(&all)
    }

    /// Prints text as it is. A reader that went away (`| head`) is no failure.
    #[expect(clippy::unused_self, reason = "printing is asked of the output, whatever its format")]
    pub(crate) fn raw(self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether people read it.
    pub(crate) fn is_text(self) -> bool {
        self.format == Format::Text
    }

    /// `text` in bold, where there is colour.
    pub(crate) fn bold(self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A table with aligned columns; numbers to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| columns(cell));
        cells.chain([columns(head[column])]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number = |cell: &str| !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || "-+.,%".contains(c));
    let numeric: Vec<bool> = (0..head.len())
        .map(|c| rows.iter().any(|r| is_number(&r[c])) && rows.iter().all(|r| r[c].is_empty() || is_number(&r[c])))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, cell) in cells.enumerate() {
            let padding = " ".repeat(widths[i].saturating_sub(columns(cell)));
            let gap = if i == 0 { "" } else { "  " };
            text += &if numeric[i] { format!("{gap}{padding}{cell}") } else { format!("{gap}{cell}{padding}") };
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    text += &line(&mut widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().iter().map(String::as_str));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Terminal columns of a text: the ideographs of goods and names take two.
fn columns(text: &str) -> usize {
    text.chars().map(|c| if matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}') { 2 } else { 1 }).sum()
}

/// A JSON value as one table cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `name: value` lines of an object's members, nested ones as JSON.
pub(crate) fn members(value: &Value) -> String {
    let Some(object) = value.as_object() else { return format!("{}\n", cell(value)) };
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let lines = object.iter().filter(|(_, value)| !value.is_null());
    lines.map(|(name, value)| format!("{name:width$}  {}\n", cell(value))).collect()
}

/// A list under `items` as a table of the named members; `next` is shown as the way on.
pub(crate) fn items(value: &Value, names: &[&str]) -> String {
    let rows: Vec<Vec<String>> = value["items"]
        .as_array()
        .map(|items| items.iter().map(|item| names.iter().map(|name| cell(&item[*name])).collect()).collect())
        .unwrap_or_default();
    if rows.is_empty() {
        return "nothing found\n".to_owned();
    }
    let more = value["next"].as_str().map(|next| format!("more: --cursor {next}\n"));
    table(names, &rows) + &more.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_names_of_any_script_and_numbers_to_the_right() {
        let rows = vec![vec!["李秀英".to_owned(), "7".to_owned()], vec!["Zoë".to_owned(), "-12".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows), "name      n\n------  ---\n李秀英    7\nZoë     -12\n");
    }
}
