//! Stock, points and coupons from a file (B9): one operation of many lines, logged under its id and safe to repeat.

use super::args::BulkArgs;
use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{Output, cell, table};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long the lines of one call may take to be decided.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a line may show as unknown before it is believed.
const AGAIN: Duration = Duration::from_secs(1);

/// Sends a file's lines as one operation, waits for what comes of each, and tells of those refused.
pub(super) async fn send(
    participant: &str,
    action: &str,
    args: &BulkArgs,
    output: Output,
    client: &Client,
) -> Result<(), Failure> {
    let lines = lines(participant, action, args)?;
    client.post("/v1/operations", &json!({ "operation": args.operation, "lines": lines })).await?;
    let decided = decided(&args.operation, lines.len(), client).await?;
    let items = decided["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let with = |verdict: &str| items.iter().filter(|item| item["verdict"] == verdict).count();
    let (done, refused, unknown) = (with("done"), with("refused"), with("unknown"));
    output.print(&decided, |_| {
        let mut text = format!("{}: {done} lines done, {refused} refused", args.operation);
        text += &if unknown > 0 { format!(", {unknown} unknown\n") } else { "\n".to_owned() };
        let row = |item: &Value| ["line", "verdict", "with", "result"].map(|name| cell(&item[name])).to_vec();
        let others: Vec<_> = items.iter().filter(|item| item["verdict"] != "done").map(row).collect();
        if !others.is_empty() {
            text += &table(&["line", "verdict", "with", "result"], &others);
        }
        text
    })?;
    match (refused, unknown) {
        (0, 0) => Ok(()),
        (_, 1..) => Err(Failure::no(format!("{unknown} lines are unknown: nothing was changed by them"))
            .hint("send the file again under the same id once the cause is gone: what is done is not done twice")),
        (n, 0) => Err(Failure::no(format!("{n} lines were refused"))
            .hint("correct them in a file of their own, and send it under another operation id")),
    }
}

fn lines(participant: &str, action: &str, args: &BulkArgs) -> Result<Vec<Value>, Failure> {
    let text = super::definition::read(&args.file)?;
    let numbered = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let lines: Vec<Value> = numbered
        .map(|(number, line): (usize, &str)| match serde_json::from_str::<Value>(line) {
            Ok(with) if with.is_object() => Ok(json!({ "participant": participant, "action": action, "with": with })),
            Ok(_) => Err(bad_line(args, number, 1, "expected a JSON object")),
            Err(error) => Err(bad_line(args, number, error.column(), &error.to_string())),
        })
        .collect::<Result<_, _>>()?;
    if lines.is_empty() {
        return Err(bad_line(args, 1, 1, "the file has no line"));
    }
    Ok(lines)
}

fn bad_line(args: &BulkArgs, line: usize, column: usize, reason: &str) -> Failure {
    let failure = Failure::usage(format!("{}:{line}:{column}: error[E2901]: {reason}", args.file.display()));
    failure.hint("nothing was sent")
}

/// Waits until every line is decided; what is not by then stays queued and can be looked up later.
async fn decided(operation: &str, lines: usize, client: &Client) -> Result<Value, Failure> {
    let path = format!("/v1/operations/{}", segment(operation));
    let started = Instant::now();
    loop {
        let found = client.get(&path, &[]).await?;
        let items = found["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        // A line that was unknown before shows so until it is decided again.
        let settled = started.elapsed() > AGAIN || items.iter().all(|item| item["verdict"] != "unknown");
        if items.len() >= lines && settled {
            return Ok(found);
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::no(format!("{operation} is queued, but not all of it is decided after {PATIENCE:?}"))
                .hint("send it again later: the same operation id changes nothing and shows what came of it"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
