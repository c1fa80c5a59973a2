//! SVG: stages from top to bottom, their steps side by side, the reversal in a column of its own on the right.

use super::{Box, Sketch};
use crate::definition::Definition;
use std::fmt::Write;

const LINE: usize = 16;
const PAD: usize = 10;
const GAP: usize = 36;
/// Width of a character of the 12-pixel font, rounded up.
const CHAR: usize = 7;
/// Longest line shown; conditions can be long.
const MAX_CHARS: usize = 56;

/// The definition as an SVG picture.
#[must_use]
pub fn svg(definition: &Definition) -> String {
    let sketch = Sketch::of(definition);
    let mut canvas = Canvas::default();
    let completed = format!("completed: {}", sketch.completed);
    let reversed = sketch.reversed.as_ref().map(|status| format!("undo all, reversed: {status}"));
    // Each column has room for the end below it.
    let left = canvas.column(PAD * 2, &sketch.forward, PAD * 4 + LINE, end_width(&completed));
    let x = PAD * 2 + left.width + GAP * 2;
    let top = left.pivot_y.unwrap_or(PAD * 4 + LINE) + PAD;
    let right = canvas.column(x, &sketch.reverse, top, reversed.as_deref().map_or(0, end_width));
    canvas.texts(PAD * 2, PAD + LINE, std::slice::from_ref(&sketch.title), "title");
    let centre = PAD * 2 + left.width / 2;
    canvas.end(centre, left.bottom, &completed, "good");
    let mut bottom = left.bottom + GAP + LINE * 2;
    if let Some(reversed) = &reversed {
        let below = if sketch.reverse.is_empty() { left.bottom } else { right.bottom };
        canvas.end(x + right.width / 2, below, reversed, "back");
        bottom = bottom.max(below + GAP + LINE * 2);
    }
    let mut notes: Vec<String> = Vec::new();
    notes.extend(
        sketch
            .cancelled
            .iter()
            .map(|status| format!("Before the pivot everything can be undone; cancelled: {status}.")),
    );
    if !sketch.reasons.is_empty() {
        notes.push(format!("Cancel reasons: {}.", sketch.reasons.join(", ")));
    }
    notes.extend(sketch.late.iter().map(|late| format!("Late: {late}.")));
    canvas.texts(PAD * 2, bottom + PAD * 2, &notes, "note");
    let widest = notes.iter().map(|note| note.chars().count() * CHAR).max().unwrap_or(0);
    let width = (x + right.width.max(220) + PAD * 2).max(widest + PAD * 4);
    canvas.finish(width, bottom + PAD * 4 + notes.len() * LINE)
}

/// Where a column ended.
struct Column {
    width: usize,
    bottom: usize,
    /// Below the pivot.
    pivot_y: Option<usize>,
}

#[derive(Default)]
struct Canvas(String);

