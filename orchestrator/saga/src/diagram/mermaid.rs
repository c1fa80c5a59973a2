//! Mermaid: one subgraph per stage, dotted arrows for the ways back.

use super::{Box, Sketch};
use crate::definition::Definition;
use std::fmt::Write;

/// The definition as a Mermaid flowchart.
#[must_use]
pub fn mermaid(definition: &Definition) -> String {
    let sketch = Sketch::of(definition);
    let mut out = String::from("flowchart TD\n");
    // Writing to a string cannot fail.
    let _ = draw(&sketch, &mut out);
    out
}

fn draw(sketch: &Sketch, out: &mut String) -> std::fmt::Result {
    writeln!(out, "  start([{}])", quote(std::slice::from_ref(&sketch.title)))?;
    for (prefix, boxes) in [("s", &sketch.forward), ("r", &sketch.reverse)] {
        for (index, stage) in boxes.iter().enumerate() {
            draw_stage(&format!("{prefix}{index}"), stage, out)?;
        }
    }
    let mut before = "start".to_owned();
    let mut after_pivot = sketch.pivot_at_start;
    for (index, stage) in sketch.forward.iter().enumerate() {
        writeln!(out, "  {before} {} s{index}", if after_pivot { "==>" } else { "-->" })?;
        before = format!("s{index}");
        after_pivot |= stage.pivot_after;
    }
    writeln!(
        out,
        "  {before} {} completed([{}])",
        if after_pivot { "==>" } else { "-->" },
        end("completed", &sketch.completed)
    )?;
    draw_ways_back(sketch, out)?;
    for (index, late) in sketch.late.iter().enumerate() {
        writeln!(out, "  late{index}[/{}/]", quote(&[format!("late: {late}")]))?;
    }
    Ok(())
}

fn draw_stage(id: &str, stage: &Box, out: &mut String) -> std::fmt::Result {
    let mut title = vec![stage.name.clone()];
    title.extend(stage.notes.iter().cloned());
    writeln!(out, "  subgraph {id} [{}]", quote(&title))?;
    for (index, step) in stage.steps.iter().enumerate() {
        writeln!(out, "    {id}_{index}[{}]", quote(step))?;
    }
    if let Some(wait) = &stage.wait {
        writeln!(out, "    {id}_wait{{{{{}}}}}", quote(wait))?;
        for index in 0..stage.steps.len() {
            writeln!(out, "    {id}_{index} --> {id}_wait")?;
        }
    }
    writeln!(out, "  end")
}

/// Compensation from before the pivot, reversal from after it.
fn draw_ways_back(sketch: &Sketch, out: &mut String) -> std::fmt::Result {
    let pivot = sketch.forward.iter().position(|stage| stage.pivot_after);
    if let Some(cancelled) = &sketch.cancelled {
        let last = pivot.unwrap_or(sketch.forward.len().saturating_sub(1));
        writeln!(
            out,
            "  s{last} -. {} .-> cancelled([{}])",
            quote(&["compensate".to_owned()]),
            end("cancelled", cancelled)
        )?;
    }
    let Some(reversed) = &sketch.reversed else { return Ok(()) };
    let mut before = format!("s{}", sketch.forward.len().saturating_sub(1));
    for index in 0..sketch.reverse.len() {
        writeln!(out, "  {before} -. {} .-> r{index}", quote(&["reverse".to_owned()]))?;
        before = format!("r{index}");
    }
    writeln!(out, "  {before} -. {} .-> reversed([{}])", quote(&["undo all".to_owned()]), end("reversed", reversed))
}

fn end(outcome: &str, status: &str) -> String {
    quote(&[outcome.to_owned(), format!("status {status}")])
}

/// Lines as one quoted label; what Mermaid or HTML would read as markup is spelled out.
fn quote(lines: &[String]) -> String {
    let escape = |line: &String| {
        line.replace('&', "&amp;")
            .replace('"', "&quot;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('#', "&num;")
    };
    format!("\"{}\"", lines.iter().map(escape).collect::<Vec<_>>().join("<br/>"))
}