impl Canvas {
    fn column(&mut self, x: usize, stages: &[Box], top: usize, least: usize) -> Column {
        let width = stages.iter().map(stage_width).max().unwrap_or(0).max(least);
        let mut column = Column { width, bottom: top, pivot_y: None };
        for (index, stage) in stages.iter().enumerate() {
            if index > 0 {
                let class = if column.pivot_y.is_some() { "after" } else { "arrow" };
                self.arrow(x + width / 2, column.bottom, column.bottom + GAP, class);
                column.bottom += GAP;
            }
            column.bottom += self.stage(x, column.bottom, width, stage);
            if stage.pivot_after {
                let y = column.bottom + GAP / 3;
                let _ = write!(self.0, r#"<line x1="{x}" y1="{y}" x2="{}" y2="{y}" class="pivot"/>"#, x + width);
                self.texts(x + width + 4, y + 4, &["pivot".to_owned()], "note");
                column.pivot_y = Some(y);
            }
        }
        column
    }

    /// Draws a stage; gives its height.
    fn stage(&mut self, x: usize, y: usize, width: usize, stage: &Box) -> usize {
        let height = stage_height(stage);
        let class = if stage.undone { "stage undone" } else { "stage" };
        self.rect(x, y, width, height, class);
        let mut heading = vec![stage.name.clone()];
        heading.extend(stage.notes.iter().map(|note| shorten(note)));
        self.texts(x + PAD, y + LINE, &heading[..1], "name");
        self.texts(x + PAD, y + LINE * 2, &heading[1..], "note");
        let mut inner = y + LINE * heading.len() + PAD;
        let mut across = x + PAD;
        for step in &stage.steps {
            let step_width = lines_width(step);
            self.rect(across, inner, step_width, lines_height(step), "step");
            self.texts(across + PAD, inner + LINE, &step[..1], "name");
            let rest: Vec<String> = step[1..].iter().map(|line| shorten(line)).collect();
            self.texts(across + PAD, inner + LINE * 2, &rest, "note");
            across += step_width + PAD;
        }
        inner += stage.steps.iter().map(|step| lines_height(step) + PAD).max().unwrap_or(0);
        if let Some(wait) = &stage.wait {
            self.rect(x + PAD, inner, lines_width(wait), lines_height(wait), "wait");
            self.texts(x + PAD * 2, inner + LINE, wait, "note");
        }
        height
    }

    fn end(&mut self, centre: usize, y: usize, text: &str, class: &str) {
        self.arrow(centre, y, y + GAP, "arrow");
        let width = end_width(text);
        let x = centre.saturating_sub(width / 2).max(PAD);
        let (y, height) = (y + GAP, LINE + PAD);
        let _ = write!(self.0, r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="13" class="{class}"/>"#);
        self.texts(x + PAD, y + LINE + 1, &[text.to_owned()], "name");
    }

    fn rect(&mut self, x: usize, y: usize, width: usize, height: usize, class: &str) {
        let _ = write!(self.0, r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" class="{class}"/>"#);
    }

    fn arrow(&mut self, x: usize, from: usize, to: usize, class: &str) {
        let _ =
            write!(self.0, r#"<line x1="{x}" y1="{from}" x2="{x}" y2="{to}" class="{class}" marker-end="url(#tip)"/>"#);
    }

    fn texts(&mut self, x: usize, y: usize, lines: &[String], class: &str) {
        for (index, line) in lines.iter().enumerate() {
            let y = y + index * LINE;
            let _ = write!(self.0, r#"<text x="{x}" y="{y}" class="{class}">{}</text>"#, escape(line));
        }
    }

    fn finish(self, width: usize, height: usize) -> String {
        let style = "text{font:12px sans-serif;fill:#1d2733}.title{font-size:15px;font-weight:bold}.name{font-weight:bold}\
            .note{fill:#4a5a6a}.stage{fill:#f3f6f9;stroke:#7a8b9c}.undone{stroke-dasharray:none}.step{fill:#fff;stroke:#4f7cac}\
            .wait{fill:#fff7e0;stroke:#c79a2b}.good{fill:#e3f4e4;stroke:#4b9a50}.back{fill:#fbe9e7;stroke:#c0563f}\
            line{stroke:#4a5a6a;stroke-width:1.5}.after{stroke-width:3}.pivot{stroke:#c0563f;stroke-width:2;stroke-dasharray:6 4}";
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
             <style>{style}</style>\n<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" \
             markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#4a5a6a\"/></marker></defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}\n</svg>\n",
            self.0
        )
    }
}

/// Width of the box of an end, whose text is bold.
fn end_width(text: &str) -> usize {
    text.chars().count() * (CHAR + 1) + PAD * 2
}

fn stage_width(stage: &Box) -> usize {
    let steps: usize = stage.steps.iter().map(|step| lines_width(step) + PAD).sum();
    let wait = stage.wait.as_ref().map_or(0, |wait| lines_width(wait) + PAD);
    let heading = stage.notes.iter().chain([&stage.name]).map(|line| shorten(line).chars().count() * CHAR).max();
    steps.max(wait).max(heading.unwrap_or(0) + PAD) + PAD
}

fn stage_height(stage: &Box) -> usize {
    let steps = stage.steps.iter().map(|step| lines_height(step) + PAD).max().unwrap_or(0);
    let wait = stage.wait.as_ref().map_or(0, |wait| lines_height(wait) + PAD);
    LINE * (1 + stage.notes.len()) + PAD + steps + wait
}

fn lines_width(lines: &[String]) -> usize {
    lines.iter().map(|line| shorten(line).chars().count()).max().unwrap_or(0) * CHAR + PAD * 2
}

fn lines_height(lines: &[String]) -> usize {
    lines.len() * LINE + PAD
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line.to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
